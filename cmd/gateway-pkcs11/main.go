//go:build cgo

// Command gateway-pkcs11 is the helper that has a PKCS#11 token for the gateway's seals. It is a program of its own, so
// that the gateway stays static and a vendor's C library runs in another process, as another user: it wraps and unwraps
// root keys over a Unix socket, and the token's key never leaves the token.
//
// Exit codes: 0 stopped, 1 a fault, 2 wrong use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"dimegate/internal/safefile"
	"dimegate/vault/seals"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUse):
		fmt.Fprintln(os.Stderr, "gateway-pkcs11:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "gateway-pkcs11:", err)
	os.Exit(1)
}

var errUse = errors.New("wrong use: see --help")

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("gateway-pkcs11", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Usage: gateway-pkcs11 --module FILE --token LABEL --key LABEL --pin-file FILE (--make-key | --socket PATH --allow USER,...)\n\n")
		f.PrintDefaults()
	}
	module := f.String("module", "", "the PKCS#11 library, a `FILE`")
	label := f.String("token", "", "`LABEL` of the token")
	key := f.String("key", "", "`LABEL` of the AES-256 key in it")
	pinFile := f.String("pin-file", "", "`FILE` with the user PIN, one line, mode 0600")
	makeKey := f.Bool("make-key", false, "make the key in the token, and stop")
	socket := f.String("socket", "", "`PATH` of the Unix socket to answer at, in a folder where nobody else may write")
	allow := f.String("allow", "", "`USERS` that may ask, names or numbers, with commas between")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil || f.NArg() > 0 {
		return errUse
	}
	if *module == "" || *label == "" || *key == "" || *pinFile == "" || *makeKey == (*socket != "") {
		return errUse
	}
	pin, err := safefile.ReadSecret(*pinFile, 256)
	if err != nil {
		return err
	}
	t, err := openToken(*module, *label, *key, strings.TrimRight(string(pin), "\r\n"))
	clear(pin)
	if err != nil {
		return err
	}
	defer t.close()
	if *makeKey {
		return t.makeKey()
	}
	users, err := parseUsers(*allow)
	if err != nil {
		return err
	}
	return serve(ctx, t, *socket, users)
}

// parseUsers reads names and numbers.
func parseUsers(list string) (map[uint32]bool, error) {
	users := map[uint32]bool{}
	for name := range strings.SplitSeq(list, ",") {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: --allow: there is no user %q", errUse, name)
		}
		users[uint32(n)] = true
	}
	return users, nil
}

// serve answers at the socket. A socket that is left from a run before is taken away.
func serve(ctx context.Context, t *token, socket string, users map[uint32]bool) error {
	if st, err := os.Lstat(socket); err == nil && st.Mode().Type() == fs.ModeSocket {
		os.Remove(socket)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := os.Chmod(socket, 0o666); err != nil { // who may ask is looked up in the kernel, by user
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	log.Info("listening", "socket", socket)
	return seals.ServeToken(ctx, ln, t, func(uid uint32) bool { return users[uid] }, func(uid uint32, op string, err error) {
		if err != nil {
			log.Warn("refused or failed", "user", uid, "operation", op, "error", err)
			return
		}
		log.Info("done", "user", uid, "operation", op)
	})
}

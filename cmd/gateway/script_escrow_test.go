package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/rogpeppe/go-internal/testscript"

	"dimegate/internal/testescrow"
	"dimegate/vault/escrow"
)

// labToken is an age plugin whose tokens are X25519 keys in the identity itself: as fast as a token that needs no touch. Without the
// argument that age gives it makes a token's identity file.
func labToken() {
	if len(os.Args) == 2 && !strings.HasPrefix(os.Args[1], "-") {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			panic(err)
		}
		text := fmt.Sprintf("# Recipient: %s\n%s\n", plugin.EncodeRecipient("lab", []byte(id.Recipient().String())), plugin.EncodeIdentity("lab", []byte(id.String())))
		if err := os.WriteFile(os.Args[1], []byte(text), 0o600); err != nil {
			panic(err)
		}
		return
	}
	p, err := plugin.New("lab")
	if err != nil {
		panic(err)
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) { return age.ParseX25519Identity(string(data)) })
	p.RegisterFlags(nil)
	flag.Parse()
	os.Exit(p.Main())
}

// An archiveState is what the script command "archive" has made in one script.
type archiveState struct {
	archive *testescrow.Archive
	key     *escrow.Key
	epochs  []*escrow.Epoch
	open    *testescrow.Case
}

var archives sync.Map // by the script's folder

// archiveCommand plays the gateway and the discovery station in scripts:
//
//	archive new                      makes an archive; sets LOG and WITNESS to the verifier keys
//	archive seal -key F -epochs F,F -n N -custodians A,B STATEMENT...
//	archive case -custodians A,B [-basis B] [-requester R] [-class N] [-life D] [-known N,N] FILE
//	archive open -want N ANSWER...   combines, and compares what comes out; with ! it must not open
func archiveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: archive new|seal|case|open")
	}
	v, _ := archives.LoadOrStore(ts.Getenv("WORK"), &archiveState{})
	a := v.(*archiveState)
	commands := map[string]func(*testscript.TestScript, []string) error{"new": a.fresh, "seal": a.seal, "case": a.newCase, "open": a.combine}
	f, ok := commands[args[0]]
	if !ok {
		ts.Fatalf("archive: unknown command %q", args[0])
	}
	err := f(ts, args[1:])
	if neg && err == nil {
		ts.Fatalf("archive %s: unexpected success", args[0])
	}
	if !neg && err != nil {
		ts.Fatalf("archive %s: %v", args[0], err)
	}
	if err != nil {
		fmt.Fprintln(ts.Stdout(), err)
	}
}

func (a *archiveState) fresh(ts *testscript.TestScript, _ []string) error {
	a.archive = testescrow.New()
	t, err := a.archive.Trust()
	if err != nil {
		return err
	}
	ts.Setenv("LOG", t.Log)
	ts.Setenv("WITNESS", t.Witnesses[0])
	return nil
}

func (a *archiveState) seal(ts *testscript.TestScript, args []string) error {
	fs := flag.NewFlagSet("seal", flag.ContinueOnError)
	key, n, class := fs.String("key", "", ""), fs.Int("n", 1, ""), fs.Uint("class", 1, "")
	var epochs, custodians list
	fs.Var(&epochs, "epochs", "")
	fs.Var(&custodians, "custodians", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var err error
	if a.key, err = escrow.ParseKey(read(ts, *key)); err != nil {
		return err
	}
	a.epochs = nil
	for _, name := range epochs {
		e, err := escrow.ParseEpoch(read(ts, name))
		if err != nil {
			return err
		}
		a.epochs = append(a.epochs, e)
	}
	var attestations []*escrow.Statement
	for _, name := range fs.Args() {
		s, err := escrow.ParseStatement(read(ts, name))
		if err != nil {
			return err
		}
		attestations = append(attestations, s)
	}
	s, err := escrow.NewSealer(a.key, a.epochs, attestations)
	if err != nil {
		return err
	}
	for i := range *n {
		if err := a.archive.Seal(s, fmt.Appendf(nil, "message %d", i), uint16(*class), time.Now(), custodians...); err != nil {
			return err
		}
	}
	return nil
}

func read(ts *testscript.TestScript, name string) []byte {
	b, err := os.ReadFile(ts.MkAbs(name))
	ts.Check(err)
	return b
}

func (a *archiveState) newCase(ts *testscript.TestScript, args []string) error {
	fs := flag.NewFlagSet("case", flag.ContinueOnError)
	o := testescrow.Order{Key: a.key, Epoch: a.epochs[len(a.epochs)-1], Opened: time.Now(), First: escrow.MonthOf(time.Now()), Last: escrow.MonthOf(time.Now())}
	fs.StringVar(&o.Basis, "basis", "a request", "")
	fs.StringVar(&o.Requester, "requester", "rita@example.org", "")
	fs.DurationVar(&o.Life, "life", 24*time.Hour, "")
	fs.Var((*list)(&o.Custodians), "custodians", "")
	class, known, ago := fs.Uint("class", 1, ""), fs.Int64("known", 0, ""), fs.Duration("ago", 0, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Class, o.Known, o.Opened = uint16(*class), []int64{*known}, o.Opened.Add(-*ago)
	var err error
	if a.open, err = a.archive.Open(o); err != nil {
		return err
	}
	ts.Setenv("SIZE", fmt.Sprint(a.open.File.Size))
	var b bytes.Buffer
	if err := a.archive.WriteBundle(context.Background(), &b, a.open); err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(fs.Arg(0)), b.Bytes(), 0o600)
}

func (a *archiveState) combine(ts *testscript.TestScript, args []string) error {
	fs := flag.NewFlagSet("open", flag.ContinueOnError)
	want := fs.Int("want", 0, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var files []string
	for _, name := range fs.Args() {
		files = append(files, ts.MkAbs(name))
	}
	r, err := a.archive.Combine(context.Background(), a.key, a.epochs[len(a.epochs)-1], a.open, files...)
	var blamed []string
	if r != nil {
		for _, b := range append(r.Refused, r.Unopenable...) {
			blamed = append(blamed, b.String())
		}
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, strings.Join(blamed, "; "))
	}
	fmt.Fprintf(ts.Stdout(), "opened %d; %s\n", len(r.Opened), strings.Join(blamed, "; "))
	if len(r.Opened) != *want {
		return errors.New("another number of messages came out")
	}
	return nil
}

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/vault"
	"dimegate/vault/archive"
)

// freePort sets a variable to an address of loopback that nobody listens on.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], ln.Addr().String())
	ts.Check(ln.Close())
}

// waitListen waits until somebody listens.
func waitListen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitlisten ADDRESS")
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", args[0]); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("nobody listens on %s", args[0])
}

// keepCommand is the scripts' "keep AUTHOR RECIPIENT CUSTODIAN,CUSTODIAN TEXT...": a message for each text in the archive of
// gateway.toml, as an intake puts it there.
func keepCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: keep AUTHOR RECIPIENT CUSTODIANS TEXT...")
	}
	c, err := config.Load(filepath.Join(ts.Getenv("WORK"), "gateway.toml"))
	ts.Check(err)
	ctx := context.Background()
	v, err := keystore.Open(ctx, c.Vault, false)
	ts.Check(err)
	defer v.Close()
	a, err := archive.Open(ctx, v.Vault)
	ts.Check(err)
	for _, text := range args[3:] {
		ts.Check(keepMail(ctx, v.Vault, a, args[0], args[1], strings.Split(args[2], ","), text))
	}
}

func keepMail(ctx context.Context, v *vault.Vault, a *archive.Archive, from, to string, custodians []string, text string) error {
	now := time.Now()
	keep, err := a.Keeping(ctx, archive.Message{Author: from, Recipients: []string{to}, Custodians: custodians, Class: 1, Retention: time.Hour})
	if err != nil {
		return err
	}
	d, err := v.NewDraft()
	if err != nil {
		return err
	}
	d.Keep(keep)
	if _, err := fmt.Fprintf(d, "From: %s\r\nTo: %s\r\nSubject: about %s\r\n\r\n%s\r\n", from, to, strings.Fields(text)[0], text); err != nil {
		return err
	}
	envelope, err := json.Marshal(bridge.Arrival{Origin: "b.example", Author: from, Recipient: to, ReturnPath: from, At: now})
	if err != nil {
		return err
	}
	id := vault.InboundID{Origin: "b.example"}
	rand.Read(id.Message[:])
	if _, err := v.BeginInbound(ctx, d, id, envelope, now); err != nil {
		return err
	}
	return v.EndInbound(ctx, id, 0, "", []byte("accepted"), now)
}

// setVar sets a variable to what the first group of an expression finds in the last command's output.
func setVar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setvar NAME EXPRESSION")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("%s: not in the output, or no group", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// smtpCommand is the scripts' "smtp ADDRESS FROM TO TEXT...": hands a message for each text to the submission listener of a gateway.
func smtpCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: smtp ADDRESS FROM TO TEXT...")
	}
	for _, text := range args[3:] {
		octets := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: about %s\r\nMessage-ID: <%s@a.example>\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n%s\r\n",
			args[1], args[2], strings.Fields(text)[0], strings.Fields(text)[0], text)
		ts.Check(sendPlain(args[0], args[1], args[2], octets))
	}
}

// sendPlain is smtp.SendMail without STARTTLS: nobody vouches for a test's certificate.
func sendPlain(address, from, to, octets string) error {
	c, err := smtp.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.Mail(from), c.Rcpt(to)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, octets); err != nil {
		return err
	}
	return errors.Join(w.Close(), c.Quit())
}

// spliceCommand is the scripts' "splice BUNDLE OUT CUSTODIAN PARTY": the bundle with a wrap of another record in place of its last, as
// an operator could make it who wants that record opened, too.
func spliceCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: splice BUNDLE OUT CUSTODIAN PARTY")
	}
	c, err := config.Load(filepath.Join(ts.Getenv("WORK"), "gateway.toml"))
	ts.Check(err)
	ctx := context.Background()
	v, err := keystore.Open(ctx, c.Vault, false)
	ts.Check(err)
	defer v.Close()
	a, err := archive.Open(ctx, v.Vault)
	ts.Check(err)
	var wrap []byte
	ts.Check(a.Search(ctx, archive.Query{Custodians: []string{args[2]}, Parties: []string{args[3]}}, func(h archive.Hit) (err error) {
		wrap, _, err = a.Wrap(ctx, h.Record, h.Wraps[0].Digest)
		return err
	}))
	b := read(ts, args[0])
	if len(wrap) == 0 || len(b) < len(wrap) {
		ts.Fatalf("nothing is found")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), append(b[:len(b)-len(wrap)], wrap...), 0o600))
}

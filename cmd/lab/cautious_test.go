package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/internal/testpeer"
)

// TestCautious takes two users of one organisation to keys of their own by the commands, one who had none and one whom the gateway had
// made keys for, and has mail come for both: what is for their own keys arrives sealed, and opens by gateway message open with
// nothing but their files. What one of them sends in clear comes back.
func TestCautious(t *testing.T) {
	testpeer.Require(t, "unbound")
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	ctx := limited(t)
	w, err := newEnrolWorld(ctx, testpeer.New(t), binary, 50)
	if err != nil {
		t.Fatal(err)
	}
	c := &cautious{t: t, ctx: ctx, enrolWorld: w, dir: t.TempDir()}
	const sender, old, fresh = "u0001@alpha.test", "m1@bravo.test", "m2@bravo.test"

	if got := c.mail(sender, old, "before"); !strings.Contains(got, "X-DIME: yes; author="+sender) {
		t.Fatalf("trustful mail: %.300q", got)
	}
	c.run(0, "signet", "request", "--keys", c.path("m2.key"), "--out", c.path("m2.request"))
	if out := c.run(3, "keys", "sign-request", "--config", w.bravo.Config, "--for", fresh, c.path("m2.request")); !strings.Contains(out, "cautious_accounts") {
		t.Errorf("where the mode is not permitted: %s", out)
	}
	if err := w.bravo.Configure(func(text string) string {
		return strings.Replace(benchSettings(text), "[[organization]]\n", "[[organization]]\ncautious_accounts = true\n", 1)
	}); err != nil {
		t.Fatal(err)
	}
	c.run(0, "keys", "sign-request", "--config", w.bravo.Config, "--for", fresh, "--out", c.path("m2.signet"), c.path("m2.request"))

	c.run(0, "signet", "request", "--keys", c.path("m1.key"), "--out", c.path("m1.bare"))
	if out := c.run(1, "keys", "sign-request", "--config", w.bravo.Config, "--for", old, c.path("m1.bare")); !strings.Contains(out, "gateway keys vouch") {
		t.Errorf("a request that follows nothing: %s", out)
	}
	c.run(0, "keys", "vouch", "--config", w.bravo.Config, "--for", old, "--out", c.path("m1.custody"), c.path("m1.bare"))
	c.run(0, "signet", "request", "--keys", c.path("m1.key"), "--custody", c.path("m1.custody"), "--out", c.path("m1.request"))
	c.run(0, "keys", "sign-request", "--config", w.bravo.Config, "--for", old, "--out", c.path("m1.signet"), c.path("m1.request"))

	if got := c.mail(sender, old, "amid"); !strings.Contains(got, "X-DIME: yes; author="+sender) {
		t.Errorf("mail to the key from before, which alpha may use for its cache's time: %.300q", got)
	}
	if err := errors.Join(w.alpha.Stop(), w.alpha.Run(ctx)); err != nil { // alpha's cache is gone
		t.Fatal(err)
	}
	for user, address := range map[string]string{"m1": old, "m2": fresh} {
		c.opens(user, sender, c.mail(sender, address, "after "+user))
	}
	notice := c.comes(func() { c.submit(w.Bravo.DX, fresh, sender, "in clear") })
	if !strings.Contains(notice, "5.7.10") || !strings.Contains(notice, "own client") || !strings.Contains(notice, "To: <"+fresh+">") {
		t.Errorf("what he sent in clear: %s", notice)
	}

	c.run(1, "keys", "take-back", "--config", w.bravo.Config, "--for", fresh, "--keys", c.path("m1.key"))
	c.run(0, "keys", "take-back", "--config", w.bravo.Config, "--for", fresh, "--keys", c.path("m2.key"))
	if got := c.comes(func() { c.submit(w.Bravo.DX, fresh, sender, "as before") }); !strings.Contains(got, "X-DIME: yes; author="+fresh) {
		t.Errorf("what he sends after he came back: %.300q", got)
	}

	var log struct{ Leaves map[string]int }
	if err := json.Unmarshal([]byte(c.run(0, "audit", "verify", "--json", "--config", w.bravo.Config)), &log); err != nil {
		t.Fatal(err)
	}
	if log.Leaves["key vouched"] != 1 || log.Leaves["key admitted"] != 2 {
		t.Errorf("the log: %v", log.Leaves)
	}
}

// cautious is what TestCautious does with a world.
type cautious struct {
	*enrolWorld
	t   *testing.T
	ctx context.Context
	dir string // of the users' files
}

func (c *cautious) path(name string) string { return filepath.Join(c.dir, name) }

// run runs a command that is to end with a code, and returns all that it wrote.
func (c *cautious) run(code int, args ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(c.ctx, c.alpha.binary, args...).CombinedOutput()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	if got != code {
		c.t.Fatalf("gateway %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// secretLine is what only sender and recipient may read.
const secretLine = "the terms of the merger"

func (c *cautious) submit(dx, from, to, subject string) {
	c.t.Helper()
	s, err := testpeer.DialSMTP(c.ctx, dx+":2525")
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(from, []string{to}, []byte("From: "+from+"\r\nTo: "+to+"\r\nSubject: "+subject+"\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@lab.test>\r\n\r\n"+secretLine+"\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// mail sends from alpha, and returns what bravo's mail server gets.
func (c *cautious) mail(from, to, subject string) string {
	c.t.Helper()
	return c.comes(func() { c.submit(c.Alpha.DX, from, to, subject) })
}

// comes returns the next message that a mail server gets after something was done.
func (c *cautious) comes(after func()) (got string) {
	c.t.Helper()
	n := c.counted.others(0)
	after()
	if err := testpeer.Until(c.ctx, func() bool { return len(c.counted.others(0)) > len(n) }); err != nil {
		c.t.Fatal(err)
	}
	return c.counted.others(len(n))[0]
}

// opens takes a mail that brings a sealed message apart, as a mail program does, and opens it with a user's files.
func (c *cautious) opens(user, author, carrier string) {
	c.t.Helper()
	if strings.Contains(carrier, secretLine) || strings.Contains(carrier, author) || strings.Contains(carrier, "after") || !strings.Contains(carrier, "X-DIME: sealed; origin=alpha.test\r\n") {
		c.t.Errorf("%s: it was opened, or tells what is sealed: %s", user, carrier)
	}
	dir := c.path(user)
	if err := os.Mkdir(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	saveAttachments(c.t, carrier, dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	open := []string{"message", "open", "--as", "recipient", "--keys", c.path(user + ".key"), "--origin-signet", file("origin.signet"),
		"--recipient-signet", file("recipient.signet"), "--eml", file("message.eml")}
	if out := c.run(2, append(open, file("message.dmsg"))...); !strings.Contains(out, author) {
		c.t.Errorf("%s: who the author is: %s", user, out)
	}
	c.run(0, "signet", "fetch", "--config", c.bravo.Config, "--out", file("author.signet"), author)
	c.run(0, append(open, "--author-signet", file("author.signet"), file("message.dmsg"))...)
	eml, err := os.ReadFile(file("message.eml"))
	if err != nil || !bytes.HasSuffix(eml, []byte("Subject: after "+user+"\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@lab.test>\r\n\r\n"+secretLine+"\r\n")) {
		c.t.Errorf("%s: %q, %v", user, eml, err)
	}
	own, err := os.ReadFile(c.path(user + ".signet"))
	if err != nil {
		c.t.Fatal(err)
	}
	if came, err := os.ReadFile(file("recipient.signet")); err != nil || !bytes.Equal(bytes.ReplaceAll(came, []byte("\r\n"), []byte("\n")), own) {
		c.t.Errorf("%s: the signet that came with it is not his: %v", user, err)
	}
}

// saveAttachments writes the attachments of a mail to a folder.
func saveAttachments(t *testing.T, text, dir string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			if b, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(string(b), "\r\n", "")); err != nil {
				t.Fatal(err)
			}
		}
		if p.FileName() != "" {
			if err := os.WriteFile(filepath.Join(dir, p.FileName()), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

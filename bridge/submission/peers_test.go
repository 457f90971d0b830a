package submission

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// A real Postfix with us for its smart host, over TLS: each message of ours arrives with the octets that Postfix makes of it.
func TestFromPostfix(t *testing.T) {
	testpeer.Require(t, "postfix")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	in := &inbox{}
	addr := start(t, func(c *Config) { c.TLS = serverTLS(t) }, in)
	b := testpeer.New(t)
	host, err := b.Address()
	if err != nil {
		t.Fatal(err)
	}
	ip, port, _ := strings.Cut(addr, ":")
	postfix, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: host + ":25", Hostname: "mx.alpha.example", Domain: "alpha.example",
		Relayhost: "[" + ip + "]:" + port, Main: []string{"smtp_tls_security_level = encrypt", "smtpd_forbid_bare_newline = no", "header_size_limit = 2000000"}})
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]testmail.Message{}
	for _, m := range testmail.Ours(t) {
		facts, _ := smtpwire.Examine(bytes.NewReader(m.Raw))
		if facts.BareEnds || !facts.FinalEnd || facts.Longest > 900 || !bytes.Contains(m.Raw, []byte("\r\n\r\n")) || m.Raw[0] == ' ' || m.Name == "garbage-in-header" {
			continue // what Postfix mends or refuses by itself
		}
		c, err := testpeer.DialSMTP(ctx, postfix.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Send("alice@alpha.example", []string{m.Name + "@bravo.example"}, m.Raw); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		c.Close()
		sent[m.Name+"@bravo.example"] = m
	}
	if err := testpeer.Until(ctx, func() bool { return len(in.all()) >= len(sent) }); err != nil {
		t.Fatalf("%d of %d arrived: %v", len(in.all()), len(sent), err)
	}
	for _, got := range in.all() {
		m := sent[got.env.To[0].Address]
		if body := m.Raw[bytes.Index(m.Raw, []byte("\r\n\r\n")):]; !strings.HasSuffix(got.message(), string(body)) {
			t.Errorf("%s: the body differs:\n%.300q", m.Name, got.message())
		}
		if got.env.TLS == 0 || got.env.From != "alice@alpha.example" || !strings.HasPrefix(got.message(), "Received: ") {
			t.Errorf("%s: %+v", m.Name, got.env)
		}
	}
	if len(sent) < 30 {
		t.Errorf("only %d messages", len(sent))
	}
}

// smtp-source, many sessions at one time and many messages in each; swaks with pipelining, TLS and a password.
func TestFromTools(t *testing.T) {
	testpeer.Require(t, "postfix", "swaks")
	in := &inbox{}
	addr := start(t, func(c *Config) { c.TLS, c.Users = serverTLS(t), users(t) }, in)
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("/usr/sbin/smtp-source", "-s", "10", "-m", "500", "-d", "-l", "5120", "-f", "a@alpha.example", "-t", "b@bravo.example", addr)
	if n := len(in.all()); n != 500 {
		t.Errorf("%d of 500 arrived", n)
	}
	common := []string{"--server", addr, "--from", "a@alpha.example", "--to", "b@bravo.example,c@bravo.example", "--silent", "2"}
	run("swaks", append(common, "--pipeline")...)
	run("swaks", append(common, "--tls")...)
	run("swaks", append(common, "--tls", "--auth", "LOGIN", "--auth-user", "exchange", "--auth-password", "secret one")...)
	run("swaks", append(common, "--tls", "--auth", "PLAIN", "--auth-user", "printer", "--auth-password", "secret two")...)
	got := in.all()
	if len(got) != 504 || len(got[503].env.To) != 2 || got[503].env.User != "printer" || got[502].env.User != "exchange" || got[501].env.TLS == 0 {
		t.Errorf("%d arrived, the last %+v", len(got), got[len(got)-1].env)
	}
}

// BenchmarkSubmission is acceptance alone: one session, messages of 10 KB.
func BenchmarkSubmission(b *testing.B) {
	addr := start(b, nil, &inbox{take: func(_ Envelope, body io.Reader) error { _, err := io.Copy(io.Discard, body); return err }})
	p := dial(b, addr).hello()
	p.conn.SetDeadline(time.Time{})
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 128)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		p.send("MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\nDATA\r\n")
		p.want("250", "250", "354")
		p.send(body + ".\r\n")
		p.want("250")
	}
}

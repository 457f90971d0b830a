package dmtpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"dimegate/internal/testcert"
)

// An inner is the SMTP engine behind the shared port: go-smtp, which keeps what it gets.
type inner struct {
	mu     sync.Mutex
	bodies []string
	inTLS  []bool
}

type smtpSession struct {
	in *inner
	c  *smtp.Conn
}

func (in *inner) NewSession(c *smtp.Conn) (smtp.Session, error) { return &smtpSession{in, c}, nil }

func (*smtpSession) Reset()                               {}
func (*smtpSession) Logout() error                        { return nil }
func (*smtpSession) Mail(string, *smtp.MailOptions) error { return nil }
func (*smtpSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *smtpSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if strings.Contains(string(b), "refuse me") {
		return errors.New("refused")
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.bodies = append(s.in.bodies, string(b))
	_, isTLS := s.c.TLSConnectionState()
	if !isTLS {
		_, isTLS = ConnectionState(s.c.Conn())
	}
	s.in.inTLS = append(s.in.inTLS, isTLS)
	return err
}

// runDual runs a server whose shared port has go-smtp behind it.
func runDual(t *testing.T, change func(*Config)) (*running, *inner, *backend) {
	t.Helper()
	in := new(inner)
	engine := smtp.NewServer(in)
	engine.Domain = "mx.b.example"
	engine.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testcert.RSA(t, "mx.b.example")}}
	engine.ReadTimeout = 10 * time.Second
	b := newBackend(newWorld(t, 1))
	c := b.config(t)
	h := NewHandover(&net.TCPAddr{})
	c.SMTP = h.SMTP
	if change != nil {
		change(&c)
	}
	var wg sync.WaitGroup
	wg.Go(func() { engine.Serve(h) })
	t.Cleanup(func() { engine.Close(); wg.Wait() }) // runs after the server's own
	return run(t, c), in, b
}

const dualBanner = "220 dx.b.example ESMTP DMTPv1 test"

// mail sends one message by SMTP.
func (w *wire) mail(body string) {
	w.tb.Helper()
	w.ask("MAIL FROM:<a@a.example>", "250")
	w.ask("RCPT TO:<b@b.example>", "250")
	w.ask("DATA", "354")
	w.ask(body+"\r\n.", "250")
}

func (w *wire) ehlo() {
	w.tb.Helper()
	w.send("EHLO client.example\r\n")
	for !strings.HasPrefix(w.want("250"), "250 ") {
	}
}

// dmtp goes over to DMTP and asks for something.
func (w *wire) dmtp(line string) tls.ConnectionState {
	w.tb.Helper()
	w.send(line + "\r\n")
	w.want("220-SENDING CERTIFICATE FOR DOMAIN <")
	w.want("220 READY")
	state := w.upgrade("")
	w.want("250 OK DMTPv1")
	w.ask("SGNT <b.example>", "270 OK [")
	return state
}

// TestDual is dmtp.md §2.8 and §2.9 on the shared port.
func TestDual(t *testing.T) {
	tests := map[string]struct {
		script func(c *wire)
		bodies []string
	}{
		"libdime":            {func(c *wire) { c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1") }, nil},
		"without a mode":     {func(c *wire) { c.dmtp("starttls <DX.b.example.>") }, nil},
		"named":              {func(c *wire) { c.dmtp("STARTTLS HOST=<dx.b.example> MODE=DMTP") }, nil},
		"by address":         {func(c *wire) { c.dmtp("STARTTLS <127.0.0.1>") }, nil},
		"by the mail domain": {func(c *wire) { c.dmtp("STARTTLS <b.example> MODE=DMTPv1") }, nil},
		"certificate by name": {func(c *wire) {
			s := c.dmtp("STARTTLS <mx.other.example> MODE=DMTPv1")
			if got := s.PeerCertificates[0].Subject.CommonName; got != "mx.other.example" {
				c.tb.Errorf("shown the certificate of %s", got)
			}
		}, nil},
		"refused, then right": {func(c *wire) {
			c.ask("STARTTLS <unknown.example> MODE=DMTPv1", "554 CERTIFICATE NOT FOUND FOR DOMAIN")
			c.ask("STARTTLS <> MODE=DMTPv1", "501 BAD STARTTLS SYNTAX")
			c.ask("STARTTLS <dx.b.example> MODE=XMTP", "501 BAD STARTTLS SYNTAX")
			c.ask("MODE", "200 OK ESMTP")
			c.ask("SGNT <b.example>", "503 DMTP COMMAND REQUIRES STARTTLS FIRST")
			c.ask("HIST <b.example>", "503")
			c.ask("EHLO <a.example>", "503")
			c.ask("EHLO HOST=<a.example>", "503")
			c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1")
			c.ask("STARTTLS <dx.b.example>", "454 SESSION IS ALREADY ENCRYPTED")
		}, nil},
		"refused, then SMTP": {func(c *wire) {
			c.ask("STARTTLS <unknown.example> MODE=DMTPv1", "554")
			c.ehlo()
			c.mail("plain")
		}, []string{"plain\r\n"}},
		"quit":    {func(c *wire) { c.ask("QUIT", "221 BYE"); c.gone() }, nil},
		"SMTP":    {func(c *wire) { c.ehlo(); c.mail("plain"); c.ask("QUIT", "221") }, []string{"plain\r\n"}},
		"HELO":    {func(c *wire) { c.ask("HELO client.example", "250"); c.mail("plain") }, []string{"plain\r\n"}},
		"NOOP":    {func(c *wire) { c.ask("NOOP", "250 2.0.0"); c.ehlo() }, nil},
		"VRFY":    {func(c *wire) { c.ask("VRFY x", "252") }, nil},
		"MAIL":    {func(c *wire) { c.ask("MAIL FROM:<a@a.example>", "502") }, nil},
		"rubbish": {func(c *wire) { c.ask("GET / HTTP/1.1", "501"); c.ehlo() }, nil},
		"binary":  {func(c *wire) { c.ask("\x16\x03\x01\x02", "50") }, nil},
		"SMTP with TLS": {func(c *wire) {
			c.ehlo()
			c.ask("STARTTLS", "220")
			if got := c.upgrade("").PeerCertificates[0].Subject.CommonName; got != "mx.b.example" {
				c.tb.Errorf("shown the certificate of %s", got)
			}
			c.ehlo()
			c.mail("in TLS")
			c.ask("STARTTLS <dx.b.example> MODE=DMTPv1", "502") // go-smtp's own word; never DMTP
			c.mail("in TLS")
		}, []string{"in TLS\r\n", "in TLS\r\n"}},
		"bare STARTTLS first": {func(c *wire) {
			c.ask("STARTTLS", "220")
			c.upgrade("")
			c.ehlo()
		}, nil},
		"SMTP by the DMTP form": {func(c *wire) {
			c.send("STARTTLS <dx.b.example> MODE=SMTP\r\n")
			c.want("220-")
			c.want("220 ")
			c.upgrade("")
			c.want("250 OK SMTP")
			c.ehlo()
			c.mail("in TLS")
		}, []string{"in TLS\r\n"}},
		"DMTP in the middle of SMTP": {func(c *wire) { c.ehlo(); c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1") }, nil},
		"DMTP after a message": {func(c *wire) {
			c.ehlo()
			c.mail("plain\r\nSTARTTLS <dx.b.example>\r\n.. dots")
			c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1")
		}, []string{"plain\r\nSTARTTLS <dx.b.example>\r\n. dots\r\n"}},
		"DMTP after a refused message": {func(c *wire) {
			c.ehlo()
			c.ask("MAIL FROM:<a@a.example>", "250")
			c.ask("RCPT TO:<b@b.example>", "250")
			c.ask("DATA", "354")
			c.ask("refuse me\r\n.", "554")
			c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1")
		}, nil},
		"not with a message under way": {func(c *wire) {
			c.ehlo()
			c.ask("MAIL FROM:<a@a.example>", "250")
			c.ask("STARTTLS <dx.b.example> MODE=DMTPv1", "503")
			c.ask("RCPT TO:<b@b.example>", "250")
			c.ask("STARTTLS <dx.b.example>", "503")
			c.ask("RSET", "250")
			c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1")
		}, nil},
		"refused in the middle of SMTP": {func(c *wire) {
			c.ehlo()
			c.ask("STARTTLS <unknown.example> MODE=DMTPv1", "554")
			c.ehlo() // the SMTP session begins anew
			c.mail("plain")
		}, []string{"plain\r\n"}},
		"pipelined SMTP": {func(c *wire) {
			c.ehlo()
			c.send("MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
			c.want("250")
			c.want("250")
			c.want("354")
			c.send("one\r\n.\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
			for _, want := range []string{"250", "250", "250", "354"} {
				c.want(want)
			}
			c.send("two\r\n.\r\nQUIT\r\n")
			c.want("250")
			c.want("221")
		}, []string{"one\r\n", "two\r\n"}},
		"chunks": {func(c *wire) {
			c.ehlo()
			c.ask("MAIL FROM:<a@a.example>", "250")
			c.ask("RCPT TO:<b@b.example>", "250")
			c.send("BDAT 25\r\nSTARTTLS <dx.b.example>\r\nBDAT 0 LAST\r\n")
			c.want("250")
			c.want("250")
		}, []string{"STARTTLS <dx.b.example>\r\n"}},
		"a long line": {func(c *wire) {
			c.ehlo()
			c.mail(strings.Repeat("a", 1500) + "\r\nb")
		}, []string{strings.Repeat("a", 1500) + "\r\nb\r\n"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, in, _ := runDual(t, nil)
			c := dialClear(t, r.dual)
			c.want(dualBanner)
			tt.script(c)
			in.mu.Lock()
			defer in.mu.Unlock()
			if strings.Join(in.bodies, "|") != strings.Join(tt.bodies, "|") {
				t.Errorf("SMTP got %q, want %q", in.bodies, tt.bodies)
			}
			for i, b := range in.bodies {
				if in.inTLS[i] != strings.HasPrefix(b, "in TLS") {
					t.Errorf("the engine thinks that TLS is %v", in.inTLS[i])
				}
			}
		})
	}
}

// TestInjection sends commands in clear behind STARTTLS: they must never be answered inside TLS.
func TestInjection(t *testing.T) {
	r, in, _ := runDual(t, nil)
	t.Run("DMTP", func(t *testing.T) {
		c := dialClear(t, r.dual)
		c.want(dualBanner)
		c.send("STARTTLS <dx.b.example> MODE=DMTPv1\r\nSGNT <b.example>\r\nNOOP\r\n")
		c.want("220-")
		c.want("220 ")
		c.upgrade("")
		c.want("250 OK DMTPv1")
		c.ask("MODE", "200 OK DMTPv1")
	})
	t.Run("SMTP", func(t *testing.T) {
		c := dialClear(t, r.dual)
		c.want(dualBanner)
		c.ehlo()
		c.send("STARTTLS\r\nMAIL FROM:<evil@a.example>\r\n")
		c.want("220 ")
		c.upgrade("")
		c.ehlo()
		c.ask("RCPT TO:<b@b.example>", "502")
	})
	t.Run("DMTP in the middle of SMTP", func(t *testing.T) {
		c := dialClear(t, r.dual)
		c.want(dualBanner)
		c.ehlo()
		c.send("STARTTLS <dx.b.example>\r\nNOOP\r\nSGNT <b.example>\r\n")
		c.want("220-")
		c.want("220 ")
		c.upgrade("")
		c.want("250 OK DMTPv1")
		c.ask("MODE", "200 OK DMTPv1")
	})
	t.Run("later, in place of the handshake", func(t *testing.T) {
		c := dialClear(t, r.dual)
		c.want(dualBanner)
		c.ask("STARTTLS <dx.b.example>", "220-")
		c.want("220 ")
		c.send("SGNT <b.example>\r\n")
		if l := c.line(); strings.Contains(l, "270") || strings.Contains(l, "OK") {
			t.Errorf("answered %q", l)
		}
	})
	if len(in.bodies) > 0 {
		t.Errorf("SMTP got %q", in.bodies)
	}
}

// TestDMTPAlone has a shared port without SMTP behind it.
func TestDMTPAlone(t *testing.T) {
	b := newBackend(newWorld(t, 1))
	cfg := b.config(t)
	cfg.Limits.Violations = 4
	r := run(t, cfg)
	c := dialClear(t, r.dual)
	c.want(dualBanner)
	c.ask("EHLO client.example", "554 dx.b.example SMTP SERVICE NOT AVAILABLE")
	c.ask("STARTTLS", "554")
	c.dmtp("STARTTLS <dx.b.example> MODE=DMTPv1")
	c = dialClear(t, r.dual)
	c.want(dualBanner)
	for range 3 {
		c.ask("EHLO client.example", "554")
	}
	c.ask("EHLO client.example", "421")
	c.gone()
}

// TestBackFromSMTP counts a connection that goes from DMTP's count to SMTP and back.
func TestBackFromSMTP(t *testing.T) {
	r, _, _ := runDual(t, func(c *Config) { c.Limits.PrefixConns = 1 })
	first := dialClear(t, r.dual)
	first.want(dualBanner)
	first.ehlo() // SMTP's now, which is not counted here
	second := dialTLS(t, r.single)
	first.ask("STARTTLS <dx.b.example>", "421 TOO MANY CONNECTIONS")
	first.gone()
	second.ask("QUIT", "221")
	second.gone()
	for deadline := time.Now().Add(5 * time.Second); r.s.guard.count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are still counted", r.s.guard.count())
		}
	}
	third := dialClear(t, r.dual)
	third.want(dualBanner)
	third.ehlo()
	third.dmtp("STARTTLS <dx.b.example>")
	fourth := dialClear(t, r.dual)
	fourth.want(dualBanner) // it may be SMTP
	fourth.ask("STARTTLS <dx.b.example>", "421 TOO MANY CONNECTIONS")
	fourth.gone()
	r.stop()
	if n := r.s.guard.count(); n != 0 {
		t.Errorf("%d sessions are still counted", n)
	}
}

func TestHandoverEnds(t *testing.T) {
	h := NewHandover(&net.TCPAddr{Port: 25})
	if h.Addr().String() != ":25" {
		t.Error(h.Addr())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, _ := net.Pipe()
	defer a.Close()
	h.SMTP(ctx, a) // nobody accepts: returns
	h.Close()
	h.Close()
	h.SMTP(t.Context(), a)
	if _, err := h.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

package appliance

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"dimegate/appliance/config"
	"dimegate/bridge/smtpwire"
	"dimegate/internal/testcert"
)

// A mail server that wants a password gets the one of handoff.auth_file, if its certificate holds.
func TestHandoffAuth(t *testing.T) {
	ca := testcert.NewAuthority(t, "CA")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	ours := ca.Issue(t, []string{"127.0.0.1"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	e := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &lockedSession{}, nil }))
	e.Domain, e.TLSConfig, e.ErrorLog = "inner", &tls.Config{Certificates: []tls.Certificate{ours}}, log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() { defer close(done); e.Serve(ln) }()
	t.Cleanup(func() { e.Close(); <-done })
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})
	for name, tt := range map[string]struct {
		password string
		known    bool
	}{"right": {"gw:secret\n", true}, "wrong": {"gw:other\n", false}} {
		c := config.Default()
		c.Organizations = []config.Organization{{Domains: []string{"alpha.example"}, Inner: ln.Addr().String()}}
		c.Hostname, c.Handoff.StartTLS, c.Handoff.AuthFile, c.TLS.CAFile = "gw.alpha.example", "required", write(name, tt.password), write("ca", string(bundle))
		own, err := (&tenant{gateway: &gateway{config: c}, config: c}).innerServers(1, smtpwire.Timeouts{})
		check(t, err)
		answer, err := own["alpha.example"].Confirm(t.Context(), "bob@alpha.example")
		if answer.Known != tt.known || (err == nil) != tt.known {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
		check(t, own.Close())
	}
}

// A lockedSession takes nothing without a password.
type lockedSession struct{ open bool }

func (*lockedSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *lockedSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, name, password string) error {
		if s.open = name == "gw" && password == "secret"; !s.open {
			return errors.New("no")
		}
		return nil
	}), nil
}

func (s *lockedSession) Mail(string, *smtp.MailOptions) error {
	if !s.open {
		return smtp.ErrAuthRequired
	}
	return nil
}
func (*lockedSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*lockedSession) Data(io.Reader) error                 { return nil }
func (*lockedSession) Reset()                               {}
func (*lockedSession) Logout() error                        { return nil }

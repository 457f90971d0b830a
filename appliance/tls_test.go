package appliance

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/setup"
	"dimegate/internal/testcert"
)

// shows is the leaf that a listener shows to one who takes RSA alone, as libdime does.
func shows(t *testing.T, s *site) []byte {
	t.Helper()
	c := call(t, s.single(), "").secure(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}})
	c.want("220")
	check(t, c.conn.Close())
	return c.state.PeerCertificates[0].Raw
}

// replace writes another certificate over a pair's files, as an ACME client does.
func replace(t *testing.T, f config.Certificate, c tls.Certificate) {
	t.Helper()
	cert, key := testcert.Write(t, t.TempDir(), "next", c)
	for from, to := range map[string]string{cert: f.CertificateFile, key: f.KeyFile} {
		b, err := os.ReadFile(from)
		check(t, err)
		check(t, os.WriteFile(to, b, 0o600))
	}
}

// A certificate that is renewed in its files is shown when the record has vouched for it for as long as others may remember the record
// from before, across a restart too, and mail comes in all the while. What cannot be used is never shown.
func TestCertificateRollOver(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example")
	alpha, bravo := w.sites[0], w.sites[1]
	var now clock
	now.set(time.Now())
	alpha.make(nil, nil)
	bravo.make(nil, nil)
	bravo.inner.only("bob@bravo.example")
	told := &logbook{}
	o := Options{Now: now.now, Log: told.log()}
	bravo.run(o)
	alpha.run(Options{Now: now.now, Log: slog.New(slog.DiscardHandler)})
	mail := 0
	comes := func() {
		t.Helper()
		now.set(now.now().Add(7 * time.Hour)) // alpha asks for everything anew
		check(t, alpha.write("bob@bravo.example"))
		mail++
		until(t, func() bool { return len(bravo.inner.messages()) == mail })
	}
	look := func() { bravo.gateway.watchers[0].Check(t.Context()) }
	var pair config.Certificate
	for _, f := range bravo.config.DMTP.Certificates {
		if strings.HasPrefix(filepath.Base(f.CertificateFile), "rsa") {
			pair = f
		}
	}
	old := shows(t, bravo)
	stays := func(when string) {
		t.Helper()
		look()
		if !bytes.Equal(shows(t, bravo), old) {
			t.Fatalf("%s: another certificate is shown", when)
		}
	}
	comes()
	check(t, os.WriteFile(pair.CertificateFile, []byte("half of a certifi"), 0o600))
	stays("written half")
	stays("written half, still")
	next := testcert.RSA(t, bravo.host)
	replace(t, pair, next)
	stays("not in the record")
	if text := told.String(); !strings.Contains(text, "keys tls") || !strings.Contains(text, "domains=bravo.example") || !strings.Contains(text, "cannot be used") {
		t.Errorf("the log says %s", text)
	}
	bravo.stop()
	bravo.run(o)
	stays("not in the record, after a restart")
	comes()

	records, err := setup.Records(t.Context(), bravo.config, bravo.gateway.tenants[0].vault.Vault, "bravo.example", nil)
	check(t, err)
	if list := strings.Count(records[0].Record, "tls="); list != 3 {
		t.Errorf("the record vouches for %d certificates: %s", list, records[0].Record)
	}
	bravo.publish(records[0].RecordLine)
	now.set(now.now().Add(7 * time.Hour)) // what DNS said before is forgotten
	stays("just published")
	now.set(now.now().Add(30 * time.Minute))
	stays("published half an hour ago")
	comes()
	look()
	if got := shows(t, bravo); !bytes.Equal(got, next.Certificate[0]) {
		t.Fatal("the new certificate is not shown")
	}
	comes()
	bravo.stop()
	bravo.run(o)
	comes()
	records, err = setup.Records(t.Context(), bravo.config, bravo.gateway.tenants[0].vault.Vault, "bravo.example", nil)
	check(t, err)
	if list := strings.Count(records[0].Record, "tls="); list != 2 {
		t.Errorf("the record vouches for %d certificates: %s", list, records[0].Record)
	}
	bravo.publish(records[0].RecordLine)
	comes()
	if got := shows(t, bravo); !bytes.Equal(got, next.Certificate[0]) {
		t.Error("the new certificate is not shown after a restart")
	}
}

// Our own mail servers see a new certificate at once.
func TestSubmissionCertificate(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		dir := t.TempDir()
		c.Submission.CertificateFile, c.Submission.KeyFile = testcert.Write(t, dir, "own", testcert.ECDSA(t, "mail.alpha.example"))
	})
	s.run(Options{})
	submission, _ := s.gateway.Addresses()
	shown := func() []byte {
		c := call(t, submission, "")
		c.want("220")
		c.cmd("EHLO x", "250")
		c.cmd("STARTTLS", "220")
		return c.secure(&tls.Config{}).state.PeerCertificates[0].Raw
	}
	old, next := shown(), testcert.ECDSA(t, "mail.alpha.example")
	replace(t, config.Certificate{CertificateFile: s.config.Submission.CertificateFile, KeyFile: s.config.Submission.KeyFile}, next)
	s.gateway.watchers[1].Check(t.Context())
	if got := shown(); bytes.Equal(got, old) || !bytes.Equal(got, next.Certificate[0]) {
		t.Error("the one from before is shown")
	}
}

// What ages and needs somebody is told in the log, once a day, and by /readyz, which says ready.
func TestAlarms(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	var now clock
	now.set(time.Now())
	s.make(nil, func(c *config.Config) {
		c.Submission.CertificateFile, c.Submission.KeyFile = testcert.Write(t, t.TempDir(), "own", testcert.ECDSA(t, "mail.alpha.example"))
		c.Health.Listen = "127.0.0.1:0"
		c.Keys.RemindPrimaryAfter = 90 * day
	})
	told := &logbook{}
	s.run(Options{Now: now.now, Log: told.log()})
	g := s.gateway
	ready := func() string {
		t.Helper()
		g.watchers[1].Check(t.Context())
		g.tenants[0].sweepKeys(t.Context())
		r, err := http.Get("http://" + g.listeners.health[0].Addr().String() + "/readyz")
		check(t, err)
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		check(t, err)
		if r.StatusCode != http.StatusOK {
			t.Errorf("status %d: %s", r.StatusCode, b)
		}
		return string(b)
	}
	if got := ready(); got != "ok\n" {
		t.Errorf("says %q", got)
	}
	now.set(now.now().Add(23 * time.Hour))
	if got := ready(); !strings.HasPrefix(got, "ok\nalarm: the certificate of mail.alpha.example ends on ") {
		t.Errorf("says %q", got)
	}
	now.set(now.now().Add(72 * day))
	if got := ready(); !strings.HasPrefix(got, "ok\nalarm: alpha.example: primary key: rollover is due on ") {
		t.Errorf("says %q", got)
	}
	ready()
	if text := told.String(); strings.Count(text, "primary key: rollover is due") != 1 || strings.Count(text, "four fifths of its life") != 2 {
		t.Errorf("the log says %s", text)
	}
}

package certificates_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dimegate/appliance/certificates"
	"dimegate/appliance/config"
	"dimegate/internal/testcert"
)

// TestMend: a crash between the two files of a certificate that ACME renews does not keep the gateway from starting.
func TestMend(t *testing.T) {
	dir, old, next := t.TempDir(), testcert.ECDSA(t, "x.example"), testcert.ECDSA(t, "x.example")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cert, key := testcert.Write(t, dir, "shown", old)
	must(os.Chmod(key, 0o600))
	_, torn := testcert.Write(t, dir, "next", next)
	f := config.Certificate{CertificateFile: cert, KeyFile: key}
	log := slog.New(slog.DiscardHandler)
	var shown []tls.Certificate
	o := certificates.Options{Files: []config.Certificate{f}, Kept: filepath.Join(dir, "kept"), Log: log, Now: time.Now,
		Show: func(all []tls.Certificate) error { shown = all; return nil }}
	w, err := certificates.New(o)
	must(err)
	w.Check(t.Context()) // it runs, and keeps what it shows
	b, err := os.ReadFile(torn)
	must(err)
	must(os.WriteFile(key, b, 0o600))
	if _, err := certificates.New(o); err == nil {
		t.Fatal("the files fit")
	}
	c := config.Config{DataFolder: dir, DMTP: config.DMTP{Certificates: o.Files, ACME: config.ACME{Directory: "https://ca.example/"}}}
	must(c.CheckFiles())
	if c.DMTP.ACME.Directory = ""; c.CheckFiles() == nil {
		t.Error("files that an administrator brings need not fit")
	}
	must(certificates.Mend(o.Kept, o.Files, log))
	must(c.CheckFiles())
	_, err = certificates.New(o)
	must(err)
	if len(shown) != 1 || !bytes.Equal(shown[0].Certificate[0], old.Certificate[0]) {
		t.Error("another certificate is shown")
	}
}

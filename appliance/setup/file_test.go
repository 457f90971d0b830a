package setup

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dimegate/appliance/config"
)

func TestFile(t *testing.T) {
	a := Answer{DataFolder: "/srv/mail \"x\"", Name: "Exämple \"Ltd\"", Domains: []string{"example.org", "example.net"},
		DX: []string{"dx.example.org"}, Inner: "127.0.0.1:10025", Policy: "mixed"}
	c, set, err := config.Decode("new", []byte(File(a)))
	if err != nil {
		t.Fatal(err)
	}
	c.Resolve("/")
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	o := c.Organizations[0]
	if c.DataFolder != a.DataFolder || o.Name != a.Name || !slices.Equal(o.Domains, a.Domains) || !slices.Equal(o.DX, a.DX) ||
		o.Inner != a.Inner || o.Policy != a.Policy || len(c.Organizations) != 1 {
		t.Errorf("%+v\nbecame %+v", a, o)
	}
	if !slices.Contains(set, "queue.life") {
		t.Error("the rest of the file is gone")
	}
	least, _, err := config.Decode("least", []byte(File(Answer{Domains: []string{"example.org"}})))
	if err != nil {
		t.Fatal(err)
	}
	if least.DataFolder != config.Default().DataFolder || least.Organizations[0].DX != nil {
		t.Errorf("%+v", least)
	}
}

func TestCertificate(t *testing.T) {
	folder := t.TempDir()
	for _, kind := range []keyKind{kindECDSA, kindRSA} {
		cert, key := filepath.Join(folder, string(kind)+".crt"), filepath.Join(folder, string(kind)+".key")
		if err := makeCertificate(kind, []string{"dx.example.org"}, time.Now(), cert, key); err != nil {
			t.Fatal(err)
		}
		if der, err := readCertificate(cert); err != nil || len(der) == 0 {
			t.Errorf("%s: read back: %v", kind, err)
		}
		if err := makeCertificate(kind, []string{"dx.example.org"}, time.Now(), cert, key); err == nil {
			t.Errorf("%s: written over", kind)
		}
		if _, err := readCertificate(key); err == nil {
			t.Errorf("%s: a key was read as a certificate", kind)
		}
	}
}

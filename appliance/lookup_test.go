package appliance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/dmtp/resolver"
)

// TestNewResolver makes one of every kind of wrong file: the error names the key and the file.
func TestNewResolver(t *testing.T) {
	folder := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, b []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noise := file("noise", []byte("noise"))
	tests := map[string]struct {
		change func(c *config.Config)
		want   string
	}{
		"defaults":   {func(*config.Config) {}, ""},
		"CRL in DER": {func(c *config.Config) { c.TLS.CRLFiles = []string{file("der", der)} }, ""},
		"CRL in PEM": {func(c *config.Config) {
			c.TLS.CRLFiles = []string{file("pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))}
		}, ""},
		"no CRL":           {func(c *config.Config) { c.TLS.CRLFiles = []string{file("der", der), noise} }, "tls.crl_files[2]: " + noise},
		"no CRL file":      {func(c *config.Config) { c.TLS.CRLFiles = []string{folder + "/gone"} }, "tls.crl_files[1]: open " + folder},
		"no CA":            {func(c *config.Config) { c.TLS.CAFile = noise }, "tls.ca_file: " + noise},
		"no anchor":        {func(c *config.Config) { c.DNS.TrustAnchorFile = noise }, "dns.trust_anchor_file: " + noise},
		"no anchor file":   {func(c *config.Config) { c.DNS.TrustAnchorFile = folder + "/gone" }, "dns.trust_anchor_file: open"},
		"no address":       {func(c *config.Config) { c.DNS.Resolvers = []string{"localhost:53"} }, "dns.resolvers: "},
		"AD from far away": {func(c *config.Config) { c.DNS.TrustAD, c.DNS.Resolvers = true, []string{"192.0.2.1:53"} }, "dns.resolvers: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := config.Default()
			tt.change(c)
			r, end, err := NewResolver(c, &resolver.MemoryStore{}, Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err != nil {
				if tt.want == "" || !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("%v; want %q", err, tt.want)
				}
				return
			}
			if tt.want != "" || r == nil {
				t.Errorf("no error; want %q", tt.want)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

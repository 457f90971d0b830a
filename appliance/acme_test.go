package appliance

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"dimegate/appliance/config"
	"dimegate/internal/testcert"
	"dimegate/internal/zone"
)

// A pebble is Let's Encrypt's ACME server for tests, which refuses a part of all good nonces, as it does by default.
type pebble struct {
	directory string
	caFile    string // of the server itself
	rootFile  string // of what it issues
	start     func(port int)
}

// newPebble serves an authority that looks for a host at 127.0.0.1, on the port that start says; until then it answers nobody.
func newPebble(t *testing.T, host string) *pebble {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	check(t, err)
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zone.Zone{Name: host, Algorithm: dns.ECDSAP256SHA256, Records: []string{"@ A 127.0.0.1"}})
	check(t, err)
	served := make(chan struct{})
	go func() { defer close(served); tree.Serve(t.Context(), udp, tcp) }()
	t.Cleanup(func() { <-served })
	ready := make(chan struct{})
	var handler http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ready:
			handler.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	quiet, store, dir := log.New(io.Discard, "", 0), db.NewMemoryStore(), t.TempDir()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	p := &pebble{directory: server.URL + wfe.DirectoryPath, caFile: filepath.Join(dir, "server.pem"), rootFile: filepath.Join(dir, "root.pem")}
	check(t, os.WriteFile(p.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	check(t, os.WriteFile(p.rootFile, issuer.GetRootCert(0).PEM(), 0o600))
	p.start = func(port int) {
		front := wfe.New(quiet, store, va.New(quiet, 0, port, false, udp.LocalAddr().String(), store), issuer, []string{"pebble.test"}, false, false, 0, 0)
		handler = front.Handler()
		close(ready)
	}
	return p
}

// A gateway obtains its certificates by itself, of both kinds, and shows them: its record names none, so that no renewal needs DNS. A peer
// that believes the authority delivers. The listener for the proof answers nothing else.
func TestACME(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example")
	alpha, bravo := w.sites[0], w.sites[1]
	authority := newPebble(t, alpha.host)
	alpha.make(nil, func(c *config.Config) {
		c.Hostname = alpha.host
		c.DMTP.ACME = config.ACME{Directory: authority.directory, Listen: "127.0.0.1:0", AgreeTerms: true, CAFile: authority.caFile}
	})
	if strings.Contains(alpha.text, "tls=") {
		t.Errorf("the record names certificates: %s", alpha.text)
	}
	bravo.make(nil, func(c *config.Config) { c.TLS.CAFile = authority.rootFile })
	alpha.inner.only("bob@alpha.example")
	alpha.run(Options{})
	port := alpha.gateway.listeners.acme[0].Addr().(*net.TCPAddr).Port
	authority.start(port)
	root, err := os.ReadFile(authority.rootFile)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for _, suite := range []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384} {
		until(t, func() bool {
			alpha.gateway.watchers[0].Check(t.Context())
			c, err := tls.Dial("tcp", alpha.single(), &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}, RootCAs: roots, ServerName: alpha.host})
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	bravo.run(Options{})
	check(t, bravo.write("bob@alpha.example"))
	until(t, func() bool { return len(alpha.inner.messages()) == 1 })

	// What comes next waits until nobody remembers a record from before, which may have named the one that is shown.
	now := shows(t, alpha)
	replace(t, alpha.config.DMTP.Certificates[1], testcert.RSA(t, alpha.host))
	alpha.gateway.watchers[0].Check(t.Context())
	if !bytes.Equal(shows(t, alpha), now) {
		t.Error("a certificate is shown that some may not know")
	}

	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {"acme-tls/1", "h2"}} {
		if c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: alpha.host, NextProtos: protocols}); err == nil {
			c.Close()
			t.Errorf("%q were answered", protocols)
		}
	}
	plain, err := net.Dial("tcp", address)
	check(t, err)
	defer plain.Close()
	plain.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, _ := io.ReadAll(plain); strings.Contains(string(got), "HTTP/1.1 2") || strings.Contains(string(got), "<html") {
		t.Errorf("a web page: %q", got)
	}
}

package dmtpserver

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// ErrNoRSA says that a host has no RSA certificate of 2048 bits or more, without which libdime cannot connect to it.
var ErrNoRSA = errors.New("dmtpserver: no RSA certificate of at least 2048 bits")

// A Host is a name that we are reached by and its certificates, the preferred one first, an RSA one among them.
type Host struct {
	Names        []string // domain names; the first host also serves names that nobody has
	Certificates []tls.Certificate
}

// Certificates are the TLS certificates of a server. They can be replaced while it runs.
type Certificates struct {
	set atomic.Pointer[certificateSet]
}

type certificateSet struct {
	first  []tls.Certificate
	byName map[string][]tls.Certificate
}

// NewCertificates checks hosts and holds them.
func NewCertificates(hosts ...Host) (*Certificates, error) {
	c := new(Certificates)
	return c, c.Replace(hosts...)
}

// Replace puts other certificates in place of all; sessions that stand keep theirs. On an error nothing changes.
func (c *Certificates) Replace(hosts ...Host) error {
	if len(hosts) == 0 {
		return errors.New("dmtpserver: no certificates")
	}
	set := &certificateSet{first: hosts[0].Certificates, byName: make(map[string][]tls.Certificate)}
	for _, h := range hosts {
		if !hasRSA(h.Certificates) {
			return fmt.Errorf("%w: %s", ErrNoRSA, strings.Join(h.Names, ", "))
		}
		for _, name := range h.Names {
			set.byName[normal(name)] = h.Certificates
		}
	}
	c.set.Store(set)
	return nil
}

func hasRSA(list []tls.Certificate) bool {
	for _, c := range list {
		leaf := c.Leaf
		if leaf == nil && len(c.Certificate) > 0 {
			leaf, _ = x509.ParseCertificate(c.Certificate[0]) // one that does not parse is not it
		}
		if leaf == nil {
			continue
		}
		if k, ok := leaf.PublicKey.(*rsa.PublicKey); ok && k.Size() >= 256 {
			return true
		}
	}
	return false
}

func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// has tells whether there is a certificate for a name.
func (c *Certificates) has(name string) bool {
	_, ok := c.set.Load().byName[normal(name)]
	return ok
}

// pick is the first certificate of the named host that the client can use. libdime sends no name after STARTTLS, and sends
// an address as one elsewhere; whether the certificate fits the name is for the client to say.
func (c *Certificates) pick(name string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := c.set.Load()
	list, ok := set.byName[normal(name)]
	if !ok {
		list = set.first
	}
	nameless := *hello
	nameless.ServerName = ""
	for i := range list {
		if nameless.SupportsCertificate(&list[i]) == nil {
			return &list[i], nil
		}
	}
	return &list[len(list)-1], nil // the handshake fails with the library's own alert
}

// Pick is for tls.Config.GetCertificate, of a server beside ours that shows the same.
func (c *Certificates) Pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.pick(hello.ServerName, hello)
}

// suites are the TLS 1.2 suites of dmtp.md OC-5, ECDHE and AEAD all; the second is the only one that libdime has.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsConfig serves TLS 1.2 and 1.3. With host, its certificate is shown whatever name the client sends. No tickets: DX
// connections are few and long.
func (s *Server) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites,
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := host
			if name == "" {
				name = hello.ServerName
			}
			return s.c.Certificates.pick(name, hello)
		},
	}
}

package submission

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"strings"

	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// A Tenant is one customer of a relay that has the same certificate for all of its customers, as Microsoft 365: the relay says
// in a field of the message whose it is.
type Tenant struct {
	Certificate string // host name
	Field       string // as X-OriginatorOrg or X-MS-Exchange-CrossTenant-Id
	Value       string // in any case; every field of that name must have it
}

// errTenant means that a message from a shared relay does not say that it is ours.
var errTenant = errors.New("submission: not of a tenant that may send")

// maxHeader is how much of a message may be its header block where that is looked at.
const maxHeader = 1 << 20

// wantsCertificate makes the handshake ask for a certificate where one may mean something.
func (c *Config) wantsCertificate() {
	if c.TLS == nil || len(c.Certificates)+len(c.Tenants) == 0 {
		return
	}
	c.TLS = c.TLS.Clone()
	c.TLS.ClientAuth = tls.RequestClientCert // judged at MAIL: who has another may still have a password
}

// proved is the client's own certificate, nil when it has none that holds. Certificates for servers are good, too: public CAs
// issue no others any more, and relays show the one that they have.
func (s *session) proved() *x509.Certificate {
	state, on := s.guard.TLS()
	if _, others := s.guard.Caller(); !on || others || len(state.PeerCertificates) == 0 || len(state.PeerCertificates) > maxChain {
		return nil // of one who speaks for others: not the client's
	}
	leaf, above := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		above.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: s.server.Roots, Intermediates: above, CurrentTime: s.server.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil
	}
	return leaf
}

const maxChain = 16

// byCertificate tells whether the client's certificate lets it send, and as which tenants if the message has to say that it
// is of one of them.
func (s *session) byCertificate() (ok bool, as []Tenant) {
	if len(s.server.Certificates)+len(s.server.Tenants) == 0 {
		return false, nil
	}
	leaf := s.proved()
	if leaf == nil {
		return false, nil
	}
	for _, t := range s.server.Tenants {
		if leaf.VerifyHostname(t.Certificate) == nil {
			as = append(as, t)
		}
	}
	return len(as) > 0 || slices.ContainsFunc(s.server.Certificates, func(name string) bool { return leaf.VerifyHostname(name) == nil }), as
}

// tenantOnly looks at the header block of a message that must be of a tenant, and gives the message back whole.
func (s *session) tenantOnly(body io.Reader) (io.Reader, error) {
	if len(s.tenants) == 0 {
		return body, nil
	}
	head, err := translate.ReadHead(body, maxHeader)
	if errors.Is(err, translate.ErrHeader) {
		return nil, errors.Join(smtpwire.ErrTooLarge, err)
	}
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(s.tenants, func(t Tenant) bool { return t.has(head) }) {
		return nil, errTenant
	}
	return io.MultiReader(head.Reader(), body), nil
}

// has tells whether the message says that it is of the tenant, and says nothing else.
func (t Tenant) has(m translate.Message) bool {
	n := 0
	for f := range translate.Fields(m.Header) {
		if !f.Is(t.Field) {
			continue
		}
		if n++; !strings.EqualFold(f.Value(), t.Value) {
			return false
		}
	}
	return n > 0
}

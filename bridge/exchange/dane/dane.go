// Package dane holds a TLS server's certificates against TLSA records, as RFC 7672 has it for SMTP and RFC 7671 for all:
// trust anchors (usage 2) and end entities (usage 3), certificates and keys, SHA2-256, SHA2-512 and whole. It looks nothing
// up: whoever calls has records that DNSSEC proves.
package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The numbers of RFC 7218 that mean something here.
const (
	TrustAnchor = 2 // DANE-TA
	EndEntity   = 3 // DANE-EE

	Certificate = 0 // Cert
	PublicKey   = 1 // SPKI

	Whole  = 0 // Full
	SHA256 = 1
	SHA512 = 2
)

// A Record is one TLSA record.
type Record struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// String writes a record without its data: "3 1 1".
func (r Record) String() string { return fmt.Sprintf("%d %d %d", r.Usage, r.Selector, r.Matching) }

// Usable tells whether a record can prove a server: it is of a usage that SMTP has (RFC 7672 §3.1.3 leaves out 0 and 1), of
// a selector and matching type that we know, and its data can be what it says.
func (r Record) Usable() bool {
	if r.Usage != TrustAnchor && r.Usage != EndEntity || r.Selector > PublicKey {
		return false
	}
	switch r.Matching {
	case SHA256:
		return len(r.Data) == sha256.Size
	case SHA512:
		return len(r.Data) == sha512.Size
	case Whole:
		if len(r.Data) > maxWhole {
			return false
		}
		_, err := r.parse()
		return err == nil
	}
	return false
}

// Bounds on what a zone can make us do.
const (
	maxWhole   = 4096 // octets of a whole certificate or key
	maxRecords = 32   // the first ones of a set
)

// parse reads what a Whole record holds: a certificate, or a key in a certificate that has nothing else.
func (r Record) parse() (*x509.Certificate, error) {
	if r.Selector == Certificate {
		return x509.ParseCertificate(r.Data)
	}
	k, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{PublicKey: k}, nil
}

// Usable returns the records that Verify will use: those that are Usable, and of digests of one usage and selector the
// strongest only (RFC 7671 §9), so that a weaker one that is broken some day proves nothing.
func Usable(list []Record) []Record {
	type group struct{ usage, selector uint8 }
	list = list[:min(len(list), maxRecords)]
	best := map[group]uint8{}
	for _, r := range list {
		if g := (group{r.Usage, r.Selector}); r.Usable() {
			best[g] = max(best[g], r.Matching)
		}
	}
	var out []Record
	for _, r := range list {
		if r.Usable() && (r.Matching == Whole || r.Matching == best[group{r.Usage, r.Selector}]) {
			out = append(out, r)
		}
	}
	return out
}

// Why a server's certificates are not those that the records name.
var (
	ErrNoMatch = errors.New("dane: no TLSA record matches the server's certificates")
	ErrName    = errors.New("dane: a trust anchor matches, but the certificate is not for this host")
	ErrChain   = errors.New("dane: a trust anchor matches, but the chain to it does not hold")
	ErrNone    = errors.New("dane: no usable TLSA record")
)

// Verify holds the certificates that a server presented, its own first, against the usable records among list, and returns
// the record that they satisfy. names are the reference identifiers of RFC 7672 §3.2.2; they count for trust anchors only,
// as validity in time does: an end entity that the zone names is the one, whatever else its certificate says (§3.1.1).
func Verify(chain []*x509.Certificate, list []Record, names []string, now time.Time) (Record, error) {
	usable := Usable(list)
	if len(usable) == 0 {
		return Record{}, ErrNone
	}
	if len(chain) == 0 {
		return Record{}, ErrNoMatch
	}
	for _, r := range usable {
		if r.Usage == EndEntity && r.matches(chain[0]) {
			return r, nil
		}
	}
	failed := ErrNoMatch
	for _, r := range usable {
		if r.Usage != TrustAnchor {
			continue
		}
		switch err := r.anchors(chain, names, now); {
		case err == nil:
			return r, nil
		case failed == ErrNoMatch || err == ErrName:
			failed = err
		}
	}
	return Record{}, failed
}

// matches tells whether a certificate is the one that a record names.
func (r Record) matches(c *x509.Certificate) bool {
	b := c.Raw
	if r.Selector == PublicKey {
		b = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case SHA256:
		sum := sha256.Sum256(b)
		b = sum[:]
	case SHA512:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return bytes.Equal(b, r.Data)
}

// anchors verifies the chain up to the trust anchor of a record, and the name.
func (r Record) anchors(chain []*x509.Certificate, names []string, now time.Time) error {
	roots := r.roots(chain)
	if len(roots) == 0 {
		return ErrNoMatch
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil {
		return ErrChain
	}
	if !slices.ContainsFunc(names, func(n string) bool { return chain[0].VerifyHostname(n) == nil }) {
		return ErrName
	}
	return nil
}

// roots are the certificates at which a chain may end for a record. The server's own cannot be its own anchor; but an anchor
// that is whole in the record need not be in the chain, and a bare key makes an anchor of each certificate that it signed.
func (r Record) roots(chain []*x509.Certificate) []*x509.Certificate {
	var list []*x509.Certificate
	for _, c := range chain[1:] {
		if r.matches(c) {
			list = append(list, c)
		}
	}
	if len(list) > 0 || r.Matching != Whole {
		return list
	}
	anchor, err := r.parse()
	if err != nil {
		return nil // Usable lets none through
	}
	if r.Selector == Certificate {
		return []*x509.Certificate{anchor}
	}
	for _, c := range chain {
		if anchor.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			list = append(list, c)
		}
	}
	return list
}

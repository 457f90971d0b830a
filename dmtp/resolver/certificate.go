package resolver

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A TLSMatch says how the record's "tls" values stand to a certificate.
type TLSMatch uint8

const (
	TLSAbsent  TLSMatch = iota // the record has none
	TLSMatches                 // one is a POK's signature over the certificate
	TLSDiffers                 // it has some, and none is
)

// String names the match as the decision table does.
func (m TLSMatch) String() string {
	return [...]string{"absent", "matches", "no match"}[min(m, TLSDiffers)]
}

// MarshalText writes the name.
func (m TLSMatch) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *TLSMatch) UnmarshalText(b []byte) error {
	for v := range TLSDiffers + 1 {
		if v.String() == string(b) {
			*m = v
			return nil
		}
	}
	return errors.New("resolver: unknown match")
}

// Revocation is what is known of a certificate's revocation. We never ask: the server staples, or the operator has a CRL.
type Revocation uint8

const (
	RevocationUnknown  Revocation = iota // nothing stapled
	RevocationGood                       // a staple that holds says so
	RevocationRevoked                    // a staple that holds, or a CRL, says so
	RevocationUnusable                   // something is stapled that does not hold
	RevocationMissing                    // nothing is stapled, though the certificate says that something must be (RFC 7633)
)

// String says it in a word.
func (r Revocation) String() string {
	return [...]string{"unknown", "good", "revoked", "unusable", "missing"}[min(r, RevocationMissing)]
}

// CertificateFacts are what the decision about a DX certificate rests on (dmtp chapter 8.12).
type CertificateFacts struct {
	Record     State    // of the management record
	TLS        TLSMatch // the record's "tls" values
	SelfSigned bool     // issued by itself, by name
	NameOK     bool     // it names the host that we connected to
	ChainOK    bool     // it leads to a CA that we trust, within all validity dates
	Expired    bool     // the certificate itself, apart from its chain
	Revocation Revocation
	Strict     bool // the record's policy is strict: an unusable staple is not passed over
	Pinned     bool // an administrator pinned this certificate with this POK
}

// A CertificateDecision is the table's answer. Reason is one of a fixed set of phrases.
type CertificateDecision struct {
	Accept    bool
	Temporary bool // nothing is known to be wrong with the peer: the record cannot be had or believed now
	Notable   bool // accepted, but an operator should be told
	FirstUse  bool // accepted on a CA's word alone: the POK is trusted on first use
	Reason    string
}

// DecideCertificate is the decision table of dmtp chapter 8.12 (OC-27), with revocation: a certificate that is known
// revoked is refused in every row, on whatever else it stands.
func DecideCertificate(f CertificateFacts) CertificateDecision {
	switch {
	case f.Record != Secure && f.Record != Insecure:
		return CertificateDecision{Temporary: true, Reason: "the record cannot be believed now"}
	case f.TLS == TLSDiffers:
		return CertificateDecision{Reason: "no tls value of the record signs this certificate"}
	case f.Revocation == RevocationRevoked:
		return CertificateDecision{Reason: "certificate revoked"}
	case f.Record == Secure && f.TLS == TLSMatches:
		return decideSigned(f)
	case f.SelfSigned && f.TLS == TLSMatches && f.Pinned:
		return CertificateDecision{Accept: true, Notable: true, Reason: "self-signed, pinned by hand with its POK"}
	case f.SelfSigned:
		return CertificateDecision{Reason: "self-signed, without a signed record that vouches for it"}
	case !f.NameOK:
		return CertificateDecision{Reason: "certificate does not name this host"}
	case !f.ChainOK:
		return CertificateDecision{Reason: "certificate leads to no CA that is trusted"}
	case f.Revocation == RevocationMissing:
		return CertificateDecision{Reason: "certificate demands a stapled status, and none came"}
	case f.Revocation == RevocationUnusable && f.Strict:
		return CertificateDecision{Reason: "stapled status unusable, and the domain's policy is strict"}
	}
	d := CertificateDecision{Accept: true, Notable: f.Revocation == RevocationUnusable, Reason: "CA-issued for this host"}
	switch {
	case f.TLS == TLSMatches:
		d.Reason = "CA-issued for this host, and signed by a POK"
	case f.Record == Insecure:
		d.FirstUse = true
	}
	return d
}

// decideSigned is for a record that DNSSEC proves with a tls value that matches: that is final, but worth a line in the
// log where the certificate would not stand by itself.
func decideSigned(f CertificateFacts) CertificateDecision {
	d := CertificateDecision{Accept: true, Reason: "signed by a POK of a DNSSEC-signed record"}
	switch {
	case f.SelfSigned && !f.Expired:
	case f.Expired:
		d.Notable, d.Reason = true, d.Reason+"; certificate outside its dates"
	case !f.NameOK:
		d.Notable, d.Reason = true, d.Reason+"; certificate names another host"
	case !f.ChainOK:
		d.Notable, d.Reason = true, d.Reason+"; certificate of an unknown CA"
	}
	return d
}

// maxPeerChain bounds the certificates of a handshake that are looked at, in octets of DER (dmtp OC-47).
const maxPeerChain = 64 << 10

// A CertificateJudge holds what certificates are judged by. Safe for concurrent use as long as nobody changes it.
type CertificateJudge struct {
	Roots *x509.CertPool         // nil: the system's
	CRLs  []*x509.RevocationList // signatures are checked against each issuer when used
}

// Examine collects the facts about the chain that host presented, with the status it stapled. The first certificate is
// the host's. matches tells whether the record's tls values sign it. Record, Strict and Pinned are for the caller to add.
func (j *CertificateJudge) Examine(host string, chain []*x509.Certificate, staple []byte, matches func(der []byte) TLSMatch, now time.Time) (CertificateFacts, error) {
	if len(chain) == 0 {
		return CertificateFacts{}, errors.New("no certificate")
	}
	octets := 0
	pool := x509.NewCertPool()
	for _, c := range chain {
		if octets += len(c.Raw); octets > maxPeerChain {
			return CertificateFacts{}, errors.New("certificate chain too large")
		}
		pool.AddCert(c)
	}
	leaf := chain[0]
	f := CertificateFacts{
		TLS:        matches(leaf.Raw),
		SelfSigned: bytes.Equal(leaf.RawIssuer, leaf.RawSubject),
		NameOK:     leaf.VerifyHostname(host) == nil,
		Expired:    now.Before(leaf.NotBefore) || now.After(leaf.NotAfter),
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: j.Roots, Intermediates: pool, CurrentTime: now})
	f.ChainOK = err == nil
	issuer := issuerOf(leaf, chains, chain)
	f.Revocation = readStaple(leaf, issuer, staple, now)
	if issuer != nil && j.revokedByList(leaf, issuer, now) {
		f.Revocation = RevocationRevoked
	}
	return f, nil
}

// issuerOf returns the certificate that signed leaf: of a chain that holds, or as presented; nil when there is none.
func issuerOf(leaf *x509.Certificate, chains [][]*x509.Certificate, presented []*x509.Certificate) *x509.Certificate {
	if len(chains) > 0 && len(chains[0]) > 1 {
		return chains[0][1]
	}
	for _, c := range presented[1:min(len(presented), 8)] {
		if leaf.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

// mustStaple is the TLS feature extension with status_request in it (RFC 7633).
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// readStaple judges a stapled OCSP response (RFC 6066 §8, RFC 6960). Only one that the issuer or its delegate signed, and
// that is in its time, counts.
func readStaple(leaf, issuer *x509.Certificate, staple []byte, now time.Time) Revocation {
	if len(staple) == 0 {
		for _, e := range leaf.Extensions {
			if e.Id.Equal(mustStaple) && demandsStatus(e.Value) {
				return RevocationMissing
			}
		}
		return RevocationUnknown
	}
	if issuer == nil || len(staple) > maxPeerChain {
		return RevocationUnusable
	}
	r, err := ocsp.ParseResponseForCert(staple, leaf, issuer)
	switch {
	case err != nil:
		return RevocationUnusable
	case r.Certificate != nil && !r.Certificate.Equal(issuer) && !delegated(r.Certificate, now):
		return RevocationUnusable
	case r.Status == ocsp.Revoked: // is not undone by the answer's age
		return RevocationRevoked
	case now.Before(r.ThisUpdate.Add(-clockSkew)) || r.NextUpdate.IsZero() || now.After(r.NextUpdate):
		return RevocationUnusable
	case r.Status == ocsp.Good:
		return RevocationGood
	}
	return RevocationUnusable
}

// delegated tells that an issuer let this certificate sign its OCSP answers (RFC 6960 §4.2.2.2).
func delegated(c *x509.Certificate, now time.Time) bool {
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

func demandsStatus(value []byte) bool {
	var features []int
	rest, err := asn1.Unmarshal(value, &features)
	return err == nil && len(rest) == 0 && slices.Contains(features, 5)
}

// revokedByList tells that a CRL of the issuer names the certificate. An old list still revokes.
func (j *CertificateJudge) revokedByList(leaf, issuer *x509.Certificate, now time.Time) bool {
	for _, l := range j.CRLs {
		if !bytes.Equal(l.RawIssuer, issuer.RawSubject) || now.Before(l.ThisUpdate) {
			continue
		}
		for _, e := range l.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(leaf.SerialNumber) == 0 && e.ReasonCode != 8 && l.CheckSignatureFrom(issuer) == nil {
				return true
			}
		}
	}
	return false
}

// CertificateID names a certificate in evidence: SHA-256 of its DER, in hex.
func CertificateID(der []byte) string {
	h := sha256.Sum256(der)
	return hex.EncodeToString(h[:])
}

package resolver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Certificates of the table of dmtp chapter 8.12: a self-signed one does not lead to a CA, and may name anything.
var (
	selfSigned = CertificateFacts{SelfSigned: true, NameOK: true}
	caValid    = CertificateFacts{NameOK: true, ChainOK: true}
	wrongName  = CertificateFacts{ChainOK: true}
	expired    = CertificateFacts{NameOK: true, Expired: true}
	unknownCA  = CertificateFacts{NameOK: true}
)

func TestDecideCertificate(t *testing.T) {
	accept, reject, temporary := "accept", "reject", "temporary"
	tests := []struct {
		name   string
		record State
		tls    TLSMatch
		cert   CertificateFacts
		change func(*CertificateFacts)
		want   string
		flags  string // what the decision says beside
	}{
		// The table, row by row.
		{"bogus, any", Bogus, TLSMatches, caValid, nil, temporary, ""},
		{"secure, matches, self-signed", Secure, TLSMatches, selfSigned, nil, accept, ""},
		{"secure, matches, CA-valid", Secure, TLSMatches, caValid, nil, accept, ""},
		{"secure, matches, name mismatch", Secure, TLSMatches, wrongName, nil, accept, "notable"},
		{"secure, matches, expired", Secure, TLSMatches, expired, nil, accept, "notable"},
		{"secure, matches, unknown CA", Secure, TLSMatches, unknownCA, nil, accept, "notable"},
		{"secure, no match, CA-valid", Secure, TLSDiffers, caValid, nil, reject, ""},
		{"secure, no match, self-signed", Secure, TLSDiffers, selfSigned, nil, reject, ""},
		{"secure, absent, self-signed", Secure, TLSAbsent, selfSigned, nil, reject, ""},
		{"secure, absent, CA-valid", Secure, TLSAbsent, caValid, nil, accept, ""},
		{"secure, absent, name mismatch", Secure, TLSAbsent, wrongName, nil, reject, ""},
		{"secure, absent, chain invalid", Secure, TLSAbsent, unknownCA, nil, reject, ""},
		{"secure, absent, expired", Secure, TLSAbsent, expired, nil, reject, ""},
		{"insecure, matches, self-signed", Insecure, TLSMatches, selfSigned, nil, reject, ""},
		{"insecure, matches, self-signed, pinned", Insecure, TLSMatches, selfSigned, pinned, accept, "notable"},
		{"insecure, matches, CA-valid", Insecure, TLSMatches, caValid, nil, accept, ""},
		{"insecure, matches, name mismatch", Insecure, TLSMatches, wrongName, nil, reject, ""},
		{"insecure, matches, chain invalid", Insecure, TLSMatches, unknownCA, nil, reject, ""},
		{"insecure, no match, CA-valid", Insecure, TLSDiffers, caValid, nil, reject, ""},
		{"insecure, no match, self-signed, pinned", Insecure, TLSDiffers, selfSigned, pinned, reject, ""},
		{"insecure, absent, self-signed", Insecure, TLSAbsent, selfSigned, nil, reject, ""},
		{"insecure, absent, self-signed, pinned", Insecure, TLSAbsent, selfSigned, pinned, reject, ""},
		{"insecure, absent, CA-valid", Insecure, TLSAbsent, caValid, nil, accept, "first use"},
		{"insecure, absent, name mismatch", Insecure, TLSAbsent, wrongName, nil, reject, ""},
		{"insecure, absent, chain invalid", Insecure, TLSAbsent, unknownCA, nil, reject, ""},
		// What the table leaves to its text: other states, and revocation.
		{"indeterminate, any", Indeterminate, TLSMatches, caValid, nil, temporary, ""},
		{"no match beats pinned and secure", Secure, TLSDiffers, selfSigned, pinned, reject, ""},
		{"secure, matches, self-signed, expired", Secure, TLSMatches, selfSigned, func(f *CertificateFacts) { f.Expired = true }, accept, "notable"},
		{"secure, matches, revoked", Secure, TLSMatches, caValid, status(RevocationRevoked), reject, ""},
		{"secure, absent, revoked", Secure, TLSAbsent, caValid, status(RevocationRevoked), reject, ""},
		{"insecure, matches, revoked", Insecure, TLSMatches, caValid, status(RevocationRevoked), reject, ""},
		{"insecure, absent, revoked", Insecure, TLSAbsent, caValid, status(RevocationRevoked), reject, ""},
		{"insecure, pinned, revoked", Insecure, TLSMatches, selfSigned, func(f *CertificateFacts) { f.Pinned, f.Revocation = true, RevocationRevoked }, reject, ""},
		{"secure, absent, status good", Secure, TLSAbsent, caValid, status(RevocationGood), accept, ""},
		{"secure, absent, staple unusable", Secure, TLSAbsent, caValid, status(RevocationUnusable), accept, "notable"},
		{"secure, absent, staple unusable, strict", Secure, TLSAbsent, caValid,
			func(f *CertificateFacts) { f.Strict, f.Revocation = true, RevocationUnusable }, reject, ""},
		{"insecure, absent, staple missing", Insecure, TLSAbsent, caValid, status(RevocationMissing), reject, ""},
		{"secure, matches, staple missing", Secure, TLSMatches, caValid, status(RevocationMissing), accept, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.cert
			f.Record, f.TLS = tt.record, tt.tls
			if tt.change != nil {
				tt.change(&f)
			}
			d := DecideCertificate(f)
			got := reject
			if d.Accept {
				got = accept
			} else if d.Temporary {
				got = temporary
			}
			if got != tt.want || d.Reason == "" {
				t.Errorf("%s (%s); want %s", got, d.Reason, tt.want)
			}
			if d.Notable != (tt.flags == "notable") || d.FirstUse != (tt.flags == "first use") {
				t.Errorf("notable %v, first use %v; want %q", d.Notable, d.FirstUse, tt.flags)
			}
			if d.Accept && d.Temporary {
				t.Error("accepted and temporary")
			}
		})
	}
}

func pinned(f *CertificateFacts) { f.Pinned = true }

func status(r Revocation) func(*CertificateFacts) {
	return func(f *CertificateFacts) { f.Revocation = r }
}

// A testCA issues certificates.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newCA(t testing.TB, name string) *testCA {
	t.Helper()
	ca := &testCA{key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(forever), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	ca.cert = sign(t, template, template, ca.key.Public(), ca.key)
	return ca
}

func (ca *testCA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// issue makes a certificate for host; change may alter it before it is signed.
func (ca *testCA) issue(t testing.TB, key crypto.Signer, host string, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(forever), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(template)
	}
	return sign(t, template, ca.cert, key.Public(), ca.key)
}

// selfIssue makes a certificate that is its own issuer.
func selfIssue(t testing.TB, key crypto.Signer, host string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(forever)}
	return sign(t, template, template, key.Public(), key)
}

func sign(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExamine(t *testing.T) {
	now := time.Now()
	ca, other := newCA(t, "Test CA"), newCA(t, "Other CA")
	key := newKey(t)
	leaf := ca.issue(t, key, "dx.alpha.test", nil)
	staple := func(by *testCA, change func(*ocsp.Response)) []byte {
		r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
		if change != nil {
			change(&r)
		}
		responder, signer := by.cert, by.key
		if r.Certificate != nil {
			responder = r.Certificate
		}
		b, err := ocsp.CreateResponse(by.cert, responder, r, signer)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	delegate := func(usage ...x509.ExtKeyUsage) *x509.Certificate {
		return ca.issue(t, ca.key, "ocsp.test", func(c *x509.Certificate) { c.ExtKeyUsage = usage })
	}
	crl := func(by *testCA, serial *big.Int) *x509.RevocationList {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: now.Add(-time.Hour)}}}, by.cert, by.key)
		if err != nil {
			t.Fatal(err)
		}
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	revoked := func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now.Add(-time.Minute) }
	must := ca.issue(t, key, "dx.alpha.test", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: mustStaple, Value: []byte{0x30, 3, 2, 1, 5}}}
	})
	good := CertificateFacts{TLS: TLSMatches, NameOK: true, ChainOK: true}
	with := func(f CertificateFacts, r Revocation) CertificateFacts { f.Revocation = r; return f }
	tests := []struct {
		name   string
		host   string
		chain  []*x509.Certificate
		staple []byte
		crls   []*x509.RevocationList
		want   CertificateFacts
	}{
		{"plain", "dx.alpha.test", []*x509.Certificate{leaf}, nil, nil, good},
		{"other name", "dx.bravo.test", []*x509.Certificate{leaf}, nil, nil, CertificateFacts{TLS: TLSMatches, ChainOK: true}},
		{"other CA", "dx.alpha.test", []*x509.Certificate{other.issue(t, key, "dx.alpha.test", nil), other.cert}, nil, nil, CertificateFacts{NameOK: true, TLS: TLSMatches}},
		{"self-signed", "dx.alpha.test", []*x509.Certificate{selfIssue(t, key, "dx.alpha.test")}, nil, nil,
			CertificateFacts{SelfSigned: true, NameOK: true, TLS: TLSMatches}},
		{"expired", "dx.alpha.test", []*x509.Certificate{ca.issue(t, key, "dx.alpha.test", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })}, nil, nil,
			CertificateFacts{NameOK: true, Expired: true, TLS: TLSMatches}},
		{"for clients", "dx.alpha.test", []*x509.Certificate{ca.issue(t, key, "dx.alpha.test", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})}, nil, nil, CertificateFacts{NameOK: true, TLS: TLSMatches}},
		{"staple good", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, nil), nil, with(good, RevocationGood)},
		{"staple revoked", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, revoked), nil, with(good, RevocationRevoked)},
		{"staple revoked, old", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) {
			revoked(r)
			r.NextUpdate = now.Add(-time.Minute)
		}), nil, with(good, RevocationRevoked)},
		{"staple of another CA", "dx.alpha.test", []*x509.Certificate{leaf}, staple(other, revoked), nil, with(good, RevocationUnusable)},
		{"staple for another", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(99) }), nil, with(good, RevocationUnusable)},
		{"staple old", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) { r.NextUpdate = now.Add(-time.Minute) }), nil, with(good, RevocationUnusable)},
		{"staple of tomorrow", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) { r.ThisUpdate = now.Add(24 * time.Hour) }), nil, with(good, RevocationUnusable)},
		{"staple unknown", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), nil, with(good, RevocationUnusable)},
		{"staple of noise", "dx.alpha.test", []*x509.Certificate{leaf}, []byte("noise"), nil, with(good, RevocationUnusable)},
		{"staple by a delegate", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) {
			r.Certificate = delegate(x509.ExtKeyUsageOCSPSigning)
		}), nil, with(good, RevocationGood)},
		{"staple by a web server", "dx.alpha.test", []*x509.Certificate{leaf}, staple(ca, func(r *ocsp.Response) {
			r.Certificate = delegate(x509.ExtKeyUsageServerAuth)
		}), nil, with(good, RevocationUnusable)},
		{"must staple", "dx.alpha.test", []*x509.Certificate{must}, nil, nil, with(good, RevocationMissing)},
		{"listed", "dx.alpha.test", []*x509.Certificate{leaf}, nil, []*x509.RevocationList{crl(ca, leaf.SerialNumber)}, with(good, RevocationRevoked)},
		{"another listed", "dx.alpha.test", []*x509.Certificate{leaf}, nil, []*x509.RevocationList{crl(ca, big.NewInt(5))}, good},
		{"listed by another CA", "dx.alpha.test", []*x509.Certificate{leaf}, nil, []*x509.RevocationList{crl(other, leaf.SerialNumber)}, good},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := &CertificateJudge{Roots: ca.pool(), CRLs: tt.crls}
			got, err := j.Examine(tt.host, tt.chain, tt.staple, func([]byte) TLSMatch { return TLSMatches }, now)
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		if _, err := new(CertificateJudge).Examine("a.test", nil, nil, nil, now); err == nil {
			t.Error("examined nothing")
		}
	})
}

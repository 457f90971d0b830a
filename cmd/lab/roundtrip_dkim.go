package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/textproto"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
)

// A signer signs mail of an organisation by DKIM (RFC 6376, RFC 8463), with keys in its zone, and judges signatures. Signing
// and judging are go-msgauth's.
type signer struct {
	lab  *Lab
	org  *Org
	keys []dkim.SignOptions // which alternate
}

// signedFields are those that a copy's signature covers, as far as it has them: a gateway may add no second one, and the first
// where there is none.
var signedFields = []string{"From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Language"}

// newSigner makes keys and publishes them.
func newSigner(l *Lab, o *Org) (*signer, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	public, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		return nil, err
	}
	s := &signer{lab: l, org: o}
	add := func(selector string, key crypto.Signer, c dkim.Canonicalization) {
		s.keys = append(s.keys, dkim.SignOptions{Domain: o.Domain, Selector: selector, Signer: key, HeaderCanonicalization: c, BodyCanonicalization: c})
	}
	add("rsa", rsaKey, dkim.CanonicalizationSimple)
	add("ed", edKey, dkim.CanonicalizationSimple)
	add("rsa", rsaKey, dkim.CanonicalizationRelaxed)
	records := []string{
		"rsa._domainkey TXT " + quoted("v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(spki)),
		"ed._domainkey TXT " + quoted("v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(public)),
	}
	for _, r := range o.records {
		if !strings.Contains(r, "._domainkey ") {
			records = append(records, r)
		}
	}
	return s, l.Publish(o, records...)
}

// copies are the messages that shall and can be signed, with a signature on top of each.
func (s *signer) copies(list []letterOut) []letterOut {
	var out []letterOut
	for i, m := range list {
		if !m.sign {
			continue
		}
		o := s.keys[i%len(s.keys)]
		have := fields(m.wire)
		for _, f := range signedFields {
			if have[textproto.CanonicalMIMEHeaderKey(f)] != "" {
				o.HeaderKeys = append(o.HeaderKeys, f)
			}
		}
		var b bytes.Buffer
		if have["From"] != "" && dkim.Sign(&b, bytes.NewReader(m.wire), &o) == nil { // or it is no message that DKIM knows
			out = append(out, letterOut{name: m.name + "+dkim", wire: b.Bytes()})
		}
	}
	return out
}

// verify counts the signatures that hold at the end of the baseline and of the line.
func (r *roundtripReport) verify(ctx context.Context, s *signer, t *trips) error {
	for i, m := range t.list {
		if t.base[i] == nil {
			continue
		}
		before, err := s.holding(ctx, t.base[i].message)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		after := 0
		if t.line[i] != nil {
			if after, err = s.holding(ctx, t.line[i].message); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		if after != before {
			r.Changed = append(r.Changed, difference{m.name, fmt.Sprintf("%d DKIM signatures verify, without us %d", after, before)})
		}
		r.DKIMBefore += before
		r.DKIMAfter += after
	}
	return nil
}

// holding is how many signatures of a message verify, with the keys that the resolver finds.
func (s *signer) holding(ctx context.Context, message []byte) (n int, err error) {
	if !bytes.Contains(bytes.ToLower(message[:min(len(message), 1<<20)]), []byte("dkim-signature:")) {
		return 0, nil
	}
	list, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return s.lookup(ctx, name) },
	})
	if err != nil {
		return 0, nil // no message that DKIM knows
	}
	for _, v := range list {
		if v.Err == nil {
			n++
		}
		if dkim.IsTempFail(v.Err) {
			return 0, v.Err
		}
	}
	return n, nil
}

// lookup asks the lab's resolver.
func (s *signer) lookup(ctx context.Context, name string) (list []string, err error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
	q.SetEdns0(4096, true)
	answer, err := dns.ExchangeContext(ctx, q, s.lab.Resolver.Addr)
	if err != nil {
		return nil, err
	}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			list = append(list, strings.Join(txt.Txt, ""))
		}
	}
	return list, nil
}

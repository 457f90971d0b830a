package signet

import (
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"

	"dimegate/dmtp/key"
)

// A VerifyError says which check of a signet failed; errors.Is finds its class: key.ErrSignature, ErrPOK, ErrCustody,
// ErrIdentifier.
type VerifyError struct {
	Class  key.Class
	Kind   Kind
	Field  byte // the field that did not hold; 0 where it is none
	Reason string
}

func (e *VerifyError) Error() string {
	if e.Field == 0 {
		return fmt.Sprintf("%s: %s: %s", string(e.Class), e.Kind, e.Reason)
	}
	return fmt.Sprintf("%s: %s, field %d (%s): %s", string(e.Class), e.Kind, e.Field, FieldTitle(e.Kind, e.Field), e.Reason)
}

func (e *VerifyError) Unwrap() error { return e.Class }

func (s *Signet) wrong(c key.Class, field byte, reason string) error {
	return &VerifyError{Class: c, Kind: s.kind, Field: field, Reason: reason}
}

// signedBy reports whether the signature in field id, which must be there, was made by one of the keys. It covers the body
// up to itself; the header is not signed.
func (s *Signet) signedBy(id byte, keys ...key.SigningPublic) bool {
	n := s.upTo(id - 1)
	if n == len(s.fields) || s.fields[n].id != id {
		return false
	}
	f := s.fields[n]
	for _, k := range keys {
		if k.Verify(s.raw[headerSize:f.start], s.value(f)) {
			return true
		}
	}
	return false
}

// verifyForms checks the organization's signatures from the crypto form up to the highest there is.
func (s *Signet) verifyForms(keys ...key.SigningPublic) error {
	for _, f := range []Form{Crypto, Full, ID} {
		if bound, _ := s.kind.bound(f); f <= s.form && !s.signedBy(bound, keys...) {
			return s.wrong(key.ErrSignature, bound, "the signature does not hold")
		}
	}
	return nil
}

// VerifyOrg checks an organizational signet: its POK is one of those in the domain's management record, and every signature
// up to its form is that key's. SOKs do not sign the signet that names them.
func (s *Signet) VerifyOrg(poks []key.SigningPublic) error {
	if s.kind != Org {
		return s.wrong(key.ErrType, 0, "an organizational signet was wanted")
	}
	listed := 0
	for _, pok := range poks {
		listed |= subtle.ConstantTimeCompare(pok[:], s.signing[:])
	}
	if listed == 0 {
		return s.wrong(key.ErrPOK, FieldSigningKey, "the primary key is not in the management record")
	}
	return s.verifyForms(s.signing)
}

// VerifyUser checks a user signet under its organization's, which must have been verified: the user's own signature (which
// libdime does not check), and every organizational signature up to its form, each by the POK or by a SOK that may sign
// signets. The chain of custody is VerifyCustody's, the name VerifyName's.
func (s *Signet) VerifyUser(org *Signet) error {
	if s.kind != User {
		return s.wrong(key.ErrType, 0, "a user signet was wanted")
	}
	if org.kind != Org {
		return org.wrong(key.ErrType, 0, "an organizational signet was wanted")
	}
	if !s.signedBy(FieldUserSignature, s.signing) {
		return s.wrong(key.ErrSignature, FieldUserSignature, "the user's signature does not hold")
	}
	return s.verifyForms(org.Signers(SignSignets)...)
}

// CertifiedBy reports whether one of a user signet's organizational signatures was made by a key.
func (s *Signet) CertifiedBy(k key.SigningPublic) bool {
	return s.kind == User && (s.signedBy(FieldUserCertified, k) || s.signedBy(FieldFullSignature, k) || s.signedBy(FieldFinalSignature, k))
}

// VerifyRequest checks a signing request: the user's own signature. The chain of custody is VerifyCustody's.
func (s *Signet) VerifyRequest() error {
	if s.kind != SSR {
		return s.wrong(key.ErrType, 0, "a signing request was wanted")
	}
	if !s.signedBy(FieldUserSignature, s.signing) {
		return s.wrong(key.ErrSignature, FieldUserSignature, "the user's signature does not hold")
	}
	return nil
}

// VerifyCustody checks that a user signet or request follows previous: its chain of custody signature was made by that
// signet's signing key. One without such a signature follows nothing. (libdime's own check of requests looks at the
// wrong field and refuses all of them.)
func (s *Signet) VerifyCustody(previous *Signet) error {
	if s.kind == Org || previous.kind != User {
		return s.wrong(key.ErrType, 0, "custody goes from a user signet to a user signet or request")
	}
	if _, ok := s.Custody(); !ok {
		return s.wrong(key.ErrCustody, FieldCustody, "no chain of custody signature")
	}
	if !s.signedBy(FieldCustody, previous.signing) {
		return s.wrong(key.ErrCustody, FieldCustody, "the signature is not by the signet before")
	}
	return nil
}

// VerifyName checks that the signet says, signed in the ID form, that it belongs to name. The lower forms can be shown for
// anyone of the same organization.
func (s *Signet) VerifyName(name string) error {
	switch {
	case s.form != ID:
		return s.wrong(key.ErrIdentifier, FieldIdentifier, "no name is signed in this form")
	case !SameName(s.Name(), name):
		return s.wrong(key.ErrIdentifier, FieldIdentifier, "the signet is another's")
	}
	return nil
}

// VerifyChain checks a history of user signets, the oldest first: each verifies under one of orgs, each but the first has
// its custody from the one before, all that are named have one name, and no signing key comes twice.
func VerifyChain(chain []*Signet, orgs ...*Signet) error {
	seen := make(map[key.SigningPublic]bool, len(chain))
	name := ""
	for i, s := range chain {
		if err := verifyUnderAny(s, orgs); err != nil {
			return fmt.Errorf("signet %d of the chain: %w", i+1, err)
		}
		if i > 0 {
			if err := s.VerifyCustody(chain[i-1]); err != nil {
				return fmt.Errorf("signet %d of the chain: %w", i+1, err)
			}
		}
		if seen[s.signing] {
			return fmt.Errorf("signet %d of the chain: %w", i+1, s.wrong(key.ErrCustody, FieldSigningKey, "a signing key comes back"))
		}
		seen[s.signing] = true
		if s.form == ID {
			if name != "" && !SameName(name, s.Name()) {
				return fmt.Errorf("signet %d of the chain: %w", i+1, s.wrong(key.ErrIdentifier, FieldIdentifier, "the signet is another's"))
			}
			name = s.Name()
		}
	}
	return nil
}

func verifyUnderAny(s *Signet, orgs []*Signet) error {
	err := s.wrong(key.ErrSignature, 0, "no organizational signet to check it with")
	for _, org := range orgs {
		if err = s.VerifyUser(org); err == nil {
			return nil
		}
	}
	return err
}

// A Fingerprint names a signet: SHA-512 over its body up to the closing signature of a form, that signature included.
type Fingerprint [sha512.Size]byte

// Fingerprint is that of a form. It says something only of a signet that was verified. As in libdime, a form whose
// signature is missing has a fingerprint too, that of all the fields below it; a form that the kind does not have is
// ErrIncomplete. The octets behind the last signature count in the ID form, and in it alone.
func (s *Signet) Fingerprint(f Form) (Fingerprint, error) {
	bound, ok := s.kind.bound(f)
	if !ok {
		return Fingerprint{}, syntaxf(key.ErrIncomplete, 0, "a %s has no %v form", s.kind, f)
	}
	end := headerSize
	if n := s.upTo(bound); n > 0 {
		end = s.fields[n-1].end
	}
	return sha512.Sum512(s.raw[headerSize:end]), nil
}

// String is the form in commands, envelopes and logs: base64 without padding, 86 characters.
func (f Fingerprint) String() string { return base64.RawStdEncoding.EncodeToString(f[:]) }

// ParseFingerprint reads what String writes, and the same with its padding. Nothing else: no white space, no other alphabet,
// no bits behind the end.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f Fingerprint
	encoding := base64.RawStdEncoding
	switch len(text) {
	case base64.RawStdEncoding.EncodedLen(len(f)):
	case base64.StdEncoding.EncodedLen(len(f)):
		encoding = base64.StdEncoding
	default:
		return f, syntaxf(key.ErrLength, 0, "a fingerprint is 86 characters, not %d", len(text))
	}
	b, err := encoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(f) {
		return f, syntaxf(key.ErrBadField, 0, "a fingerprint is base64")
	}
	return Fingerprint(b), nil
}

// Equal compares in constant time.
func (f Fingerprint) Equal(o Fingerprint) bool { return subtle.ConstantTimeCompare(f[:], o[:]) == 1 }

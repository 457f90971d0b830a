// Package signet reads, checks and makes signets, the public keys of DIME's users and organizations with all that is said
// about them, and the requests to sign them. Octets in, octets out. One object model and one codec serve the three
// dialects. Signatures are checked over the octets that were received, never over what we would write ourselves.
package signet

import (
	"bytes"
	"encoding/base64"
	"slices"

	"dimegate/dmtp/key"
)

const (
	// MaxSize is the longest signet that is read, in octets with the header. The format allows 16 MiB.
	MaxSize = 1 << 20
	// MaxFields is the largest number of fields in a signet that is read, MaxKeys that of its secondary or alternate keys.
	MaxFields = 1024
	MaxKeys   = 64

	headerSize = 5 // object type number (2 octets), length of the rest (3 octets)
)

// A Signet is one signet or signing request, well formed and complete for the form that it claims. That its signatures hold
// is said by the Verify methods alone. It does not change; all methods are safe for concurrent use.
type Signet struct {
	kind    Kind
	dialect Dialect
	form    Form
	raw     []byte // with its header
	fields  []span // in wire order
	covered int    // how many of fields the highest signature covers, itself included

	signing    key.SigningPublic
	encryption key.EncryptionPublic
	secondary  []SecondaryKey         // organizational signets
	alternate  []key.EncryptionPublic // the others
}

// A span is where one field lies, in octets from the start of the object.
type span struct {
	id                   byte
	start, name, nameEnd int // name and nameEnd are of a named field
	value, end           int
}

// A Field is one field of a signet.
type Field struct {
	ID    byte
	Name  string // of a named field (251) alone
	Value []byte
}

// A Permission is what a secondary key may do.
type Permission byte

const (
	SignSignets  Permission = 1 << iota
	SignMessages            // as origin
	SignCertificates
	SignSoftware
	permissions = SignSignets | SignMessages | SignCertificates | SignSoftware
)

// A SecondaryKey is a secondary organizational key, a SOK.
type SecondaryKey struct {
	Permissions Permission
	Key         key.SigningPublic
}

// Bytes are the octets of the signet, header included, exactly as received or made. The slice is a copy.
func (s *Signet) Bytes() []byte { return bytes.Clone(s.raw) }

// Size is the length of Bytes.
func (s *Signet) Size() int { return len(s.raw) }

// Base64 is the wire form in DMTP replies: base64 of Bytes in one line, with padding.
func (s *Signet) Base64() string { return base64.StdEncoding.EncodeToString(s.raw) }

// Armored is the text form. Requests get the armor of organizational signets, as libdime writes and expects it; in dialect C
// their own, as PRIME does.
func (s *Signet) Armored() []byte { return key.Armor(s.armor(), s.raw) }

func (s *Signet) armor() string {
	switch {
	case s.kind == User:
		return key.ArmorUserSignet
	case s.kind == SSR && s.dialect == C:
		return key.ArmorRequest
	}
	return key.ArmorOrgSignet
}

func (s *Signet) Kind() Kind       { return s.kind }
func (s *Signet) Dialect() Dialect { return s.dialect }

// Form is the highest form whose signature is there. Its fields are all that the other methods show: what lies behind the
// last signature is signed by nobody and could have been added by anyone (libdime shows it).
func (s *Signet) Form() Form { return s.form }

// Field returns the value of the first field with this identifier that a signature covers. The value must not be changed.
func (s *Signet) Field(id byte) ([]byte, bool) {
	for _, f := range s.fields[:s.covered] {
		if f.id == id {
			return s.value(f), true
		}
	}
	return nil, false
}

// Fields returns the fields that signatures cover, the signatures among them, in wire order. Their values must not be changed.
func (s *Signet) Fields() []Field { return s.list(s.fields[:s.covered]) }

// Unsigned returns the fields behind the last signature: for showing only.
func (s *Signet) Unsigned() []Field { return s.list(s.fields[s.covered:]) }

func (s *Signet) list(spans []span) []Field {
	list := make([]Field, len(spans))
	for i, f := range spans {
		list[i] = Field{ID: f.id, Name: string(s.raw[f.name:f.nameEnd]), Value: s.value(f)}
	}
	return list
}

func (s *Signet) value(f span) []byte { return s.raw[f.value:f.end:f.end] }

// Name is the domain or the address that the signet says it belongs to (field 254), or nothing where it is not signed. See
// VerifyName.
func (s *Signet) Name() string {
	name, _ := s.Field(FieldIdentifier)
	return string(name)
}

// SigningKey is the owner's signing key (field 1): an organization's POK.
func (s *Signet) SigningKey() key.SigningPublic { return s.signing }

// EncryptionKey is the owner's encryption key.
func (s *Signet) EncryptionKey() key.EncryptionPublic { return s.encryption }

// SecondaryKeys are the SOKs of an organizational signet, in wire order.
func (s *Signet) SecondaryKeys() []SecondaryKey { return slices.Clone(s.secondary) }

// AlternateKeys are the alternate encryption keys of a user, in wire order.
func (s *Signet) AlternateKeys() []key.EncryptionPublic { return slices.Clone(s.alternate) }

// Custody returns the chain of custody signature of a user signet or request. It must not be changed.
func (s *Signet) Custody() ([]byte, bool) {
	if s.kind == Org {
		return nil, false
	}
	return s.Field(FieldCustody)
}

// Signers are the keys of an organizational signet that may do all of want, in the order in which to try them: the POK,
// which may do everything, then the SOKs.
func (s *Signet) Signers(want Permission) []key.SigningPublic {
	if s.kind != Org {
		return nil
	}
	signers := []key.SigningPublic{s.signing}
	for _, k := range s.secondary {
		if k.Permissions&want == want {
			signers = append(signers, k.Key)
		}
	}
	return signers
}

// Cut returns the signet in a lower form: without the fields behind that form's signature. What it keeps stays signed. A
// request has no other form, and a form that the signet does not reach cannot be cut from it (libdime cuts it all the
// same): ErrIncomplete.
func (s *Signet) Cut(f Form) (*Signet, error) {
	bound, ok := s.kind.bound(f)
	if !ok || f == Request || f > s.form {
		return nil, syntaxf(key.ErrIncomplete, 0, "this %s has no %v form", s.kind, f)
	}
	n := s.upTo(bound)
	cut := *s
	cut.raw = frame(s.kind, s.raw[headerSize:s.fields[n-1].end])
	cut.form, cut.fields, cut.covered = f, s.fields[:n:n], n
	return &cut, nil
}

// upTo counts the fields whose identifier is at most id.
func (s *Signet) upTo(id byte) int {
	n := 0
	for n < len(s.fields) && s.fields[n].id <= id {
		n++
	}
	return n
}

// frame puts the header before a body of at most MaxSize octets.
func frame(k Kind, body []byte) []byte {
	b := make([]byte, 0, headerSize+len(body))
	b = append(b, byte(k>>8), byte(k), byte(len(body)>>16), byte(len(body)>>8), byte(len(body)))
	return append(b, body...)
}

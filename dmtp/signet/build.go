package signet

import (
	"bytes"
	"fmt"
	"slices"

	"dimegate/dmtp/key"
)

// Details is what an organization says and signs in a signet beside the keys.
type Details struct {
	Dialect   Dialect        // of an organizational signet; a user's has that of its request. Zero is A
	Secondary []SecondaryKey // an organization's
	Fields    []Field        // informational fields, 16 to 252; sorted by identifier here, those of one identifier keep their order
	Name      string         // the domain or the address, for the ID form
	Form      Form           // how far to sign: Crypto, Full or ID; zero is ID
}

// A RequestDetails is what a user says in a request beside the own keys.
type RequestDetails struct {
	Dialect    Dialect                // zero is A
	Previous   *key.Signing           // the signing key of the signet that this one follows; nil for a first one
	Custody    []byte                 // in its place what Vouch made, for one who has not that key
	Alternates []key.EncryptionPublic // further encryption keys
	Layers     [][]byte               // advertisements of the alternate layer, which are field 3 as well: see FieldAlternateKey
}

// NewOrg makes and signs an organizational signet with p, whose signing key is the POK.
func NewOrg(p key.Pair, d Details) (*Signet, error) {
	b, err := newBuilder(Org, d.Dialect, p)
	if err != nil {
		return nil, err
	}
	b.signingKey(p.Signing.Public())
	for _, k := range d.Secondary {
		b.field(Field{ID: FieldOrgSecondaryKey, Value: append([]byte{byte(k.Permissions), signingKeyFormat}, k.Key[:]...)})
	}
	b.encryptionKey(FieldOrgEncryptionKey, p.Encryption.Public())
	return b.finish(p.Signing, d)
}

// NewRequest makes a signing request with the user's keys p. In dialect A one with alternate keys is readable by libdime but
// cannot be signed by anyone, as the user signet writes their lengths otherwise: see NewUncertified.
func NewRequest(p key.Pair, d RequestDetails) (*Signet, error) {
	b, err := newBuilder(SSR, d.Dialect, p)
	if err != nil {
		return nil, err
	}
	if err := b.userCore(p, d); err != nil {
		return nil, err
	}
	return b.parse()
}

// SignRequest makes a user signet of a request: it keeps the request's octets and signs them with org, the POK or a SOK that
// may sign signets. The request's own signature is checked; whether its chain of custody is right, and whether the user is
// who d.Name says, the caller must know.
func SignRequest(request *Signet, org key.Signing, d Details) (*Signet, error) {
	if err := request.VerifyRequest(); err != nil {
		return nil, err
	}
	if request.dialect == A && len(request.alternate) > 0 {
		return nil, syntaxf(key.ErrDialect, 0, "in dialect A a request with alternate keys cannot become a signet: make both at once")
	}
	b := &builder{kind: User, dialect: request.dialect, raw: slices.Clone(request.raw)}
	return b.finish(org, d)
}

// An Uncertified is a user signet up to the owner's own signature: what an agent that makes its user's keys gives to the
// organization that certifies them. Beside a request, which is for others, it has the octets that the signet will have, so that in
// dialect A, too, it may have alternate keys. It has no wire form.
type Uncertified struct{ b *builder }

// NewUncertified makes the owner's part of a user signet, with the user's keys p.
func NewUncertified(p key.Pair, d RequestDetails) (*Uncertified, error) {
	b, err := newBuilder(User, d.Dialect, p)
	if err != nil {
		return nil, err
	}
	if err := b.userCore(p, d); err != nil {
		return nil, err
	}
	return &Uncertified{b}, nil
}

// Certify makes the user signet: it signs with org, the POK or a SOK that may sign signets. What SignRequest leaves to the caller
// is the caller's here.
func (u *Uncertified) Certify(org key.Signing, d Details) (*Signet, error) {
	b := &builder{kind: User, dialect: u.b.dialect, raw: slices.Clone(u.b.raw)}
	return b.finish(org, d)
}

// Begins reports whether s is a user signet that begins with u, octet for octet.
func (u *Uncertified) Begins(s *Signet) bool {
	return s.kind == User && bytes.HasPrefix(s.raw[headerSize:], u.b.raw[headerSize:])
}

// Vouch makes the chain of custody signature by which the keys of a request follow the signet whose signing key this is: it is
// RequestDetails.Custody of the request that its user signs next. The request here must not follow anything.
func (s *Signet) Vouch(previous key.Signing) ([]byte, error) {
	if err := s.VerifyRequest(); err != nil {
		return nil, err
	}
	if _, ok := s.Custody(); ok {
		return nil, s.wrong(key.ErrCustody, FieldCustody, "the request follows a signet already")
	}
	if previous.Public() == s.signing {
		return nil, s.wrong(key.ErrCustody, FieldSigningKey, "a signet cannot follow one with the same signing key")
	}
	keys := s.fields[s.upTo(FieldCustody-1)-1]
	return previous.Sign(s.raw[headerSize:keys.end]), nil
}

// Renamed makes a user signet under another name, signed with org, the POK or a SOK that may sign signets: all up to the full
// form stays, octet for octet. Whether the name is that user's, the caller must know.
func (s *Signet) Renamed(org key.Signing, name string) (*Signet, error) {
	if s.kind != User {
		return nil, s.wrong(key.ErrType, 0, "a user signet was wanted")
	}
	full, err := s.Cut(Full)
	if err != nil {
		return nil, err
	}
	b := &builder{kind: User, dialect: s.dialect, raw: full.raw}
	b.field(Field{ID: FieldIdentifier, Value: []byte(name)})
	b.sign(FieldFinalSignature, org)
	return b.parse()
}

// NewUser makes and signs a user signet at once, for one who holds the user's keys p and the organization's.
func NewUser(p key.Pair, r RequestDetails, org key.Signing, d Details) (*Signet, error) {
	u, err := NewUncertified(p, r)
	if err != nil {
		return nil, err
	}
	return u.Certify(org, d)
}

// A builder writes fields in order and keeps its first failure. What it makes is parsed like any other signet in the end, so
// the grammar is judged in one place; it refuses itself what that place would read but nobody should write.
type builder struct {
	kind    Kind
	dialect Dialect
	raw     []byte
	err     error
}

func newBuilder(k Kind, d Dialect, p key.Pair) (*builder, error) {
	if d == 0 {
		d = A
	}
	if p.Signing.IsZero() || p.Encryption.IsZero() {
		return nil, syntaxf(key.ErrKeyFormat, 0, "a signet needs both of its owner's keys")
	}
	return &builder{kind: k, dialect: d, raw: make([]byte, headerSize, 512)}, nil
}

func (b *builder) fail(c key.Class, format string, a ...any) {
	if b.err == nil {
		b.err = syntaxf(c, 0, format, a...)
	}
}

// field appends one field.
func (b *builder) field(f Field) {
	d := b.kind.grammar()[f.ID]
	if d == nil || b.dialect == C && (d.value == typeSecondaryKey || d.width == widthAlt) {
		b.fail(key.ErrUnknown, "field %d does not exist in a %s of dialect %v", f.ID, b.kind, b.dialect)
		return
	}
	b.raw = append(b.raw, f.ID)
	if d.value == typeNamed {
		if len(f.Name) > 255 {
			b.fail(key.ErrBadField, "a field's name is at most 255 octets")
			return
		}
		b.raw = append(append(b.raw, byte(len(f.Name))), f.Name...)
	} else if f.Name != "" {
		b.fail(key.ErrBadField, "field %d has no name of its own", f.ID)
	}
	w := d.octets(b.kind, b.dialect)
	if w > 0 && len(f.Value) >= 1<<(8*w) || len(f.Value) > MaxSize {
		b.fail(key.ErrTooLarge, "field %d (%s): %d octets are too many", f.ID, d.name, len(f.Value))
		return
	}
	for i := w - 1; i >= 0; i-- {
		b.raw = append(b.raw, byte(len(f.Value)>>(8*i)))
	}
	b.raw = append(b.raw, f.Value...)
}

func (b *builder) signingKey(k key.SigningPublic) {
	value := k[:]
	if b.dialect != C {
		value = append([]byte{signingKeyFormat}, value...)
	}
	b.field(Field{ID: FieldSigningKey, Value: value})
}

func (b *builder) encryptionKey(id byte, k key.EncryptionPublic) {
	octets := k.Bytes()
	b.field(Field{ID: id, Value: octets[:]})
}

// sign appends the signature of all that there is so far.
func (b *builder) sign(id byte, k key.Signing) {
	if b.err == nil {
		b.field(Field{ID: id, Value: k.Sign(b.raw[headerSize:])})
	}
}

// userCore writes what a user signs.
func (b *builder) userCore(p key.Pair, d RequestDetails) error {
	if d.Previous != nil && d.Previous.IsZero() {
		return syntaxf(key.ErrKeyFormat, 0, "the key of the signet before is no key")
	}
	if d.Previous != nil && d.Previous.Equal(p.Signing) {
		return syntaxf(key.ErrCustody, 0, "a signet cannot follow one with the same signing key")
	}
	b.signingKey(p.Signing.Public())
	b.encryptionKey(FieldEncryptionKey, p.Encryption.Public())
	for _, k := range d.Alternates {
		b.encryptionKey(FieldAlternateKey, k)
	}
	for _, v := range d.Layers {
		b.field(Field{ID: FieldAlternateKey, Value: v})
	}
	switch {
	case d.Previous != nil && d.Custody != nil:
		return syntaxf(key.ErrCustody, 0, "a signet follows one by a key or by a signature, not by both")
	case d.Previous != nil:
		b.sign(FieldCustody, *d.Previous)
	case d.Custody != nil:
		b.field(Field{ID: FieldCustody, Value: d.Custody})
	}
	b.sign(FieldUserSignature, p.Signing)
	return b.err
}

// finish writes the organization's part on top of the keys.
func (b *builder) finish(org key.Signing, d Details) (*Signet, error) {
	form := d.Form
	if form == 0 {
		form = ID
	}
	if err := b.checkDetails(org, form, d); err != nil {
		return nil, err
	}
	b.sign(b.kind.cryptoField(), org)
	if form >= Full {
		for _, f := range slices.SortedStableFunc(slices.Values(d.Fields), func(x, y Field) int { return int(x.ID) - int(y.ID) }) {
			b.field(f)
		}
		b.sign(FieldFullSignature, org)
	}
	if form == ID {
		b.field(Field{ID: FieldIdentifier, Value: []byte(d.Name)})
		b.sign(FieldFinalSignature, org)
	}
	return b.parse()
}

func (b *builder) checkDetails(org key.Signing, form Form, d Details) error {
	names := make(map[string]bool)
	for _, f := range d.Fields {
		if f.ID < FieldName || f.ID > FieldPhoto {
			return syntaxf(key.ErrBadField, 0, "field %d is not informational", f.ID)
		}
		if f.ID == FieldNamed && names[f.Name] {
			return syntaxf(key.ErrDuplicate, 0, "two named fields have one name")
		}
		if f.ID == FieldNamed {
			names[f.Name] = true
		}
	}
	switch {
	case org.IsZero():
		return syntaxf(key.ErrKeyFormat, 0, "a signet needs the organization's signing key")
	case form < Crypto || form > ID:
		return syntaxf(key.ErrIncomplete, 0, "a signet is signed to its crypto, full or id form")
	case form < Full && len(d.Fields) > 0:
		return syntaxf(key.ErrIncomplete, 0, "informational fields are signed in the full form, not in the crypto form")
	case form < ID && d.Name != "":
		return syntaxf(key.ErrIncomplete, 0, "a name is signed in the id form alone")
	case b.kind != Org && len(d.Secondary) > 0:
		return syntaxf(key.ErrBadField, 0, "secondary keys are an organization's")
	}
	return nil
}

// parse frames what was written and reads it back.
func (b *builder) parse() (*Signet, error) {
	if b.err != nil {
		return nil, b.err
	}
	if len(b.raw) > MaxSize {
		return nil, tooLarge(len(b.raw))
	}
	s, err := Parse(frame(b.kind, b.raw[headerSize:]))
	if err != nil {
		return nil, err
	}
	if s.dialect != b.dialect {
		return nil, fmt.Errorf("signet: made in dialect %v, reads as %v: %w", b.dialect, s.dialect, key.ErrDialect)
	}
	return s, nil
}

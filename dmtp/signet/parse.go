package signet

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"dimegate/dmtp/key"
)

// A SyntaxError says where a signet breaks the grammar; see key.SyntaxError. errors.Is finds its class: key.ErrOrder, say.
type SyntaxError = key.SyntaxError

func syntaxf(c key.Class, offset int, format string, a ...any) error {
	return &SyntaxError{Class: c, Offset: offset, Reason: fmt.Sprintf(format, a...)}
}

// Decode reads a signet in any of its forms: binary, armored, or the bare base64 of DMTP, whose padding may be missing. An
// armor must name the kind of the object in it; a request may stand under an organization's, as libdime writes it.
func Decode(b []byte) (*Signet, error) {
	if len(b) == 0 {
		return nil, syntaxf(key.ErrShort, 0, "no octets")
	}
	if b[0] < ' ' && b[0] != '\n' && b[0] != '\r' && b[0] != '\t' {
		return Parse(b)
	}
	if !bytes.Contains(b, []byte("-----BEGIN ")) {
		return decodeBase64(bytes.TrimSpace(b))
	}
	block, err := key.Dearmor(b, key.ArmorUserSignet, key.ArmorOrgSignet, key.ArmorRequest)
	if err != nil {
		return nil, err
	}
	s, err := Parse(block.Bytes)
	if err != nil {
		return nil, err
	}
	if block.Type != s.armor() && !(s.kind == SSR && block.Type != key.ArmorUserSignet) {
		return nil, syntaxf(key.ErrArmor, 0, "the armor names another kind than the %s in it", s.kind)
	}
	return s, nil
}

func decodeBase64(b []byte) (*Signet, error) {
	if len(b) > base64.StdEncoding.EncodedLen(MaxSize) {
		return nil, tooLarge(base64.StdEncoding.DecodedLen(len(b)))
	}
	encoding := base64.StdEncoding
	if len(b)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	if bytes.ContainsAny(b, "\r\n") { // which the decoder would skip
		return nil, syntaxf(key.ErrArmor, 0, "neither a binary signet nor armor nor one line of base64")
	}
	raw, err := encoding.Strict().AppendDecode(nil, b)
	if err != nil {
		return nil, syntaxf(key.ErrArmor, 0, "neither a binary signet nor armor nor base64")
	}
	return Parse(raw)
}

func tooLarge(n int) error {
	return syntaxf(key.ErrTooLarge, 0, "%d octets: a signet of more than %d is not read", n, MaxSize)
}

// Parse decodes one binary signet and checks its grammar, not its signatures. All of b must be used, so that a signet has
// one fingerprint. It keeps no part of b. Memory: b and a row for each field, at most MaxFields. Errors are SyntaxErrors.
func Parse(b []byte) (*Signet, error) {
	if len(b) > MaxSize {
		return nil, tooLarge(len(b))
	}
	if len(b) < headerSize {
		return nil, syntaxf(key.ErrShort, 0, "%d octets: not even a header", len(b))
	}
	kind := Kind(b[0])<<8 | Kind(b[1])
	if kind.grammar() == nil {
		return nil, syntaxf(key.ErrType, 0, "%s is no signet", kind)
	}
	if n := int(b[2])<<16 | int(b[3])<<8 | int(b[4]); n != len(b)-headerSize {
		return nil, syntaxf(key.ErrLength, 2, "the header says %d octets, %d follow", n, len(b)-headerSize)
	}
	s := &Signet{kind: kind, dialect: sniff(kind, b[headerSize:]), raw: bytes.Clone(b)}
	if s.dialect == 0 {
		s.dialect = A // only to say what is wrong
		if err := s.parse(); err != nil {
			return nil, err
		}
		return nil, syntaxf(key.ErrDialect, headerSize, "no dialect has these lengths")
	}
	if err := s.parse(); err != nil {
		return nil, err
	}
	return s, nil
}

// sniff tells the dialect from the prefix of the signing key and the length of the encryption key; 0 is none. No signet
// that is well formed in one dialect has the marks of another.
func sniff(k Kind, body []byte) Dialect {
	at := func(i int) int {
		if i < len(body) {
			return int(body[i])
		}
		return -1
	}
	prime := at(1) == key.SigningSize
	if at(0) != FieldSigningKey || !prime && (at(1) != key.SigningSize+1 || at(2) != signingKeyFormat) {
		return 0
	}
	i, encryption := 2+at(1), FieldEncryptionKey
	if k == Org {
		encryption = FieldOrgEncryptionKey
		for at(i) == FieldOrgSecondaryKey && i+1 < len(body) {
			i += 2 + at(i+1)
		}
	}
	if at(i) != encryption {
		return 0
	}
	switch width := at(i + 1); {
	case width == 0 && !prime:
		return A
	case width == key.EncryptionPublicSize && !prime:
		return B
	case width == key.EncryptionPublicSize:
		return C
	}
	return 0
}

// parse reads the fields of s.raw.
func (s *Signet) parse() error {
	c := cursor{kind: s.kind, dialect: s.dialect, raw: s.raw, at: headerSize}
	if !c.more() {
		return syntaxf(key.ErrIncomplete, headerSize, "no fields")
	}
	for c.more() {
		if len(s.fields) == MaxFields {
			return syntaxf(key.ErrTooLarge, c.at, "more than %d fields", MaxFields)
		}
		f := c.field()
		if c.err != nil {
			return c.err
		}
		s.fields = append(s.fields, f)
	}
	if err := s.checkComplete(); err != nil {
		return err
	}
	for _, f := range s.fields {
		if err := s.checkValue(f); err != nil {
			return err
		}
	}
	return nil
}

// A cursor walks over fields and keeps its first failure.
type cursor struct {
	kind    Kind
	dialect Dialect
	raw     []byte
	at      int
	last    byte // identifier of the field before; 0 at the first
	err     error
}

func (c *cursor) more() bool { return c.err == nil && c.at < len(c.raw) }

// field reads the next field: identifier, perhaps a name, perhaps a length, value.
func (c *cursor) field() span {
	f := span{id: c.raw[c.at], start: c.at}
	d := c.definition(f.id)
	if d == nil {
		return span{}
	}
	c.last = f.id
	c.at++
	if d.value == typeNamed {
		n := c.uint(1)
		f.name = c.at
		f.nameEnd = c.skip(n)
	}
	n := 64
	if w := d.octets(c.kind, c.dialect); w > 0 {
		n = c.uint(w)
	}
	f.value = c.at
	f.end = c.skip(n)
	return f
}

// definition finds the row for the field at the cursor and holds its identifier against the one before.
func (c *cursor) definition(id byte) *definition {
	d := c.kind.lookup(id)
	switch {
	case c.last == FieldFinalSignature:
		c.fail(key.ErrTrailing, "octets behind the last signature")
	case c.dialect == C && id == 0 && c.last != 0:
		c.fail(key.ErrTrailing, "PRIME would stop reading here")
	case d == nil:
		c.fail(key.ErrUnknown, "field %d is not assigned in a %s", id, c.kind)
	case c.dialect == C && (d.value == typeSecondaryKey || d.width == widthAlt):
		c.fail(key.ErrUnknown, "field %d does not exist in dialect C", id)
	case id < c.last:
		c.fail(key.ErrOrder, "field %d behind field %d", id, c.last)
	case id == c.last && !d.many:
		c.fail(key.ErrDuplicate, "field %d a second time", id)
	default:
		return d
	}
	return nil
}

func (c *cursor) fail(class key.Class, format string, a ...any) {
	if c.err == nil {
		c.err = syntaxf(class, c.at, format, a...)
	}
}

// uint reads a big-endian number of n octets.
func (c *cursor) uint(n int) (v int) {
	if c.err != nil || len(c.raw)-c.at < n {
		c.fail(key.ErrTruncated, "a length is cut off")
		return 0
	}
	for _, b := range c.raw[c.at : c.at+n] {
		v = v<<8 | int(b)
	}
	c.at += n
	return v
}

// skip passes over n octets and returns where they end.
func (c *cursor) skip(n int) int {
	if c.err != nil || len(c.raw)-c.at < n {
		c.fail(key.ErrTruncated, "field %d runs past the end", c.last)
		return c.at
	}
	c.at += n
	return c.at
}

// checkComplete finds the form, which the highest signature tells, and the fields that it demands.
func (s *Signet) checkComplete() error {
	var has [256]bool
	for _, f := range s.fields {
		has[f.id] = true
	}
	for _, f := range []Form{ID, Full, Crypto, Request} {
		if bound, ok := s.kind.bound(f); ok && has[bound] && (f != Request || s.kind == SSR) {
			s.form, s.covered = f, s.upTo(bound)
			return s.checkRequired(bound, &has)
		}
	}
	return syntaxf(key.ErrIncomplete, 0, "a %s without its signature", s.kind)
}

func (s *Signet) checkRequired(bound byte, has *[256]bool) error {
	for _, d := range s.kind.grammar() {
		if d != nil && d.required && d.id < bound && !has[d.id] {
			return syntaxf(key.ErrIncomplete, 0, "field %d (%s) is missing below the signature of the %v form", d.id, d.name, s.form)
		}
	}
	return nil
}

// signingKeyFormat is the octet before signing keys in dialects A and B: the native point of the OpenPGP EdDSA draft.
const signingKeyFormat = 0x40

// checkValue checks the value of one field and keeps keys.
func (s *Signet) checkValue(f span) (err error) {
	v := s.value(f)
	switch s.kind.lookup(f.id).value {
	case typeSigningKey:
		s.signing, err = parseSigningKey(s.dialect, v)
	case typeSecondaryKey:
		err = s.addSecondary(v)
	case typeEncryptionKey:
		err = s.addEncryption(f.id, v)
	case typeText:
		err = checkText(v)
	case typeNamed:
		if f.name == f.nameEnd {
			err = syntaxf(key.ErrBadField, 0, "a named field without a name")
		} else {
			err = checkText(s.raw[f.name:f.nameEnd])
		}
	case typeImage:
		if !bytes.HasPrefix(v, []byte("\x89PNG\r\n\x1a\n")) {
			err = syntaxf(key.ErrImage, 0, "the photo is no PNG")
		}
	case typeIdentifier:
		if !validName(s.kind, string(v)) {
			err = syntaxf(key.ErrIdentifier, 0, "the identifier is not what a %s is for", s.kind)
		}
	}
	if e, ok := errors.AsType[*SyntaxError](err); ok {
		return syntaxf(e.Class, f.start, "field %d: %s", f.id, e.Reason)
	}
	return err
}

func parseSigningKey(d Dialect, v []byte) (key.SigningPublic, error) {
	if d != C {
		if len(v) == 0 || v[0] != signingKeyFormat {
			return key.SigningPublic{}, syntaxf(key.ErrKeyFormat, 0, "a signing key without its format octet 40")
		}
		v = v[1:]
	}
	return key.ParseSigningPublic(v)
}

func (s *Signet) addSecondary(v []byte) error {
	if len(v) != 2+key.SigningSize || Permission(v[0])&^permissions != 0 {
		return syntaxf(key.ErrKeyFormat, 0, "a secondary key is one octet of known permissions and a key, 34 octets")
	}
	if len(s.secondary) == MaxKeys {
		return syntaxf(key.ErrTooLarge, 0, "more than %d secondary keys", MaxKeys)
	}
	k, err := parseSigningKey(s.dialect, v[1:])
	if err != nil {
		return err
	}
	s.secondary = append(s.secondary, SecondaryKey{Permissions: Permission(v[0]), Key: k})
	return nil
}

func (s *Signet) addEncryption(id byte, v []byte) error {
	if id == FieldAlternateKey && s.kind != Org && len(v) > 0 && v[0] == layerMagic {
		return nil // an advertisement of the alternate layer, which package message reads
	}
	k, err := key.ParseEncryptionPublic(v)
	switch {
	case err != nil:
		return err
	case s.kind == Org || id == FieldEncryptionKey:
		s.encryption = k
	case len(s.alternate) == MaxKeys:
		return syntaxf(key.ErrTooLarge, 0, "more than %d alternate keys", MaxKeys)
	default:
		s.alternate = append(s.alternate, k)
	}
	return nil
}

func checkText(v []byte) error {
	if !utf8.Valid(v) || bytes.ContainsFunc(v, unicode.IsControl) {
		return syntaxf(key.ErrText, 0, "text that is not UTF-8 or has control characters")
	}
	return nil
}

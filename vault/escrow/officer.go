package escrow

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"dimegate/vault"
)

// A PublicKey is an Ed25519 key of an officer, a requester or a dealer.
type PublicKey [ed25519.PublicKeySize]byte

// smallOrder are the y coordinates of the points of edwards25519 whose order divides 8, and the two other encodings below
// 2^255 of two of them. Under such a key one signature holds for many messages, so its owner could deny all of his.
var smallOrder = [...]string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func (p PublicKey) usable() bool {
	p[31] &= 0x7f
	text := hex.EncodeToString(p[:])
	for _, bad := range smallOrder {
		if text == bad {
			return false
		}
	}
	return true
}

// Verify reports whether sig is p's signature of msg.
func (p PublicKey) Verify(msg, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && p.usable() && ed25519.Verify(p[:], msg, sig)
}

func (p PublicKey) String() string { return base64.StdEncoding.EncodeToString(p[:]) }

// A SigningKey is the private half. It never prints. Copies share one secret; its one owner calls Destroy.
type SigningKey struct {
	raw func() ed25519.PrivateKey
}

// NewSigningKey makes the key of a seed of 32 octets, which it copies.
func NewSigningKey(seed []byte) (SigningKey, error) {
	if len(seed) != ed25519.SeedSize {
		return SigningKey{}, fmt.Errorf("escrow: a signing key's seed is %d octets", ed25519.SeedSize)
	}
	k := ed25519.NewKeyFromSeed(seed)
	return SigningKey{raw: func() ed25519.PrivateKey { return k }}, nil
}

// Public is the public half; that of the zero value verifies nothing.
func (k SigningKey) Public() PublicKey {
	if k.raw == nil {
		return PublicKey{}
	}
	return PublicKey(k.raw()[ed25519.SeedSize:])
}

// Seed returns a copy, which the caller clears.
func (k SigningKey) Seed() []byte { return k.raw().Seed() }

func (k SigningKey) sign(msg []byte) []byte { return ed25519.Sign(k.raw(), msg) }

// Destroy clears the secret in every copy.
func (k SigningKey) Destroy() {
	if k.raw != nil {
		clear(k.raw())
	}
}

func (SigningKey) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// An Officer is a person who holds, or will hold, a share.
type Officer struct {
	Index     uint16 // from 1; never another person's in the key's life. 0 in an officer file
	Person    string // mail address in lower case
	Key       PublicKey
	Recipient string // age recipient
}

const officerWord = "dimegate-officer-v1"

// maxOfficerFile bounds an officer file: a hybrid recipient has about 2,000 characters.
const maxOfficerFile = 8 << 10

// Line is the officer file: one line with its line feed.
func (o Officer) Line() string {
	return fmt.Sprintf("%s %s %s %s\n", officerWord, o.Person, o.Key, o.Recipient)
}

// Fingerprint is what officers read to each other: the first 16 hexadecimal digits of D("officer", line).
func (o Officer) Fingerprint() string {
	d := vault.NewDigest("officer", []byte(o.Line()))
	return hex.EncodeToString(d[:8])
}

// ParseOfficer reads an officer file.
func ParseOfficer(b []byte) (Officer, error) {
	bad := func(why string) (Officer, error) { return Officer{}, refuse(ErrDecode, "officer file", "%s", why) }
	if len(b) > maxOfficerFile {
		return bad("is too long")
	}
	line, ok := strings.CutSuffix(string(b), "\n")
	f := strings.Split(line, " ")
	if !ok || len(f) != 4 || f[0] != officerWord {
		return bad("is not one line of four words")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != ed25519.PublicKeySize {
		return bad("has no signing key")
	}
	o := Officer{Person: f[1], Key: PublicKey(key), Recipient: f[3]}
	if why := o.fault(); why != "" {
		return bad(why)
	}
	if o.Line() != string(b) {
		return bad("is not in its one form")
	}
	return o, nil
}

// fault says what is wrong with an officer, his index excepted.
func (o Officer) fault() string {
	switch {
	case !validPerson(o.Person):
		return "a person is a mail address in lower case"
	case !o.Key.usable():
		return "the signing key has small order"
	case len(o.Recipient) > maxOfficerFile/2 || !strings.HasPrefix(o.Recipient, "age1") || strings.ContainsFunc(o.Recipient, notWord):
		return "the recipient is no age recipient"
	}
	return ""
}

func notWord(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '+' && r != '.' && r != '_'
}

// validPerson accepts an address of at most 254 octets without upper-case letters, blanks or control characters.
func validPerson(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && len(s) <= 254 && clean(s) && !strings.ContainsAny(s, " \u00a0\u2028\u2029") && strings.ToLower(s) == s && validDomainText(s[at+1:])
}

// validDomainText is validDomain without the demand for ASCII.
func validDomainText(s string) bool {
	return s != "" && !strings.ContainsAny(s, "@<>,;:\\\"()[]")
}

// append writes an officer as epoch records and plans do.
func (o Officer) append(b []byte) []byte {
	b = append(b, be16(o.Index)...)
	b = appendStr8(b, o.Person)
	b = append(b, o.Key[:]...)
	return appendStr16(b, o.Recipient)
}

// officers reads n officers in the order of their indexes.
func (c *cursor) officers(n int) []Officer {
	const least = 2 + 1 + 32 + 2
	if !c.list(n, least) {
		return nil
	}
	list := make([]Officer, n)
	for i := range list {
		o := Officer{Index: c.u16(), Person: c.str8()}
		c.fixed(o.Key[:])
		o.Recipient = c.str16()
		if c.err != nil {
			return nil
		}
		if why := o.fault(); why != "" {
			c.fail(ErrDecode, "officer %d: %s", o.Index, why)
		}
		list[i] = o
	}
	if why := officersFault(list); why != "" {
		c.fail(ErrDecode, "%s", why)
	}
	return list
}

// officersFault checks what officers are to one another: ascending indexes from 1, no person and no key twice.
func officersFault(list []Officer) string {
	last := uint16(0)
	persons, keys, recipients := map[string]bool{}, map[PublicKey]bool{}, map[string]bool{}
	for _, o := range list {
		if o.Index <= last {
			return "officers' indexes do not ascend from 1"
		}
		if persons[o.Person] || keys[o.Key] || recipients[o.Recipient] {
			return "two officers have one name, signing key or recipient"
		}
		last, persons[o.Person], keys[o.Key], recipients[o.Recipient] = o.Index, true, true, true
	}
	return ""
}

package escrow

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"

	"dimegate/vault"
)

// Outer wraps, DEW1: a wrap inside the shred key of its custodian, class and month. Outside the AEAD nobody sees these, so
// that the row says nothing when the shred key is destroyed.
const (
	outerMagic  = "DEW1"
	outerHeader = 4 + 16 + 16
	outerNonce  = 12
	outerTag    = 16
)

// MaxOuter bounds an outer wrap of any suite.
const MaxOuter = outerHeader + outerNonce + 4 + LabelSize + 32 + 4*33 + scalarSize + outerTag

// A ShredKey is the key whose destruction erases. ID is random and says nothing of what the key is for.
type ShredKey struct {
	ID  vault.ID
	Key vault.Secret
}

// Wrap puts w inside the shred key.
func (k ShredKey) Wrap(w *Wrap) ([]byte, error) {
	var nonce [outerNonce]byte
	rand.Read(nonce[:])
	return k.wrap(w, nonce)
}

func (k ShredKey) wrap(w *Wrap, nonce [outerNonce]byte) ([]byte, error) {
	b := make([]byte, 0, outerHeader+outerNonce+len(w.octets)+outerTag)
	b = append(b, outerMagic...)
	b = append(b, k.ID[:]...)
	b = append(b, w.Label.Record[:]...)
	aead, err := k.aead(w.Label.Record)
	if err != nil {
		return nil, err
	}
	aad := bytes.Clone(b)
	b = append(b, nonce[:]...)
	return aead.Seal(b, nonce[:], w.octets, aad), nil
}

// ParseOuter reads what an outer wrap shows: the ids of the shred key and of the record.
func ParseOuter(b []byte) (shred, record vault.ID, err error) {
	c := cursor{b: b, object: "outer wrap"}
	c.magic(outerMagic)
	c.fixed(shred[:])
	c.fixed(record[:])
	known := false
	for i := range suites {
		known = known || suites[i].offered && len(b) == outerHeader+outerNonce+suites[i].wrapSize()+outerTag
	}
	if !known {
		c.fail(ErrDecode, "is %d octets", len(b))
	}
	if c.err != nil {
		return vault.ID{}, vault.ID{}, c.err
	}
	return shred, record, nil
}

// Open takes the wrap out of an outer one. The wrap's proof is not checked.
func (k ShredKey) Open(b []byte) (*Wrap, error) {
	shred, record, err := ParseOuter(b)
	if err != nil {
		return nil, err
	}
	if shred != k.ID {
		return nil, refuse(ErrAEAD, "outer wrap", "is inside another shred key")
	}
	aead, err := k.aead(record)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, b[outerHeader:outerHeader+outerNonce], b[outerHeader+outerNonce:], b[:outerHeader])
	if err != nil {
		return nil, refuse(ErrAEAD, "outer wrap", "does not open under its shred key")
	}
	w, err := ParseWrap(plain)
	if err != nil {
		return nil, err
	}
	if w.Label.Record != record {
		return nil, refuse(ErrLabel, "outer wrap", "names another record than the wrap inside")
	}
	return w, nil
}

// aead derives the key of one record's wraps: HKDF-SHA-256, RFC 5869, then AES-256-GCM.
func (k ShredKey) aead(record vault.ID) (cipher.AEAD, error) {
	secret := k.Key.Octets()
	defer clear(secret)
	if len(secret) != vault.SecretSize {
		return nil, refuse(ErrAEAD, "outer wrap", "the shred key is gone")
	}
	key, err := hkdf.Key(sha256.New, secret, nil, domain+"shred\x00"+string(record[:]), 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

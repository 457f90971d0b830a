package message

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
	"strconv"

	"golang.org/x/crypto/chacha20poly1305"
)

// A SuiteID numbers a suite of the alternate layer; 0xF000 to 0xFFFE are a site's own.
type SuiteID uint16

const (
	SuiteX25519        SuiteID = 0x0101
	SuiteHybridAES     SuiteID = 0x0201
	SuiteHybridXChaCha SuiteID = 0x0202
	layerKeySize               = 32 // of every content cipher, in octets
)

// A suite is one row of the registry: how the message secret gets to a reader, and how content is encrypted under it.
type suite struct {
	id      SuiteID
	name    string
	kem     hpke.KEM
	kdf     hpke.KDF
	aead    hpke.AEAD // of the key box
	content func(key []byte) (cipher.AEAD, error)
}

// suites is the registry (dmime.md §17.3): whoever adds a cipher of his own adds a row here, and a file for what it calls. The
// order is the default order of preference.
var suites = []suite{
	{SuiteHybridAES, "ML-KEM-768+X25519 AES-256-GCM", hpke.MLKEM768X25519(), hpke.HKDFSHA512(), hpke.AES256GCM(), newGCM},
	{SuiteHybridXChaCha, "ML-KEM-768+X25519 XChaCha20-Poly1305", hpke.MLKEM768X25519(), hpke.HKDFSHA512(), hpke.ChaCha20Poly1305(), chacha20poly1305.NewX},
	{SuiteX25519, "X25519 XChaCha20-Poly1305", hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA512(), hpke.ChaCha20Poly1305(), chacha20poly1305.NewX},
}

func newGCM(k []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// Suites are all suites that this build has, the preferred first.
func Suites() []SuiteID {
	ids := make([]SuiteID, len(suites))
	for i := range suites {
		ids[i] = suites[i].id
	}
	return ids
}

// ParseSuite reads the four hex digits of a suite, such as "0201". Errors: AltUnknown for what this build has not.
func ParseSuite(text string) (SuiteID, error) {
	n, err := strconv.ParseUint(text, 16, 16)
	if id := SuiteID(n); err == nil && len(text) == 4 && id.row() != nil {
		return id, nil
	}
	return 0, fail(AltUnknown, 0, "no such suite")
}

// Digits are the four hex digits that configurations and field names have for a suite.
func (id SuiteID) Digits() string { return fmt.Sprintf("%04x", uint16(id)) }

// offerMost is how many octets of keys one signet offers: with more it would be too long for a line that libdime reads (dmtp.md §2.6).
const offerMost = 2048

// OfferedOf are those of an administrator's suites whose keys a user gets: in his order the first of each KEM, as far as a signet has
// room for them.
func OfferedOf(order []SuiteID) (list []SuiteID) {
	kems, room := map[uint16]bool{}, offerMost
	for _, id := range order {
		s := id.row()
		if s == nil || kems[s.kem.ID()] {
			continue
		}
		k, err := s.kem.GenerateKey() // for the size of its keys
		if err != nil || len(k.PublicKey().Bytes()) > room {
			continue
		}
		kems[s.kem.ID()] = true
		room -= len(k.PublicKey().Bytes())
		list = append(list, id)
	}
	return list
}

func (id SuiteID) String() string {
	if s := id.row(); s != nil {
		return s.name
	}
	return "suite " + id.Digits()
}

func (id SuiteID) row() *suite {
	for i := range suites {
		if suites[i].id == id {
			return &suites[i]
		}
	}
	return nil
}

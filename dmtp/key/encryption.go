package key

import (
	"crypto/subtle"
	"fmt"
	"io"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// EncryptionSize is the length of an encryption key's scalar, EncryptionPublicSize that of its public key, in octets.
const (
	EncryptionSize       = 32
	EncryptionPublicSize = 33
)

// An Encryption is a secp256k1 private key, used for key agreement only. What is said of Signing holds for it too.
type Encryption struct {
	raw    func() *secp256k1.PrivateKey
	public func() secp256k1.PublicKey // computed once, when it is first asked for
}

// GenerateEncryption makes an encryption key from rand. Of four billion times four billion draws none is drawn again.
func GenerateEncryption(rand io.Reader) (Encryption, error) {
	var scalar [EncryptionSize]byte
	defer clear(scalar[:])
	for {
		if _, err := io.ReadFull(rand, scalar[:]); err != nil {
			return Encryption{}, fmt.Errorf("key: randomness: %w", err)
		}
		if k, err := NewEncryption(scalar[:]); err == nil {
			return k, nil
		}
	}
}

// NewEncryption makes the key of a 32-octet big-endian scalar, which must be above 0 and below the group order. It copies
// the scalar, which the caller still owns.
func NewEncryption(scalar []byte) (Encryption, error) {
	if len(scalar) != EncryptionSize {
		return Encryption{}, syntaxf(ErrKeyFormat, 0, "an encryption key is %d octets, not %d", EncryptionSize, len(scalar))
	}
	private := new(secp256k1.PrivateKey)
	if overflow := private.Key.SetByteSlice(scalar); overflow || private.Key.IsZero() {
		private.Zero()
		return Encryption{}, syntaxf(ErrKeyValue, 0, "the encryption key is zero or not below the group order")
	}
	return Encryption{
		raw:    func() *secp256k1.PrivateKey { return private },
		public: sync.OnceValue(func() secp256k1.PublicKey { return *private.PubKey() }),
	}, nil
}

// ECDH agrees on a secret with peer: the x coordinate of the common point, 32 octets, big-endian, padded on the left. It
// panics when either key is zero or destroyed: no input makes one, and zeros must not become a secret.
//
// The multiplication is not constant-time. Its time tells the weight of the scalar's digits and does not vary with the
// peer's point, so a remote peer gains nothing by asking often; who shares the machine's caches is not held off.
func (k Encryption) ECDH(peer EncryptionPublic) (x [32]byte) {
	if k.IsZero() || peer.IsZero() {
		panic("key: ECDH without a key")
	}
	shared := secp256k1.GenerateSharedSecret(k.raw(), &peer.point)
	defer clear(shared)
	return [32]byte(shared)
}

// Public returns the public key; the zero value has the zero value.
func (k Encryption) Public() EncryptionPublic {
	if k.IsZero() {
		return EncryptionPublic{}
	}
	return EncryptionPublic{point: k.public()}
}

// Scalar returns a copy of the secret scalar, which the caller must clear; nil for the zero value.
func (k Encryption) Scalar() []byte {
	if k.raw == nil {
		return nil
	}
	return k.raw().Serialize()
}

// Destroy clears the secret, in every copy of k.
func (k Encryption) Destroy() {
	if k.raw != nil {
		k.raw().Zero()
	}
}

// Equal compares in constant time. A key that is zero or destroyed equals nothing.
func (k Encryption) Equal(o Encryption) bool {
	if k.IsZero() || o.IsZero() {
		return false
	}
	a, b := k.Scalar(), o.Scalar()
	defer clear(a)
	defer clear(b)
	return subtle.ConstantTimeCompare(a, b) == 1
}

// IsZero reports whether k holds no key, or a destroyed one.
func (k Encryption) IsZero() bool { return k.raw == nil || k.raw().Key.IsZero() }

func (Encryption) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// An EncryptionPublic is a secp256k1 public key: a point on the curve. Keys are compared with ==.
type EncryptionPublic struct {
	point secp256k1.PublicKey // normalised, as the library makes it; (0, 0), which is no point, in the zero value
}

// ParseEncryptionPublic takes the 33 octets of a compressed point: 02 or 03, then x. libdime also reads uncompressed and
// hybrid forms, and looks at the point only when it uses it.
func ParseEncryptionPublic(b []byte) (EncryptionPublic, error) {
	if len(b) != EncryptionPublicSize || (b[0] != secp256k1.PubKeyFormatCompressedEven && b[0] != secp256k1.PubKeyFormatCompressedOdd) {
		return EncryptionPublic{}, syntaxf(ErrKeyValue, 0, "the encryption key is no compressed point")
	}
	p, err := secp256k1.ParsePubKey(b)
	if err != nil {
		return EncryptionPublic{}, syntaxf(ErrKeyValue, 0, "the encryption key is no point of the curve")
	}
	return EncryptionPublic{point: *p}, nil
}

// Bytes is the compressed form.
func (p EncryptionPublic) Bytes() (b [EncryptionPublicSize]byte) {
	copy(b[:], p.point.SerializeCompressed())
	return b
}

// IsZero reports whether p is no key.
func (p EncryptionPublic) IsZero() bool { return p == EncryptionPublic{} }

// A Pair is what a user or an organisation owns; an organisation's Signing is its primary key, the POK.
type Pair struct {
	Signing    Signing
	Encryption Encryption
}

// GeneratePair makes both keys from rand.
func GeneratePair(rand io.Reader) (Pair, error) {
	s, err := GenerateSigning(rand)
	if err != nil {
		return Pair{}, err
	}
	e, err := GenerateEncryption(rand)
	if err != nil {
		s.Destroy()
		return Pair{}, err
	}
	return Pair{Signing: s, Encryption: e}, nil
}

// Destroy clears both secrets, in every copy of p.
func (p Pair) Destroy() {
	p.Signing.Destroy()
	p.Encryption.Destroy()
}

// Equal reports whether both keys are equal; see Signing.Equal.
func (p Pair) Equal(o Pair) bool {
	return p.Signing.Equal(o.Signing) && p.Encryption.Equal(o.Encryption)
}

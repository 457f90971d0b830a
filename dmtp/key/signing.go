// Package key holds the keys of DIME and their files: Ed25519 for signing, secp256k1 for encryption, the text armor with
// its CRC-24, and the key files of the reference and of PRIME. Octets in, octets out: nothing here reads a file or a clock.
package key

import (
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
)

// SigningSize is the length of a signing key's seed and of its public key, in octets.
const SigningSize = 32

// SignatureSize is the length of a signature, in octets.
const SignatureSize = ed25519.SignatureSize

// A Signing is an Ed25519 private key. Printed, logged or reached by reflection it never shows its octets. Copies share
// one secret: Destroy ends them all, so its one owner calls it. The zero value holds no key. Safe for concurrent use,
// Destroy excepted.
type Signing struct {
	raw func() ed25519.PrivateKey // a func, not a slice: fmt cannot look inside, and == does not compile
}

// GenerateSigning makes a signing key from 32 octets of rand.
func GenerateSigning(rand io.Reader) (Signing, error) {
	var seed [SigningSize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return Signing{}, fmt.Errorf("key: randomness: %w", err)
	}
	return NewSigning(seed[:])
}

// NewSigning makes the key of a 32-octet seed (RFC 8032 §5.1.5). It copies the seed, which the caller still owns.
func NewSigning(seed []byte) (Signing, error) {
	if len(seed) != SigningSize {
		return Signing{}, syntaxf(ErrKeyFormat, 0, "a signing key is %d octets, not %d", SigningSize, len(seed))
	}
	private := ed25519.NewKeyFromSeed(seed)
	return Signing{raw: func() ed25519.PrivateKey { return private }}, nil
}

// Sign returns the 64-octet signature of msg: plain Ed25519, no context, no pre-hash. It panics on a key that is zero or
// destroyed: no input makes one, and what it would return must not look like a signature.
func (k Signing) Sign(msg []byte) []byte {
	if k.IsZero() {
		panic("key: Sign without a key")
	}
	return ed25519.Sign(k.raw(), msg)
}

// Public returns the public key; that of the zero value verifies nothing.
func (k Signing) Public() SigningPublic {
	if k.raw == nil {
		return SigningPublic{}
	}
	return SigningPublic(k.raw()[SigningSize:])
}

// Seed returns a copy of the secret seed, which the caller must clear; nil for the zero value.
func (k Signing) Seed() []byte {
	if k.raw == nil {
		return nil
	}
	return k.raw().Seed()
}

// Destroy clears the secret, in every copy of k.
func (k Signing) Destroy() {
	if k.raw != nil {
		clear(k.raw())
	}
}

// Equal compares in constant time. A key that is zero or destroyed equals nothing.
func (k Signing) Equal(o Signing) bool {
	return !k.IsZero() && !o.IsZero() && subtle.ConstantTimeCompare(k.raw(), o.raw()) == 1
}

// IsZero reports whether k holds no key, or a destroyed one. (The public key 0 has small order: no seed gives it.)
func (k Signing) IsZero() bool { return k.Public() == SigningPublic{} }

func (Signing) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// A SigningPublic is an Ed25519 public key (RFC 8032 §5.1.2), without the format octet 0x40 that signets put before it.
// Only ParseSigningPublic says that the octets are a key.
type SigningPublic [SigningSize]byte

// ParseSigningPublic takes the 32 octets of a public key. It refuses what is no canonical encoding of a point, and the
// eight points of small order, under which one signature can hold for many messages; libdime accepts both.
func ParseSigningPublic(b []byte) (SigningPublic, error) {
	if len(b) != SigningSize {
		return SigningPublic{}, syntaxf(ErrKeyFormat, 0, "a signing public key is %d octets, not %d", SigningSize, len(b))
	}
	p := SigningPublic(b)
	if err := checkPoint(p); err != nil {
		return SigningPublic{}, err
	}
	return p, nil
}

// Verify reports whether sig is p's signature of msg. S not below the group order is refused, which libdime accepts:
// its second form of a signature would change fingerprints. So is a p that ParseSigningPublic refuses for its order.
func (p SigningPublic) Verify(msg, sig []byte) bool {
	return len(sig) == SignatureSize && !p.smallOrder() && ed25519.Verify(p[:], msg, sig)
}

// String is the key as management records write it: base64 without padding, 43 characters.
func (p SigningPublic) String() string { return base64.RawStdEncoding.EncodeToString(p[:]) }

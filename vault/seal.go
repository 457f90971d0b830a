package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A Role says what a root key protects. Each has a seal header of its own, so that the host can run, and open mail, with
// the signing keys closed.
type Role uint8

const (
	HostRole    Role = 1 // record keys and encryption keys
	SigningRole Role = 2 // signing keys
)

func (r Role) String() string {
	switch r {
	case HostRole:
		return "host"
	case SigningRole:
		return "signing"
	}
	return "unknown"
}

// A Seal keeps a root key: what it wraps it alone can unwrap, under the same label. KeyFile and Passphrase are seals; the
// package seals has those that are elsewhere. It is used at start and when seals are added, not for each mail.
type Seal interface {
	Kind() string // what it is: "keyfile", "passphrase"
	ID() string   // tells it from others of its kind; public, may be empty
	Wrap(ctx context.Context, key Secret, label []byte) ([]byte, error)
	Unwrap(ctx context.Context, blob, label []byte) (Secret, error) // ErrWrongKey when the blob is not its own, ErrAway
}

// rootID names a root key: the first 8 octets of a digest of it.
type rootID [8]byte

func idOfRoot(k Secret) rootID {
	d := NewDigest("root", k.raw())
	return rootID(d[:])
}

// A Root is an opened role: the root keys that a seal gave out. It wraps under the newest and unwraps under any. Safe for
// concurrent use, Destroy excepted.
type Root struct {
	role    Role
	newest  rootID
	keys    map[rootID]Secret
	missing []MissingSeal
}

// A MissingSeal is one that the header has and that did not open it.
type MissingSeal struct {
	Kind, ID string
	Why      error // ErrNotGiven, ErrAway, ErrWrongKey, …
}

func (m MissingSeal) String() string { return sealName(m.Kind, m.ID) }

// Role says what the root is for.
func (r *Root) Role() Role { return r.role }

// Missing lists the seals of the header that were not given, or did not open it. They are a warning: what is lost there is
// a way in, not a key.
func (r *Root) Missing() []MissingSeal { return r.missing }

// Destroy clears the root keys.
func (r *Root) Destroy() {
	for _, k := range r.keys {
		k.Destroy()
	}
}

// A wrap under a root key, 93 octets:
//
//	"DWB1" 4 ‖ role 1 ‖ root id 8 ‖ salt 32 ‖ AES-256-GCM of the key 32 ‖ tag 16
//
// The AEAD key is HKDF-SHA-256(root key, salt, "dimegate-wrap-v1" ‖ 0x00 ‖ the first 13 octets ‖ label): one key a wrap,
// so its nonce is zero and no count of wraps wears the root key out. Random 96-bit nonces would, after 2^32 mails.
const (
	wrapMagic  = "DWB1"
	wrapPrefix = len(wrapMagic) + 1 + len(rootID{})
	saltSize   = 32
	tagSize    = 16
	boxSize    = saltSize + SecretSize + tagSize
	WrapSize   = wrapPrefix + boxSize
)

// Wrap wraps key for what label says. A nil Root is a role that no seal opened: ErrSealed.
func (r *Root) Wrap(key Secret, label []byte) ([]byte, error) {
	if r == nil {
		return nil, ErrSealed
	}
	b := make([]byte, wrapPrefix, WrapSize)
	copy(b, wrapMagic)
	b[len(wrapMagic)] = byte(r.role)
	copy(b[len(wrapMagic)+1:], r.newest[:])
	return append(b, box(r.keys[r.newest], "dimegate-wrap-v1", b, label, key)...), nil
}

// Unwrap gives back what Wrap took, under the same label. ErrSealed: under a root key that this root does not have.
func (r *Root) Unwrap(wrap, label []byte) (Secret, error) {
	switch {
	case r == nil:
		return Secret{}, fmt.Errorf("%w (seal not open)", ErrSealed)
	case len(wrap) != WrapSize || string(wrap[:len(wrapMagic)]) != wrapMagic || Role(wrap[len(wrapMagic)]) != r.role:
		return Secret{}, fmt.Errorf("%w: not a wrap of the %v seal", ErrCorrupt, r.role)
	}
	id := rootID(wrap[len(wrapMagic)+1:])
	root, ok := r.keys[id]
	if !ok {
		return Secret{}, fmt.Errorf("%w: root key %x of the %v seal is not here", ErrSealed, id, r.role)
	}
	return unbox(root, "dimegate-wrap-v1", wrap[:wrapPrefix], label, wrap[wrapPrefix:])
}

// Label makes the label of a wrap: what is wrapped, for whom. Parts carry their length, so no two lists give one label.
func Label(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return b
}

// unlabel is the inverse of Label; nil for what is none.
func unlabel(b []byte) (parts []string) {
	for len(b) > 0 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		parts = append(parts, string(b[2:n]))
		b = b[n:]
	}
	return parts
}

// box encrypts key under kek: salt ‖ ciphertext ‖ tag. Context and label are bound by the derivation.
func box(kek Secret, context string, prefix, label []byte, key Secret) []byte {
	b := make([]byte, saltSize, boxSize)
	rand.Read(b)
	return boxAEAD(kek, b[:saltSize], context, prefix, label).Seal(b, make([]byte, nonceSize), key.raw(), nil)
}

// Box encrypts key under a key of a seal's own, bound to context, prefix and label; Unbox is its inverse. They are for
// seals in other packages: the derivation draws a salt, so that a key can be used any number of times. BoxSize octets.
func Box(kek Secret, context string, prefix, label []byte, key Secret) []byte {
	return box(kek, context, prefix, label, key)
}

// Unbox gives ErrWrongKey when anything differs from what Box took, and ErrCorrupt for another length.
func Unbox(kek Secret, context string, prefix, label, b []byte) (Secret, error) {
	return unbox(kek, context, prefix, label, b)
}

// BoxSize is the length of what Box returns, in octets.
const BoxSize = boxSize

func unbox(kek Secret, context string, prefix, label, b []byte) (Secret, error) {
	if len(b) != boxSize {
		return Secret{}, fmt.Errorf("%w: a wrapped key has %d octets, not %d", ErrCorrupt, boxSize, len(b))
	}
	plain, err := boxAEAD(kek, b[:saltSize], context, prefix, label).Open(nil, make([]byte, nonceSize), b[saltSize:], nil)
	if err != nil {
		return Secret{}, ErrWrongKey
	}
	defer clear(plain)
	return SecretOf(plain)
}

func boxAEAD(kek Secret, salt []byte, context string, prefix, label []byte) cipher.AEAD {
	info := context + "\x00" + string(prefix) + string(label)
	k := derive(kek, salt, info, 32)
	defer clear(k)
	return newGCM(k)
}

// Derive gives a key for what label says, which everyone who has the host seal gets, and no one else: HKDF-SHA-256(newest
// host root key, no salt, "dimegate-derive-v1" ‖ 0x00 ‖ label). It lasts until the root key is replaced: nothing that rests is
// to be under it. ErrSealed without the host seal.
func (v *Vault) Derive(label string) (Secret, error) {
	if v.host == nil {
		return Secret{}, ErrSealed
	}
	k := derive(v.host.keys[v.host.newest], nil, "dimegate-derive-v1\x00"+label, SecretSize)
	defer clear(k)
	return SecretOf(k)
}

// derive is HKDF-SHA-256. It fails only for outputs over 8,160 octets, which nothing asks for.
func derive(key Secret, salt []byte, info string, n int) []byte {
	k, err := hkdf.Key(sha256.New, key.raw(), salt, info, n)
	if err != nil {
		panic("vault: HKDF: " + err.Error())
	}
	return k
}

// nonceSize is that of AES-GCM.
const nonceSize = 12

// newGCM is AES-256-GCM under a key of 32 octets, which cannot fail.
func newGCM(k []byte) cipher.AEAD {
	b, err := aes.NewCipher(k)
	if err != nil {
		panic("vault: AES: " + err.Error())
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic("vault: GCM: " + err.Error())
	}
	return a
}

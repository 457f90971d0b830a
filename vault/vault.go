// Package vault keeps what must outlast the process: keys, sealed mail, the outbound queue, the outcomes of inbound mail
// and the log of all of it.
//
// A record is one body sealed once under its own record key; the key rests wrapped, a wrap a purpose. Nothing is kept
// without its leaf in the log, written in the same commit. What the tables, the sealed files and the seal headers look
// like is in docs/formats.md, "What rests on disk".
package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// What callers decide on. Other errors are the storage's or the machine's: try again later, and tell an administrator.
var (
	ErrNotFound  = errors.New("vault: not found")
	ErrExists    = errors.New("vault: exists already")
	ErrChanged   = errors.New("vault: changed meanwhile")          // what the caller saw is no longer so
	ErrFull      = errors.New("vault: no space left")              // 452 4.3.1
	ErrSealed    = errors.New("vault: no seal opens it")           // no seal, or none of those that were given
	ErrAway      = errors.New("vault: the seal cannot be reached") // a token, a key service: it may be back soon
	ErrWrongKey  = errors.New("vault: sealed under another key")   // or under another label
	ErrCorrupt   = errors.New("vault: damaged")                    // the octets are not those that were sealed
	ErrTruncated = errors.New("vault: cut short")                  // a sealed stream without its end
	ErrClosed    = errors.New("vault: closed")
	ErrLocked    = errors.New("vault: in use by another gateway process")
	ErrGone      = errors.New("vault: the database is not where it was: put it back and start again") // nothing is accepted
	ErrStuck     = errors.New("vault: the disk does not answer")                                      // nothing is accepted meanwhile
	ErrDestroyed = errors.New("vault: key is destroyed")
)

// SecretSize is the length of every key in the vault, in octets.
const SecretSize = 32

// A Secret is 32 secret octets: a root key, a record key, a seed or a scalar. Printed, logged or reached by reflection it
// never shows them. Copies share one secret: its one owner calls Destroy. The zero value holds nothing.
type Secret struct {
	raw func() []byte // a func, not a slice: fmt cannot look inside, and == does not compile
}

// NewSecret draws 32 octets from the system's generator.
func NewSecret() Secret {
	b := make([]byte, SecretSize)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return Secret{raw: func() []byte { return b }}
}

// SecretOf takes a copy of b, which must be 32 octets and stays the caller's to clear.
func SecretOf(b []byte) (Secret, error) {
	if len(b) != SecretSize {
		return Secret{}, fmt.Errorf("vault: a secret is %d octets, not %d", SecretSize, len(b))
	}
	b = bytes.Clone(b)
	return Secret{raw: func() []byte { return b }}, nil
}

// Octets returns a copy, which the caller must clear; nil for the zero value.
func (s Secret) Octets() []byte {
	if s.raw == nil {
		return nil
	}
	return bytes.Clone(s.raw())
}

// Destroy clears the secret, in every copy of s.
func (s Secret) Destroy() {
	if s.raw != nil {
		clear(s.raw())
	}
}

// Equal compares in constant time. The zero value equals nothing.
func (s Secret) Equal(o Secret) bool {
	return s.raw != nil && o.raw != nil && subtle.ConstantTimeCompare(s.raw(), o.raw()) == 1
}

// IsZero reports whether s holds nothing.
func (s Secret) IsZero() bool { return s.raw == nil }

func (Secret) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// An ID names a record, a key, a queue row or an archive: 48 bits of Unix milliseconds and 80 random ones, so that ids
// sort by age and a new one lands beside the last in an index. The zero value names nothing.
type ID [16]byte

// NewID makes an id at the time now.
func NewID(now time.Time) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:])
	return id
}

// RandomID makes an id of 128 random bits, which tells no time.
func RandomID() ID {
	var id ID
	rand.Read(id[:])
	return id
}

// idText is base32 whose letters sort as the octets do.
var idText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// String is 26 lower-case letters and digits, which sort as the ids do.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// ParseID is the inverse of String and accepts nothing else.
func ParseID(s string) (ID, error) {
	b, err := idText.DecodeString(s)
	if err != nil || len(b) != len(ID{}) || ID(b).String() != s {
		return ID{}, errors.New("vault: an id is 26 letters and digits")
	}
	return ID(b), nil
}

// MarshalText is String, so that JSON shows an id as people see it.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// A Digest is a SHA-512/256 value.
type Digest [sha512.Size256]byte

// NewDigest is D(name, parts…) of the escrow specification, the form of every digest that we define:
// SHA-512/256("dimegate-escrow-v1/" ‖ name ‖ 0x00 ‖ parts…). Parts are joined bare: all but one are of fixed length.
func NewDigest(name string, parts ...[]byte) Digest {
	h := newDigester(name)
	for _, p := range parts {
		h.Write(p)
	}
	return Digest(h.Sum(nil))
}

func newDigester(name string) sumWriter {
	h := sha512.New512_256()
	io.WriteString(h, "dimegate-escrow-v1/")
	io.WriteString(h, name)
	h.Write([]byte{0})
	return h
}

// A sumWriter is the part of hash.Hash that we use.
type sumWriter interface {
	io.Writer
	Sum(b []byte) []byte
}

// NewDigester is NewDigest for what comes piece by piece.
func NewDigester(name string) hash.Hash { return newDigester(name).(hash.Hash) }

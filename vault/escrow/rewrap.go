package escrow

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"strings"

	"dimegate/vault"
)

// RewrapBasis begins the basis of a case that seals records anew to another key, and opens no message for anybody: specification §7.5.
const RewrapBasis = "rewrap"

// IsRewrap tells whether a basis is that of a re-wrap: the word alone, or before a colon and words.
func IsRewrap(basis string) bool {
	return basis == RewrapBasis || strings.HasPrefix(basis, RewrapBasis+":")
}

// Rewraps tells whether the case is one that re-wraps.
func (m *Manifest) Rewraps() bool { return IsRewrap(m.Basis) }

// A Rewrapped is one wrap that took the place of another.
type Rewrapped struct {
	Record vault.ID
	Old    vault.Digest // of the wrap that was opened
	Wrap   *Wrap        // under the new key
}

// A Rewrap is what a station gives the gateway at the end of a case that re-wraps. Its file is
//
//	DRW1 ‖ suite u8 ‖ case id 16 ‖ old key id 32 ‖ new key id 32 ‖ count u32 ‖ count × { record id 16, old wrap digest 32, DET1 } ‖ signature 64
//
// Entries ascend strictly by record and old digest. The signature is the requester's, Ed25519 over D("rewrap", all octets before it).
type Rewrap struct {
	Case     vault.ID
	Old, New vault.Digest // ids of keys
	Entries  []Rewrapped

	signature [ed25519.SignatureSize]byte
}

const (
	rewrapMagic = "DRW1"
	rewrapHead  = 4 + 1 + 16 + 2*digestSize + 4
	// MaxRewrapEntries bounds what one case re-wraps: the whole archive goes in chunks.
	MaxRewrapEntries = 100_000
	// MaxRewrap bounds a re-wrap file, in octets.
	MaxRewrap = rewrapHead + MaxRewrapEntries*(16+digestSize+512) + ed25519.SignatureSize
)

func compareRewrapped(a, b Rewrapped) int {
	if c := bytes.Compare(a.Record[:], b.Record[:]); c != 0 {
		return c
	}
	return bytes.Compare(a.Old[:], b.Old[:])
}

func (r *Rewrap) signed() []byte {
	b := append([]byte(rewrapMagic), byte(R255))
	b = append(append(append(b, r.Case[:]...), r.Old[:]...), r.New[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Entries)))
	for _, e := range r.Entries {
		b = append(append(append(b, e.Record[:]...), e.Old[:]...), e.Wrap.Octets()...)
	}
	return b
}

// Sign sorts the entries, signs, and gives the file.
func (r Rewrap) Sign(k SigningKey) ([]byte, error) {
	r.Entries = slices.SortedFunc(slices.Values(r.Entries), compareRewrapped)
	b := r.signed()
	d := vault.NewDigest("rewrap", b)
	b = append(b, k.sign(d[:])...)
	_, err := ParseRewrap(b)
	return b, err
}

// ParseRewrap reads a re-wrap file. Neither its signature nor the proofs of its wraps are checked: see Check.
func ParseRewrap(b []byte) (*Rewrap, error) {
	c := cursor{b: b, object: "re-wrap file"}
	c.magic(rewrapMagic)
	if s := c.suite(); c.err == nil && s.id != R255 {
		c.fail(ErrDecode, "of a suite that stations do not know")
	}
	r := &Rewrap{}
	c.fixed(r.Case[:])
	c.fixed(r.Old[:])
	c.fixed(r.New[:])
	n, size := int(c.u32()), lookUp(R255).wrapSize()
	if n < 1 || n > MaxRewrapEntries {
		c.fail(ErrDecode, "has no entry, or over %d", MaxRewrapEntries)
	}
	if c.list(n, 16+digestSize+size) {
		r.Entries = make([]Rewrapped, 0, n)
		for range n {
			var e Rewrapped
			c.fixed(e.Record[:])
			c.fixed(e.Old[:])
			w, err := ParseWrap(c.take(size))
			if c.err != nil || err != nil {
				c.fail(ErrDecode, "an entry is no wrap")
				break
			}
			if e.Wrap = w; len(r.Entries) > 0 && compareRewrapped(r.Entries[len(r.Entries)-1], e) >= 0 {
				c.fail(ErrDecode, "its entries do not ascend")
			}
			r.Entries = append(r.Entries, e)
		}
	}
	c.fixed(r.signature[:])
	if err := c.end(); err != nil {
		return nil, err
	}
	return r, nil
}

// Check says whether a file is one of this case by its requester, names entries of it alone, and every wrap holds under the new key.
// What the wraps' labels say of their records is compared with the old ones by who has these.
func (r *Rewrap) Check(m *Manifest, to *Key) error {
	bad := func(class Class, why string) error { return refuse(class, "re-wrap file", "%s", why) }
	switch {
	case !m.Rewraps():
		return bad(ErrManifest, "the case is not one that re-wraps")
	case r.Case != m.Case || r.Old != m.Key:
		return bad(ErrManifest, "is another case's")
	case r.New != to.ID() || r.New == r.Old:
		return bad(ErrLabel, "is sealed to another key than the one in force")
	}
	d := vault.NewDigest("rewrap", r.signed())
	if !ed25519.Verify(m.RequesterKey[:], d[:], r.signature[:]) {
		return bad(ErrSignature, "is not signed by the case's requester")
	}
	named := make(map[vault.Digest]bool, len(m.Entries))
	for _, e := range m.Entries {
		named[e.Wrap] = true
	}
	wraps := make([]*Wrap, len(r.Entries))
	for i, e := range r.Entries {
		if !named[e.Old] {
			return bad(ErrManifest, "names a wrap that is not in the case")
		}
		if e.Wrap.Label.Record != e.Record {
			return bad(ErrLabel, "a wrap is another record's")
		}
		wraps[i] = e.Wrap
	}
	if len(CheckWraps(to, wraps)) > 0 {
		return bad(ErrProof, "a wrap does not hold under the new key")
	}
	return nil
}

package escrow

import (
	"bytes"
	"crypto/hpke"
	"encoding/binary"
	"slices"
	"time"

	"dimegate/vault"
)

// An Entry names one wrap of a case: the leaf of the log that attests its record, and its digest.
type Entry struct {
	Leaf uint64
	Wrap vault.Digest
}

// A Manifest is what a case is about, DEM1: every field is what officers approve, nothing can be added later.
type Manifest struct {
	Suite         Suite
	Purpose       Purpose
	Case, Archive vault.ID
	Key           vault.Digest
	Epoch         vault.Digest
	Opened        time.Time
	Expires       time.Time // at most MaxCase after Opened
	First, Last   Month
	Requester     string // mail address in lower case; no officer
	RequesterKey  PublicKey
	Basis         string // the law, order or request, in words
	CaseKey       []byte // HPKE public key, whose private half is on the discovery station
	LogOrigin     string
	LogSize       uint64
	LogRoot       [32]byte
	Custodians    []Custodian // ascending
	Classes       []uint16    // ascending
	Entries       []Entry     // ascending by leaf and digest

	octets []byte
	digest vault.Digest
}

const (
	manifestMagic = "DEM1"

	// MaxCase is the longest life of a case.
	MaxCase = 90 * 24 * time.Hour
	// MaxBasis bounds the words of a basis, in octets.
	MaxBasis = 4096
	// MaxEntries bounds a case.
	MaxEntries = 1_000_000

	entrySize = 8 + digestSize
	// MaxManifest bounds a manifest: fields and the longest lists.
	MaxManifest = 16<<10 + 65535*(16+2+1) + MaxEntries*entrySize
)

func (m *Manifest) encode() []byte {
	s := lookUp(m.Suite)
	b := make([]byte, 0, 1024+len(m.Entries)*entrySize)
	b = append(b, manifestMagic...)
	b = append(b, byte(m.Suite), byte(m.Purpose))
	b = slices.Concat(b, m.Case[:], m.Archive[:], m.Key[:], m.Epoch[:])
	b = appendTime(appendTime(b, m.Opened), m.Expires)
	b = slices.Concat(b, be16(uint16(m.First)), be16(uint16(m.Last)))
	b = append(appendStr8(b, m.Requester), m.RequesterKey[:]...)
	b = appendStr16(b, m.Basis)
	b = slices.Concat(b, be16(s.kem), be16(s.kdf), be16(s.aead), be16(uint16(len(m.CaseKey))), m.CaseKey)
	b = appendStr8(b, m.LogOrigin)
	b = append(binary.BigEndian.AppendUint64(b, m.LogSize), m.LogRoot[:]...)
	b = append(b, be16(uint16(len(m.Custodians)))...)
	for _, c := range m.Custodians {
		b = append(b, c[:]...)
	}
	b = append(b, be16(uint16(len(m.Classes)))...)
	for _, c := range m.Classes {
		b = append(b, be16(c)...)
	}
	b = append(b, be32(uint32(len(m.Entries)))...)
	for _, e := range m.Entries {
		b = append(binary.BigEndian.AppendUint64(b, e.Leaf), e.Wrap[:]...)
	}
	return b
}

// NewManifest sorts the lists of m, encodes it and reads it back: what it returns holds every rule.
func NewManifest(m Manifest) (*Manifest, error) {
	if s := lookUp(m.Suite); s == nil || !s.offered {
		return nil, refuse(ErrDecode, "manifest", "unknown suite")
	}
	if len(m.Requester) > 255 || len(m.Basis) > MaxBasis || len(m.LogOrigin) > 255 || len(m.CaseKey) > 4096 ||
		len(m.Custodians) > 65535 || len(m.Classes) > 65535 || len(m.Entries) > MaxEntries {
		return nil, refuse(ErrManifest, "manifest", "a field or list is too long")
	}
	m.Custodians, m.Classes, m.Entries = slices.Clone(m.Custodians), slices.Clone(m.Classes), slices.Clone(m.Entries)
	slices.SortFunc(m.Custodians, compareCustodians)
	slices.Sort(m.Classes)
	slices.SortFunc(m.Entries, compareEntries)
	return ParseManifest(m.encode())
}

func compareCustodians(a, b Custodian) int { return bytes.Compare(a[:], b[:]) }

func compareEntries(a, b Entry) int {
	if a.Leaf != b.Leaf {
		if a.Leaf < b.Leaf {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.Wrap[:], b.Wrap[:])
}

// ParseManifest reads a manifest and checks the rules that need nothing else. It keeps no part of b.
func ParseManifest(b []byte) (*Manifest, error) {
	c := cursor{b: b, object: "manifest"}
	m := c.manifest()
	if err := c.end(); err != nil {
		return nil, err
	}
	if why := m.fault(); why != "" {
		return nil, refuse(ErrManifest, "manifest", "%s", why)
	}
	m.octets = slices.Clone(b)
	m.digest = vault.NewDigest("case", b)
	return m, nil
}

func (c *cursor) manifest() *Manifest {
	c.magic(manifestMagic)
	s := c.suite()
	m := &Manifest{Suite: s.id, Purpose: c.purpose()}
	c.fixed(m.Case[:])
	c.fixed(m.Archive[:])
	c.fixed(m.Key[:])
	c.fixed(m.Epoch[:])
	m.Opened, m.Expires = c.time(), c.time()
	m.First, m.Last = Month(c.u16()), Month(c.u16())
	m.Requester = c.str8()
	c.fixed(m.RequesterKey[:])
	m.Basis = c.str16()
	if kem, kdf, aead := c.u16(), c.u16(), c.u16(); c.err == nil && (kem != s.kem || kdf != s.kdf || aead != s.aead) {
		c.fail(ErrDecode, "the case key's algorithms are not the suite's")
	}
	m.CaseKey = slices.Clone(c.take(int(c.u16())))
	if c.err == nil {
		if _, err := s.publicKey(m.CaseKey); err != nil {
			c.fail(ErrDecode, "the case key is no key of its algorithm")
		}
	}
	m.LogOrigin, m.LogSize = c.str8(), c.u64()
	c.fixed(m.LogRoot[:])
	c.manifestLists(m)
	return m
}

func (c *cursor) manifestLists(m *Manifest) {
	if n := int(c.u16()); c.list(n, len(Custodian{})) {
		m.Custodians = make([]Custodian, n)
		for i := range m.Custodians {
			c.fixed(m.Custodians[i][:])
		}
	}
	if n := int(c.u16()); c.list(n, 2) {
		m.Classes = make([]uint16, n)
		for i := range m.Classes {
			m.Classes[i] = c.u16()
		}
	}
	if n := int(c.u32()); c.list(n, entrySize) {
		m.Entries = make([]Entry, n)
		for i := range m.Entries {
			m.Entries[i].Leaf = c.u64()
			c.fixed(m.Entries[i].Wrap[:])
		}
	}
}

// fault says which of the rules is broken that the manifest alone shows.
func (m *Manifest) fault() string {
	switch {
	case !m.Expires.After(m.Opened) || m.Expires.Sub(m.Opened) > MaxCase:
		return "it must expire after it was opened, within 90 days"
	case m.First > m.Last:
		return "the first month is after the last"
	case !validPerson(m.Requester):
		return "the requester is no mail address in lower case"
	case !m.RequesterKey.usable():
		return "the requester's key has small order"
	case m.Basis == "" || len(m.Basis) > MaxBasis:
		return "a basis has 1 to 4,096 octets"
	case len(m.Custodians) == 0 || !strictly(m.Custodians, compareCustodians):
		return "custodians must ascend, and there must be one"
	case len(m.Classes) == 0 || !strictly(m.Classes, func(a, b uint16) int { return int(a) - int(b) }):
		return "classes must ascend, and there must be one"
	case len(m.Entries) == 0 || len(m.Entries) > MaxEntries || !strictly(m.Entries, compareEntries):
		return "entries must ascend, and be 1 to 1,000,000"
	case m.Entries[len(m.Entries)-1].Leaf >= m.LogSize:
		return "an entry's leaf is beyond the tree"
	}
	digests := make([]vault.Digest, len(m.Entries))
	for i, e := range m.Entries {
		digests[i] = e.Wrap
	}
	slices.SortFunc(digests, compareDigests)
	if !strictly(digests, compareDigests) {
		return "a wrap is named twice"
	}
	return ""
}

func strictly[T any](list []T, compare func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

// Octets is the manifest; not to be changed.
func (m *Manifest) Octets() []byte { return m.octets }

// Digest names the case with everything in it: D("case", octets).
func (m *Manifest) Digest() vault.Digest { return m.digest }

// Check refuses a case that is not of this epoch of k, not open at the time now, or whose requester is an officer.
func (m *Manifest) Check(k *Key, e *Epoch, now time.Time) error {
	bad := func(why string) error { return refuse(ErrManifest, "manifest", "%s", why) }
	switch {
	case m.Key != k.id || m.Suite != k.suite.id:
		return bad("the case is of another key")
	case m.Epoch != e.digest || e.Key != k.id:
		return bad("the case is of another epoch of the key")
	case now.Before(m.Opened):
		return bad("the case is not open yet")
	case !now.Before(m.Expires):
		return bad("the case has expired")
	}
	for _, o := range e.Officers {
		if o.Person == m.Requester || o.Key == m.RequesterKey {
			return bad("the requester is an officer: who asks cannot take part")
		}
	}
	return nil
}

// Find is the place of an entry.
func (m *Manifest) Find(leaf uint64, wrap vault.Digest) (n int, ok bool) {
	return slices.BinarySearchFunc(m.Entries, Entry{leaf, wrap}, compareEntries)
}

// CheckWrap refuses a wrap that is not entry n or lies outside the bounds of the case.
func (m *Manifest) CheckWrap(n int, w *Wrap) error {
	bad := func(why string) error { return refuse(ErrScope, "wrap", "%s", why) }
	l := w.Label
	switch {
	case n >= len(m.Entries) || w.digest != m.Entries[n].Wrap:
		return bad("it is not the one that the manifest names")
	case l.Suite != m.Suite || l.Key != m.Key:
		return bad("it is sealed to another key")
	case l.Kind != m.Purpose:
		return bad("it is for " + l.Kind.String() + ", the case for " + m.Purpose.String())
	case l.Archive != m.Archive:
		return bad("it is of another archive")
	case l.Month < m.First || l.Month > m.Last:
		return bad("its month is outside the case's")
	}
	if _, ok := slices.BinarySearch(m.Classes, l.Class); !ok {
		return bad("its class is not one of the case's")
	}
	if _, ok := slices.BinarySearchFunc(m.Custodians, l.Custodian, compareCustodians); !ok {
		return bad("its custodian is not one of the case's")
	}
	return nil
}

// publicKey reads a case key of the suite's KEM.
func (s *suite) publicKey(b []byte) (hpke.PublicKey, error) {
	kem, err := hpke.NewKEM(s.kem)
	if err != nil {
		return nil, err
	}
	return kem.NewPublicKey(b)
}

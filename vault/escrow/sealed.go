package escrow

import (
	"bytes"
	"crypto/hpke"
	"fmt"
	"io"
	"slices"

	"dimegate/vault"
)

// A sealedBatch is an officer's partials for a run of a case's entries, as they travel and rest: DEH1, sealed to the case key.
type sealedBatch struct {
	index        uint16
	first, count uint32
	enc, ct      []byte
	octets       []byte
}

const (
	sealedMagic = "DEH1"
	batchMagic  = "DEP1"

	sealedHeader = 4 + 2 + 4 + 4
	batchHeader  = 4 + 1 + 2*digestSize + 2 + 4 + 4
	maxEnc       = 4096
	// MaxSealed bounds one message of sealed partials.
	MaxSealed = sealedHeader + 2 + maxEnc + 4 + batchHeader + MaxBatch*(3*33+scalarSize) + 16
)

// parseSealed reads one DEH1 message, all of b.
func parseSealed(b []byte) (*sealedBatch, error) {
	c := cursor{b: b, object: "sealed partials"}
	c.magic(sealedMagic)
	m := &sealedBatch{index: c.u16(), first: c.u32(), count: c.u32(), octets: bytes.Clone(b)}
	if c.err == nil && (m.count == 0 || m.count > MaxBatch || m.first > MaxEntries) {
		c.fail(ErrDecode, "%d entries", m.count)
	}
	enc := c.u16()
	if enc > maxEnc {
		c.fail(ErrDecode, "an encapsulated key of %d octets", enc)
	}
	m.enc = bytes.Clone(c.take(int(enc)))
	n := c.u32()
	if int(n) > MaxSealed {
		c.fail(ErrDecode, "too long")
	}
	m.ct = bytes.Clone(c.take(int(n)))
	if err := c.end(); err != nil {
		return nil, err
	}
	return m, nil
}

// header is the additional data of the seal: the octets before the encapsulated key.
func (m *sealedBatch) header() []byte {
	return slices.Concat([]byte(sealedMagic), be16(m.index), be32(m.first), be32(m.count))
}

// hpkeInfo binds a seal to a case, an epoch and an officer.
func hpkeInfo(caseDigest, epoch vault.Digest, i uint16) []byte {
	return slices.Concat([]byte(domain+"partials\x00"), caseDigest[:], epoch[:], be16(i))
}

// batchText is DEP1: what a message holds.
func batchText(s *suite, caseDigest, epoch vault.Digest, i uint16, first uint32, list []*partial) []byte {
	b := append([]byte(batchMagic), byte(s.id))
	b = slices.Concat(b, caseDigest[:], epoch[:], be16(i), be32(first), be32(uint32(len(list))))
	for _, p := range list {
		b = append(b, p.octets...)
	}
	return b
}

// sealBatch seals partials for the entries from first on to the key of a case.
func sealBatch(m *Manifest, i uint16, first uint32, list []*partial) ([]byte, error) {
	s := lookUp(m.Suite)
	out := &sealedBatch{index: i, first: first, count: uint32(len(list))}
	pk, err := s.publicKey(m.CaseKey)
	if err != nil {
		return nil, err
	}
	kdf, aead, err := s.hpke()
	if err != nil {
		return nil, err
	}
	enc, sender, err := hpke.NewSender(pk, kdf, aead, hpkeInfo(m.digest, m.Epoch, i))
	if err != nil {
		return nil, err
	}
	text := batchText(s, m.digest, m.Epoch, i, first, list)
	defer clear(text) // M officers' values open a record
	ct, err := sender.Seal(out.header(), text)
	if err != nil {
		return nil, err
	}
	return slices.Concat(out.header(), be16(uint16(len(enc))), enc, be32(uint32(len(ct))), ct), nil
}

func (s *suite) hpke() (hpke.KDF, hpke.AEAD, error) {
	kdf, err := hpke.NewKDF(s.kdf)
	if err != nil {
		return nil, nil, err
	}
	aead, err := hpke.NewAEAD(s.aead)
	return kdf, aead, err
}

// open takes the partials out. The caller has checked that the message is the officer's.
func (m *sealedBatch) open(k CaseKey, mf *Manifest) ([]*partial, error) {
	s := lookUp(mf.Suite)
	kdf, aead, err := s.hpke()
	if err != nil {
		return nil, err
	}
	refused := refuse(ErrAEAD, "sealed partials", "do not open under the case key")
	r, err := hpke.NewRecipient(m.enc, k.raw(), kdf, aead, hpkeInfo(mf.digest, mf.Epoch, m.index))
	if err != nil {
		return nil, refused
	}
	text, err := r.Open(m.header(), m.ct)
	if err != nil {
		return nil, refused
	}
	defer clear(text)
	return m.parse(s, text, mf)
}

// parse reads DEP1, which must say the same as the message around it.
func (m *sealedBatch) parse(s *suite, text []byte, mf *Manifest) ([]*partial, error) {
	want := batchText(s, mf.digest, mf.Epoch, m.index, m.first, nil)
	copy(want[len(want)-4:], be32(m.count))
	if !bytes.HasPrefix(text, want) || len(text) != len(want)+int(m.count)*s.partialSize() {
		return nil, refuse(ErrDecode, "partials", "are not of this case, epoch, officer and run of entries")
	}
	list := make([]*partial, 0, m.count)
	for b := range slices.Chunk(text[len(want):], s.partialSize()) {
		p, err := parsePartial(s, b)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// A CaseKey is the private half of a case's key. It lives on the discovery station until the case is closed. It never prints.
type CaseKey struct {
	suite *suite
	raw   func() hpke.PrivateKey
}

// NewCaseKey makes the key of a case.
func NewCaseKey(id Suite) (CaseKey, error) {
	s := lookUp(id)
	if s == nil || !s.offered {
		return CaseKey{}, refuse(ErrDecode, "case key", "unknown suite")
	}
	kem, err := hpke.NewKEM(s.kem)
	if err != nil {
		return CaseKey{}, err
	}
	k, err := kem.GenerateKey()
	if err != nil {
		return CaseKey{}, err
	}
	return CaseKey{s, func() hpke.PrivateKey { return k }}, nil
}

// ParseCaseKey reads the octets that Octets returns.
func ParseCaseKey(id Suite, b []byte) (CaseKey, error) {
	s := lookUp(id)
	if s == nil || !s.offered {
		return CaseKey{}, refuse(ErrDecode, "case key", "unknown suite")
	}
	kem, err := hpke.NewKEM(s.kem)
	if err != nil {
		return CaseKey{}, err
	}
	k, err := kem.NewPrivateKey(b)
	if err != nil {
		return CaseKey{}, refuse(ErrDecode, "case key", "is no key of its algorithm")
	}
	return CaseKey{s, func() hpke.PrivateKey { return k }}, nil
}

// Octets is the private key; the caller clears it.
func (k CaseKey) Octets() ([]byte, error) { return k.raw().Bytes() }

// Public is what a manifest names.
func (k CaseKey) Public() []byte { return k.raw().PublicKey().Bytes() }

func (CaseKey) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

package escrow

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/subtle"

	_ "crypto/sha256" // for the suites' hashes
	_ "crypto/sha512"

	"github.com/cloudflare/circl/expander"
	"github.com/cloudflare/circl/group"
)

// A Suite names a group with its hashes and the primitives around it.
type Suite uint8

const (
	R255 Suite = 1 // ristretto255, RFC 9496
	P256 Suite = 2 // NIST P-256; runs through the same code, but is not offered before it has vectors
)

func (s Suite) String() string {
	if t := lookUp(s); t != nil {
		return t.name
	}
	return "unknown suite"
}

// scalarSize is the length of a scalar in both suites.
const scalarSize = 32

// A suite is a row of the table: all that differs between suites.
type suite struct {
	id             Suite
	name           string
	group          group.Group
	pointSize      int
	hash           crypto.Hash
	kem, kdf, aead uint16 // HPKE, RFC 9180 §7
	offered        bool
	batches        bool // batched checks are faster than single ones
	bigEndian      bool // scalars are
}

// suites is the one table: RFC 9496 and RFC 9380 appendix B for the first, RFC 9380 §8.2 for the second.
var suites = [...]suite{
	{id: R255, name: "R255", group: group.Ristretto255, pointSize: 32, hash: crypto.SHA512, kem: 0x0020, kdf: 0x0001, aead: 0x0002, offered: true, batches: true},
	{id: P256, name: "P256", group: group.P256, pointSize: 33, hash: crypto.SHA256, kem: 0x0010, kdf: 0x0001, aead: 0x0002, bigEndian: true},
}

func lookUp(id Suite) *suite {
	for i := range suites {
		if suites[i].id == id {
			return &suites[i]
		}
	}
	return nil
}

const domain = "dimegate-escrow-v1/"

func (s *suite) dst(name string) []byte { return []byte(domain + s.name + "/" + name) }

// mask is H1: 32 octets that hide a record key.
func (s *suite) mask(p group.Element) [32]byte {
	b := s.encode(p)
	defer clear(b)
	m := expander.NewExpanderMD(s.hash, s.dst("H1")).Expand(b, 32)
	defer clear(m)
	return [32]byte(m)
}

// scalarOf is HashToScalar under one of our names.
func (s *suite) scalarOf(name string, parts ...[]byte) group.Scalar {
	msg := bytes.Join(parts, nil)
	defer clear(msg) // some are secret
	return s.group.HashToScalar(msg, s.dst(name))
}

// secondGenerator is ḡ(h), of which nobody knows the logarithm to any base.
func (s *suite) secondGenerator(h group.Element) group.Element {
	return s.group.HashToElement(s.encode(h), s.dst("gbar"))
}

// A source gives 64 octets of randomness. Only tests have another than system.
type source func() [64]byte

func system() (rho [64]byte) {
	rand.Read(rho[:]) // never fails: crypto/rand ends the program instead
	return rho
}

// random makes the scalar RS(name, ρ, ctx) of one given ρ, which may be zero.
func (s *suite) random(name string, rho *[64]byte, ctx ...[]byte) group.Scalar {
	return s.scalarOf("rand-"+name, append([][]byte{rho[:]}, ctx...)...)
}

// nonZero draws ρ until the scalar is not zero. It is the only way to make a single random scalar.
func (s *suite) nonZero(src source, name string, ctx ...[]byte) group.Scalar {
	for {
		rho := src()
		k := s.random(name, &rho, ctx...)
		clear(rho[:])
		if !k.IsZero() {
			return k
		}
	}
}

func (s *suite) encode(p group.Element) []byte {
	b, err := p.MarshalBinaryCompress()
	if err != nil || len(b) != s.pointSize {
		panic("escrow: a point of the group without an encoding") // only the identity of P-256, which nothing here encodes
	}
	return b
}

func (s *suite) encodeScalar(k group.Scalar) []byte {
	b, err := k.MarshalBinary()
	if err != nil || len(b) != scalarSize {
		panic("escrow: a scalar without an encoding") // both groups' scalars have 32 octets
	}
	return b
}

// decode reads a point: exactly pointSize octets, canonical, not the identity.
func (s *suite) decode(b []byte) (group.Element, error) {
	p := s.group.NewElement()
	if len(b) != s.pointSize || s.pointSize == 33 && b[0]>>1 != 1 || p.UnmarshalBinary(b) != nil {
		return nil, ErrDecode
	}
	if p.IsIdentity() {
		return nil, ErrIdentity
	}
	return p, nil
}

// decodeScalar reads a scalar below the group's order. Releases of the library have differed in what they reduce, so what
// was read is compared with its encoding.
func (s *suite) decodeScalar(b []byte) (group.Scalar, error) {
	k := s.group.NewScalar()
	if len(b) != scalarSize || k.UnmarshalBinary(b) != nil {
		return nil, ErrDecode
	}
	again := s.encodeScalar(k)
	defer clear(again)
	if subtle.ConstantTimeCompare(again, b) != 1 {
		return nil, ErrDecode
	}
	return k, nil
}

func (s *suite) index(i uint16) group.Scalar { return s.group.NewScalar().SetUint64(uint64(i)) }

func (s *suite) mul(p group.Element, k group.Scalar) group.Element {
	return s.group.NewElement().Mul(p, k)
}

func (s *suite) mulGen(k group.Scalar) group.Element { return s.group.NewElement().MulGen(k) }

func (s *suite) add(p, q group.Element) group.Element { return s.group.NewElement().Add(p, q) }

// evaluate is Σ a_k i^k, by Horner's rule.
func (s *suite) evaluate(a []group.Scalar, i uint16) group.Scalar {
	x := s.index(i)
	sum := a[len(a)-1].Copy()
	for k := len(a) - 2; k >= 0; k-- {
		sum.Mul(sum, x)
		sum.Add(sum, a[k])
	}
	return sum
}

// evaluatePublic is Π C_k^{i^k}: g to what evaluate gives.
func (s *suite) evaluatePublic(c []group.Element, i uint16) group.Element {
	x := s.index(i)
	sum := c[len(c)-1].Copy()
	for k := len(c) - 2; k >= 0; k-- {
		sum.Mul(sum, x)
		sum.Add(sum, c[k])
	}
	return sum
}

// wipe overwrites a scalar. What the library copied on the way is beyond us: short-lived processes are the answer.
func wipe(k ...group.Scalar) {
	for _, s := range k {
		if s != nil {
			s.SetUint64(0)
		}
	}
}

package escrow

import (
	"bytes"
	"slices"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A partial is one officer's part of opening one wrap in one case, with its proof.
type partial struct {
	u, uhat, hhat group.Element // u_i, û, ĥ
	f             group.Scalar
	octets        []byte
}

// partialSize is the length of a partial: three points and a scalar.
func (s *suite) partialSize() int { return 3*s.pointSize + scalarSize }

func parsePartial(s *suite, b []byte) (*partial, error) {
	c := cursor{b: b, object: "partial"}
	if len(b) != s.partialSize() {
		c.fail(ErrDecode, "is %d octets, not %d", len(b), s.partialSize())
	}
	p := &partial{u: c.point(s), uhat: c.point(s), hhat: c.point(s), f: c.scalar(s), octets: bytes.Clone(b)}
	if err := c.end(); err != nil {
		return nil, err
	}
	return p, nil
}

// forget overwrites the value that, with those of other officers, opens a record.
func (p *partial) forget() {
	p.u.Set(p.u.Group().Identity())
	clear(p.octets)
}

// A work is what an officer works on: whoever checks his proof knows it too.
type work struct {
	key   *Key
	epoch *Epoch
	of    vault.Digest // the case
}

// challenge is e_i = H4(key id ‖ epoch digest ‖ case digest ‖ u16(i) ‖ wrap digest ‖ u ‖ h_i ‖ u_i ‖ û ‖ ĥ).
func (w work) challenge(i uint16, h []byte, wrap *Wrap, points []byte) group.Scalar {
	return w.key.suite.scalarOf("H4", w.key.id[:], w.epoch.digest[:], w.of[:], be16(i), wrap.digest[:], wrap.point(0), h, points)
}

// check verifies that p is officer i's part of opening wrap in this case: g^f = ĥ·h_i^e and u^f = û·u_i^e.
func (w work) check(i uint16, wrap *Wrap, p *partial) error {
	h, err := w.epoch.point(i)
	if err != nil {
		return err
	}
	s := w.key.suite
	e := w.challenge(i, h.encoded, wrap, p.octets[:3*s.pointSize])
	if !s.mulGen(p.f).IsEqual(s.add(p.hhat, s.mul(h.h, e))) || !s.mul(wrap.u, p.f).IsEqual(s.add(p.uhat, s.mul(p.u, e))) {
		return refuse(ErrProof, "partial", "officer %d's proof does not hold for this wrap, case and epoch", i)
	}
	return nil
}

// A parting is the making of one partial, with its secret.
type parting struct {
	k, e, f       group.Scalar
	u, uhat, hhat group.Element
}

// part makes officer i's partial with his share x. The wrap must have been checked: else he is an oracle.
func (w work) part(i uint16, x group.Scalar, wrap *Wrap, src source) (*parting, *partial, error) {
	h, err := w.epoch.point(i)
	if err != nil {
		return nil, nil, err
	}
	s := w.key.suite
	octets := s.encodeScalar(x)
	defer clear(octets)
	t := &parting{k: s.nonZero(src, "partial", octets, w.of[:], wrap.digest[:])}
	t.u, t.uhat, t.hhat = s.mul(wrap.u, x), s.mul(wrap.u, t.k), s.mulGen(t.k)
	b := slices.Concat(s.encode(t.u), s.encode(t.uhat), s.encode(t.hhat))
	t.e = w.challenge(i, h.encoded, wrap, b)
	t.f = s.group.NewScalar().Mul(x, t.e)
	t.f.Add(t.f, t.k)
	return t, &partial{u: t.u, uhat: t.uhat, hhat: t.hhat, f: t.f, octets: append(b, s.encodeScalar(t.f)...)}, nil
}

// lagrange are the λ_i of a set: Π_{j≠i} j·(j − i)^{−1}. The set must have been checked: equal indexes have no inverse.
func (s *suite) lagrange(set []uint16) []group.Scalar {
	list := make([]group.Scalar, len(set))
	for n, i := range set {
		num, den := s.index(1), s.index(1)
		for _, j := range set {
			if j == i {
				continue
			}
			num.Mul(num, s.index(j))
			den.Mul(den, s.group.NewScalar().Sub(s.index(j), s.index(i)))
		}
		list[n] = num.Mul(num, den.Inv(den))
	}
	return list
}

// combine is P = Π u_i^{λ_i}, which is h^r when every u_i is right.
func (s *suite) combine(lambda []group.Scalar, u []group.Element) group.Element {
	p := s.mul(u[0], lambda[0])
	for n := 1; n < len(u); n++ {
		p.Add(p, s.mul(u[n], lambda[n]))
	}
	return p
}

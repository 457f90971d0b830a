package escrow

import (
	"crypto/rand"
	"slices"

	"github.com/cloudflare/circl/group"
)

// MaxBatch is how many entries are checked, sealed and sent together.
const MaxBatch = 1000

// batchSize is how many we take; only tests take fewer.
var batchSize = MaxBatch

// delta draws an exponent of 128 bits. It is drawn after all that it will judge has been read.
func (s *suite) delta() group.Scalar {
	var b [scalarSize]byte
	rand.Read(b[:16]) // never fails
	if s.bigEndian {
		slices.Reverse(b[:])
	}
	d := s.group.NewScalar()
	if err := d.UnmarshalBinary(b[:]); err != nil {
		panic("escrow: 128 bits are below both groups' orders")
	}
	return d
}

// checkWraps verifies the proofs of wraps whose labels were checked, and returns the places of those that fail.
//
// The batch: g^{Σ δf} · ḡ^{Σ δ'f} = Π w^δ u^{δe} w̄^{δ'} ū^{δ'e}. If one equation is false, then with all other exponents
// fixed at most one of 2^128 values makes the product hold, as the order is prime.
func checkWraps(k *Key, wraps []*Wrap) (bad []int) {
	if k.suite.batches && len(wraps) > 1 && wrapsHold(k, wraps) {
		return nil
	}
	for i, w := range wraps {
		if !w.proofHolds(k) {
			bad = append(bad, i)
		}
	}
	return bad
}

func wrapsHold(k *Key, wraps []*Wrap) bool {
	s := k.suite
	product := newProduct(s, 4*len(wraps))
	left, leftBar := s.group.NewScalar(), s.group.NewScalar()
	t := s.group.NewScalar()
	for _, w := range wraps {
		d, dBar, e := s.delta(), s.delta(), w.challenge()
		left.Add(left, t.Mul(d, w.f))
		leftBar.Add(leftBar, t.Mul(dBar, w.f))
		product.add(w.w, d)
		product.add(w.wbar, dBar)
		product.add(w.u, d.Copy().Mul(d, e))
		product.add(w.ubar, dBar.Copy().Mul(dBar, e))
	}
	return s.add(s.mulGen(left), s.mul(k.gbar, leftBar)).IsEqual(product.value())
}

// checkPartials verifies officer i's partials, one for each wrap, and returns the places of those that fail.
//
// The batch: g^{Σ δf} · Π u^{δ'f} = Π ĥ^δ · h_i^{Σ δe} · Π û^{δ'} u_i^{δ'e}.
func (w work) checkPartials(i uint16, wraps []*Wrap, list []*partial) (bad []int, err error) {
	h, err := w.epoch.point(i)
	if err != nil {
		return nil, err
	}
	if w.key.suite.batches && len(list) > 1 && w.partialsHold(i, h, wraps, list) {
		return nil, nil
	}
	for n, p := range list {
		if w.check(i, wraps[n], p) != nil {
			bad = append(bad, n)
		}
	}
	return bad, nil
}

func (w work) partialsHold(i uint16, h officerPoint, wraps []*Wrap, list []*partial) bool {
	s := w.key.suite
	product := newProduct(s, 4*len(list)+1)
	left, hExp := s.group.NewScalar(), s.group.NewScalar()
	t := s.group.NewScalar()
	for n, p := range list {
		d, dHat, e := s.delta(), s.delta(), w.challenge(i, h.encoded, wraps[n], p.octets[:3*s.pointSize])
		left.Add(left, t.Mul(d, p.f))
		hExp.Add(hExp, t.Mul(d, e))
		product.add(p.hhat, d)
		product.add(p.uhat, dHat)
		product.add(p.u, dHat.Copy().Mul(dHat, e))
		minus := dHat.Copy().Mul(dHat, p.f)
		product.add(wraps[n].u, minus.Neg(minus))
	}
	product.add(h.h, hExp)
	return s.mulGen(left).IsEqual(product.value())
}

// A product is Π p^k over public values, computed in variable time by buckets (Pippenger). Never over a share, r, s or k.
type product struct {
	s      *suite
	points []group.Element
	digits [][]byte // little-endian
}

func newProduct(s *suite, n int) *product {
	return &product{s: s, points: make([]group.Element, 0, n), digits: make([][]byte, 0, n)}
}

func (p *product) add(e group.Element, k group.Scalar) {
	b := p.s.encodeScalar(k)
	if p.s.bigEndian {
		slices.Reverse(b)
	}
	p.points = append(p.points, e)
	p.digits = append(p.digits, b)
}

// value multiplies out, the highest digit first. Digits have 8 bits, or 4 when there are few points to a bucket.
func (p *product) value() group.Element {
	width := 8
	if len(p.points) < 128 {
		width = 4
	}
	buckets := make([]group.Element, 1<<width)
	for i := range buckets {
		buckets[i] = p.s.group.NewElement()
	}
	sum := p.s.group.Identity()
	for n := 8*scalarSize/width - 1; n >= 0; n-- {
		for range width {
			sum.Dbl(sum)
		}
		p.digit(sum, buckets, n, width)
	}
	return sum
}

// digit adds what the n-th digit of every exponent gives.
func (p *product) digit(sum group.Element, buckets []group.Element, n, width int) {
	full := make([]bool, len(buckets))
	for i, point := range p.points {
		d := p.digits[i][n*width/8] >> (n * width % 8) & (1<<width - 1)
		switch {
		case d == 0:
		case full[d]:
			buckets[d].Add(buckets[d], point)
		default:
			buckets[d].Set(point)
			full[d] = true
		}
	}
	var running group.Element
	for d := len(buckets) - 1; d > 0; d-- { // Σ d·B_d as the sum of all tails
		switch {
		case full[d] && running == nil:
			running = buckets[d].Copy()
		case full[d]:
			running.Add(running, buckets[d])
		}
		if running != nil {
			sum.Add(sum, running)
		}
	}
}

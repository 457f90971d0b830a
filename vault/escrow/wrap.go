package escrow

import (
	"bytes"
	"crypto/subtle"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A Wrap is a key of 32 octets sealed to an escrow key under a label: a TDH2 ciphertext, DET1. Anyone can check it. Safe
// for concurrent use.
type Wrap struct {
	Label Label

	suite            *suite
	c                [32]byte
	u, ubar, w, wbar group.Element
	f                group.Scalar
	octets           []byte
	digest           vault.Digest
}

const wrapMagic = "DET1"

// wrapSize is the length of a wrap: magic, label, c, four points, f.
func (s *suite) wrapSize() int { return 4 + LabelSize + 32 + 4*s.pointSize + scalarSize }

// Octets is the wrap's encoding; not to be changed.
func (w *Wrap) Octets() []byte { return w.octets }

// Digest is D("wrap", octets), by which log and manifest name the wrap.
func (w *Wrap) Digest() vault.Digest { return w.digest }

// ParseWrap reads a wrap. Its proof is not checked: see Check. It keeps no part of b.
func ParseWrap(b []byte) (*Wrap, error) {
	c := cursor{b: b, object: "wrap"}
	c.magic(wrapMagic)
	w := &Wrap{Label: c.label()}
	w.suite = lookUp(w.Label.Suite)
	if c.err == nil && len(b) != w.suite.wrapSize() {
		c.fail(ErrDecode, "is %d octets, not %d", len(b), w.suite.wrapSize())
	}
	if c.err != nil {
		return nil, c.err
	}
	c.fixed(w.c[:])
	w.u, w.ubar, w.w, w.wbar = c.point(w.suite), c.point(w.suite), c.point(w.suite), c.point(w.suite)
	w.f = c.scalar(w.suite)
	if err := c.end(); err != nil {
		return nil, err
	}
	w.octets = bytes.Clone(b)
	w.digest = vault.NewDigest("wrap", b)
	return w, nil
}

// point returns the encoding of the n-th point: u, ū, w, w̄.
func (w *Wrap) point(n int) []byte {
	const first = 4 + LabelSize + 32
	return w.octets[first+n*w.suite.pointSize:][:w.suite.pointSize]
}

// challenge is e = H2(c ‖ L ‖ u ‖ w ‖ ū ‖ w̄).
func (w *Wrap) challenge() group.Scalar {
	return w.suite.scalarOf("H2", w.c[:], w.octets[4:4+LabelSize], w.point(0), w.point(2), w.point(1), w.point(3))
}

// checkLabel compares what a label says of its key, before any arithmetic.
func (w *Wrap) checkLabel(k *Key) error {
	switch {
	case w.Label.Key != k.id || w.suite != k.suite:
		return refuse(ErrLabel, "wrap", "is sealed to another key")
	case w.Label.Kind != k.Purpose:
		return refuse(ErrLabel, "wrap", "is for %s, the key for %s", w.Label.Kind, k.Purpose)
	}
	return nil
}

// Check verifies that the wrap was sealed to k by someone who knew what is in it, under this very label:
// g^f = w·u^e and ḡ^f = w̄·ū^e.
func (w *Wrap) Check(k *Key) error {
	if err := w.checkLabel(k); err != nil {
		return err
	}
	if !w.proofHolds(k) {
		return refuse(ErrProof, "wrap", "was changed, or not sealed under this label")
	}
	return nil
}

func (w *Wrap) proofHolds(k *Key) bool {
	s, e := w.suite, w.challenge()
	left, right := s.mulGen(w.f), s.add(w.w, s.mul(w.u, e))
	leftBar, rightBar := s.mul(k.gbar, w.f), s.add(w.wbar, s.mul(w.ubar, e))
	return left.IsEqual(right) && leftBar.IsEqual(rightBar)
}

// open removes the mask that h^r gives. The caller destroys the secret.
func (w *Wrap) open(hr group.Element) vault.Secret {
	m := w.suite.mask(hr)
	defer clear(m[:])
	subtle.XORBytes(m[:], m[:], w.c[:])
	k, err := vault.SecretOf(m[:])
	if err != nil {
		panic(err) // of its length alone
	}
	return k
}

// A sealing is the making of one wrap, with its secrets.
type sealing struct {
	r, s, e, f       group.Scalar
	hr               group.Element
	mask             [32]byte
	c                [32]byte
	u, ubar, w, wbar group.Element
}

// newSealing does TDH2's encryption. The caller destroys it.
func newSealing(k *Key, key, label []byte, src source) *sealing {
	t, s := &sealing{}, k.suite
	for {
		rho := src()
		t.r, t.s = s.random("r", &rho, key, label), s.random("s", &rho, key, label)
		clear(rho[:])
		if !t.r.IsZero() && !t.s.IsZero() {
			break
		}
	}
	t.hr = s.mul(k.h, t.r)
	t.mask = s.mask(t.hr)
	subtle.XORBytes(t.c[:], t.mask[:], key)
	t.u, t.ubar = s.mulGen(t.r), s.mul(k.gbar, t.r)
	t.w, t.wbar = s.mulGen(t.s), s.mul(k.gbar, t.s)
	return t
}

// finish makes the proof and the wrap.
func (t *sealing) finish(k *Key, l Label, label []byte) *Wrap {
	s := k.suite
	b := make([]byte, 0, s.wrapSize())
	b = append(b, wrapMagic...)
	b = append(b, label...)
	b = append(b, t.c[:]...)
	for _, p := range []group.Element{t.u, t.ubar, t.w, t.wbar} {
		b = append(b, s.encode(p)...)
	}
	w := &Wrap{Label: l, suite: s, c: t.c, u: t.u, ubar: t.ubar, w: t.w, wbar: t.wbar, octets: b}
	t.e = w.challenge()
	t.f = s.group.NewScalar().Mul(t.r, t.e)
	t.f.Add(t.f, t.s)
	w.f = t.f.Copy()
	w.octets = append(w.octets, s.encodeScalar(w.f)...)
	w.digest = vault.NewDigest("wrap", w.octets)
	return w
}

func (t *sealing) destroy() {
	wipe(t.r, t.s)
	clear(t.mask[:])
	t.hr.Set(t.hr.Group().Identity())
}

// sealTo seals the 32 octets of key; Label's suite, kind and key are those of k.
func sealTo(k *Key, key vault.Secret, l Label, src source) (*Wrap, error) {
	octets := key.Octets()
	defer clear(octets)
	if len(octets) != vault.SecretSize {
		return nil, refuse(ErrLabel, "wrap", "no key to seal")
	}
	l.Suite, l.Kind, l.Key = k.suite.id, k.Purpose, k.id
	label := l.Octets()
	t := newSealing(k, octets, label, src)
	defer t.destroy()
	return t.finish(k, l, label), nil
}

package escrow

import (
	"bytes"
	"errors"
	"testing"

	"dimegate/vault"
)

// sealedAnew is a case of w that re-wraps to another organisation's key, and its file.
func sealedAnew(t testing.TB, w *world) (*Manifest, *world, *Rewrap, SigningKey) {
	t.Helper()
	w.seal(4, 0)
	requester := newPerson(t, "rita")
	c := w.open(0, func(m *Manifest) {
		m.Basis, m.RequesterKey = "rewrap: the safe was opened", requester.signing.Public()
	})
	to := newWorld(t, 2, 3)
	r := &Rewrap{Case: c.m.Case, Old: w.dealt.Key.ID(), New: to.dealt.Key.ID()}
	for _, x := range w.records {
		k := must[vault.Secret](t)(vault.SecretOf(x.key))
		r.Entries = append(r.Entries, Rewrapped{x.id, x.wraps[0].Digest(), must[*Wrap](t)(to.sealer.Seal(k, x.wraps[0].Label))})
	}
	return c.m, to, r, requester.signing
}

// TestRewrapFile: the file that a station signs is taken for its case, its requester and the key in force alone.
func TestRewrapFile(t *testing.T) {
	w := newWorld(t, 2, 3)
	m, to, r, k := sealedAnew(t, w)
	b := must[[]byte](t)(r.Sign(k))
	got := must[*Rewrap](t)(ParseRewrap(b))
	if err := got.Check(m, to.dealt.Key); err != nil || len(got.Entries) != 4 {
		t.Fatal(err)
	}
	changed := func(f func(*Rewrap)) *Rewrap {
		x := *r
		x.Entries = append([]Rewrapped(nil), r.Entries...)
		f(&x)
		return must[*Rewrap](t)(ParseRewrap(must[[]byte](t)(x.Sign(k))))
	}
	reader := *m
	reader.Basis = "Order 7"
	forged := bytes.Clone(b)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		r    *Rewrap
		m    *Manifest
		to   *Key
		want Class
	}{
		"a case that opens mail": {got, &reader, to.dealt.Key, ErrManifest},
		"another case":           {changed(func(r *Rewrap) { r.Case[0]++ }), m, to.dealt.Key, ErrManifest},
		"another old key":        {changed(func(r *Rewrap) { r.Old[0]++ }), m, to.dealt.Key, ErrManifest},
		"another new key":        {got, m, w.dealt.Key, ErrLabel},
		"a forged signature":     {must[*Rewrap](t)(ParseRewrap(forged)), m, to.dealt.Key, ErrSignature},
		"another's signature":    {must[*Rewrap](t)(ParseRewrap(must[[]byte](t)(r.Sign(newPerson(t, "eve").signing)))), m, to.dealt.Key, ErrSignature},
		"not in the case":        {changed(func(r *Rewrap) { r.Entries[0].Old[0]++ }), m, to.dealt.Key, ErrManifest},
		"of another record":      {changed(func(r *Rewrap) { r.Entries[0].Record[0]++ }), m, to.dealt.Key, ErrLabel},
		"under the old key":      {changed(func(r *Rewrap) { r.Entries[0].Wrap = w.records[0].wraps[0] }), m, to.dealt.Key, ErrProof},
	} {
		if err := c.r.Check(c.m, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseRewrap(append(b, 0)); !errors.Is(err, ErrDecode) {
		t.Errorf("a spare octet: %v", err)
	}
	if _, err := (Rewrap{Case: r.Case, Entries: append(r.Entries, r.Entries[0])}).Sign(k); !errors.Is(err, ErrDecode) {
		t.Errorf("an entry twice: %v", err)
	}
}

func FuzzRewrap(f *testing.F) {
	w := newWorld(f, 2, 3)
	_, _, r, k := sealedAnew(f, w)
	reencodes(f, ParseRewrap, func(r *Rewrap) []byte { return append(r.signed(), r.signature[:]...) }, must[[]byte](f)(r.Sign(k)))
}

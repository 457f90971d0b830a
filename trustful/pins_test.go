package trustful_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// stranger makes a user signet of new keys, without custody: what a provider that lies would publish.
func stranger(t testing.TB, s *side, address string) *signet.Signet {
	t.Helper()
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made, err := signet.NewUser(pair, signet.RequestDetails{}, s.org.pair.Signing, signet.Details{Name: address})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// rotate passes n rotations of a user of the other side.
func rotate(t testing.TB, s *side, address string, n int) (last *signet.Signet) {
	t.Helper()
	for range n {
		var err error
		if last, err = s.keeper.Rotate(t.Context(), address); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// TestKeyChange has the rows of dmtp.md §8.10 that are about user signets, and what surrounds them.
func TestKeyChange(t *testing.T) {
	const address = "bob@bravo.example"
	held := trustful.ErrHeld
	tests := map[string]struct {
		remote   trustful.Remote
		override bool
		reading  bool
		prepare  func(t *testing.T, alpha, bravo *side) *signet.Signet // after first use
		want     error
		how      trustful.How // of the last pin
		pins     int
	}{
		"unchanged": {trustful.Strict, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return enrol(t, b, address)
		}, nil, trustful.FirstUse, 1},
		"rotated once, strict": {trustful.Strict, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return rotate(t, b, address, 1)
		}, nil, trustful.Custody, 2},
		"rotated thrice, strict": {trustful.Strict, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return rotate(t, b, address, 3)
		}, nil, trustful.Custody, 4},
		"changed, strict": {trustful.Strict, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, held, trustful.FirstUse, 1},
		"changed, strict, override": {trustful.Strict, true, false, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, held, trustful.FirstUse, 1},
		"changed, mixed": {trustful.Mixed, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, held, trustful.FirstUse, 1},
		"changed, mixed, override": {trustful.Mixed, true, false, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, nil, trustful.Manual, 2},
		"changed, experimental": {trustful.Experimental, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, held, trustful.FirstUse, 1},
		"changed while reading": {trustful.Mixed, false, true, func(t *testing.T, _, b *side) *signet.Signet {
			return stranger(t, b, address)
		}, held, trustful.FirstUse, 1},
		"history cannot be had": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			a.peers.fault = fmt.Errorf("%w: time-out", trustful.ErrUnavailable)
			return rotate(t, b, address, 1)
		}, trustful.ErrUnavailable, trustful.FirstUse, 1},
		"history without the middle": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			a.peers.forge = func(all []*signet.Signet) []*signet.Signet { return append(all[:1:1], all[2:]...) }
			return rotate(t, b, address, 2)
		}, held, trustful.FirstUse, 1},
		"history that begins elsewhere": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			a.peers.forge = func(all []*signet.Signet) []*signet.Signet { return all[1:] }
			return rotate(t, b, address, 2)
		}, held, trustful.FirstUse, 1},
		"history that ends elsewhere": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			a.peers.forge = func(all []*signet.Signet) []*signet.Signet { return all[:1] }
			return rotate(t, b, address, 1)
		}, held, trustful.FirstUse, 1},
		"empty history": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			a.peers.forge = func(all []*signet.Signet) []*signet.Signet { return nil }
			return rotate(t, b, address, 1)
		}, held, trustful.FirstUse, 1},
		"history goes round": {trustful.Mixed, false, false, func(t *testing.T, a, b *side) *signet.Signet {
			last := rotate(t, b, address, 1)
			a.peers.forge = func(all []*signet.Signet) []*signet.Signet { return []*signet.Signet{all[0], all[0], last} }
			return last
		}, held, trustful.FirstUse, 1},
		"the same keys, signed anew": {trustful.Strict, false, false, func(t *testing.T, _, b *side) *signet.Signet {
			g, err := b.store.Generations(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			old, err := signet.Parse(g[0].Signet)
			if err != nil {
				t.Fatal(err)
			}
			keys := b.store.users[address][0].keys.Pair
			s, err := signet.NewUser(keys, signet.RequestDetails{}, b.org.pair.Signing, signet.Details{Name: address,
				Fields: []signet.Field{{ID: signet.FieldName, Value: []byte("Bob")}}})
			if err != nil {
				t.Fatal(err)
			}
			if s.SigningKey() != old.SigningKey() {
				t.Fatal("not the same keys")
			}
			return s
		}, nil, trustful.Custody, 2},
		"another user's signet": {trustful.Mixed, true, false, func(t *testing.T, _, b *side) *signet.Signet {
			return enrol(t, b, "eve@bravo.example")
		}, key.ErrIdentifier, trustful.FirstUse, 1},
		"a form without the name": {trustful.Mixed, true, false, func(t *testing.T, _, b *side) *signet.Signet {
			s, err := enrol(t, b, address).Cut(signet.Full)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, key.ErrIdentifier, trustful.FirstUse, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			alpha, bravo := newSides(t)
			first := trustful.Claim{Address: "Bob@bravo.example", Signet: enrol(t, bravo, address), Remote: tt.remote}
			if err := alpha.pins.Trust(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			c := trustful.Claim{Address: address, Signet: tt.prepare(t, alpha, bravo), Remote: tt.remote, Override: tt.override, Reading: tt.reading}
			for range 2 { // a second look says the same
				if err := alpha.pins.Trust(t.Context(), c); !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
			}
			pins, doubt, _ := alpha.pinned.Pins(t.Context(), address)
			if len(pins) != tt.pins || pins[len(pins)-1].How != tt.how {
				t.Errorf("%d pins, the last by %v; want %d, %v", len(pins), pins[len(pins)-1].How, tt.pins, tt.how)
			}
			if (doubt != nil) != (tt.want == held) {
				t.Errorf("doubt: %v", doubt)
			}
		})
	}
}

// TestQuarantine: an experimental domain's changed key is accepted after four hours, if a second look agrees.
func TestQuarantine(t *testing.T) {
	const address = "bob@bravo.example"
	alpha, bravo := newSides(t)
	if err := alpha.pins.Trust(t.Context(), trustful.Claim{Address: address, Signet: enrol(t, bravo, address)}); err != nil {
		t.Fatal(err)
	}
	c := trustful.Claim{Address: address, Signet: stranger(t, bravo, address), Remote: trustful.Experimental}
	agree, asked := false, 0
	alpha.peers.current = func() (bool, error) { asked++; return agree, nil }
	try := func() error { return alpha.pins.Trust(t.Context(), c) }
	began := alpha.clock.now()
	if err := try(); !errors.Is(err, trustful.ErrHeld) || asked != 0 {
		t.Fatalf("at once: %v, asked %d times", err, asked)
	}
	alpha.clock.pass(4 * time.Hour)
	err := try()
	if held, ok := errors.AsType[*trustful.HeldError](err); !ok || !held.Since.Equal(began) || asked != 1 {
		t.Fatalf("the second look disagrees: %v, asked %d times", err, asked)
	}
	another := c
	another.Signet = stranger(t, bravo, address)
	agree = true
	if err := alpha.pins.Trust(t.Context(), another); !errors.Is(err, trustful.ErrHeld) {
		t.Fatalf("yet another key has its own four hours: %v", err)
	}
	alpha.clock.pass(4 * time.Hour)
	if err := alpha.pins.Trust(t.Context(), another); err != nil {
		t.Fatal(err)
	}
	pins, doubt, _ := alpha.pinned.Pins(t.Context(), address)
	if len(pins) != 2 || pins[1].How != trustful.Unverified || doubt != nil {
		t.Errorf("pins %v, doubt %v", pins, doubt)
	}
}

// TestFirstContactWithSuccessor: what stood before cannot be known, and that is noted.
func TestFirstContactWithSuccessor(t *testing.T) {
	alpha, bravo := newSides(t)
	enrol(t, bravo, "bob@bravo.example")
	c := trustful.Claim{Address: "bob@bravo.example", Signet: rotate(t, bravo, "bob@bravo.example", 1)}
	if err := alpha.pins.Trust(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	pins, _, _ := alpha.pinned.Pins(t.Context(), "bob@bravo.example")
	if len(pins) != 1 || pins[0].How != trustful.Unverified {
		t.Errorf("pins: %v", pins)
	}
}

// TestOlderSignets: mail that was under way at a rotation is read, nothing is sealed to an older key again.
func TestOlderSignets(t *testing.T) {
	const address = "bob@bravo.example"
	alpha, bravo := newSides(t)
	first := enrol(t, bravo, address)
	second := rotate(t, bravo, address, 1)
	third := rotate(t, bravo, address, 1)
	if err := alpha.pins.Trust(t.Context(), trustful.Claim{Address: address, Signet: second}); err != nil {
		t.Fatal(err)
	}
	if err := alpha.pins.Trust(t.Context(), trustful.Claim{Address: address, Signet: third}); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*signet.Signet{"never pinned": first, "pinned before": second} {
		read := trustful.Claim{Address: address, Signet: s, Reading: true}
		if err := alpha.pins.Trust(t.Context(), read); err != nil {
			t.Errorf("%s, reading: %v", name, err)
		}
		if err := alpha.pins.Trust(t.Context(), trustful.Claim{Address: address, Signet: s}); !errors.Is(err, trustful.ErrHeld) {
			t.Errorf("%s, sealing: %v", name, err)
		}
	}
	pins, _, _ := alpha.pinned.Pins(t.Context(), address)
	if len(pins) != 2 {
		t.Errorf("%d pins", len(pins))
	}
}

// TestAccept ends a hold by an administrator's word.
func TestAccept(t *testing.T) {
	const address = "bob@bravo.example"
	alpha, bravo := newSides(t)
	if err := alpha.pins.Trust(t.Context(), trustful.Claim{Address: address, Signet: enrol(t, bravo, address)}); err != nil {
		t.Fatal(err)
	}
	c := trustful.Claim{Address: address, Signet: stranger(t, bravo, address)}
	if err := alpha.pins.Trust(t.Context(), c); !errors.Is(err, trustful.ErrHeld) {
		t.Fatal(err)
	}
	if err := alpha.pins.Accept(t.Context(), c.Signet); err != nil {
		t.Fatal(err)
	}
	if err := alpha.pins.Trust(t.Context(), c); err != nil {
		t.Error(err)
	}
	if pins, doubt, _ := alpha.pinned.Pins(t.Context(), address); len(pins) != 2 || pins[1].How != trustful.Manual || doubt != nil {
		t.Errorf("pins %v, doubt %v", pins, doubt)
	}
}

// TestCheckedIsNotedOnce: a busy correspondent does not cost a write a message.
func TestCheckedIsNotedOnce(t *testing.T) {
	const address = "bob@bravo.example"
	alpha, bravo := newSides(t)
	c := trustful.Claim{Address: address, Signet: enrol(t, bravo, address)}
	began := alpha.clock.now()
	for _, step := range []struct{ pass, noted time.Duration }{{0, 0}, {59 * time.Minute, 0}, {time.Minute, time.Hour}} {
		alpha.clock.pass(step.pass)
		if err := alpha.pins.Trust(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if pins, _, _ := alpha.pinned.Pins(t.Context(), address); !pins[0].Checked.Equal(began.Add(step.noted)) {
			t.Errorf("after %v more: noted %v", step.pass, pins[0].Checked.Sub(began))
		}
	}
}

func TestHow(t *testing.T) {
	for h := trustful.FirstUse; h <= trustful.Unverified; h++ {
		if again, err := trustful.ParseHow(h.String()); err != nil || again != h {
			t.Errorf("%v: %v, %v", h, again, err)
		}
	}
	for _, s := range []string{"", "?", "first"} {
		if h, err := trustful.ParseHow(s); err == nil {
			t.Errorf("%q is %v", s, h)
		}
	}
}

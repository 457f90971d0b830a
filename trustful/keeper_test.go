package trustful_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func enrol(t testing.TB, s *side, address string) *signet.Signet {
	t.Helper()
	made, err := s.keeper.Enrol(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestEnrolOnce(t *testing.T) {
	alpha, _ := newSides(t)
	const users, askers = 100, 20
	var made atomic.Int64
	alpha.org.tamper = func(r *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
		made.Add(1)
		return r.Certify(alpha.org.pair.Signing, d)
	}
	var mu sync.Mutex
	seen := map[string]map[signet.Fingerprint]bool{}
	var wg sync.WaitGroup
	for i := range users * askers {
		wg.Go(func() {
			address := fmt.Sprintf("User%d@ALPHA.example", i%users)
			s, err := alpha.keeper.Enrol(t.Context(), address)
			if err != nil {
				t.Error(err)
				return
			}
			fp, _ := s.Fingerprint(signet.ID)
			mu.Lock()
			defer mu.Unlock()
			if seen[s.Name()] == nil {
				seen[s.Name()] = map[signet.Fingerprint]bool{}
			}
			seen[s.Name()][fp] = true
		})
	}
	wg.Wait()
	if len(seen) != users || made.Load() != users {
		t.Errorf("%d users have %d signets", len(seen), made.Load())
	}
	for name, fps := range seen {
		if len(fps) != 1 {
			t.Errorf("%s has %d signets", name, len(fps))
		}
	}
}

// TestEnrolTwoProcesses has two keepers, which share no lock, over one store.
func TestEnrolTwoProcesses(t *testing.T) {
	alpha, _ := newSides(t)
	second, err := trustful.NewKeeper(alpha.keeper.Options)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		address := fmt.Sprintf("u%d@alpha.example", i)
		got := [2]*signet.Signet{}
		for j, k := range []*trustful.Keeper{alpha.keeper, second} {
			wg.Go(func() { got[j], _ = k.Enrol(t.Context(), address) })
		}
		wg.Wait()
		if got[0] == nil || got[1] == nil || !bytes.Equal(got[0].Bytes(), got[1].Bytes()) {
			t.Fatalf("%s: two keepers give two signets", address)
		}
	}
}

func TestEnrolRefuses(t *testing.T) {
	alpha, bravo := newSides(t)
	stranger, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		address string
		tamper  func(r *signet.Uncertified, d signet.Details) (*signet.Signet, error)
		want    error // nil: any
	}{
		"another domain": {"a@bravo.example", nil, trustful.ErrNotOurs},
		"no address":     {"postmaster", nil, trustful.ErrAddress},
		"not ASCII":      {"ä@alpha.example", nil, trustful.ErrAddress},
		"signed by another organisation": {"a@alpha.example", func(r *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
			return r.Certify(bravo.org.pair.Signing, d)
		}, key.ErrSignature},
		"another name": {"a@alpha.example", func(r *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
			d.Name = "b@alpha.example"
			return r.Certify(alpha.org.pair.Signing, d)
		}, nil},
		"the organisation's own keys for the user": {"a@alpha.example", func(_ *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
			r, err := signet.NewUncertified(stranger, signet.RequestDetails{})
			if err != nil {
				return nil, err
			}
			return r.Certify(alpha.org.pair.Signing, d)
		}, nil},
		"not in ID form": {"a@alpha.example", func(r *signet.Uncertified, _ signet.Details) (*signet.Signet, error) {
			return r.Certify(alpha.org.pair.Signing, signet.Details{Form: signet.Crypto})
		}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			alpha.org.tamper = tt.tamper
			s, err := alpha.keeper.Enrol(t.Context(), tt.address)
			if err == nil || s != nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, %v; want %v", s, err, tt.want)
			}
			if len(alpha.store.users) != 0 {
				t.Error("keys were stored")
			}
		})
	}
}

// TestCrashBeforeCommit fails the commit: nothing of the keys may be seen, and the next try makes others.
func TestCrashBeforeCommit(t *testing.T) {
	alpha, _ := newSides(t)
	broken := errors.New("disk full")
	alpha.store.fault = func(op string) error {
		if op == "append" {
			return broken
		}
		return nil
	}
	if s, err := alpha.keeper.Enrol(t.Context(), "a@alpha.example"); !errors.Is(err, broken) || s != nil {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := alpha.keeper.Chain(t.Context(), "a@alpha.example"); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("published without a commit: %v", err)
	}
	alpha.store.fault = nil
	enrol(t, alpha, "a@alpha.example")
}

func TestEnrolEndsWithContext(t *testing.T) {
	alpha, _ := newSides(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	alpha.org.tamper = func(r *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
		close(inside)
		<-leave
		return r.Certify(alpha.org.pair.Signing, d)
	}
	var wg sync.WaitGroup
	wg.Go(func() { enrol(t, alpha, "a@alpha.example") })
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alpha.keeper.Enrol(ctx, "a@alpha.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("the second asker got %v", err)
	}
	close(leave)
	wg.Wait()
	enrol(t, alpha, "a@alpha.example")
}

func TestSealOpen(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	for name, size := range map[string]int{"small": 1, "middling": 100_000, "several pieces": 17 << 20} {
		t.Run(name, func(t *testing.T) {
			c := letter(string(bytes.Repeat([]byte("the merger closes on Friday\r\n"), size/29+1)))
			if d, err := alpha.keeper.Prepare(t.Context(), to("alice@alpha.example", bravo, bob)); err != nil || !d.Multi() {
				t.Fatalf("not in several pieces: %v", err)
			}
			in := carry(t, alpha, to("Alice@alpha.example", bravo, bob), c)
			got, err := bravo.keeper.Open(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Author != "alice@alpha.example" || got.Retired || !bytes.Equal(join(got.Content.Display), join(c.Display)) ||
				!bytes.Equal(got.Content.Common, c.Common) || !bytes.Equal(got.Content.Other, c.Other) {
				t.Errorf("opened as %s, %d parts", got.Author, len(got.Content.Display))
			}
		})
	}
}

func join(parts []message.Part) (all []byte) {
	for _, p := range parts {
		all = append(all, p.Data...)
	}
	return all
}

// TestOpenRefuses changes one thing at a time in what the organisation hands over, or in the world around it.
func TestOpenRefuses(t *testing.T) {
	alpha, bravo := newSides(t)
	bob, carol := enrol(t, bravo, "bob@bravo.example"), enrol(t, bravo, "carol@bravo.example")
	fpCarol, _ := carol.Fingerprint(signet.Crypto)
	charlie := newSide(t, "charlie.example", alpha.clock)
	charlie.peers.other = bravo
	good := carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("x"))
	tests := map[string]struct {
		change func(in *trustful.Incoming)
		want   error
	}{
		"as it is":                     {func(*trustful.Incoming) {}, nil},
		"another recipient":            {func(in *trustful.Incoming) { in.Recipient, in.RecipientSignet = "carol@bravo.example", fpCarol }, message.NotAuthentic},
		"another recipient's signet":   {func(in *trustful.Incoming) { in.RecipientSignet = fpCarol }, trustful.ErrStaleSignet},
		"a recipient that we have not": {func(in *trustful.Incoming) { in.Recipient = "dave@bravo.example" }, trustful.ErrNoUser},
		"no address":                   {func(in *trustful.Incoming) { in.Recipient = "bob" }, trustful.ErrAddress},
		"another origin":               {func(in *trustful.Incoming) { in.Origin = charlie.org.party() }, message.EnvelopeMismatch},
		"an origin with another key": {func(in *trustful.Incoming) {
			in.Origin = newOrganization(t, "alpha.example").party()
		}, message.NotAuthentic},
		"not signed by the origin": {func(in *trustful.Incoming) {
			m, err := alpha.keeper.Seal(t.Context(), to("alice@alpha.example", bravo, bob), letter("x"))
			if err != nil {
				t.Fatal(err)
			}
			in.Message = m
		}, message.SigOrigin},
		"flipped octet": {func(in *trustful.Incoming) {
			b := bytes.Clone(in.Message.Bytes())
			b[len(b)/2] ^= 1
			m, err := message.Parse(b, message.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			in.Message = m
		}, message.NotAuthentic},
		"author cannot be asked for": {func(*trustful.Incoming) { bravo.peers.fault = fmt.Errorf("%w: time-out", trustful.ErrUnavailable) }, trustful.ErrUnavailable},
		"author is unknown at home":  {func(*trustful.Incoming) { bravo.peers.fault = trustful.ErrNoSignet }, trustful.ErrNoSignet},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bravo.peers.fault = nil
			in := good
			tt.change(&in)
			got, err := bravo.keeper.Open(t.Context(), in)
			if !errors.Is(err, tt.want) || (got == nil) == (tt.want == nil) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

// TestForgedMailPinsNothing shows that only what verifies is remembered.
func TestForgedMailPinsNothing(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	in := carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("x"))
	m, err := alpha.keeper.Seal(t.Context(), to("alice@alpha.example", bravo, bob), letter("x"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned := in
	unsigned.Message = m
	if _, err := bravo.keeper.Open(t.Context(), unsigned); err == nil {
		t.Fatal("opened")
	}
	if pins, _, _ := bravo.pinned.Pins(t.Context(), "alice@alpha.example"); len(pins) != 0 {
		t.Error("a pin was made of a message that does not verify")
	}
	if _, err := bravo.keeper.Open(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if pins, _, _ := bravo.pinned.Pins(t.Context(), "alice@alpha.example"); len(pins) != 1 || pins[0].How != trustful.FirstUse {
		t.Errorf("pins: %v", pins)
	}
}

// TestRotation passes three rotations with mail sealed before each, late mail, and a peer that cached.
func TestRotation(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	generations := []*signet.Signet{bob}
	var late []trustful.Incoming
	for range 3 {
		late = append(late, carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("late")))
		next, err := bravo.keeper.Rotate(t.Context(), "bob@bravo.example")
		if err != nil {
			t.Fatal(err)
		}
		if next.SigningKey() == bob.SigningKey() || next.EncryptionKey() == bob.EncryptionKey() {
			t.Fatal("a key stayed")
		}
		if err := next.VerifyCustody(bob); err != nil {
			t.Fatal(err)
		}
		if _, err := alpha.keeper.Rotate(t.Context(), "alice@alpha.example"); err != nil {
			t.Fatal(err)
		}
		bob = next
		generations = append(generations, bob)
		alpha.clock.pass(time.Hour)
		letter, err := bravo.keeper.Open(t.Context(), carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("new")))
		if err != nil || letter.Retired {
			t.Fatalf("mail to the new key: %v", err)
		}
	}
	if err := signet.VerifyChain(generations, bravo.org.party().Signet); err != nil {
		t.Error(err)
	}
	for i, in := range late { // authors rotated as well meanwhile
		letter, err := bravo.keeper.Open(t.Context(), in)
		if err != nil || !letter.Retired {
			t.Errorf("mail to retired key %d: %v", i+1, err)
		}
	}
	if n, err := bravo.keeper.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d before their time: %v", n, err)
	}
	alpha.clock.pass(trustful.MinGrace - 3*time.Hour + time.Second) // the first has been retired for the grace and a second
	if n, err := bravo.keeper.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept %d, want 1: %v", n, err)
	}
	if _, err := bravo.keeper.Open(t.Context(), late[0]); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("a destroyed key opened mail: %v", err)
	}
	if _, err := bravo.keeper.Open(t.Context(), late[1]); err != nil {
		t.Errorf("a key within its grace: %v", err)
	}
	alpha.clock.pass(365 * 24 * time.Hour)
	if n, err := bravo.keeper.Sweep(t.Context()); err != nil || n != 2 {
		t.Errorf("swept %d, want 2: %v", n, err)
	}
	if _, err := bravo.keeper.Open(t.Context(), carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("x"))); err != nil {
		t.Errorf("the current key is gone: %v", err)
	}
}

func TestRotateNobody(t *testing.T) {
	alpha, _ := newSides(t)
	if _, err := alpha.keeper.Rotate(t.Context(), "nobody@alpha.example"); !errors.Is(err, trustful.ErrNoUser) {
		t.Error(err)
	}
}

// TestRotateWhileSealing: a draft made before a rotation does not go out under a key that is gone.
func TestRotateWhileSealing(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	d, err := alpha.keeper.Prepare(t.Context(), to("alice@alpha.example", bravo, bob))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alpha.keeper.Rotate(t.Context(), "alice@alpha.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Seal(t.Context(), letter("x")); !errors.Is(err, trustful.ErrNoKeys) {
		t.Errorf("sealed: %v", err)
	}
}

func TestOlderDestinationSignet(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	in := carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("x"))
	bravo.org.publish(t)
	if _, err := bravo.keeper.Open(t.Context(), in); err != nil {
		t.Errorf("mail under the organisation's last signet: %v", err)
	}
	bravo.org.signets = bravo.org.signets[1:]
	if _, err := bravo.keeper.Open(t.Context(), in); !errors.Is(err, message.FingerprintMismatch) {
		t.Errorf("mail under a signet that was never ours: %v", err)
	}
}

func TestGrace(t *testing.T) {
	alpha, _ := newSides(t)
	o := alpha.keeper.Options
	o.Grace = trustful.MinGrace - 1
	if _, err := trustful.NewKeeper(o); err == nil {
		t.Error("a grace under 36 days is taken")
	}
}

func TestPostmaster(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	in := carry(t, alpha, to(trustful.Postmaster("Alpha.example"), bravo, bob), letter("a notification"))
	got, err := bravo.keeper.Open(t.Context(), in)
	if err != nil || got.Author != "postmaster@alpha.example" {
		t.Errorf("%v, %v", got, err)
	}
}

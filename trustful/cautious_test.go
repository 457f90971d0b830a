package trustful_test

import (
	"crypto/rand"
	"errors"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func ownKeys(t *testing.T) key.Pair {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(t *testing.T, p key.Pair, d signet.RequestDetails) *signet.Signet {
	t.Helper()
	r, err := signet.NewRequest(p, d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const bob = "bob@bravo.example"

// TestCautious is a user's way from trustful to cautious (dmtp.md §13.2), with mail before, amid and after, and a rotation of his own.
func TestCautious(t *testing.T) {
	alpha, bravo := newSides(t)
	enrol(t, alpha, "alice@alpha.example")
	before := enrol(t, bravo, bob)
	send := func(s *signet.Signet) (*trustful.Letter, trustful.Incoming, error) {
		t.Helper()
		in := carry(t, alpha, to("alice@alpha.example", bravo, s), letter("terms"))
		l, err := bravo.keeper.Open(t.Context(), in)
		return l, in, err
	}
	_, early, err := send(before)
	if err != nil {
		t.Fatal(err)
	}
	own := ownKeys(t)
	bare := request(t, own, signet.RequestDetails{})
	if _, err := bravo.keeper.Admit(t.Context(), bob, bare); !errors.Is(err, trustful.ErrCustody) {
		t.Fatalf("without custody: %v", err)
	}
	custody, err := bravo.keeper.Vouch(t.Context(), "Bob@bravo.example", bare)
	if err != nil || bravo.store.vouched != 1 {
		t.Fatalf("%v, %d leaves", err, bravo.store.vouched)
	}
	bravo.clock.pass(1)
	s1, err := bravo.keeper.Admit(t.Context(), bob, request(t, own, signet.RequestDetails{Custody: custody}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s1.VerifyCustody(before); err != nil || s1.Name() != bob {
		t.Errorf("%v, %s", err, s1.Name())
	}
	l, in, err := send(s1)
	if err != nil || !l.Sealed || l.Content != nil || l.Author != "" || l.Own.Name() != bob {
		t.Fatalf("mail to keys that are his own: %+v, %v", l, err)
	}
	if o, err := in.Message.Open(message.Recipient, own.Encryption); err != nil {
		t.Errorf("he cannot open it: %v", err)
	} else if chunk, err := o.Origin(); err != nil || chunk.Author != "alice@alpha.example" {
		t.Errorf("%v, %v", chunk, err)
	}
	if l, err := bravo.keeper.Open(t.Context(), early); err != nil || l.Sealed || !l.Retired {
		t.Errorf("mail to the key from before, in its grace: %+v, %v", l, err)
	}
	for name, err := range map[string]error{
		"vouch": func() error { _, err := bravo.keeper.Vouch(t.Context(), bob, bare); return err }(),
		"seal": func() error {
			_, err := bravo.keeper.Seal(t.Context(), to(bob, alpha, enrol(t, alpha, "alice@alpha.example")), letter("x"))
			return err
		}(),
		"rotate": func() error { _, err := bravo.keeper.Rotate(t.Context(), bob); return err }(),
	} {
		if !errors.Is(err, trustful.ErrOwnKeys) {
			t.Errorf("%s with keys that are not here: %v", name, err)
		}
	}
	next := ownKeys(t)
	s2, err := bravo.keeper.Admit(t.Context(), bob, request(t, next, signet.RequestDetails{Previous: &own.Signing}))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := alpha.keeper.Peers.History(t.Context(), bob, print(t, before, signet.Full))
	if err != nil || len(chain) != 3 || print(t, chain[2], signet.ID) != print(t, s2, signet.ID) {
		t.Errorf("the chain that peers get: %d, %v", len(chain), err)
	}
	bravo.clock.pass(trustful.MinGrace + 1)
	if n, err := bravo.keeper.Sweep(t.Context()); err != nil || n == 0 {
		t.Errorf("destroyed %d, %v", n, err)
	}
	if _, err := bravo.keeper.Open(t.Context(), early); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("mail to a key that was destroyed: %v", err)
	}
	l, late, err := send(s2)
	if err != nil || !l.Sealed {
		t.Errorf("after the grace: %+v, %v", l, err)
	}
	if _, err := bravo.keeper.TakeBack(t.Context(), bob, own.Signing); !errors.Is(err, trustful.ErrCustody) {
		t.Errorf("back by a key from before: %v", err)
	}
	s3, err := bravo.keeper.TakeBack(t.Context(), bob, next.Signing)
	if err != nil || s3.VerifyCustody(s2) != nil {
		t.Fatal(err)
	}
	if l, _, err := send(s3); err != nil || l.Sealed || l.Author != "alice@alpha.example" {
		t.Errorf("after he came back: %+v, %v", l, err)
	}
	if l, err := bravo.keeper.Open(t.Context(), late); err != nil || !l.Sealed || !l.Retired {
		t.Errorf("mail to his own key, after he came back: %+v, %v", l, err)
	}
	if _, err := bravo.keeper.TakeBack(t.Context(), bob, next.Signing); !errors.Is(err, trustful.ErrCustody) {
		t.Errorf("back a second time: %v", err)
	}
	rotate(t, bravo, bob, 1)
}

// TestAdmitRefuses has what a request may lack.
func TestAdmitRefuses(t *testing.T) {
	_, bravo := newSides(t)
	split(bravo, "+")
	enrol(t, bravo, bob)
	p, stranger := ownKeys(t), ownKeys(t)
	other, err := signet.NewRequest(p, signet.RequestDetails{Dialect: signet.B})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		address string
		request *signet.Signet
		want    error
	}{
		"custody by another's key":      {bob, request(t, p, signet.RequestDetails{Previous: &stranger.Signing}), trustful.ErrCustody},
		"custody of nothing":            {"new@bravo.example", request(t, p, signet.RequestDetails{Previous: &stranger.Signing}), trustful.ErrCustody},
		"another dialect":               {"new@bravo.example", other, trustful.ErrRequest},
		"a signet in a request's place": {"new@bravo.example", bravo.org.party().Signet, trustful.ErrRequest},
		"another domain":                {"bob@alpha.example", request(t, p, signet.RequestDetails{}), trustful.ErrNotOurs},
		"no address":                    {"bob", request(t, p, signet.RequestDetails{}), trustful.ErrAddress},
		"a sub-address":                 {"bob+x@bravo.example", request(t, p, signet.RequestDetails{}), trustful.ErrAddress},
	} {
		if _, err := bravo.keeper.Admit(t.Context(), tt.address, tt.request); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first := request(t, p, signet.RequestDetails{})
	if _, err := bravo.keeper.Vouch(t.Context(), "new@bravo.example", first); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("vouched by nobody: %v", err)
	}
	if _, err := bravo.keeper.Admit(t.Context(), "new@bravo.example", first); err != nil {
		t.Fatal(err)
	}
	again := request(t, key.Pair{Signing: stranger.Signing, Encryption: p.Encryption}, signet.RequestDetails{Previous: &p.Signing})
	if _, err := bravo.keeper.Admit(t.Context(), "new@bravo.example", again); !errors.Is(err, trustful.ErrRequest) {
		t.Errorf("a key once more: %v", err)
	}
	bravo.org.request = func(_ *signet.Signet, d signet.Details) (*signet.Signet, error) {
		return signet.SignRequest(request(t, stranger, signet.RequestDetails{}), bravo.org.pair.Signing, d)
	}
	if s, err := bravo.keeper.Admit(t.Context(), "third@bravo.example", request(t, ownKeys(t), signet.RequestDetails{})); err == nil {
		t.Errorf("the organisation signed other keys, and it passed: %s", s.Name())
	}
}

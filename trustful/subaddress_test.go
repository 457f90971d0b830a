package trustful_test

import (
	"errors"
	"testing"

	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func split(s *side, by string) { s.keeper.Separator = func(string) string { return by } }

func print(t *testing.T, s *signet.Signet, f signet.Form) signet.Fingerprint {
	t.Helper()
	fp, err := s.Fingerprint(f)
	if err != nil {
		t.Fatal(err)
	}
	return fp
}

// TestSubAddress: a sub-address has its mailbox's keys under its own name, as author and as recipient, over a rotation; one that had
// keys before keeps them.
func TestSubAddress(t *testing.T) {
	alpha, bravo := newSides(t)
	own := enrol(t, alpha, "old+tag@alpha.example")
	split(alpha, "+")
	split(bravo, "+")
	if s := enrol(t, alpha, "old+tag@alpha.example"); print(t, s, signet.ID) != print(t, own, signet.ID) {
		t.Error("an address with keys of its own got others")
	}
	tagged := enrol(t, alpha, "Alice+News.Daily@alpha.example")
	alice := enrol(t, alpha, "alice@alpha.example")
	if tagged.Name() != "alice+news.daily@alpha.example" || alice.Name() != "alice@alpha.example" {
		t.Errorf("names: %s, %s", tagged.Name(), alice.Name())
	}
	if print(t, tagged, signet.Full) != print(t, alice, signet.Full) || print(t, tagged, signet.ID) == print(t, alice, signet.ID) {
		t.Error("not the mailbox's keys under another name")
	}
	if again := enrol(t, alpha, "alice+news.daily@alpha.example"); print(t, again, signet.ID) != print(t, tagged, signet.ID) {
		t.Error("another signet at the next look")
	}
	if len(alpha.store.users) != 2 {
		t.Errorf("%d mailboxes have keys, want 2", len(alpha.store.users))
	}
	enrol(t, bravo, "bob@bravo.example")
	bob := func() *signet.Signet {
		s, err := bravo.keeper.Current(t.Context(), "bob+list@bravo.example")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	send := func(s *signet.Signet) *trustful.Letter {
		t.Helper()
		l, err := bravo.keeper.Open(t.Context(), carry(t, alpha, to("alice+news.daily@alpha.example", bravo, s), letter("x")))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := bob()
	if l := send(before); l.Author != "alice+news.daily@alpha.example" || l.Retired {
		t.Errorf("%+v", l)
	}
	rotate(t, bravo, "bob+other@bravo.example", 1)
	rotate(t, alpha, "alice@alpha.example", 1)
	if l := send(before); !l.Retired {
		t.Error("sealed to the mailbox's earlier key, and not seen as that")
	}
	if l := send(bob()); l.Retired {
		t.Error("the sub-address has the earlier key")
	}
	chain, err := bravo.keeper.Chain(t.Context(), "bob+list@bravo.example")
	if err != nil || len(chain) != 2 || chain[1].VerifyCustody(chain[0]) != nil || chain[0].Name() != "bob+list@bravo.example" {
		t.Errorf("the chain: %d, %v", len(chain), err)
	}
}

func TestNoSubAddress(t *testing.T) {
	alpha, _ := newSides(t)
	split(alpha, "-")
	for _, address := range []string{"alice+x@alpha.example", "-x@alpha.example", "alice@alpha.example"} {
		enrol(t, alpha, address)
	}
	split(alpha, "")
	enrol(t, alpha, "al-ice@alpha.example")
	if len(alpha.store.users) != 4 {
		t.Errorf("%d mailboxes have keys, want 4", len(alpha.store.users))
	}
	alpha.mailbox["list-x@alpha.example"] = nil
	split(alpha, "-")
	if _, err := alpha.keeper.Current(t.Context(), "list-nobody@alpha.example"); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("a sub-address that nobody confirmed, of nobody: %v", err)
	}
	if s, err := alpha.keeper.Current(t.Context(), "list-x@alpha.example"); err != nil || s.Name() != "list-x@alpha.example" || len(alpha.store.users["list@alpha.example"]) != 1 {
		t.Errorf("one that was confirmed: %v", err)
	}
}

// TestRenamedIsChecked: the users' agent looks at what the organisation signed.
func TestRenamedIsChecked(t *testing.T) {
	alpha, bravo := newSides(t)
	split(alpha, "+")
	enrol(t, alpha, "alice@alpha.example")
	mallory := enrol(t, alpha, "mallory@alpha.example")
	for name, rename := range map[string]func(s *signet.Signet, name string) (*signet.Signet, error){
		"another user's keys": func(_ *signet.Signet, name string) (*signet.Signet, error) {
			return mallory.Renamed(alpha.org.pair.Signing, name)
		},
		"another name": func(s *signet.Signet, _ string) (*signet.Signet, error) {
			return s.Renamed(alpha.org.pair.Signing, "alice+other@alpha.example")
		},
		"another's signature": func(s *signet.Signet, name string) (*signet.Signet, error) {
			return s.Renamed(bravo.org.pair.Signing, name)
		},
	} {
		alpha.org.rename = rename
		if s, err := alpha.keeper.Current(t.Context(), "alice+x@alpha.example"); err == nil {
			t.Errorf("%s: %s", name, s.Name())
		}
	}
}

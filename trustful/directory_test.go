package trustful_test

import (
	"bytes"
	"errors"
	"testing"

	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func TestDirectory(t *testing.T) {
	alpha, bravo := newSides(t)
	old := enrol(t, alpha, "alice@alpha.example")
	now := rotate(t, alpha, "alice@alpha.example", 1)
	oldOrg := alpha.org.party().Signet
	alpha.org.publish(t)
	org := alpha.org.party().Signet
	down := errors.New("inner server is down")
	alpha.mailbox["later@alpha.example"] = down
	enrol(t, bravo, "bob@bravo.example")
	tests := map[string]struct {
		name    string
		chain   []*signet.Signet // nil: ErrNoUser
		current error            // without a chain
	}{
		"user":                   {"alice@alpha.example", []*signet.Signet{old, now}, nil},
		"any case":               {"ALICE@Alpha.Example", []*signet.Signet{old, now}, nil},
		"domain":                 {"Alpha.example", []*signet.Signet{oldOrg, org}, nil},
		"another domain":         {"bravo.example", nil, trustful.ErrNoUser},
		"user of another domain": {"bob@bravo.example", nil, trustful.ErrNoUser},
		"unknown user":           {"nobody@alpha.example", nil, trustful.ErrNoUser},
		"inner server down":      {"later@alpha.example", nil, down},
		"no name":                {"a b@alpha.example", nil, trustful.ErrNoUser},
		"nothing":                {"", nil, trustful.ErrNoUser},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			chain, err := alpha.keeper.Chain(t.Context(), tt.name)
			if len(chain) != len(tt.chain) || (err == nil) != (tt.chain != nil) || err != nil && !errors.Is(err, trustful.ErrNoUser) {
				t.Fatalf("chain of %d, %v", len(chain), err)
			}
			current, err := alpha.keeper.Current(t.Context(), tt.name)
			if !errors.Is(err, tt.current) {
				t.Fatalf("current: %v", err)
			}
			for i, s := range chain {
				if !bytes.Equal(s.Bytes(), tt.chain[i].Bytes()) || s.Form() != signet.ID {
					t.Errorf("signet %d is another", i+1)
				}
			}
			if chain != nil && !bytes.Equal(current.Bytes(), chain[len(chain)-1].Bytes()) {
				t.Error("the current signet is not the last")
			}
		})
	}
	if len(alpha.store.users) != 1 {
		t.Errorf("questions made keys: %d users", len(alpha.store.users))
	}
}

// TestDiscovery: a look-up enrols whom the inner server confirms.
func TestDiscovery(t *testing.T) {
	alpha, _ := newSides(t)
	alpha.mailbox["new@alpha.example"], alpha.mailbox["second@alpha.example"] = nil, nil
	if _, err := alpha.keeper.Chain(t.Context(), "new@alpha.example"); !errors.Is(err, trustful.ErrNoUser) || len(alpha.store.users) != 0 {
		t.Errorf("HIST and VRFY: %v", err)
	}
	s, err := alpha.keeper.Current(t.Context(), "New@alpha.example")
	if err != nil || s.Name() != "new@alpha.example" {
		t.Fatalf("%v, %v", s, err)
	}
	o := alpha.keeper.Options
	o.Mailboxes = nil
	silent, err := trustful.NewKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Current(t.Context(), "second@alpha.example"); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("without a directory: %v", err)
	}
}

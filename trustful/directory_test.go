package trustful_test

import (
	"errors"
	"testing"

	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func fp(t testing.TB, s *signet.Signet, f signet.Form) signet.Fingerprint {
	t.Helper()
	fp, err := s.Fingerprint(f)
	if err != nil {
		t.Fatal(err)
	}
	return fp
}

func TestDirectorySignet(t *testing.T) {
	alpha, bravo := newSides(t)
	old := enrol(t, alpha, "alice@alpha.example")
	now := rotate(t, alpha, "alice@alpha.example", 1)
	oldOrg := alpha.org.party().Signet
	alpha.org.publish(t)
	org := alpha.org.party().Signet
	alpha.mailbox["new@alpha.example"] = nil
	down := errors.New("inner server is down")
	alpha.mailbox["later@alpha.example"] = down
	bob := enrol(t, bravo, "bob@bravo.example")
	tests := map[string]struct {
		name string
		fp   signet.Fingerprint
		want *signet.Signet // its ID fingerprint is compared
		form signet.Form
		err  error
	}{
		"current":                {"alice@alpha.example", signet.Fingerprint{}, now, signet.ID, nil},
		"any case":               {"ALICE@Alpha.Example", signet.Fingerprint{}, now, signet.ID, nil},
		"current by ID":          {"alice@alpha.example", fp(t, now, signet.ID), now, signet.ID, nil},
		"current by full":        {"alice@alpha.example", fp(t, now, signet.Full), now, signet.Full, nil},
		"current by crypto":      {"alice@alpha.example", fp(t, now, signet.Crypto), now, signet.Crypto, nil},
		"past by ID":             {"alice@alpha.example", fp(t, old, signet.ID), old, signet.ID, nil},
		"past by crypto":         {"alice@alpha.example", fp(t, old, signet.Crypto), old, signet.Crypto, nil},
		"someone else's":         {"alice@alpha.example", fp(t, bob, signet.ID), nil, 0, trustful.ErrNoUser},
		"domain":                 {"Alpha.example", signet.Fingerprint{}, org, signet.ID, nil},
		"domain by crypto":       {"alpha.example", fp(t, org, signet.Crypto), org, signet.Crypto, nil},
		"domain, past":           {"alpha.example", fp(t, oldOrg, signet.Full), oldOrg, signet.Full, nil},
		"another domain":         {"bravo.example", signet.Fingerprint{}, nil, 0, trustful.ErrNoUser},
		"user of another domain": {"bob@bravo.example", signet.Fingerprint{}, nil, 0, trustful.ErrNoUser},
		"unknown user":           {"nobody@alpha.example", signet.Fingerprint{}, nil, 0, trustful.ErrNoUser},
		"inner server down":      {"later@alpha.example", signet.Fingerprint{}, nil, 0, down},
		"no name":                {"a b@alpha.example", signet.Fingerprint{}, nil, 0, trustful.ErrNoUser},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := alpha.keeper.Signet(t.Context(), tt.name, tt.fp)
			if !errors.Is(err, tt.err) || (got == nil) != (tt.want == nil) {
				t.Fatalf("%v, %v; want %v", got, err, tt.err)
			}
			if got != nil && (got.Form() != tt.form || fp(t, got, tt.form) != fp(t, tt.want, tt.form)) {
				t.Errorf("another signet, in form %v", got.Form())
			}
		})
	}
	if len(alpha.store.users) != 1 {
		t.Errorf("questions made keys: %d users", len(alpha.store.users))
	}
}

// TestDiscovery: a look-up enrols whom the inner server confirms, and only without a fingerprint.
func TestDiscovery(t *testing.T) {
	alpha, bravo := newSides(t)
	alpha.mailbox["new@alpha.example"] = nil
	other := enrol(t, bravo, "bob@bravo.example")
	if _, err := alpha.keeper.Signet(t.Context(), "new@alpha.example", fp(t, other, signet.ID)); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("by a fingerprint: %v", err)
	}
	if _, _, err := alpha.keeper.Verify(t.Context(), "new@alpha.example", fp(t, other, signet.ID)); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("VRFY: %v", err)
	}
	if _, err := alpha.keeper.History(t.Context(), "new@alpha.example", signet.Fingerprint{}, signet.Fingerprint{}); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("HIST: %v", err)
	}
	if len(alpha.store.users) != 0 {
		t.Fatal("keys were made")
	}
	s, err := alpha.keeper.Signet(t.Context(), "New@alpha.example", signet.Fingerprint{})
	if err != nil || s.Name() != "new@alpha.example" {
		t.Fatalf("%v, %v", s, err)
	}
	o := alpha.keeper.Options
	o.Mailboxes = nil
	silent, err := trustful.NewKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	alpha.mailbox["second@alpha.example"] = nil
	if _, err := silent.Signet(t.Context(), "second@alpha.example", signet.Fingerprint{}); !errors.Is(err, trustful.ErrNoUser) {
		t.Errorf("without a directory: %v", err)
	}
}

func TestDirectoryVerify(t *testing.T) {
	alpha, _ := newSides(t)
	old := enrol(t, alpha, "alice@alpha.example")
	now := rotate(t, alpha, "alice@alpha.example", 1)
	for _, form := range []signet.Form{signet.Crypto, signet.Full, signet.ID} {
		for _, tt := range []struct {
			s       *signet.Signet
			current bool
		}{{old, false}, {now, true}} {
			current, id, err := alpha.keeper.Verify(t.Context(), "alice@alpha.example", fp(t, tt.s, form))
			if err != nil || current != tt.current || id != fp(t, now, signet.ID) {
				t.Errorf("%v, current %v: %v, %v", form, tt.current, current, err)
			}
		}
	}
	current, _, err := alpha.keeper.Verify(t.Context(), "alpha.example", fp(t, alpha.org.party().Signet, signet.Full))
	if err != nil || !current {
		t.Errorf("domain: %v, %v", current, err)
	}
}

func TestDirectoryHistory(t *testing.T) {
	alpha, _ := newSides(t)
	const address = "alice@alpha.example"
	all := []*signet.Signet{enrol(t, alpha, address)}
	for range trustful.HistoryLimit + 1 {
		all = append(all, rotate(t, alpha, address, 1))
	}
	zero := signet.Fingerprint{}
	tests := map[string]struct {
		from, to    signet.Fingerprint
		first, last int // of all; 0, -1: ErrNoUser
	}{
		"all, cut at the limit": {zero, zero, 0, trustful.HistoryLimit - 1},
		"from the last of them": {fp(t, all[trustful.HistoryLimit-1], signet.Full), zero, trustful.HistoryLimit - 1, len(all) - 1},
		"from the current":      {fp(t, all[len(all)-1], signet.ID), zero, len(all) - 1, len(all) - 1},
		"both ends":             {fp(t, all[3], signet.Crypto), fp(t, all[5], signet.Full), 3, 5},
		"one":                   {fp(t, all[3], signet.Crypto), fp(t, all[3], signet.ID), 3, 3},
		"to alone":              {zero, fp(t, all[1], signet.Full), 0, 1},
		"backwards":             {fp(t, all[5], signet.Full), fp(t, all[3], signet.Full), 0, -1},
		"unknown start":         {signet.Fingerprint{1}, zero, 0, -1},
		"unknown end":           {zero, signet.Fingerprint{1}, 0, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := alpha.keeper.History(t.Context(), address, tt.from, tt.to)
			if tt.last < 0 {
				if !errors.Is(err, trustful.ErrNoUser) {
					t.Errorf("%d, %v", len(got), err)
				}
				return
			}
			if err != nil || len(got) != tt.last-tt.first+1 {
				t.Fatalf("%d signets, %v", len(got), err)
			}
			for i, s := range got {
				if fp(t, s, signet.ID) != fp(t, all[tt.first+i], signet.ID) {
					t.Errorf("signet %d is another", i)
				}
			}
		})
	}
}

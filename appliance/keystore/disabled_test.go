package keystore_test

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// TestDisabled: an address that is disabled has no signet, sends nothing and opens nothing; enabled again it has its keys, as long as
// they are there, and else begins a new chain.
func TestDisabled(t *testing.T) {
	ctx, now, peers := t.Context(), made, map[string]*house{}
	bravo, peer := newHouse(t, "b.test", &now, peers), newHouse(t, "p.test", &now, peers)
	const bob = "bob@b.test"
	first, err := bravo.keeper.Enrol(ctx, bob)
	check(t, err)
	mail := peer.send(t, "alice@p.test", bravo, first)
	closed := func(when string) {
		t.Helper()
		_, e1 := bravo.keeper.Enrol(ctx, bob)
		_, e2 := bravo.keeper.Current(ctx, bob)
		_, e3 := bravo.keeper.Chain(ctx, bob)
		_, e4 := bravo.keeper.Open(ctx, mail)
		_, e5 := bravo.keeper.Rotate(ctx, bob)
		for i, err := range []error{e1, e2, e3, e4, e5} {
			if !errors.Is(err, trustful.ErrDisabled) || !errors.Is(err, trustful.ErrNoUser) {
				t.Errorf("%s, %d: %v", when, i+1, err)
			}
		}
	}
	check(t, bravo.vault.DisableUser(ctx, bob, false, "anna", "left", now))
	closed("disabled")
	if err := bravo.vault.DisableUser(ctx, bob, false, "anna", "left", now); !errors.Is(err, vault.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	now = made.Add(95 * day)
	if n, err := bravo.keeper.RotateDue(ctx); n != 0 || err != nil {
		t.Errorf("%d rotated, %v", n, err)
	}
	check(t, bravo.vault.EnableUser(ctx, bob, "anna", "is back", now))
	if _, err := bravo.keeper.Open(ctx, mail); err != nil {
		t.Errorf("enabled again: %v", err)
	}

	check(t, bravo.vault.DisableUser(ctx, bob, false, "anna", "left", now))
	now = now.Add(trustful.MinGrace + time.Hour)
	if n, err := bravo.keeper.Sweep(ctx); n != 1 || err != nil {
		t.Errorf("at the end of the grace: %d, %v", n, err)
	}
	if e, err := bravo.vault.Erasures(ctx); len(e) != 0 || err != nil {
		t.Errorf("what had its grace is in the ledger: %v, %v", e, err)
	}
	check(t, bravo.vault.EnableUser(ctx, bob, "anna", "is back", now))
	if _, err := bravo.keeper.Chain(ctx, bob); !errors.Is(err, trustful.ErrNoUser) || errors.Is(err, trustful.ErrDisabled) {
		t.Errorf("a chain that ended is shown: %v", err)
	}
	second, err := bravo.keeper.Enrol(ctx, bob)
	check(t, err)
	if _, custody := second.Custody(); custody || second.SigningKey() == first.SigningKey() {
		t.Error("new keys are vouched for by destroyed ones")
	}
	if _, err := bravo.keeper.Open(ctx, mail); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("mail to destroyed keys: %v", err)
	}

	check(t, bravo.vault.DisableUser(ctx, bob, true, "anna", "left in anger", now))
	closed("destroyed")
	if e, err := bravo.vault.Erasures(ctx); len(e) != 1 || err != nil {
		t.Errorf("the ledger: %v, %v", e, err)
	}
	checkLeavesOf(t, bravo.vault, map[vault.LeafType]int{vault.LeafUserDisabled: 3, vault.LeafUserEnabled: 2, vault.LeafKeyDestroyed: 2})
	c := keystore.KeyCheck{Vault: bravo.vault, Host: true, Signing: true, Grace: trustful.MinGrace, Now: now,
		Found: func(f keystore.Finding) error { t.Errorf("%+v", f); return nil }}
	if err := c.Run(ctx); err != nil || c.Users != 1 {
		t.Errorf("%+v, %v", c.Checked, err)
	}
}

// TestDisabledCautious: keys that a user has himself are nobody's to destroy; he has no signet while he is disabled.
func TestDisabledCautious(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "b.test", &now, map[string]*house{})
	const bob = "bob@b.test"
	pair, err := key.GeneratePair(rand.Reader)
	check(t, err)
	request, err := signet.NewRequest(pair, signet.RequestDetails{})
	check(t, err)
	own, err := h.keeper.Admit(ctx, bob, request)
	check(t, err)
	check(t, h.vault.DisableUser(ctx, bob, true, "anna", "left", now))
	if _, err := h.keeper.Current(ctx, bob); !errors.Is(err, trustful.ErrDisabled) {
		t.Errorf("disabled: %v", err)
	}
	now = now.Add(trustful.MinGrace + day)
	if n, err := h.keeper.Sweep(ctx); n != 0 || err != nil {
		t.Errorf("%d destroyed, %v", n, err)
	}
	check(t, h.vault.EnableUser(ctx, bob, "anna", "is back", now))
	if s, err := h.keeper.Current(ctx, bob); err != nil || s.SigningKey() != own.SigningKey() {
		t.Errorf("enabled: %v", err)
	}
	checkLeavesOf(t, h.vault, map[vault.LeafType]int{vault.LeafKeyDestroyed: 0, vault.LeafUserDisabled: 1, vault.LeafUserEnabled: 1})
}

// checkLeavesOf counts leaves by type.
func checkLeavesOf(t *testing.T, v *vault.Vault, want map[vault.LeafType]int) {
	t.Helper()
	leaves, err := v.LogLeaves(t.Context(), 0, 10_000)
	check(t, err)
	got := map[vault.LeafType]int{}
	for _, b := range leaves {
		l, err := vault.ParseLeaf(b)
		check(t, err)
		got[l.Type]++
	}
	for leaf, n := range want {
		if got[leaf] != n {
			t.Errorf("%d leaves %v, want %d", got[leaf], leaf, n)
		}
	}
}

// TestDisabledMeanwhile: who is disabled while keys are made for him, by the sweep or by himself, does not get them.
func TestDisabledMeanwhile(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "b.test", &now, map[string]*house{})
	const bob = "bob@b.test"
	s, err := h.keeper.Enrol(ctx, bob)
	check(t, err)
	check(t, h.vault.DisableUser(ctx, bob, true, "anna", "left", now))
	store := keystore.Keys{Vault: h.vault}
	for _, held := range []bool{false, true} { // he was looked at before that
		pair, err := key.GeneratePair(rand.Reader)
		check(t, err)
		g := trustful.Generation{Number: 2, Signet: s.Bytes(), Made: now, Held: held}
		if err := store.Append(ctx, bob, g, trustful.Keys{Pair: pair}); !errors.Is(err, trustful.ErrConflict) {
			t.Errorf("held %v: %v", held, err)
		}
	}
	if list, err := h.vault.UserKeys(ctx, bob); len(list) != 1 || err != nil {
		t.Errorf("%d generations, %v", len(list), err)
	}
}

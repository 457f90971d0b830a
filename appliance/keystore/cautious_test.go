package keystore_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// TestCautiousInVault: a user takes his keys to himself. The key that was ours signs nothing any more, opens mail for its grace, and
// is then destroyed with a leaf of that day; of his own keys nothing is here, and nothing is due.
func TestCautiousInVault(t *testing.T) {
	const alice = "alice@alpha.example"
	ctx, now := t.Context(), made
	h := newHouse(t, "alpha.example", &now, map[string]*house{})
	if _, err := h.keeper.Enrol(ctx, alice); err != nil {
		t.Fatal(err)
	}
	admit := func(p key.Pair, d signet.RequestDetails) {
		t.Helper()
		r, err := signet.NewRequest(p, d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.keeper.Admit(ctx, alice, r); err != nil {
			t.Fatal(err)
		}
	}
	pair := func() key.Pair {
		p, err := key.GeneratePair(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, next := pair(), pair()
	bare, err := signet.NewRequest(own, signet.RequestDetails{})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(day)
	custody, err := h.keeper.Vouch(ctx, alice, bare)
	if err != nil {
		t.Fatal(err)
	}
	admit(own, signet.RequestDetails{Custody: custody})
	if _, err := h.vault.UserSigning(ctx, alice, 1); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the signing key that was ours: %v", err)
	}
	if k, err := h.vault.UserEncryption(ctx, alice, 1); err != nil {
		t.Errorf("the encryption key that was ours: %v", err)
	} else {
		k.Destroy()
	}
	if k, err := h.vault.UserEncryption(ctx, alice, 2); err == nil {
		k.Destroy()
		t.Error("his own key is here")
	}
	now = now.Add(10 * day)
	admit(next, signet.RequestDetails{Previous: &own.Signing})
	now = now.Add(trustful.MinGrace + time.Second)
	if n, err := h.keeper.RotateDue(ctx); err != nil || n != 0 {
		t.Errorf("rotated %d, %v", n, err)
	}
	now = now.Add(60 * day)
	if n, err := h.keeper.RotateDue(ctx); err != nil || n != 0 {
		t.Errorf("rotated %d, %v", n, err)
	}
	swept := now
	if _, err := h.keeper.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	check := keystore.KeyCheck{Vault: h.vault, Host: true, Signing: true, Grace: trustful.MinGrace, Now: now,
		Found: func(f keystore.Finding) error { t.Errorf("keys check: %+v", f); return nil }}
	if err := check.Run(ctx); err != nil || check.Users != 1 {
		t.Errorf("%d users checked, %v", check.Users, err)
	}
	keys, err := h.vault.UserKeys(ctx, alice)
	if err != nil || len(keys) != 3 || keys[0].Held || !keys[1].Held || !keys[2].Held {
		t.Fatalf("%+v, %v", keys, err)
	}
	life := func(id vault.ID) (types []vault.LeafType, last time.Time) {
		octets, err := h.vault.LogLeaves(ctx, 0, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range octets {
			l, err := vault.ParseLeaf(b)
			if err != nil {
				t.Fatal(err)
			}
			if l.Subject == id {
				types, last = append(types, l.Type), l.Time
			}
		}
		return types, last
	}
	for i, want := range [][]vault.LeafType{
		{vault.LeafKeyMade, vault.LeafKeyVouched, vault.LeafKeyRetired, vault.LeafKeyDestroyed},
		{vault.LeafKeyAdmitted, vault.LeafKeyRetired},
		{vault.LeafKeyAdmitted},
	} {
		got, last := life(keys[i].ID)
		if !slices.Equal(got, want) {
			t.Errorf("the log of generation %d: %v, want %v", i+1, got, want)
		}
		if i == 0 && !last.Equal(swept.Truncate(time.Millisecond)) {
			t.Errorf("destroyed at %v by the log, at %v by the clock", last, swept)
		}
	}
}

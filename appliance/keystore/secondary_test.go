package keystore_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

// TestSecondaryRotation lets the clock run, a day a step, until a domain's secondary key was replaced twice, beside users who rotate on
// different days and some that come late. Every day, every signet of a user that lives verifies under every organisational signet
// that a peer may have cached, and each step has its leaf. It breaks when a step comes a day early.
func TestSecondaryRotation(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "x.test", &now, map[string]*house{})
	const life = 120 * day
	type published struct {
		at     time.Time
		signet *signet.Signet
	}
	all, err := h.org.Signets(ctx, "x.test")
	if err != nil {
		t.Fatal(err)
	}
	organisation := []published{{now, all[0]}}
	first := all[0].SecondaryKeys()[0].Key
	var steps []string
	for step := 0; step < 400; step++ {
		now = made.Add(time.Duration(step)*day + time.Minute)
		took, err := keystore.RotateSecondary(ctx, h.vault, "x.test", life, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range took {
			steps = append(steps, fmt.Sprintf("%d %s", step, s.What))
		}
		if step%45 == 8 || len(took) > 0 && took[0].What == keystore.SecondarySigns {
			if _, err := h.keeper.Enrol(ctx, fmt.Sprintf("u%d@x.test", step)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.keeper.RotateDue(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := h.keeper.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if all, err = h.org.Signets(ctx, "x.test"); err != nil {
			t.Fatal(err)
		}
		if len(all) > len(organisation) {
			organisation = append(organisation, published{now, all[len(all)-1]})
		}
		err = h.vault.LivingSignets(ctx, "x.test", func(octets []byte) (bool, error) {
			s, err := signet.Parse(octets)
			for i, o := range organisation {
				if i+1 < len(organisation) && now.Sub(organisation[i+1].at) > 30*day {
					continue // nobody has it any more
				}
				err = errors.Join(err, s.VerifyUser(o.signet))
			}
			return true, err
		})
		if err != nil {
			t.Fatalf("day %d, after %v: %v", step, steps, err)
		}
	}
	// Signed last on day 144, replaced 91 days after, opened for 36 more, and looked for on the day after that.
	want := []string{"120 successor", "151 signing", "240 successor", "271 signing", "273 destruction", "360 successor", "371 destruction", "391 signing"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	keys, err := h.vault.OrgKeys(ctx, "x.test")
	if err != nil {
		t.Fatal(err)
	}
	types := leavesOf(t, h.vault)
	for _, k := range keys {
		if k.Kind != vault.SecondaryKey {
			continue
		}
		want := []vault.LeafType{vault.LeafKeyMade}
		if !k.Retired.IsZero() {
			want = append(want, vault.LeafKeyRetired)
		}
		if !k.Destroyed.IsZero() {
			want = append(want, vault.LeafKeyDestroyed)
		}
		if !slices.Equal(types[k.ID], want) {
			t.Errorf("a secondary key, made %v: leaves %v, want %v", k.Made, types[k.ID], want)
		}
		listed := slices.Contains(all[len(all)-1].Signers(signet.SignSignets), key.SigningPublic(k.Public))
		if listed != k.Destroyed.IsZero() {
			t.Errorf("a secondary key, made %v: listed %t, destroyed %v", k.Made, listed, k.Destroyed)
		}
	}
	if keys := all[len(all)-1].SecondaryKeys(); len(keys) != 2 || bytes.Equal(keys[0].Key[:], first[:]) {
		t.Errorf("%d secondary keys in the signet", len(keys))
	}
}

// leavesOf is the types of each subject's leaves, in order.
func leavesOf(t *testing.T, v *vault.Vault) map[vault.ID][]vault.LeafType {
	t.Helper()
	octets, err := v.LogLeaves(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	types := map[vault.ID][]vault.LeafType{}
	for _, b := range octets {
		l, err := vault.ParseLeaf(b)
		if err != nil {
			t.Fatal(err)
		}
		types[l.Subject] = append(types[l.Subject], l.Type)
	}
	return types
}

// TestSecondaryKept: where users keep their keys nothing new begins, and what was begun ends.
func TestSecondaryKept(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "x.test", &now, map[string]*house{})
	rotate := func(life time.Duration) int {
		t.Helper()
		took, err := keystore.RotateSecondary(ctx, h.vault, "x.test", life, now)
		if err != nil {
			t.Fatal(err)
		}
		return len(took)
	}
	now = made.Add(900 * day)
	if n := rotate(0); n != 0 {
		t.Errorf("%d steps of a key that is kept", n)
	}
	if n := rotate(365 * day); n != 1 {
		t.Errorf("%d steps", n)
	}
	now = now.Add(keystore.CacheLife)
	if n := rotate(0); n != 1 {
		t.Errorf("%d steps: the successor does not sign", n)
	}
	now = now.Add(keystore.CacheLife)
	if n := rotate(0); n != 1 { // nobody has a signet
		t.Errorf("%d steps: the old one stays", n)
	}
}

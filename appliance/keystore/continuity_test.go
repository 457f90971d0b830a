package keystore_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/testescrow"
	"dimegate/internal/testvault"
	"dimegate/trustful"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// continuity is a house whose users' keys are escrowed, with the officers of both purposes.
type continuity struct {
	*house
	archive              *archive.Archive
	continuity, discover *testescrow.Officers
	now                  *time.Time
	folder               string
}

// keys are the escrowed keys of an address.
func (c *continuity) keys(t *testing.T, address string) []vault.EscrowedKey {
	t.Helper()
	list, err := c.vault.EscrowedKeys(t.Context(), []string{address}, vault.ID{}, 100)
	check(t, err)
	return list
}

// opens has officers open an address's keys, by a case of their own purpose, and returns the messages that these open.
func (c *continuity) opens(t *testing.T, o *testescrow.Officers, address string, mail []trustful.Incoming, officers ...uint16) (int, error) {
	t.Helper()
	ctx := t.Context()
	names, err := c.archive.CustodianNames(ctx, address)
	check(t, err)
	order := testescrow.VaultCase{Vault: c.vault, Custodians: names, Classes: []uint16{archive.KeyClass}, First: escrow.MonthOf(made), Last: escrow.MonthOf(*c.now), Now: *c.now}
	id := map[vault.Digest]vault.ID{}
	for _, k := range c.keys(t, address) {
		order.Entries = append(order.Entries, escrow.Entry{Leaf: uint64(k.Leaf), Wrap: k.Digest})
		id[k.Digest] = k.ID
	}
	order.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		w, err := archive.KeyWrap(ctx, c.vault, id[order.Entries[n].Wrap])
		if err != nil {
			return nil, nil, err
		}
		return []vault.Digest{w.Digest()}, w.Octets(), nil
	}
	opened := 0
	_, err = o.Open(ctx, order, func(x escrow.Opened) error {
		u, encryption, layer, err := c.vault.SealedUserKey(ctx, x.Label.Record)
		check(t, err)
		s, err := signet.Parse(u.Signet)
		check(t, err)
		k, layers, err := vault.OpenUserKey(x.Key, u.ID, encryption, layer, s.EncryptionKey())
		check(t, err)
		defer k.Destroy()
		if (layers != nil) != u.Layered {
			t.Errorf("keys of the layer: %d octets, %v", len(layers), u.Layered)
		}
		for _, in := range mail {
			if m, err := in.Message.Open(message.Recipient, k); err == nil {
				author, err := c.peers["p.test"].keeper.Current(ctx, "alice@p.test")
				check(t, err)
				check(t, m.Verify(message.Parties{Author: message.Party{Name: author.Name(), Signet: author}, Origin: in.Origin, Destination: c.party(t),
					Recipient: message.Party{Name: address, Signet: s}}))
				text, err := m.Content()
				check(t, err)
				if string(text.Display[0].Data) != "terms" {
					t.Errorf("it says %q", text.Display[0].Data)
				}
				opened++
			}
		}
		return nil
	}, officers...)
	return opened, err
}

func newContinuity(t *testing.T, now *time.Time, peers map[string]*house, retention time.Duration) *continuity {
	t.Helper()
	place := testvault.New(t)
	h := houseOn(t, place.Open(t, vault.Options{Now: func() time.Time { return *now }}), "b.test", now, peers)
	return continuityOf(t, h, place, now, retention)
}

// continuityOf has the keys escrowed that a house makes from now on.
func continuityOf(t *testing.T, h *house, place testvault.Vault, now *time.Time, retention time.Duration) *continuity {
	t.Helper()
	clock := func() time.Time { return *now }
	c := &continuity{house: h, now: now, folder: place.Dir}
	var err error
	c.archive, err = archive.Open(t.Context(), c.vault)
	check(t, err)
	c.keeper, err = trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: c.vault, Now: clock, Escrow: c.archive.KeepKeys(retention)}, Organization: c.org, Peers: c.house,
		Pins: c.keeper.Pins, Grace: trustful.MinGrace, Life: 90 * day, Layer: trustful.Layer{Offer: []message.SuiteID{message.SuiteX25519}}, Now: clock})
	check(t, err)
	return c
}

// checked has keys check look, which must say want of escrows; "": nothing of anything.
func (c *continuity) checked(t *testing.T, want string) {
	t.Helper()
	seen := false
	k := keystore.KeyCheck{Vault: c.vault, Host: true, Signing: true, Grace: 1000 * day, Now: *c.now, Found: func(f keystore.Finding) error {
		if seen = seen || strings.HasSuffix(f.Thing, ", escrow") && strings.Contains(f.Fault, want); want == "" {
			t.Errorf("keys check: %+v", f)
		}
		return nil
	}}
	check(t, k.Run(t.Context()))
	if !seen && want != "" {
		t.Errorf("keys check does not say %q", want)
	}
}

// damaged has keys check look at a database that somebody changed, and changes it back.
func (c *continuity) damaged(t *testing.T, query, want string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.folder, "vault.db"))
	check(t, err)
	defer db.Close()
	for _, q := range []string{"DROP TABLE IF EXISTS was_keys", "CREATE TABLE was_keys AS SELECT id, encryption FROM user_keys",
		"DROP TABLE IF EXISTS was_escrow", "CREATE TABLE was_escrow AS SELECT id, outer FROM user_escrow",
		"DROP TABLE IF EXISTS was_wraps", "CREATE TABLE was_wraps AS SELECT slot, used FROM wraps", query} {
		_, err := db.Exec(q)
		check(t, err)
	}
	c.checked(t, want)
	for _, q := range []string{"UPDATE user_keys SET encryption = (SELECT encryption FROM was_keys w WHERE w.id = user_keys.id)",
		"UPDATE user_escrow SET outer = (SELECT outer FROM was_escrow w WHERE w.id = user_escrow.id)",
		"UPDATE wraps SET used = (SELECT used FROM was_wraps w WHERE w.slot = wraps.slot)"} {
		_, err := db.Exec(q)
		check(t, err)
	}
}

// install brings both keys into force: two of four officers open single messages, three keys of users.
func (c *continuity) install(t *testing.T) {
	t.Helper()
	var err error
	c.discover, err = testescrow.NewOfficers(escrow.Discovery, c.domain, 2, 4, *c.now)
	check(t, err)
	c.continuity, err = testescrow.NewOfficers(escrow.Continuity, c.domain, 3, 4, *c.now)
	check(t, err)
	for _, o := range []*testescrow.Officers{c.discover, c.continuity} {
		check(t, c.archive.Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, *c.now))
	}
}

// TestContinuity: a quorum of the continuity key opens mail that is sealed to a user's signet, after the host has destroyed its own way to the key, of
// keys that were made before there was a continuity key and after; fewer, and the officers of the discovery key, do not. After the
// retention time nothing of it is left.
func TestContinuity(t *testing.T) {
	ctx, now, peers := t.Context(), made, map[string]*house{}
	const bob, retention = "bob@b.test", 400 * day
	c := newContinuity(t, &now, peers, retention)
	peer := newHouse(t, "p.test", &now, peers)
	first, err := c.keeper.Enrol(ctx, bob)
	check(t, err)
	if n, err := c.vault.EscrowUserKeys(ctx, c.archive.KeepKeys(retention), now); n != 0 || err != nil || len(c.keys(t, bob)) != 0 {
		t.Fatalf("without a continuity key %d keys are escrowed, %v", n, err)
	}
	c.install(t)
	for want := 1; want >= 0; want-- {
		if n, err := c.vault.EscrowUserKeys(ctx, c.archive.KeepKeys(retention), now); n != want || err != nil {
			t.Fatalf("%d keys of before, %v", n, err)
		}
	}
	mail := []trustful.Incoming{peer.send(t, "alice@p.test", c.house, first)}
	now = made.Add(10 * day)
	second, err := c.keeper.Rotate(ctx, bob)
	check(t, err)
	mail = append(mail, peer.send(t, "alice@p.test", c.house, second))
	if n := len(c.keys(t, bob)); n != 2 {
		t.Fatalf("%d escrowed keys", n)
	}
	now = now.Add(trustful.MinGrace + time.Hour)
	if n, err := c.keeper.Sweep(ctx); n != 1 || err != nil {
		t.Fatalf("%d destroyed, %v", n, err)
	}
	if _, err := c.vault.UserEncryption(ctx, bob, 1); !errors.Is(err, vault.ErrDestroyed) {
		t.Fatalf("the host opens a destroyed key: %v", err)
	}
	c.checked(t, "")
	for query, want := range map[string]string{
		`UPDATE user_escrow SET outer = randomblob(382) WHERE outer IS NOT NULL`:                           "it does not open",
		`UPDATE wraps SET used = 0 WHERE owner IN (SELECT shred FROM user_escrow WHERE outer IS NOT NULL)`: "its shred key is gone",
		`UPDATE user_keys SET encryption = NULL WHERE destroyed > 0`:                                       "the sealed key is gone",
		`UPDATE user_keys SET encryption = CAST(encryption || x'00' AS BLOB) WHERE destroyed > 0`:          "of another sealed key",
	} {
		c.damaged(t, query, want)
	}
	if n, err := c.opens(t, c.continuity, bob, mail, 1, 2, 4); n != 2 || err != nil {
		t.Errorf("a quorum opens %d messages, %v", n, err)
	}
	for name, o := range map[string]struct {
		who      *testescrow.Officers
		officers []uint16
	}{"two of the continuity key's": {c.continuity, []uint16{1, 3}}, "the discovery key's": {c.discover, []uint16{1, 2, 3, 4}}} {
		if n, err := c.opens(t, o.who, bob, mail, o.officers...); n != 0 || err == nil {
			t.Errorf("%s open %d messages, %v", name, n, err)
		}
	}
	// The holds of the cases above are ended; then what is kept is kept for its time, from the destruction on.
	holds, err := c.vault.Holds(ctx)
	check(t, err)
	gone := c.keys(t, bob)[0]
	end := gone.Destroyed.Add(retention)
	for _, step := range []struct {
		at        time.Time
		endHolds  bool
		destroyed int
	}{{end, false, 0}, {end.Add(-time.Second), true, 0}, {end, false, 1}, {end.Add(10 * retention), false, 0}} {
		now = step.at
		for _, h := range holds {
			if step.endHolds {
				check(t, c.vault.EndHold(ctx, h.ID, []byte("a test"), now))
			}
		}
		s, err := c.archive.Sweep(ctx, now, false)
		if check(t, err); s.UserKeys != step.destroyed {
			t.Errorf("at %v %d are destroyed: %+v", step.at, s.UserKeys, s)
		}
	}
	if _, _, _, err := c.vault.SealedUserKey(ctx, gone.ID); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("the sealed key: %v", err)
	}
	if _, err := archive.KeyWrap(ctx, c.vault, gone.ID); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("the wrap: %v", err)
	}
	if there, err := c.vault.HasWrap(ctx, gone.Shred, vault.WrapHost); there || err != nil {
		t.Errorf("the shred key is there: %v", err)
	}
	if n, err := c.opens(t, c.continuity, bob, mail, 1, 2, 3); n != 1 || err != nil {
		t.Errorf("the key in use opens %d messages, %v", n, err)
	}
}

// TestContinuityErased: where keys are kept until they are erased, an erasure destroys the escrow of its user's keys and of nobody else's, those
// in use too, and they are not escrowed anew; a hold keeps them until it ends; where a retention time runs, the request waits for it.
func TestContinuityErased(t *testing.T) {
	for name, retention := range map[string]time.Duration{"until erased": 0, "for a time": 100 * day} {
		t.Run(name, func(t *testing.T) {
			ctx, now := t.Context(), made
			c := newContinuity(t, &now, map[string]*house{}, retention)
			c.install(t)
			for _, a := range []string{"bob@b.test", "carol@b.test"} {
				_, err := c.keeper.Enrol(ctx, a)
				check(t, err)
			}
			hold := vault.LegalHold{ID: vault.NewID(now), Custodians: []string{"bob@b.test"}, Classes: []uint16{7}}
			check(t, c.vault.AddHold(ctx, hold, now))
			e, err := c.archive.Erase(ctx, "bob@b.test", "dpo", "asked", now)
			if check(t, err); e.Held != 1 || !e.Done.IsZero() || len(c.keys(t, "bob@b.test")) != 1 {
				t.Fatalf("with a hold: %+v", e)
			}
			check(t, c.vault.EndHold(ctx, hold.ID, []byte("over"), now))
			s, err := c.archive.Sweep(ctx, now, false)
			check(t, err)
			list, err := c.archive.Erasures(ctx, now)
			check(t, err)
			if retention > 0 {
				if s.UserKeys != 0 || len(list) != 1 || !list[0].Done.IsZero() || list[0].Running != 1 {
					t.Errorf("while its time runs: %+v, %+v", s, list)
				}
				return
			}
			if s.UserKeys != 1 || s.Erasures != 1 || list[0].Done.IsZero() || list[0].Keys != 1 || len(c.keys(t, "bob@b.test")) != 0 || len(c.keys(t, "carol@b.test")) != 1 {
				t.Errorf("erased: %+v, %+v", s, list)
			}
			if n, err := c.vault.EscrowUserKeys(ctx, c.archive.KeepKeys(retention), now); n != 0 || err != nil {
				t.Errorf("escrowed again: %d, %v", n, err)
			}
			if _, err := c.vault.UserEncryption(ctx, "bob@b.test", 1); err != nil {
				t.Errorf("the host's key in use: %v", err)
			}
			erased, err := c.vault.Erasures(ctx)
			if check(t, err); len(erased) != 1 {
				t.Errorf("the ledger has %d", len(erased))
			}
		})
	}
}

// TestEscrowFails: a key whose escrow fails is not made.
func TestEscrowFails(t *testing.T) {
	broken := errors.New("broken")
	v := newVault(t)
	now := made
	h := houseOn(t, v, "b.test", &now, map[string]*house{})
	fails := func(context.Context, vault.KeyRequest) (*vault.KeyEscrow, error) { return nil, broken }
	var err error
	h.keeper, err = trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v, Escrow: fails}, Organization: h.org, Peers: h, Pins: h.keeper.Pins,
		Grace: trustful.MinGrace, Now: func() time.Time { return now }})
	check(t, err)
	if _, err := h.keeper.Enrol(t.Context(), "bob@b.test"); !errors.Is(err, broken) {
		t.Errorf("enrolled: %v", err)
	}
	if list, err := v.UserKeys(t.Context(), "bob@b.test"); len(list) != 0 || err != nil {
		t.Errorf("it has %d keys, %v", len(list), err)
	}
}

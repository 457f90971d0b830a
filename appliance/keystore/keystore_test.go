package keystore_test

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/trustful"
	"dimegate/vault"
)

var made = time.Date(2026, 11, 17, 8, 0, 0, 0, time.UTC)

// newVault opens a new vault with both seals.
func newVault(t testing.TB) *vault.Vault {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vault")
	if err := vault.Create(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	o := vault.Options{Dir: dir, Owner: true}
	for role, root := range map[vault.Role]**vault.Root{vault.HostRole: &o.Host, vault.SigningRole: &o.Signing} {
		path := filepath.Join(t.TempDir(), "k")
		if err := vault.CreateKeyFile(path); err != nil {
			t.Fatal(err)
		}
		seal, err := vault.KeyFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if *root, err = vault.CreateSeal(t.Context(), filepath.Join(dir, role.String()+".seal"), role, made, seal); err != nil {
			t.Fatal(err)
		}
	}
	v, err := vault.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func TestKeys(t *testing.T) {
	ctx := t.Context()
	k := keystore.Keys{Vault: newVault(t), Now: func() time.Time { return made.AddDate(1, 0, 0) }}
	const alice = "alice@x.example"
	if g, err := k.Generations(ctx, alice); len(g) != 0 || err != nil {
		t.Errorf("%v, %v", g, err)
	}
	var pairs []key.Pair
	layers := [][]message.LayerKey{nil, nil}
	for i := range 2 {
		p, err := key.GeneratePair(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
		for _, id := range message.Suites()[:2*i] { // the first has none
			l, err := message.GenerateLayerKey(id)
			if err != nil {
				t.Fatal(err)
			}
			layers[i] = append(layers[i], l)
		}
		g := trustful.Generation{Number: i + 1, Signet: []byte("signet"), Made: made.AddDate(0, 0, 90*i)}
		if err := k.Append(ctx, alice, g, trustful.Keys{Pair: p, Layers: layers[i]}); err != nil {
			t.Fatal(err)
		}
		if err := k.Append(ctx, alice, g, trustful.Keys{Pair: p, Layers: layers[i]}); !errors.Is(err, trustful.ErrConflict) {
			t.Errorf("the same again: %v", err)
		}
	}
	if _, err := k.Signing(ctx, alice, 1); !errors.Is(err, trustful.ErrNoKeys) {
		t.Errorf("retired signing key: %v", err)
	}
	if s, err := k.Signing(ctx, alice, 2); err != nil || !s.Equal(pairs[1].Signing) {
		t.Errorf("signing key: %v", err)
	}
	for i, want := range layers {
		got, err := k.Layers(ctx, alice, i+1)
		offered, _ := message.Offer(want, false)
		if again, _ := message.Offer(got, false); err != nil || !reflect.DeepEqual(again, offered) {
			t.Errorf("layer keys of %d: %d, %v", i+1, len(got), err)
		}
	}
	if n, err := k.DestroyEncryption(ctx, made.AddDate(0, 0, 91)); n != 1 || err != nil {
		t.Errorf("destroyed %d, %v", n, err)
	}
	if _, err := k.Encryption(ctx, alice, 1); !errors.Is(err, trustful.ErrNoKeys) {
		t.Errorf("destroyed encryption key: %v", err)
	}
	if _, err := k.Layers(ctx, alice, 1); !errors.Is(err, trustful.ErrNoKeys) {
		t.Errorf("destroyed layer keys: %v", err)
	}
	if e, err := k.Encryption(ctx, alice, 2); err != nil || !e.Equal(pairs[1].Encryption) {
		t.Errorf("encryption key: %v", err)
	}
	g, err := k.Generations(ctx, alice)
	if err != nil || len(g) != 2 || g[0].Current() || !g[1].Current() || !g[0].Destroyed.Equal(made.AddDate(1, 0, 0)) {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestPins(t *testing.T) {
	ctx := t.Context()
	p := keystore.Pins{Vault: newVault(t)}
	const bob = "bob@peer.example"
	pin := trustful.Pin{Signet: []byte("signet"), How: trustful.Custody, Accepted: made, Checked: made}
	pin.Crypto[0], pin.Full[0], pin.ID[63] = 1, 2, 3
	doubt := trustful.Doubt{Since: made}
	doubt.Crypto[5] = 4
	if d, err := p.SetDoubt(ctx, bob, doubt); err != nil || d != doubt {
		t.Errorf("%v, %v", d, err)
	}
	again := doubt
	again.Since = made.Add(time.Hour)
	if d, err := p.SetDoubt(ctx, bob, again); err != nil || d != doubt {
		t.Errorf("the same doubt later: %v, %v", d, err)
	}
	if _, d, err := p.Pins(ctx, bob); err != nil || d == nil || *d != doubt {
		t.Errorf("%v, %v", d, err)
	}
	if err := p.AddPins(ctx, bob, 0, []trustful.Pin{pin}); err != nil {
		t.Fatal(err)
	}
	if err := p.AddPins(ctx, bob, 0, []trustful.Pin{pin}); !errors.Is(err, trustful.ErrConflict) {
		t.Errorf("on an old count: %v", err)
	}
	pin.Checked = made.Add(time.Hour)
	if err := p.Checked(ctx, bob, pin.Checked); err != nil {
		t.Fatal(err)
	}
	got, d, err := p.Pins(ctx, bob)
	if err != nil || d != nil || len(got) != 1 || !reflect.DeepEqual(got[0], pin) {
		t.Errorf("%+v, %v, %v", got, d, err)
	}
}

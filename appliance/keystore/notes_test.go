package keystore_test

import (
	"slices"
	"testing"

	"dimegate/appliance/keystore"
	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/internal/testvault"
	"dimegate/vault"
)

var (
	_ mtasts.Store = keystore.Policies{}
	_ tlsrpt.Store = keystore.TLSResults{}
)

// What the ladder keeps is there after a restart, sealed, and a note of one kind is none of another.
func TestNotes(t *testing.T) {
	ctx, disk := t.Context(), testvault.New(t)
	v := disk.Open(t, vault.Options{})
	p, r := keystore.Policies{Vault: v}, keystore.TLSResults{Vault: v}
	if b, err := p.Policy(ctx, "a.test"); b != nil || err != nil {
		t.Errorf("nothing is %q, %v", b, err)
	}
	for _, err := range []error{p.SetPolicy(ctx, "a.test", []byte("one")), p.SetPolicy(ctx, "a.test", []byte("two")), r.SetTLSResults(ctx, "2026-01-02", "a.test", []byte("three")), p.DropPolicy(ctx, "b.test"), v.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	v = disk.Open(t, vault.Options{})
	p, r = keystore.Policies{Vault: v}, keystore.TLSResults{Vault: v}
	b, err := p.Policy(ctx, "a.test")
	names, nerr := p.Policies(ctx)
	if string(b) != "two" || err != nil || !slices.Equal(names, []string{"a.test"}) || nerr != nil {
		t.Errorf("%q %v, %q %v", b, err, names, nerr)
	}
	b, err = r.TLSResults(ctx, "2026-01-02", "a.test")
	days, derr := r.TLSResultDays(ctx)
	if string(b) != "three" || err != nil || !slices.Equal(days, []tlsrpt.Day{{Day: "2026-01-02", Domain: "a.test"}}) || derr != nil {
		t.Errorf("%q %v, %q %v", b, err, days, derr)
	}
	for _, err := range []error{p.DropPolicy(ctx, "a.test"), r.DropTLSResults(ctx, "2026-01-02", "a.test")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err := p.Policy(ctx, "a.test"); b != nil || err != nil {
		t.Errorf("dropped, and %q %v", b, err)
	}
}

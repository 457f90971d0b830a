package keystore_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/resolver"
	"dimegate/internal/testvault"
	"dimegate/vault"
)

func somePin(t *testing.T, domain string) *resolver.Pin {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := p.Signing.Public()
	return &resolver.Pin{Domain: domain, POKs: []resolver.POKPin{{Key: k, Text: base64.RawStdEncoding.EncodeToString(k[:]), Trusted: true, How: "first use", First: made, Last: made}},
		Orgs: []resolver.OrgPin{{ID: "id", Crypto: "crypto", At: made, How: "first use"}}, Policy: "mixed", Best: resolver.Secure, First: made, Last: made,
		Until: made.AddDate(0, 1, 0), Overrides: []*resolver.Override{{What: resolver.OverrideUnsigned, Until: made, By: "admin", Why: "told by telephone"}}}
}

func TestDomainPins(t *testing.T) {
	ctx := t.Context()
	files := testvault.New(t)
	v := files.Open(t, vault.Options{})
	pins := keystore.DomainPins{Vault: v}
	if p, err := pins.Pin(ctx, "alpha.test"); p != nil || err != nil {
		t.Fatalf("%v, %v", p, err)
	}
	for _, domain := range []string{"bravo.test", "alpha.test"} {
		if err := pins.SetPin(ctx, somePin(t, domain)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := pins.Pin(ctx, "alpha.test")
	if err != nil || first.Version != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	second, _ := pins.Pin(ctx, "alpha.test")
	first.Policy = "strict"
	if err := pins.SetPin(ctx, first); err != nil || first.Version != 2 {
		t.Errorf("version %d, %v", first.Version, err)
	}
	if err := pins.SetPin(ctx, second); !errors.Is(err, resolver.ErrConflict) {
		t.Errorf("the older one was written: %v", err)
	}
	if err := pins.SetPin(ctx, somePin(t, "alpha.test")); !errors.Is(err, resolver.ErrConflict) {
		t.Errorf("a new one over an old one: %v", err)
	}
	if err := pins.SetPin(ctx, &resolver.Pin{Domain: "empty.test"}); err == nil {
		t.Error("an empty pin was written")
	}
	v.Close() // the gateway restarts
	v = files.Open(t, vault.Options{})
	pins.Vault = v
	if got, err := pins.Pin(ctx, "alpha.test"); err != nil || !reflect.DeepEqual(got, first) {
		t.Errorf("%+v, %v; want %+v", got, err, first)
	}
	if all, err := pins.Pins(ctx); err != nil || len(all) != 2 || all[0].Domain != "alpha.test" {
		t.Errorf("%v, %v", all, err)
	}
	// What is damaged, or another's, is an error and never "none".
	if err := v.SetNote(ctx, "domain pin", "alpha.test", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if p, err := pins.Pin(ctx, "alpha.test"); p != nil || err == nil || !strings.Contains(err.Error(), "alpha.test") {
		t.Errorf("damaged: %v, %v", p, err)
	}
	if err := pins.SetPin(ctx, somePin(t, "alpha.test")); err == nil {
		t.Error("written over a damaged one")
	}
	b, err := v.Note(ctx, "domain pin", "bravo.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.SetNote(ctx, "domain pin", "alpha.test", b); err != nil {
		t.Fatal(err)
	}
	if p, err := pins.Pin(ctx, "alpha.test"); p != nil || err == nil {
		t.Errorf("another's: %v, %v", p, err)
	}
	before, err := v.LogSize(ctx)
	if err != nil {
		t.Fatal(err)
	}
	forget := keystore.Decision{Domain: "alpha.test", What: keystore.Forget, By: "admin", Why: "damaged"}
	for range 2 {
		if err := pins.Decide(ctx, forget, made, func(*resolver.Pin) (bool, error) { return false, nil }); err != nil {
			t.Error(err)
		}
	}
	permit := keystore.Decision{Domain: "new.test", What: resolver.OverrideSMTP, Until: made, By: "admin", Why: "w"}
	if err := pins.Decide(ctx, permit, made, func(p *resolver.Pin) (bool, error) {
		p.Overrides = append(p.Overrides, &resolver.Override{What: permit.What, Until: permit.Until})
		return true, nil
	}); err != nil {
		t.Error(err)
	}
	if p, err := pins.Pin(ctx, "new.test"); err != nil || len(p.Overrides) != 1 || p.Version != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if err := pins.Decide(ctx, permit, made, func(*resolver.Pin) (bool, error) { return true, errors.New("no") }); err == nil {
		t.Error("a refused decision is no error")
	}
	if after, err := v.LogSize(ctx); err != nil || after != before+3 {
		t.Errorf("%d leaves for three decisions, %v", after-before, err)
	}
	if p, err := pins.Pin(ctx, "alpha.test"); p != nil || err != nil {
		t.Errorf("forgotten: %v, %v", p, err)
	}
}

package keystore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

func TestCreateOrganization(t *testing.T) {
	v, ctx := newVault(t), t.Context()
	s, err := keystore.CreateOrganization(ctx, v, "x.example", "X", made)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "x.example" || s.Form() != signet.ID || len(s.Signers(signet.SignSignets)) != 2 || len(s.Signers(signet.SignMessages)) != 1 {
		t.Errorf("made %q, form %v", s.Name(), s.Form())
	}
	if _, err := keystore.CreateOrganization(ctx, v, "x.example", "X", made); !errors.Is(err, vault.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	o := keystore.Organization{Vault: v}
	if all, err := o.Signets(ctx, "x.example"); err != nil || len(all) != 1 || string(all[0].Bytes()) != string(s.Bytes()) {
		t.Errorf("%d signets, %v", len(all), err)
	}
	if _, err := o.Signets(ctx, "y.example"); !errors.Is(err, trustful.ErrNotOurs) {
		t.Errorf("another domain: %v", err)
	}
	primary, err := v.OrgSigning(ctx, "x.example", vault.PrimaryKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyOrg([]key.SigningPublic{primary.Public()}); err != nil {
		t.Error(err)
	}
}

func newKeeper(v *vault.Vault) (*trustful.Keeper, error) {
	return trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v}, Organization: keystore.Organization{Vault: v}, Grace: trustful.MinGrace})
}

// TestThousandFirstMails: a thousand mailboxes at once, each seen by several sessions, get a thousand keys.
func TestThousandFirstMails(t *testing.T) {
	v, ctx := newVault(t), t.Context()
	org, err := keystore.CreateOrganization(ctx, v, "x.example", "", made)
	if err != nil {
		t.Fatal(err)
	}
	const users, sessions = 1000, 2
	k, err := newKeeper(v)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, 200)
	began := time.Now()
	for i := range users * sessions {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			address := fmt.Sprintf("u%d@x.example", i/sessions)
			s, err := k.Enrol(ctx, address)
			if err != nil {
				t.Error(err)
				return
			}
			if s.Name() != address {
				t.Errorf("%s got the signet of %s", address, s.Name())
			}
		})
	}
	wg.Wait()
	t.Logf("%d first mails in %v", users, time.Since(began).Round(time.Millisecond))
	all, err := v.Users(ctx, "", 2*users)
	if err != nil || len(all) != users {
		t.Fatalf("%d users: %v", len(all), err)
	}
	seen := map[key.SigningPublic]bool{}
	for _, u := range all {
		s, err := signet.Parse(u.Signet)
		if err != nil || s.VerifyUser(org) != nil || s.VerifyName(u.Address) != nil || u.Number != 1 {
			t.Fatalf("%s: number %d, %v", u.Address, u.Number, err)
		}
		secret, err := v.UserSigning(ctx, u.Address, 1)
		if err != nil || secret.Public() != s.SigningKey() || seen[s.SigningKey()] {
			t.Fatalf("%s: the key is not the signet's own: %v", u.Address, err)
		}
		seen[s.SigningKey()] = true
	}
}

// TestRotationInVault: custody, destruction at once of the old signing key, and of the encryption key at the end of grace.
func TestRotationInVault(t *testing.T) {
	v, ctx := newVault(t), t.Context()
	if _, err := keystore.CreateOrganization(ctx, v, "x.example", "", made); err != nil {
		t.Fatal(err)
	}
	now := made
	clock := func() time.Time { return now }
	k, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v, Now: clock}, Organization: keystore.Organization{Vault: v},
		Grace: trustful.MinGrace, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Enrol(ctx, "a@x.example"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		now = now.AddDate(0, 0, 90)
		if _, err := k.Rotate(ctx, "a@x.example"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	chain, err := k.Chain(ctx, "a@x.example")
	if err != nil || len(chain) != 4 {
		t.Fatalf("%d signets, %v", len(chain), err)
	}
	orgs, err := keystore.Organization{Vault: v}.Signets(ctx, "x.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := signet.VerifyChain(chain, orgs...); err != nil {
		t.Error(err)
	}
	for n := 1; n <= 4; n++ {
		_, serr := v.UserSigning(ctx, "a@x.example", n)
		_, eerr := v.UserEncryption(ctx, "a@x.example", n)
		if (serr == nil) != (n == 4) || (eerr == nil) != (n >= 3) { // the third was retired just now
			t.Errorf("generation %d: signing key %v, encryption key %v", n, serr, eerr)
		}
	}
}

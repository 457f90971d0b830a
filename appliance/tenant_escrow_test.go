package appliance

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

const archivedText = "archived text"

// archived gives a vault an escrow key of three officers of its own, and a message that is kept under it.
func archived(t *testing.T, c *config.Config) *testescrow.Officers {
	t.Helper()
	ctx, now, domain := t.Context(), time.Now(), c.Organizations[0].Domains[0]
	v, err := keystore.Open(ctx, c.Vault, true)
	check(t, err)
	defer func() { check(t, v.Close()) }()
	a, err := archive.Open(ctx, v.Vault)
	check(t, err)
	o, err := testescrow.NewOfficers(escrow.Discovery, domain, 2, 3, now)
	check(t, err)
	check(t, a.Install(ctx, o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, now))
	keep, err := a.Keeping(ctx, archive.Message{Author: "ann@" + domain, Recipients: []string{"x@else.example"}, Custodians: []string{"ann@" + domain}, Class: 1, Retention: time.Hour})
	check(t, err)
	d, err := v.NewDraft()
	check(t, err)
	d.Keep(keep)
	_, err = io.WriteString(d, archivedText)
	check(t, err)
	_, err = v.Accept(ctx, d, []byte("envelope"), []vault.NewRow{{Domain: "else.example", Lane: "else.example", Due: now, Detail: []byte("{}"), Recipient: []byte("r"), State: 1}}, now)
	check(t, err)
	return o
}

// escrows: thief's officers open nothing that was kept for owner's, neither under their own key nor in the place of owner's officers;
// their statements do not bring owner's key into force, and their key is none in owner's vault.
func escrows(t *testing.T, thief, owner *config.Config, theirs, own *testescrow.Officers) {
	ctx := t.Context()
	impostors := *theirs // thief's people and shares, under owner's key
	impostors.Key, impostors.Epoch, impostors.Attestations = own.Key, own.Epoch, own.Attestations
	for name, tt := range map[string]struct {
		by    *testescrow.Officers
		opens bool
	}{"control": {own, true}, "thief's officers": {theirs, false}, "thief's officers for owner's": {&impostors, false}} {
		got, err := openArchived(t, owner, tt.by)
		if (err == nil && len(got) == 1 && got[0] == archivedText) != tt.opens || !tt.opens && len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}

	if err := escrow.Attested(own.Epoch, own.Attestations); err != nil {
		t.Errorf("control: %v", err)
	}
	mixed := append([]*escrow.Statement{theirs.Attestations[0]}, own.Attestations[1:]...)
	for name, statements := range map[string][]*escrow.Statement{"all": theirs.Attestations, "one": mixed} {
		if escrow.Attested(own.Epoch, statements) == nil {
			t.Errorf("%s of the other's officers attest", name)
		}
		if _, err := escrow.NewSealer(own.Key, []*escrow.Epoch{own.Epoch}, statements); err == nil {
			t.Errorf("sealed with %s of the other's statements", name)
		}
	}
	if _, err := escrow.NewSealer(own.Key, []*escrow.Epoch{theirs.Epoch}, theirs.Attestations); err == nil {
		t.Error("sealed to an epoch of the other's key")
	}

	planted := owner.Vault
	planted.Folder = copyVault(t, owner.Vault.Folder)
	if err := openEscrow(ctx, planted); err != nil {
		t.Errorf("control: %v", err)
	}
	db, err := sql.Open("sqlite", filepath.Join(planted.Folder, "vault.db"))
	check(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1) // ATTACH is a connection's
	_, err = db.Exec(`ATTACH ? AS other`, filepath.Join(thief.Vault.Folder, "vault.db"))
	check(t, err)
	for _, table := range []string{"escrow_keys", "escrow_epochs"} {
		_, err = db.Exec(`INSERT INTO main.` + table + ` SELECT * FROM other.` + table)
		check(t, err)
	}
	check(t, db.Close())
	if err := openEscrow(ctx, planted); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("with rows of the other's key: %v", err)
	}
}

func openEscrow(ctx context.Context, c config.Vault) error {
	v, err := keystore.Open(ctx, c, false)
	if err != nil {
		return err
	}
	defer v.Close()
	_, err = archive.Open(ctx, v.Vault)
	return err
}

// openArchived takes a case about what owner's archive keeps through some officers' hands.
func openArchived(t *testing.T, owner *config.Config, o *testescrow.Officers) (got []string, err error) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	v, err := keystore.Open(ctx, owner.Vault, false)
	check(t, err)
	defer v.Close()
	a, err := archive.Open(ctx, v.Vault)
	check(t, err)
	custodian := "ann@" + owner.Organizations[0].Domains[0]
	names, err := a.CustodianNames(ctx, custodian)
	check(t, err)
	c := testescrow.VaultCase{Vault: v.Vault, Custodians: names, Classes: []uint16{1}, First: escrow.MonthOf(now) - 1, Last: escrow.MonthOf(now), Now: now}
	records := map[vault.Digest]vault.ID{}
	check(t, a.Search(ctx, archive.Query{Custodians: []string{custodian}}, func(h archive.Hit) error {
		c.Entries = append(c.Entries, escrow.Entry{Leaf: uint64(h.Leaf), Wrap: h.Wraps[0].Digest})
		records[h.Wraps[0].Digest] = h.Record
		return nil
	}))
	if len(c.Entries) != 1 {
		t.Fatalf("%d records are kept", len(c.Entries))
	}
	c.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		d := c.Entries[n].Wrap
		det1, all, err := a.Wrap(ctx, records[d], d)
		return all, det1, err
	}
	_, err = o.Open(ctx, c, func(x escrow.Opened) error {
		body, _, err := v.SealedBody(ctx, x.Label.Record)
		if err != nil {
			return err
		}
		defer body.Close()
		r, err := vault.NewStreamReader(body, x.Key, vault.PartBody, nil)
		if err != nil {
			return err
		}
		octets, err := io.ReadAll(r)
		got = append(got, string(octets))
		return err
	}, 1, 2)
	return got, err
}

// copyVault copies a vault's folder, with the modes that one has.
func copyVault(t *testing.T, folder string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	check(t, os.CopyFS(to, os.DirFS(folder)))
	check(t, filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(path, map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()]))
	}))
	return to
}

// Package testvault makes vaults for tests.
package testvault

import (
	"path/filepath"
	"testing"
	"time"

	"dimegate/vault"
)

// A Vault is a vault in a folder of its own, with key files for both seals beside it.
type Vault struct {
	Dir  string // the vault's folder
	Keys string // the key files' folder
}

// New makes an empty vault.
func New(t testing.TB) Vault {
	t.Helper()
	v := Vault{Dir: filepath.Join(t.TempDir(), "vault"), Keys: t.TempDir()}
	ok(t, vault.Create(t.Context(), v.Dir))
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		ok(t, vault.CreateKeyFile(v.key(role)))
		seal, err := vault.KeyFile(v.key(role))
		ok(t, err)
		root, err := vault.CreateSeal(t.Context(), v.header(role), role, time.Unix(1_800_000_000, 0), seal)
		ok(t, err)
		root.Destroy()
	}
	return v
}

func (v Vault) key(r vault.Role) string    { return filepath.Join(v.Keys, r.String()+".key") }
func (v Vault) header(r vault.Role) string { return filepath.Join(v.Dir, r.String()+".seal") }

// Open opens it as its owner, with what else o says. The test closes it, or its end does.
func (v Vault) Open(t testing.TB, o vault.Options) *vault.Vault {
	t.Helper()
	o.Dir, o.Owner = v.Dir, true
	for role, root := range map[vault.Role]**vault.Root{vault.HostRole: &o.Host, vault.SigningRole: &o.Signing} {
		seal, err := vault.KeyFile(v.key(role))
		ok(t, err)
		*root, err = vault.OpenSeal(t.Context(), v.header(role), role, seal)
		ok(t, err)
	}
	opened, err := vault.Open(t.Context(), o)
	ok(t, err)
	t.Cleanup(func() { opened.Close() })
	return opened
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

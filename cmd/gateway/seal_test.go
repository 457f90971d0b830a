package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"dimegate/vault"
)

// TestSealBreakGlass loses the host seal's only key file: two of three holders open it, and a new one takes its place,
// also after a re-wrap that none of them took part in.
func TestSealBreakGlass(t *testing.T) {
	path := initKeys(t)
	dir := t.TempDir()
	seal := func(code int, args ...string) string {
		t.Helper()
		got, out, errs := cli(t, append([]string{"seal", args[0], "--config", path}, args[1:]...)...)
		if got != code {
			t.Fatalf("seal %q: exit %d, want %d: %s%s", args, got, code, out, errs)
		}
		return out + errs
	}
	var ids []*age.X25519Identity
	add := []string{"add", "--quorum", "2", "--out", dir}
	for _, name := range []string{"ann", "ben", "cy"} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		add = append(add, "--holder", name+"="+id.Recipient().String())
	}
	seal(2, append(add, "--holder", "ann=rubbish")...)
	seal(3, append(add, "--role", "signing")...)
	seal(0, add...)
	if out := seal(0, "status"); !strings.Contains(out, "shares") || !strings.Contains(out, "people keep it") {
		t.Errorf("status:\n%s", out)
	}
	seal(0, "rewrap", "host")
	seal(0, "rewrap", "signing")
	if code, _, errs := cli(t, "audit", "verify", "--config", path); code != 0 {
		t.Errorf("the log after a re-wrap: exit %d: %s", code, errs)
	}

	keys, err := filepath.Glob(filepath.Join(filepath.Dir(path), "data", "seals", "host.key"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("key files %q, %v", keys, err)
	}
	if err := os.Remove(keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := vault.CreateKeyFile(keys[0]); err != nil {
		t.Fatal(err)
	}
	seal(1, "test")
	seal(2, "add")
	var shares []string
	for i, name := range []string{"ann", "ben", "cy"} {
		shares = append(shares, decryptShare(t, ids[i], filepath.Join(dir, "host-seal-share-"+name+".age")))
	}
	seal(2, "add", "--role", "host", "--share", shares[1])
	seal(0, "add", "--role", "host", "--share", shares[2], "--share", shares[0])
	if out := seal(1, "test"); strings.Count(out, " opens") < 2 {
		t.Errorf("the new key file and the signing seal should open, the lost one not:\n%s", out)
	}
	if code, _, errs := cli(t, "audit", "verify", "--config", path); code != 0 {
		t.Errorf("by the new key file: exit %d: %s", code, errs)
	}
}

// decryptShare does what a holder does with age -d.
func decryptShare(t *testing.T, id age.Identity, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := age.Decrypt(armor.NewReader(f), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	out := file + ".txt"
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

package main

import (
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
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

// TestSealRewrapsAll looks at every column of the database: no wrap of the old root key is left, and everything opens.
func TestSealRewrapsAll(t *testing.T) {
	path, ids := initQueue(t, "alice@a.example", "bob@b.example")
	old := wrapsByRoot(t, path)
	if old["host"] == nil || old["signing"] == nil || len(old["host"]) != 1 {
		t.Fatalf("wraps before: %v", old)
	}
	cutShort(t, path)
	for _, role := range []string{"host", "signing"} {
		if code, _, errs := cli(t, "seal", "rewrap", "--config", path, role); code != 0 {
			t.Fatalf("%s: exit %d: %s", role, code, errs)
		}
	}
	now := wrapsByRoot(t, path)
	if c, err := config.Load(path); err != nil {
		t.Fatal(err)
	} else if h, err := vault.ReadSealHeader(keystore.SealHeader(c.Vault.Folder, vault.HostRole)); err != nil || len(h.Roots) != 1 {
		t.Errorf("the header keeps old root keys: %v", err)
	}
	for _, role := range []string{"host", "signing"} {
		for root, n := range old[role] {
			if len(now[role]) != 1 || now[role][root] != 0 {
				t.Errorf("%s: %d wraps under %x before, now %v", role, n, root, now[role])
			}
			for _, m := range now[role] {
				if m < n {
					t.Errorf("%s: %d wraps, were %d", role, m, n)
				}
			}
		}
	}
	if code, out, errs := cli(t, "queue", "list", "--config", path); code != 0 || !strings.Contains(out, ids[0]) {
		t.Errorf("queue: exit %d: %s%s", code, out, errs)
	}
	if code, out, _ := cli(t, "keys", "tls", "--config", path); code != 0 || out == "" {
		t.Errorf("the primary key does not sign: exit %d", code)
	}
}

// cutShort leaves the host seal as a re-wrap does that ended after its first step.
func cutShort(t *testing.T, path string) {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := keystore.OpenRole(t.Context(), c.Vault, vault.HostRole)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Destroy()
	list := keystore.Seals(c.Vault, vault.HostRole)
	if err := vault.NewRoot(t.Context(), keystore.SealHeader(c.Vault.Folder, vault.HostRole), root, time.Now(), nil, list[0].Seal); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := cli(t, "queue", "list", "--config", path); code != 0 || out == "" {
		t.Fatalf("between two root keys: exit %d: %s", code, errs)
	}
}

// wrapsByRoot counts what looks like a wrap, by role and root id, in every column of every table.
func wrapsByRoot(t *testing.T, path string) map[string]map[string]int {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(c.Vault.Folder, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	columns, err := db.Query(`SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	defer columns.Close()
	found := map[string]map[string]int{}
	for columns.Next() {
		var table, column string
		if err := columns.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		rows, err := db.Query(`SELECT "` + column + `" FROM "` + table + `" WHERE typeof("` + column + `") = 'blob' AND length("` + column + `") = ` + strconv.Itoa(vault.WrapSize))
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				t.Fatal(err)
			}
			if string(b[:4]) != "DWB1" {
				continue
			}
			role := vault.Role(b[4]).String()
			if found[role] == nil {
				found[role] = map[string]int{}
			}
			found[role][string(b[5:13])]++
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestSealsAtOnce: a command that changes seals while another does refuses, and after a change log and header agree.
func TestSealsAtOnce(t *testing.T) {
	path := initKeys(t)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	release, err := vault.LockSeals(c.Vault.Folder)
	if err != nil {
		t.Fatal(err)
	}
	header := keystore.SealHeader(c.Vault.Folder, vault.HostRole)
	before, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "--config", path, "--passphrase", "ann"}, {"remove", "--config", path, "host", "passphrase", "ann"}, {"rewrap", "--config", path, "host"}} {
		if code, _, errs := cli(t, append([]string{"seal"}, args...)...); code != 1 || !strings.Contains(errs, "another command changes the seals") {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
	if b, err := os.ReadFile(header); err != nil || string(b) != string(before) {
		t.Errorf("the header was changed: %v", err)
	}
	release()
	for range 2 {
		if code, _, errs := cli(t, "seal", "rewrap", "--config", path, "host"); code != 0 {
			t.Fatal(errs)
		}
		if code, out, errs := cli(t, "keys", "check", "--config", path); code != 0 {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	}
}

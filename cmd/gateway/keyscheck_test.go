package main

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
)

// A damaged is an installation that something is done to.
type damaged struct {
	*testing.T
	path string
	c    *config.Config
}

func (d damaged) sql(query string, args ...any) {
	d.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.c.Vault.Folder, "vault.db"))
	if err != nil {
		d.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		d.Fatal(err)
	}
}

func (d damaged) ok(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// state is all that rests: every row, and every other file.
func (d damaged) state() string {
	d.Helper()
	h := sha256.New()
	d.ok(filepath.Walk(filepath.Dir(d.path), func(path string, st os.FileInfo, err error) error {
		if err != nil || st.IsDir() || strings.HasPrefix(filepath.Base(path), "vault.db") || filepath.Base(path) == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %x\n", path, sha256.Sum256(b))
		return err
	}))
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.c.Vault.Folder, "vault.db"))
	d.ok(err)
	defer db.Close()
	for _, table := range []string{"user_keys", "org_keys", "org_signets", "wraps", "named_keys", "leaves", "erasures", "meta"} {
		rows, err := db.Query(`SELECT * FROM ` + table)
		if err != nil {
			return "unreadable" // that is the damage
		}
		names, err := rows.Columns()
		d.ok(err)
		for rows.Next() {
			cells, into := make([]any, len(names)), make([]any, len(names))
			for i := range cells {
				into[i] = &cells[i]
			}
			d.ok(rows.Scan(into...))
			fmt.Fprintf(h, "%s %x\n", table, fmt.Sprint(cells...))
		}
		rows.Close()
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

const ofAlice = ` WHERE owner = (SELECT id FROM user_keys WHERE address LIKE 'alice@%' AND number = 2)`

// TestKeysCheck: what can befall keys is found and explained, by name and with a remedy, and nothing is written.
func TestKeysCheck(t *testing.T) {
	sqls := func(query string) func(damaged) { return func(d damaged) { d.sql(query) } }
	header := func(d damaged) string { return keystore.SealHeader(d.c.Vault.Folder, vault.HostRole) }
	tests := map[string]struct {
		damage func(damaged)
		says   string
	}{
		"row changed":       {sqls(`UPDATE wraps SET wrap = CAST(substr(wrap, 1, 60) || X'0000' || substr(wrap, 63) AS BLOB)` + ofAlice + ` AND purpose = 2`), "alice@a.example, keys 2, encryption key: its wrap does not open"},
		"signing row":       {sqls(`UPDATE wraps SET wrap = CAST(substr(wrap, 1, 60) || X'0000' || substr(wrap, 63) AS BLOB)` + ofAlice + ` AND purpose = 3`), "alice@a.example, keys 2, signing key: its wrap does not open"},
		"sealed key":        {sqls(`UPDATE user_keys SET encryption = zeroblob(length(encryption)) WHERE number = 2`), "encryption key: it is damaged"},
		"wrap gone":         {sqls(`UPDATE wraps SET used = 0` + ofAlice + ` AND purpose = 2`), "encryption key: it has no wrap"},
		"row gone":          {sqls(`DELETE FROM user_keys WHERE number = 1 AND address LIKE 'alice@%'`), "generation 1 is missing"},
		"signet of another": {sqls(`UPDATE user_keys SET signet = (SELECT signet FROM user_keys WHERE address LIKE 'bob@%') WHERE number = 2`), `their signet is of "bob@b.example"`},
		"signet of before":  {sqls(`UPDATE user_keys SET signet = (SELECT signet FROM user_keys WHERE address LIKE 'alice@%' AND number = 1) WHERE number = 2`), "it opens, and is not the one that the signet names"},
		"custody":           {sqls(`UPDATE user_keys SET signet = (SELECT signet FROM user_keys WHERE address LIKE 'alice@%' AND number = 1) WHERE number = 2`), "chain of custody is broken"},
		"signet damaged":    {sqls(`UPDATE user_keys SET signet = substr(signet, 1, 50) WHERE number = 2`), "their signet is damaged"},
		"half a rotation":   {sqls(`DROP INDEX user_keys_current; UPDATE user_keys SET retired = 0`), "they are current, and so are those behind them"},
		"the other half":    {sqls(`UPDATE user_keys SET retired = made WHERE number = 2`), "nothing took their place"},
		"back to life":      {sqls(`UPDATE user_keys SET destroyed = made WHERE number = 1 AND address LIKE 'alice@%'`), "it was destroyed, and has a wrap still"},
		"domain's key":      {sqls(`UPDATE wraps SET used = 0 WHERE owner IN (SELECT id FROM org_keys WHERE kind = 1)`), "primary key"},
		"domain's signet":   {sqls(`DELETE FROM org_signets WHERE domain = 'a.example'`), "signet of a.example: there is none"},
		"other key":         {sqls(`UPDATE org_keys SET public = zeroblob(32) WHERE kind = 1 AND domain = 'a.example'`), "does not name the domain's current primary key"},
		"named key":         {sqls(`UPDATE named_keys SET wrap = zeroblob(93)`), "the vault's own keys"},
		"wrong key file": {func(d damaged) {
			d.ok(os.Remove(d.c.Vault.HostSeal.KeyFile))
			d.ok(vault.CreateKeyFile(d.c.Vault.HostSeal.KeyFile))
		}, "is not the one that this vault was sealed with"},
		"key file gone": {func(d damaged) { d.ok(os.Remove(d.c.Vault.SigningSeal.KeyFile)) }, "no such file"},
		"header of another vault": {func(d damaged) {
			d.ok(os.Remove(header(d)))
			s, err := vault.KeyFile(d.c.Vault.HostSeal.KeyFile)
			d.ok(err)
			r, err := vault.CreateSeal(d.Context(), header(d), vault.HostRole, time.Now(), s)
			d.ok(err)
			r.Destroy()
		}, "a root key that the seal header does not have"},
		"half a re-wrap": {func(d damaged) {
			s, err := vault.KeyFile(d.c.Vault.HostSeal.KeyFile)
			d.ok(err)
			r, err := vault.OpenSeal(d.Context(), header(d), vault.HostRole, s)
			d.ok(err)
			d.ok(vault.NewRoot(d.Context(), header(d), r, time.Now(), nil, s))
			r.Destroy()
		}, `"seal rewrap" was cut short`},
		"seal command cut short": {func(d damaged) {
			v, err := vault.Open(d.Context(), vault.Options{Dir: d.c.Vault.Folder})
			d.ok(err)
			d.ok(v.AttestSeal(d.Context(), vault.HostRole, "add passphrase ann", vault.Digest{}, time.Now()))
			d.ok(v.Close())
		}, `"add passphrase ann" was cut short`},
		"pages": {func(d damaged) {
			file := filepath.Join(d.c.Vault.Folder, "vault.db")
			b, err := os.ReadFile(file)
			d.ok(err)
			for i := 8 * 4096; i < len(b)-4096; i++ {
				b[i] ^= 0x55
			}
			d.ok(os.WriteFile(file, b, 0o600))
		}, "vault.db"},
		"an older copy":  {older, "this is an older copy"},
		"erased is back": {older, "it was erased on"},
	}
	path := initKeys(t)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(path)
	whole := filepath.Join(t.TempDir(), "whole")
	cp := func(from, to string) {
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cp(folder, whole)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := damaged{T: t, path: path, c: c}
			d.ok(os.RemoveAll(folder))
			cp(whole, folder)
			tt.damage(d)
			before := d.state()
			code, out, errs := cli(t, "keys", "check", "--config", d.path)
			if code != 1 || !strings.Contains(out, tt.says) || strings.Count(out, "\n") < 3 {
				t.Errorf("exit %d, want %q:\n%s%s", code, tt.says, out, errs)
			}
			if d.state() != before {
				t.Error("something was written")
			}
		})
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	cp(whole, folder)
	if code, out, errs := cli(t, "keys", "check", "--config", path); code != 0 || !strings.Contains(out, "2 domains, 2 users") || !strings.Contains(out, "; 0 findings") {
		t.Errorf("undamaged: exit %d:\n%s%s", code, out, errs)
	}
}

// older puts a copy of the vault back that was made before the log grew and a key was erased.
func older(d damaged) {
	text, err := os.ReadFile(d.path)
	d.ok(err)
	d.ok(os.WriteFile(d.path, bytes.Replace(text, []byte(`keys_folder = ""`), []byte(`keys_folder = "keys"`), 1), 0o600))
	d.ok(os.Mkdir(filepath.Join(filepath.Dir(d.path), "keys"), 0o700))
	copied := filepath.Join(d.TempDir(), "vault")
	d.ok(os.CopyFS(copied, os.DirFS(d.c.Vault.Folder)))
	run := func(args ...string) {
		d.Helper()
		if code, _, errs := cli(d.T, append(args[:2:2], append([]string{"--config", d.path}, args[2:]...)...)...); code != 0 {
			d.Fatal(errs)
		}
	}
	run("keys", "disable", "--now", "--why", "he left", "bob@b.example")
	run("audit", "checkpoint")
	run("backup", "create", filepath.Join(d.TempDir(), "b.tar"))
	d.ok(os.RemoveAll(d.c.Vault.Folder))
	d.ok(os.CopyFS(d.c.Vault.Folder, os.DirFS(copied)))
	for _, f := range []string{"", "vault.db", "host.seal", "signing.seal", "bodies"} {
		st, err := os.Stat(filepath.Join(d.c.Vault.Folder, f))
		d.ok(err)
		d.ok(os.Chmod(filepath.Join(d.c.Vault.Folder, f), st.Mode().Perm()&0o700))
	}
}

// TestKeysListDisabled: whoever is disabled is listed as that, until he is enabled again.
func TestKeysListDisabled(t *testing.T) {
	path := initKeys(t)
	for _, step := range []struct{ do, want string }{{"disable", "bob@b.example  disabled since "}, {"enable", "bob@b.example\n"}} {
		if code, _, errs := cli(t, "keys", step.do, "--config", path, "--why", "x", "bob@b.example"); code != 0 {
			t.Fatal(errs)
		}
		if code, out, errs := cli(t, "keys", "list", "--config", path); code != 0 || !strings.Contains(out, step.want) || strings.Count(out, "since") > 1 {
			t.Errorf("%s: exit %d:\n%s%s", step.do, code, out, errs)
		}
	}
}

// TestKeysDisableLedger: a restore knows at once whose keys were destroyed before their time, whether the gateway runs or not.
func TestKeysDisableLedger(t *testing.T) {
	path := initKeys(t)
	folder := filepath.Join(t.TempDir(), "keys")
	text, err := os.ReadFile(path)
	if err == nil {
		err = errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(path, bytes.Replace(text, []byte(`keys_folder = ""`), fmt.Appendf(nil, "keys_folder = %q", folder), 1), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := cli(t, "keys", "disable", "--now", "--config", path, "--why", "x", "bob@b.example"); code != 0 {
		t.Fatal(errs)
	}
	ledgers, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(ledgers) != 1 {
		t.Fatal(ledgers, err)
	}
	if b, err := os.ReadFile(ledgers[0]); err != nil || bytes.Count(b, []byte("\n")) < 2 {
		t.Errorf("%q, %v", b, err)
	}
}

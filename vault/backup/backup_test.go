package backup_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/backup"
)

var now = time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)

const (
	day    = 24 * time.Hour
	grace  = 36 * day
	canary = "the merger closes on Friday"
)

// A site is a vault with a domain, users and mail that waits, and a folder for backups' keys.
type site struct {
	*vault.Vault
	at    testvault.Vault
	keys  string
	pairs map[string]key.Pair // by "address number"
	org   vault.OrgKeys
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{at: testvault.New(t), keys: t.TempDir(), pairs: map[string]key.Pair{}}
	s.Vault = s.at.Open(t, vault.Options{})
	sec, enc := s.pair(t), s.pair(t)
	s.org = vault.OrgKeys{Primary: enc.Signing, Secondary: sec.Signing, Encryption: enc.Encryption}
	check(t, s.CreateOrg(t.Context(), "x.example", s.org, []byte("signet"), now.Add(-300*day)))
	return s
}

func (s *site) pair(t *testing.T) key.Pair {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	check(t, err)
	return p
}

// user gives an address its next keys.
func (s *site) user(t *testing.T, address string, number int, made time.Time) {
	t.Helper()
	p := s.pair(t)
	s.pairs[fmt.Sprint(address, " ", number)] = p
	check(t, s.AppendUserKey(t.Context(), vault.UserKey{Address: address, Number: number, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: p, Layer: []byte("layer")}))
}

// opens lists which keys for reading, and for signing, open and are those that were made.
func (s *site) opens(t *testing.T, v *vault.Vault) string {
	t.Helper()
	var list []string
	for _, address := range []string{"alice@x.example", "bob@x.example"} {
		for number := 1; number <= 2; number++ {
			p, ok := s.pairs[fmt.Sprint(address, " ", number)]
			if !ok {
				continue
			}
			if e, err := v.UserEncryption(t.Context(), address, number); err == nil && e.Equal(p.Encryption) {
				list = append(list, fmt.Sprint(address[:1], number))
			} else if !errors.Is(err, vault.ErrDestroyed) {
				t.Errorf("%s %d: %v", address, number, err)
			}
			if k, err := v.UserSigning(t.Context(), address, number); err == nil && k.Equal(p.Signing) {
				list = append(list, fmt.Sprint(address[:1], number, "s"))
			}
		}
	}
	for _, kind := range []vault.OrgKeyKind{vault.PrimaryKey, vault.SecondaryKey} {
		if k, err := v.OrgSigning(t.Context(), "x.example", kind); err == nil && (k.Equal(s.org.Primary) || k.Equal(s.org.Secondary)) {
			list = append(list, kind.String())
		}
	}
	if all, err := v.OrgEncryption(t.Context(), "x.example"); err == nil && all[0].Equal(s.org.Encryption) {
		list = append(list, "encryption")
	}
	return strings.Join(list, " ")
}

func (s *site) accept(t *testing.T, octets int) {
	t.Helper()
	d, err := s.NewDraft()
	check(t, err)
	_, err = d.Write(bytes.Repeat([]byte(canary), octets/len(canary)))
	check(t, err)
	_, err = s.Accept(t.Context(), d, []byte("envelope"), []vault.NewRow{{Domain: "y.example", Lane: "y.example", Recipient: []byte("carol@y.example"), State: 1, Due: now, Detail: []byte("{}")}}, now)
	check(t, err)
}

// backup makes one at a time.
func (s *site) backup(t *testing.T, at time.Time) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "b.tar")
	_, err := backup.Create(t.Context(), s.Vault, s.options(file, at))
	check(t, err)
	return file
}

func (s *site) options(file string, at time.Time) backup.Options {
	return backup.Options{Folder: s.at.Dir, Keys: s.keys, File: file, Grace: grace, Now: at}
}

// restore restores a backup and opens what came of it.
func (s *site) restore(t *testing.T, file string, at time.Time, noKeys bool) (*vault.Vault, vault.Restored) {
	t.Helper()
	to := testvault.Vault{Dir: filepath.Join(t.TempDir(), "new", "vault"), Keys: s.at.Keys}
	_, r, err := backup.Restore(t.Context(), backup.RestoreOptions{File: file, Folder: to.Dir, Keys: s.keys, NoKeys: noKeys, Now: at})
	check(t, err)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(to.Dir), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return to.Open(t, vault.Options{}), r
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestore: keys come back, those that are to be destroyed within the backup's life and those that were erased since do not, and
// the log goes on under a name of its own with a leaf for everything.
func TestRestore(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.user(t, "alice@x.example", 1, now.Add(-100*day))
	s.user(t, "alice@x.example", 2, now.Add(-7*day)) // the first is destroyed in 29 days, and a backup's key lives 30
	s.user(t, "bob@x.example", 1, now.Add(-100*day))
	s.user(t, "bob@x.example", 2, now.Add(-5*day)) // the first outlives the backup
	s.accept(t, 1000)
	s.accept(t, 200_000)
	logKey, err := audit.VaultKey(ctx, s.Vault)
	check(t, err)
	old, err := audit.New(s.Vault, logKey).Checkpoint(ctx, now)
	check(t, err)
	const all = "a2 a2s b1 b2 b2s primary secondary encryption"
	if got := s.opens(t, s.Vault); got != "a1 "+all {
		t.Fatalf("before: %s", got)
	}
	file := s.backup(t, now)
	r, err := backup.Verify(ctx, file, s.keys, nil)
	if err != nil || !r.Key || r.Waiting != 2 || !r.KeyDies.Equal(now.Add(30*day)) {
		t.Errorf("%+v, %v", r, err)
	}
	v, restored := s.restore(t, file, now.Add(day), false)
	if got := s.opens(t, v); got != all {
		t.Errorf("after a restore: %s", got)
	}
	if restored.Destroyed != 1 || restored.Dropped != 2 || restored.Erased != 0 {
		t.Errorf("%+v", restored)
	}
	rec, err := audit.Reconcile(ctx, v)
	if err != nil || !rec.OK() || rec.Dropped != 2 {
		t.Errorf("%+v, %v", rec, err)
	}
	s.checkLog(t, v, old, restored)

	// What is erased after the backup does not come back; neither does it where the ledger is all that is left of it.
	bob, err := s.UserKeys(ctx, "bob@x.example")
	check(t, err)
	check(t, os.WriteFile(backup.Ledger(s.keys, s.Archive()), fmt.Appendf(nil, "dimegate-erasures-1 %v\n%s %v\n", s.Archive(), now.Add(time.Hour).Format(time.RFC3339), bob[1].ID), 0o600))
	v, restored = s.restore(t, file, now.Add(day), false)
	if got := s.opens(t, v); got != "a2 a2s b1 primary secondary encryption" || restored.Erased != 1 || restored.Destroyed != 2 {
		t.Errorf("after an erasure: %s, %+v", got, restored)
	}
	if e, err := v.Erasures(ctx); err != nil || len(e) != 1 || e[0].Key != bob[1].ID {
		t.Errorf("erasures of the restored vault: %v, %v", e, err)
	}
}

// checkLog looks at a restored log: what it had is there, and an old checkpoint is told from a forged one.
func (s *site) checkLog(t *testing.T, v *vault.Vault, old []byte, restored vault.Restored) {
	t.Helper()
	ctx := t.Context()
	logKey, err := audit.VaultKey(ctx, v)
	check(t, err)
	if want := "dimegate/" + s.Archive().String() + "/1"; logKey.Name() != want {
		t.Errorf("the log is %q, want %q", logKey.Name(), want)
	}
	next, err := audit.New(v, logKey).Checkpoint(ctx, now)
	check(t, err)
	before, err := audit.ReadTree(old)
	check(t, err)
	if r, err := audit.Verify(ctx, v, logKey.Verifier(), nil, before); err != nil || r.Types[vault.LeafRestored] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	longer := before
	longer.Size = restored.LogSize + 3
	if _, err := audit.Verify(ctx, v, logKey.Verifier(), nil, longer); err == nil || !strings.Contains(err.Error(), "3 are not in that") {
		t.Errorf("a checkpoint of what was lost: %v", err)
	}
	if err := audit.Known(ctx, v, longer); err != nil {
		t.Errorf("a checkpoint of before: %v", err)
	}
	after, err := audit.ReadTree(next)
	check(t, err)
	if err := audit.Known(ctx, s.Vault, after); err == nil || !strings.Contains(err.Error(), "before restore 1") {
		t.Errorf("the vault of before, seen after a restore: %v", err)
	}
	p, err := audit.New(v, logKey).Prove(ctx, 0, now)
	check(t, err)
	if _, _, err := p.Check(logKey.Verifier()); err != nil {
		t.Errorf("a leaf of before under a checkpoint of after: %v", err)
	}
}

// TestKeysDie: after 30 days the key is gone, and a restore then gives everything but what it opened.
func TestKeysDie(t *testing.T) {
	s := newSite(t)
	s.user(t, "alice@x.example", 1, now)
	file := s.backup(t, now)
	key := filepath.Join(s.keys, filepath.Base(mustGlob(t, s.keys)[0]))
	octets, err := os.ReadFile(key)
	check(t, err)
	second := s.backup(t, now.Add(29*day))
	if n := len(mustGlob(t, s.keys)); n != 2 {
		t.Errorf("%d keys after 29 days", n)
	}
	hard := filepath.Join(t.TempDir(), "other name")
	check(t, os.Link(key, hard))
	if n, err := backup.Keep(t.Context(), s.Vault, s.keys, now.Add(30*day)); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if b, err := os.ReadFile(hard); err != nil || len(b) != len(octets) || len(bytes.Trim(b, "\x00")) > 0 {
		t.Errorf("the key was not overwritten: %v", err)
	}
	r, err := backup.Verify(t.Context(), file, s.keys, nil)
	if err != nil || r.Key {
		t.Errorf("%v, key %v", err, r.Key)
	}
	if _, err := backup.Verify(t.Context(), second, s.keys, nil); err != nil {
		t.Errorf("the second: %v", err)
	}
	to := filepath.Join(t.TempDir(), "vault")
	if _, _, err := backup.Restore(t.Context(), backup.RestoreOptions{File: file, Folder: to, Keys: s.keys, Now: now.Add(31 * day)}); !errors.Is(err, backup.ErrNoKey) {
		t.Errorf("restore: %v", err)
	}
	v, restored := s.restore(t, file, now.Add(31*day), true)
	if got := s.opens(t, v); got != "primary encryption" || restored.Destroyed != 2 {
		t.Errorf("without the key: %s, %+v", got, restored)
	}
}

func mustGlob(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*.key"))
	check(t, err)
	return names
}

// TestDamage: whatever is changed in a backup is named, by verify and by restore, and nothing is left where the vault would be.
func TestDamage(t *testing.T) {
	s := newSite(t)
	s.user(t, "alice@x.example", 1, now)
	file := s.backup(t, now)
	whole, err := os.ReadFile(file)
	check(t, err)
	at := func(needle string) func([]byte) []byte {
		return func(b []byte) []byte {
			i := bytes.Index(b, []byte(needle))
			if i < 0 {
				t.Fatalf("no %q in the backup", needle)
			}
			b[i+len(needle)] ^= 1
			return b
		}
	}
	tests := map[string]struct {
		change func([]byte) []byte
		says   string
	}{
		"empty":            {func([]byte) []byte { return nil }, "cut short"},
		"something else":   {func([]byte) []byte { return bytes.Repeat([]byte("x"), 4096) }, "not a backup"},
		"cut in a file":    {func(b []byte) []byte { return b[:20_000] }, "cut short in vault.db"},
		"cut at its end":   {func(b []byte) []byte { return b[:bytes.Index(b, []byte(`"format": "dimegate-backup-1"`))-512] }, "cut short"},
		"database":         {at("CREATE TABLE wraps"), "vault.db was changed"},
		"wraps":            {at("DSR1\x01\x14"), "wraps was changed"},
		"seal":             {at("dimegate-seal-1"), "host.seal was changed"},
		"manifest":         {at(`"log_root": "`), "is not"},
		"manifest's wraps": {func(b []byte) []byte { return bytes.Replace(b, []byte(`"wraps": 3`), []byte(`"wraps": 2`), 1) }, "wraps, of 2"},
		"a way out": {func(b []byte) []byte {
			return bytes.Replace(b, []byte("host.seal\x00\x00\x00"), []byte("../../evil\x00\x00"), 1)
		}, "backup"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.tar")
			check(t, os.WriteFile(bad, tt.change(bytes.Clone(whole)), 0o600))
			if _, err := backup.Verify(t.Context(), bad, s.keys, nil); !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("verify: %v", err)
			}
			to := filepath.Join(t.TempDir(), "vault")
			if _, _, err := backup.Restore(t.Context(), backup.RestoreOptions{File: bad, Folder: to, Keys: s.keys, Now: now}); !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("restore: %v", err)
			}
			for _, dir := range []string{filepath.Dir(bad), filepath.Dir(to)} {
				if left, err := os.ReadDir(dir); err != nil || dir == filepath.Dir(to) && len(left) > 0 || len(left) > 1 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

// TestNothingIsOverwritten: neither backups, nor vaults, nor a ledger that is not the archive's.
func TestNothingIsOverwritten(t *testing.T) {
	s := newSite(t)
	file := s.backup(t, now)
	before, err := os.ReadFile(file)
	check(t, err)
	if _, err := backup.Create(t.Context(), s.Vault, s.options(file, now)); err == nil {
		t.Error("a backup was written over another")
	}
	if b, _ := os.ReadFile(file); !bytes.Equal(b, before) {
		t.Error("the backup was changed")
	}
	if n := len(mustGlob(t, s.keys)); n != 1 {
		t.Errorf("%d keys: one of no backup", n)
	}
	if _, _, err := backup.Restore(t.Context(), backup.RestoreOptions{File: file, Folder: s.at.Dir, Keys: s.keys, Now: now}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a vault: %v", err)
	}
	check(t, os.WriteFile(backup.Ledger(s.keys, s.Archive()), []byte("of another\n"), 0o600))
	next := filepath.Join(t.TempDir(), "next.tar")
	if _, err := backup.Create(t.Context(), s.Vault, s.options(next, now)); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("with another's ledger: %v", err)
	}
	if _, err := os.Stat(next); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the backup is there: %v", err)
	}
}

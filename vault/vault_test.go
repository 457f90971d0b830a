package vault_test

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/dmtp/key"
	"dimegate/internal/safefile"
	"dimegate/vault"
)

// A fixture is an open vault in a folder of the test, with both roots.
type fixture struct {
	*vault.Vault
	dir           string
	host, signing *vault.Root
}

func newVault(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{dir: filepath.Join(t.TempDir(), "vault")}
	if err := vault.Create(t.Context(), f.dir); err != nil {
		t.Fatal(err)
	}
	k := keyFile(t, "k")
	for role, r := range map[vault.Role]**vault.Root{vault.HostRole: &f.host, vault.SigningRole: &f.signing} {
		var err error
		if *r, err = vault.CreateSeal(t.Context(), filepath.Join(f.dir, role.String()+".seal"), role, made, k); err != nil {
			t.Fatal(err)
		}
	}
	f.open(t)
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	v, err := vault.Open(t.Context(), vault.Options{Dir: f.dir, Host: f.host, Signing: f.signing, Owner: true})
	if err != nil {
		t.Fatal(err)
	}
	f.Vault = v
}

// reopen closes and opens.
func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

// raw runs SQL beside the vault, as damage or an operator would.
func (f *fixture) raw(t testing.TB, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.dir, "vault.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(query, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.RowsAffected(); n == 0 || err != nil {
		t.Fatalf("%s changed %d rows, %v", query, n, err)
	}
}

// diskHolds counts the files of the vault's folder that hold needle.
func (f *fixture) diskHolds(t testing.TB, needle []byte) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, needle) {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// leafTypes reads the whole log, checks its tree by tlog, and returns the types in order.
func (f *fixture) leafTypes(t testing.TB) []vault.LeafType {
	t.Helper()
	ctx := t.Context()
	n, err := f.LogSize(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := f.LogLeaves(ctx, 0, int(n)+1)
	if err != nil || int64(len(leaves)) != n {
		t.Fatalf("%d leaves of %d, %v", len(leaves), n, err)
	}
	reader := tlog.HashReaderFunc(func(x []int64) ([]tlog.Hash, error) { return f.LogHashes(ctx, x) })
	root, err := tlog.TreeHash(n, reader)
	if err != nil {
		t.Fatal(err)
	}
	var types []vault.LeafType
	for i, b := range leaves {
		p, err := tlog.ProveRecord(n, int64(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, n, root, int64(i), tlog.RecordHash(b)); err != nil {
			t.Fatalf("leaf %d: %v", i, err)
		}
		l, err := vault.ParseLeaf(b)
		if err != nil {
			t.Fatal(err)
		}
		if l.Archive != f.Archive() || !bytes.Equal(l.Octets(), b) {
			t.Errorf("leaf %d: archive %v, encodes to %x", i, l.Archive, l.Octets())
		}
		types = append(types, l.Type)
	}
	return types
}

func newPair(t testing.TB) key.Pair {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOpenRefusals(t *testing.T) {
	ctx := t.Context()
	f := newVault(t)
	if err := vault.Create(ctx, f.dir); !errors.Is(err, vault.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := vault.Open(ctx, vault.Options{Dir: f.dir, Owner: true}); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("two owners: %v", err)
	}
	beside, err := vault.Open(ctx, vault.Options{Dir: f.dir})
	if err != nil {
		t.Fatalf("beside the owner: %v", err)
	}
	beside.Close()
	if _, err := vault.Open(ctx, vault.Options{Dir: filepath.Join(f.dir, "none")}); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no folder: %v", err)
	}
	f.raw(t, `INSERT INTO schema_version (version) VALUES (99)`)
	if _, err := vault.Open(ctx, vault.Options{Dir: f.dir}); !errors.Is(err, vault.ErrChanged) || !strings.Contains(err.Error(), "newer gateway") {
		t.Errorf("newer schema: %v", err)
	}
	f.raw(t, `DELETE FROM schema_version WHERE version = 99 OR version = (SELECT MAX(version) FROM schema_version WHERE version < 99)`)
	if _, err := vault.Open(ctx, vault.Options{Dir: f.dir}); !errors.Is(err, vault.ErrChanged) || !strings.Contains(err.Error(), "older gateway") {
		t.Errorf("older schema, beside its gateway: %v", err)
	}
	f.Close()
	if err := os.Chmod(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(ctx, vault.Options{Dir: f.dir}); !errors.Is(err, safefile.ErrOpenToOthers) {
		t.Errorf("open folder: %v", err)
	}
	os.Chmod(f.dir, 0o700)
	if err := os.WriteFile(filepath.Join(f.dir, "vault.db"), bytes.Repeat([]byte("rubbish "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(ctx, vault.Options{Dir: f.dir}); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("rubbish: %v", err)
	}
}

func TestFilesAreOurs(t *testing.T) {
	f := newVault(t)
	if err := f.AppendUserKey(t.Context(), vault.UserKey{Address: "a@x.example", Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: newPair(t)}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		return safefile.CheckSecret(path)
	})
	if err != nil || seen < 6 { // folder, database, -wal, -shm, bodies, lock, two headers
		t.Errorf("%d files, %v", seen, err)
	}
}

// TestGroupCommit: callers at the same moment share commits, and one that fails undoes only itself.
func TestGroupCommit(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	before, _ := f.Commits()
	const users = 300
	pair := newPair(t)
	errs := make([]error, users)
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			number := 1
			if i%10 == 9 {
				number = 2 // has no first: ErrChanged
			}
			errs[i] = f.AppendUserKey(ctx, vault.UserKey{Address: fmt.Sprintf("u%d@x.example", i), Number: number, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: pair})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if i%10 == 9 && !errors.Is(err, vault.ErrChanged) || i%10 != 9 && err != nil {
			t.Errorf("user %d: %v", i, err)
		}
	}
	commits, jobs := f.Commits()
	t.Logf("%d transactions in %d commits", jobs, commits-before)
	if commits-before >= users/2 {
		t.Errorf("%d commits for %d transactions", commits-before, users)
	}
	if n := len(f.leafTypes(t)); n != users*9/10 {
		t.Errorf("%d leaves, want %d", n, users*9/10)
	}
	list, err := f.Users(ctx, "", users)
	if err != nil || len(list) != users*9/10 {
		t.Errorf("%d users, %v", len(list), err)
	}
	f.Close()
	if err := f.AppendUserKey(ctx, vault.UserKey{Address: "late@x.example", Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: pair}); !errors.Is(err, vault.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestOneWins: of many who make the first keys of one address, one does.
func TestOneWins(t *testing.T) {
	f := newVault(t)
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := f.AppendUserKey(t.Context(), vault.UserKey{Address: "alice@x.example", Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: newPair(t)})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, vault.ErrChanged) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestUserKeysLife(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	const alice = "alice@x.example"
	pairs := []key.Pair{newPair(t), newPair(t), newPair(t)}
	at := func(days int) time.Time { return made.AddDate(0, 0, days) }
	for i, p := range pairs {
		if err := f.AppendUserKey(ctx, vault.UserKey{Address: alice, Number: i + 1, Signet: fmt.Append(nil, "signet ", i), Made: at(90 * i)}, vault.UserSecrets{Pair: p}); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range pairs {
		s, err := f.UserSigning(ctx, alice, i+1)
		if last := i == len(pairs)-1; last != (err == nil && s.Equal(p.Signing)) || !last && !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("signing key %d: %v", i+1, err)
		}
		if e, err := f.UserEncryption(ctx, alice, i+1); err != nil || !e.Equal(p.Encryption) {
			t.Errorf("encryption key %d: %v", i+1, err)
		}
	}
	if n, err := f.DestroyUserKeys(ctx, at(100), at(130)); err != nil || n != 1 {
		t.Errorf("destroyed %d, %v", n, err)
	}
	if n, err := f.DestroyUserKeys(ctx, at(100), at(131)); err != nil || n != 0 {
		t.Errorf("destroyed again %d, %v", n, err)
	}
	f.reopen(t)
	if _, err := f.UserEncryption(ctx, alice, 1); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("destroyed key: %v", err)
	}
	if _, err := f.UserEncryption(ctx, alice, 2); err != nil {
		t.Errorf("retired key: %v", err)
	}
	list, err := f.UserKeys(ctx, alice)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d generations, %v", len(list), err)
	}
	want := []vault.UserKey{
		{Address: alice, Number: 1, Signet: []byte("signet 0"), Made: at(0), Retired: at(90), Destroyed: at(130)},
		{Address: alice, Number: 2, Signet: []byte("signet 1"), Made: at(90), Retired: at(180)},
		{Address: alice, Number: 3, Signet: []byte("signet 2"), Made: at(180)},
	}
	for i, u := range list {
		want[i].ID = u.ID
		if got, want := fmt.Sprint(u), fmt.Sprint(want[i]); got != want {
			t.Errorf("generation %d: %s, want %s", i+1, got, want)
		}
	}
	wantLeaves := []vault.LeafType{vault.LeafKeyMade, vault.LeafKeyRetired, vault.LeafKeyMade, vault.LeafKeyRetired, vault.LeafKeyMade, vault.LeafKeyDestroyed}
	if got := f.leafTypes(t); !slices.Equal(got, wantLeaves) {
		t.Errorf("log %v, want %v", got, wantLeaves)
	}
}

// TestDestroyedIsGone: what opened an encryption key is in no file any more, the write-ahead log included. A key that
// lives is found the same way.
func TestDestroyedIsGone(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	for i := range 2 {
		if err := f.AppendUserKey(ctx, vault.UserKey{Address: "alice@x.example", Number: i + 1, Signet: []byte("s"), Made: made.AddDate(0, 0, i)}, vault.UserSecrets{Pair: newPair(t), Layer: []byte("layer")}); err != nil {
			t.Fatal(err)
		}
		if b, err := f.UserLayer(ctx, "alice@x.example", i+1); string(b) != "layer" || err != nil {
			t.Fatalf("layer keys: %v", err)
		}
	}
	secrets := func(number int) (wrap, sealed, layer []byte) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(f.dir, "vault.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		err = db.QueryRow(`SELECT wrap, encryption, layer FROM user_keys JOIN wraps ON owner = id WHERE number = ? AND purpose = 2`, number).Scan(&wrap, &sealed, &layer)
		if err != nil {
			t.Fatal(err)
		}
		return wrap[20:60], sealed[80:110], layer[60:]
	}
	deadWrap, deadSealed, deadLayer := secrets(1)
	liveWrap, liveSealed, liveLayer := secrets(2)
	for _, b := range [][]byte{deadWrap, deadSealed, deadLayer, liveWrap, liveSealed, liveLayer} {
		if f.diskHolds(t, b) == 0 {
			t.Fatal("the search finds nothing even before")
		}
	}
	if n, err := f.DestroyUserKeys(ctx, made.AddDate(0, 0, 30), made.AddDate(0, 0, 40)); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if a, b, c := f.diskHolds(t, deadWrap), f.diskHolds(t, deadSealed), f.diskHolds(t, deadLayer); a+b+c != 0 {
		t.Errorf("destroyed: wrap in %d files, sealed key in %d, layer keys in %d", a, b, c)
	}
	if a, b, c := f.diskHolds(t, liveWrap), f.diskHolds(t, liveSealed), f.diskHolds(t, liveLayer); a*b*c == 0 {
		t.Errorf("living: wrap in %d files, sealed key in %d, layer keys in %d", a, b, c)
	}
	if _, err := f.UserLayer(ctx, "alice@x.example", 1); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("destroyed layer keys: %v", err)
	}
}

// TestDamagedKeys: rows that were changed, exchanged or sealed elsewhere give a clear error and never a key.
func TestDamagedKeys(t *testing.T) {
	ctx := t.Context()
	tests := map[string]struct {
		sql  string
		want error
	}{
		"signing wrap flipped":   {`UPDATE wraps SET wrap = CAST(substr(wrap, 1, 50) || X'00' || substr(wrap, 52) AS BLOB) WHERE purpose = 3`, vault.ErrWrongKey},
		"signing wrap cut":       {`PRAGMA ignore_check_constraints = 1; UPDATE wraps SET wrap = substr(wrap, 1, 50) WHERE purpose = 3`, vault.ErrCorrupt},
		"signing wrap gone":      {`DELETE FROM wraps WHERE purpose = 3`, vault.ErrCorrupt},
		"signing wraps swapped":  {`UPDATE wraps SET wrap = (SELECT o.wrap FROM wraps o WHERE o.owner <> wraps.owner AND o.purpose = 3) WHERE purpose = 3`, vault.ErrWrongKey},
		"address changed":        {`UPDATE user_keys SET address = CASE address WHEN 'a@x.example' THEN 'c@x.example' ELSE 'a@x.example' END`, vault.ErrWrongKey},
		"encryption flipped":     {`UPDATE user_keys SET encryption = CAST(substr(encryption, 1, 90) || X'0000' || substr(encryption, 93) AS BLOB)`, vault.ErrCorrupt},
		"encryption cut":         {`UPDATE user_keys SET encryption = substr(encryption, 1, 100)`, vault.ErrCorrupt},
		"layer flipped":          {`UPDATE user_keys SET layer = CAST(substr(layer, 1, 72) || X'0000' || substr(layer, 75) AS BLOB)`, vault.ErrCorrupt},
		"layer of another":       {`UPDATE user_keys SET layer = (SELECT o.layer FROM user_keys o WHERE o.address <> user_keys.address)`, vault.ErrWrongKey},
		"another part as layer":  {`UPDATE user_keys SET layer = encryption`, vault.ErrCorrupt},
		"host wrap gone":         {`DELETE FROM wraps WHERE purpose = 2`, vault.ErrCorrupt},
		"host wraps swapped":     {`UPDATE wraps SET wrap = (SELECT o.wrap FROM wraps o WHERE o.owner <> wraps.owner AND o.purpose = 2) WHERE purpose = 2`, vault.ErrWrongKey},
		"under another root key": {`UPDATE wraps SET wrap = CAST(substr(wrap, 1, 5) || X'0102030405060708' || substr(wrap, 14) AS BLOB)`, vault.ErrSealed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newVault(t)
			for _, a := range []string{"a@x.example", "b@x.example"} {
				if err := f.AppendUserKey(ctx, vault.UserKey{Address: a, Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: newPair(t), Layer: []byte("layer")}); err != nil {
					t.Fatal(err)
				}
			}
			f.raw(t, tt.sql)
			s, serr := f.UserSigning(ctx, "a@x.example", 1)
			e, eerr := f.UserEncryption(ctx, "a@x.example", 1)
			l, lerr := f.UserLayer(ctx, "a@x.example", 1)
			if !errors.Is(serr, tt.want) && !errors.Is(eerr, tt.want) && !errors.Is(lerr, tt.want) {
				t.Errorf("%v, %v, %v; want %v", serr, eerr, lerr, tt.want)
			}
			if (serr != nil) != s.IsZero() || (eerr != nil) != e.IsZero() || (lerr != nil) != (l == nil) {
				t.Error("a key beside an error")
			}
		})
	}
}

func TestClosedRoots(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	if err := f.AppendUserKey(ctx, vault.UserKey{Address: "a@x.example", Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: newPair(t)}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.signing = nil
	f.open(t)
	if _, err := f.UserSigning(ctx, "a@x.example", 1); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("signing key with its seal closed: %v", err)
	}
	if _, err := f.UserEncryption(ctx, "a@x.example", 1); err != nil {
		t.Errorf("encryption key with the host seal open: %v", err)
	}
	if err := f.AppendUserKey(ctx, vault.UserKey{Address: "b@x.example", Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: newPair(t)}); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("new key with a seal closed: %v", err)
	}
}

func TestOrg(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	a, b, c := newPair(t), newPair(t), newPair(t)
	keys := vault.OrgKeys{Primary: a.Signing, Secondary: b.Signing, Encryption: a.Encryption}
	if err := f.CreateOrg(ctx, "x.example", vault.OrgKeys{Primary: a.Signing}, []byte("s"), made); err == nil {
		t.Error("made an organisation without an encryption key")
	}
	if err := f.CreateOrg(ctx, "x.example", keys, []byte("first"), made); err != nil {
		t.Fatal(err)
	}
	if err := f.CreateOrg(ctx, "x.example", keys, []byte("first"), made); !errors.Is(err, vault.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	old, err := f.OrgKeys(ctx, "x.example")
	if err != nil {
		t.Fatal(err)
	}
	change := vault.OrgChange{Add: vault.OrgKeys{Encryption: c.Encryption}, Retire: []vault.ID{old[2].ID}, Signet: []byte("second"), Number: 2}
	if err := f.ChangeOrg(ctx, "x.example", change, made.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := f.ChangeOrg(ctx, "x.example", change, made.Add(time.Hour)); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("retired twice: %v", err)
	}
	f.reopen(t)
	if k, err := f.OrgSigning(ctx, "x.example", vault.PrimaryKey); err != nil || !k.Equal(a.Signing) {
		t.Errorf("primary: %v", err)
	}
	if k, err := f.OrgSigning(ctx, "x.example", vault.SecondaryKey); err != nil || !k.Equal(b.Signing) {
		t.Errorf("secondary: %v", err)
	}
	enc, err := f.OrgEncryption(ctx, "x.example")
	if err != nil || len(enc) != 2 || !enc[0].Equal(c.Encryption) || !enc[1].Equal(a.Encryption) {
		t.Errorf("encryption: %d keys, %v", len(enc), err)
	}
	signets, err := f.OrgSignets(ctx, "x.example")
	if err != nil || fmt.Sprintf("%s", signets) != "[first second]" {
		t.Errorf("signets %s, %v", signets, err)
	}
	if _, err := f.OrgSigning(ctx, "y.example", vault.PrimaryKey); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("unknown domain: %v", err)
	}
	list, err := f.OrgKeys(ctx, "")
	if err != nil || len(list) != 4 {
		t.Errorf("%d keys, %v", len(list), err)
	}
	want := []vault.LeafType{vault.LeafKeyMade, vault.LeafKeyMade, vault.LeafKeyMade, vault.LeafKeyRetired, vault.LeafKeyMade}
	if got := f.leafTypes(t); !slices.Equal(got, want) {
		t.Errorf("log %v, want %v", got, want)
	}
	f.destroySecondary(t, b, c)
	f.raw(t, `UPDATE org_keys SET public = zeroblob(32) WHERE kind = 1`)
	if _, err := f.OrgSigning(ctx, "x.example", vault.PrimaryKey); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("another public key: %v", err)
	}
}

// destroySecondary puts a secondary key beside the old one, which signs until it is retired, and is destroyed after that alone.
func (f *fixture) destroySecondary(t *testing.T, old, next key.Pair) {
	t.Helper()
	ctx := t.Context()
	signs := func(want key.Signing) {
		t.Helper()
		if k, err := f.OrgSigning(ctx, "x.example", vault.SecondaryKey); err != nil || !k.Equal(want) {
			t.Errorf("another secondary key signs: %v", err)
		}
	}
	step := func(want error, c vault.OrgChange) {
		t.Helper()
		if err := f.ChangeOrg(ctx, "x.example", c, made.Add(2*time.Hour)); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", c, err, want)
		}
	}
	keys, err := f.OrgKeys(ctx, "x.example")
	if err != nil {
		t.Fatal(err)
	}
	id := keys[1].ID
	add := vault.OrgChange{Add: vault.OrgKeys{Secondary: next.Signing}, Signet: []byte("third"), Number: 3}
	step(nil, add)
	signs(old.Signing)
	step(vault.ErrChanged, vault.OrgChange{Add: vault.OrgKeys{Secondary: next.Signing}}) // a third at a time
	step(vault.ErrChanged, vault.OrgChange{Destroy: []vault.ID{id}})
	step(vault.ErrChanged, vault.OrgChange{Retire: []vault.ID{id}, Signet: []byte("lost"), Number: 3})
	signs(old.Signing)
	step(nil, vault.OrgChange{Retire: []vault.ID{id}})
	signs(next.Signing)
	step(nil, vault.OrgChange{Destroy: []vault.ID{id}, Signet: []byte("fourth"), Number: 4})
	step(vault.ErrChanged, vault.OrgChange{Destroy: []vault.ID{id}})
	got := f.leafTypes(t)
	if want := []vault.LeafType{vault.LeafKeyMade, vault.LeafKeyRetired, vault.LeafKeyDestroyed}; !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("log %v", got)
	}
}

func TestPins(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	const bob = "bob@peer.example"
	if pins, doubt, err := f.Pins(ctx, bob); len(pins) != 0 || doubt != nil || err != nil {
		t.Fatalf("%v, %v, %v", pins, doubt, err)
	}
	if err := f.AddPins(ctx, bob, 0, []vault.Pin{{[]byte("signet one"), made}, {[]byte("signet two"), made}}); err != nil {
		t.Fatal(err)
	}
	if err := f.AddPins(ctx, bob, 0, []vault.Pin{{[]byte("signet"), made}}); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("on an old count: %v", err)
	}
	later := made.Add(time.Hour)
	if err := f.SetPinChecked(ctx, bob, later); err != nil {
		t.Fatal(err)
	}
	first := vault.Doubt{Subject: []byte("fingerprint"), Since: made}
	if d, err := f.SetDoubt(ctx, bob, first); err != nil || !d.Since.Equal(made) {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := f.SetDoubt(ctx, bob, vault.Doubt{Subject: []byte("fingerprint"), Since: later}); err != nil || !d.Since.Equal(made) {
		t.Errorf("the same doubt again: since %v, %v", d.Since, err)
	}
	if d, err := f.SetDoubt(ctx, bob, vault.Doubt{Subject: []byte("other"), Since: later}); err != nil || !d.Since.Equal(later) {
		t.Errorf("another doubt: since %v, %v", d.Since, err)
	}
	f.reopen(t)
	pins, doubt, err := f.Pins(ctx, bob)
	if err != nil || len(pins) != 2 || string(pins[1].Octets) != "signet two" || !pins[1].Checked.Equal(later) || !pins[0].Checked.Equal(made) ||
		doubt == nil || string(doubt.Subject) != "other" {
		t.Errorf("%v, %v, %v", pins, doubt, err)
	}
	if n := f.diskHolds(t, []byte("bob@peer")) + f.diskHolds(t, []byte("signet two")); n != 0 {
		t.Errorf("who writes to whom is in %d files", n)
	}
	if err := f.AddPins(ctx, bob, 2, nil); err != nil {
		t.Fatal(err)
	}
	if _, doubt, err := f.Pins(ctx, bob); doubt != nil || err != nil {
		t.Errorf("doubt after AddPins: %v, %v", doubt, err)
	}
	f.raw(t, `UPDATE pins SET pin = (SELECT o.pin FROM pins o WHERE o.number <> pins.number)`)
	if _, _, err := f.Pins(ctx, bob); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("pins swapped: %v", err)
	}
}

// TestLeafVector is the intake leaf of record one of the escrow vectors.
func TestLeafVector(t *testing.T) {
	v := escrowRecords(t)
	for _, r := range v {
		t.Run(r.Name, func(t *testing.T) {
			octets, envelope := vault.NewDigest("octets", r.Octets), vault.NewDigest("envelope", r.Envelope)
			o := vault.Opening{Salt: [32]byte(r.Salt), Payload: append(octets[:], envelope[:]...)}
			l := vault.Leaf{
				Type: vault.LeafIntake, Time: time.Unix(r.LeafTime, 0), Archive: vault.ID(r.Archive), Subject: vault.ID(r.Record),
				Public:     vault.IntakePublic(vault.Digest(r.BodyDigest), []vault.Digest{vault.Digest(r.WrapDigest)}),
				Commitment: o.Commit(vault.LeafIntake),
			}
			if !bytes.Equal(l.Octets(), r.IntakeLeaf) {
				t.Errorf("leaf\n got %x\nwant %x", l.Octets(), r.IntakeLeaf)
			}
			if got, err := vault.ParseLeaf(r.IntakeLeaf); err != nil || got.Octets() == nil || !bytes.Equal(got.Octets(), r.IntakeLeaf) {
				t.Errorf("parsed %v, %v", got, err)
			}
		})
	}
}

// A doubt that is said to stand since another time than it does, and a pin whose place is another, are not believed: with an
// older doubt its quarantine would be over.
func TestDamagedPins(t *testing.T) {
	f := newVault(t)
	ctx := t.Context()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(f.AddPins(ctx, "bob@bravo.example", 0, []vault.Pin{{[]byte("one"), made}, {[]byte("two"), made}}))
	_, err := f.SetDoubt(ctx, "bob@bravo.example", vault.Doubt{Subject: []byte("x"), Since: time.Unix(1_800_000_000, 0)})
	check(err)
	for name, tt := range map[string]struct{ do, undo string }{
		"doubt, since":     {"UPDATE doubts SET since = 1", "UPDATE doubts SET since = 1800000000000"},
		"first pin gone":   {"UPDATE pins SET number = 2 WHERE number = 0", "UPDATE pins SET number = 0 WHERE number = 2"},
		"pins in exchange": {"UPDATE pins SET number = 3 - number", "UPDATE pins SET number = 3 - number"},
	} {
		f.raw(t, tt.do)
		if pins, doubt, err := f.Pins(ctx, "bob@bravo.example"); err == nil {
			t.Errorf("%s: %v, %v", name, pins, doubt)
		}
		f.raw(t, tt.undo)
		if _, _, err := f.Pins(ctx, "bob@bravo.example"); err != nil {
			t.Errorf("%s, mended: %v", name, err)
		}
	}
}

package vault_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"dimegate/vault"
)

// TestNoWrapIsLeft: while tables grow and shrink SQLite copies rows about, and leaves the old places as they are. No octets of a wrap
// whose key is gone are in any file, of users' keys nor of mail that was delivered. Wraps in use are found the same way.
func TestNoWrapIsLeft(t *testing.T) {
	f := newVault(t)
	ctx, r := t.Context(), rand.New(rand.NewPCG(1, 2))
	var rows []vault.ID
	for i := range 400 {
		a, day := fmt.Sprintf("u%d@x.example", i%150), made.AddDate(0, 0, i)
		if err := f.AppendUserKey(ctx, vault.UserKey{Address: a, Number: i/150 + 1, Signet: make([]byte, 300+r.IntN(300)), Made: day}, vault.UserSecrets{Pair: newPair(t)}); err != nil {
			t.Fatal(err)
		}
		_, ids, _ := f.accept(t, 500, "bob@y.example")
		rows = append(rows, ids...)
	}
	before := f.wraps(t)
	if left := f.left(t, before); left != len(before) || left < 900 {
		t.Fatalf("%d of %d wraps in use are found on the disk", left, len(before))
	}
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for _, id := range rows[20:] {
		row, err := f.QueueRow(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.ChangeRow(ctx, nil, row, vault.RowChange{Remove: true}, made); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := f.DestroyUserKeys(ctx, made.AddDate(2, 0, 0), made.AddDate(2, 0, 0)); n != 250 || err != nil {
		t.Fatalf("%d keys destroyed, %v", n, err)
	}
	after := f.wraps(t)
	for w := range after {
		delete(before, w)
	}
	if len(after) != 20+2*150 || len(before) != 380+250 {
		t.Fatalf("%d wraps in use, %d gone", len(after), len(before))
	}
	if n := f.left(t, before); n > 0 {
		t.Errorf("%d of %d wraps that are gone are still on the disk", n, len(before))
	}
	if n := f.left(t, after); n != len(after) {
		t.Errorf("%d of %d wraps in use are found", n, len(after))
	}
	f.accept(t, 500, "bob@y.example") // takes the place of one that is gone
	var places int
	if err := f.sql(t).QueryRow(`SELECT COUNT(*) FROM wraps`).Scan(&places); places != 400+400+150 || err != nil {
		t.Errorf("%d places, %v", places, err) // retired signing keys gave theirs to others
	}
}

// sql opens the database beside the vault.
func (f *fixture) sql(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.dir, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// wraps are those in use.
func (f *fixture) wraps(t testing.TB) map[string]bool {
	t.Helper()
	rows, err := f.sql(t).Query(`SELECT wrap FROM wraps WHERE used = 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]bool{}
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		all[string(b)] = true
	}
	return all
}

// left counts the wraps that the vault's files hold somewhere.
func (f *fixture) left(t testing.TB, wraps map[string]bool) int {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte("DWB1"))
			if i < 0 {
				return err
			}
			at += i
			if w := string(b[at:min(at+vault.WrapSize, len(b))]); wraps[w] {
				found[w] = true
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// TestWrapsOfAnEarlierVault: keys that an earlier gateway kept open as before, and what SQLite had left of others goes.
func TestWrapsOfAnEarlierVault(t *testing.T) {
	f := newVault(t)
	ctx, pair := t.Context(), newPair(t)
	f.Close()
	old := &fixture{dir: filepath.Join(t.TempDir(), "vault"), host: f.host, signing: f.signing}
	vault.CreateAt(t, old.dir, 3)
	seal := func(root *vault.Root, octets, label []byte) (vault.Secret, []byte) {
		s := vault.NewSecret()
		if octets != nil {
			s, _ = vault.SecretOf(octets)
		}
		wrap, err := root.Wrap(s, label)
		if err != nil {
			t.Fatal(err)
		}
		return s, wrap
	}
	id := vault.NewID(made)
	k, wrap := seal(f.host, nil, vault.Label("key", string(id[:])))
	_, signing := seal(f.signing, pair.Signing.Seed(), vault.Label("user signing key", "a@x.example", "1", string(id[:])))
	old.raw(t, `INSERT INTO user_keys (address, number, id, signet, signing, encryption, made) VALUES ('a@x.example', 1, ?, X'00', ?, ?, 1)`,
		id[:], signing, vault.SealOctets(k, vault.PartKey, id[:], pair.Encryption.Scalar()))
	_, gone := seal(f.host, nil, nil)
	old.raw(t, `INSERT INTO wraps (owner, purpose, n, wrap) VALUES (?, 1, 0, ?)`, id[:], wrap)
	old.raw(t, `INSERT INTO wraps (owner, purpose, n, wrap) VALUES (randomblob(16), 1, 0, ?)`, gone)
	old.raw(t, `DELETE FROM wraps WHERE owner <> ?`, id[:])
	if n := old.diskHolds(t, gone); n == 0 {
		t.Fatal("the search finds nothing even before")
	}
	old.open(t)
	defer old.Close()
	if err := old.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := old.UserSigning(ctx, "a@x.example", 1); err != nil || !s.Equal(pair.Signing) {
		t.Errorf("signing key: %v", err)
	}
	if e, err := old.UserEncryption(ctx, "a@x.example", 1); err != nil || !e.Equal(pair.Encryption) {
		t.Errorf("encryption key: %v", err)
	}
	if n := old.diskHolds(t, gone); n != 0 {
		t.Errorf("what is gone is in %d files", n)
	}
}

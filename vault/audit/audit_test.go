package audit_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/dmtp/key"
	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/audit"
)

var made = time.Date(2026, 11, 17, 8, 0, 0, 0, time.UTC)

// A world is a vault with a log of n leaves, checkpoints along the way, and the last of them kept elsewhere.
type world struct {
	*vault.Vault
	disk testvault.Vault
	log  *audit.Log
	key  *audit.Key
	kept []audit.Tree
	n    int
}

func newWorld(t testing.TB, n int, checkpoints ...int) *world {
	t.Helper()
	w := &world{disk: testvault.New(t)}
	w.Vault = w.disk.Open(t, vault.Options{})
	var err error
	if w.key, err = audit.VaultKey(t.Context(), w.Vault); err != nil {
		t.Fatal(err)
	}
	w.log = audit.New(w.Vault, w.key)
	for w.n < n {
		w.add(t)
		for _, c := range checkpoints {
			if c == w.n {
				w.checkpoint(t)
			}
		}
	}
	return w
}

// add makes a user's keys: one leaf.
func (w *world) add(t testing.TB) {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u := vault.UserKey{Address: fmt.Sprintf("u%d@x.example", w.n), Number: 1, Signet: []byte("s"), Made: made}
	if err := w.AppendUserKey(t.Context(), u, vault.UserSecrets{Pair: p}); err != nil {
		t.Fatal(err)
	}
	w.n++
}

func (w *world) checkpoint(t testing.TB) []byte {
	t.Helper()
	signed, err := w.log.Checkpoint(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := audit.ParseCheckpoint(signed, w.key.Verifier())
	if err != nil || tree.Size != int64(w.n) {
		t.Fatalf("%+v, %v", tree, err)
	}
	w.kept = append(w.kept, tree)
	return signed
}

// raw changes the database as whoever holds the host could.
func (w *world) raw(t testing.TB, queries ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.disk.Dir, "vault.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range queries {
		r, err := db.Exec(q)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := r.RowsAffected(); n == 0 {
			t.Fatalf("%s changed nothing", q)
		}
	}
}

func TestVerify(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 64, 100} {
		w := newWorld(t, n, 3, 64)
		w.checkpoint(t)
		r, err := audit.Verify(t.Context(), w.Vault, w.key.Verifier(), nil, w.kept...)
		if err != nil || r.Size != int64(n) || r.Types[vault.LeafKeyMade] != int64(n) || n > 0 && (r.Signed != int64(n) || r.Root != w.kept[len(w.kept)-1].Root) {
			t.Errorf("%d leaves: %+v, %v", n, r, err)
		}
	}
}

// TestProofs: every leaf and every growth of a small log, by tlog's own checks.
func TestProofs(t *testing.T) {
	ctx := t.Context()
	const n = 13
	w := newWorld(t, n)
	leaves, err := w.LogLeaves(ctx, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	hashes := tlog.HashReaderFunc(func(x []int64) ([]tlog.Hash, error) { return w.LogHashes(ctx, x) })
	for size := int64(1); size <= n; size++ {
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			t.Fatal(err)
		}
		for i := range size {
			p, err := audit.ProveLeaf(ctx, w.Vault, size, i)
			if err == nil {
				err = tlog.CheckRecord(p, size, root, i, tlog.RecordHash(leaves[i]))
			}
			if err != nil {
				t.Errorf("leaf %d of %d: %v", i, size, err)
			}
			old, err := tlog.TreeHash(i+1, hashes)
			if err != nil {
				t.Fatal(err)
			}
			g, err := audit.ProveGrowth(ctx, w.Vault, i+1, size)
			if err == nil {
				err = tlog.CheckTree(g, size, root, i+1, old)
			}
			if err != nil {
				t.Errorf("growth from %d to %d: %v", i+1, size, err)
			}
		}
	}
	if _, err := audit.ProveLeaf(ctx, w.Vault, 5, 5); err == nil {
		t.Error("proved a leaf beyond the tree")
	}
	if _, err := audit.ProveGrowth(ctx, w.Vault, 6, 5); err == nil {
		t.Error("proved that a tree shrank")
	}
}

// TestTampering: what whoever holds the host does to the log is found, the first bad leaf named where one can be. Attacks
// that know how the tree is made are found by checkpoints, those that forge them too by one that is kept elsewhere.
func TestTampering(t *testing.T) {
	const n = 20
	flip := `UPDATE leaves SET leaf = CAST(substr(leaf, 1, 90) || X'0000' || substr(leaf, 93) AS BLOB) WHERE idx = 11`
	tests := map[string]struct {
		do   func(*testing.T, *world)
		leaf int64 // -2: no fault without a kept checkpoint
		says string
	}{
		"leaf changed": {func(t *testing.T, w *world) { w.raw(t, flip) }, 11, "is not what the tree was made of"},
		"leaf cut":     {func(t *testing.T, w *world) { w.raw(t, `UPDATE leaves SET leaf = X'00' WHERE idx = 4`) }, 4, "is not a leaf"},
		"leaf deleted": {func(t *testing.T, w *world) { w.raw(t, `DELETE FROM leaves WHERE idx = 5`) }, -3, "leaf 5 is not there"},
		"leaves swapped": {func(t *testing.T, w *world) {
			w.raw(t, `UPDATE leaves SET idx = 100 - idx WHERE idx IN (6, 7)`, `UPDATE leaves SET idx = idx - 87 WHERE idx > 90`)
		}, 6, "tree"},
		"hash changed":           {func(t *testing.T, w *world) { w.raw(t, `UPDATE hashes SET hash = zeroblob(32) WHERE idx = 14`) }, 7, "tree"},
		"hash deleted":           {func(t *testing.T, w *world) { w.raw(t, `DELETE FROM hashes WHERE idx = 14`) }, 7, "cannot be read"},
		"tail cut":               {func(t *testing.T, w *world) { w.raw(t, `DELETE FROM leaves WHERE idx >= 15`) }, 15, "ends before it"},
		"unsigned tail cut":      {func(t *testing.T, w *world) { w.raw(t, `DELETE FROM leaves WHERE idx >= 18`) }, 18, "hashes in place of"},
		"leaf and tree changed":  {func(t *testing.T, w *world) { w.raw(t, flip); w.regrow(t) }, 8, "signed over"},
		"unsigned leaf and tree": {func(t *testing.T, w *world) { w.raw(t, strings.ReplaceAll(flip, "11", "19")); w.regrow(t) }, -2, ""},
		"checkpoints unsigned":   {func(t *testing.T, w *world) { w.raw(t, `UPDATE checkpoints SET note = X'00' WHERE size = 8`) }, -1, "checkpoint of 8 leaves is not signed"},
		"checkpoints exchanged": {func(t *testing.T, w *world) {
			w.raw(t, `UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 8) WHERE size = 16`)
		}, -1, "another's"},
		"forged with the log key": {func(t *testing.T, w *world) { w.raw(t, flip, `DELETE FROM checkpoints`); w.regrow(t); w.checkpoint(t) }, -2, ""},
		"rolled back": {func(t *testing.T, w *world) {
			w.raw(t, `DELETE FROM leaves WHERE idx >= 10`, `DELETE FROM hashes WHERE idx >= 18`, `DELETE FROM checkpoints WHERE size > 10`)
		}, -2, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, n, 8, 16)
			kept := w.kept
			tt.do(t, w)
			_, err := audit.Verify(t.Context(), w.Vault, w.key.Verifier(), nil)
			f, isFault := errors.AsType[*audit.Fault](err)
			switch {
			case tt.leaf == -2 && err != nil:
				t.Errorf("%v", err)
			case tt.leaf == -3 && (!errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("%v, want %q", err, tt.says)
			case tt.leaf >= -1 && (!isFault || f.Leaf != tt.leaf || !strings.Contains(f.Reason, tt.says)):
				t.Errorf("%v, want leaf %d, %q", err, tt.leaf, tt.says)
			}
			_, err = audit.Verify(t.Context(), w.Vault, w.key.Verifier(), nil, kept...)
			if kept := name != "unsigned leaf and tree"; kept != (err != nil) {
				t.Errorf("with the checkpoint kept elsewhere: %v", err)
			}
		})
	}
}

// regrow makes all hashes anew, as an attacker would who knows how.
func (w *world) regrow(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.disk.Dir, "vault.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	leaves, err := w.LogLeaves(t.Context(), 0, w.n)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int64]tlog.Hash{}
	for i, b := range leaves {
		hs, err := tlog.StoredHashes(int64(i), b, tlog.HashReaderFunc(func(x []int64) (out []tlog.Hash, _ error) {
			for _, n := range x {
				out = append(out, all[n])
			}
			return out, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		for j, h := range hs {
			x := tlog.StoredHashIndex(0, int64(i)) + int64(j)
			all[x] = h
			if _, err := db.Exec(`UPDATE hashes SET hash = ? WHERE idx = ?`, h[:], x); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCheckpointRefusesAFork: the log's key does not sign what the last checkpoint is no part of.
// TestOpeningsTampered: whoever takes away what a leaf about roles attests has the roles before it again; the log is whole, and
// Verify names the leaf all the same.
func TestOpeningsTampered(t *testing.T) {
	for name, statement := range map[string]string{
		"whole":         `SELECT 1`,
		"roles removed": `DELETE FROM openings WHERE idx = 3`,
		"roles hidden":  `UPDATE openings SET owner = x'00' WHERE idx = 3`,
		"look changed":  `UPDATE openings SET opening = opening || x'00' WHERE idx = 4`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			for _, roles := range []string{"old", "new"} {
				if err := w.ChangeRoles(t.Context(), made, func([]byte) ([]byte, error) { return []byte(roles), nil }); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.AttestLook(t.Context(), []byte("x"), made); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", "file:"+filepath.Join(w.disk.Dir, "vault.db")+"?_pragma=busy_timeout(5000)")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
			_, err = audit.Verify(t.Context(), w, "", nil)
			if fault, bad := errors.AsType[*audit.Fault](err); bad == (name == "whole") || bad && fault.Leaf != 3 && fault.Leaf != 4 {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCheckpointRefusesAFork(t *testing.T) {
	w := newWorld(t, 12, 8)
	w.raw(t, `UPDATE hashes SET hash = zeroblob(32) WHERE idx = 14`) // the root of the first eight
	_, err := w.log.Checkpoint(t.Context(), made)
	if f, ok := errors.AsType[*audit.Fault](err); !ok || !strings.Contains(f.Reason, "first 8 leaves") {
		t.Errorf("%v", err)
	}
	w = newWorld(t, 12, 8)
	w.raw(t, `DELETE FROM leaves WHERE idx > 5`)
	if _, err := w.log.Checkpoint(t.Context(), made); err == nil {
		t.Error("signed a log that shrank")
	}
}

func TestParseCheckpoint(t *testing.T) {
	w := newWorld(t, 5)
	signed := string(w.checkpoint(t))
	again := string(w.checkpoint(t))
	if signed != again {
		t.Error("two checkpoints of one size")
	}
	if !strings.HasPrefix(signed, "dimegate/"+w.Archive().String()+"\n5\n") {
		t.Errorf("%s", signed)
	}
	other, err := audit.NewKey("dimegate/other", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ note, key string }{
		"another key":  {signed, other.Verifier()},
		"another size": {strings.Replace(signed, "\n5\n", "\n6\n", 1), w.key.Verifier()},
		"cut":          {signed[:len(signed)-3], w.key.Verifier()},
		"empty":        {"", w.key.Verifier()},
		"no key":       {signed, "x"},
		"huge":         {strings.Replace(signed, "\n5\n", "\n9223372036854775807\n", 1), w.key.Verifier()},
		"long":         {signed + strings.Repeat("x", 100_000), w.key.Verifier()},
	} {
		if tree, err := audit.ParseCheckpoint([]byte(c.note), c.key); err == nil {
			t.Errorf("%s: %+v", name, tree)
		}
	}
}

// A tree too large for any is no tree, whoever signed it: package tlog does not end on it.
func TestHugeTree(t *testing.T) {
	k, err := audit.NewKey("dimegate/x", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for size, ok := range map[int64]bool{1 << 56: true, 1<<56 + 1: false, 1<<63 - 1: false} {
		signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("dimegate/x\n%d\n%s\n", size, tlog.Hash{})}, k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.ParseCheckpoint(signed, k.Verifier()); ok != (err == nil) {
			t.Errorf("%d leaves: %v", size, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, 1000)
	for b.Loop() {
		if _, err := audit.Verify(b.Context(), w.Vault, "", nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "leaves/s")
}

package vault_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/vault"
)

// makeKey is a key operation: it writes a leaf.
func (f *fixture) makeKey(t testing.TB, n int) error {
	t.Helper()
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return f.AppendUserKey(t.Context(), vault.UserKey{Address: fmt.Sprintf("u%d@x.example", n), Number: 1, Signet: []byte("s"), Made: made}, vault.UserSecrets{Pair: p})
}

// TestGone: what would be written to files that no name leads to any more is refused, until they are back. A second gateway
// or a restore that put other files in their place is found alike.
func TestGone(t *testing.T) {
	move := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		harm, mend func(t *testing.T, dir string)
		shown      bool // Fault sees it without a write
	}{
		"database moved": {move("vault.db", "x"), move("x", "vault.db"), true},
		"log moved":      {move("vault.db-wal", "x"), move("x", "vault.db-wal"), false},
		"replaced": {func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "vault.db"))
			if err != nil {
				t.Fatal(err)
			}
			move("vault.db", "x")(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "vault.db"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, move("x", "vault.db"), true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newVault(t)
			if err := f.makeKey(t, 1); err != nil {
				t.Fatal(err)
			}
			if err := f.Fault(); err != nil {
				t.Fatal(err)
			}
			tt.harm(t, f.dir)
			if err := f.makeKey(t, 2); !errors.Is(err, vault.ErrGone) {
				t.Errorf("%v", err)
			}
			if err := f.Fault(); tt.shown != errors.Is(err, vault.ErrGone) {
				t.Errorf("fault: %v", err)
			}
			var readers sync.WaitGroup // connections that are opened now must not make another database
			for range 16 {
				readers.Go(func() {
					for range 50 {
						f.LogSize(t.Context())
						f.Checkpoints(t.Context(), 0, 10)
					}
				})
			}
			readers.Wait()
			if _, err := os.Stat(filepath.Join(f.dir, "vault.db")); name == "database moved" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a database was made: %v", err)
			}
			tt.mend(t, f.dir)
			if err := errors.Join(f.makeKey(t, 2), f.Fault()); err != nil {
				t.Errorf("back, and %v", err)
			}
		})
	}
}

// TestStuck: behind a commit that does not end nothing waits, and behind another process's neither; afterwards all is as before.
func TestStuck(t *testing.T) {
	f := newVault(t)
	release := f.Stick(t)
	waited := make(chan error, 1)
	mail := make(chan error, 1)
	go func() { waited <- f.makeKey(t, 1) }() // comes while it is not known yet
	go func() { mail <- f.AttestLook(t.Context(), []byte("x"), made) }()
	if err := <-waited; !errors.Is(err, vault.ErrStuck) {
		t.Errorf("%v", err)
	}
	select {
	case err := <-mail:
		t.Errorf("mail has no more patience than keys: %v", err)
	default:
	}
	if err := f.makeKey(t, 2); !errors.Is(err, vault.ErrStuck) { // comes when it is
		t.Errorf("%v", err)
	}
	if err := <-mail; !errors.Is(err, vault.ErrStuck) {
		t.Errorf("mail: %v", err)
	}
	if err := f.AttestLook(t.Context(), []byte("x"), made); !errors.Is(err, vault.ErrStuck) {
		t.Errorf("mail: %v", err)
	}
	if err := f.Fault(); !errors.Is(err, vault.ErrStuck) {
		t.Errorf("fault: %v", err)
	}
	release()
	for n := range 3 {
		if err := f.makeKey(t, n); err != nil {
			t.Error(err)
		}
	}

	other, err := sql.Open("sqlite", "file:"+filepath.Join(f.dir, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	if err := f.makeKey(t, 4); err == nil { // returns although the other never lets go
		t.Error("written through another's lock")
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := f.makeKey(t, 4); err != nil {
		t.Error(err)
	}
}

// TestBatchLost: where the engine undoes a whole transaction in the middle of a commit's work, nothing of it stands whose caller
// is told that it failed, neither what came before nor what came after.
func TestBatchLost(t *testing.T) {
	f := newVault(t)
	put := func(name string) func(*vault.Tx) error {
		return func(tx *vault.Tx) error { return tx.PutMeta(name, []byte("x")) }
	}
	for i, err := range f.Batch(put("before"), nil, put("after")) {
		if !errors.Is(err, vault.ErrFull) {
			t.Errorf("job %d: %v, want ErrFull", i, err)
		}
	}
	f.SetMaxPages(t, 1<<20)
	for _, name := range []string{"before", "after"} {
		if _, err := f.Meta(name); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound: its caller was told that it failed", name, err)
		}
	}
	if errs := f.Batch(put("later")); errs[0] != nil {
		t.Errorf("after it: %v", errs[0])
	}
}

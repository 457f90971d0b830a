package vault_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/vault"
)

// TestLedger: what was erased gets into the file once, what stood there stays, and a file that is not the archive's is not touched.
func TestLedger(t *testing.T) {
	f := newVault(t)
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "erasures")
	if _, err := vault.ReadLedger(path, f.Archive()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no ledger: %v", err)
	}
	record, _, _ := f.accept(t, 100, "bob@y.example")
	other := vault.RandomID()
	for i, id := range []vault.ID{record, other, other} {
		if err := f.Erase(id, made.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Record(ctx, record); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("erased record: %v", err)
	}
	want := []vault.Erasure{{Key: record, At: made}, {Key: other, At: made.Add(time.Hour)}}
	before := vault.Erasure{Key: vault.RandomID(), At: made.Add(-time.Hour)}
	line := before.At.Format(time.RFC3339) + " " + before.Key.String() + "\n"
	head := "dimegate-erasures-1 " + f.Archive().String() + "\n"
	for _, stands := range []string{"", head + line} {
		if stands != "" {
			if err := os.WriteFile(path, []byte(stands), 0o600); err != nil {
				t.Fatal(err)
			}
			want = slices.Insert(want, 0, before)
		}
		for range 2 {
			if err := f.SaveLedger(ctx, path); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := vault.ReadLedger(path, f.Archive()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "of another": strings.Replace(head, f.Archive().String(), other.String(), 1), "cut": head + line[:30],
		"no line feed": head + line[:len(line)-1], "not a time": head + "x" + line, "two ids": head + line[:len(line)-1] + " x\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.ReadLedger(path, f.Archive()); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.SaveLedger(ctx, path); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s, saved: %v", name, err)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("%s: was written over", name)
		}
	}
}

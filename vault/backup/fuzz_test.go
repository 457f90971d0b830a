package backup_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dimegate/vault"
	"dimegate/vault/backup"
)

// FuzzVerify: whatever a file holds, it is a backup or damaged, nothing is written outside and nothing left.
func FuzzVerify(f *testing.F) {
	for _, seed := range []string{"", "manifest.json", "../../evil", "bodies/../x", "host.seal"} {
		f.Add(tarOf(f, seed, []byte(`{"format":"dimegate-backup-1"}`)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "inner", "b.tar")
		check(t, os.Mkdir(filepath.Dir(file), 0o700))
		check(t, os.WriteFile(file, b, 0o600))
		if _, err := backup.Verify(t.Context(), file, "", nil); err == nil {
			t.Skip() // a fuzzer that makes a whole backup may
		}
		for _, folder := range []string{dir, filepath.Dir(file)} {
			if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
				t.Errorf("%s: %v, %v", folder, left, err)
			}
		}
	})
}

// FuzzLedger: a ledger is read whole or not at all.
func FuzzLedger(f *testing.F) {
	archive := vault.ID{1}
	f.Add([]byte("dimegate-erasures-1 " + archive.String() + "\n2026-12-01T03:00:00Z " + archive.String() + "\n"))
	f.Add([]byte("dimegate-erasures-1 " + archive.String() + "\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "l")
		check(t, os.WriteFile(path, b, 0o600))
		list, err := vault.ReadLedger(path, archive)
		if err != nil && (len(list) > 0 || !errors.Is(err, vault.ErrCorrupt)) {
			t.Errorf("%d entries, %v", len(list), err)
		}
	})
}

// tarOf is a tar with one file.
func tarOf(t testing.TB, name string, octets []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(octets))}))
	_, err := w.Write(octets)
	check(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

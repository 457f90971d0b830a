package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackup goes through a backup's life as an administrator does: the keys' folder, the backup, the loss of the vault, the restore.
func TestBackup(t *testing.T) {
	path, _ := initQueue(t, "a@x.example", "b@x.example")
	folder := filepath.Dir(path)
	keys, file := filepath.Join(folder, "keys"), filepath.Join(folder, "b.tar")
	run := func(want int, says string, args ...string) {
		t.Helper()
		code, out, errs := cli(t, args...)
		if code != want || !strings.Contains(out+errs, says) {
			t.Fatalf("%v: exit %d, want %d and %q:\n%s%s", args, code, want, says, out, errs)
		}
	}
	run(2, "backup.keys_folder", "backup", "create", "--config", path, file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(`keys_folder = ""`), []byte(`keys_folder = "keys"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	run(2, "keys_folder", "config", "check", "--config", path)
	run(1, "no such file", "backup", "create", "--config", path, file)
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	run(0, "not in it: 2 entries of the queue", "backup", "create", "--config", path, file)
	run(1, "never written over", "backup", "create", "--config", path, file)
	run(0, "its key opens all of them", "backup", "verify", "--keys", keys, file)
	run(0, "its key is not there", "backup", "verify", file)
	run(3, "move it away", "backup", "restore", "--config", path, file)
	if err := os.Rename(filepath.Join(folder, "data", "vault"), filepath.Join(folder, "lost")); err != nil {
		t.Fatal(err)
	}
	run(0, "2 recipients waited", "backup", "restore", "--config", path, file)
	run(0, "a.example", "keys", "list", "--config", path)
	run(0, "", "audit", "checkpoint", "--config", path)
	run(0, "restored", "audit", "verify", "--config", path)
	run(0, "", "audit", "reconcile", "--config", path)
	run(3, "move it away", "backup", "restore", "--config", path, file)
}

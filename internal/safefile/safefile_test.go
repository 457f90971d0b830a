package safefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/internal/safefile"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal")
	for _, content := range []string{"first", "", "second, and longer"} {
		if err := safefile.Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := safefile.ReadSecret(path, 100)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v, want %q", got, err, content)
		}
	}
	onlyFile(t, path)
}

func TestWriteFailedLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := safefile.Write(path, []byte("x")); err == nil {
		t.Error("wrote over a folder")
	}
	onlyFile(t, path)
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := safefile.Create(path, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	if err := safefile.Create(path, []byte("yours")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want fs.ErrExist", err)
	}
	if got, err := safefile.ReadSecret(path, 4); err != nil || string(got) != "mine" {
		t.Errorf("read %q, %v", got, err)
	}
	onlyFile(t, path)
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		mode  fs.FileMode
		limit int
		want  error
	}{
		"private":   {0o600, 6, nil},
		"read-only": {0o400, 6, nil},
		"group":     {0o640, 6, safefile.ErrOpenToOthers},
		"world":     {0o604, 6, safefile.ErrOpenToOthers},
		"write":     {0o622, 6, safefile.ErrOpenToOthers},
		"too long":  {0o600, 5, safefile.ErrTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			got, err := safefile.ReadSecret(path, tt.limit)
			if !errors.Is(err, tt.want) || (tt.want == nil) != (string(got) == "secret") {
				t.Fatalf("%q, %v, want %v", got, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not name the file", err)
			}
		})
	}
	if _, err := safefile.ReadSecret(dir, 10); err == nil {
		t.Error("read a folder")
	}
}

// onlyFile fails when the folder of path holds anything else, such as a temporary file that was left.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 || list[0].Name() != filepath.Base(path) {
		t.Errorf("folder holds %v, %v", list, err)
	}
}

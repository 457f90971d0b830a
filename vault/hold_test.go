package vault_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"dimegate/vault"
)

// What is held comes back as often as it is asked for; in a file it is sealed, and the file has no name.
func TestHold(t *testing.T) {
	const memory = 256 << 10
	for _, n := range []int{0, 1, memory, memory + 1, memory + segment, 3*memory + 7} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			f := newVault(t)
			v, dir := f.Vault, f.dir
			before := count(t, dir)
			want := []byte(strings.Repeat("the merger closes on Friday\r\n", n/29+1)[:n])
			h := v.NewHold()
			if _, err := io.CopyBuffer(struct{ io.Writer }{h}, iotest.HalfReader(bytes.NewReader(want)), make([]byte, 20_000)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				r, err := h.Reader()
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d octets came back, %v", len(got), err)
				}
			}
			if n > memory {
				if _, err := h.Write([]byte("x")); err == nil {
					t.Error("written after it was read")
				}
				sealed, err := os.ReadFile(deleted(t, dir))
				if err != nil || len(sealed) <= n || bytes.Contains(sealed, []byte("merger")) {
					t.Errorf("at rest: %d octets, %v", len(sealed), err)
				}
			}
			if after := count(t, dir); after != before {
				t.Errorf("%d names in the folder, %d before", after, before)
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A hold takes no more room than others may have.
func TestHoldFull(t *testing.T) {
	v := newVault(t).Vault
	v.KeepFree(1 << 60)
	h := v.NewHold()
	defer h.Close()
	if _, err := h.Write(make([]byte, 1000)); err != nil {
		t.Errorf("in memory: %v", err)
	}
	if _, err := h.Write(make([]byte, 1<<20)); !errors.Is(err, vault.ErrFull) {
		t.Errorf("no room: %v", err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// deleted finds the open file of the folder that has no name any more.
func deleted(t *testing.T, dir string) string {
	t.Helper()
	list, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range list {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, filepath.Join(dir, "hold-")) && strings.HasSuffix(to, " (deleted)") {
			return fd
		}
	}
	t.Fatal("no file was made")
	return ""
}

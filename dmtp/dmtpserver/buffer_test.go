package dmtpserver

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// TestBuffers: whatever the pieces, the octets come back; the bound is for all together; nothing is left.
func TestBuffers(t *testing.T) {
	const total = 4 << 20
	folder := t.TempDir()
	for name, all := range map[string]Buffers{"memory": NewMemory(total), "files": NewFiles(folder, total)} {
		t.Run(name, func(t *testing.T) {
			for _, octets := range []int{0, 1, inMemory - 1, inMemory, inMemory + 1, 3 << 20} {
				for _, piece := range []int{1000, 32 << 10, 3 << 20} {
					checkBuffer(t, all, octets, piece)
				}
			}
			first, err := all.New(3 << 20)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := first.Write(make([]byte, 3<<20)); err != nil {
				t.Fatal(err)
			}
			second, err := all.New(2 << 20)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := second.Write(make([]byte, 2<<20)); !errors.Is(err, ErrNoRoom) {
				t.Errorf("more than the bound: %v", err)
			}
			first.Release()
			if _, err := second.Write(make([]byte, 2<<20)); err != nil {
				t.Errorf("after a release: %v", err)
			}
			second.Release()
			checkBuffer(t, all, 3<<20, 1<<20)
		})
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func checkBuffer(t *testing.T, all Buffers, octets, piece int) {
	t.Helper()
	want := make([]byte, octets)
	for i := range want {
		want[i] = byte(i * 7 / 5)
	}
	b, err := all.New(uint64(octets))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	for rest := want; len(rest) > 0; {
		n := min(piece, len(rest))
		if _, err := b.Write(rest[:n]); err != nil {
			t.Fatalf("%d octets by %d: %v", octets, piece, err)
		}
		if rest = rest[n:]; len(rest) == octets/2 { // looked at meanwhile
			if got, err := b.Bytes(); err != nil || !bytes.Equal(got, want[:len(want)-len(rest)]) {
				t.Errorf("half of %d octets by %d: %d octets, %v", octets, piece, len(got), err)
			}
		}
	}
	if got, err := b.Bytes(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d octets by %d: %d octets, %v", octets, piece, len(got), err)
	}
}

package access

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dimegate/vault"
)

// TestChain has a record changed in every way that a line can be: each is found, but a last line that was cut, which told of nothing.
func TestChain(t *testing.T) {
	of := vault.NewDigest("test", []byte("case"))
	path := filepath.Join(t.TempDir(), "access.log")
	log, err := Open(path, of)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if err := log.Record(t.Context(), Entry{Person: "Rita", What: Fetch, Item: n + 1}, Entry{Person: "Rita", What: Search, Found: n}); err != nil {
			t.Fatal(err)
		}
	}
	head, count := log.Head()
	log.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := Read(bytes.NewReader(whole), of, nil)
	if err != nil || got != head || n != count || count != 8 {
		t.Fatalf("read again: %x of %d, %v", got, n, err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	without := func(i int) []byte {
		return bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil)
	}
	for name, octets := range map[string][]byte{
		"a line taken out":    without(3),
		"the first taken out": without(0),
		"a line twice":        append(bytes.Clone(lines[0]), whole...),
		"a person changed":    bytes.Replace(whole, []byte("Rita"), []byte("Rosa"), 1),
		"an empty line":       append([]byte("\n"), whole...),
		"a long line":         append(bytes.Repeat([]byte("x"), 3*maxEntry), whole...),
	} {
		if _, _, err := Read(bytes.NewReader(octets), of, nil); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Read(bytes.NewReader(whole), vault.NewDigest("test"), nil); !errors.Is(err, ErrBroken) {
		t.Errorf("of another case: %v", err)
	}
	if got, _, err := Read(bytes.NewReader(without(7)), of, nil); err != nil || got == head {
		t.Errorf("the last taken out has the same head, or is an error: %v", err) // the gateway's leaf tells
	}
	if err := os.WriteFile(path, append(bytes.Clone(whole), `{"n":9,"time":`...), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err = Open(path, of)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Record(t.Context(), Entry{What: Logout}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, whole) {
		t.Errorf("after a crash: %v", err)
	} else if _, n, err := Read(bytes.NewReader(after), of, nil); n != 9 || err != nil {
		t.Errorf("after a crash: %d entries, %v", n, err)
	}
}

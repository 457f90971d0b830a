// Package vectors gives tests the vectors that were made with libdime: a manifest and the files it names. The folder is
// DIMEGATE_VECTORS when that is set (another set of the same form: other names, addresses, sizes), else the one in
// testdata. Nothing is skipped: a missing folder, an empty part, an unknown key in an entry fail the test.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// EnvFolder names the environment variable that says where the vectors lie.
const EnvFolder = "DIMEGATE_VECTORS"

// A Set is one folder of vectors.
type Set struct {
	folder   string
	own      bool // the folder in testdata
	manifest map[string]json.RawMessage
}

// Open reads the manifest.
func Open(tb testing.TB) *Set {
	tb.Helper()
	s := &Set{folder: os.Getenv(EnvFolder)}
	if s.folder == "" {
		s.folder, s.own = filepath.Join(root(tb), "testdata", "vectors", "libdime"), true
	}
	b, err := os.ReadFile(filepath.Join(s.folder, "manifest.json"))
	if err != nil {
		tb.Fatalf("vectors: %v", err)
	}
	if err := json.Unmarshal(b, &s.manifest); err != nil {
		tb.Fatalf("vectors: manifest.json: %v", err)
	}
	if len(s.manifest) == 0 {
		tb.Fatal("vectors: manifest.json is empty")
	}
	return s
}

// root is the folder of go.mod: tests run in their package's folder.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("vectors: no go.mod above the test's folder")
		}
		dir = up
	}
}

// Own reports whether the set is the one in testdata, about whose names code may know more.
func (s *Set) Own() bool { return s.own }

// Parts are the names at the top of the manifest.
func (s *Set) Parts() []string {
	var parts []string
	for name := range s.manifest {
		parts = append(parts, name)
	}
	return parts
}

// File reads a file that the manifest names; an empty one fails.
func (s *Set) File(tb testing.TB, name string) []byte {
	tb.Helper()
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		tb.Fatalf("vectors: %q points out of the folder", name)
	}
	b, err := os.ReadFile(filepath.Join(s.folder, filepath.FromSlash(name)))
	if err != nil {
		tb.Fatalf("vectors: %v", err)
	}
	if len(b) == 0 {
		tb.Fatalf("vectors: %s is empty", name)
	}
	return b
}

// Part decodes one part of the manifest into a T. A part within a part is named with a dot: "crypto.chunks" would be the
// key chunks of the object crypto. Keys that T does not know fail, as do null and empty parts.
func Part[T any](tb testing.TB, s *Set, name string) T {
	tb.Helper()
	raw := lookup(tb, s.manifest, name)
	return Decode[T](tb, raw, name)
}

// JSONPart is Part for another JSON file of the set.
func JSONPart[T any](tb testing.TB, s *Set, file, name string) T {
	tb.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(s.File(tb, file), &m); err != nil {
		tb.Fatalf("vectors: %s: %v", file, err)
	}
	return Decode[T](tb, lookup(tb, m, name), file+": "+name)
}

func lookup(tb testing.TB, m map[string]json.RawMessage, name string) json.RawMessage {
	tb.Helper()
	first, rest, nested := strings.Cut(name, ".")
	raw, ok := m[first]
	if !ok {
		tb.Fatalf("vectors: no part %q", first)
	}
	if !nested {
		return raw
	}
	var inner map[string]json.RawMessage
	if err := json.Unmarshal(raw, &inner); err != nil {
		tb.Fatalf("vectors: part %q: %v", first, err)
	}
	return lookup(tb, inner, rest)
}

// Decode decodes raw strictly.
func Decode[T any](tb testing.TB, raw json.RawMessage, name string) T {
	tb.Helper()
	if s := string(bytes.TrimSpace(raw)); s == "null" || s == "{}" || s == "[]" {
		tb.Fatalf("vectors: part %q is empty", name)
	}
	var v T
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		tb.Fatalf("vectors: part %q: %v", name, err)
	}
	return v
}

// Each runs one subtest for each entry of a list, and so uses every one. name tells an entry's name.
func Each[T any](t *testing.T, list []T, name func(T) string, f func(t *testing.T, entry T)) {
	t.Helper()
	if len(list) == 0 {
		t.Fatal("vectors: an empty list")
	}
	for _, entry := range list {
		ran := false
		t.Run(name(entry), func(t *testing.T) {
			ran = true
			f(t, entry)
		})
		if !ran && !filtered() {
			t.Errorf("vectors: %s was not used", name(entry))
		}
	}
}

// filtered reports whether the go command was told to run some tests only.
func filtered() bool {
	for _, arg := range os.Args {
		if strings.Contains(arg, "test.run=") && strings.Contains(arg, "/") || strings.Contains(arg, "test.skip=") {
			return true
		}
	}
	return false
}

// Exceptions lists by name what ours answers otherwise than libdime, with the reason. A name may be a pattern of
// path.Match, as another set has other names.
type Exceptions map[string]string

// Has reports whether an entry is listed.
func (x Exceptions) Has(tb testing.TB, name string) bool {
	tb.Helper()
	for pattern, reason := range x {
		if ok, err := path.Match(pattern, name); err != nil || reason == "" {
			tb.Fatalf("vectors: exception %q: wrong pattern or no reason", pattern)
		} else if ok {
			return true
		}
	}
	return false
}

// Stale fails for exceptions that no entry of the own set needed.
func (x Exceptions) Stale(tb testing.TB, s *Set, names []string) {
	tb.Helper()
	if !s.own {
		return
	}
	for pattern := range x {
		needed := false
		for _, name := range names {
			ok, _ := path.Match(pattern, name)
			needed = needed || ok
		}
		if !needed {
			tb.Errorf("vectors: exception %q matches nothing: remove it", pattern)
		}
	}
}

// Hex is octets that the manifest writes in hexadecimal.
type Hex []byte

func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	octets, err := hex.DecodeString(s)
	*h = octets
	return err
}

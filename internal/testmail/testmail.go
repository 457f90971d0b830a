// Package testmail finds the messages that tests carry about: our own awkward ones, and the corpus of real ones that may
// lie beside the repository.
package testmail

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A Message is one file.
type Message struct {
	Name string // without its ending
	Raw  []byte
}

// Ours are the messages of testdata/messages, each there for one reason that its name tells.
func Ours(t testing.TB) []Message {
	t.Helper()
	return load(t, filepath.Join(root(t), "testdata", "messages"))
}

// Corpus are the messages of ../shared/corpus, or of the folder that DIMEGATE_CORPUS names. Where there are none the test is
// skipped by name; under CI=true it fails.
func Corpus(t testing.TB) []Message {
	t.Helper()
	folder := os.Getenv("DIMEGATE_CORPUS")
	if folder == "" {
		folder = filepath.Join(root(t), "..", "shared", "corpus")
	}
	if _, err := os.Stat(folder); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no corpus: ../shared/corpus is missing, and DIMEGATE_CORPUS names no other")
		}
		t.Skip("no corpus: ../shared/corpus is missing, and DIMEGATE_CORPUS names no other")
	}
	return load(t, folder)
}

func load(t testing.TB, folder string) []Message {
	t.Helper()
	all, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Load reads every .eml file of a folder and of those in it. That there is one is part of the question.
func Load(folder string) ([]Message, error) {
	var all []Message
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".eml" {
			return err
		}
		raw, err := os.ReadFile(path)
		name := filepath.Base(path)
		all = append(all, Message{Name: name[:len(name)-len(".eml")], Raw: raw})
		return err
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no .eml file in %s", folder)
	}
	return all, err
}

// LoadOurs is Ours for a program that runs in a folder of the repository.
func LoadOurs() ([]Message, error) {
	dir, err := findRoot()
	if err != nil {
		return nil, err
	}
	return Load(filepath.Join(dir, "testdata", "messages"))
}

// root is the repository's: the folder with go.mod, at or above the one that the test runs in, which is its package's.
func root(t testing.TB) string {
	t.Helper()
	dir, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod at or above %s", start)
		}
	}
}

package testpeer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A Message is one file of mail as it lies on disk.
type Message struct {
	Name string // file name without its end
	Raw  []byte
}

// Corpus is real-world mail that is not part of the repository: the folder in DIMEGATE_CORPUS, else
// ../shared/corpus/ruby-mail beside the repository. Missing in CI it is a failure, elsewhere a skip.
func Corpus(t testing.TB) []Message {
	t.Helper()
	dir := os.Getenv("DIMEGATE_CORPUS")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "corpus", "ruby-mail")
	}
	RequireFile(t, dir, "the corpus (DIMEGATE_CORPUS names another folder)")
	return messages(t, dir)
}

// OwnMessages is our own small set of awkward mail, testdata/messages.
func OwnMessages(t testing.TB) []Message {
	t.Helper()
	return messages(t, filepath.Join(Root(t), "testdata", "messages"))
}

func messages(t testing.TB, dir string) []Message {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no message in %s", dir)
	}
	var all []Message
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(f)
		all = append(all, Message{name[:len(name)-len(".eml")], raw})
	}
	return all
}

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); !errors.Is(err, os.ErrNotExist) {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("not inside the repository")
		}
		dir = filepath.Dir(dir)
	}
}

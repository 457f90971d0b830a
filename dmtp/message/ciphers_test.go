package message_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCiphersPage takes the file and the row out of docs/ciphers.md, builds them into this package, and runs the tests of every
// suite with it.
func TestCiphersPage(t *testing.T) {
	if testing.Short() {
		t.Skip("short: builds the package again")
	}
	page, err := os.ReadFile("../../docs/ciphers.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d pieces of Go on the page", len(blocks))
	}
	table, err := os.ReadFile("suites.go")
	if err != nil {
		t.Fatal(err)
	}
	const head = "var suites = []suite{\n"
	if strings.Count(string(table), head) != 1 {
		t.Fatal("suites.go has no table")
	}
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	replace := map[string]string{}
	for name, text := range map[string]string{"suite_site.go": blocks[0][1], "suites.go": strings.Replace(string(table), head, head+blocks[1][1], 1)} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(dir, name)] = path
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-v", "-run", "^TestLayerMatrix$", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestLayerMatrix/f001 ", "--- PASS: TestLayerMatrix/0201 "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

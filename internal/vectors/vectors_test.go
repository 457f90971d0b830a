package vectors_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dimegate/internal/vectors"
)

// users says which package's TestVectors tests use which part of the manifest. A part that is not here fails, and so does
// a package whose tests do not name its part.
var users = map[string]string{
	"generator": "", "set": "", "notes": "", // words for the reader

	"keys":                              "dmtp/key",
	"negative_armor":                    "dmtp/key",
	"signets":                           "dmtp/signet",
	"negative_signets":                  "dmtp/signet",
	"tool_refuses_chain_of_custody_ssr": "dmtp/signet",
	"tls":                               "dmtp/record",
	"management_records":                "dmtp/record",

	"crypto":              "dmtp/message",
	"messages":            "dmtp/message",
	"section_subsets":     "dmtp/message",
	"authoring_limits":    "dmtp/message",
	"wrong_reader":        "dmtp/message",
	"wrong_author_signet": "dmtp/message",
	"negative_messages":   "dmtp/message",
	"large_messages":      "dmtp/message",

	"dmtp_client":          "dmtp/...",
	"dmtp_command_library": "dmtp/...",
}

// helpers are the parts that tests read through a helper of another package.
var helpers = map[string]string{"dmtp_client": "transcript.Scenarios("}

func TestVectorsAllPartsAreUsed(t *testing.T) {
	for _, part := range vectors.Open(t).Parts() {
		user, ok := users[part]
		if !ok {
			t.Errorf("part %q of the manifest: no test is said to use it", part)
			continue
		}
		if user != "" && !uses(t, user, part) {
			t.Errorf("part %q of the manifest: no test of %s uses it", part, user)
		}
	}
}

// uses reports whether a test file of the package names the part.
func uses(t *testing.T, user, part string) bool {
	t.Helper()
	dir, tree := strings.CutSuffix(user, "/...")
	patterns := []string{filepath.Join("..", "..", dir, "*_test.go")}
	if tree {
		patterns = append(patterns, filepath.Join("..", "..", dir, "*", "*_test.go"))
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(files, func(file string) bool {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if helper, ok := helpers[part]; ok {
				return strings.Contains(string(b), helper)
			}
			return strings.Contains(string(b), `"`+part+`"`) || strings.Contains(string(b), `"`+part+`.`)
		})
	})
}

func TestExceptions(t *testing.T) {
	x := vectors.Exceptions{"order-*": "libdime takes any order", "dup-2": "libdime takes doubles"}
	for name, want := range map[string]bool{"order-4-5": true, "dup-2": true, "dup-22": false, "reorder-1": false} {
		if x.Has(t, name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

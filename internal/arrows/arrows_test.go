// Package arrows holds the test that keeps the house in order: which package may import which.
package arrows

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "dimegate/"

// A rule says what the packages at or under a path may import of ours, and what they may never import at all.
// The first rule whose path matches holds. An entry ending in "/..." stands for the package and all under it.
type rule struct {
	path  string
	may   []string
	never []string
}

// rules is the house of docs/decisions.md, a row a room.
var rules = []rule{
	{"dmtp/key", nil, []string{"net", "os", "log/slog", "time"}},
	{"dmtp/signet", []string{"dmtp/key"}, []string{"net", "os", "log/slog", "time"}},
	{"dmtp/message", []string{"dmtp/key", "dmtp/signet"}, []string{"net", "os", "log/slog", "time"}},
	{"dmtp/record", []string{"dmtp/key"}, []string{"net", "os", "log/slog", "time"}},
	{"dmtp/resolver", []string{"dmtp", "dmtp/key", "dmtp/signet", "dmtp/message", "dmtp/record"}, nil},
	{"dmtp/dmtpserver", []string{"dmtp", "dmtp/key", "dmtp/signet", "dmtp/message", "dmtp/record"}, nil},
	{"dmtp/dmtpclient", []string{"dmtp", "dmtp/key", "dmtp/signet", "dmtp/message", "dmtp/record"}, nil},
	{"dmtp", []string{"dmtp/key", "dmtp/signet", "dmtp/message", "dmtp/record"}, nil},
	{"bridge/translate", []string{"dmtp/key", "dmtp/signet", "dmtp/message"}, []string{"net", "os"}},
	{"bridge/queue", []string{"bridge", "internal/redact"}, []string{"net"}},
	{"bridge/mx", []string{"bridge/handoff", "bridge/mailauth", "bridge/scanner", "bridge/smtpwire", "bridge/translate"}, []string{"os"}},
	{"bridge/...", []string{"bridge/...", "dmtp/...", "internal/safefile", "internal/redact"}, nil},
	{"trustful/...", []string{"trustful/...", "dmtp/...", "internal/safefile", "internal/redact"}, nil},
	{"vault/audit", []string{"vault", "internal/safefile"}, []string{"net"}},
	{"vault/archive", []string{"vault", "vault/audit", "vault/escrow", "dmtp/...", "internal/safefile"}, []string{"net"}},
	{"vault/discovery", []string{"vault", "vault/archive", "vault/audit", "vault/escrow", "internal/safefile", "internal/killpoint"}, []string{"net"}},
	{"vault/discovery/...", []string{"vault/...", "dmtp/...", "internal/safefile", "internal/redact", "internal/killpoint"}, []string{"net"}},
	{"vault/escrow", []string{"vault", "internal/safefile"}, []string{"net"}},
	{"vault/backup", []string{"vault", "vault/audit", "internal/safefile", "internal/killpoint"}, []string{"net", "net/http"}},
	{"vault/discovery/...", []string{"vault/...", "dmtp/...", "internal/safefile", "internal/redact"}, []string{"net", "net/http"}},
	{"vault/...", []string{"vault/...", "dmtp/...", "internal/safefile", "internal/redact", "internal/killpoint"}, nil},
	{"appliance/config", nil, nil},
	{"configs", nil, nil},
	{"appliance/...", []string{"..."}, nil},
	{"cmd/...", []string{"..."}, nil},
	{"internal/...", []string{"..."}, nil},
}

func TestArrows(t *testing.T) {
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(rules, func(r rule) bool { return covers(r.path, path) })
		if i < 0 {
			t.Errorf("%s: no room in the house: add a rule, or put it where it belongs", path)
			continue
		}
		r := rules[i]
		for _, imp := range p.Imports {
			ours, isOurs := strings.CutPrefix(imp, module)
			if isOurs && !slices.ContainsFunc(r.may, func(m string) bool { return covers(m, ours) }) {
				t.Errorf("%s imports %s: wrong arrow", path, ours)
			}
			if slices.Contains(r.never, imp) {
				t.Errorf("%s imports %s: never there", path, imp)
			}
		}
	}
}

func covers(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if room, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == room || strings.HasPrefix(path, room+"/")
	}
	return pattern == path
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list names no package")
	}
	return all
}

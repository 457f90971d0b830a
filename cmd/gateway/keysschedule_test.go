package main

import (
	"strings"
	"testing"
)

// TestKeysSchedule lists it by the command.
func TestKeysSchedule(t *testing.T) {
	path := initKeys(t)
	code, out, errs := cli(t, "keys", "schedule", "--config", path)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code != 0 || len(lines) != 9 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if !strings.Contains(lines[4], "  certificate: renewal      0  ") || !strings.HasSuffix(lines[4], "tls/ecdsa.crt") || !strings.HasSuffix(lines[5], "tls/rsa.crt") {
		t.Errorf("certificates: %q", lines[4:6])
	}
	for i, want := range []string{"  primary key: rollover     1  a.example", "  secondary key: successor  1  a.example",
		"  primary key: rollover     1  b.example", "  secondary key: successor  1  b.example",
		"", "",
		"  destruction               1  alice@a.example", "  rotation                  2  alice@a.example", "  rotation                  1  bob@b.example"} {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("%q, want …%q", lines[i], want)
		}
	}
	if code, out, errs := cli(t, "keys", "schedule", "--due", "--config", path); code != 0 || out != "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	for name, want := range map[string]int{"B.example": 2, "Alice@a.example": 2} {
		if code, out, errs := cli(t, "keys", "schedule", "--config", path, name); code != 0 || strings.Count(out, "\n") != want {
			t.Errorf("%s: exit %d: %s%s", name, code, out, errs)
		}
	}
	for name, args := range map[string][]string{"two": {"a@x.test", "b@x.test"}, "no name": {"x y"}} {
		if code, _, errs := cli(t, append([]string{"keys", "schedule", "--config", path}, args...)...); code != 2 || errs == "" {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
}

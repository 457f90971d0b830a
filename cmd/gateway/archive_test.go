package main

import (
	"encoding/json"
	"strings"
	"testing"

	"dimegate/vault/archive"
)

// TestArchiveCommands: what they say where nothing is kept, and wrong use. What they do is the archive's test.
func TestArchiveCommands(t *testing.T) {
	path, _ := initQueue(t, "a@x.example")
	for _, row := range []struct {
		args string
		code int
		say  string
	}{
		{"erase bob@a.example", 2, "--reason says why"},
		{"erase --reason x bob", 2, "not an address"},
		{"erase --reason x", 2, "one address"},
		{"erase --reason x bob@a.example", 1, "nothing is kept of bob@a.example"},
		{"sweep now", 2, "no operand"},
		{"sweep", 0, "copies destroyed: 0"},
		{"sweep --dry-run", 0, "copies would be destroyed: 0"},
		{"erasures", 0, ""},
	} {
		args := strings.Fields(row.args)
		code, out, errs := cli(t, append([]string{"archive", args[0], "--config", path}, args[1:]...)...)
		if code != row.code || !strings.Contains(out+errs, row.say) {
			t.Errorf("archive %s: %d %s%s", row.args, code, out, errs)
		}
	}
	code, out, errs := cli(t, "archive", "sweep", "--json", "--config", path)
	var s archive.Swept
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil {
		t.Errorf("%d %s%s %v", code, out, errs, err)
	}
}

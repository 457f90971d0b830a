package main

import (
	"strings"
	"testing"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/vault/escrow"
)

// TestEscrowInstall: a key comes into force with the statements of all officers, once, and only one of ours.
func TestEscrowInstall(t *testing.T) {
	path, _ := initQueue(t)
	key := func(p escrow.Purpose, org string, quorum int) (transcript string, statements []string) {
		t.Helper()
		o, err := testescrow.NewOfficers(p, org, quorum, 3, time.Now())
		if err == nil {
			transcript, statements, err = o.Files(t.TempDir())
		}
		if err != nil {
			t.Fatal(err)
		}
		return transcript, statements
	}
	run := func(code int, say string, args ...string) {
		t.Helper()
		got, out, errs := cli(t, append([]string{"escrow", args[0], "--config", path}, args[1:]...)...)
		if got != code || !strings.Contains(out+errs, say) {
			t.Errorf("escrow %q: exit %d: %s%s", args, got, out, errs)
		}
	}
	ours, said := key(escrow.Discovery, "a.example", 2)
	foreign, theirs := key(escrow.Discovery, "b.example", 2)
	weak, weakly := key(escrow.Continuity, "a.example", 2)
	strong, strongly := key(escrow.Continuity, "a.example", 3)
	next, nextly := key(escrow.Discovery, "a.example", 2)
	run(0, "no escrow key is in force", "list")
	run(2, "name a transcript", "install", ours)
	run(3, "1 of 3 officers have not attested", "install", ours, said[0], said[1])
	run(1, "attests twice", "install", ours, said[0], said[1], said[1])
	run(1, "not by the one that was written down", append([]string{"install", "--dealer", "0123456789abcdef", ours}, said...)...)
	run(1, "says something else", append([]string{"install", ours}, theirs...)...)
	run(3, "no domain of this configuration", append([]string{"install", foreign}, theirs...)...)
	run(0, "in force", append([]string{"install", ours}, said...)...)
	run(3, "in force already", append([]string{"install", ours}, said...)...)
	run(3, "larger than that for discovery", append([]string{"install", weak}, weakly...)...)
	run(0, "continuity key of a.example", append([]string{"install", strong}, strongly...)...)
	run(0, `"in_force": true`, append([]string{"install", "--json", next}, nextly...)...)
	run(3, "has a successor", append([]string{"install", ours}, said...)...)
	run(0, "replaced: ", "list")
	run(0, `"in_force":true`, "list", "--json")
	if _, out, _ := cli(t, "audit", "verify", "--config", path); !strings.Contains(out, "3  epoch in force") {
		t.Errorf("the log: %s", out)
	}
}

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dimegate/internal/killpoint"
	"dimegate/internal/testpeer"
)

// buildKillpointsOnce compiles the gateway that can be struck.
var buildKillpointsOnce = sync.OnceValues(func() (string, error) { return Build(context.Background(), buildDir, "killpoints") })

// TestCrash is lab crash in short: each point once.
func TestCrash(t *testing.T) {
	testpeer.Require(t, "postfix", "dovecot", "unbound")
	binary, err := buildKillpointsOnce()
	if err != nil {
		t.Fatal(err)
	}
	r, err := crash(limited(t), testpeer.New(t), binary, crashPlan{messages: 60, kills: 1, origin: killpoint.Origin, destination: killpoint.Destination, progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.print(&text)
	t.Logf("%.0f s, %.0f of them until the last kill\n%s", r.Seconds, r.SecondsOfKills, text.String())
	if !r.OK || r.Kills < len(killpoint.Origin)+len(killpoint.Destination) {
		t.Errorf("not fine: %q", r.Why)
	}
}

// TestNoKillpoints: what is shipped has none, and looks for nothing in the environment. With the tag it does: so the test
// can see them.
func TestNoKillpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the gateway: left out by -short")
	}
	shipped, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	struck, err := buildKillpointsOnce()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{shipped: false, struck: true} {
		octets, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		program, err := elf.NewFile(bytes.NewReader(octets))
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := program.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		has := func(pkg string) bool {
			return slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return strings.HasPrefix(s.Name, "dimegate/"+pkg+".") })
		}
		if got := has("internal/killpoint"); got != want || !has("vault") {
			t.Errorf("%s: symbols of killpoint: %t, want %t", filepath.Base(path), got, want)
		}
		if got := bytes.Contains(octets, []byte(killpoint.ArmVariable)); got != want {
			t.Errorf("%s: the variable's name: %t, want %t", filepath.Base(path), got, want)
		}
	}
}

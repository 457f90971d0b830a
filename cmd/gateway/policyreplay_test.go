package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/bridge/exchange"
)

// TestPolicyReplay raises the floor over a week of plain mail: what was protected well enough goes on, the rest is held.
func TestPolicyReplay(t *testing.T) {
	dir := t.TempDir()
	old, changed := filepath.Join(dir, "gateway.toml"), filepath.Join(dir, "new.toml")
	text := "data_folder = \"data\"\n[[organization]]\ndomains = [\"a.test\"]\n"
	for path, policy := range map[string]string{old: "[policy]\nfloor = \"opportunistic\"\n", changed: "[policy]\nfloor = \"tls\"\n"} {
		if err := os.WriteFile(path, []byte(text+policy), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := cli(t, "init", "--config", old); code != 0 {
		t.Fatal(stderr)
	}
	c, err := config.Load(old)
	if err != nil {
		t.Fatal(err)
	}
	v, err := keystore.Open(t.Context(), c.Vault, false)
	if err != nil {
		t.Fatal(err)
	}
	h := bridge.NewHistory(keystore.History{Vault: v.Vault}, time.Hour, time.Now)
	for domain, rung := range map[string]exchange.Rung{"good.test": exchange.Authentic, "bare.test": exchange.Clear} {
		for range 3 {
			h.Add(bridge.Past{Sender: "x@a.test", Domain: domain, Situation: bridge.NoRecord, Floor: bridge.FloorOpportunistic, Action: bridge.SendSMTP, Offered: true, Rung: rung})
		}
	}
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"policy", "replay", "--config", old, "--since", "1h", "--with", changed}
	code, out, stderr := cli(t, append(args, "--json")...)
	var r appliance.Replay
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, stderr)
	}
	if r.Decisions != 6 || r.Changed != 3 || len(r.Changes) != 1 || r.Changes[0].Domain != "bare.test" || r.Changes[0].Was != "smtp" || r.Changes[0].Becomes != "hold" || r.Changes[0].Count != 3 {
		t.Errorf("%+v", r)
	}
	if code, out, _ = cli(t, args...); code != 0 || !strings.Contains(out, "6 decisions") || !strings.Contains(out, "3      bare.test  -       smtp  hold     global  ") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	for name, args := range map[string][]string{
		"no time":    {"--with", changed},
		"no file":    {"--since", "1h"},
		"wrong time": {"--since", "yesterday", "--with", changed},
		"ahead":      {"--since", "-1h", "--with", changed},
		"not there":  {"--since", "2026-11-01", "--with", filepath.Join(dir, "none.toml")},
		"an operand": {"--since", "1h", "--with", changed, "x"},
	} {
		if code, out, stderr := cli(t, append([]string{"policy", "replay", "--config", old}, args...)...); code != 2 || out != "" || stderr == "" {
			t.Errorf("%s: exit %d: %s%s", name, code, out, stderr)
		}
	}
}

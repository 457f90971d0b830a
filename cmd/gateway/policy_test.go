package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/bridge"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// TestPolicyExplain asks about domains whose DNS alone says it all; real servers are asked in the lab.
func TestPolicyExplain(t *testing.T) {
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zone.Zone{Name: "b.test", Algorithm: dns.ED25519, Records: []string{
		"null MX 0 .", "inside MX 10 mx", "mx A 127.0.0.1", `_dx.odd TXT "ver=1 pok=AAAA"`, "low MX 10 mx",
	}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tree.Serve(t.Context(), udp, tcp) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.toml")
	text := `data_folder = "data"
[[organization]]
domains = ["a.test"]
[dns]
resolvers = ["` + tcp.Addr().String() + `"]
trust_anchor_file = "anchor"
[policy.domain."low.b.test"]
floor = "dime"
[policy.sender."held@a.test"]
floor = "hold"
`
	for file, b := range map[string]string{path: text, filepath.Join(dir, "anchor"): tree.Anchor()} {
		if err := os.WriteFile(file, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := cli(t, "init", "--config", path); code != 0 {
		t.Fatal(stderr)
	}
	tests := map[string]struct {
		from, to       string
		more           []string
		action, status string
		layer          bridge.Layer
	}{
		"null MX":             {"x@a.test", "y@null.b.test", nil, "bounce", "5.1.10", bridge.Remote},
		"no such domain":      {"x@a.test", "y@nothing.b.test", nil, "bounce", "5.1.2", bridge.Remote},
		"null reverse-path":   {"<>", "y@null.b.test", nil, "bounce", "5.1.10", bridge.Remote},
		"an MX that is here":  {"x@a.test", "y@inside.b.test", nil, "hold", "5.4.4", bridge.Remote},
		"record of no kind":   {"x@a.test", "y@odd.b.test", nil, "hold", "5.7.5", bridge.Remote},
		"the domain's floor":  {"x@a.test", "y@low.b.test", nil, "bounce", "5.7.10", bridge.Domain},
		"the sender's floor":  {"Held@A.test", "y@low.b.test", nil, "hold", "5.7.1", bridge.Sender},
		"the sender's demand": {"x@a.test", "y@null.b.test", []string{"--require-dime"}, "bounce", "5.7.10", bridge.Sender},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"policy", "explain", "--config", path, "--from", tt.from, "--to", tt.to}, tt.more...)
			code, out, stderr := cli(t, append(args, "--json")...)
			var e bridge.Explanation
			if err := json.Unmarshal([]byte(out), &e); err != nil || code != 1 {
				t.Fatalf("exit %d, %v: %s%s", code, err, out, stderr)
			}
			if e.Action != tt.action || e.Status != tt.status || e.Layer != tt.layer || e.Rule == "" {
				t.Errorf("%+v", e)
			}
			code, out, _ = cli(t, args...)
			if code != 1 || !strings.Contains(out, "decision    "+tt.action+": ") || !strings.Contains(out, "rule        "+e.Rule+"\n") || !strings.Contains(out, "decided by  "+string(tt.layer)+"\n") {
				t.Errorf("exit %d:\n%s", code, out)
			}
		})
	}
}

func TestPolicyExplainUse(t *testing.T) {
	for name, args := range map[string][]string{
		"no sender":       {"--to", "b@c.test"},
		"no recipient":    {"--from", "b@c.test"},
		"an operand":      {"--from", "b@c.test", "--to", "b@c.test", "x"},
		"no address":      {"--from", "b@c.test", "--to", "c.test"},
		"half an address": {"--from", "b@", "--to", "b@c.test"},
		"size":            {"--from", "b@c.test", "--to", "b@c.test", "--size", "-1"},
		"no file":         {"--from", "b@c.test", "--to", "b@c.test", "--config", filepath.Join(t.TempDir(), "none.toml")},
	} {
		if code, out, stderr := cli(t, append([]string{"policy", "explain"}, args...)...); code != 2 || out != "" || stderr == "" {
			t.Errorf("%s: exit %d: %s%s", name, code, out, stderr)
		}
	}
}

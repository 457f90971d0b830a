package main

import (
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dimegate/appliance"
	"dimegate/vault/audit"
)

// TestWitness makes a witness by the commands, has it cosign over HTTP, and asks audit verify.
func TestWitness(t *testing.T) {
	path, _ := initQueue(t, "a@x.example")
	_, text, _ := cli(t, "audit", "checkpoint", "--json", "--config", path)
	var c struct{ Key string }
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "witness.key")
	code, public, errs := cli(t, "witness", "init", "--key", file, "--name", "witness.example")
	if public = strings.TrimSuffix(public, "\n"); code != 0 || !strings.HasPrefix(public, "witness.example+") {
		t.Fatalf("exit %d: %s%s", code, public, errs)
	}
	if code, _, _ := cli(t, "witness", "init", "--key", file, "--name", "witness.example"); code != 2 {
		t.Errorf("a second key took the first one's place: exit %d", code)
	}
	k, err := loadWitnessKey(file)
	if err != nil || k.Verifier() != public {
		t.Fatalf("%v", err)
	}
	w, err := audit.NewWitness(k, dir, []string{c.Key})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- appliance.ServeWitness(ctx, ln, w, nil, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	verify := func(want string, more ...string) {
		t.Helper()
		code, out, errs := cli(t, append([]string{"audit", "verify", "--json", "--config", path}, more...)...)
		if code != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	}
	verify(`"cosigned":0,"unprotected":[1-9]`, "--witness", public)
	remote, err := appliance.NewRemoteWitness("http://" + ln.Addr().String() + "/ " + public)
	if err != nil {
		t.Fatal(err)
	}
	_, o, err := openSealed(withLine(t.Context(), flag.NewFlagSet("gateway audit verify", flag.ContinueOnError), nil), path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	key, err := audit.VaultKey(t.Context(), o.Vault)
	if err != nil {
		t.Fatal(err)
	}
	log := audit.New(o.Vault, key)
	if _, err := log.Checkpoint(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := log.Cosign(t.Context(), remote); err != nil {
		t.Fatal(err)
	}
	verify(`"cosigned":[1-9][0-9]*,"unprotected":0`, "--witness", public)
	verify(`"cosigned":0,"unprotected":[1-9]`)
	for name, args := range map[string][]string{
		"no key file":    {"--key", filepath.Join(dir, "none"), "--state", dir, "--log", c.Key},
		"no folder":      {"--key", file, "--state", filepath.Join(dir, "none"), "--log", c.Key},
		"no log":         {"--key", file, "--state", dir},
		"no log's key":   {"--key", file, "--state", dir, "--log", public},
		"half a TLS":     {"--key", file, "--state", dir, "--log", c.Key, "--certificate", file},
		"no certificate": {"--key", file, "--state", dir, "--log", c.Key, "--certificate", file, "--certificate-key", file},
		"taken":          {"--key", file, "--state", dir, "--log", c.Key, "--listen", ln.Addr().String()},
	} {
		if code, _, errs := cli(t, append([]string{"witness", "run"}, args...)...); code != 2 || errs == "" {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
}

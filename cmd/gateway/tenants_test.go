package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/vault/escrow"
)

// TestOrganizations is the life of an installation that gets a second organisation, with a vault of its own: what commands do to one
// they do not do to the other, and they say so where it is not clear which is meant.
func TestOrganizations(t *testing.T) {
	folder := t.TempDir()
	path, data := filepath.Join(folder, "gateway.toml"), filepath.Join(folder, "data")
	run := func(code int, say string, args ...string) string {
		t.Helper()
		got, out, errs := cli(t, append(args, "--config", path)...)
		if got != code || !strings.Contains(out+errs, say) {
			t.Errorf("%q: exit %d, no %q in %s%s", args, got, say, out, errs)
		}
		return out
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("data_folder = \"data\"\n[backup]\nkeys_folder = \"keys\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	const first, own = "[[organization]]\nname = \"Alpha\"\ndomains = [\"a.example\"]\n", "[vault.own.b]\n"
	const second = "[[organization]]\nname = \"Bravo\"\ndomains = [\"b.example\"]\nvault = \"b\"\n"
	write(first)
	run(0, "made  keys and signet of a.example", "init")
	write(first + second + own)
	out := run(0, "made  keys and signet of b.example", "init")
	if !strings.Contains(out, "has   keys and signet of a.example") || !strings.Contains(out, filepath.Join(data, "seals", "b", "host.key")) {
		t.Errorf("init says %s", out)
	}

	for _, args := range [][]string{{"keys", "list"}, {"queue", "list"}, {"seal", "status"}, {"audit", "verify"}, {"roles", "list"}, {"trust", "list"}, {"escrow", "list"}} {
		run(2, "there are 2 vaults: say whose is meant with --organization: Alpha, Bravo", args...)
		run(2, "there is no such organisation or domain", append(args, "--organization", "c.example")...)
	}
	for _, args := range [][]string{{"keys", "list"}, {"queue", "list"}, {"seal", "test"}, {"audit", "verify"}, {"audit", "checkpoint"}, {"trust", "list"}, {"keys", "schedule"}, {"keys", "tls"}, {"escrow", "list"},
		{"backup", "create", filepath.Join(folder, "BACKUP")}} {
		args := func(name string) []string {
			all := append([]string{}, args...)
			for i := range all {
				all[i] = strings.Replace(all[i], "BACKUP", name+".tar", 1)
			}
			return append(all, "--organization", name)
		}
		alpha, bravo := run(0, "", args("a.example")...), run(0, "", args("Bravo")...)
		if strings.Contains(alpha, "b.example") || strings.Contains(bravo, "a.example") {
			t.Errorf("%q tells of another:\n%s\n%s", args("X"), alpha, bravo)
		}
	}
	run(0, "signet 1, current", "keys", "show", "b.example", "--organization", "Bravo")
	run(1, "has no keys here", "keys", "show", "b.example", "--organization", "Alpha")

	officers, err := testescrow.NewOfficers(escrow.Discovery, "a.example", 2, 3, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	transcript, said, err := officers.Files(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	install := append([]string{"escrow", "install", transcript}, said...)
	run(3, "the key is of a.example, which is no domain", append(install, "--organization", "Bravo")...)
	run(0, "in force", append(install, "--organization", "Alpha")...)
	run(0, "no escrow key is in force", "escrow", "list", "--organization", "Bravo")

	t.Setenv("SUDO_UID", "70000")
	run(0, "is now security-administrator", "roles", "grant", "security-administrator", "#70000", "--organization", "Alpha")
	t.Setenv("SUDO_UID", "70001")
	run(0, "is now security-administrator", "roles", "grant", "security-administrator", "#70001", "--organization", "Bravo")
	run(0, "host", "seal", "status", "--organization", "Bravo")
	run(3, "has no role", "seal", "status", "--organization", "Alpha")
	run(3, "has no role", "init") // of both
	t.Setenv("SUDO_UID", "70000")
	run(0, "host", "seal", "status", "--organization", "Alpha")
	run(3, "has no role", "seal", "add", "--organization", "Bravo")
	run(0, "is now security-administrator", "roles", "grant", "security-administrator", "#70001", "--organization", "Alpha")
	t.Setenv("SUDO_UID", "70001")

	write(first + "vault = \"b\"\n" + second + own)
	run(2, "a domain stays in the vault where it began", "init")
	write(first + second + own)
	lost := filepath.Join(data, "vaults", "b")
	if err := os.Rename(lost, lost+".lost"); err != nil {
		t.Fatal(err)
	}
	run(2, "but the vault that it opens does not", "init")
	run(2, "vault.own.b.folder", "keys", "list", "--organization", "Bravo")
	run(3, "is for: operator", "queue", "list", "--organization", "Alpha")
}

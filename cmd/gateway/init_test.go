package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/setup"
	"dimegate/dmtp/record"
)

func TestInit(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "etc", "gateway.toml")
	args := []string{"init", "--config", path, "--data", filepath.Join(folder, "data"), "--domain", "example.org,Example.net",
		"--dx", "dx.example.org", "--inner", "127.0.0.1:10025", "--name", "Example Ltd"}
	code, out, errs := cli(t, args...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"wrote " + path, "keys and signet of example.org", "keys and signet of example.net", "_dx.example.org. 3600 IN TXT (",
		"_dx.example.net. 3600 IN TXT (", "dx=dx.example.org", "host.key", "signing.key", "DNSSEC", "gateway run --config " + path, "127.0.0.1:10025"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code, _, errs := cli(t, "config", "check", "--config", path); code != 0 {
		t.Errorf("config check: exit %d: %s", code, errs)
	}
	if code, _, errs := cli(t, args...); code != 2 || !strings.Contains(errs, "exists already") {
		t.Errorf("the same again: exit %d: %s", code, errs)
	}
	code, out, errs = cli(t, "init", "--config", path, "--json")
	var made struct {
		Config string `json:"config"`
		setup.Made
	}
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s", code, err, errs)
	}
	if made.New || len(made.Domains) != 2 || made.Domains[1].New {
		t.Errorf("made again: %+v", made)
	}
	if _, err := record.Parse(made.Domains[0].Record); err != nil {
		t.Error(err)
	}
}

// TestInitRefuses wants exit code 2, the words, and nothing written.
func TestInitRefuses(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"no domain":           {nil, "--domain example.org"},
		"domain of no kind":   {[]string{"--domain", "exa mple"}, `organization[1].domains: "exa mple" is not a domain`},
		"address as dx":       {[]string{"--domain", "example.org", "--dx", "192.0.2.1"}, "organization[1].dx"},
		"inner without port":  {[]string{"--domain", "example.org", "--inner", "mail"}, "organization[1].inner: \"mail\" is not host:port"},
		"policy of no kind":   {[]string{"--domain", "example.org", "--policy", "lax"}, "organization[1].policy: \"lax\" is not one of"},
		"quotes in a name":    {[]string{"--domain", "example.org", "--inner", "a\"b:1"}, "organization[1].inner"},
		"operand":             {[]string{"example.org"}, "name a domain with --domain"},
		"unknown flag":        {[]string{"--domian", "example.org"}, "domian"},
		"data folder is full": {[]string{"--domain", "example.org"}, "exists already"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			data, path := filepath.Join(folder, "data"), filepath.Join(folder, "gateway.toml")
			if name == "data folder is full" {
				if err := os.MkdirAll(filepath.Join(data, "x"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"init", "--config", path}, tt.args...)
			if tt.args != nil {
				args = append(args, "--data", data)
			}
			code, _, errs := cli(t, args...)
			if code != 2 || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d: %s", code, errs)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a configuration was written")
			}
			if _, err := os.Stat(filepath.Join(data, "vault")); err == nil {
				t.Error("a vault was made")
			}
		})
	}
}

package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/testescrow"
	"dimegate/trustful"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// initKeys makes an installation with two domains, and a user who rotated once.
func initKeys(t *testing.T) (file string) {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "gateway.toml")
	if code, _, errs := cli(t, "init", "--config", path, "--data", filepath.Join(folder, "data"), "--domain", "a.example,b.example"); code != 0 {
		t.Fatal(errs)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := keystore.Open(t.Context(), c.Vault, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	k, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v.Vault}, Organization: keystore.Organization{Vault: v.Vault}, Grace: trustful.MinGrace,
		Layer: trustful.Layer{Offer: []message.SuiteID{message.SuiteX25519}, Always: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"alice@a.example", "bob@b.example"} {
		if _, err := k.Enrol(t.Context(), address); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Rotate(t.Context(), "alice@a.example"); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeys(t *testing.T) {
	path := initKeys(t)
	tests := map[string]struct {
		args []string
		code int
		want []string // in the output, or in the error
		not  string
	}{
		"list":             {[]string{"list"}, 0, []string{"  a.example\n", "  b.example\n", "  2  ", "  alice@a.example\n", "  bob@b.example\n"}, "%!"},
		"list a domain":    {[]string{"list", "A.example"}, 0, []string{"  a.example\n", "  alice@a.example\n"}, "bob@"},
		"list as JSON":     {[]string{"list", "--json", "a.example"}, 0, []string{`"name":"alice@a.example","kind":"user","number":2`}, "bob@"},
		"list no domain":   {[]string{"list", "a b"}, 2, []string{"is not a domain"}, "%!"},
		"show":             {[]string{"show", "Alice@a.example"}, 0, []string{"signet 1, past", "signet 2, current", "retired 20", "  alternate layer 0101 X25519 XChaCha20-Poly1305\n  alternate layer asked for in all mail\n"}, "%!"},
		"show a domain":    {[]string{"show", "a.example"}, 0, []string{"signet 1, current", "  alternate policy \"v=1; suites=0201,0202,0101; require=no\"\n"}, "signet 2"},
		"show nobody":      {[]string{"show", "carol@a.example"}, 1, []string{"carol@a.example has no keys here"}, "%!"},
		"show nothing":     {[]string{"show"}, 2, []string{"name a domain or an address"}, "%!"},
		"show no name":     {[]string{"show", "a b"}, 2, []string{"neither a domain nor an address"}, "%!"},
		"export":           {[]string{"export-signet", "alice@a.example"}, 0, []string{"-----BEGIN USER SIGNET-----"}, "PRIVATE"},
		"export a domain":  {[]string{"export-signet", "a.example"}, 0, []string{"-----BEGIN ORGANIZATIONAL SIGNET-----"}, "PRIVATE"},
		"export as JSON":   {[]string{"export-signet", "--json", "--form", "crypto", "a.example"}, 0, []string{`"form":"crypto"`}, "BEGIN"},
		"export in a form": {[]string{"export-signet", "--form", "half", "a.example"}, 2, []string{"--form"}, "%!"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"keys", tt.args[0], "--config", path}, tt.args[1:]...)
			code, out, errs := cli(t, args...)
			if code != tt.code {
				t.Fatalf("exit %d, want %d: %s", code, tt.code, errs)
			}
			for _, w := range tt.want {
				if !strings.Contains(out+errs, w) {
					t.Errorf("no %q in\n%s%s", w, out, errs)
				}
			}
			if strings.Contains(out, tt.not) {
				t.Errorf("%q in\n%s", tt.not, out)
			}
		})
	}
}

// TestKeysExportIsRead: what is exported is the current signet, and reads as one.
func TestKeysExportIsRead(t *testing.T) {
	path := initKeys(t)
	_, armored, _ := cli(t, "keys", "export-signet", "--config", path, "alice@a.example")
	s, err := signet.Decode([]byte(armored))
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ := cli(t, "keys", "show", "--config", path, "--json", "alice@a.example")
	var shown []shownSignet
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	id, err := s.Fingerprint(signet.ID)
	if err != nil || shown[1].ID != id.String() || !shown[1].Custody || shown[0].Custody || shown[0].Retired == nil || shown[1].Retired != nil {
		t.Errorf("%v: shown %+v", err, shown)
	}
	_, org, _ := cli(t, "keys", "export-signet", "--config", path, "a.example")
	o, err := signet.Decode([]byte(org))
	if err != nil || s.VerifyUser(o) != nil {
		t.Errorf("organisation: %v", err)
	}
}

// TestKeysEscrowed: keys show says which keys a continuity quorum opens.
func TestKeysEscrowed(t *testing.T) {
	path := initKeys(t)
	shows := func(want bool, args ...string) {
		t.Helper()
		code, out, errs := cli(t, append([]string{"keys", "show", "--config", path}, args...)...)
		if code != 0 || (strings.Contains(out, `"escrowed": true`) || strings.Contains(out, "sealed to the officers")) != want {
			t.Errorf("%v: %d %s %s", args, code, out, errs)
		}
	}
	shows(false, "bob@b.example")
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		v, err := keystore.Open(t.Context(), c.Vault, false)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		a, aerr := archive.Open(t.Context(), v.Vault)
		o, oerr := testescrow.NewOfficers(escrow.Continuity, "b.example", 2, 3, time.Now())
		if err := errors.Join(aerr, oerr); err != nil {
			t.Fatal(err)
		}
		if err := a.Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := v.EscrowUserKeys(t.Context(), a.KeepKeys(c.Archive.LongestRetention()), time.Now()); n != 3 || err != nil {
			t.Fatalf("%d keys, %v", n, err)
		}
	}()
	shows(true, "bob@b.example")
	shows(true, "--json", "alice@a.example")
	shows(false, "b.example")
}

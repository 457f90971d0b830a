package main

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/setup"
	"dimegate/dmtp/record"
	"dimegate/internal/testcert"
)

func TestKeysTLS(t *testing.T) {
	path := initKeys(t)
	next := testcert.RSA(t, "dx.a.example")
	file := filepath.Join(t.TempDir(), "next.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: next.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(args ...string) *record.Record {
		t.Helper()
		code, out, errs := cli(t, append([]string{"keys", "tls", "--config", path, "--json", "a.example"}, args...)...)
		var d setup.Domain
		if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil || d.Name != "a.example" || d.RecordName != "_dx.a.example." {
			t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
		}
		r, err := record.Parse(d.Record)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	now, then := read(), read("--also", file)
	if now.MatchesCertificate(next.Certificate[0]) || !then.MatchesCertificate(next.Certificate[0]) {
		t.Error("the next certificate is vouched for before it is named, or not after")
	}
	if len(now.TLS) == 0 || len(then.TLS) != len(now.TLS)+1 || then.TLS[0] != now.TLS[0] {
		t.Errorf("%d values, then %d: the live one must stay first", len(now.TLS), len(then.TLS))
	}
	code, out, _ := cli(t, "keys", "tls", "--config", path, "--also", file)
	for _, want := range []string{"_dx.a.example. 3600 IN TXT (", "_dx.b.example. 3600 IN TXT (", "vouches for " + file, "wait for its TTL"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s", code, want, out)
		}
	}
	for want, args := range map[string][]string{"is not a domain": {"a b"}, "one domain": {"a.example", "b.example"}, "does not begin with a PEM": {"--also", path}, "no such file": {"--also", file + "x"}} {
		if code, _, errs := cli(t, append([]string{"keys", "tls", "--config", path}, args...)...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d: %s", args, code, errs)
		}
	}
	if code, _, errs := cli(t, "keys", "tls", "--config", path, "c.example"); code != 1 || !strings.Contains(errs, "no keys here") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/vault/audit"
)

// TestAuditReconcile moves entries to every place that they can be in, and then takes one away behind the gateway's back.
func TestAuditReconcile(t *testing.T) {
	path, ids := initQueue(t, "held@x.example", "dropped@x.example", "failed@x.example", "waits@x.example", "stolen@y.example")
	for _, args := range [][]string{{"hold", ids[0]}, {"drop", ids[1]}, {"fail", ids[2]}} {
		if code, _, errs := cli(t, "queue", args[0], "--config", path, args[1]); code != 0 {
			t.Fatal(args, errs)
		}
	}
	reconcile := func(exit int, want audit.Reconciliation) {
		t.Helper()
		code, out, errs := cli(t, "audit", "reconcile", "--json", "--config", path)
		var r audit.Reconciliation
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exit {
			t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
		}
		if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
			t.Errorf("%+v\nwant %+v", r, want)
		}
	}
	reconcile(0, audit.Reconciliation{Accepted: 5, Bounced: 1, Dropped: 1, Held: 1, Queued: 2})
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rawChange(t, c, `DELETE FROM queue WHERE domain = ?`, "y.example")
	code, out, _ := cli(t, "audit", "reconcile", "--config", path)
	if code != 1 || !strings.Contains(out, "1  missing\n") || !strings.Contains(out, "MISSING: the recipient of leaf ") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// rawChange changes one row of the database behind the gateway's back.
func rawChange(t *testing.T, c *config.Config, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.Vault.Folder, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := r.RowsAffected(); n != 1 {
		t.Fatalf("%s: %d rows", statement, n)
	}
}

// TestAuditProve proves a leaf and checks the proof with nothing but the key; whatever is changed in it proves nothing.
func TestAuditProve(t *testing.T) {
	path, _ := initQueue(t, "a@x.example", "b@x.example")
	code, out, errs := cli(t, "audit", "prove", "--config", path, "2")
	var p audit.Proof
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	_, text, _ := cli(t, "audit", "checkpoint", "--json", "--config", path)
	var c struct{ Key string }
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "proof.json")
	check := func(p audit.Proof, key string) (int, string) {
		t.Helper()
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := cli(t, "audit", "prove", "--check", file, "--key", key)
		return code, out + errs
	}
	if code, out := check(p, c.Key); code != 0 || !strings.HasPrefix(out, "leaf 2, ") {
		t.Errorf("exit %d: %s", code, out)
	}
	for name, change := range map[string]func(*audit.Proof){
		"another leaf": func(p *audit.Proof) { p.Leaf[20] ^= 1 },
		"its type":     func(p *audit.Proof) { p.Leaf[4] = 20 },
		"its archive":  func(p *audit.Proof) { p.Leaf[13] ^= 1 },
		"no leaf":      func(p *audit.Proof) { p.Leaf = nil },
		"another place": func(p *audit.Proof) {
			p.Index--
		},
		"a place outside": func(p *audit.Proof) { p.Index = 1 << 40 },
		"before the log":  func(p *audit.Proof) { p.Index = -1 },
		"a hash":          func(p *audit.Proof) { p.Hashes[0][0] ^= 1 },
		"no hashes":       func(p *audit.Proof) { p.Hashes = nil },
		"the checkpoint":  func(p *audit.Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n", "1\n", 1) },
	} {
		var q audit.Proof
		if err := json.Unmarshal([]byte(out), &q); err != nil {
			t.Fatal(err)
		}
		change(&q)
		if code, out := check(q, c.Key); code != 1 && code != 2 || strings.Contains(out, "is in the log") {
			t.Errorf("%s: exit %d: %s", name, code, out)
		}
	}
	other, _ := initQueue(t)
	_, text, _ = cli(t, "audit", "checkpoint", "--json", "--config", other)
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if code, out := check(p, c.Key); code != 2 || strings.Contains(out, "is in the log") {
		t.Errorf("another's key: exit %d: %s", code, out)
	}
	for name, args := range map[string][]string{"no leaf": {}, "no number": {"x"}, "two": {"1", "2"}, "check without key": {"--check", file}, "no such leaf": {"999"}} {
		if code, out, errs := cli(t, append([]string{"audit", "prove", "--config", path}, args...)...); code == 0 || out != "" || errs == "" {
			t.Errorf("%s: exit %d: %s%s", name, code, out, errs)
		}
	}
}

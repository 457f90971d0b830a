package main

import (
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
)

// initQueue makes an installation with a message in the queue for each address, and returns the entries' ids.
func initQueue(t *testing.T, to ...string) (file string, ids []string) {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "gateway.toml")
	if code, _, errs := cli(t, "init", "--config", path, "--data", filepath.Join(folder, "data"), "--domain", "a.example"); code != 0 {
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
	q := queue.New(spool.Store{Vault: v.Vault}, queue.Options{})
	for _, a := range to {
		env := queue.Envelope{ReversePath: "alice@a.example", Recipients: []queue.Recipient{{Address: a}}}
		r, err := q.Accept(t.Context(), env, strings.NewReader("Subject: hello\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.Entries...)
	}
	return path, ids
}

// states lists the queue by the command and returns each entry's domain and state.
func states(t *testing.T, path string) map[string]string {
	t.Helper()
	code, out, errs := cli(t, "queue", "list", "--json", "--config", path)
	if code != 0 {
		t.Fatal(errs)
	}
	got := map[string]string{}
	for line := range strings.Lines(out) {
		var i queue.Info
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatal(err)
		}
		got[i.Domain] = i.State
	}
	return got
}

func TestQueue(t *testing.T) {
	path, ids := initQueue(t, "bob@b.example", "carol@c.example", "dave@d.example")
	steps := []struct {
		name string
		args []string
		code int
		want string // in output or error
	}{
		{"list", []string{"list"}, 0, ids[0]},
		{"list a domain", []string{"list", "C.example"}, 0, "c.example  18 octets  waiting"},
		{"show", []string{"show", ids[0]}, 0, "domain    b.example"},
		{"show as JSON", []string{"show", "--json", ids[0]}, 0, `"domain":"b.example","state":"waiting"`},
		{"show what is not there", []string{"show", "x"}, 1, "no such entry"},
		{"hold", []string{"hold", ids[0]}, 0, ids[0] + "  hold"},
		{"hold again", []string{"hold", "--json", ids[0]}, 1, `"ok":false,"error":"queue: not in that state: held"`},
		{"retry all", []string{"retry", "--all", "--json"}, 0, `{"id":"` + ids[1] + `","ok":true}`},
		{"fail a domain", []string{"fail", "--domain", "c.example"}, 0, ids[1] + "  fail"},
		{"drop", []string{"drop", ids[2]}, 0, ids[2] + "  drop"},
		{"drop again", []string{"drop", ids[2]}, 1, "no such entry"},
		{"nothing named", []string{"drop"}, 2, "entries, or --domain, or --all"},
		{"two ways", []string{"drop", "--all", ids[0]}, 2, "entries, or --domain, or --all"},
		{"no domain", []string{"list", "a b"}, 2, "is not a domain"},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			code, out, errs := cli(t, append([]string{"queue", s.args[0], "--config", path}, s.args[1:]...)...)
			if code != s.code || !strings.Contains(out+errs, s.want) {
				t.Errorf("exit %d, %q, %q; want %d, %q", code, out, errs, s.code, s.want)
			}
			if strings.Contains(out+errs, "bob") || strings.Contains(out+errs, "alice") {
				t.Errorf("an address is shown: %q", out+errs)
			}
		})
	}
	if got := states(t, path); len(got) != 2 || got["b.example"] != "held" || got["c.example"] != "notice" {
		t.Errorf("%v", got)
	}
}

func TestAudit(t *testing.T) {
	path, ids := initQueue(t, "bob@b.example")
	kept := filepath.Join(t.TempDir(), "checkpoint")
	code, note, errs := cli(t, "audit", "checkpoint", "--config", path)
	if code != 0 || !strings.HasPrefix(note, "dimegate/") {
		t.Fatalf("exit %d, %q, %q", code, note, errs)
	}
	if err := os.WriteFile(kept, []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := cli(t, "audit", "checkpoint", "--json", "--config", path)
	var point struct {
		Size      int64
		Note, Key string
	}
	if err := json.Unmarshal([]byte(out), &point); code != 0 || err != nil || point.Note != note || point.Size < 3 {
		t.Fatalf("exit %d, %v, %q, %q", code, err, out, errs)
	}
	if code, _, errs := cli(t, "queue", "drop", ids[0], "--config", path); code != 0 {
		t.Fatal(errs)
	}
	verify := func(args ...string) (int, auditReport) {
		t.Helper()
		code, out, errs := cli(t, append([]string{"audit", "verify", "--json", "--config", path}, args...)...)
		var r auditReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v, %q, %q", err, out, errs)
		}
		return code, r
	}
	for name, args := range map[string][]string{"bare": nil, "kept": {"--checkpoint", kept}, "by key": {"--key", point.Key, "--checkpoint", kept}} {
		if code, r := verify(args...); code != 0 || !r.OK || r.Size != point.Size+1 || r.Signed != point.Size || r.Leaves["dropped"] != 1 {
			t.Errorf("%s: exit %d, %+v", name, code, r)
		}
	}
	code, out, _ = cli(t, "audit", "verify", "--config", path)
	if code != 0 || !strings.Contains(out, "chain ok") {
		t.Errorf("exit %d, %q", code, out)
	}
	// Another log's checkpoint, and one that was changed.
	other, _ := initQueue(t)
	_, foreign, _ := cli(t, "audit", "checkpoint", "--config", other)
	for name, c := range map[string]string{"foreign": foreign, "changed": strings.Replace(note, "\n"+"d", "\nx", 1) + "x", "none": ""} {
		if err := os.WriteFile(kept, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := cli(t, "audit", "verify", "--config", path, "--checkpoint", kept); code != 2 || !strings.Contains(errs, kept) {
			t.Errorf("%s: exit %d, %q", name, code, errs)
		}
	}
	tamper(t, path)
	if code, r := verify(); code != 1 || r.OK || r.Leaf == nil || *r.Leaf != 1 {
		t.Errorf("changed: exit %d, %+v", code, r)
	}
}

// tamper changes leaf 1 in the database.
func tamper(t *testing.T, path string) {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.Vault.Folder, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE idx = 0) WHERE idx = 1`); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/internal/testcase"
	"dimegate/vault/discovery/evidence"
)

func TestEvidenceVerify(t *testing.T) {
	w, c := testcase.Opened(t, testcase.Message{Octets: []byte("Subject: a\r\n\r\nthe words of it\r\n")})
	var b bytes.Buffer
	if err := evidence.Write(t.Context(), &b, c, evidence.Input{Witnesses: w.Station.Trust().Witnesses, Requester: w.Keys.Signing(), Software: "test", Now: w.Now}); err != nil {
		t.Fatal(err)
	}
	file := func(name string, octets []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := dispatch(t.Context(), stdio{strings.NewReader(""), &out, &errs}, append([]string{"evidence", "verify"}, args...))
		return code, out.String() + errs.String()
	}
	whole := file("whole.zip", b.Bytes())
	changed := bytes.Replace(b.Bytes(), []byte("the words of it"), []byte("the words of us"), 1)
	code, out := run(whole)
	if code != 0 || !strings.Contains(out, "1 message") || !strings.Contains(out, "rita@example.org") || strings.Contains(out, "the words") {
		t.Fatalf("%d: %s", code, out)
	}
	_, start, _ := strings.Cut(out, "in lines like these:\n\n")
	if code, out := run("--trust", file("trust", []byte(start)), whole); code != 0 || !strings.Contains(out, "The keys that you named") {
		t.Errorf("its own keys: %d: %s", code, out)
	}
	if code, out := run("--trust", file("trust", []byte("dealer 0123456789abcdef\n")), whole); code != 1 || !strings.Contains(out, "NOT FINE: data/escrow/transcript.txt") {
		t.Errorf("another dealer: %d: %s", code, out)
	}
	if code, out := run(file("changed.zip", changed)); code != 1 || !strings.HasPrefix(out, "NOT FINE: data/messages/0000001/message.eml ") {
		t.Errorf("changed: %d: %s", code, out)
	}
	code, out = run("--json", file("changed.zip", changed))
	var got evidenceReport
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || got.OK || got.File != "data/messages/0000001/message.eml" || got.Reason == "" {
		t.Errorf("%d: %v: %s", code, err, out)
	}
	if code, out := run("--json", whole); code != 0 || !strings.Contains(out, `"ok":true`) || !strings.Contains(out, `"entries":1`) {
		t.Errorf("%d: %s", code, out)
	}
	for _, args := range [][]string{{}, {whole, whole}, {"/no/such/file"}, {t.TempDir()}, {"--trust", file("trust", []byte("x")), whole}} {
		if code, out := run(args...); code != 2 {
			t.Errorf("%q: %d: %s", args, code, out)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/bridge"
	"dimegate/internal/testcase"
	"dimegate/vault/discovery"
)

// TestCaseStation is the station's commands over a case that a gateway and two officers of three gave.
func TestCaseStation(t *testing.T) {
	w := testcase.New(t)
	dir := t.TempDir()
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte(testcase.Passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"the merger closes", "lunch", "the merger closes"} {
		e, err := json.Marshal(bridge.Arrival{Origin: "b.example", Author: "sender@example.net", Recipient: "alice@example.org", ReturnPath: "sender@example.net", At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		w.Seal(t, testcase.Message{Octets: []byte("Subject: " + []string{"plan", "food", "plan"}[i] + "\r\n\r\n" + text + "\r\n"), Stored: e})
	}
	w.Grant(t, 1, 2)
	gateway := func(want int, args ...string) string {
		t.Helper()
		var out, err bytes.Buffer
		if len(args) > 3 && args[2] != "init" {
			args = append(args, "--passphrase-file", pass)
		}
		if got := dispatch(t.Context(), stdio{strings.NewReader(""), &out, &err}, args); got != want {
			t.Fatalf("gateway %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, &out, &err)
		}
		return out.String() + err.String()
	}
	has := func(text, part string) {
		t.Helper()
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %q", part, text)
		}
	}
	s := []string{"case", "station"}
	cmd := func(args ...string) []string { return append(append([]string{}, s...), args...) }
	has(gateway(3, cmd("list", w.Folder())...), "no case file was opened here yet")
	gateway(2, cmd("open", w.Folder(), filepath.Join(dir, "absent.zip"))...)
	has(gateway(0, cmd("open", w.Folder(), w.CaseFile)...), "opened 3 entries of 3, 0 before this run: 2 items")
	has(gateway(0, cmd("open", "--json", w.Folder())...), `"opened_before":3`)
	has(gateway(0, cmd("list", w.Folder())...), "plan")
	var row struct {
		Number    int                  `json:"number"`
		Subject   string               `json:"subject"`
		Envelopes []discovery.Envelope `json:"envelopes"`
	}
	if err := json.Unmarshal([]byte(strings.SplitN(gateway(0, cmd("list", "--json", w.Folder())...), "\n", 2)[0]), &row); err != nil || row.Number != 1 || row.Subject != "plan" || len(row.Envelopes) != 2 {
		t.Errorf("row %+v, %v", row, err)
	}
	has(gateway(0, cmd("search", "--json", w.Folder(), "merger")...), `{"found":[1],"not_searched_whole":[]}`)
	gateway(2, cmd("search", w.Folder(), "OR")...)
	gateway(0, cmd("mark", w.Folder(), "privilege", "1-2")...)
	gateway(0, cmd("mark", "--remove", w.Folder(), "privilege", "2")...)
	if got := gateway(0, cmd("list", "--mark", "privilege", w.Folder())...); strings.Count(got, "\n") != 1 {
		t.Errorf("marked: %q", got)
	}
	gateway(2, cmd("mark", w.Folder(), "privilege", "3")...)
	if got := gateway(0, cmd("show", w.Folder(), "2")...); got != "Subject: food\r\n\r\nlunch\r\n" {
		t.Errorf("shown: %q", got)
	}
	gateway(2, cmd("show", w.Folder(), "9")...)
	usb := filepath.Join(dir, "usb")
	gateway(2, cmd("export", w.Folder())...)
	gateway(2, cmd("export", "--out", usb, "--format", "eml,pst", w.Folder())...)
	has(gateway(0, cmd("export", "--out", usb, "--format", "eml,mbox,dat,csv,evidence", w.Folder())...), "2 items, 1 withheld, 24 octets in 1 volume under")
	if b, err := os.ReadFile(filepath.Join(usb, "VOL001", "NATIVES", "DG00000002.eml")); err != nil || string(b) != "Subject: food\r\n\r\nlunch\r\n" {
		t.Errorf("native: %q, %v", b, err)
	}
	packages, err := filepath.Glob(filepath.Join(usb, "evidence-*.zip"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("packages: %q, %v", packages, err)
	}
	has(gateway(0, "evidence", "verify", packages[0]), "1 message")
	gateway(2, cmd("export", "--out", usb, "--format", "evidence", w.Folder())...)
	has(gateway(0, cmd("export", "--out", usb, "--format", "eml,mbox,dat,csv", "--json", w.Folder())...), `"kept":1`)
	closing := filepath.Join(dir, "closing.json")
	has(gateway(2, cmd("close", "--out", closing, w.Folder())...), "nothing is signed without a yes")
	has(gateway(0, cmd("close", "--yes", "--export", strings.TrimSuffix(packages[0], ".zip")+".manifest", "--out", closing, w.Folder())...), "closed: 3 records were opened")
	if _, err := os.Stat(closing); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{cmd("list", w.Folder()), cmd("open", w.Folder(), w.CaseFile), cmd("show", w.Folder(), "1"), cmd("close", "--yes", "--out", closing, w.Folder())} {
		has(gateway(3, args...), "closed")
	}
	gateway(2, cmd("init", "--requester", "Rita", "--log", "x", "--witness", "y", filepath.Join(dir, "s"))...)
	gateway(2, cmd("list", dir)...)
}

// TestCaseStationKilled ends an opening by SIGKILL in its middle, as often as it takes for the end to come in between, and runs it again:
// it goes on behind what was kept, and the items are all.
func TestCaseStationKilled(t *testing.T) {
	const messages = 600
	w := testcase.New(t)
	e, err := json.Marshal(bridge.Arrival{Origin: "b.example", Author: "sender@example.net", Recipient: "alice@example.org", ReturnPath: "sender@example.net", At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		w.Seal(t, testcase.Message{Octets: fmt.Appendf(nil, "Subject: %d\r\n\r\n", i), Stored: e})
	}
	w.Grant(t, 1, 2)
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte(testcase.Passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gateway := func() (*exec.Cmd, *bytes.Buffer) {
		out := &bytes.Buffer{}
		c := exec.CommandContext(t.Context(), self)
		c.Args = []string{"gateway", "case", "station", "open", "--json", "--passphrase-file", pass, w.Folder(), w.CaseFile} // see TestMain
		c.Stdout, c.Stderr = out, out
		return c, out
	}
	journal := filepath.Join(w.Folder(), "opened")
	size := func() int64 {
		st, err := os.Stat(journal)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	killed := 0
	for killed < 2 {
		c, out := gateway()
		before := size()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		for size() < before+20_000 && len(ended) == 0 {
			time.Sleep(time.Millisecond)
		}
		c.Process.Kill()
		if err := <-ended; err == nil {
			t.Fatalf("it ended before it was killed, after %d kills: %s", killed, out)
		}
		killed++
	}
	c, out := gateway()
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var r struct {
		Opened int `json:"opened"`
		Before int `json:"opened_before"`
		Items  int `json:"items"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Opened != messages || r.Items != messages || r.Before < 10 || r.Before >= messages {
		t.Errorf("%v: %s", err, out)
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/bridge"
	"dimegate/internal/testcase"
	"dimegate/vault/discovery"
)

// TestCaseMailbox: the commands of the mailbox over an opened case, from a credential to the leaf's worth in the closing file.
func TestCaseMailbox(t *testing.T) {
	w := testcase.New(t)
	dir := t.TempDir()
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte(testcase.Passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		e, err := json.Marshal(bridge.Arrival{Author: "sender@example.net", Recipient: "alice@example.org", ReturnPath: "sender@example.net", At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		w.Seal(t, testcase.Message{Octets: []byte("Subject: " + text + "\r\n\r\n" + text + "\r\n"), Stored: e})
	}
	w.Grant(t, 1, 2)
	gateway := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := dispatch(t.Context(), stdio{strings.NewReader(""), &out, &errs}, append([]string{"case", "station"}, args...)); got != want {
			t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, want, &out, &errs)
		}
		return out.String() + errs.String()
	}
	gateway(0, "open", "--passphrase-file", pass, w.Folder(), w.CaseFile)
	gateway(2, "credential", w.Folder())
	gateway(2, "credential", "--person", "Rita", "--valid", "1000h", w.Folder())
	var c struct{ User, Password string }
	if err := json.Unmarshal([]byte(gateway(0, "credential", "--person", "Rita", "--json", w.Folder())), &c); err != nil {
		t.Fatal(err)
	}
	gateway(2, "mailbox", "--certificate", "x", w.Folder())

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said, out := io.Pipe()
	ended := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		ended <- dispatch(ctx, stdio{strings.NewReader(""), out, &errs}, []string{"case", "station", "mailbox", "--listen", "127.0.0.1:0", "--json", "--passphrase-file", pass, w.Folder()})
		out.Close()
	}()
	var at struct {
		Listen      string
		Certificate string `json:"certificate_sha256"`
		Items       int
	}
	if err := json.NewDecoder(said).Decode(&at); err != nil || at.Items != 2 {
		t.Fatalf("%+v, %v\n%s", at, err, &errs)
	}
	conn, err := tls.Dial("tcp", at.Listen, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { // by its fingerprint, as a person does
		if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !strings.EqualFold(hex.EncodeToString(sum[:]), at.Certificate) {
			return fmt.Errorf("another certificate")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(conn)
	do := func(command string) string {
		t.Helper()
		fmt.Fprintf(conn, "a %s\r\n", command)
		var all strings.Builder
		for {
			line, err := r.ReadString('\n')
			all.WriteString(line)
			if err != nil || strings.HasPrefix(line, "a ") {
				return all.String()
			}
		}
	}
	if got := do("LOGIN " + c.User + " " + c.Password); !strings.Contains(got, "a OK") {
		t.Fatal(got)
	}
	do("SELECT INBOX")
	if got := do("FETCH 2 BODY[]"); !strings.Contains(got, "Subject: two") {
		t.Error(got)
	}
	gateway(0, "mark", "--passphrase-file", pass, w.Folder(), discovery.MarkPrivilege, "2")
	if got := do("FETCH 2 BODY[]"); strings.Contains(got, "two") || !strings.Contains(got, "withheld") {
		t.Errorf("marked meanwhile: %s", got)
	}
	closing := filepath.Join(dir, "closing.json")
	gateway(0, "close", "--yes", "--out", closing, "--passphrase-file", pass, w.Folder())
	if code := <-ended; code != 0 {
		t.Errorf("the mailbox of a case that was closed ended with %d: %s", code, &errs)
	}
	if got := do("NOOP"); strings.Contains(got, "a OK") {
		t.Errorf("after the close: %s", got)
	}
	b, err := os.ReadFile(closing)
	if err != nil {
		t.Fatal(err)
	}
	x, err := discovery.ParseClosing(b, w.Station.Selection().Manifest)
	if err != nil || x.Accesses != 2 { // login and one message; the end of the session came after
		t.Errorf("closing %+v, %v", x, err)
	}
	gateway(3, "credential", "--person", "Rita", w.Folder())
}

package imapserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"
	"dimegate/vault/discovery/access"
)

// authority writes the mailbox's certificate where other programs look for it.
func (f *fixture) authority(t *testing.T) string {
	path := filepath.Join(f.folder, "mailbox.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate.Certificate[0]})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fixture) port() string {
	_, port, _ := net.SplitHostPort(f.addr)
	return port
}

// imaplib runs testdata/client.py.
func (f *fixture) imaplib(t *testing.T, user, password string) (got imaplibReport) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/client.py", f.port(), f.authority(t), user, password)
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Fatalf("client.py: %v\n%s", err, stderr(err))
	}
	return got
}

func stderr(err error) []byte {
	if e, ok := err.(*exec.ExitError); ok {
		return e.Stderr
	}
	return nil
}

type imaplibReport struct {
	Login                   string
	Bodies, Halves, Refused map[string]string
	Search                  map[string]string
	Exists, Flags           int
	Close                   string
	Readonly                bool
}

func TestImaplib(t *testing.T) {
	testpeer.Require(t, "python3")
	s := awkward(t)
	f := newMailbox(t, s, time.Hour).start(t)
	user, password := f.credential(t, 3*time.Minute)
	got := f.imaplib(t, user, password)
	if got.Login != "OK" || len(got.Bodies) != len(s.list) {
		t.Fatalf("login %q, %d bodies of %d", got.Login, len(got.Bodies), len(s.list))
	}
	for n, octets := range s.octets {
		want := sha256.Sum256(octets)
		uid := strconv.Itoa(n)
		if got.Bodies[uid] != hex.EncodeToString(want[:]) || got.Halves[uid] != got.Bodies[uid] {
			t.Errorf("UID %d: not the same octets", n)
		}
	}
	if len(got.Refused) != 22 {
		t.Errorf("%d writes tried", len(got.Refused))
	}
	for name, reply := range got.Refused {
		if reply != "NO" && !strings.Contains(reply, "BAD") && !strings.Contains(reply, "read-only") {
			t.Errorf("%s: %s", name, reply)
		}
	}
	for keys, reply := range got.Search {
		if reply != "OK" {
			t.Errorf("SEARCH %s: %s", keys, reply)
		}
	}
	if !got.Readonly {
		t.Error("SELECT did not say that the mailbox is read-only")
	}
	if got.Exists != len(s.list) || got.Flags != len(s.list) || got.Close != "OK" {
		t.Errorf("after the writes: %d messages, %d without flags, CLOSE %s", got.Exists, got.Flags, got.Close)
	}
	fetched := 0
	for _, a := range f.entries(t) {
		if a.What == access.Fetch {
			fetched++
		}
	}
	if fetched != 4*len(s.list) {
		t.Errorf("%d fetches in the record, want %d", fetched, 4*len(s.list))
	}
	if got := f.imaplib(t, user, password); !strings.Contains(got.Login, "has served its one session") {
		t.Errorf("again with the same credential: %s", got.Login)
	}
	late, secret, err := f.Credentials.Make("Rita", f.Case, time.Now().Add(-time.Hour), time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.imaplib(t, late, secret); !strings.Contains(got.Login, "EXPIRED") {
		t.Errorf("after expiry: %s", got.Login)
	}
}

// ofMbsync is the field that it adds to each message, to find it again.
var ofMbsync = regexp.MustCompile(`(?m)^X-TUID: .{12}\n`)

// TestMbsync pulls the case with mbsync, and then has it push what a careless reader did to his copy.
func TestMbsync(t *testing.T) {
	t.Parallel()
	testpeer.Require(t, "mbsync")
	s := &items{}
	for _, m := range awkward(t).octets {
		lines := bytes.Count(m, []byte("\r\n"))
		if bytes.Contains(m, []byte("\r\n\r\n")) && bytes.Count(m, []byte("\n")) == lines && bytes.Count(m, []byte("\r")) == lines {
			s.add(m) // mbsync skips a header without end, and its maildir has LF for CRLF
		}
	}
	f := newMailbox(t, s, time.Hour).start(t)
	mail := filepath.Join(f.folder, "mail")
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(mail, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, err := f.mbsync(t, mail, "Pull")
	if err != nil {
		t.Fatalf("mbsync: %v\n%s", err, out)
	}
	var got, want []string
	files, _ := filepath.Glob(filepath.Join(mail, "*", "*,*"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b = ofMbsync.ReplaceAll(b, nil)
		got = append(got, digestOf(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))))
	}
	for _, b := range s.octets {
		want = append(want, digestOf(b))
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("mbsync has %d messages, of which not all are the %d that there are\n%s", len(got), len(want), out)
	}
	// now it deletes one, marks another and adds a third, and says so to the server
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(files[1], strings.Replace(files[1], "/new/", "/cur/", 1)+":2,FS"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mail, "cur", "planted:2,S"), []byte("Subject: planted\n\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = f.mbsync(t, mail, "All\nExpunge Both\nCreate Both")
	for _, command := range []string{"UID STORE", "UID STORE", "APPEND"} {
		_, rest, refused := strings.Cut(out, "IMAP command '"+command)
		if !refused || !strings.Contains(rest, "returned an error: NO [NOPERM] This mailbox is read-only") {
			t.Errorf("%s of mbsync was not refused (%v):\n%s", command, err, out)
		}
		out = rest
	}
	c := f.login(t)
	if got := c.must("SELECT INBOX"); !strings.Contains(got, fmt.Sprintf("* %d EXISTS", len(want))) {
		t.Errorf("after mbsync pushed: %s", got)
	}
	if got := c.must("FETCH 1:* FLAGS"); strings.Count(got, "FLAGS ()") != len(want) {
		t.Errorf("after mbsync pushed: %s", got)
	}
}

func digestOf(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }

func (f *fixture) mbsync(t *testing.T, mail, sync string) (string, error) {
	t.Helper()
	user, password := f.credential(t, time.Hour)
	secret := filepath.Join(f.folder, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(f.folder, "mbsyncrc")
	text := fmt.Sprintf("IMAPAccount case\nHost 127.0.0.1\nPort %s\nUser %s\nPassCmd \"cat %s\"\nSSLType IMAPS\nCertificateFile %s\n\n"+
		"IMAPStore far\nAccount case\n\nMaildirStore near\nInbox %s\n\nChannel case\nFar :far:\nNear :near:\nSync %s\nSyncState *\n",
		f.port(), user, secret, f.authority(t), mail, sync)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mbsync", "-c", config, "-V", "case").CombinedOutput()
	return string(out), err
}

package imapserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dimegate/internal/testmail"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// items is a case in memory.
type items struct {
	mu     sync.Mutex
	list   []discovery.Item
	octets map[int][]byte
}

func (s *items) Items() []discovery.Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *items) Open(_ context.Context, n int) (io.ReadCloser, error) {
	b, ok := s.octets[n]
	if !ok {
		return nil, errors.New("no such item")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *items) add(octets []byte) int {
	n := len(s.list) + 1
	day := time.Date(2026, 3, 1+n%20, 9, 0, n%60, 0, time.UTC)
	s.list = append(s.list, discovery.Item{
		Number: n, Record: vault.NewID(day), Octets: int64(len(octets)), Content: vault.NewDigest("octets", octets),
		Envelopes: []discovery.Envelope{{Received: day, From: "a@alpha.example", Recipients: []string{"b@beta.example"}}},
	})
	if s.octets == nil {
		s.octets = map[int][]byte{}
	}
	s.octets[n] = octets
	return n
}

func (s *items) mark(n int, mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list[n-1].Marks = append(s.list[n-1].Marks, mark)
}

// awkward is every message of the tree that has octets.
func awkward(t testing.TB) *items {
	s := &items{}
	for _, m := range testmail.Ours(t) {
		if len(m.Raw) > 0 {
			s.add(m.Raw)
		}
	}
	return s
}

// A fixture is a mailbox that runs.
type fixture struct {
	*Mailbox
	addr   string
	record *access.Log
	log    *lockedBuffer
	ended  chan error
	roots  *x509.CertPool
	stop   context.CancelFunc
	folder string
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newMailbox(t testing.TB, s Items, life time.Duration) *fixture {
	t.Helper()
	f := &fixture{log: &lockedBuffer{}, ended: make(chan error, 1), folder: t.TempDir()}
	now := time.Now()
	of := vault.NewDigest("test", []byte("case"))
	certificate, err := NewCertificate([]string{"127.0.0.1", "localhost"}, now, now.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := OpenCredentials(filepath.Join(f.folder, "credentials"))
	if err != nil {
		t.Fatal(err)
	}
	if f.record, err = access.Open(filepath.Join(f.folder, "access.log"), of); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.record.Close() })
	f.Mailbox = &Mailbox{
		Case: of, Expires: now.Add(life), Items: s, Credentials: credentials, Record: f.record, Certificate: certificate,
		Log: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	f.roots = x509.NewCertPool()
	f.roots.AddCert(leaf)
	return f
}

func (f *fixture) start(t testing.TB) *fixture {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.ended <- f.Serve(ctx, ln); close(f.ended) }()
	t.Cleanup(func() {
		cancel()
		<-f.ended
		if strings.Contains(f.log.String(), "panic") {
			t.Errorf("the engine panicked:\n%s", f.log)
		}
	})
	return f
}

func (f *fixture) credential(t testing.TB, valid time.Duration) (user, password string) {
	t.Helper()
	user, password, err := f.Credentials.Make("Rita Reader", f.Case, time.Now(), time.Now().Add(valid))
	if err != nil {
		t.Fatal(err)
	}
	return user, password
}

// entries reads the access record as somebody else would.
func (f *fixture) entries(t testing.TB) []access.Entry {
	t.Helper()
	file, err := os.Open(filepath.Join(f.folder, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []access.Entry
	if _, _, err := access.Read(file, f.Case, func(a access.Entry) { all = append(all, a) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// A client speaks lines.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func (f *fixture) dial(t testing.TB) *client {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", f.addr, &tls.Config{RootCAs: f.roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	n := &client{t: t, conn: c, r: bufio.NewReader(c)}
	if line, err := n.line(); err != nil || !strings.HasPrefix(line, "* OK") {
		t.Fatalf("greeting %q, %v", line, err)
	}
	return n
}

func (c *client) line() (string, error) {
	line, err := c.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// do sends a command and gives all untagged octets and the tagged reply without its tag.
func (c *client) do(format string, args ...any) (untagged, reply string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("a%d ", c.n)
	fmt.Fprintf(c.conn, tag+format+"\r\n", args...)
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return all.String(), "closed"
		}
		if reply, ok := strings.CutPrefix(line, tag); ok {
			return all.String(), strings.TrimRight(reply, "\r\n")
		}
		all.WriteString(line)
		if i := strings.LastIndexByte(line, '{'); i >= 0 && strings.HasSuffix(line, "}\r\n") {
			var n int64
			fmt.Sscanf(line[i:], "{%d}", &n)
			io.CopyN(&all, c.r, n)
		}
	}
}

func (c *client) must(format string, args ...any) string {
	c.t.Helper()
	untagged, reply := c.do(format, args...)
	if !strings.HasPrefix(reply, "OK") {
		c.t.Fatalf(format+": %s", append(args, reply)...)
	}
	return untagged
}

func (f *fixture) login(t testing.TB) *client {
	t.Helper()
	c := f.dial(t)
	user, password := f.credential(t, time.Hour)
	c.must("LOGIN %s %s", user, password)
	return c
}

func TestSections(t *testing.T) {
	s := awkward(t)
	c := newMailbox(t, s, time.Hour).start(t).login(t)
	if got := c.must("SELECT INBOX"); !strings.Contains(got, fmt.Sprintf("* %d EXISTS", len(s.list))) {
		t.Errorf("SELECT: %s", got)
	}
	literal := func(n int, section string) []byte {
		t.Helper()
		got := c.must("FETCH %d BODY.PEEK[%s]", n, section)
		_, rest, ok := strings.Cut(got, "}\r\n")
		if !ok {
			t.Fatalf("FETCH %d BODY[%s]: %q", n, section, got)
		}
		return []byte(strings.TrimSuffix(rest, ")\r\n"))
	}
	for n := 1; n <= len(s.list); n++ {
		whole := s.octets[n]
		if got := literal(n, ""); !bytes.Equal(got, whole) {
			t.Errorf("%d: BODY[] is not what came", n)
		}
		if got := append(literal(n, "HEADER"), literal(n, "TEXT")...); !bytes.Equal(got, whole) {
			t.Errorf("%d: HEADER and TEXT are not the whole", n)
		}
		for _, path := range []string{"1", "1.1", "2", "2.MIME", "1.HEADER", "2.TEXT"} {
			if got := literal(n, path); !bytes.Contains(whole, got) {
				t.Errorf("%d: BODY[%s] does not stand in the message", n, path)
			}
		}
		if got := c.must("FETCH %d (BODYSTRUCTURE BODY ENVELOPE RFC822.SIZE)", n); !strings.Contains(got, fmt.Sprintf("RFC822.SIZE %d", len(whole))) {
			t.Errorf("%d: %.300s", n, got)
		}
	}
}

// What RFC 9051 §6.4.5 numbers, in its own example's shape.
const nested = "Subject: s\r\nContent-Type: multipart/mixed; boundary=A\r\n\r\nfront\r\n--A\r\n\r\none\r\n--A\r\nContent-Type: message/rfc822\r\n\r\n" +
	"Subject: inner\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\nX: 1\r\n\r\nplain\r\n--B \r\nContent-Type: text/html\r\n\r\n<b>\r\n--B--\r\n" +
	"\r\n--A\r\nContent-Type: text/plain\r\n\r\nlast\r\n--A--\r\nback\r\n"

func TestPartNumbers(t *testing.T) {
	s := &items{}
	s.add([]byte(nested))
	s.add([]byte("Subject: x\r\n\r\nhello\r\n"))
	s.add([]byte("Content-Type: multipart/mixed; boundary=Z\r\n\r\nno part\r\n"))
	c := newMailbox(t, s, time.Hour).start(t).login(t)
	c.must("EXAMINE INBOX")
	for _, row := range []struct{ section, want string }{
		{"1 BODY[1]", "one"}, {"1 BODY[1.MIME]", "\r\n"}, {"1 BODY[3]", "last"}, {"1 BODY[4]", ""}, {"1 BODY[0]", ""},
		{"1 BODY[2.HEADER]", "Subject: inner\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n"},
		{"1 BODY[2.1]", "plain"}, {"1 BODY[2.1.MIME]", "X: 1\r\n\r\n"}, {"1 BODY[2.2]", "<b>"}, {"1 BODY[2.3]", ""},
		{"1 BODY[2.TEXT]", "--B\r\nX: 1\r\n\r\nplain\r\n--B \r\nContent-Type: text/html\r\n\r\n<b>\r\n--B--\r\n"},
		{"1 BODY[HEADER.FIELDS (SUBJECT)]", "Subject: s\r\n\r\n"},
		{"1 BODY[HEADER.FIELDS.NOT (SUBJECT)]", "Content-Type: multipart/mixed; boundary=A\r\n\r\n"},
		{"1 BODY[3]<1.2>", "as"}, {"1 BODY[3]<9.2>", ""}, {"1 BODY[3]<1.9223372036854775807>", "ast"},
		{"2 BODY[1]", "hello\r\n"}, {"2 BODY[1.1]", ""}, {"2 BODY[TEXT]", "hello\r\n"}, {"2 RFC822.HEADER", "Subject: x\r\n\r\n"},
	} {
		got := c.must("FETCH %s", row.section)
		if _, got, _ = strings.Cut(got, "}\r\n"); got != row.want+")\r\n" {
			t.Errorf("%s: %q, want %q", row.section, got, row.want)
		}
	}
	for _, row := range []struct{ item, want string }{
		{"1 BODY", `* 1 FETCH (BODY (("text" "plain" NIL NIL NIL "7bit" 3 0)("message" "rfc822" NIL NIL NIL "7bit" 132 (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL) (("text" "plain" NIL NIL NIL "7bit" 5 0)("text" "html" NIL NIL NIL "7bit" 3 0) "alternative") 12)("text" "plain" NIL NIL NIL "7bit" 4 0) "mixed"))` + "\r\n"},
		{"3 BODY", `* 3 FETCH (BODY ("application" "octet-stream" NIL NIL NIL "7bit" 9))` + "\r\n"},
	} {
		if got := c.must("FETCH %s", row.item); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.item, got, row.want)
		}
	}
}

func TestSearch(t *testing.T) {
	s := &items{}
	s.add([]byte("Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\nDate: Mon, 2 Mar 2026 10:00:00 +0100\r\nFrom: Anna <anna@alpha.example>\r\n\r\nnothing\r\n"))
	s.add([]byte("Subject: two\r\nDate: Tue, 3 Mar 2026 10:00:00 +0100\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nZGVyIGdlaGVpbWUgUGxhbg==\r\n"))
	s.add([]byte(nested))
	s.add([]byte("Subject: four\r\nContent-Type: application/pdf\r\n\r\nplain\r\n"))
	f := newMailbox(t, s, time.Hour).start(t)
	c := f.login(t)
	c.must("SELECT INBOX")
	for _, row := range []struct{ keys, want string }{
		{"ALL", " 1 2 3 4"}, {"SUBJECT {6+}\r\nGRÜSS", "BAD"}, {`CHARSET UTF-8 SUBJECT "grüße"`, " 1"}, {"FROM anna", " 1"}, {"FROM bob", ""},
		{`BODY "geheime plan"`, " 2"}, {"TEXT geheime", " 2"}, {"BODY plain", " 3"}, {"TEXT inner", " 3"}, {"BODY <b>", " 3"}, {"HEADER X 1", ""},
		{"SENTON 3-Mar-2026", " 2"}, {"SENTBEFORE 3-Mar-2026", " 1"}, {"SINCE 4-Mar-2026", " 3 4"}, {"BEFORE 4-Mar-2026", " 1 2"},
		{"LARGER 250", " 3"}, {"SMALLER 100", " 4"}, {"OR FROM anna SUBJECT four", " 1 4"}, {"NOT (OR FROM anna SUBJECT four)", " 2 3"},
		{"2:*", " 2 3 4"}, {"*", " 4"}, {"UID 1,3", " 1 3"}, {"9:*", " 4"}, {"UNSEEN", " 1 2 3 4"}, {"SEEN", ""}, {"KEYWORD x", ""},
	} {
		got, reply := c.do("SEARCH %s", row.keys)
		if row.want == "BAD" {
			continue // a literal of the wrong size: whatever comes, it is an answer
		}
		if got != "* SEARCH"+row.want+"\r\n" {
			t.Errorf("SEARCH %s: %q %s, want %q", row.keys, got, reply, row.want)
		}
	}
	if _, reply := c.do("SEARCH %s", strings.Repeat("NOT ", 300)+"ALL"); !strings.HasPrefix(reply, "NO [LIMIT]") {
		t.Errorf("300 keys: %s", reply)
	}
	for _, a := range f.entries(t) {
		if strings.Contains(a.Parts, "geheim") {
			t.Errorf("the record holds a word: %+v", a)
		}
	}
}

func TestWithheldAndUIDs(t *testing.T) {
	s := &items{}
	for n := range 4 {
		s.add(fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", n+1))
	}
	s.mark(2, discovery.MarkPrivilege)
	f := newMailbox(t, s, time.Hour).start(t)
	c := f.login(t)
	got := c.must("SELECT INBOX")
	if !strings.Contains(got, "* 3 EXISTS") || !strings.Contains(got, "UIDNEXT 5") {
		t.Errorf("SELECT: %s", got)
	}
	if got := c.must("FETCH 1:* UID"); got != "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 3)\r\n* 3 FETCH (UID 4)\r\n" {
		t.Errorf("UIDs: %s", got)
	}
	if got := c.must("UID FETCH 2 BODY[]"); got != "" {
		t.Errorf("a withheld message came: %s", got)
	}
	s.mark(4, discovery.MarkRedaction) // while the mailbox is selected
	if got, reply := c.do("UID FETCH 4 BODY[]"); strings.Contains(got, "FETCH") || !strings.HasPrefix(reply, "NO [NOPERM]") {
		t.Errorf("withheld since: %s%s", got, reply)
	}
	if got := c.must("SEARCH ALL"); got != "* SEARCH 1 2\r\n" {
		t.Errorf("SEARCH: %s", got)
	}
	if got := c.must("NOOP"); got != "* 3 EXPUNGE\r\n" {
		t.Errorf("NOOP: %s", got)
	}
}

func TestEveryFetchIsInTheRecord(t *testing.T) {
	s := &items{}
	for n := range 150 { // more than one batch
		s.add(fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", n))
	}
	f := newMailbox(t, s, time.Hour).start(t)
	c := f.login(t)
	c.must("SELECT INBOX")
	c.must("FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE)") // no content
	before := len(f.entries(t))
	c.must("FETCH 1:* (ENVELOPE)")
	c.must("FETCH 7 BODY[]")
	c.must("LOGOUT")
	f.stop()
	<-f.ended
	all := f.entries(t)
	if before != 1 || len(all) != 1+150+1+1 {
		t.Fatalf("%d entries before, %d in all", before, len(all))
	}
	last := all[len(all)-2]
	if last.What != access.Fetch || last.Item != 7 || last.Parts != "BODY[]" || last.Person != "Rita Reader" || last.Record != s.list[6].Record.String() {
		t.Errorf("%+v", last)
	}
	head, n := f.record.Head()
	if n != len(all) || head == (vault.Digest{}) {
		t.Errorf("head %x of %d", head, n)
	}
}

// brokenRecord writes nothing.
type brokenRecord struct{ after int }

func (b *brokenRecord) Record(context.Context, ...access.Entry) error {
	if b.after--; b.after < 0 {
		return errors.New("disk full")
	}
	return nil
}

func TestNoRecordNoContent(t *testing.T) {
	s := &items{}
	s.add([]byte("Subject: secret\r\n\r\nx\r\n"))
	f := newMailbox(t, s, time.Hour)
	f.Mailbox.Record = &brokenRecord{after: 1} // the login's
	c := f.start(t).login(t)
	c.must("SELECT INBOX")
	for _, command := range []string{"FETCH 1 BODY[]", "FETCH 1 ENVELOPE", "SEARCH TEXT secret"} {
		if got, reply := c.do("%s", command); got != "" || !strings.HasPrefix(reply, "NO [UNAVAILABLE]") {
			t.Errorf("%s: %q %s", command, got, reply)
		}
	}
	c.must("FETCH 1 RFC822.SIZE")
}

func TestLogin(t *testing.T) {
	f := newMailbox(t, &items{}, time.Hour).start(t)
	user, password := f.credential(t, time.Hour)
	c := f.dial(t)
	for _, row := range []struct{ user, password string }{
		{user, "wrong"}, {"../" + user, password}, {"rita-aaaaaaaa", password},
	} {
		if _, reply := c.do("LOGIN %q %q", row.user, row.password); !strings.HasPrefix(reply, "NO [AUTHENTICATIONFAILED] Unknown") {
			t.Errorf("%s: %s", row.user, reply)
		}
	}
	if _, reply := c.do("LOGIN %s %s", user, password); strings.HasPrefix(reply, "OK") {
		t.Errorf("a fourth try of one connection: %s", reply)
	}
	c = f.dial(t)
	c.must("LOGIN %s %s", user, password)
	if _, reply := f.dial(t).do("LOGIN %s %s", user, password); !strings.Contains(reply, "has served its one session") {
		t.Errorf("a second session: %s", reply)
	}
	other, _ := f.credential(t, time.Hour)
	for range maxTries {
		c := f.dial(t)
		c.do("LOGIN %s wrong", other)
		c.conn.Close()
	}
	if _, reply := f.dial(t).do("LOGIN %s wrong", other); !strings.Contains(reply, "void") {
		t.Errorf("after %d tries: %s", maxTries, reply)
	}
	foreign, secret, err := f.Credentials.Make("Rita", vault.NewDigest("test", []byte("other case")), time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, reply := f.dial(t).do("LOGIN %s %s", foreign, secret); !strings.HasPrefix(reply, "NO") {
		t.Errorf("another case's: %s", reply)
	}
	if strings.Contains(f.log.String(), password) || !strings.Contains(f.log.String(), "login refused") {
		t.Errorf("log: %s", f.log)
	}
}

func TestCredentialExpires(t *testing.T) {
	t.Parallel()
	s := &items{}
	s.add([]byte("Subject: x\r\n\r\nx\r\n"))
	f := newMailbox(t, s, time.Hour).start(t)
	early, secret := f.credential(t, 2*time.Second)
	user, password := f.credential(t, 2*time.Second)
	c := f.dial(t)
	c.must("LOGIN %s %s", user, password)
	c.must("SELECT INBOX")
	var said strings.Builder
	io.Copy(&said, c.r) // until the server ends it
	if !strings.HasPrefix(said.String(), "* BYE") {
		t.Errorf("at the end of a session: %q", &said)
	}
	if _, reply := f.dial(t).do("LOGIN %s %s", early, secret); !strings.HasPrefix(reply, "NO [EXPIRED]") {
		t.Errorf("after expiry: %s", reply)
	}
}

func TestCaseExpires(t *testing.T) {
	t.Parallel()
	f := newMailbox(t, &items{}, 2*time.Second).start(t)
	c := f.login(t)
	c.must("SELECT INBOX")
	fmt.Fprint(c.conn, "x IDLE\r\n")
	if err := <-f.ended; !errors.Is(err, ErrExpired) {
		t.Errorf("Serve: %v", err)
	}
	var said strings.Builder
	io.Copy(&said, c.r)
	if !strings.Contains(said.String(), "* BYE") {
		t.Errorf("at the end of the case: %q", &said)
	}
	if conn, err := net.Dial("tcp", f.addr); err == nil {
		conn.Close()
		t.Error("the port is open after the case's end")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(t.Context(), ln); !errors.Is(err, ErrExpired) {
		t.Errorf("Serve again: %v", err)
	}
}

// writes is every command that would change something. Commands of extensions that we do not offer are unknown.
var writes = []string{
	`STORE 1 +FLAGS (\Seen)`, `STORE 1 FLAGS.SILENT (\Deleted)`, `UID STORE 1 -FLAGS (x)`, "EXPUNGE", "UID EXPUNGE 1", "COPY 1 INBOX",
	"UID COPY 1 Trash", "MOVE 1 Trash", "UID MOVE 1 Trash", "CREATE Trash", "DELETE INBOX", "RENAME INBOX x", "SUBSCRIBE INBOX",
	"UNSUBSCRIBE INBOX", "APPEND INBOX {4+}\r\nabc\r", "APPEND INBOX (\\Seen) {4+}\r\nabc\r",
}

var unknown = []string{
	"SETACL INBOX rita lrswipkxtecda", "DELETEACL INBOX rita", "SETMETADATA INBOX (/private/comment x)", "SETQUOTA \"\" (STORAGE 1)",
	"REPLACE 1 INBOX", "SETANNOTATION INBOX x y", "UNAUTHENTICATE", "COMPRESS DEFLATE", "XLIST \"\" *",
}

func TestWritesAreRefused(t *testing.T) {
	s := &items{}
	s.add([]byte("Subject: x\r\n\r\nx\r\n"))
	f := newMailbox(t, s, time.Hour).start(t)
	c := f.login(t)
	for _, open := range []string{"SELECT", "EXAMINE"} {
		_, reply := c.do("%s INBOX", open)
		if !strings.HasPrefix(reply, "OK [READ-ONLY]") {
			t.Errorf("%s: %s", open, reply)
		}
		for _, command := range writes {
			if _, reply := c.do("%s", command); reply != "NO [NOPERM] "+errReadOnly.Text {
				t.Errorf("%s: %s", command, reply)
			}
		}
		for _, command := range unknown {
			if _, reply := c.do("%s", command); !strings.HasPrefix(reply, "BAD") {
				t.Errorf("%s: %s", command, reply)
			}
			c.do("NOOP")
		}
		if got := c.must("FETCH 1:* (FLAGS BODY.PEEK[])"); !strings.Contains(got, "FLAGS ()") || !strings.Contains(got, "Subject: x") {
			t.Errorf("after all writes: %s", got)
		}
		if got := c.must("CLOSE"); got != "" {
			t.Errorf("CLOSE: %s", got)
		}
	}
	if got := c.must("STATUS INBOX (MESSAGES UNSEEN RECENT SIZE DELETED)"); !strings.Contains(got, "MESSAGES 1") {
		t.Error(got)
	}
	if got := c.must(`LIST "" *`) + c.must(`LSUB "" *`) + c.must(`LIST "" ""`); !strings.Contains(got, "INBOX") {
		t.Error(got)
	}
}

package imapserver

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"dimegate/vault/discovery/access"
)

// hostile lines, as a client of a case could send them after its login.
var hostile = []string{
	"", " ", "\x00\x01\x02", "a", "a ", "* ", "a FETCH", "a FETCH 1", "a FETCH 0 BODY[]", "a FETCH 4294967295:* BODY[]", "a FETCH 99999999999 FLAGS",
	"a FETCH 1 BODY[", "a FETCH 1 BODY[4294967295.4294967295]", "a FETCH 1 BODY[1.1.1.1.1.1.1.1.1.1.1.HEADER]", "a FETCH 1 BODY[MIME]", "a FETCH 1 BODY[HEADER.FIELDS ()]",
	"a FETCH 1 BODY[]<9223372036854775807.9223372036854775807>", "a FETCH 1 BODY[]<-1.5>", "a FETCH 1 BINARY[1]", "a FETCH 1 BINARY.SIZE[1]", "a FETCH $ BODY[]",
	"a FETCH 1 (BODY[] BODY[] BODYSTRUCTURE BODY ENVELOPE)", "a UID FETCH *:1 (BODY[TEXT])", "a SEARCH", "a SEARCH (((", "a SEARCH " + strings.Repeat("(", 2000), "a SEARCH OR", "a SEARCH $",
	"a SEARCH " + strings.Repeat("NOT ", 5000) + "ALL", "a SEARCH RETURN (MIN MAX COUNT ALL SAVE) ALL", "a SEARCH CHARSET KOI8-R TEXT x", "a SEARCH HEADER \"\" \"\"", "a SEARCH UID *:*",
	"a LIST \"\" " + strings.Repeat("*%", 3000), "a LIST \"\" (\"*\" \"%\") RETURN (STATUS (MESSAGES SIZE UNSEEN DELETED RECENT APPENDLIMIT DELETED-STORAGE))", "a STATUS INBOX (MESSAGES DELETED-STORAGE APPENDLIMIT RECENT)",
	"a SELECT \"&\"", "a SELECT {5}", "a SELECT {99999999999}", "a SELECT {5+}\r\nINBOX", "a APPEND INBOX {99999999999}", "a APPEND INBOX {3+}\r\nabc", "a IDLE\r\nDONE", "a IDLE\r\nx",
	"a ENABLE IMAP4rev2 UTF8=ACCEPT\r\nb SEARCH ALL\r\nc SELECT INBOX\r\nd FETCH 1 ENVELOPE", "a EXPUNGE\r\nb CLOSE\r\nc CLOSE", "a UNSELECT\r\nb FETCH 1 BODY[]\r\nc NOOP", "a LOGIN x y", "a AUTHENTICATE PLAIN =", "a STORE 1 FLAGS ()",
	"a NAMESPACE", "a ID NIL", "a COPY 1 \"\xff\"", "a CAPABILITY", "a LOGOUT", strings.Repeat("x", 60_000), "a NOOP " + strings.Repeat("x", 60_000),
}

// TestHostileLines has each line answered, or the connection ended, with no panic caught by the engine.
func TestHostileLines(t *testing.T) {
	for _, line := range hostile {
		for _, m := range []string{nested, "\r\n", "Content-Type: multipart/mixed; boundary=a\r\n\r\n" + strings.Repeat("--a\r\n", 30_000)} {
			if log := talk(t, line, []byte(m)); strings.Contains(log, "panic") {
				t.Errorf("%.80q: %s", line, log)
			}
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, line := range hostile {
		f.Add(line, []byte(nested))
	}
	for _, m := range awkward(f).octets {
		f.Add("a FETCH 1 (BODYSTRUCTURE BODY ENVELOPE BODY[1.1] BODY[HEADER])\r\nb SEARCH TEXT x", m)
	}
	f.Fuzz(func(t *testing.T, line string, m []byte) {
		if log := talk(t, line, m); strings.Contains(log, "panic") {
			t.Fatal(log)
		}
	})
}

type noRecord struct{}

func (noRecord) Record(context.Context, ...access.Entry) error { return nil }

// talk has a session without TLS, logged in and with the mailbox open, hear lines over a case of one message; it gives the log.
func talk(t testing.TB, lines string, m []byte) string {
	t.Helper()
	s, log := &items{}, &lockedBuffer{}
	s.add(m)
	box := &server{ctx: context.Background(), Mailbox: &Mailbox{Expires: time.Now().Add(time.Minute), Items: s, Record: noRecord{}, Log: slog.New(slog.NewTextHandler(log, nil))}}
	near, far := net.Pipe()
	ln := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	timed := &timedConn{Conn: far, idle: time.Minute, end: box.Expires}
	box.running.Add(1)
	ln.conn <- &conn{Conn: timed, timed: timed}
	engine := imapserver.New(&imapserver.Options{
		Caps: imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapESearch: {}}, Logger: engineLog{box.Log}, InsecureAuth: true,
		NewSession: func(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			n, _, _ := box.newSession(c)
			n.(*session).who = &Credential{Person: "x", User: "x", Expires: box.Expires}
			return n, &imapserver.GreetingData{PreAuth: true}, nil
		},
	})
	ended := make(chan struct{})
	go func() { engine.Serve(ln); close(ended) }()
	read := make(chan struct{})
	go func() { io.Copy(io.Discard, near); close(read) }()
	io.WriteString(near, "s SELECT INBOX\r\n"+lines+"\r\nz LOGOUT\r\n") // fails when the server has had enough
	near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))         // of what waits for more of a literal
	<-read
	near.Close()
	box.running.Wait()
	engine.Close()
	<-ended
	return log.String()
}

type oneListener struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { close(l.closed); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

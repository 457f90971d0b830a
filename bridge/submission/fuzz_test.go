package submission

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/bridge/smtpwire"
)

// FuzzSession sends any octets to a session. It ends, nothing panics, and each message that arrives stood in the octets, whole,
// behind the commands that brought it.
func FuzzSession(f *testing.F) {
	const start = "EHLO a\r\nMAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\n"
	for _, tt := range smuggling {
		if len(tt.body) < 10_000 {
			f.Add([]byte(start+"DATA\r\n"), []byte(tt.body+".\r\nQUIT\r\n"))
			f.Add([]byte(start), []byte("BDAT "+strconv.Itoa(len(tt.body))+" LAST\r\n"+tt.body+"QUIT\r\n"))
		}
	}
	for _, tt := range refusedChunks {
		f.Add([]byte("EHLO a\r\n"+tt.before), []byte(strings.Replace(tt.bdat, "%", strconv.Itoa(len(canary)), 1)+"\r\n"+canary+"NOOP\r\nQUIT\r\n"))
	}
	f.Add([]byte("EHLO a\r\n"+strings.Repeat("WHAT\r\n", 5)+"MAIL FROM:<alice@alpha.example>\r\n"), []byte("QUIT\r\n")) // after too many errors
	f.Add([]byte(start+"BDAT 5\r\nhello"), []byte("RSET\r\n"+start+"BDAT 2\r\n\r\nNOOP\r\nBDAT 0 LAST\r\n"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		in := &inbox{}
		s := New(Config{Name: "gw", Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Domains: func(string) bool { return true }, Timeout: 5 * time.Second},
			in, slog.New(slog.NewTextHandler(panicWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})))
		ln := &oneConn{closed: make(chan struct{})}
		ours, theirs := net.Pipe()
		ln.conn = addressed{theirs}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, ln) }()
		drained := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(ours); drained <- b }()
		ours.SetDeadline(time.Now().Add(10 * time.Second))
		ours.Write(first) // a pipe takes it when it is read: what a session does not want to hear is not written
		ours.Write(second)
		ours.Close()
		<-drained
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		sent := append(bytes.Clone(first), second...)
		for _, m := range in.all() {
			body := m.body[m.env.Trace:]
			if facts, err := smtpwire.Examine(bytes.NewReader(body)); err != nil || facts.BareEnds {
				t.Errorf("arrived with a lone CR or LF: %q", body)
			}
			stuffed := strings.ReplaceAll("\r\n"+string(body), "\r\n.", "\r\n..")[2:]
			if !bytes.Contains(sent, []byte(stuffed+".\r\n")) && !inChunks(sent, body) {
				t.Errorf("arrived and was never sent: %q", body)
			}
		}
	})
}

// inChunks tells whether body's octets stand in sent in order, as chunks would bring them.
func inChunks(sent, body []byte) bool {
	for _, c := range body {
		i := bytes.IndexByte(sent, c)
		if i < 0 {
			return false
		}
		sent = sent[i+1:]
	}
	return true
}

// A log line at error level is a panic that go-smtp caught.
type panicWriter struct{ t *testing.T }

func (w panicWriter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("panicked")) {
		w.t.Errorf("%s", p)
	}
	return len(p), nil
}

type oneConn struct {
	once   sync.Once
	conn   net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	if l.once.Do(func() { c = l.conn }); c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	defer func() { recover() }() // twice
	close(l.closed)
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }

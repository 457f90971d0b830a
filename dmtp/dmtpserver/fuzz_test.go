package dmtpserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/signet"
)

// A memConn is a client that says everything at once, in pieces of at most step octets, and checks what it is told.
type memConn struct {
	t    *testing.T
	in   io.Reader
	step int
	out  bytes.Buffer
}

var replyLine = regexp.MustCompile(`^[2-5][0-9][0-9][ -][ -~]*\r\n$`)

func (c *memConn) Read(p []byte) (int, error) { return c.in.Read(p[:min(len(p), c.step)]) }

func (c *memConn) Write(p []byte) (int, error) {
	if !replyLine.Match(p) {
		c.t.Fatalf("one write is not one reply line: %.100q", p)
	}
	if c.out.Len() < 1<<20 {
		c.out.Write(p)
	}
	return len(p), nil
}

func (*memConn) Close() error                     { return nil }
func (*memConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 26} }
func (*memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4} }
func (*memConn) SetDeadline(time.Time) error      { return nil }
func (*memConn) SetReadDeadline(time.Time) error  { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzSession lets a client say anything, inside TLS and on the shared port. Every write must be one reply line, nothing may
// panic, and only the one authentic message may be delivered, as it is, once.
func FuzzSession(f *testing.F) {
	w := newWorld(f, 1)
	b := newBackend(w)
	cfg := b.config(f)
	cfg.Limits.Message = 1 << 20
	cfg.Timeouts.Linger = time.Millisecond
	s, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	m := string(w.signed(f, "hello", nil))
	hello := "EHLO <a.example>\r\n"
	send := fmt.Sprintf("MAIL FROM: <a.example> [x] SIZE=%d\r\nRCPT TO: <b.example> [x]\r\nDATA [%s]\r\n", len(m), dmtp.Commit([]byte(m))) + m + "\r\n"
	for _, script := range []string{
		hello + send + "QUIT\r\n", hello + send + send, "MAIL FROM=<a.example> FINGERPRINT=[x]\n", hello + "MAIL FROM=<a.example> FINGERPRINT=[x]\nRCPT TO=<b.example> FINGERPRINT=[x]\nDATA\n" + m,
		"SGNT <b.example>\r\nSGNT <bob@b.example>\r\nHIST DOMAIN=<b.example>\r\nVRFY <b.example> [" + fpOf(f, w.bSignet, signet.ID) + "]\r\n",
		"STARTTLS <dx.b.example> MODE=DMTPv1\r\nNOOP\r\n", "MODE\r\n\r\n\r\nHELP\r\nX\r\n", strings.Repeat("a", 3000) + "\r\nNOOP\r\n", "EHLO client\r\nDATA\r\n",
	} {
		f.Add([]byte(script), uint16(len(script)))
		f.Add([]byte(script), uint16(7))
	}
	f.Fuzz(func(t *testing.T, script []byte, step uint16) {
		for _, serve := range []func(*session, *memConn){
			func(ss *session, _ *memConn) { ss.run(t.Context()) },
			func(ss *session, c *memConn) { s.dual(t.Context(), c, ss.v) },
		} {
			b.mu.Lock()
			b.got, b.bodies = nil, nil
			clear(b.outcomes)
			clear(b.commits)
			b.mu.Unlock()
			c := &memConn{t: t, in: bytes.NewReader(script), step: max(1, int(step))}
			v := s.guard.enter(address(c))
			serve(s.session(c, v), c)
			v.leave()
			if got := b.messages(); len(got) > 1 || len(got) == 1 && got[0] != m {
				t.Fatalf("%d messages were delivered, or another one", len(got))
			}
			if n := s.guard.count(); n != 0 {
				t.Fatalf("%d sessions are counted", n)
			}
		}
	})
}

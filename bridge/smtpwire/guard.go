package smtpwire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a server's connection.
const (
	inBuffer     = 32 << 10
	maxCommand   = 4 << 10         // octets of a command line; RFC 5321 asks for 512, its extensions add about 2,000
	maxAuthLine  = 12288           // octets of a line that carries base64 (RFC 4954 §4)
	maxReplies   = 64 << 10        // octets of replies that wait for the next read
	maxChunk     = 1<<31 - 1       // octets of one BDAT chunk
	maxDrain     = 1 << 30         // octets of a refused body that are read on
	maxCommands  = 1000            // commands since the last message
	lingerTime   = 2 * time.Second // for a peer to read the last reply before the connection goes
	lingerOctets = 1 << 20
)

// A Guard stands between a listener and go-smtp's server and gives the server one whole, well-formed command at a time. It
// upgrades to TLS itself, so that it always sees what is meant. It reads bodies itself (see Conn.Body) and speaks BDAT, which
// the server sees as DATA. It never lets an octet of a body be read as a command: a refused chunk is read to its end, and where
// nobody can know where a body ends the connection closes. Its fields are set before use and not changed.
type Guard struct {
	TLS            *tls.Config   // nil: STARTTLS is not offered. The server's own TLSConfig must be nil
	RequireTLS     bool          // offer REQUIRETLS under TLS (RFC 8689), of which the server does not know
	CommandTimeout time.Duration // for the next command; default 5m, as RFC 5321 §4.5.3.2.7 asks
	BlockTimeout   time.Duration // for the next octets of a body; default 5m
	LineFeeds      bool          // take a bare LF for the end of a command, for peers that are known to send it
	Postmaster     string        // the address that RCPT TO:<postmaster> stands for (RFC 5321 §4.5.1); empty: none
	// XClient are the attributes of XCLIENT that this client may say, of whom it is known that it speaks for others; empty: none,
	// and XCLIENT is no command. XClientRelay or XClientLogin.
	XClient string
	// Under is the state of TLS that is on already, under the connections of this guard; nil: none is.
	Under *tls.ConnectionState
}

func (g *Guard) timeout(s state) time.Duration {
	d := g.CommandTimeout
	if s == inBody || s == inChunk {
		d = g.BlockTimeout
	}
	if d <= 0 {
		d = 5 * time.Minute
	}
	return d
}

// Conn guards one connection. It starts nothing.
func (g *Guard) Conn(c net.Conn) *Conn {
	gc := &Conn{guard: g, conn: c, tls: g.Under}
	gc.in = bufio.NewReaderSize(rawReader{gc}, inBuffer)
	return gc
}

type state uint8

const (
	inCommands state = iota
	inAuth           // the next line is an answer to a 334
	inBody           // behind a 354
	inChunk          // behind a BDAT, or in a chunk that was refused
)

// A Conn is one guarded connection: the net.Conn that go-smtp serves. Reads and writes come from one goroutine, that of
// go-smtp's connection; Close, Interrupt and TLS may come from any.
type Conn struct {
	guard *Guard
	in    *bufio.Reader

	line     []byte    // of the command that go-smtp is reading
	verb     string    // of the command that go-smtp is answering
	chunk    int64     // octets left of a BDAT chunk
	last     bool      // it is the last one
	pending  *string   // the command that came in place of a chunk
	mute     bool      // go-smtp's next reply is to a command that the peer did not send
	body     io.Reader // while go-smtp waits for one
	mustEHLO bool      // after STARTTLS (RFC 3207 §4.2), after XCLIENT
	banner   []byte    // go-smtp's first reply
	mail     bool      // a transaction is open
	authed   bool      // AUTH has succeeded
	over     bool      // the session ended here
	count    int       // commands since the last message
	reply    []byte
	err      error // of the connection; it does not get better

	mu       sync.Mutex // never held while waiting
	conn     net.Conn
	tls      *tls.ConnectionState
	state    state
	hello    string  // HELO, EHLO or LHLO, whichever came last
	caller   *Caller // nil: the client speaks for itself
	stopping bool
	closed   bool // go-smtp, which goes on reading after it closed a session for too many errors, gets nothing more

	outMu sync.Mutex
	out   []byte // replies that wait for the next read
}

var _ net.Conn = (*Conn)(nil)

// rawReader is the connection under the buffer. Before it waits, all replies go out.
type rawReader struct{ *Conn }

func (r rawReader) Read(p []byte) (n int, err error) {
	c := r.Conn
	if c.err != nil {
		return 0, c.err
	}
	if err = c.flush(); err == nil {
		n, err = c.await().Read(p)
	}
	c.err = err
	return n, err
}

// await sets the deadline of one read.
func (c *Conn) await() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := time.Now().Add(c.guard.timeout(c.state))
	if c.stopping && c.state == inCommands {
		deadline = time.Unix(1, 0)
	}
	c.conn.SetReadDeadline(deadline)
	return c.conn
}

// Read gives go-smtp what it may see: a command line, or the end of a body.
func (c *Conn) Read(p []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	for len(c.line) == 0 {
		if c.over {
			return 0, io.EOF
		}
		var err error
		switch {
		case c.body != nil:
			err = c.finishBody()
		case c.chunk > 0: // of a BDAT that was refused
			err = c.skipChunk()
		case c.pending != nil:
			text := *c.pending
			c.pending = nil
			err = c.command(text)
		default:
			err = c.next()
		}
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, c.line)
	c.line = c.line[n:]
	return n, nil
}

// finishBody reads on to the end of a body, of which the session has had what it wanted, and lets go-smtp see an end.
func (c *Conn) finishBody() error {
	n, err := io.Copy(io.Discard, io.LimitReader(c.body, maxDrain))
	switch {
	case err != nil && err != ErrAborted:
		return err
	case n == maxDrain:
		return errors.New("smtpwire: a refused body that does not end")
	}
	c.line, c.body = []byte(".\r\n"), nil
	c.set(inCommands)
	return nil
}

func (c *Conn) skipChunk() error {
	c.set(inChunk)
	n, err := io.CopyN(io.Discard, c.in, c.chunk)
	c.chunk -= n
	c.set(inCommands)
	return cutShort(err)
}

func (c *Conn) set(s state) {
	c.mu.Lock()
	c.state = s
	c.mu.Unlock()
}

func (c *Conn) now() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Hello is the verb by which the client introduced itself: HELO, EHLO or LHLO.
func (c *Conn) Hello() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hello
}

// Body is the message that go-smtp is waiting for, from DATA or BDAT, octet for octet and without dots that are not its own. The
// session's Data reads it in place of go-smtp's reader; what it leaves is read and thrown away. It ends with
// io.ErrUnexpectedEOF or another error when the connection does, and with ErrAborted when the peer takes the message back.
func (c *Conn) Body() io.Reader {
	if c.body == nil {
		return strings.NewReader("")
	}
	return c.body
}

// ErrAborted ends a body whose sender gave another command in place of the next chunk.
var ErrAborted = errors.New("smtpwire: the sender took the message back")

// TLS is the state of TLS on the connection, if there is any.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	c.mu.Lock()
	t := c.tls
	c.mu.Unlock()
	if t == nil {
		return tls.ConnectionState{}, false
	}
	return *t, true
}

// waiting tells whether octets have come that were not read: here, or in the buffer of a connection that has one under us.
func (c *Conn) waiting() bool {
	b, ok := c.netConn().(interface{ Buffered() int })
	return c.in.Buffered() > 0 || ok && b.Buffered() > 0
}

func (c *Conn) handshake() error {
	if err := c.flush(); err != nil {
		return err
	}
	raw := c.netConn()
	raw.SetDeadline(time.Now().Add(time.Minute))
	t := tls.Server(raw, c.guard.TLS)
	if err := t.Handshake(); err != nil {
		return err
	}
	raw.SetDeadline(time.Time{})
	state := t.ConnectionState()
	c.mu.Lock()
	c.conn, c.tls, c.caller = t, &state, nil
	c.mu.Unlock()
	c.in.Reset(rawReader{c}) // nothing that came before counts
	return nil
}

// Write takes go-smtp's reply. It goes out before the next read that waits.
func (c *Conn) Write(p []byte) (int, error) {
	c.reply = append(c.reply, p...)
	for {
		end := replyEnd(c.reply)
		if end < 0 {
			return len(p), nil
		}
		err := c.send(c.answered(c.reply[:end]))
		c.reply = append(c.reply[:0], c.reply[end:]...)
		if err != nil {
			return len(p), err
		}
	}
}

// replyEnd is the length of the first whole reply in b, -1 if there is none yet.
func replyEnd(b []byte) int {
	for n := 0; ; {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return -1
		}
		line := b[n : n+i+1]
		if n += i + 1; len(line) < 5 || line[3] != '-' {
			return n
		}
	}
}

// answered follows what go-smtp has decided. What it returns is said to the peer.
func (c *Conn) answered(reply []byte) []byte {
	code, verb := string(reply[:min(3, len(reply))]), c.verb
	c.verb = ""
	if code == "421" { // it says that the session is over, and may not mean it
		c.over = true
	}
	if c.banner == nil {
		c.banner = bytes.Clone(reply)
	}
	c.mail = c.mail && verb != "." || verb == "MAIL" && code == "250"
	switch {
	case c.mute:
		c.mute = false
		return nil
	case (verb == "MAIL" || verb == "RCPT") && code == "500": // go-smtp's word for a parameter that it does not know
		reply = []byte("555 5.5.4 A parameter that is not offered\r\n")
	case verb == "AUTH" && code == "235":
		c.authed = true
	case (verb == "RSET" || verb == "HELO") && code == "250":
		c.mail = false
	case verb == "AUTH" && code == "334":
		c.verb = verb
		c.set(inAuth)
	case verb == "DATA" && code == "354":
		c.body, c.verb = newDotReader(c.in), "."
		c.set(inBody)
	case verb == "BDAT" && code == "354":
		c.body, c.verb = &chunkReader{c: c}, "."
		c.set(inChunk)
		return nil
	case verb == "." && code == "250":
		c.count = 0
	case verb == "EHLO" && code == "250":
		c.mail = false
		first := bytes.IndexByte(reply, '\n') + 1
		reply = slices.Concat(reply[:first], c.offers(), reply[first:])
	}
	return reply
}

// offers are the lines of an EHLO reply that are ours.
func (c *Conn) offers() []byte {
	var lines []byte
	switch _, on := c.TLS(); {
	case !on && c.guard.TLS != nil:
		lines = append(lines, "250-STARTTLS\r\n"...)
	case on && c.guard.RequireTLS:
		lines = append(lines, "250-REQUIRETLS\r\n"...)
	}
	if c.guard.XClient != "" {
		lines = append(lines, "250-XCLIENT "+c.guard.XClient+"\r\n"...)
	}
	return lines
}

func (c *Conn) send(b []byte) error {
	c.outMu.Lock()
	c.out = append(c.out, b...)
	full := len(c.out) > maxReplies
	c.outMu.Unlock()
	if full {
		return c.flush()
	}
	return nil
}

func (c *Conn) flush() error {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return c.flushLocked(c.guard.timeout(inCommands))
}

func (c *Conn) flushLocked(limit time.Duration) error {
	if len(c.out) == 0 {
		return nil
	}
	conn := c.netConn()
	conn.SetWriteDeadline(time.Now().Add(limit))
	_, err := conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// say is a reply of our own. go-smtp does not know of it, nor of the command.
func (c *Conn) say(reply string) error { return c.send([]byte(reply + "\r\n")) }

// end is a reply of our own and the end of the session. The peer gets a moment to read it: closing on unread octets would
// take it away from him.
func (c *Conn) end(reply string) error {
	c.over = true
	c.say(reply)
	c.flush()
	conn := c.netConn()
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, conn, lingerOctets)
	}
	return io.EOF
}

// Interrupt ends the session as soon as it waits for a command, with 421. A message under way is taken first.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping = true; c.state == inCommands {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *Conn) interrupted(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping && errors.Is(err, os.ErrDeadlineExceeded)
}

// Close sends what waits, if that is quick, and closes the connection. Commands that came already are dropped.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	if c.outMu.TryLock() { // whoever holds it is sending
		c.flushLocked(lingerTime)
		c.outMu.Unlock()
	}
	return c.netConn().Close()
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Conn) netConn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

func (c *Conn) LocalAddr() net.Addr { return c.netConn().LocalAddr() }

// RemoteAddr is the client's: where the connection comes from, or what XCLIENT said. It is no address when that is not known.
func (c *Conn) RemoteAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.caller != nil {
		return c.caller.netAddr()
	}
	return c.conn.RemoteAddr()
}

// Caller is what XCLIENT said of the client; false: nothing, the client speaks for itself.
func (c *Conn) Caller() (Caller, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.caller == nil {
		return Caller{}, false
	}
	return *c.caller, true
}

// The deadlines are the guard's: one for each wait, not one for a whole body.
func (*Conn) SetDeadline(time.Time) error      { return nil }
func (*Conn) SetReadDeadline(time.Time) error  { return nil }
func (*Conn) SetWriteDeadline(time.Time) error { return nil }

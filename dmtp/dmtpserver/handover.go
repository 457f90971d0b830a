package dmtpserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A Handover is a net.Listener for an SMTP library whose connections come from ServeDual: SMTP is Config.SMTP.
type Handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewHandover makes one that says it listens on addr.
func NewHandover(addr net.Addr) *Handover {
	return &Handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// SMTP gives conn to whoever accepts, and waits until that has closed it.
func (h *Handover) SMTP(ctx context.Context, conn net.Conn) {
	c := &handedOver{Conn: conn, closed: make(chan struct{})}
	select {
	case h.conns <- c:
	case <-h.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-c.closed:
	case <-ctx.Done():
		conn.Close()
		<-c.closed
	}
}

// Accept implements net.Listener.
func (h *Handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were handed over stay.
func (h *Handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *Handover) Addr() net.Addr { return h.addr }

type handedOver struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *handedOver) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// Buffered is the number of octets that have come and that Read, which gives a line at a time, has not given yet: what is sent
// with a command that must be the last of its group can be seen.
func (c *handedOver) Buffered() int {
	if s, ok := c.Conn.(*smtpConn); ok {
		return len(s.rest) + s.br.Buffered()
	}
	return 0
}

// CloseWrite says that no more comes, so that the last reply arrives although octets are left unread.
func (c *handedOver) CloseWrite() error {
	conn := c.Conn
	if s, ok := conn.(*smtpConn); ok {
		conn = s.Conn
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// ConnectionState is the TLS state of a session that came to SMTP in TLS by STARTTLS <host> MODE=SMTP; false for all others.
func ConnectionState(conn net.Conn) (tls.ConnectionState, bool) {
	if h, ok := conn.(*handedOver); ok {
		conn = h.Conn
	}
	if c, ok := conn.(*smtpConn); ok {
		conn = c.Conn
	}
	if c, ok := conn.(*tls.Conn); ok {
		return c.ConnectionState(), true
	}
	return tls.ConnectionState{}, false
}

// An smtpConn is a connection as the SMTP engine sees it. The engine's greeting is swallowed, since the front has greeted. As
// long as the session is in clear, the engine gets one command line at a time: when it asks for more it has answered that one,
// so that its last reply tells where the session stands, and a STARTTLS of ours can be seen without parsing SMTP twice. From
// the engine's own STARTTLS on, and from BDAT on, octets pass through unseen.
//
// Reads and writes come from one goroutine at a time each.
type smtpConn struct {
	net.Conn
	br *bufio.Reader

	mu      sync.Mutex
	greeted bool   // the greeting has been swallowed
	code    int    // of the last whole reply line
	partial []byte // of a reply line, at most its first octets
	taken   bool   // the front has, or will have, the connection back
	closed  bool

	rest    []byte // of a line that the engine has not read yet
	midLine bool   // it is not the end of that line
	verb    string // of the command that it was given last
	pass    bool   // octets pass unseen; changed under mu
	inData  bool
	mail    bool   // a mail transaction is open
	request string // our STARTTLS line
}

// maxSMTPLine is how much of a line is looked at: longer ones are passed on in pieces, and are no command of ours.
const maxSMTPLine = 4096

func newSMTPConn(conn net.Conn, r io.Reader) *smtpConn {
	return &smtpConn{Conn: conn, br: bufio.NewReaderSize(r, maxSMTPLine), verb: first}
}

// sealed makes everything pass from the beginning: the session is inside TLS already.
func (c *smtpConn) sealed() { c.pass = true }

// takeBack ends the engine's hold on the connection and returns our STARTTLS line, if there was one.
func (c *smtpConn) takeBack() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = true
	return c.request
}

// Close closes the connection, unless the front takes it back.
func (c *smtpConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken || c.closed {
		return nil
	}
	c.closed = true
	return c.Conn.Close()
}

// Write passes the engine's replies on and remembers the code of the last.
func (c *smtpConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return 0, net.ErrClosed
	}
	if c.pass && c.greeted {
		return c.Conn.Write(p)
	}
	n := len(p)
	for len(p) > 0 {
		line, after, whole := bytes.Cut(p, []byte("\n"))
		said := p[:len(p)-len(after)]
		c.partial = append(c.partial, line[:min(len(line), 8-min(8, len(c.partial)))]...)
		if swallowed := c.greeting(whole); !swallowed {
			if _, err := c.Conn.Write(said); err != nil {
				return 0, err
			}
		}
		if whole {
			c.partial = c.partial[:0]
		}
		p = after
	}
	return n, nil
}

// greeting notes the reply line that begins with c.partial, and tells whether it belongs to the 220 of the engine's greeting.
func (c *smtpConn) greeting(whole bool) bool {
	if len(c.partial) < 3 {
		return !c.greeted && !whole
	}
	code, err := strconv.Atoi(string(c.partial[:3]))
	if err != nil {
		code = 0
	}
	last := len(c.partial) < 4 || c.partial[3] != '-'
	swallow := !c.greeted && code == 220
	if whole && last {
		c.code = code
		c.greeted = true
	}
	return swallow
}

// Read gives the engine its next octets: at most one line as long as the session is in clear.
func (c *smtpConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 && !c.pass {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.rest) == 0 { // c.pass
		return c.br.Read(p)
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// next takes stock of the engine's answer to the last line, and reads the next. Without an error there is something in c.rest,
// or octets pass.
func (c *smtpConn) next() error {
	for {
		c.mu.Lock()
		code := c.code
		c.code = 0
		c.mu.Unlock()
		isCommand := c.stock(code)
		if c.pass {
			return nil
		}
		line, err := c.br.ReadSlice('\n')
		if len(line) == 0 {
			return err
		}
		c.rest = line
		isCommand, c.midLine = isCommand && !c.midLine, line[len(line)-1] != '\n'
		if !isCommand {
			return nil
		}
		text, ok := printable(line)
		if !ok {
			c.verb = ""
			return nil
		}
		word, args, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
		c.verb = strings.ToUpper(word)
		if c.verb == "BDAT" { // what follows is counted, not lines
			c.passOn(c.br)
			return nil
		}
		if c.verb != "STARTTLS" || !ours(args) {
			return nil
		}
		if err := c.startTLS(text); err != nil {
			return err
		}
	}
}

// passOn ends the watch: from now on the engine reads from r.
func (c *smtpConn) passOn(r *bufio.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pass, c.br = true, r
}

// startTLS takes the connection from the engine, to which the client has gone; or it answers for it, when a message is under
// way.
func (c *smtpConn) startTLS(text string) error {
	c.rest, c.verb = nil, ""
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mail {
		c.code = 503
		_, err := io.WriteString(c.Conn, "503 5.5.1 STARTTLS NOT POSSIBLE NOW\r\n")
		return err
	}
	c.taken, c.request = true, text
	return io.EOF
}

// stock follows the session by the engine's answer to the last line, and tells whether the next line is a command. Without an
// answer it is not: the engine is in the middle of something.
func (c *smtpConn) stock(code int) (isCommand bool) {
	ok := code/100 == 2
	switch {
	case c.verb == first:
		c.verb = ""
	case code == 0:
		return false
	case c.inData: // the verdict on a message
		c.inData, c.mail = false, false
	case code == 334: // a challenge of AUTH
		return false
	case c.verb == "DATA" && code == 354:
		c.inData = true
		return false
	case c.verb == "MAIL" && ok:
		c.mail = true
	case ok && (c.verb == "RSET" || c.verb == "EHLO" || c.verb == "HELO"):
		c.mail = false
	case c.verb == "STARTTLS" && code == 220: // what was sent with it is not TLS, and is dropped
		c.passOn(bufio.NewReaderSize(c.Conn, maxSMTPLine))
	}
	return true
}

// first stands for the command before the first.
const first = "*"

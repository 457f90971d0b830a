// Package proxied lets a listener learn the true address of clients that come through a proxy: HAProxy's PROXY protocol,
// versions 1 and 2, believed of listed sources only.
package proxied

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Bounds of a header.
const (
	headerTime = 10 * time.Second
	maxWaiting = 512 // connections of listed sources whose header has not come
	lookAhead  = 256 // octets that are read with it; a longer header of version 2 is read in pieces, 4096 octets at most
)

// A Listener gives connections whose RemoteAddr is the client's. One of a listed source must begin with a header, or it is
// closed; where that tells of no client (LOCAL, UNKNOWN, a socket that is no TCP) the connection has no address, which is in no
// list. All other sources are taken as they come: a header of theirs is the server's to refuse.
//
// Its fields are set before use. It starts its work with the first Accept, and ends it with Close. Accept may be called by one
// goroutine.
type Listener struct {
	net.Listener
	From []netip.Prefix // the proxies
	Log  *slog.Logger   // a line for connections that are closed, at most one a minute

	results chan result
	done    chan struct{}
	parts   sync.WaitGroup

	mu      sync.Mutex
	begun   bool
	closed  bool
	waiting map[net.Conn]struct{}
	told    time.Time
}

type result struct {
	conn net.Conn
	err  error
}

// New makes a Listener on ln. It starts nothing.
func New(ln net.Listener, from []netip.Prefix, log *slog.Logger) *Listener {
	return &Listener{Listener: ln, From: from, Log: log, results: make(chan result), done: make(chan struct{}), waiting: map[net.Conn]struct{}{}}
}

// Accept gives the next connection whose client is known. No proxy holds up another's.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin()
	select {
	case r := <-l.results:
		return r.conn, r.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *Listener) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun && !l.closed {
		l.begun = true
		l.parts.Go(l.accept)
	}
}

func (l *Listener) accept() {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err != nil:
			if !l.give(result{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
		case !l.listed(c):
			l.give(result{conn: c})
		case l.enter(c):
			l.parts.Go(func() { l.header(c) })
		default:
			l.refused(c, errors.New("too many connections without a header"))
		}
	}
}

// give hands a connection over, or closes it with the listener.
func (l *Listener) give(r result) bool {
	select {
	case l.results <- r:
		return true
	case <-l.done:
		if r.conn != nil {
			r.conn.Close()
		}
		return false
	}
}

func (l *Listener) listed(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	return ok && slices.ContainsFunc(l.From, func(p netip.Prefix) bool {
		return p.Contains(a.AddrPort().Addr().Unmap().WithZone(""))
	})
}

// enter notes a connection that waits for its header.
func (l *Listener) enter(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting) >= maxWaiting {
		return false
	}
	l.waiting[c] = struct{}{}
	return true
}

func (l *Listener) header(c net.Conn) {
	in := bufio.NewReaderSize(c, lookAhead)
	h, err := proxyproto.ReadHeaderTimeout(c, in, headerTime)
	l.mu.Lock()
	delete(l.waiting, c)
	l.mu.Unlock()
	if err != nil {
		l.refused(c, err)
		return
	}
	rest, _ := in.Peek(in.Buffered())
	l.give(result{conn: &conn{Conn: c, client: client(h), rest: rest}})
}

// client is the address that a header tells, no address if it tells none.
func client(h *proxyproto.Header) *net.TCPAddr {
	if from, _, ok := h.TCPAddrs(); ok && h.Command == proxyproto.PROXY {
		return from
	}
	return &net.TCPAddr{}
}

func (l *Listener) refused(c net.Conn, why error) {
	defer c.Close()
	l.mu.Lock()
	quiet := l.closed || time.Since(l.told) < time.Minute
	if !quiet {
		l.told = time.Now()
	}
	l.mu.Unlock()
	if !quiet {
		l.Log.Warn("connection closed: it came from a proxy of proxy_from and has no PROXY header that can be read: does the proxy send one?",
			"peer", c.RemoteAddr().String(), "listener", l.Addr().String(), "error", why)
	}
}

// Close ends listening and drops what waits for a header.
func (l *Listener) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	for c := range l.waiting {
		c.Close()
	}
	l.mu.Unlock()
	err := l.Listener.Close()
	if !again {
		close(l.done)
	}
	l.parts.Wait()
	return err
}

// A conn is a connection behind its header.
type conn struct {
	net.Conn
	client *net.TCPAddr
	rest   []byte // what came with the header
}

func (c *conn) RemoteAddr() net.Addr { return c.client }

func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Buffered is what has been read and not given on: what comes with a command that must be the last of its group can be seen.
func (c *conn) Buffered() int { return len(c.rest) }

// CloseWrite says that no more comes, so that a last reply arrives.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

package imapserver

import (
	"bytes"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A listener makes TLS of what it accepts, with our deadlines below it and our mending above.
type listener struct {
	net.Listener
	server *server
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.running.Add(1)
	idle := l.server.Idle
	if idle <= 0 {
		idle = defaultIdle
	}
	timed := &timedConn{Conn: raw, idle: idle, end: l.server.Expires}
	return &conn{Conn: tls.Server(timed, l.server.tls()), timed: timed}, nil
}

// A timedConn shortens the engine's deadlines, which are constants of its own: none lies beyond the idle time or the end.
type timedConn struct {
	net.Conn
	idle time.Duration
	mu   sync.Mutex
	end  time.Time
}

// grace is for the last words to a client.
const grace = time.Second

// endAt brings the end forward, and applies it to what waits now.
func (c *timedConn) endAt(t time.Time) {
	c.mu.Lock()
	if t.Before(c.end) {
		c.end = t
	}
	end := c.end
	c.mu.Unlock()
	c.Conn.SetReadDeadline(end)
	c.Conn.SetWriteDeadline(end.Add(grace))
}

func (c *timedConn) clamp(t, limit time.Time) time.Time {
	if t.IsZero() || t.After(limit) {
		return limit
	}
	return t
}

func (c *timedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetReadDeadline(c.clamp(c.clamp(t, time.Now().Add(c.idle)), c.end))
}

func (c *timedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(c.clamp(t, c.end.Add(grace)))
}

func (c *timedConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// A conn mends one answer: the engine says READ-WRITE after every SELECT, and RFC 9051 §6.3.2 wants READ-ONLY here. Between the
// return of Select and that line the engine writes nothing that a message or a client chose, so no content can be taken for it.
type conn struct {
	net.Conn
	timed     *timedConn
	selecting atomic.Bool
}

var readWrite, readOnly = []byte(" OK [READ-WRITE] SELECT completed\r\n"), []byte(" OK [READ-ONLY] SELECT completed\r\n")

func (c *conn) Write(b []byte) (int, error) {
	if !c.selecting.Load() || !bytes.HasSuffix(b, readWrite) {
		return c.Conn.Write(b)
	}
	c.selecting.Store(false)
	mended := append(bytes.TrimSuffix(bytes.Clone(b), readWrite), readOnly...)
	if _, err := c.Conn.Write(mended); err != nil {
		return 0, err
	}
	return len(b), nil
}

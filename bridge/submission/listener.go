package submission

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"dimegate/bridge/smtpwire"
)

// listener admits connections within bounds and puts a guard before each.
type listener struct {
	net.Listener
	server *Server

	mu       sync.Mutex
	sessions map[*smtpwire.Conn]struct{}
	clients  map[netip.Addr]int
	total    int
	stopping bool
}

func newListener(ln net.Listener, s *Server) *listener {
	return &listener{Listener: ln, server: s, sessions: map[*smtpwire.Conn]struct{}{}, clients: map[netip.Addr]int{}}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g := l.admit(c); g != nil {
			return g, nil
		}
		c.SetWriteDeadline(time.Now().Add(time.Second)) // a fresh connection's buffer takes a line at once
		c.Write([]byte("421 4.7.0 Too many sessions, try again later\r\n"))
		c.Close()
	}
}

func (l *listener) admit(c net.Conn) *smtpwire.Conn {
	var client netip.Addr
	if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		client = ap.Addr().Unmap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.server.MaxSessions || l.clients[client] >= l.server.MaxPerClient {
		return nil
	}
	l.total++
	l.clients[client]++
	guard := &smtpwire.Guard{
		TLS: l.server.TLS, CommandTimeout: l.server.Timeout, BlockTimeout: l.server.Timeout, LineFeeds: contains(l.server.Mend, client),
	}
	var g *smtpwire.Conn
	g = guard.Conn(&counted{Conn: c, closed: func() { l.gone(g, client) }})
	l.sessions[g] = struct{}{}
	if l.stopping {
		g.Interrupt()
	}
	return g
}

func (l *listener) gone(g *smtpwire.Conn, client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, g)
	l.total--
	if l.clients[client]--; l.clients[client] == 0 {
		delete(l.clients, client)
	}
}

// stop ends listening, and each session as soon as it waits for a command.
func (l *listener) stop() {
	l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	for g := range l.sessions {
		g.Interrupt()
	}
}

func (l *listener) closeAll() {
	l.mu.Lock()
	all := make([]*smtpwire.Conn, 0, len(l.sessions))
	for g := range l.sessions {
		all = append(all, g)
	}
	l.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// counted tells when the connection is closed, once.
type counted struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}

// CloseWrite lets the guard end a session so that the peer can read why.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

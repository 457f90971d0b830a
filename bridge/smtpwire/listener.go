package smtpwire

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Listener admits connections within bounds and puts a guard before each. Its fields are set before use; go-smtp's server
// serves it.
type Listener struct {
	net.Listener
	// Guard makes the guard of a connection, of a client whose address may be invalid.
	Guard func(c net.Conn, client netip.Addr) *Guard
	Limit int // connections at one time
	// PerClient is how many of them the clients of one key may have, and the key; 0: as many as there are.
	PerClient func(client netip.Addr) (key netip.Prefix, limit int)

	mu       sync.Mutex
	sessions map[*Conn]struct{}
	clients  map[netip.Prefix]int
	stopping bool
}

// Accept gives the next connection, a *Conn. One that is too many is told so and closed.
func (l *Listener) Accept() (net.Conn, error) {
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

// Peer is the address of a connection's other side, invalid if it has none.
func Peer(c net.Conn) netip.AddrPort {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// AddrText is an address as logs show it, also when there is none.
func AddrText(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

func (l *Listener) admit(c net.Conn) *Conn {
	client := Peer(c).Addr()
	key, limit := l.PerClient(client)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sessions) >= l.Limit || limit > 0 && l.clients[key] >= limit {
		return nil
	}
	if l.sessions == nil {
		l.sessions, l.clients = map[*Conn]struct{}{}, map[netip.Prefix]int{}
	}
	l.clients[key]++
	var g *Conn
	g = l.Guard(c, client).Conn(&counted{Conn: c, closed: func() { l.gone(g, key) }})
	l.sessions[g] = struct{}{}
	if l.stopping {
		g.Interrupt()
	}
	return g
}

func (l *Listener) gone(g *Conn, key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, g)
	if l.clients[key]--; l.clients[key] == 0 {
		delete(l.clients, key)
	}
}

// Stop ends listening, and each session as soon as it waits for a command.
func (l *Listener) Stop() {
	l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	for g := range l.sessions {
		g.Interrupt()
	}
}

// CloseAll ends all sessions.
func (l *Listener) CloseAll() {
	l.mu.Lock()
	all := make([]*Conn, 0, len(l.sessions))
	for g := range l.sessions {
		all = append(all, g)
	}
	l.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// counted tells when the connection is closed, once. What the guard wants to know of the connection it passes on.
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

// Buffered is what the connection has read and not given on.
func (c *counted) Buffered() int {
	if b, ok := c.Conn.(interface{ Buffered() int }); ok {
		return b.Buffered()
	}
	return 0
}

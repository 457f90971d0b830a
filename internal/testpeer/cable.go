package testpeer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// A Cable stands between a client and a server and can be pulled out, or cut in the middle of a message, whatever goes
// through it. Safe for concurrent use.
type Cable struct {
	Addr   string // host:port where it listens
	target string

	mu       sync.Mutex
	listener net.Listener // nil: pulled out
	left     int64        // client's octets until the cut; negative: none is planned
	cut      chan struct{}
	open     map[net.Conn]bool
	closed   bool
	passing  sync.WaitGroup
}

// Cable makes a cable to target, not yet plugged in. It goes with the bench.
func (b *Bench) Cable(addr, target string) *Cable {
	c := &Cable{Addr: addr, target: target, left: -1, open: map[net.Conn]bool{}}
	b.onClose(func() error {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.Unplug()
		c.passing.Wait()
		return nil
	})
	return c
}

// Plug lets connections through.
func (c *Cable) Plug() error {
	ln, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.listener != nil {
		ln.Close()
		return errors.New("testpeer: the cable is plugged in already, or its bench is closed")
	}
	c.listener = ln
	c.passing.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // pulled out
			}
			c.passing.Go(func() { c.pass(conn) })
		}
	})
	return nil
}

// Unplug ends every connection and refuses new ones.
func (c *Cable) Unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for conn := range c.open {
		conn.Close()
	}
}

// Cut ends every connection once clients have sent n further octets, together. The channel is closed when that has happened.
func (c *Cable) Cut(n int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.cut = n, make(chan struct{})
	return c.cut
}

// count is where the client's octets are counted. It says whether these may pass.
func (c *Cable) count(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 {
		return true
	}
	if c.left -= int64(n); c.left >= 0 {
		return true
	}
	c.left = -1
	close(c.cut)
	for conn := range c.open {
		conn.Close()
	}
	return false
}

func (c *Cable) hold(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.open[conn] = true
		if c.listener == nil {
			conn.Close()
		}
	}
}

func (c *Cable) pass(client net.Conn) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.target)
	if err != nil {
		return // the client sees a closed connection
	}
	defer server.Close()
	c.hold(client, server)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, client)
		delete(c.open, server)
	}()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, server) // ends with either side
		client.Close()
	})
	buf := make([]byte, 4096)
	for {
		n, err := client.Read(buf)
		if n > 0 && c.count(n) {
			if _, werr := server.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	server.Close()
	back.Wait()
}

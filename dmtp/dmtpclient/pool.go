package dmtpclient

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A destination holds the connections to one DX, or to the first of several: at most PerDestination, some of them idle. Domains
// with the same DX share them, so that a provider of many does not get as many connections.
type destination struct {
	slots chan struct{}
	idle  []*idleConn
	users int // holders of a slot, and those who wait for one
}

type idleConn struct {
	conn  *Conn
	timer *time.Timer
}

// Deliver hands a message over on a connection to t, kept from before or new. When a host fails without a verdict, the next
// one is asked at once with the same octets: the hosts of a domain share their memory of messages, so nothing is delivered
// twice. The error is *Error.
func (c *Client) Deliver(ctx context.Context, t Target, env Envelope, message []byte) (receipt Receipt, err error) {
	err = c.Do(ctx, t, func(conn *Conn) (err error) {
		receipt, err = conn.Deliver(ctx, env, message)
		return err
	})
	return receipt, err
}

// Do runs f with a connection to t, and again with one to the next host when f fails with an *Error of class Network. f may be
// called several times, so what it asks must bear repeating. The connection goes back to the pool, or is closed, when f
// returns. One that was made for another domain is used only if t.Verify accepts it, too.
func (c *Client) Do(ctx context.Context, t Target, f func(*Conn) error) error {
	if len(t.Hosts) == 0 || t.Verify == nil {
		_, err := c.Connect(ctx, t)
		return err
	}
	key := t.Hosts[0].Name
	release, err := c.acquire(ctx, key)
	if err != nil {
		return &Error{Class: Network, Step: "connect", Err: err}
	}
	defer release()
	failed := make(map[string]bool)
	var last error
	for {
		conn, reused, err := c.take(ctx, key, t, failed)
		if err != nil {
			if last != nil && ClassOf(err) != Trust {
				return last // it got further
			}
			return err
		}
		host := conn.host
		ferr := f(conn)
		c.giveBack(key, conn)
		if e, ok := errors.AsType[*Error](ferr); !ok || e.Class != Network || ctx.Err() != nil {
			return ferr // nil, a verdict, or f's own
		}
		last = ferr
		if !reused { // a kept connection may have died of age: its host gets another chance
			failed[host] = true
			if len(failed) >= len(t.Hosts) {
				return last
			}
		}
	}
}

// take finds a kept connection that t accepts, or makes one.
func (c *Client) take(ctx context.Context, key string, t Target, failed map[string]bool) (conn *Conn, reused bool, err error) {
	if conn := c.takeIdle(key, t, failed); conn != nil {
		if conn.verified[t.Domain] {
			return conn, true, nil
		}
		if t.Verify(ctx, conn.host, conn.state) == nil {
			conn.verified[t.Domain] = true
			return conn, true, nil
		}
		c.giveBack(key, conn) // good for others; a new one may show another certificate
	}
	conn, err = c.connect(ctx, t, failed)
	return conn, false, err
}

// acquire waits for one of the slots of a destination.
func (c *Client) acquire(ctx context.Context, key string) (release func(), err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errClosed
	}
	d := c.pool[key]
	if d == nil {
		d = &destination{slots: make(chan struct{}, c.o.PerDestination)}
		c.pool[key] = d
	}
	d.users++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		d.users--
		c.forget(key, d)
	}
	select {
	case d.slots <- struct{}{}:
		return func() { <-d.slots; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// forget drops a destination that nobody uses. The caller holds mu.
func (c *Client) forget(key string, d *destination) {
	if d.users == 0 && len(d.idle) == 0 && c.pool[key] == d {
		delete(c.pool, key)
	}
}

// takeIdle takes the newest kept connection to a host that has not failed and is still a host of t.
func (c *Client) takeIdle(key string, t Target, failed map[string]bool) *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.pool[key]
	for i := len(d.idle) - 1; i >= 0; i-- {
		conn := d.idle[i].conn
		if failed[conn.host] || !hasHost(t, conn.host) || !d.idle[i].timer.Stop() {
			continue // a timer that has fired closes it
		}
		d.idle = append(d.idle[:i], d.idle[i+1:]...)
		return conn
	}
	return nil
}

func hasHost(t Target, name string) bool {
	for _, h := range t.Hosts {
		if h.Name == name {
			return true
		}
	}
	return false
}

// giveBack keeps a connection that can be used again, and closes any other.
func (c *Client) giveBack(key string, conn *Conn) {
	if !conn.Usable() || conn.transactions >= c.o.MaxTransactions || time.Since(conn.opened) >= c.o.MaxAge {
		if conn.Usable() {
			conn.Close()
		} else {
			conn.drop()
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.drop()
		return
	}
	d := c.pool[key] // there is one: the caller holds a slot
	kept := &idleConn{conn: conn}
	kept.timer = time.AfterFunc(min(c.o.IdleTimeout, c.o.MaxAge-time.Since(conn.opened)), func() { c.expire(key, d, kept) })
	d.idle = append(d.idle, kept)
}

func (c *Client) expire(key string, d *destination, kept *idleConn) {
	c.mu.Lock()
	for i, k := range d.idle {
		if k == kept {
			d.idle = append(d.idle[:i], d.idle[i+1:]...)
			break
		}
	}
	c.forget(key, d)
	c.mu.Unlock()
	kept.conn.Close()
}

// Close closes the connections that are not in use; those in use are closed when they come back. Nothing can be asked
// afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	var conns []*Conn
	for key, d := range c.pool {
		for _, k := range d.idle {
			if k.timer.Stop() {
				conns = append(conns, k.conn)
			}
		}
		d.idle = nil
		c.forget(key, d)
	}
	c.mu.Unlock()
	var quits sync.WaitGroup
	for _, conn := range conns {
		quits.Go(func() { conn.Close() })
	}
	quits.Wait()
	return nil
}

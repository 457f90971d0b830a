package testpeer

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"sync"
)

// A Proxy stands between a client and a server of a line protocol and can stop the server's words at a chosen line: the
// way to be in the window between what a server did and what its client knows of it.
type Proxy struct {
	Addr   string // host:port where it listens
	target string

	mu   sync.Mutex
	hold []byte        // a server's line that contains it is held; nil holds nothing
	held chan struct{} // closed when a line is held
	open chan struct{} // closed when held lines may go on
}

// Proxy listens on addr and passes every connection on to target, until the bench closes.
func (b *Bench) Proxy(addr, target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target}
	b.Go("proxy", func(ctx context.Context) error {
		var wg sync.WaitGroup
		defer wg.Wait()
		defer context.AfterFunc(ctx, func() { ln.Close(); p.Release() })()
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil // closed: the bench ends
			}
			wg.Go(func() { p.pass(ctx, c) })
		}
	})
	return p, nil
}

// Hold makes the proxy keep the next server line that contains text, and everything after it on that connection. The
// channel is closed when that has happened.
func (p *Proxy) Hold(text string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold, p.held, p.open = []byte(text), make(chan struct{}), make(chan struct{})
	return p.held
}

// Release lets what is held go on, if its client is still there, and holds nothing more.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil {
		close(p.open)
	}
	p.hold, p.held, p.open = nil, nil, nil
}

// gate returns what to wait for before a line may pass, nil when it may at once.
func (p *Proxy) gate(line []byte) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold == nil || !bytes.Contains(line, p.hold) {
		return nil
	}
	p.hold = nil // the first one only
	close(p.held)
	return p.open
}

func (p *Proxy) pass(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return // the client sees a closed connection, as with a server that is down
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client) // ends with either side
		server.Close()
	})
	r := bufio.NewReader(server)
	for {
		line, err := r.ReadBytes('\n')
		if gate := p.gate(line); gate != nil {
			<-gate
		}
		if _, werr := client.Write(line); werr != nil || err != nil {
			break
		}
	}
	client.Close()
	server.Close()
	wg.Wait()
}

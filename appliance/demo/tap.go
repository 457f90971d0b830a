package demo

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
)

// A tap stands between two gateways as an eavesdropper does: it relays every connection and keeps all that it saw.
type tap struct {
	to string // where connections go on

	mu   sync.Mutex
	seen bytes.Buffer
}

// serve relays connections from ln until ctx ends, and returns when the last one is done.
func (t *tap) serve(ctx context.Context, ln net.Listener) {
	var relays sync.WaitGroup
	defer relays.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		relays.Go(func() { t.relay(ctx, c) })
	}
}

func (t *tap) relay(ctx context.Context, in net.Conn) {
	defer in.Close()
	var d net.Dialer
	out, err := d.DialContext(ctx, "tcp", t.to)
	if err != nil {
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	var both sync.WaitGroup
	both.Go(func() { t.copy(out, in) })
	both.Go(func() { t.copy(in, out) })
	both.Wait()
}

// copy relays one direction and passes the end on, so that the other side sees it.
func (t *tap) copy(dst, src net.Conn) {
	io.Copy(io.MultiWriter(dst, t), src)
	if c, ok := dst.(*net.TCPConn); ok {
		c.CloseWrite()
	}
}

// Write keeps what passed.
func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.Write(p)
}

// octets returns a copy of all that was seen.
func (t *tap) octets() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.seen.Bytes())
}

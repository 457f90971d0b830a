package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
)

// A session is one connection with a server, and what it proved when it was made.
type session struct {
	*smtpwire.Client
	key      string
	address  netip.AddrPort
	state    *tls.ConnectionState // nil: in the clear
	messages int
	expiry   *time.Timer
}

func (h hop) key(auth bool) string {
	k := h.host + ":" + strconv.Itoa(int(h.port))
	if auth {
		k += " auth"
	}
	return k
}

// session takes a kept session that is as protected as this message asks, or opens one. The proof is looked at anew each
// time: what was enough for the last message need not be for this.
func (t *try) session(ctx context.Context, r *route, h hop, d *demand, a netip.Addr, fresh bool) (*session, *failure) {
	to := netip.AddrPortFrom(a, h.port)
	key := h.key(r.auth != nil)
	if !fresh && !t.probe {
		s := t.pool.take(key, to, func(s *session) bool {
			_, f := d.judge(s.state, t.Roots, t.Now())
			return f == nil
		})
		if s != nil {
			return s, nil
		}
	}
	t.dials++
	conn, err := t.Dial(ctx, to)
	if err != nil {
		return nil, &failure{class: queue.Network, status: "4.4.1", host: h.host, why: h.host + " cannot be connected to"}
	}
	s := &session{key: key, address: to}
	local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
	f := t.open(ctx, r, d, s, conn)
	t.count(r, d, s, local.Addr().Unmap(), f)
	if f != nil {
		conn.Close()
		return nil, f
	}
	return s, nil
}

// implicitTLS is the port of a smart host that speaks TLS from the first octet (RFC 8314).
const implicitTLS = 465

func (t *try) open(ctx context.Context, r *route, d *demand, s *session, conn net.Conn) *failure {
	if r.smart && s.address.Port() == implicitTLS {
		c := tls.Client(conn, t.tls(d, s))
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		if f := t.handshake(d, c.HandshakeContext(ctx)); f != nil {
			return f
		}
		conn = c
	}
	s.Client = smtpwire.NewClient(conn, t.Name, false, t.Timeouts)
	return t.introduce(ctx, r, d, s)
}

// handshakeTime is how long TLS from the first octet may take to come up.
const handshakeTime = time.Minute

// introduce greets, encrypts and proves who is who.
func (t *try) introduce(ctx context.Context, r *route, d *demand, s *session) *failure {
	if err := s.Greet(ctx); err != nil {
		f := refused(d.host, err)
		if f.class == queue.Protocol {
			f.class = queue.Network // anyone on the way can garble what is not encrypted yet: that must not end in a bounce soon
		}
		return t.answered(f)
	}
	if _, offered := s.Offers("STARTTLS"); offered && s.state == nil {
		if f := t.encrypt(ctx, d, s); f != nil {
			return f
		}
	}
	if _, f := d.judge(s.state, t.Roots, t.Now()); f != nil {
		s.Quit()
		return f
	}
	if r.auth != nil {
		if err := s.Auth(ctx, r.auth()); err != nil {
			return t.answered(refused(d.host, err))
		}
	}
	return nil
}

// answered counts a server that refused to speak with us.
func (t *try) answered(f *failure) *failure {
	if f.reply.Code != 0 {
		t.answers++
	}
	return f
}

// encrypt makes the session TLS. Who offers it and cannot do it gets no mail in the clear, at any floor.
func (t *try) encrypt(ctx context.Context, d *demand, s *session) *failure {
	return t.handshake(d, s.StartTLS(ctx, t.tls(d, s)))
}

// tls is the client's side of a handshake: judge verifies, by what is asked, before anything is said over the session.
func (t *try) tls(d *demand, s *session) *tls.Config {
	cfg := &tls.Config{
		ServerName: d.sni, MinVersion: tls.VersionTLS12, Time: t.Now, InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if _, f := d.judge(&cs, t.Roots, t.Now()); f != nil {
				return f
			}
			s.state = &cs
			return nil
		},
	}
	if _, err := netip.ParseAddr(d.sni); err == nil {
		cfg.ServerName = "" // RFC 6066 §3: no address
	}
	return cfg
}

// handshake says what the end of a handshake means.
func (t *try) handshake(d *demand, err error) *failure {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if _, ok := errors.AsType[*smtpwire.Error](err); ok {
		f := refused(d.host, err)
		f.report = tlsrpt.Failed
		return t.answered(f)
	}
	f := &failure{class: queue.Trust, status: "5.7.5", host: d.host, why: "TLS with " + d.host + " fails", report: tlsrpt.Failed}
	if lost(err) {
		f.class, f.status = queue.Network, "4.4.2"
	}
	return f
}

// lost tells a connection that ended from one that speaks no TLS that we do.
func lost(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op != "remote error" && op.Op != "local error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}

// count tells the TLS reports what came of a session.
func (t *try) count(r *route, d *demand, s *session, local netip.Addr, f *failure) {
	one := tlsrpt.Session{Policy: d.policy(r), Host: d.host, Sending: local, Address: s.address.Addr()}
	if f == nil && d.test != nil { // a policy in mode testing, or floor and host without any: what would have failed is told
		one.Result = d.tested(s.state, t)
	} else if f == nil && s.state == nil {
		one.Result = tlsrpt.NoSTARTTLS
	}
	t.report(r, one, f)
}

// tested is what a policy in mode testing would have refused.
func (d *demand) tested(state *tls.ConnectionState, t *try) tlsrpt.Result {
	if !d.test.Names(d.host) {
		return tlsrpt.Failed
	}
	if state == nil {
		return tlsrpt.NoSTARTTLS
	}
	result, _ := certified(state.PeerCertificates, t.Roots, []string{d.host}, t.Now())
	return result
}

// A pool keeps sessions for the next message, and holds back who would open too many with one host.
type pool struct {
	limit, messages int
	idle            time.Duration

	mu      sync.Mutex
	hosts   map[string]*seats
	closed  bool
	goodbye sync.WaitGroup
}

// seats are one host's sessions.
type seats struct {
	slots chan struct{}
	users int // in slots or waiting for one
	idle  []*session
}

func (p *pool) at(key string) *seats {
	if p.hosts == nil {
		p.hosts = map[string]*seats{}
	}
	h := p.hosts[key]
	if h == nil {
		h = &seats{slots: make(chan struct{}, p.limit)}
		p.hosts[key] = h
	}
	return h
}

// left forgets a host that nobody uses. The caller holds the lock.
func (p *pool) left(key string) {
	if h := p.hosts[key]; h != nil && h.users == 0 && len(h.idle) == 0 {
		delete(p.hosts, key)
	}
}

// enter waits for a seat.
func (p *pool) enter(ctx context.Context, key string) (release func(), err error) {
	p.mu.Lock()
	h := p.at(key)
	h.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		h.users--
		p.left(key)
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ended(ctx)
	}
}

// kept counts the sessions with a host that wait for a message.
func (p *pool) kept(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[key]; h != nil {
		return len(h.idle)
	}
	return 0
}

// take returns a kept session that fits, the one used last.
func (p *pool) take(key string, to netip.AddrPort, fits func(*session) bool) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[key]
	if h == nil {
		return nil
	}
	for i, s := range slices.Backward(h.idle) {
		if s.address == to && fits(s) {
			s.expiry.Stop() // if it has fired, it finds the session taken
			h.idle = slices.Delete(h.idle, i, i+1)
			return s
		}
	}
	return nil
}

// keep puts a session aside.
func (p *pool) keep(s *session) {
	p.mu.Lock()
	full := p.closed || s.messages >= p.messages
	if !full {
		h := p.at(s.key)
		full = len(h.idle) >= p.limit
		if !full {
			s.expiry = time.AfterFunc(p.idle, func() { p.expire(s) })
			h.idle = append(h.idle, s)
		}
	}
	p.mu.Unlock()
	if full {
		s.Quit()
	}
}

// expire ends a kept session, unless it has been taken meanwhile.
func (p *pool) expire(s *session) {
	p.mu.Lock()
	i := -1
	if h := p.hosts[s.key]; h != nil {
		if i = slices.Index(h.idle, s); i >= 0 {
			h.idle = slices.Delete(h.idle, i, i+1)
			p.left(s.key)
			p.goodbye.Add(1)
			defer p.goodbye.Done()
		}
	}
	p.mu.Unlock()
	if i >= 0 {
		s.Quit()
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	var idle []*session
	for _, h := range p.hosts {
		idle = append(idle, h.idle...)
		h.idle = nil
	}
	p.mu.Unlock()
	for _, s := range idle {
		s.expiry.Stop()
		s.Quit()
	}
	p.goodbye.Wait()
	return nil
}

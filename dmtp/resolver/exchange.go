package resolver

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// Tries and sizes of the traffic with recursive resolvers.
const (
	maxTries    = 4    // in all, over all resolvers
	udpSize     = 1232 // RFC 9715: what passes without fragments
	maxMismatch = 16   // datagrams that are not our answer, before the try ends
)

// An exchanger carries one query to one server and brings the answer. It is the network, or a test's.
type exchanger func(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error)

// fetch asks the resolvers for name and type until one gives an answer that fits: the preferred one first, UDP first,
// TCP when the answer is truncated. It counts against the look-up's budget.
func (d *DNS) fetch(ctx context.Context, b *budget, name string, typ uint16) (*reply, error) {
	if err := b.query(); err != nil {
		return nil, err
	}
	var last error
	first := d.preferred.Load()
	for try := range min(maxTries, 2*len(d.servers)) {
		at := (first + uint32(try) + b.shift) % uint32(len(d.servers))
		r, err := d.fetchFrom(ctx, d.servers[at], name, typ)
		if err == nil {
			if try > 0 && b.shift == 0 {
				d.preferred.CompareAndSwap(first, at)
			}
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", dns.TypeToString[typ], context.Cause(ctx))
		}
		last = err
	}
	return nil, fmt.Errorf("%s %s: %w", name, dns.TypeToString[typ], last)
}

// fetchFrom is one try at one resolver.
func (d *DNS) fetchFrom(ctx context.Context, server, name string, typ uint16) (*reply, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	q.SetEdns0(udpSize, true)
	q.CheckingDisabled = !d.trustAD // we want to see what a validator would hide
	q.AuthenticatedData = d.trustAD // RFC 6840 §5.7
	m, err := d.exchange(ctx, "udp", server, q)
	if err == nil && m.Truncated {
		m, err = d.exchange(ctx, "tcp", server, q)
	}
	if err != nil {
		return nil, err
	}
	r, err := newReply(m, name, typ)
	if err != nil {
		return nil, err
	}
	r.server, r.at = server, d.now()
	return r, nil
}

// exchange is the exchanger that uses the network: a new socket, and so a new source port, for each query.
func exchange(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	co := &dns.Conn{Conn: conn, UDPSize: dns.DefaultMsgSize}
	if err := co.WriteMsg(q); err != nil {
		return nil, err
	}
	for range maxMismatch {
		m, err := co.ReadMsg()
		if m == nil { // the socket failed; a datagram that does not parse has an m, and may be anybody's
			return nil, err
		}
		if m.Id == q.Id && (err == nil || m.Truncated) {
			return m, nil
		}
		if network == "tcp" {
			break
		}
	}
	return nil, errGarbled
}

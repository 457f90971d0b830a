// Package dmtpclient speaks DMTP to other organisations' servers: it looks signets up and delivers messages.
//
// It decides nothing about trust. The caller names the hosts of a destination, in order, and a function that accepts or
// refuses the certificate of each; what a signet is worth is the resolver's to say.
package dmtpclient

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Host is one DX of a destination.
type Host struct {
	Name string // as in the record, the MX, or the domain itself: it is also the name that the certificate is checked for
	Dual bool   // found by MX: when port 26 fails, STARTTLS on the shared port 25 is tried as well
}

// A Target is where a destination can be reached.
type Target struct {
	Domain string // the destination for which Verify speaks
	Hosts  []Host // in the order in which they are tried
	// Verify decides about the certificate of a host, after each handshake and before anything is said: an error is a
	// refusal, and the next host is tried. It is mandatory; the TLS library itself trusts everything here.
	Verify func(ctx context.Context, host string, state tls.ConnectionState) error
}

// Options are the settings of a Client. Zero values are the defaults.
type Options struct {
	// Lookup finds a host's addresses; the system's resolver does if it is nil.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Permit refuses addresses that must not be connected to. Nil is PublicOnly: a foreign record could name our own network.
	Permit func(netip.Addr) error
	// Dial connects to one address; a net.Dialer does if it is nil.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

	Hello string // the name given in EHLO; the origin domain of the first message if it is empty

	Port     uint16 // implicit TLS; 26
	DualPort uint16 // shared with SMTP; 25
	AuxPort  uint16 // second shared port, tried when the first cannot be connected to; none (587 by the reference)

	Timeouts    Timeouts
	NegativeTTL time.Duration // how long a failed host and port is passed over while another remains; 5m, negative: never

	PerDestination  int           // connections to one DX; 4
	MaxTransactions int           // messages on one connection; 90, since peers of ours end it after 100
	IdleTimeout     time.Duration // how long an unused connection is kept; 1m
	MaxAge          time.Duration // how long a connection is used at all, counted from its certificate check; 10m

	Log *slog.Logger // debug lines on connections; none if it is nil
}

// Timeouts bound each wait. Zero values are the defaults, dmtp.md OC-4.
type Timeouts struct {
	Connect     time.Duration // TCP, each address; 10s
	Handshake   time.Duration // 30s
	Total       time.Duration // all hosts of one Connect; 60s
	Command     time.Duration // banner, STARTTLS, EHLO, look-ups; 60s
	Transaction time.Duration // MAIL, RCPT; 5m
	Data        time.Duration // DATA to 354; 2m
	Block       time.Duration // one block of a message; 3m
	Final       time.Duration // the reply to a message; 10m
	Quit        time.Duration // 5s
}

// PublicOnly refuses loopback, private, link-local, multicast, shared and unspecified addresses.
func PublicOnly(a netip.Addr) error {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || cgnat.Contains(a) || a.Is4() && a.As4()[0] >= 240 || nat64.Contains(a) {
		return ErrForbidden
	}
	return nil
}

// Anywhere permits every address: for a network of one's own.
func Anywhere(netip.Addr) error { return nil }

var (
	cgnat = netip.MustParsePrefix("100.64.0.0/10")
	nat64 = netip.MustParsePrefix("64:ff9b::/96") // would reach the IPv4 addresses behind it, private ones too
)

func (o Options) withDefaults() Options {
	def(&o.Port, 26)
	def(&o.DualPort, 25)
	def(&o.NegativeTTL, 5*time.Minute)
	def(&o.PerDestination, 4)
	def(&o.MaxTransactions, 90)
	def(&o.IdleTimeout, time.Minute)
	def(&o.MaxAge, 10*time.Minute)
	t := &o.Timeouts
	def(&t.Connect, 10*time.Second)
	def(&t.Handshake, 30*time.Second)
	def(&t.Total, time.Minute)
	def(&t.Command, time.Minute)
	def(&t.Transaction, 5*time.Minute)
	def(&t.Data, 2*time.Minute)
	def(&t.Block, 3*time.Minute)
	def(&t.Final, 10*time.Minute)
	def(&t.Quit, 5*time.Second)
	if o.Permit == nil {
		o.Permit = PublicOnly
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// A Client makes connections and keeps them per destination. It is safe for concurrent use.
type Client struct {
	o Options

	mu     sync.Mutex
	failed map[way]time.Time // when it failed last
	pool   map[string]*destination
	closed bool
}

// New makes a Client. It starts nothing; Close ends what its connections started.
func New(o Options) *Client {
	return &Client{o: o.withDefaults(), failed: make(map[way]time.Time), pool: make(map[string]*destination)}
}

// Package dmtpserver is the organisation's DMTP server: it shows signets to whoever asks, and takes messages, of which it
// knows the origin's domain and the recipient, never the author.
//
// Port 26 is DMTP in TLS from the first octet (Serve). Port 25 is shared with SMTP: ServeDual speaks the first lines and
// hands everything that is not DMTP to an SMTP engine.
//
// A message passes checks 1 to 7 of dmtp.md §9.4 here; the rest is the Deliverer's, whose errors one table turns into
// replies.
package dmtpserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// A Directory shows the signets of our domains and users. Names are in lower case; addresses of unknown, disabled and hidden
// users, and names outside our domains, are all ErrNotFound. Any other error means that the answer is not known now.
type Directory interface {
	// Current is the current signet of a domain or address, in ID form.
	Current(ctx context.Context, name string) (*signet.Signet, error)
	// Chain is all signets that the name ever had, in ID form, each the successor of the one before it, the current one last.
	Chain(ctx context.Context, name string) ([]*signet.Signet, error)
}

// Domains knows the domains that we receive for. One that is not ours is ErrNotFound.
type Domains interface {
	Organization(ctx context.Context, domain string) (*Organization, error)
}

// An Organization is one domain of ours with every encryption key that it still holds, the current one first.
type Organization struct {
	Keys []OrganizationKey
	// Governs tells whether an address of another domain belongs to the organisation, by the subdomain rule of its record.
	// Nil: none does.
	Governs func(domain string) bool
}

// An OrganizationKey is an encryption key with the organizational signet, in ID form, that shows it. The server does not
// destroy it.
type OrganizationKey struct {
	Signet *signet.Signet
	Past   []*signet.Signet // that showed it before: others cache them
	Key    key.Encryption
}

// Origins finds verified organizational signets of other domains: the one with the crypto fingerprint, which need not be the
// current one. Errors: ErrOriginUnavailable, ErrOriginGone, ErrOriginUnknown; any other counts as the first.
//
// The destination is our domain that the message is for. It asks mayAsk before it goes to the network on behalf of the peer. When that says no it returns ErrOriginUnavailable.
type Origins interface {
	OriginSignet(ctx context.Context, destination, domain string, crypto signet.Fingerprint, mayAsk func() bool) (*signet.Signet, error)
}

// Outcomes remembers what became of messages for a domain of ours. The Deliverer writes what it reads.
type Outcomes interface {
	// Message is what is recorded of a message id under an origin domain.
	Message(ctx context.Context, destination, origin string, id [64]byte) (Outcome, error)
	// Accepted tells whether a message with this commit value was accepted under an origin domain.
	Accepted(ctx context.Context, destination, origin string, commit [64]byte) (bool, error)
}

// An Outcome is what is recorded of a message.
type Outcome struct {
	State   State
	Refusal error // of a Refused message: one of this package's errors
}

// A State of a message.
type State uint8

// The states.
const (
	Unknown State = iota
	InFlight
	Accepted
	Refused
)

// A Deliverer takes a message whose origin is proved: checks 8 to 13 of dmtp.md §9.4. A nil error means that it is delivered
// and that this is recorded durably; ErrDuplicate that it was before. Other errors are this package's, or count as a
// temporary one; what is permanent and an outcome, the Deliverer has recorded.
//
// When ctx ends it returns at once, with ErrInFlight if it goes on by itself. The message is valid until it returns: what
// goes on must have its own copy.
type Deliverer interface {
	Deliver(ctx context.Context, in *Incoming) error
}

// Incoming is a message of which all is verified that a destination can verify.
type Incoming struct {
	Peer              netip.Addr
	Origin            string // proved domain
	OriginSignet      *signet.Signet
	Destination       string         // our domain, by RCPT
	DestinationSignet *signet.Signet // ours, whose key opened the message
	Recipient         string         // of that domain, in lower case; whether it exists is not known
	RecipientSignet   signet.Fingerprint
	Message           *message.Message
	ID                [64]byte
	Commit            [64]byte
	MayAsk            func() bool // as in Origins, for the author's signet
}

// Errors that the interfaces return. Each has its reply in one table.
var (
	ErrNotFound          = errors.New("dmtpserver: no such name")
	ErrOriginUnavailable = errors.New("dmtpserver: origin or author signet not available now")
	ErrOriginGone        = errors.New("dmtpserver: origin or author signet not available")
	ErrOriginUnknown     = errors.New("dmtpserver: the origin has no such signet")
	ErrDuplicate         = errors.New("dmtpserver: message delivered before")
	ErrInFlight          = errors.New("dmtpserver: message is being delivered")
	ErrDeferred          = errors.New("dmtpserver: inner server deferred")
	ErrRecipient         = errors.New("dmtpserver: no such recipient")
	ErrRecipientSignet   = errors.New("dmtpserver: not a signet of the recipient")
	ErrLimits            = errors.New("dmtpserver: quota or rate exceeded")
	ErrAuthorSignature   = errors.New("dmtpserver: author signature invalid")
	ErrMessage           = errors.New("dmtpserver: message malformed")
	ErrRefused           = errors.New("dmtpserver: inner server refused")
)

// Config is what a Server needs. Directory, Domains, Origins, Outcomes, Deliverer, Host and Certificates are mandatory.
type Config struct {
	Host         string // the DX's name in banners
	Product      string // the last word of banners, without a version; "Dimegate" if empty
	Certificates *Certificates

	Directory Directory
	Domains   Domains
	Origins   Origins
	Outcomes  Outcomes
	Deliverer Deliverer

	// SMTP serves one SMTP session on a connection that came in by ServeDual, and returns when it has ended; see Handover.
	// Nil: port 25 is for DMTP alone.
	SMTP func(ctx context.Context, conn net.Conn)

	Buffers  Buffers // where messages lie while they are handled; memory, at most Limits.Memory in all, if it is nil
	Limits   Limits
	Timeouts Timeouts
	Log      *slog.Logger
}

// Limits bounds what clients may cost. Zero values are the defaults, dmtp.md OC-25.
type Limits struct {
	Message      uint64         // octets of a message; 64 MiB
	Memory       int64          // octets of all messages in memory; 512 MiB
	Sessions     int            // 1000
	PrefixConns  int            // concurrent, of one /24 or /64; 10
	LookupsMin   int            // of a prefix, a minute; 60
	LookupsHour  int            // of a prefix, an hour; 600
	MissCost     int            // look-ups that an unknown name counts for; 5
	CallBacksMin int            // verification look-ups that a prefix may cause, a minute; 30
	Lookups      int            // on one connection; 200
	Transactions int            // on one connection; 100
	Violations   int            // on one connection; 20
	Delay        time.Duration  // for each violation so far, at most 20 times it; 250ms, negative for none
	MissDelay    time.Duration  // the answer to an unknown name comes after a multiple of it; 250ms, negative for none
	Exempt       []netip.Prefix // not limited by prefix
}

// Timeouts bound each wait. Zero values are the defaults, dmtp.md OC-4 and §9.4.
type Timeouts struct {
	Handshake time.Duration // 30s
	Hello     time.Duration // between commands before EHLO; 5m
	Idle      time.Duration // between commands after it; 10m
	Block     time.Duration // between octets of a message; 3m
	Write     time.Duration // one reply line; 1m
	Lookup    time.Duration // one question to Directory, Domains, Outcomes; 50s
	Origin    time.Duration // one to Origins; 30s
	Deliver   time.Duration // 9m: behind the 8 that a Deliverer waits for its inner server, before the 10 of a client
	Linger    time.Duration // reading on before a close, so that the reply arrives; 1s
}

func (c *Config) setDefaults() {
	def(&c.Product, "Dimegate")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &c.Limits
	def(&l.Message, dmtp.DefaultMaxData)
	l.Message = min(l.Message, dmtp.HardMaxData)
	def(&l.Memory, 512<<20)
	def(&l.Sessions, 1000)
	def(&l.PrefixConns, 10)
	def(&l.LookupsMin, 60)
	def(&l.LookupsHour, 600)
	def(&l.MissCost, 5)
	def(&l.CallBacksMin, 30)
	def(&l.Lookups, 200)
	def(&l.Transactions, 100)
	def(&l.Violations, 20)
	def(&l.Delay, 250*time.Millisecond)
	def(&l.MissDelay, 250*time.Millisecond)
	t := &c.Timeouts
	def(&t.Handshake, 30*time.Second)
	def(&t.Hello, 5*time.Minute)
	def(&t.Idle, 10*time.Minute)
	def(&t.Block, 3*time.Minute)
	def(&t.Write, time.Minute)
	def(&t.Lookup, 50*time.Second)
	def(&t.Origin, 30*time.Second)
	def(&t.Deliver, 9*time.Minute)
	def(&t.Linger, time.Second)
	if c.Buffers == nil {
		c.Buffers = NewMemory(l.Memory)
	}
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// A Server serves any number of listeners. It is safe for concurrent use.
type Server struct {
	c     Config
	guard *guard
}

// New makes a Server. It starts nothing.
func New(c Config) (*Server, error) {
	c.setDefaults()
	if c.Directory == nil || c.Domains == nil || c.Origins == nil || c.Outcomes == nil || c.Deliverer == nil || c.Certificates == nil {
		return nil, errors.New("dmtpserver: a part is missing")
	}
	host, err := dmtp.Domain(c.Host)
	if err != nil {
		return nil, errors.New("dmtpserver: the host is no domain name")
	}
	c.Host = host
	return &Server{c: c, guard: newGuard(&c.Limits)}, nil
}

// Serve takes connections of single-protocol DMTP, TLS from the first octet, until ctx ends or ln fails. It returns after
// the last session, and closes ln. An ended ctx is a clean stop: sessions end at their next wait for the client.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.single)
}

// ServeDual does the same for a port that is shared with SMTP.
func (s *Server) ServeDual(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.dual)
}

func (s *Server) serve(ctx context.Context, ln net.Listener, handle func(context.Context, net.Conn, *visit)) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if conn != nil {
				conn.Close()
			}
			return nil
		}
		if transient(err) {
			s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp accept", slog.Any("error", err))
			pause(ctx, 100*time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		v := s.guard.enter(address(conn))
		if v == nil { // no room for a session, not even to say so
			conn.Close()
			continue
		}
		sessions.Go(func() {
			defer v.leave()
			defer conn.Close()
			defer s.contain(ctx, v)
			handle(ctx, conn, v)
		})
	}
}

// transient errors of Accept pass: out of files or memory, or a client that has gone again.
func transient(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// contain ends a panic with its session. What was said with the panic may hold what must not be logged.
func (s *Server) contain(ctx context.Context, v *visit) {
	if p := recover(); p != nil {
		s.c.Log.LogAttrs(ctx, slog.LevelError, "dmtp session panicked", slog.String("peer", v.prefix.String()), slog.String("stack", string(debug.Stack())))
	}
}

func address(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// pause waits, or returns early with false when ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Package mx is the SMTP server that the world sends plain mail to: the SMTP side of the shared port 25. It owns nothing. Each
// command is passed on to the inner mail server of the recipient's domain in the same transaction, and what that server says is
// the answer: to RCPT about each recipient, and to the message while its sender waits. Nothing is kept. Where a message is
// checked, it is held until that is done (Domain.Hold says where), else it streams but for the header block, which passes the
// firewall.
//
// The engine is go-smtp behind a smtpwire.Guard, as in package submission.
package mx

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/handoff"
	"dimegate/bridge/mailauth"
	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
)

// A Domain is one of ours.
type Domain struct {
	Inner *handoff.Inner
	// Strict means that the domain wants no plain mail from outside (dmtp.md §11.3).
	Strict bool
	// Down means that the domain's part of the gateway is not there now: mail is to come again.
	Down  bool
	Loops *handoff.LoopGuard // knows what goes round; nil: by its Received fields only
	Hold  func() Held        // keeps a message while it is checked or archived; needed where one is
	Keep  Keeper             // the archive; nil: nothing is kept
}

// A Keeper takes each message into the archive before the inner server gets it.
type Keeper interface {
	// Keep seals a message and notes that it is in hand, in one durable commit; nil: it is not to be kept. An error means that it must
	// wait: ErrFull, ErrArchive, or the storage's.
	Keep(ctx context.Context, a Arrival, octets io.Reader) (Kept, error)
}

// An Arrival is what is known of a message beside its octets.
type Arrival struct {
	Hello string
	Peer  netip.Addr
	From  string // "" for the null reverse-path
	To    []string
	At    time.Time
}

// A Kept is a message between the archive and the inner server's answer.
type Kept interface {
	// End notes the answer: nil for accepted, else the error of the hand-off. Lost: nobody knows the answer.
	End(ctx context.Context, err error, lost bool) error
}

// A Held is a message that waits to be checked. It is written, then read as often as one likes. Write's errors are ErrFull and
// the storage's.
type Held interface {
	io.Writer
	Reader() (io.Reader, error)
	Close() error
}

// A Config is what the server allows.
type Config struct {
	Name     string                                     // our host name
	Domains  func(domain string) (Domain, bool)         // ours, by the name in lower case
	Exempt   []netip.Prefix                             // may send to strict domains, and have no limits of their own
	XClient  []netip.Prefix                             // may say by XCLIENT for whom they speak, who is then judged in their place
	Firewall handoff.Firewall                           // takes out what looks like ours
	TLS      *tls.Config                                // nil: no STARTTLS
	Under    func(net.Conn) (tls.ConnectionState, bool) // tells of TLS that a connection came in; nil: none does
	Mark     string                                     // the field that says how mail came: X-DIME
	Auth     *mailauth.Checker                          // notes what SPF, DKIM and DMARC say; nil: nobody does
	Scanner  *scanner.Scanner                           // sees every message before it is passed on; nil: nobody does

	Postmaster string // of the host, for RCPT TO:<postmaster>; empty: none

	MaxOctets     int64         // a message; default 100 MiB
	MaxRecipients int           // a message; default 100
	MaxSessions   int           // default 100; the inner servers see as many
	MaxPerClient  int           // sessions of one address, of one /64; default a fifth of MaxSessions
	Timeout       time.Duration // of the next command or octets; default 5m
	Grace         time.Duration // for the message under way when the server stops; default 30s
	Now           func() time.Time
}

// Bounds that nobody needs to turn.
const (
	maxHeader   = 1 << 20 // octets of the header block, which is held in memory
	maxUnknown  = 20      // recipients of one session that are refused, until it ends
	unknownHour = 100     // of one client, an hour
	slowAfter   = 5 * time.Minute
	slowRate    = 1 << 10 // octets a second that a message must come in at, on average, after that
)

// A Server is one MX service. Its configuration holds from New on.
type Server struct {
	Config
	log     *slog.Logger
	unknown smtpwire.Meter[netip.Prefix] // recipients that clients asked for and that are not there
}

// New makes a Server. It starts nothing: see Serve.
func New(c Config, log *slog.Logger) *Server {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxRecipients, 100)
	def(&c.MaxSessions, 100)
	def(&c.MaxPerClient, max(1, c.MaxSessions/5))
	if c.MaxOctets <= 0 {
		c.MaxOctets = 100 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{Config: c, log: log, unknown: smtpwire.Meter[netip.Prefix]{Hourly: unknownHour}}
}

// Serve takes sessions from ln until ctx ends, and closes it. Then no new session begins, sessions that wait for a command
// end, and those in a message have Grace. It returns when all have ended: nil after the end of ctx.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	l := s.listener(ln)
	engine := s.engine(&backend{server: s, ctx: work})

	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		l.Stop()
		grace := time.AfterFunc(s.Grace, func() {
			cancel(errStopping)
			l.CloseAll()
		})
		defer grace.Stop()
		engine.Shutdown(context.WithoutCancel(ctx)) // waits for the sessions
	})
	err := engine.Serve(l)
	if unhook() { // the listener failed by itself
		l.Stop()
		cancel(errStopping)
		l.CloseAll()
		engine.Shutdown(context.WithoutCancel(ctx))
		return err
	}
	<-stopped
	return nil
}

var errStopping = errors.New("mx: stopping")

func (s *Server) listener(ln net.Listener) *smtpwire.Listener {
	return &smtpwire.Listener{
		Listener: ln, Limit: s.MaxSessions,
		PerClient: func(a netip.Addr) (netip.Prefix, int) {
			if s.exempt(a) || contains(s.XClient, a) {
				return clientOf(a), 0
			}
			return clientOf(a), s.MaxPerClient
		},
		Guard: func(c net.Conn, client netip.Addr) *smtpwire.Guard {
			g := &smtpwire.Guard{TLS: s.TLS, CommandTimeout: s.Timeout, BlockTimeout: s.Timeout, Postmaster: s.Postmaster}
			if contains(s.XClient, client) {
				g.XClient = smtpwire.XClientRelay
			}
			if s.Under != nil {
				if state, on := s.Under(c); on {
					g.Under = &state
				}
			}
			return g
		},
	}
}

// clientOf is whom limits are for: an IPv4 address, or the /64 that one IPv6 host can use at will.
func clientOf(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(min(a.BitLen(), 64)) // of no address: no prefix, which all of its kind share
	return p
}

func (s *Server) exempt(a netip.Addr) bool { return contains(s.Exempt, a) }

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// engine is a go-smtp server for this configuration. TLS, timeouts and line lengths are the guard's.
func (s *Server) engine(b *backend) *smtp.Server {
	e := smtp.NewServer(b)
	e.Domain = s.Name
	e.ErrorLog = smtpwire.EngineLog{Log: s.log}
	e.MaxMessageBytes = s.MaxOctets
	e.MaxRecipients = s.MaxRecipients
	e.MaxLineLength = 0
	e.EnableSMTPUTF8 = true
	return e
}

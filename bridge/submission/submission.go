// Package submission is the SMTP server that the organisation's own mail server sends to. It relays for listed networks and
// for users with a password, takes only senders of our domains, and says 250 when the Acceptor says that the message is
// durable.
//
// The engine is go-smtp behind a smtpwire.Guard: see there for what neither may get wrong.
package submission

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/smtpwire"
)

// An Acceptor takes one message: it reads body to its end, and returns nil when the message is durable. What is read when
// body fails must be thrown away, and Accept must fail. Its errors become replies by the table in replies.go.
type Acceptor interface {
	Accept(ctx context.Context, env Envelope, body io.Reader) error
}

// An Envelope is one message's, without its octets. Addresses are as RFC 5321 writes them, the domain in lower case.
type Envelope struct {
	ID      string // ours, in the Received field and the reply
	From    string // reverse-path; "" is the null one
	Foreign bool   // From is of none of our domains: forwarded, and not to be authored by him
	To      []Recipient
	UTF8    bool   // SMTPUTF8 was asked for
	Require bool   // REQUIRETLS was asked for (RFC 8689)
	Body    string // BODY=, "" when it was not said
	Size    int64  // SIZE=, 0 when it was not said
	Ret     string // RFC 3461: "FULL", "HDRS" or ""
	EnvID   string // RFC 3461, decoded

	// Trace is the number of octets at the start of the body that are our Received field. Behind them the message is as
	// it was received.
	Trace int

	Client   netip.AddrPort
	Hello    string // as the client introduced itself; untrusted
	TLS      uint16 // version, 0 for none
	User     string // who authenticated, "" for nobody
	Received time.Time
}

// A Recipient is one RCPT.
type Recipient struct {
	Address string
	Notify  []string // RFC 3461: NEVER, or of SUCCESS, FAILURE, DELAY; nil when it was not said
	Orcpt   string   // RFC 3461, "rfc822;address", decoded; "" when it was not said
}

// A Config is what one listener allows.
type Config struct {
	Name     string                   // our host name
	Networks []netip.Prefix           // may send without a password
	XClient  []netip.Prefix           // may say by XCLIENT for whom they speak, who is then judged in their place
	Domains  func(domain string) bool // is ours; domain in lower case
	// May tells whether a client, by env.Client and env.User, may send as a domain of ours, "" for the null reverse-path and senders of
	// other domains. Nil: who may send at all may.
	May        func(env Envelope, domain string) bool
	Forwarding bool // take senders of other domains, marked Foreign

	TLS        *tls.Config // nil: no STARTTLS
	RequireTLS bool        // no MAIL before STARTTLS
	// Certificates are host names: a client that shows a certificate for one of them, which leads to Roots (nil: the system's),
	// may send as if its network were listed. So may one with the certificate of Tenants, but only their messages, wherever it
	// calls from.
	Certificates []string
	Tenants      []Tenant
	Roots        *x509.CertPool
	Users        *Users // nil: no AUTH

	MaxOctets     int64 // a message; default 100 MiB
	MaxRecipients int   // default 1000
	MaxSessions   int   // default 200
	MaxPerClient  int   // sessions of one address; default half of MaxSessions
	// What one sender may do in an hour, and at once: who authenticated, else the reverse-path. The null one has no limit. 0: none.
	MessagesHourly   int
	RecipientsHourly int
	Timeout          time.Duration
	// Mend are networks whose messages and commands may end lines with CR or LF alone: they are made CRLF. From all others
	// such messages are refused.
	Mend []netip.Prefix
	// Grace is how long sessions may take to finish the message they are in when the server stops; default 30s.
	Grace time.Duration
}

// A Server is one submission service. Its configuration holds from New on.
type Server struct {
	Config
	acceptor Acceptor
	log      *slog.Logger
	now      func() time.Time
	hashing  chan struct{} // who may hash a password now

	messages, recipients smtpwire.Meter[sender]
}

// New makes a Server. It starts nothing: see Serve.
func New(c Config, a Acceptor, log *slog.Logger) *Server {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxRecipients, 1000)
	def(&c.MaxSessions, 200)
	def(&c.MaxPerClient, max(1, c.MaxSessions/2))
	if c.MaxOctets <= 0 {
		c.MaxOctets = 100 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 30 * time.Second
	}
	if c.Domains == nil {
		c.Domains = func(string) bool { return false }
	}
	c.wantsCertificate()
	return &Server{Config: c, acceptor: a, log: log, now: time.Now, hashing: make(chan struct{}, 2),
		messages: smtpwire.Meter[sender]{Hourly: c.MessagesHourly}, recipients: smtpwire.Meter[sender]{Hourly: c.RecipientsHourly}}
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
	} else {
		<-stopped
		err = nil
	}
	return err
}

// listener bounds and guards what comes from ln.
func (s *Server) listener(ln net.Listener) *smtpwire.Listener {
	return &smtpwire.Listener{
		Listener: ln, Limit: s.MaxSessions,
		PerClient: func(a netip.Addr) (netip.Prefix, int) {
			if contains(s.XClient, a) {
				return netip.PrefixFrom(a, a.BitLen()), 0
			}
			return netip.PrefixFrom(a, a.BitLen()), s.MaxPerClient
		},
		Guard: func(_ net.Conn, client netip.Addr) *smtpwire.Guard {
			g := &smtpwire.Guard{TLS: s.TLS, RequireTLS: true, CommandTimeout: s.Timeout, BlockTimeout: s.Timeout, LineFeeds: contains(s.Mend, client)}
			if contains(s.XClient, client) {
				g.XClient = smtpwire.XClientLogin
			}
			return g
		},
	}
}

var errStopping = errors.New("submission: stopping")

// engine is a go-smtp server for this configuration. TLS, timeouts and line lengths are the guard's.
func (s *Server) engine(b *backend) *smtp.Server {
	e := smtp.NewServer(b)
	e.Domain = s.Name
	e.ErrorLog = smtpwire.EngineLog{Log: s.log}
	e.MaxMessageBytes = s.MaxOctets
	e.MaxRecipients = s.MaxRecipients
	e.MaxLineLength = 0
	e.EnableSMTPUTF8 = true
	e.EnableDSN = true
	e.EnableREQUIRETLS = true  // the guard offers it: under TLS
	e.AllowInsecureAuth = true // sessions offer AUTH over TLS only; go-smtp does not see the guard's TLS
	return e
}

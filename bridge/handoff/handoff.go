// Package handoff gives mail to the organisation's own mail server, by SMTP or LMTP, and asks it about recipients. What is
// handed over arrives octet for octet behind the fields that were put on top, or is refused.
package handoff

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"

	"dimegate/bridge/smtpwire"
)

// ErrUnavailable means that the inner server could not be reached or spoken to: try again. The cause is in its text only, so
// that a server's "554 no service" to the connection is not taken for its verdict on a message.
var ErrUnavailable = errors.New("handoff: the inner mail server cannot be reached")

// ErrClosed means that the gateway is stopping.
var ErrClosed = errors.New("handoff: closed")

// A TLSPolicy says what STARTTLS is worth on the way to the inner server.
type TLSPolicy uint8

const (
	// TLSOpportunistic encrypts when the server offers it, whatever its certificate. A handshake that fails is an error all
	// the same.
	TLSOpportunistic TLSPolicy = iota
	TLSOff
	TLSRequired // and the certificate must hold
)

// A ClientPolicy says how the server learns who the client of a message is.
type ClientPolicy uint8

const (
	// ClientAuto tells it by XCLIENT where the server offers that, else by XFORWARD where it offers that, else not.
	ClientAuto ClientPolicy = iota
	ClientOff
	// ClientProxy begins each connection with a PROXY header, version 2; one that is not for one client's message says LOCAL.
	ClientProxy
)

// A Config is how to reach one inner server.
type Config struct {
	Address string // host:port
	Name    string // ours, in EHLO
	LMTP    bool

	TLS       TLSPolicy
	TLSConfig *tls.Config        // with TLSRequired its rules hold; nil: the system's roots and the host of Address
	Auth      func() sasl.Client // nil: none. A password goes only over TLS

	// Client is about messages that are passed on (Begin). Those that are delivered are told by XFORWARD alone, which is for logs:
	// what has been judged already, by proof and not by its address, is not judged by an address again.
	Client ClientPolicy
	// Names is the name of an address, by DNS there and back, "" if it has none; later: it could not be looked up now. Nil: no
	// address has one.
	Names func(ctx context.Context, a netip.Addr) (name string, later bool)

	MaxSessions int           // at one time; default 20
	MaxMessages int           // in one session; default 100
	Idle        time.Duration // a session is kept that long for the next message; default 20s
	Timeouts    smtpwire.Timeouts

	// Dial opens a connection; nil: TCP with a limit of 30 seconds.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Log *slog.Logger // a line when the server is away, at most one a minute, and one when it is back; nil: none
}

// An Inner is one inner server. Its methods may be called from many goroutines.
type Inner struct {
	Config
	slots chan struct{}
	asked answers

	mu      sync.Mutex
	away    time.Time  // when we last said that the server is away; zero: it is not
	idle    []*session // the last one was used last
	closed  bool
	goodbye sync.WaitGroup // sessions whose time has come
}

// New makes an Inner. It opens no connection.
func New(c Config) *Inner {
	if c.MaxSessions <= 0 {
		c.MaxSessions = 20
	}
	if c.MaxMessages <= 0 {
		c.MaxMessages = 100
	}
	if c.Idle <= 0 {
		c.Idle = 20 * time.Second
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	}
	return &Inner{Config: c, slots: make(chan struct{}, c.MaxSessions)}
}

// A Delivery is one message for one recipient.
type Delivery struct {
	From string // reverse-path: an address, or "" for the null one
	To   string
	// Top are header fields, each with its CRLF, that go before the message. A message that begins with white space continues
	// the last of them: let that be the Received field.
	Top     []byte
	Message smtpwire.Message
	UTF8    bool // ask for SMTPUTF8 although both addresses are ASCII
	DSN     smtpwire.DSN
	Caller  smtpwire.Caller // whom it came from; zero: nobody outside
}

// Deliver hands one message over and returns nil when the server has taken it. Errors: *smtpwire.Error with the server's (or
// its Local) verdict, smtpwire.ErrUncertain when it may have been taken, ErrUnavailable, and ctx's. A kept session that has
// died meanwhile is replaced by a new one, once.
func (h *Inner) Deliver(ctx context.Context, d Delivery) error {
	m := smtpwire.OnTop(d.Top, d.Message)
	facts, err := smtpwire.Examine(m.Reader())
	if err != nil {
		return fmt.Errorf("handoff: message: %w", err)
	}
	t := smtpwire.Transaction{From: d.From, To: d.To, UTF8: d.UTF8, DSN: d.DSN}
	return h.with(ctx, func(s *session) error {
		if err := h.mention(ctx, s, d.Caller); err != nil {
			return err
		}
		return s.Send(ctx, t, facts, m)
	})
}

// with runs f in a session. f must leave no trace when it fails with anything but ErrUncertain.
func (h *Inner) with(ctx context.Context, f func(*session) error) (err error) {
	defer func() { h.tell(err) }()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		s, err := h.session(ctx, smtpwire.Caller{})
		if err != nil {
			return err
		}
		kept := s.messages > 0
		err = f(s)
		s.messages++
		refused, isReply := errors.AsType[*smtpwire.Error](err)
		switch {
		case err == nil, isReply && refused.Local:
			h.keep(s)
			return err
		case isReply && refused.Code == 530: // it wants a password: ours to mend, not the sender's
			s.Quit()
			return unavailable(err)
		case kept && (!isReply || refused.Code == 421) && !errors.Is(err, smtpwire.ErrUncertain) && ctx.Err() == nil:
			s.Close() // it died while it was kept
			continue
		case isReply:
			if refused.Code == 421 || s.Reset(ctx) != nil {
				s.Close()
			} else {
				h.keep(s)
			}
			return err
		}
		s.Close()
		if ctx.Err() != nil || errors.Is(err, smtpwire.ErrUncertain) {
			return err
		}
		return unavailable(err)
	}
}

// tell logs that the server is away or back.
func (h *Inner) tell(err error) {
	if h.Log == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, ErrUnavailable):
		if time.Since(h.away) < time.Minute {
			return
		}
		h.away = time.Now()
		h.Log.Warn("mail server cannot be reached: does it run, and is organization.inner its address?", "address", h.Address, "error", err)
	case !h.away.IsZero() && answered(err):
		h.away = time.Time{}
		h.Log.Info("mail server is back", "address", h.Address)
	}
}

// answered says whether an outcome shows that the server is there.
func answered(err error) bool {
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	return err == nil || isReply && !refused.Local
}

func unavailable(err error) error { return fmt.Errorf("%w: %v", ErrUnavailable, err) }

// A session is one connection and how much it has done.
type session struct {
	*smtpwire.Client
	messages int
	bound    bool // to one client, by XCLIENT or its PROXY header: not kept
	expiry   *time.Timer
}

// session takes a kept session or opens one.
func (h *Inner) session(ctx context.Context, who smtpwire.Caller) (*session, error) {
	bound := h.Client == ClientProxy && who.Addr.IsValid()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	if n := len(h.idle); n > 0 && !bound {
		s := h.idle[n-1]
		h.idle = h.idle[:n-1]
		s.expiry.Stop() // if it has fired, it finds the session taken
		h.mu.Unlock()
		return s, nil
	}
	h.mu.Unlock()
	s, err := h.open(ctx, who)
	switch {
	case err == nil:
		s.bound = bound
		return s, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, unavailable(err)
}

func (h *Inner) open(ctx context.Context, who smtpwire.Caller) (*session, error) {
	conn, err := h.Dial(ctx, "tcp", h.Address)
	if err != nil {
		return nil, err
	}
	name := h.Name
	if h.Client == ClientProxy {
		name = who.Says(name)
		if err := proxyHeader(conn, who); err != nil {
			conn.Close()
			return nil, err
		}
	}
	s := &session{Client: smtpwire.NewClient(conn, name, h.LMTP, h.Timeouts)}
	if err := h.introduce(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (h *Inner) introduce(ctx context.Context, s *session) error {
	if err := s.Greet(ctx); err != nil {
		return err
	}
	_, offered := s.Offers("STARTTLS")
	switch {
	case h.TLS == TLSOff:
	case offered:
		if err := s.StartTLS(ctx, h.tlsConfig()); err != nil {
			return err
		}
	case h.TLS == TLSRequired:
		return errors.New("handoff: the inner server does not offer STARTTLS, which the configuration requires")
	}
	if h.Auth != nil {
		return s.Auth(ctx, h.Auth())
	}
	return nil
}

func (h *Inner) tlsConfig() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.TLSConfig != nil {
		c = h.TLSConfig.Clone()
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(h.Address)
	}
	if h.TLS == TLSOpportunistic {
		c.InsecureSkipVerify = true // encryption against listeners; TLSRequired is for more
	}
	return c
}

// keep puts a session aside for the next message.
func (h *Inner) keep(s *session) {
	h.mu.Lock()
	full := h.closed || s.bound || s.messages >= h.MaxMessages
	if !full {
		s.expiry = time.AfterFunc(h.Idle, func() { h.expire(s) })
		h.idle = append(h.idle, s)
	}
	h.mu.Unlock()
	if full {
		s.Quit()
	}
}

// expire ends a kept session, unless it has been taken meanwhile.
func (h *Inner) expire(s *session) {
	h.mu.Lock()
	i := slices.Index(h.idle, s)
	if i >= 0 {
		h.idle = slices.Delete(h.idle, i, i+1)
		h.goodbye.Add(1)
		defer h.goodbye.Done()
	}
	h.mu.Unlock()
	if i >= 0 {
		s.Quit()
	}
}

// Close ends all kept sessions. Deliveries under way end by their contexts.
func (h *Inner) Close() error {
	h.mu.Lock()
	idle := h.idle
	h.idle, h.closed = nil, true
	h.mu.Unlock()
	for _, s := range idle {
		s.expiry.Stop()
		s.Quit()
	}
	h.goodbye.Wait()
	return nil
}

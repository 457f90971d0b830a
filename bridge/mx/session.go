package mx

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/handoff"
	"dimegate/bridge/smtpwire"
)

// backend makes sessions.
type backend struct {
	server *Server
	ctx    context.Context // of all sessions; ends when their time is up
}

func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	guard := c.Conn().(*smtpwire.Conn) // the listener makes no other
	ctx, cancel := context.WithCancel(b.ctx)
	return &session{backend: b, ctx: ctx, cancel: cancel, conn: c, guard: guard}, nil
}

// A session is one client's. go-smtp passes no context: ctx, which ends with the connection, is the exception to the rule.
type session struct {
	*backend
	ctx    context.Context
	cancel context.CancelFunc
	conn   *smtp.Conn
	guard  *smtpwire.Conn

	mail    smtpwire.Transaction
	size    int64 // as the client said
	to      []string
	domain  Domain               // of the first recipient; the others' have the same server
	tx      *handoff.Transaction // nil before the first recipient that is of our domains
	refused int                  // recipients of this session
}

// peer is the client's address; invalid: not known.
func (s *session) peer() netip.Addr { return smtpwire.Peer(s.guard).Addr() }

// hello is how the client introduced itself.
func (s *session) hello() string {
	if who, _ := s.guard.Caller(); who.Hello != "" {
		return who.Hello
	}
	return smtpwire.Printable(s.conn.Hostname(), 255)
}

// caller is what the inner server may know of the client.
func (s *session) caller() smtpwire.Caller {
	who, _ := s.guard.Caller()
	who.Addr, who.Hello, who.Proto = smtpwire.Peer(s.guard), s.hello(), "ESMTP"
	if s.guard.Hello() == "HELO" {
		who.Proto = "SMTP"
	}
	return who
}

// Mail begins a message. The inner server hears of it with the first recipient, since that tells which one it is.
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	s.mail = smtpwire.Transaction{UTF8: o.UTF8, Caller: s.caller()}
	s.size = o.Size
	if from == "" {
		return nil
	}
	address, _, err := smtpwire.Canonical(from, o.UTF8)
	s.mail.From = address
	return answer(err)
}

// answer is an error in the client's words; a nil *smtp.SMTPError would be no nil error.
func answer(err error) error {
	if err == nil {
		return nil
	}
	return replyFor(err)
}

// Rcpt asks the inner server about a recipient. One that is there already counts once.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	err := s.rcpt(to)
	e, isReply := errors.AsType[*smtpwire.Error](err)
	if isReply && e.Code/100 == 5 || errors.Is(err, errRelay) {
		if isReply && e.UnknownRecipient() {
			s.server.unknown.Add(clientOf(s.peer()), 1, s.server.Now())
		}
		if s.refused++; s.refused >= maxUnknown && !s.server.exempt(s.peer()) {
			err = errEnough
		}
	}
	if err != nil {
		r := replyFor(err)
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "recipient not accepted", slog.String("peer", smtpwire.AddrText(s.peer())), slog.Int("code", r.Code), slog.String("why", r.Message))
		return r
	}
	return nil
}

func (s *session) rcpt(to string) error {
	address, domain, err := smtpwire.Canonical(to, s.mail.UTF8)
	if err != nil {
		return err
	}
	d, ours := s.server.Domains(domain)
	exempt := s.server.exempt(s.peer())
	switch {
	case !ours:
		return errRelay
	case d.Strict && !exempt:
		return errStrict
	case d.Down:
		return errDown
	case slices.Contains(s.to, address):
		return nil
	case s.tx != nil && (s.domain.Inner != d.Inner || d.Inner.LMTP && len(s.to) > 0): // LMTP has an answer for each recipient, SMTP one for all
		return errElsewhere
	case !exempt && s.server.unknown.Over(clientOf(s.peer()), 1, s.server.Now()):
		return errUnknown
	}
	if s.tx == nil {
		tx, err := d.Inner.Begin(s.ctx, s.mail, smtpwire.Facts{Octets: s.size})
		if err != nil {
			return err
		}
		s.domain, s.tx = d, tx
	}
	if err := s.tx.Recipient(s.ctx, address); err != nil {
		return err
	}
	s.to = append(s.to, address)
	return nil
}

// Data passes the message on. It reads the guard's octets, not go-smtp's.
func (s *session) Data(io.Reader) error {
	r, start := s.guard.Body(), s.server.Now()
	lines := smtpwire.NewLineReader(&paced{r: r, start: time.Now()}, s.server.MaxOctets, false)
	id := strings.ToLower(rand.Text())[:20]
	verdict, err := s.pass(id, lines)
	if end := lines.Err(); end != nil && end != io.EOF {
		err = end // whatever became of it, the message was not one
	}
	if errors.Is(err, errSlow) {
		s.guard.Close() // or the rest would be waited for
	}
	s.note(id, err, s.server.Now().Sub(start))
	if err == nil {
		return passed(verdict, "OK")
	}
	return replyFor(err)
}

// received is our trace field.
func (s *session) received(id string) []byte {
	state, on := s.guard.TLS()
	note := ""
	if on {
		note = "using " + tls.VersionName(state.Version) + " with cipher " + tls.CipherSuiteName(state.CipherSuite)
	}
	return smtpwire.Received{
		Hello: s.hello(), Addr: s.peer(), By: s.server.Name, ID: id, TLS: note, Time: s.server.Now(),
		With: smtpwire.Protocol(s.guard.Hello(), s.mail.UTF8, on, false),
	}.Append(nil)
}

// note logs what became of a message, without addresses or octets of it.
func (s *session) note(id string, err error, took time.Duration) {
	attrs := []slog.Attr{slog.String("msg", id), slog.String("peer", smtpwire.AddrText(s.peer())), slog.Int("rcpts", len(s.to)), slog.Duration("took", took)}
	if err == nil {
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "passed on", attrs...)
		return
	}
	r, level := replyFor(err), slog.LevelInfo
	attrs = append(attrs, slog.Int("code", r.Code), slog.String("why", r.Message))
	if r.Code/100 == 4 {
		attrs = append(attrs, slog.Any("error", err))
	}
	if errors.Is(err, handoff.ErrUnavailable) {
		level = slog.LevelWarn
	}
	if errors.Is(err, smtpwire.ErrUncertain) {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Bool("possible_duplicate", true))
	}
	s.server.log.LogAttrs(s.ctx, level, "not passed on", attrs...)
}

// Reset forgets the message under way, here and at the inner server.
func (s *session) Reset() {
	if s.tx != nil {
		s.tx.End(s.ctx)
	}
	s.mail, s.size, s.to, s.domain, s.tx = smtpwire.Transaction{}, 0, nil, Domain{}, nil
}

// Logout ends the session.
func (s *session) Logout() error {
	s.Reset()
	s.cancel()
	return nil
}

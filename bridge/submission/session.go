package submission

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

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

	env      Envelope
	tenants  []Tenant // of which the message must be one's; none: of nobody's
	name     string   // who authenticated
	failures int      // of AUTH
}

// peer is the client's address; invalid: not known.
func (s *session) peer() netip.AddrPort { return smtpwire.Peer(s.guard) }

// hello is how the client introduced itself.
func (s *session) hello() string {
	if who, _ := s.guard.Caller(); who.Hello != "" {
		return who.Hello
	}
	return smtpwire.Printable(s.conn.Hostname(), 255)
}

// user is who authenticated here, or where XCLIENT comes from; "" for nobody.
func (s *session) user() string {
	if s.name != "" {
		return s.name
	}
	who, _ := s.guard.Caller()
	return who.Login
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// admit tells why this client may not send, now.
func (s *session) admit() error {
	if _, on := s.guard.TLS(); s.server.RequireTLS && !on {
		return reply(530, 7, 0, "STARTTLS first")
	}
	s.tenants = nil
	if s.user() != "" {
		return nil
	}
	proved, as := s.byCertificate()
	s.tenants = as // of a shared relay, wherever it calls from
	switch {
	case proved, contains(s.server.Networks, s.peer().Addr()):
		return nil
	case s.server.Users != nil:
		return reply(530, 7, 0, "authentication required")
	}
	return reply(550, 7, 1, "relaying is not allowed from this address")
}

// Mail begins a message.
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	if err := s.admit(); err != nil {
		return err
	}
	if _, on := s.guard.TLS(); o.RequireTLS && !on {
		return reply(530, 7, 0, "REQUIRETLS begins with STARTTLS")
	}
	env := Envelope{
		UTF8: o.UTF8, Require: o.RequireTLS, Body: string(o.Body), Size: o.Size, Ret: string(o.Return), EnvID: o.EnvelopeID,
		Client: s.peer(), Hello: s.hello(), User: s.user(),
	}
	domain := ""
	if from != "" {
		var err error
		if env.From, domain, err = smtpwire.Canonical(from, o.UTF8); err != nil {
			return replyFor(err)
		}
		if env.Foreign = !s.server.Domains(domain); env.Foreign && !s.server.Forwarding {
			return reply(550, 7, 1, "the sender's domain is not served here")
		} else if env.Foreign {
			domain = ""
		}
	}
	if s.server.May != nil && !s.server.May(env, domain) {
		return reply(550, 7, 1, "this client may not send as the sender's domain")
	}
	if err := s.mayAdd(env, 1); err != nil {
		return replyFor(err)
	}
	s.env = env
	return nil
}

// Rcpt adds a recipient. One that is there already counts once.
func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	address, _, err := smtpwire.Canonical(to, s.env.UTF8)
	if err != nil {
		return replyFor(err)
	}
	for _, r := range s.env.To {
		if r.Address == address {
			return nil
		}
	}
	if err := s.mayAdd(s.env, len(s.env.To)+1); err != nil {
		return replyFor(err)
	}
	r := Recipient{Address: address}
	for _, n := range o.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if o.OriginalRecipient != "" {
		r.Orcpt = strings.ToLower(string(o.OriginalRecipientType)) + ";" + o.OriginalRecipient
	}
	s.env.To = append(s.env.To, r)
	return nil
}

// Data takes the message. It reads the guard's octets, not go-smtp's.
func (s *session) Data(io.Reader) error {
	r := s.guard.Body()
	env, trace := s.envelope()
	start := s.server.now()
	lines := smtpwire.NewLineReader(r, s.server.MaxOctets, contains(s.server.Mend, s.peer().Addr()))
	giveBack, err := s.spend(env)
	if err == nil {
		err = s.accept(env, trace, lines)
	}
	switch end := lines.Err(); {
	case end != nil && end != io.EOF:
		err = end // whatever became of it, the message was not one
	case end == nil && err == nil:
		err = errors.New("submission: accepted unread")
	}
	// What is left of a refused body is read, or it would be taken for commands. The connection's end is an end, too.
	if _, derr := io.Copy(io.Discard, r); derr != nil && err == nil {
		err = derr
	}
	if err != nil {
		giveBack()
	}
	answer := replyFor(err)
	s.note(env, answer, err, s.server.now().Sub(start))
	if err == nil {
		return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "OK: queued as " + env.ID}
	}
	return answer
}

// accept gives the message to the Acceptor, behind our trace field.
func (s *session) accept(env Envelope, trace string, body io.Reader) error {
	body, err := s.tenantOnly(body)
	if err != nil {
		return err
	}
	return s.server.acceptor.Accept(s.ctx, env, io.MultiReader(strings.NewReader(trace), body))
}

// envelope completes the envelope and makes our trace field.
func (s *session) envelope() (Envelope, string) {
	env := s.env
	env.ID = strings.ToLower(rand.Text())[:20]
	env.Received = s.server.now()
	state, on := s.guard.TLS()
	note := ""
	if on {
		env.TLS = state.Version
		note = "using " + tls.VersionName(state.Version) + " with cipher " + tls.CipherSuiteName(state.CipherSuite)
	}
	trace := smtpwire.Received{
		Hello: env.Hello, Addr: env.Client.Addr(), By: s.server.Name, ID: env.ID, TLS: note, Time: env.Received,
		With: smtpwire.Protocol(s.guard.Hello(), env.UTF8, on, env.User != ""),
	}.Append(nil)
	env.Trace = len(trace)
	return env, string(trace)
}

// note logs who sent what and what became of it, without addresses or the message.
func (s *session) note(env Envelope, answer *smtp.SMTPError, err error, took time.Duration) {
	attrs := []slog.Attr{
		slog.String("msg", env.ID), slog.String("peer", smtpwire.AddrText(s.peer().Addr())), slog.Int("rcpts", len(env.To)), slog.Duration("took", took),
	}
	if err == nil {
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "accepted", attrs...)
		return
	}
	attrs = append(attrs, slog.Int("code", answer.Code), slog.String("why", answer.Message))
	if answer.Code/100 == 4 {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.server.log.LogAttrs(s.ctx, slog.LevelWarn, "not accepted", attrs...)
}

// Reset forgets the message under way.
func (s *session) Reset() {
	s.env = Envelope{}
}

// Logout ends the session.
func (s *session) Logout() error {
	s.cancel()
	return nil
}

// AuthMechanisms are offered over TLS only. LOGIN is what Exchange's send connectors speak.
func (s *session) AuthMechanisms() []string {
	if _, on := s.guard.TLS(); !on || s.server.Users == nil {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

func (s *session) Auth(mech string) (sasl.Server, error) {
	switch {
	case s.AuthMechanisms() == nil:
		return nil, reply(538, 7, 11, "encryption required for authentication")
	case mech == sasl.Plain:
		return sasl.NewPlainServer(func(identity, name, password string) error {
			if identity != "" && identity != name {
				return reply(535, 7, 8, "authentication failed")
			}
			return s.authenticate(name, password)
		}), nil
	case mech == sasl.Login:
		return &loginServer{check: s.authenticate}, nil
	}
	return nil, reply(504, 5, 4, "no such mechanism")
}

const maxFailures = 3

func (s *session) authenticate(name, password string) error {
	select { // hashing is dear: a few at one time, whoever asks
	case s.server.hashing <- struct{}{}:
		defer func() { <-s.server.hashing }()
	case <-s.ctx.Done():
		return reply(421, 3, 2, "shutting down")
	}
	if s.server.Users.Check(name, password) {
		s.name = name
		return nil
	}
	s.server.log.LogAttrs(s.ctx, slog.LevelWarn, "authentication failed", slog.String("peer", smtpwire.AddrText(s.peer().Addr())))
	if s.failures++; s.failures >= maxFailures {
		return reply(421, 7, 0, "too many failures")
	}
	return reply(535, 7, 8, "authentication failed")
}

// loginServer is the LOGIN mechanism, which go-sasl has for clients only.
type loginServer struct {
	check func(name, password string) error
	name  *string
	asked bool
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case l.name == nil:
		name := string(response)
		l.name = &name
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(*l.name, string(response))
}

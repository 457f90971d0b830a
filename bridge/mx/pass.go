package mx

import (
	"bytes"
	"io"
	"log/slog"
	"time"

	"dimegate/bridge/mailauth"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// pass gives the message to the inner server, while it comes in where nobody checks it: our fields, the header block as the
// firewall leaves it, and the rest octet for octet.
func (s *session) pass(id string, r io.Reader) (smtpwire.Reply, error) {
	m, err := translate.ReadHead(r, maxHeader)
	if err != nil {
		return smtpwire.Reply{}, err
	}
	if err := s.server.Loops.Check(m, s.to...); err != nil {
		return smtpwire.Reply{}, err
	}
	clean, removed, err := s.server.Firewall.Filter(m)
	if err != nil {
		return smtpwire.Reply{}, err
	}
	for _, c := range removed {
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "field removed at hand-off", slog.String("msg", id), slog.String("field", c.Name), slog.Bool("signed", c.Signed))
	}
	top := append([]byte(s.server.Mark+": no\r\n"), s.server.Loops.Mark(clean, s.to...)...)
	if s.checked() {
		held := s.server.Hold()
		defer held.Close()
		if _, err := io.Copy(&patient{Writer: held, s: s, last: time.Now()}, r); err != nil {
			return smtpwire.Reply{}, err
		}
		field, err := s.authenticate(m, held)
		if err != nil {
			return smtpwire.Reply{}, err
		}
		top = append(top, field...)
		if r, err = held.Reader(); err != nil {
			return smtpwire.Reply{}, err
		}
	}
	// The trace field comes last of ours: a message that begins with white space continues it.
	top = append(top, s.received(id)...)
	var octets io.Reader = io.MultiReader(bytes.NewReader(top), clean.Reader(), r)
	if !s.tx.EightBit() {
		octets = sevenBit{octets}
	}
	return s.tx.Stream(s.ctx, octets)
}

// checked tells whether this message is held and checked: not that of hosts which stand before us and have done it.
func (s *session) checked() bool { return s.server.Auth != nil && !s.server.exempt(s.peer()) }

// authenticate is the Authentication-Results field of a message, of which m came first and the rest is held.
func (s *session) authenticate(m translate.Message, held Held) ([]byte, error) {
	rest, err := held.Reader()
	if err != nil {
		return nil, err
	}
	return s.server.Auth.Field(s.ctx, mailauth.Arrival{Peer: s.peer(), Hello: s.hello(), From: s.mail.From}, m.Header, io.MultiReader(m.Reader(), rest))
}

// noopAfter is how long the inner server waits for a message that is being held before it hears of us: RFC 5321 §4.5.3.2.7 gives
// us five minutes.
const noopAfter = time.Minute

// patient keeps the inner server waiting while a message is held.
type patient struct {
	io.Writer
	s    *session
	last time.Time
}

func (p *patient) Write(b []byte) (int, error) {
	if time.Since(p.last) > noopAfter {
		if err := p.s.tx.Noop(p.s.ctx); err != nil {
			return 0, err
		}
		p.last = time.Now()
	}
	return p.Writer.Write(b)
}

// sevenBit lets no octet above 127 pass.
type sevenBit struct{ r io.Reader }

func (s sevenBit) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for _, c := range p[:n] {
		if c > 0x7f {
			return 0, errEightBit
		}
	}
	return n, err
}

// paced ends a message that comes in so slowly that it does nothing but hold a session of the inner server.
type paced struct {
	r     io.Reader
	start time.Time
	n     int64
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if took := time.Since(p.start); err == nil && took > slowAfter && float64(p.n) < slowRate*took.Seconds() {
		return 0, errSlow
	}
	return n, err
}

package mx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

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
	if err := s.domain.Loops.Check(m, s.to...); err != nil {
		return smtpwire.Reply{}, err
	}
	clean, removed, err := s.server.Firewall.Filter(m)
	if err != nil {
		return smtpwire.Reply{}, err
	}
	for _, c := range removed {
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "field removed at hand-off", slog.String("msg", id), slog.String("field", c.Name), slog.Bool("signed", c.Signed))
	}
	top := append([]byte(s.server.Mark+": no\r\n"), s.domain.Loops.Mark(clean, s.to...)...)
	var kept Kept
	if s.authenticated() || s.server.Scanner != nil || s.domain.Keep != nil {
		held := s.domain.Hold()
		defer held.Close()
		field, err := s.check(id, m, clean, held, r)
		if err != nil {
			return smtpwire.Reply{}, err
		}
		top = append(top, field...)
		if kept, err = s.keep(m, held); err != nil {
			return smtpwire.Reply{}, err
		}
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
	reply, err := s.tx.Stream(s.ctx, octets)
	if kept == nil {
		return reply, err
	}
	return reply, s.end(id, kept, err)
}

// keep gives the archive the message as it came; nil: it is not kept.
func (s *session) keep(m translate.Message, held Held) (Kept, error) {
	if s.domain.Keep == nil {
		return nil, nil
	}
	rest, err := held.Reader()
	if err != nil {
		return nil, err
	}
	a := Arrival{Hello: s.hello(), Peer: s.peer(), From: s.mail.From, To: s.to, At: s.server.Now()}
	return s.domain.Keep.Keep(s.ctx, a, io.MultiReader(m.Reader(), rest))
}

// end notes what became of a message that the archive has. Where that fails the message is not sent again for it: its flight is closed
// later, as one of which nobody knows.
func (s *session) end(id string, kept Kept, err error) error {
	lost := errors.Is(err, smtpwire.ErrUncertain)
	if eerr := kept.End(context.WithoutCancel(s.ctx), err, lost); eerr != nil {
		s.server.log.LogAttrs(s.ctx, slog.LevelError, "the archive could not note what became of a message: it keeps it", slog.String("msg", id), slog.Any("error", eerr))
	}
	return err
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

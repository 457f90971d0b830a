package mx

import (
	"bytes"
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
	if s.authenticated() || s.server.Scanner != nil {
		held := s.domain.Hold()
		defer held.Close()
		field, err := s.check(id, m, clean, held, r)
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

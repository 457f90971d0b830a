package mx

import (
	"bytes"
	"io"
	"log/slog"
	"time"

	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// pass gives the message to the inner server while it comes in: our fields, the header block as the firewall leaves it, and the
// rest octet for octet.
func (s *session) pass(id string, r io.Reader) (smtpwire.Reply, error) {
	m, err := head(r)
	if err != nil {
		return smtpwire.Reply{}, err
	}
	if hops(m) > maxHops {
		return smtpwire.Reply{}, errLoop
	}
	clean, removed, err := s.server.Firewall.Filter(m)
	if err != nil {
		return smtpwire.Reply{}, err
	}
	for _, c := range removed {
		s.server.log.LogAttrs(s.ctx, slog.LevelInfo, "field removed at hand-off", slog.String("msg", id), slog.String("field", c.Name), slog.Bool("signed", c.Signed))
	}
	// The trace field comes last of ours: a message that begins with white space continues it.
	top := append([]byte(s.server.Mark+": no\r\n"), s.received(id)...)
	var octets io.Reader = io.MultiReader(bytes.NewReader(top), clean.Reader(), r)
	if !s.tx.EightBit() {
		octets = sevenBit{octets}
	}
	return s.tx.Stream(s.ctx, octets)
}

// head reads as much of a message as has its header block, and what came with that. A message without the empty line is all
// header.
func head(r io.Reader) (translate.Message, error) {
	buf := make([]byte, 0, 8<<10)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), maxHeader+4)])
		from := max(0, len(buf)-3)
		buf = buf[:len(buf)+n]
		switch {
		case bytes.Contains(buf[from:], []byte("\r\n\r\n")), bytes.HasPrefix(buf, []byte("\r\n")), err == io.EOF:
			return translate.Split(buf), nil
		case err != nil:
			return translate.Message{}, err
		case len(buf) >= maxHeader:
			return translate.Message{}, errHeader
		}
	}
}

// hops counts the hosts that a message has passed.
func hops(m translate.Message) (n int) {
	for f := range translate.Fields(m.Header) {
		if f.Is("Received") {
			n++
		}
	}
	return n
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

package mx

import (
	"io"
	"time"

	"dimegate/bridge/mailauth"
	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// check holds a message until it is whole, has it scanned, and returns the field that notes what SPF, DKIM and DMARC say. Of the
// message m came first, which is clean behind the firewall; the rest is r.
func (s *session) check(id string, m, clean translate.Message, held Held, r io.Reader) ([]byte, error) {
	if _, err := io.Copy(&patient{Writer: held, s: s, last: time.Now()}, r); err != nil {
		return nil, err
	}
	if s.server.Scanner != nil {
		rest, err := held.Reader()
		if err != nil {
			return nil, err
		}
		e := scanner.Envelope{ID: id, Client: smtpwire.Peer(s.guard), Hello: s.hello(), From: s.mail.From, To: s.to, UTF8: s.mail.UTF8}
		if err := s.server.Scanner.Scan(s.ctx, e, io.MultiReader(clean.Reader(), rest)); err != nil {
			return nil, err
		}
	}
	if !s.authenticated() {
		return nil, nil
	}
	rest, err := held.Reader()
	if err != nil {
		return nil, err
	}
	return s.server.Auth.Field(s.ctx, mailauth.Arrival{Peer: s.peer(), Hello: s.hello(), From: s.mail.From}, m.Header, io.MultiReader(m.Reader(), rest))
}

// authenticated tells whether SPF, DKIM and DMARC are noted: not for hosts that stand before us and have seen to it.
func (s *session) authenticated() bool { return s.server.Auth != nil && !s.server.exempt(s.peer()) }

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

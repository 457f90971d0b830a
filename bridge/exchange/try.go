package exchange

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp/resolver"
)

// A try is one walk over the hosts of a destination.
type try struct {
	*Exchanger
	mail   Mail
	facts  smtpwire.Facts
	decide func(rule string, r Rung) error
	probe  bool // stop where the message would begin

	begun   time.Time
	dials   int
	answers int // servers that answered and did not take it
	hosts   []Host
}

// run tries host after host until one takes the message, one refuses it for good, or the bounds are reached.
func (t *try) run(ctx context.Context) (outcome, error) {
	if !t.mail.Floor.smtp() {
		return outcome{failure: &failure{class: queue.Trust, status: "5.7.1", why: "floor " + t.mail.Floor.String() + " allows no SMTP"}}, nil
	}
	t.begun = time.Now()
	r, f := t.route(ctx)
	if err := ended(ctx); err != nil {
		return outcome{}, err
	}
	if f != nil {
		return outcome{failure: f}, nil
	}
	var all []*failure
	for _, h := range r.hops {
		out, err := t.hop(ctx, r, h)
		if err != nil {
			return outcome{}, err
		}
		if out.failure == nil {
			return out, nil
		}
		if all = append(all, out.failure); out.failure.final || t.over() {
			break
		}
	}
	return outcome{failure: worst(all)}, nil
}

// over tells that a try has done enough: servers that are slow on purpose must not hold a worker for ever.
func (t *try) over() bool {
	return t.dials >= maxDials || t.answers >= maxAnswers || time.Since(t.begun) > maxSearch
}

// hop tries one host at each of its addresses.
func (t *try) hop(ctx context.Context, r *route, h hop) (outcome, error) {
	d, p, f := t.demand(ctx, r, h)
	if err := ended(ctx); err != nil {
		return outcome{}, err
	}
	if f != nil {
		t.note(d, netip.Addr{}, Clear, f)
		if f.report != "" {
			t.report(r, tlsrpt.Session{Policy: d.policy(r), Host: h.host}, f)
		}
		return outcome{failure: f}, nil
	}
	var all []*failure
	for _, a := range p.addresses {
		if t.over() {
			break
		}
		out, err := t.address(ctx, r, h, d, a)
		if err != nil || out.failure == nil {
			return out, err
		}
		if all = append(all, out.failure); out.failure.final || out.failure.class == queue.Permanent {
			break
		}
	}
	if len(all) == 0 {
		return outcome{failure: &failure{class: queue.Network, status: "4.4.1", why: h.host + " was not tried any more"}}, nil
	}
	return outcome{failure: worst(all)}, nil
}

// address tries one address of a host. A kept session that turns out dead is replaced by a new one, once.
func (t *try) address(ctx context.Context, r *route, h hop, d *demand, a netip.Addr) (outcome, error) {
	release, err := t.pool.enter(ctx, h.key(r.auth != nil))
	if err != nil {
		return outcome{}, err
	}
	defer release()
	for again := false; ; again = true {
		s, f := t.session(ctx, r, h, d, a, again)
		if err := ended(ctx); err != nil {
			if s != nil {
				s.Close()
			}
			return outcome{}, err
		}
		if f != nil {
			t.note(d, a, Clear, f)
			return outcome{failure: f}, nil
		}
		kept := s.messages > 0
		out, err := t.transact(ctx, d, s)
		if dead, ok := errors.AsType[*deadError](err); ok {
			if kept && !again {
				continue
			}
			err, out = nil, outcome{failure: dead.failure}
		}
		if err == nil {
			t.note(d, a, out.rung, out.failure)
		}
		return out, err
	}
}

// A deadError is a session that ended before the server can have taken anything.
type deadError struct{ failure *failure }

func (e *deadError) Error() string { return e.failure.Error() }

// transact sends the message over a session, or asks whether it could, and gives the session back.
func (t *try) transact(ctx context.Context, d *demand, s *session) (outcome, error) {
	rung, f := d.judge(s.state, t.Roots, t.Now())
	if f != nil { // it was judged when it was opened or taken
		s.Close()
		return outcome{failure: f}, nil
	}
	out := outcome{host: d.host, rule: d.rule(rung), rung: rung}
	_, out.relayed = s.Offers("DSN")
	if t.probe {
		defer s.Quit()
		if err := s.Can(t.transaction(s), t.facts); err != nil {
			out.failure = refused(d.host, err)
		}
		return out, nil
	}
	if err := s.Can(t.transaction(s), t.facts); err != nil {
		t.pool.keep(s)
		out.failure = refused(d.host, err)
		return out, nil
	}
	if err := t.decide(out.rule, out.rung); err != nil {
		t.pool.keep(s)
		return outcome{}, err
	}
	err := s.Send(ctx, t.transaction(s), t.facts, t.mail.Message)
	s.messages++
	e, isReply := errors.AsType[*smtpwire.Error](err)
	switch {
	case err == nil:
		t.pool.keep(s)
		return out, nil
	case errors.Is(err, smtpwire.ErrUncertain):
		s.Close()
		out.failure = refused(d.host, err)
		return out, nil
	case ctx.Err() != nil:
		s.Close()
		return outcome{}, ended(ctx)
	case !isReply || e.Code == 421 && e.Stage != smtpwire.StageBody:
		s.Close()
		return outcome{}, &deadError{refused(d.host, err)}
	case e.Code == 421 || s.Reset(ctx) != nil:
		s.Close()
	default:
		t.pool.keep(s)
	}
	t.answers++
	out.failure = refused(d.host, err)
	return out, nil
}

// transaction is the envelope for a server. Where it does not offer SMTPUTF8, domains go as A-labels, and what still needs it
// is refused.
func (t *try) transaction(s *session) smtpwire.Transaction {
	_, utf8 := s.Offers("SMTPUTF8")
	out := smtpwire.Transaction{From: t.mail.From, To: t.mail.To, RequireTLS: t.mail.RequireTLS, DSN: t.mail.DSN, UTF8: t.mail.UTF8 && (utf8 || t.mail.UTF8Header)}
	if !utf8 {
		out.From, out.To = asciiDomain(out.From), asciiDomain(out.To)
	}
	return out
}

func asciiDomain(address string) string {
	i := strings.LastIndexByte(address, '@')
	if i < 0 || strings.IndexFunc(address[i:], func(r rune) bool { return r > 0x7f }) < 0 {
		return address
	}
	domain, err := resolver.NormalDomain(address[i+1:])
	if err != nil {
		return address
	}
	return address[:i+1] + domain
}

// note keeps what came of a host, for who asked what would be done.
func (t *try) note(d *demand, a netip.Addr, rung Rung, f *failure) {
	if !t.probe {
		return
	}
	h := Host{Name: d.host, Asked: d.asked, Outcome: "would be offered the message"}
	if a.IsValid() {
		h.Address = a.String()
	}
	if f != nil {
		h.Outcome = f.why
	} else {
		h.Rung = rung.String()
	}
	t.hosts = append(t.hosts, h)
}

// policy is what a session with this host is held to, for TLS reports.
func (d *demand) policy(r *route) tlsrpt.Policy {
	p := tlsrpt.Policy{Kind: tlsrpt.NoPolicy, Domain: r.domain}
	switch {
	case d.tlsa != nil:
		p.Kind, p.Hosts = tlsrpt.TLSA, []string{d.host}
		for _, rec := range d.tlsa {
			p.Strings = append(p.Strings, rec.String())
		}
	case r.policy != nil && r.policy.Mode != mtasts.None:
		p.Kind, p.Strings, p.Hosts = tlsrpt.STS, r.policy.Lines, r.policy.Hosts
	}
	return p
}

// report counts a session for TLS reports. What a smart host does is nobody's report.
func (t *try) report(r *route, s tlsrpt.Session, f *failure) {
	if t.Reports == nil || t.probe || r.smart {
		return
	}
	if s.Policy.Domain == "" {
		s.Policy = tlsrpt.Policy{Kind: tlsrpt.NoPolicy, Domain: r.domain}
	}
	if f != nil {
		s.Result = f.report
	}
	if f != nil && f.report == "" { // nothing of TLS
		return
	}
	t.Reports.Record(s)
}

package bridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dimegate/appliance/spool"
	"dimegate/bridge/exchange"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp/record"
	"dimegate/internal/testvault"
	"dimegate/vault"
)

// ladder is an Exchange and a Router that do as they are told.
type ladder struct {
	route   Route
	result  queue.Result
	rule    string // what decide is told; "": it is not asked
	err     error
	finding exchange.Finding
	journal []string

	mu   sync.Mutex
	got  []exchange.Mail
	sent []string
	from []string
}

func (l *ladder) Route(_ context.Context, sender, _ string) (Route, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from = append(l.from, sender)
	return l.route, nil
}

func (l *ladder) Forget(string)           {}
func (l *ladder) Retry(string, time.Time) {}

func (l *ladder) Send(_ context.Context, m exchange.Mail, decide func(string, exchange.Rung) error) (queue.Result, error) {
	b, _ := io.ReadAll(m.Message.Reader())
	l.mu.Lock()
	l.got, l.sent = append(l.got, m), append(l.sent, string(b))
	l.mu.Unlock()
	if l.rule != "" {
		if err := decide(l.rule, exchange.Authentic); err != nil {
			return queue.Result{}, err
		}
	}
	return l.result, l.err
}

func (l *ladder) Check(_ context.Context, m exchange.Mail, n int64) (exchange.Finding, error) {
	l.got = append(l.got, m)
	return l.finding, l.err
}

// queued puts one message through a queue and this Outbound, and returns how its entry stands after the first try.
func queued(t *testing.T, l *ladder, env queue.Envelope, body string) (queue.Info, bool) {
	t.Helper()
	return queuedVia(t, l, env, body, "")
}

// queuedVia is queued after an administrator has set a route, if it is not empty.
func queuedVia(t *testing.T, l *ladder, env queue.Envelope, body, hop string) (queue.Info, bool) {
	t.Helper()
	q := queue.New(spool.Store{Vault: testvault.New(t).Open(t, vault.Options{})}, queue.Options{Poll: time.Hour, Rand: func(time.Duration) time.Duration { return 0 }})
	r, err := q.Accept(t.Context(), env, strings.NewReader(body))
	if err == nil && hop != "" {
		err = q.Route(t.Context(), r.Entries[0], hop, func(string, string) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	o := NewOutbound(OutboundOptions{Router: l, Exchange: l, Domains: []string{"alpha.test"}, Journal: l.journal, Log: slog.New(slog.DiscardHandler)})
	go func() { done <- q.Run(ctx, o, nobody{}) }()
	synctest.Wait()
	list, err := q.List(t.Context(), "", "", 10)
	cancel()
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return queue.Info{}, false
	}
	return list[0], true
}

type nobody struct{}

func (nobody) Notify(context.Context, queue.Mail) error { return errors.New("nobody is there") }

var plainRoute = Route{Situation: NoRecord, Remote: record.Experimental, Terms: Terms{Floor: FloorTLS, Layer: Global}}

// What leaves as plain SMTP is what came in, and the decision is kept before it does.
func TestSMTPLeg(t *testing.T) {
	const head = "From: a@alpha.test\r\nSubject: x\r\n"
	done := queue.Result{Class: queue.Done, Code: 250, Host: "mx.bravo.test", Protocol: "smtp"}
	env := func(change ...func(*queue.Envelope)) queue.Envelope {
		e := queue.Envelope{ReversePath: "a@alpha.test", Recipients: []queue.Recipient{{Address: "b@bravo.test"}}}
		for _, c := range change {
			c(&e)
		}
		return e
	}
	tests := map[string]struct {
		env  queue.Envelope
		body string
		sent string // "": as it is
		want func(exchange.Mail) bool
	}{
		"as it is": {env(), head + "\r\nhello\r\n", "", func(m exchange.Mail) bool {
			return m.From == "a@alpha.test" && m.To == "b@bravo.test" && m.Floor == FloorTLS
		}},
		"no body":             {env(), head, "", nil},
		"empty line, no body": {env(), head + "\r\n", "", nil},
		"no line end":         {env(), head + "\r\nhello", "", nil},
		"Bcc and Received":    {env(), "Received: from a by b for <c@d.test>; x\r\nBcc: c@d.test\r\n" + head + "\r\nhello\r\n", "", nil},
		"X-DIME-Require: no":  {env(), "x-dime-require: no\r\n" + head + "\r\nX-DIME-Require: in the body\r\n", head + "\r\nX-DIME-Require: in the body\r\n", nil},
		"null reverse-path":   {env(func(e *queue.Envelope) { e.ReversePath = "" }), head, "", func(m exchange.Mail) bool { return m.From == "" }},
		"8 bit":               {env(), "Subject: \xfc\r\n\r\n\xff\r\n", "", func(m exchange.Mail) bool { return !m.UTF8 && !m.UTF8Header }},
		"SMTPUTF8":            {env(func(e *queue.Envelope) { e.SMTPUTF8 = true }), head + "\r\nü\r\n", "", func(m exchange.Mail) bool { return m.UTF8 && !m.UTF8Header }},
		"SMTPUTF8 header":     {env(func(e *queue.Envelope) { e.SMTPUTF8 = true }), "Subject: ü\r\n\r\n", "", func(m exchange.Mail) bool { return m.UTF8 && m.UTF8Header }},
		"REQUIRETLS":          {env(func(e *queue.Envelope) { e.RequireTLS = true }), head, "", func(m exchange.Mail) bool { return m.RequireTLS }},
		"DSN": {env(func(e *queue.Envelope) {
			e.Return, e.EnvelopeID = queue.ReturnFull, "a+b =c"
			e.Recipients[0].Notify, e.Recipients[0].Original = queue.NotifySuccess|queue.NotifyDelay, "rfc822;b+1@bravo.test"
		}), head, "", func(m exchange.Mail) bool {
			return m.DSN == smtpwire.DSN{Ret: "FULL", EnvID: "a+2Bb+20+3Dc", Notify: "SUCCESS,DELAY", Orcpt: "rfc822;b+2B1@bravo.test"}
		}},
		"DSN, UTF-8": {env(func(e *queue.Envelope) {
			e.Recipients[0].Notify, e.Recipients[0].Original = queue.NotifyNever, `utf-8;jörg\+@bravo.test`
		}), head, "", func(m exchange.Mail) bool {
			return m.DSN == smtpwire.DSN{Notify: "NEVER", Orcpt: `utf-8;j\x{F6}rg\x{5C}\x{2B}@bravo.test`}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done.Relayed = len(name) > 2 && name[:3] == "DSN" // else the queue gives notice
				l := &ladder{route: plainRoute, result: done, rule: "to mx.bravo.test over tls (floor tls)"}
				if i, left := queued(t, l, tt.env, tt.body); left {
					t.Fatalf("%+v", i)
				}
				if tt.sent == "" {
					tt.sent = tt.body
				}
				if len(l.sent) != 1 || l.sent[0] != tt.sent || tt.want != nil && !tt.want(l.got[0]) {
					t.Errorf("%q %+v", l.sent, l.got)
				}
				if l.from[0] != tt.env.ReversePath {
					t.Errorf("sender %q", l.from[0])
				}
			})
		})
	}
}

// A route of an administrator is the way of plain SMTP, stands in what was decided, and lowers no floor.
func TestRouted(t *testing.T) {
	env := queue.Envelope{ReversePath: "a@alpha.test", Recipients: []queue.Recipient{{Address: "b@bravo.test"}}}
	synctest.Test(t, func(t *testing.T) {
		l := &ladder{route: plainRoute, result: queue.Result{Class: queue.Network}, rule: "to relay.test over tls (floor tls)"}
		i, _ := queuedVia(t, l, env, "Subject: x\r\n", "relay.test:2525")
		if v := l.got[0].Via; v.Host != "relay.test" || v.Port != 2525 || v.Auth != nil || l.got[0].Floor != FloorTLS {
			t.Errorf("%+v", l.got[0])
		}
		if i.Route != "relay.test:2525" || !strings.Contains(i.Rule, "; by the route that an administrator set; to relay.test") {
			t.Errorf("%+v", i)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := &ladder{route: Route{Situation: Untrusted, Remote: record.Strict, Terms: Terms{Floor: FloorOpportunistic}}}
		if i, _ := queuedVia(t, l, env, "Subject: x\r\n", "relay.test:2525"); len(l.got) != 0 || i.Leg != "hold" {
			t.Errorf("%+v", i)
		}
	})
}

// What the ladder says becomes the queue's, and what was decided stands there.
func TestSMTPLegResults(t *testing.T) {
	const asked = "the domain publishes no DIME record; "
	env := queue.Envelope{ReversePath: "a@alpha.test", Recipients: []queue.Recipient{{Address: "b@bravo.test"}}}
	tests := map[string]struct {
		l         *ladder
		body      string
		leg, rule string
		class     string
	}{
		"greylisted": {&ladder{route: plainRoute, rule: "to mx over tls (floor tls)", result: queue.Result{Class: queue.Remote, Status: "4.2.0", Code: 450, Reason: "mx refused rcpt: 450"}}, "x",
			"smtp", asked + "to mx over tls (floor tls); floor set for all", "remote"},
		"floor not met": {&ladder{route: plainRoute, result: queue.Result{Class: queue.Trust, Status: "5.7.4", Reason: "floor tls is not met: mx does not offer STARTTLS"}}, "x",
			"hold", asked + "floor tls is not met: mx does not offer STARTTLS; floor set for all", "trust"},
		"null MX": {&ladder{route: plainRoute, result: queue.Result{Class: queue.Permanent, Status: "5.1.10", Reason: "bravo.test takes no mail"}}, "x",
			"bounce", asked + "bravo.test takes no mail; floor set for all", "permanent"},
		"floor dime": {&ladder{route: Route{Situation: NoRecord, Terms: Terms{Floor: FloorDIME, Layer: Domain}}}, "x",
			"bounce", asked[:len(asked)-2] + "; floor dime: no SMTP for this domain", "permanent"},
		"sender requires DIME": {&ladder{route: plainRoute}, "X-DIME-Require: yes\r\n\r\n", "bounce", asked[:len(asked)-2] + "; sender requires DIME", "permanent"},
		"DMTP fails":           {&ladder{route: Route{Situation: Unreachable, Terms: Terms{Floor: FloorOpportunistic, Layer: Global}}}, "x", "hold", "DMTP fails for now", "network"},
		"DMTP fails, override": {&ladder{route: Route{Situation: Unreachable, Terms: Terms{Floor: FloorTLS, Override: true}}, rule: "to mx over tls (floor tls)", result: queue.Result{Class: queue.Remote, Reason: "later"}}, "x",
			"smtp", "DMTP fails for now; override: SMTP permitted by a dated override; to mx over tls (floor tls)", "remote"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, left := queued(t, tt.l, env, tt.body)
				if !left {
					t.Fatal("gone")
				}
				if i.Leg != tt.leg || i.Rule != tt.rule || i.Class != tt.class {
					t.Errorf("%s by %q, %s\nwant %s by %q, %s", i.Leg, i.Rule, i.Class, tt.leg, tt.rule, tt.class)
				}
				if tt.leg != "smtp" && tt.l.rule == "" && tt.l.result.Class == queue.Unset && len(tt.l.got) > 0 {
					t.Error("the ladder was asked")
				}
			})
		})
	}
}

// An explanation says what Deliver does, and whose word it is.
func TestExplain(t *testing.T) {
	done := exchange.Finding{Result: queue.Result{Class: queue.Done}, Rule: "to mx over tls (floor tls)"}
	unmet := exchange.Finding{Result: queue.Result{Class: queue.Trust, Status: "5.7.4", Reason: "floor tls is not met"}, Rule: "floor tls is not met", Unmet: true}
	raised := exchange.Finding{Result: queue.Result{Class: queue.Trust, Status: "5.7.5", Reason: "raised"}, Rule: "raised"}
	domain := Route{Situation: NoRecord, Terms: Terms{Floor: FloorTLS, Layer: Domain}}
	tests := map[string]struct {
		l      *ladder
		q      Question
		action string
		layer  Layer
		status string
	}{
		"by SMTP":              {&ladder{route: domain, finding: done}, Question{}, "smtp", Domain, ""},
		"floor not met":        {&ladder{route: domain, finding: unmet}, Question{}, "hold", Domain, "5.7.4"},
		"raised, not met":      {&ladder{route: domain, finding: raised}, Question{}, "hold", Remote, "5.7.5"},
		"null MX":              {&ladder{route: domain, finding: exchange.Finding{Result: queue.Result{Class: queue.Permanent, Status: "5.1.10"}}}, Question{}, "bounce", Remote, "5.1.10"},
		"sender requires DIME": {&ladder{route: domain, finding: done}, Question{Require: true}, "bounce", Sender, "5.7.10"},
		"floor dime":           {&ladder{route: Route{Situation: NoRecord, Terms: Terms{Floor: FloorDIME, Layer: Sender}}}, Question{}, "bounce", Sender, "5.7.10"},
		"floor hold":           {&ladder{route: Route{Situation: Verified, Terms: Terms{Floor: FloorHold, Layer: Global}}}, Question{}, "hold", Global, "5.7.1"},
		"strict, no signet":    {&ladder{route: Route{Situation: NoSignet, Remote: record.Strict, Terms: Terms{Floor: FloorTLS, Layer: Global}}}, Question{}, "bounce", Remote, "5.7.10"},
		"DMTP fails":           {&ladder{route: Route{Situation: Unreachable, Terms: Terms{Floor: FloorTLS, Layer: Global}}}, Question{}, "hold", Remote, "4.4.7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.q.Sender, tt.q.Recipient = "a@alpha.test", "b@bravo.test"
			o := NewOutbound(OutboundOptions{Router: tt.l, Exchange: tt.l})
			e, err := o.Explain(t.Context(), tt.q)
			if err != nil || e.Action != tt.action || e.Layer != tt.layer || e.Status != tt.status || e.Rule == "" {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

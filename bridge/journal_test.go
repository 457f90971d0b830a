package bridge

import (
	"testing"
	"testing/synctest"
	"time"

	"dimegate/bridge/queue"
	"dimegate/dmtp/record"
)

// A journal report for an archive that the administrator named leaves as it is, by SMTP over proved TLS, wherever the archive's
// domain stands with DIME; it is kept, not returned, when it cannot. For all other addresses, and without its field, it is mail.
func TestJournalReports(t *testing.T) {
	const report = "X-MS-Journal-Report:\r\nX-DIME-Require: no\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSender: a@alpha.test\r\nMessage-Id: <1@x>\r\nRecipient: c@alpha.test\r\n" +
		"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhello\r\n--b--\r\n"
	archive := func(r Route, result queue.Result) *ladder {
		return &ladder{route: r, result: result, rule: "to mx over tls (floor tls)", journal: []string{"journal@archive.test"}}
	}
	with := func(s Situation, f Floor) Route {
		return Route{Situation: s, Remote: record.Strict, Terms: Terms{Floor: f, Layer: Global}}
	}
	const rule = "journal report: plain SMTP, never sealed; to mx over tls (floor tls); floor set for all"
	done, refused, away := queue.Result{Class: queue.Done}, queue.Result{Class: queue.Permanent, Status: "5.7.1", Code: 554}, queue.Result{Class: queue.Network}
	tests := map[string]struct {
		l           *ladder
		to, body    string
		floor       Floor  // asked for, of what is sent
		state, rule string // of what is left; "": nothing is
	}{
		"an archive with DIME":     {archive(with(Verified, FloorOpportunistic), done), "Journal@archive.test", report, FloorTLS, "", ""},
		"a higher floor":           {archive(with(NoRecord, FloorDANE), done), "journal@archive.test", report, FloorDANE, "", ""},
		"a domain that is away":    {archive(with(Unreachable, FloorTLS), done), "journal@archive.test", report, FloorTLS, "", ""},
		"refused for good":         {archive(with(NoRecord, FloorTLS), refused), "journal@archive.test", report, FloorTLS, "held", rule},
		"refused for now":          {archive(with(NoRecord, FloorTLS), away), "journal@archive.test", report, FloorTLS, "waiting", rule},
		"floor dime":               {archive(with(Verified, FloorDIME), done), "journal@archive.test", report, 0, "held", "journal report: floor dime lets no plain SMTP out"},
		"floor hold":               {archive(with(Verified, FloorHold), done), "journal@archive.test", report, 0, "held", "journal report: floor hold lets no plain SMTP out"},
		"no report":                {archive(with(Untrusted, FloorTLS), done), "journal@archive.test", "Subject: X-MS-Journal-Report\r\n\r\nX-MS-Journal-Report:\r\n", 0, "waiting", "trust failure: certificate, key or signature rejected"},
		"to somebody else":         {archive(with(Untrusted, FloorTLS), done), "eve@archive.test", report, 0, "waiting", "trust failure: certificate, key or signature rejected"},
		"to nobody's archive, yet": {&ladder{route: with(Untrusted, FloorTLS)}, "journal@archive.test", report, 0, "waiting", "trust failure: certificate, key or signature rejected"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, left := queued(t, tt.l, queue.Envelope{Recipients: []queue.Recipient{{Address: tt.to}}}, tt.body)
				if left != (tt.state != "") || i.State != tt.state || i.Rule != tt.rule {
					t.Errorf("%t, %s by %q; want %q by %q", left, i.State, i.Rule, tt.state, tt.rule)
				}
				if tt.floor == 0 {
					if len(tt.l.sent) > 0 {
						t.Error("it was sent")
					}
					return
				}
				if len(tt.l.sent) != 1 || tt.l.sent[0] != tt.body || tt.l.got[0].Floor != tt.floor {
					t.Errorf("%q, %+v", tt.l.sent, tt.l.got)
				}
			})
		})
	}
	if got := keepReport(away); got.Life < 5*365*24*time.Hour {
		t.Errorf("tried for %v", got.Life)
	}
}

// Decisions about journal reports are not kept for a replay of the policy, and an explanation of their address tells of them.
func TestJournalReportsExplained(t *testing.T) {
	h := NewHistory(nil, time.Hour, time.Now)
	o := NewOutbound(OutboundOptions{History: h, Domains: []string{"alpha.test"}, Journal: []string{"journal@archive.test"},
		Router: &ladder{route: Route{Situation: Untrusted, Why: "no key", Terms: Terms{Floor: FloorTLS}}}})
	it := &queue.Item{Recipient: queue.Recipient{Address: "journal@archive.test"}}
	o.remember(it, Route{}, Past{Action: SendSMTP, Rule: journalRule + "x"})
	if len(h.pending) != 0 {
		t.Errorf("remembered %+v", h.pending)
	}
	o.remember(it, Route{}, Past{Action: SendSMTP, Rule: "x"})
	if len(h.pending) != 1 {
		t.Error("a decision of the policy is not remembered")
	}
	for to, want := range map[string]string{"Journal@archive.test": "no key; a journal report to this address leaves by plain SMTP, never sealed", "b@archive.test": "no key"} {
		if e, err := o.Explain(t.Context(), Question{Sender: "a@alpha.test", Recipient: to}); err != nil || e.Reason != want {
			t.Errorf("%s: %q, %v", to, e.Reason, err)
		}
	}
}

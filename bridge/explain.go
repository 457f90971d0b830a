package bridge

import (
	"context"
	"slices"
	"strings"

	"dimegate/bridge/exchange"
	"dimegate/bridge/queue"
)

// A Question is about a message that may be sent.
type Question struct {
	Sender     string // the reverse-path; "" for the null one
	Recipient  string
	Octets     int64 // of the message
	Require    bool  // X-DIME-Require: yes
	RequireTLS bool  // REQUIRETLS
	SMTPUTF8   bool
}

// An Explanation is what would become of the message now, and why.
type Explanation struct {
	Action    string          `json:"action"` // dmtp, smtp, hold or bounce
	Rule      string          `json:"rule"`   // as it would be recorded
	Layer     Layer           `json:"layer"`  // whose word is the last
	Reason    string          `json:"reason,omitempty"`
	Status    string          `json:"status,omitempty"` // of a bounce, now or at the end of a hold
	Situation string          `json:"situation"`        // what was found out about the recipient
	Floor     string          `json:"floor"`
	FloorOf   Layer           `json:"floor_layer"`
	Override  bool            `json:"override,omitempty"`
	Suite     string          `json:"alternate_layer,omitempty"` // of what would leave over DMTP: "none", or the suite
	Hosts     []exchange.Host `json:"hosts,omitempty"`           // of plain SMTP: who was asked, and what came of it
}

// Explain says what Deliver would do, by doing all of it but sending. Of the Author only Draft is called, and of that only Suite.
func (o *Outbound) Explain(ctx context.Context, q Question) (Explanation, error) {
	r, err := o.Router.Route(ctx, q.Sender, q.Recipient)
	if err != nil {
		return Explanation{}, err
	}
	r.Terms.Require = q.Require
	d := Decide(r.Situation, r.Remote, r.Terms)
	e := Explanation{Action: d.Action.String(), Rule: d.Rule, Layer: d.Layer, Reason: r.Why, Status: d.Enhanced,
		Situation: r.Situation.String(), Floor: r.Terms.Floor.String(), FloorOf: r.Terms.Layer, Override: r.Terms.Override}
	if slices.Contains(o.Journal, strings.ToLower(q.Recipient)) {
		e.Reason = strings.TrimPrefix(e.Reason+"; a journal report to this address leaves by plain SMTP, never sealed", "; ")
	}
	switch {
	case d.Action == SendDMTP:
		err = o.explainDMTP(ctx, q, r, &e)
	case d.Action == SendSMTP && o.Exchange != nil:
		err = o.explainSMTP(ctx, q, r, d, &e)
	}
	return e, err
}

// explainDMTP adds whether the recipient's key is one that the users' agent trusts.
func (o *Outbound) explainDMTP(ctx context.Context, q Question, r Route, e *Explanation) error {
	draft, err := o.Author.Draft(ctx, q.Sender, r)
	if err == nil {
		e.Suite = "none"
		if s := draft.Suite(); s != 0 {
			e.Suite = s.Digits() + " " + s.String()
		}
		return nil
	}
	res, err := failed(err)
	if err != nil {
		return err
	}
	e.Action, e.Status, e.Reason = Hold.String(), res.Status, res.Reason
	if res.Class == queue.Permanent {
		e.Action = Bounce.String()
	}
	return nil
}

// explainSMTP adds what the ladder would do.
func (o *Outbound) explainSMTP(ctx context.Context, q Question, r Route, d Decision, e *Explanation) error {
	mail := mailFor(r, q.Sender, q.Recipient)
	mail.UTF8, mail.RequireTLS = q.SMTPUTF8, q.RequireTLS
	f, err := o.Exchange.Check(ctx, mail, q.Octets)
	if err != nil {
		return err
	}
	e.Hosts, e.Rule, e.Status = f.Hosts, because(d, f.Rule, r.Terms), f.Result.Status
	switch f.Result.Class {
	case queue.Done:
		e.Layer = r.Terms.Layer
	case queue.Permanent:
		e.Action, e.Layer, e.Reason = Bounce.String(), Remote, f.Result.Reason
	default:
		e.Action, e.Layer, e.Reason = Hold.String(), Remote, f.Result.Reason
	}
	if f.Unmet {
		e.Layer = r.Terms.Layer
	}
	return nil
}

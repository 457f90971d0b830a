package bridge

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"dimegate/bridge/queue"
	"dimegate/bridge/translate"
)

// journalField is on top of every journal report that Exchange makes: the envelope in a text part, and the message as it was.
const journalField = "X-MS-Journal-Report"

// journalRule begins the rule of a journal report's decisions.
const journalRule = "journal report: "

// journalLife is how long a journal report is tried. It has the null reverse-path, so nobody would hear of its end.
const journalLife = 10 * 365 * 24 * time.Hour

// isJournalReport tells whether a message says so. Anyone can write that: it counts only for addresses that the administrator
// named.
func isJournalReport(m translate.Message) bool {
	for f := range translate.Fields(m.Header) {
		if f.Is(journalField) {
			return true
		}
	}
	return false
}

// journal is the way of a journal report to an archive that the administrator named: plain SMTP over proved TLS at least,
// octet for octet, never sealed, never returned. What cannot go so is kept. ok is false for all other mail.
func (o *Outbound) journal(ctx context.Context, it *queue.Item, r Route, m translate.Message) (res queue.Result, ok bool, err error) {
	if !isJournalReport(m) {
		return queue.Result{}, false, nil
	}
	if !slices.Contains(o.Journal, strings.ToLower(it.Recipient.Address)) {
		if it.Attempt <= 1 {
			o.Log.LogAttrs(ctx, slog.LevelWarn, "a journal report for an address that policy.journal does not have is ordinary mail", slog.String("id", it.ID), slog.String("domain", domainOf(it.Recipient.Address)))
		}
		return queue.Result{}, false, nil
	}
	d := Decision{Action: SendSMTP, Rule: journalRule + "plain SMTP, never sealed", report: true}
	if f := r.Terms.Floor; f == FloorHold || f == FloorDIME || o.Exchange == nil {
		d.Action, d.Rule = Hold, journalRule+"floor "+f.String()+" lets no plain SMTP out"
		if err := o.decide(ctx, it, r, Past{Action: d.Action, Rule: d.Rule}); err != nil {
			return queue.Result{}, true, err
		}
		return queue.Result{Class: queue.Park, Status: "5.7.1", Reason: d.Rule}, true, nil
	}
	r.Terms.Floor = max(r.Terms.Floor, FloorTLS)
	res, err = o.smtp(ctx, it, r, d, m)
	return res, true, err
}

// keepReport makes what would return a journal report keep it: what was refused for an administrator, the rest for long.
func keepReport(res queue.Result) queue.Result {
	switch res.Class {
	case queue.Done:
	case queue.Permanent:
		res.Class, res.Life = queue.Park, 0
	default:
		res.Life = journalLife
	}
	return res
}

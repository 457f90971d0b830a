package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"dimegate/bridge/exchange"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// An Exchange sends a copy as plain SMTP, at a floor and never below it: exchange.Exchanger. It calls decide before the first
// octet of the message leaves.
type Exchange interface {
	Send(ctx context.Context, m exchange.Mail, decide func(rule string, r exchange.Rung) error) (queue.Result, error)
	Check(ctx context.Context, m exchange.Mail, octets int64) (exchange.Finding, error)
}

// smtp sends the copy as plain SMTP, octet for octet but for what asks us for DIME.
func (o *Outbound) smtp(ctx context.Context, it *queue.Item, r Route, d Decision, m translate.Message) (queue.Result, error) {
	m, gone := translate.Without(m, func(f translate.Field) bool { return f.Is(translate.RequireField) && !d.report })
	for _, c := range gone {
		if c.Signed {
			o.Log.LogAttrs(ctx, slog.LevelWarn, "a signed field was changed: the sender's DKIM signature no longer holds", slog.String("id", it.ID), slog.String("field", c.Name))
		}
	}
	mail := mailFor(r, it.Envelope.ReversePath, it.Recipient.Address)
	mail.Message = wire(m)
	mail.UTF8, mail.UTF8Header = it.Envelope.SMTPUTF8, it.Envelope.SMTPUTF8 && !ascii(m.Header)
	mail.RequireTLS = it.Envelope.RequireTLS
	mail.DSN = dsn(it.Envelope, it.Recipient)
	if it.Via != "" {
		var err error
		if mail.Via, err = via(it.Via); err != nil {
			return queue.Result{}, err
		}
		d.Rule += "; by the route that an administrator set"
	}
	offered := false
	res, err := o.Exchange.Send(ctx, mail, func(rule string, rung exchange.Rung) error {
		offered = true
		return o.decide(ctx, it, r, Past{Action: SendSMTP, Rule: because(d, rule, r.Terms), Offered: true, Rung: rung})
	})
	if err != nil {
		return queue.Result{}, err
	}
	if d.report {
		res = keepReport(res)
	}
	if !offered {
		action := Hold
		if res.Class == queue.Permanent {
			action = Bounce
		}
		if err := o.decide(ctx, it, r, Past{Action: action, Rule: because(d, res.Reason, r.Terms)}); err != nil {
			return queue.Result{}, err
		}
	}
	o.noteSMTP(ctx, it, res)
	return res, nil
}

// via reads host:port, as a route of the queue says it.
func via(route string) (exchange.SmartHost, error) {
	host, text, err := net.SplitHostPort(route)
	if err != nil {
		return exchange.SmartHost{}, fmt.Errorf("bridge: route: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return exchange.SmartHost{Host: strings.ToLower(host), Port: uint16(port)}, err
}

// wire is a message as octets; its body is not copied.
func wire(m translate.Message) smtpwire.Message {
	if !m.Separator {
		return smtpwire.Octets(m.Header)
	}
	return smtpwire.OnTop(slices.Concat(m.Header, []byte("\r\n")), smtpwire.Octets(m.Body))
}

// noteSMTP logs a delivery, and a floor that was not met.
func (o *Outbound) noteSMTP(ctx context.Context, it *queue.Item, res queue.Result) {
	at := []slog.Attr{slog.String("id", it.ID), slog.String("domain", domainOf(it.Recipient.Address)), slog.String("host", res.Host), slog.Int("attempt", it.Attempt)}
	switch res.Class {
	case queue.Done:
		o.Log.LogAttrs(ctx, slog.LevelInfo, "sent by SMTP", append(at, slog.String("rule", res.Reason))...)
	case queue.Trust:
		o.Log.LogAttrs(ctx, slog.LevelWarn, "held: protection is not what it must be", append(at, slog.String("reason", res.Reason))...)
	}
}

// mailFor is a copy without its message.
func mailFor(r Route, from, to string) exchange.Mail {
	return exchange.Mail{Floor: r.Terms.Floor, From: from, To: to}
}

// because joins what the table says, who set the floor and what the ladder made of it.
func because(d Decision, ladder string, t Terms) string {
	return d.Rule + "; " + ladder + setBy[t.Layer]
}

var setBy = map[Layer]string{Global: "; floor set for all", Domain: "; floor set for the domain", Sender: "; floor set for the sender"}

func ascii(b []byte) bool {
	for _, c := range b {
		if c > 0x7f {
			return false
		}
	}
	return true
}

// notifies are RFC 3461's words.
var notifies = []struct {
	bit  queue.Notify
	word string
}{{queue.NotifyNever, "NEVER"}, {queue.NotifySuccess, "SUCCESS"}, {queue.NotifyFailure, "FAILURE"}, {queue.NotifyDelay, "DELAY"}}

// dsn writes what was asked of notices as the wire wants it.
func dsn(env queue.Envelope, rcpt queue.Recipient) smtpwire.DSN {
	out := smtpwire.DSN{Ret: map[queue.Return]string{queue.ReturnHeaders: "HDRS", queue.ReturnFull: "FULL"}[env.Return], EnvID: xtext(env.EnvelopeID)}
	var words []string
	for _, n := range notifies {
		if rcpt.Notify&n.bit != 0 {
			words = append(words, n.word)
		}
	}
	out.Notify = strings.Join(words, ",")
	if kind, address, ok := strings.Cut(rcpt.Original, ";"); ok {
		if strings.EqualFold(kind, "utf-8") {
			address = smtpwire.Unitext(address)
		}
		out.Orcpt = kind + ";" + xtext(address)
	}
	return out
}

// xtext is RFC 3461 §4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

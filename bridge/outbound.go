package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/mail"
	"slices"
	"strings"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/bridge/queue"
	"dimegate/bridge/translate"
	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/message"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

// A Route is what was found out about one recipient.
type Route struct {
	Situation   Situation
	Remote      record.Policy
	Life        time.Duration // how long to hold for this failure; 0: as the table says
	Why         string        // of anything but Verified: names and our own words only
	Destination message.Party // of Verified, signets in ID form
	Recipient   message.Party
	Terms       Terms
	Via         any           // for the Carrier that the Router belongs to
	Evidence    func() []byte // what the way rests on, in JSON: records and DNSSEC as seen; nil: nothing is known
}

// A Router finds the way to a recipient. An error is a fault of ours; what is wrong with the other side is a Situation.
type Router interface {
	Route(ctx context.Context, sender, recipient string) (Route, error) // sender: the reverse-path, "" for the null one
	Forget(recipient string)                                            // what is cached: the other side says that it is outdated
	Retry(recipient string, asked time.Time)                            // a failure that is remembered from before then is looked at anew
}

// Errors of an Author.
var (
	ErrUntrusted   = errors.New("bridge: the recipient's key is not trusted")
	ErrUnavailable = errors.New("bridge: the recipient's key cannot be settled now")
	ErrSender      = errors.New("bridge: the sender cannot be the author of a sealed message")
	ErrOwnKeys     = errors.New("bridge: the sender has his keys himself")
)

// An Author settles the parties of a message and seals it: the users' agent. Errors: those above; others are ours.
type Author interface {
	Draft(ctx context.Context, author string, r Route) (Draft, error)
}

// A Draft is a message whose parties are settled. Its content may depend on what they all can read.
type Draft interface {
	Multi() bool
	Suite() message.SuiteID // of the alternate layer; 0: none
	Author() (string, *signet.Signet)
	Seal(ctx context.Context, c *message.Content) (*message.Message, error)
}

// An Origin signs for one of our domains.
type Origin interface {
	Sign(ctx context.Context, m *message.Message, author, destination message.Party, domain string) (*message.Message, error)
}

// A Carrier delivers a sealed message over DMTP. Its errors are dmtpclient's.
type Carrier interface {
	Carry(ctx context.Context, origin string, r Route, octets []byte) (dmtpclient.Receipt, error)
}

// OutboundOptions is what Outbound is made of.
type OutboundOptions struct {
	Router   Router
	Author   Author
	Origin   Origin
	Carrier  Carrier
	Exchange Exchange // nil: nothing leaves as plain SMTP
	Domains  []string // ours, in lower case; the first one's postmaster authors mail that no domain of ours is named in
	Hostname string
	OwnHosts []string // whose Received fields lose their "for" clause
	Loops    *handoff.LoopGuard
	Journal  []string // addresses outside that get journal reports; lower case
	History  *History // nil: decisions are not remembered
	Log      *slog.Logger
}

// Outbound sends one recipient's copy of a queued message: it decides, seals and carries. It is a queue.Deliverer, safe
// for concurrent use.
type Outbound struct{ OutboundOptions }

// NewOutbound starts nothing.
func NewOutbound(o OutboundOptions) *Outbound { return &Outbound{o} }

// Deliver makes one try.
func (o *Outbound) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	if !it.Asked.IsZero() {
		o.Router.Retry(it.Recipient.Address, it.Asked)
	}
	route, err := o.Router.Route(ctx, it.Envelope.ReversePath, it.Recipient.Address)
	if err != nil {
		return queue.Result{}, err
	}
	defer giveBack(it.Octets)
	raw, err := read(ctx, it.Body, it.Octets)
	if err != nil {
		return queue.Result{}, err
	}
	m := translate.Split(raw)
	if err := o.Loops.Check(m, it.Recipient.Address); err != nil {
		return queue.Result{Class: queue.Permanent, Status: "5.4.6", Reason: err.Error()}, nil
	}
	if res, ok, err := o.journal(ctx, it, route, m); ok || err != nil {
		return res, err
	}
	route.Terms.Require = translate.Requires(m)
	d := Decide(route.Situation, route.Remote, route.Terms)
	switch {
	case d.Action == SendDMTP:
		return o.dmtp(ctx, it, route, d, m)
	case d.Action == SendSMTP && o.Exchange != nil:
		return o.smtp(ctx, it, route, d, m)
	}
	return o.keepOrBounce(ctx, it, route, d)
}

// keepOrBounce is every decision but to send.
func (o *Outbound) keepOrBounce(ctx context.Context, it *queue.Item, r Route, d Decision) (queue.Result, error) {
	if err := o.decide(ctx, it, r, Past{Action: d.Action, Rule: d.Rule}); err != nil {
		return queue.Result{}, err
	}
	return kept(r, d), nil
}

// decide keeps a decision before it is acted on. The same again is not remembered again.
func (o *Outbound) decide(ctx context.Context, it *queue.Item, r Route, p Past) error {
	d := queue.Decision{Leg: p.Action.String(), Rule: p.Rule}
	known := d == it.Decision
	if err := it.Decide(ctx, d); err != nil || known {
		return err
	}
	o.remember(it, r, p)
	return nil
}

func (o *Outbound) remember(it *queue.Item, r Route, p Past) {
	if strings.HasPrefix(p.Rule, journalRule) { // the address decided, which is not remembered: a replay could only be wrong
		return
	}
	p.Sender, p.Domain = it.Envelope.ReversePath, domainOf(it.Recipient.Address)
	p.Situation, p.Remote, p.Override, p.Require = r.Situation, r.Remote, r.Terms.Override, r.Terms.Require
	p.Floor = r.Terms.Floor
	o.History.Add(p)
}

// kept is what a decision that is not DMTP comes to. How long trust is waited for is the queue's to say, unless the failure
// has a time of its own.
func kept(r Route, d Decision) queue.Result {
	res := queue.Result{Status: d.Enhanced, Life: r.Life, Reason: reason(d.Rule, r.Why)}
	switch {
	case d.Action == Bounce:
		res.Class = queue.Permanent
	case r.Terms.Floor == FloorHold:
		res.Class, res.Life = queue.Park, 0
	case d.Action == SendSMTP: // and there is no Exchange
		res.Class, res.Status = queue.Remote, "5.4.4"
	case r.Situation == Unreachable || r.Situation == Unknown:
		res.Class, res.Life = queue.Network, 0
	default:
		res.Class = queue.Trust
	}
	return res
}

func reason(rule, why string) string {
	if why == "" {
		return rule
	}
	return rule + ": " + why
}

// dmtp sends the copy over DMTP: the octets that went out before, if any did, else a message that is authored now.
func (o *Outbound) dmtp(ctx context.Context, it *queue.Item, r Route, d Decision, m translate.Message) (queue.Result, error) {
	author := o.author(it.Envelope.ReversePath, m)
	origin := domainOf(author)
	octets, err := read(ctx, it.Built, 0)
	if errors.Is(err, queue.ErrNoBuilt) {
		var own *signet.Signet
		octets, own, err = o.seal(ctx, it, author, r, m)
		if err == nil {
			err = it.SaveBuilt(ctx, octets, queue.Decision{Leg: d.Action.String(), Rule: d.Rule}, exhibits(octets, author, own, r, d)...)
		}
		if err == nil {
			o.remember(it, r, Past{Action: SendDMTP, Rule: d.Rule})
		}
	}
	if errors.Is(err, message.AltPolicy) { // a signet that offers more may be there by the next try
		o.Router.Forget(it.Recipient.Address)
	}
	if err != nil {
		return failed(err)
	}
	receipt, err := o.Carrier.Carry(ctx, origin, r, octets)
	if err != nil {
		return o.refused(it, err), nil
	}
	o.Log.LogAttrs(ctx, slog.LevelInfo, "delivered", slog.String("id", it.ID), slog.String("domain", r.Destination.Name),
		slog.String("host", receipt.Host), slog.Int("code", receipt.Code), slog.Int("octets", len(octets)), slog.Int("attempt", it.Attempt))
	return queue.Result{Class: queue.Done, Code: receipt.Code, Host: receipt.Host, Protocol: "dmtp", Reason: d.Rule}, nil
}

// author is who signs: the sender, if he is ours. For the null reverse-path, and for strangers whose mail our users forward on,
// it is a postmaster: of the domain of ours that the message says it is from, else of the first.
func (o *Outbound) author(reversePath string, m translate.Message) string {
	if reversePath != "" && slices.Contains(o.Domains, domainOf(reversePath)) {
		return reversePath
	}
	domain := FromDomain(m, func(d string) bool { return slices.Contains(o.Domains, d) })
	if domain == "" {
		domain = o.Domains[0]
	}
	return "postmaster@" + domain
}

// FromDomain is the domain of ours that a message says it is from, in lower case; "" where it names none.
func FromDomain(m translate.Message, ours func(domain string) bool) string {
	for f := range translate.Fields(m.Header) {
		if !f.Is("From") {
			continue
		}
		list, err := mail.ParseAddressList(string(f.Value()))
		if err == nil && len(list) > 0 && ours(domainOf(list[0].Address)) { // a group may be empty
			return domainOf(list[0].Address)
		}
	}
	return ""
}

// seal authors the message and signs it as its origin.
func (o *Outbound) seal(ctx context.Context, it *queue.Item, author string, r Route, m translate.Message) ([]byte, *signet.Signet, error) {
	draft, err := o.Author.Draft(ctx, author, r)
	if err != nil {
		return nil, nil, err
	}
	m, report := translate.Prepare(translate.Preparation{Now: it.Accepted, MessageID: it.Record + "@" + o.Hostname, OwnHosts: o.OwnHosts,
		LoopField: handoff.LoopField, OwnLoop: o.Loops.Own(m)}, m)
	changed := slices.Concat(report.Removed, report.Edited)
	if i := slices.IndexFunc(changed, func(c translate.Change) bool { return c.Signed }); i >= 0 {
		o.Log.LogAttrs(ctx, slog.LevelWarn, "a signed field was changed: the sender's DKIM signature no longer holds", slog.String("id", it.ID), slog.String("field", changed[i].Name))
	}
	name, own := draft.Author()
	env := translate.Envelope{Author: name, Now: it.Accepted, Return: returnLine(it.Envelope.ReversePath, name), MultiOK: draft.Multi()}
	content, err := translate.ImportMessage(env, m)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := draft.Seal(ctx, content)
	if err != nil {
		return nil, nil, err
	}
	signed, err := o.Origin.Sign(ctx, sealed, message.Party{Name: name, Signet: own}, r.Destination, domainOf(name))
	if err != nil {
		return nil, nil, err
	}
	layer := "none"
	if s := draft.Suite(); s != 0 {
		layer = s.Digits()
	}
	o.Log.LogAttrs(ctx, slog.LevelInfo, "authored", slog.String("id", it.ID), slog.String("domain", r.Destination.Name), slog.String("alternate_layer", layer))
	return signed.Bytes(), own, nil
}

// returnLine is the DIME-Return of a message: none where the author is the reverse-path to the letter.
func returnLine(reversePath, author string) string {
	switch reversePath {
	case "":
		return translate.NullPath
	case author:
		return ""
	}
	return reversePath
}

// noSecondLayer is what a sender reads who knows nothing of suites.
const noSecondLayer = "a second layer of encryption is required for mail to this recipient, and his published keys offer none that may be used"

// ownKeys is what a sender reads whose keys are not here.
const ownKeys = "your keys are with your own client, so mail to a recipient with DIME must be sealed there"

// failed says what a message that could not be sealed comes to.
func failed(err error) (queue.Result, error) {
	switch {
	case errors.Is(err, ErrUntrusted):
		return queue.Result{Class: queue.Trust, Status: "5.7.5", Reason: err.Error()}, nil
	case errors.Is(err, ErrUnavailable):
		return queue.Result{Class: queue.Network, Reason: err.Error()}, nil
	case errors.Is(err, ErrOwnKeys):
		return queue.Result{Class: queue.Permanent, Status: "5.7.10", Reason: ownKeys}, nil
	case errors.Is(err, ErrSender), errors.Is(err, translate.ErrAddress):
		return queue.Result{Class: queue.Permanent, Status: "5.1.7", Reason: err.Error()}, nil
	case errors.Is(err, translate.ErrNeedsMulti), errors.Is(err, message.TooLarge):
		return queue.Result{Class: queue.Permanent, Status: "5.3.4", Reason: "too large for the recipient's system"}, nil
	case errors.Is(err, message.AltPolicy):
		return queue.Result{Class: queue.Trust, Status: "5.7.10", Reason: noSecondLayer}, nil
	case errors.Is(err, message.Malformed), errors.Is(err, message.Policy): // it will never be other than it is
		return queue.Result{Class: queue.Permanent, Status: "5.6.0", Reason: err.Error()}, nil
	case errors.Is(err, message.NotAuthentic): // the four parties do not go together: their signets may be mended
		return queue.Result{Class: queue.Trust, Status: "5.7.5", Reason: err.Error()}, nil
	}
	return queue.Result{}, err
}

// classes are dmtpclient's classes in the queue's words.
var classes = map[dmtpclient.Class]queue.Class{
	dmtpclient.Network: queue.Network, dmtpclient.Remote: queue.Remote, dmtpclient.Refresh: queue.Refresh,
	dmtpclient.Permanent: queue.Permanent, dmtpclient.Protocol: queue.Protocol, dmtpclient.Trust: queue.Trust,
}

// refused says what a delivery that did not succeed comes to.
func (o *Outbound) refused(it *queue.Item, err error) queue.Result {
	res := queue.Result{Class: classes[dmtpclient.ClassOf(err)], Protocol: "dmtp", Reason: err.Error()}
	e, ok := errors.AsType[*dmtpclient.Error](err)
	if !ok {
		return res
	}
	res.Code, res.Text, res.Host, res.MinDelay = e.Code, e.Text.String(), e.Host, e.MinDelay()
	res.Status = Status(e.Code)
	if res.Class == queue.Refresh {
		o.Router.Forget(it.Recipient.Address)
	}
	if errors.Is(err, dmtpclient.ErrTooLarge) {
		res.Class, res.Status = queue.Permanent, "5.3.4"
	}
	return res
}

// statuses is the table of dmtp.md §10.3 (OC-42).
var statuses = map[int]string{
	421: "4.4.2", 431: "4.5.3", 450: "4.7.0", 451: "4.3.0", 470: "4.7.5", 476: "4.7.5",
	510: "5.1.1", 551: "5.1.2", 552: "5.3.4", 554: "5.6.0", 570: "5.7.5", 575: "5.7.5", 576: "5.7.5", 578: "5.7.7", 586: "5.7.5",
}

// Status is the RFC 3463 status of a DMTP reply code; "" where only its class is known.
func Status(code int) string { return statuses[code] }

// read reads all of what open opens, of which about n octets are expected.
func read(ctx context.Context, open func(context.Context) (io.ReadCloser, error), n int64) ([]byte, error) {
	r, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n <= 0 {
		return io.ReadAll(r)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%w: the body is not %d octets", queue.ErrDamaged, n)
	}
	return b, nil
}

// domainOf is what follows the last "@", in ASCII lower case.
func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

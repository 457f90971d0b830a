package main

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"time"

	"dimegate/dmtp/record"

	"github.com/miekg/dns"
)

// canaryMark begins every canary: letters that nothing else contains.
const canaryMark = "kanarie"

// A leakCase is one thing that an attacker does, and how it must end.
type leakCase struct {
	name, does string

	unsigned bool   // bravo's zone has no DNSSEC; its DX has a certificate of a CA
	policy   string // of bravo's record
	mx       bool   // bravo's record names no DX: it is found by MX, on the port that is shared with SMTP
	foreign  bool   // bravo itself is the attacker
	prime    bool   // a message arrived before, so that the domain and the recipient's signet are pinned
	clock    bool   // alpha's gateway runs under the test's clock from the start

	fault    func(*leakWorld) (struck func() bool, err error)
	because  string        // stands in the reason that the gateway recorded: it was this fault, and no other
	outcome  string        // of the message
	after    time.Duration // alpha's clock is put ahead by it to see the end of what is held
	end      string        // "bounced" with the status of the notice; "delivered" once the fault is gone
	mend     func(*leakWorld)
	scenario func(context.Context, *leakWorld, *leakResult) error // in place of all that
}

// The outcomes.
const (
	held      = "held"
	bounced   = "bounced"
	delivered = "delivered"
	refused   = "refused"
	undecided = "undecided"

	trustOver = 72*time.Hour + time.Minute  // dmtp.md §11.2: trust failures and doubtful records
	lifeOver  = 120*time.Hour + time.Minute // OC-41: the queue's life
	cacheOver = 31 * 24 * time.Hour         // OC-32: the hard time of a signet is 30 days
)

// Names of the controls.
const (
	controlDelivered  = "control_delivered"
	controlCanarySeen = "control_canary_seen"
)

const recordName = "_dx.bravo.test."

// leakCases is the table; the slow ones stand first. Sources: dmtp.md §8.10, §8.11, §8.12, §11.2, §11.3.
var leakCases = []leakCase{
	{
		name: "dns-timeout", does: "no answer comes to any question for the record; all other names resolve",
		policy: "experimental", fault: attackRecord(drop), because: "indeterminate: no answer", outcome: held, after: trustOver, end: "bounced 5.7.5",
	},
	{
		name: "dns-servfail", does: "every question for the record is answered SERVFAIL; all other names resolve",
		policy: "experimental", fault: attackRecord(servfail), because: "resolver answers SERVFAIL", outcome: held, after: trustOver, end: "bounced 5.7.5",
	},
	{
		name: "record-bogus", does: "the record's signature does not hold",
		policy: "experimental", because: "bogus: _dx.bravo.test. TXT: wrong signature", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			w.dns.attack(recordName, asIs)
			return w.dnsStruck, w.Tree.Spoil(recordName, dns.TypeTXT)
		},
	},
	{
		name: "record-vanishes-proved", does: "the record of a strict domain that is known to have one is gone, with a signed proof",
		policy: "strict", prime: true, because: "record vanished, absence proved", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			w.dns.attack(recordName, asIs)
			return w.dnsStruck, w.publish()
		},
	},
	{
		name: "record-vanishes-stripped", does: "the record of a signed domain is denied, and the proof of that is taken out of the answer",
		policy: "experimental", prime: true, fault: attackRecord(vanish), because: "neither there nor proved absent", outcome: held, after: trustOver, end: "bounced 5.7.5",
	},
	{
		name: "record-vanishes-unproved", does: "the record of an unsigned domain that is known to have one is denied",
		unsigned: true, policy: "experimental", prime: true, fault: attackRecord(vanish), because: "record vanished, absence not proved", outcome: held, after: lifeOver, end: "bounced 5.7.5",
	},
	{
		name: "pok-swapped", does: "an unsigned domain's record is replaced by the attacker's, whose DX has a CA's certificate and signets of its own",
		unsigned: true, policy: "strict", prime: true, because: "POK changed, record insecure", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			w.dns.attack(recordName, replaceText(record.Strings(w.foreign.record("strict", "dx.bravo.test"))))
			return func() bool { return w.dnsStruck() && w.foreign.askedFor("bravo.test") > 0 }, w.foreignAtFront()
		},
	},
	{
		name: "pok-swapped-signed", does: "the same for a signed domain: the attacker cannot sign",
		policy: "experimental", prime: true, because: "bogus: _dx.bravo.test. TXT: wrong signature", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			w.dns.attack(recordName, replaceText(record.Strings(w.foreign.record("experimental", "dx.bravo.test"))))
			return w.dnsStruck, w.foreignAtFront()
		},
	},
	{
		name: "certificate-swapped", does: "an attacker answers on port 26 with another certificate, which a CA issued for the host's name",
		policy: "experimental", prime: true, because: "no tls value of the record signs this certificate", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			return func() bool { return w.dx.connections() > 0 }, w.foreignAtFront()
		},
	},
	{
		name: "signet-of-another-user", does: "the DX answers the question for the recipient's signet with another user's, whose keys it has",
		policy: "experimental", foreign: true, because: "the signet is another's", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			other, err := w.foreign.user("carol@bravo.test")
			w.foreign.show(w.recipient(), other)
			return func() bool { return w.foreign.askedFor(w.recipient()) > 0 }, err
		},
	},
	{
		name: "wrong-fingerprint", does: "the DX shows a signet whose fingerprint is not the pinned one, signed by the organisation, without custody",
		policy: "strict", foreign: true, prime: true, because: "a key changed without custody", outcome: held, after: trustOver, end: "bounced 5.7.5",
		fault: func(w *leakWorld) (func() bool, error) {
			other, err := w.foreign.user(w.recipient())
			w.foreign.show(w.recipient(), other)
			return func() bool { return w.foreign.askedFor(w.recipient()) > 0 }, err
		},
	},
	{
		name: "expired-signet-cache", does: "the cached signets are past their time of 30 days, and the DX hangs up",
		policy: "experimental", prime: true, clock: true, because: "cannot be found out now: no DX can be reached", outcome: held, after: cacheOver + lifeOver, end: "bounced 4.4.7",
		fault: func(w *leakWorld) (func() bool, error) {
			w.dx.set(hangUp)
			return func() bool { return w.dx.connections() > 0 }, w.setClock(cacheOver)
		},
	},
	{
		name: "starttls-stripped", does: "on the shared port the greeting is DMTP's, STARTTLS is refused, and mail in clear is welcome",
		policy: "experimental", mx: true, prime: true, because: "mx.bravo.test: STARTTLS: 502", outcome: held, after: lifeOver, end: "bounced 4.4.7",
		fault: func(w *leakWorld) (func() bool, error) {
			w.mailAtFront("mx.bravo.test DMTPv1")
			return func() bool { return w.stripped.said("STARTTLS") }, nil
		},
	},
	{
		name: "banner-without-dmtpv1", does: "the shared port greets as a mail server without DMTP, and mail in clear is welcome",
		policy: "experimental", mx: true, prime: true, because: "the host does not speak DMTPv1", outcome: held, after: lifeOver, end: "bounced 4.4.7",
		fault: func(w *leakWorld) (func() bool, error) {
			w.mailAtFront("mx.bravo.test")
			return func() bool { return w.dual.connections() > 0 }, nil
		},
	},
	{
		name: "peer-closes-mid-data", does: "the connection is cut in the middle of the message; after that, the line is whole again",
		policy: "experimental", because: "dx.bravo.test: message: ", outcome: held, end: delivered,
		fault: func(w *leakWorld) (func() bool, error) {
			cut := &cutter{after: 20_000} // behind the hand-shake and look-ups, amid 100 kB
			w.dx.set(relay(w.Bravo.DX+":26", cut))
			return func() bool { return cut.cuts.Load() > 0 }, nil
		},
		mend: func(w *leakWorld) { w.dx.set(relay(w.Bravo.DX+":26", nil)) },
	},
	{
		name: "inner-forward-reinjection", does: "bravo's mail server sends what was delivered on to a domain without DIME, as a .forward file makes it do",
		policy: "experimental", because: "5.7.1", outcome: refused, end: "returned by DMTP", scenario: forwardKeepingSender,
	},
	{
		name: "inner-forward-rewritten", does: "the same, and the mail server makes the recipient the sender, as mailing lists do",
		policy: "experimental", because: "refused for good", outcome: bounced, end: "bounced 5.7.10", scenario: forwardRewritten,
	},
}

// leakControls show that the test would see a leak, and that mail flows where nobody interferes.
var leakControls = []leakCase{
	{
		name: controlDelivered, does: "nothing: the message arrives",
		policy: "experimental", outcome: delivered, scenario: nothingHappens,
	},
	{
		name: controlCanarySeen, does: "mail for a domain without DIME leaves in clear",
		policy: "experimental", outcome: delivered, scenario: clearMail,
	},
}

// attackRecord does something to every answer about bravo's record.
func attackRecord(do func(*dns.Msg) *dns.Msg) func(*leakWorld) (func() bool, error) {
	return func(w *leakWorld) (func() bool, error) {
		w.dns.attack(recordName, do)
		return w.dnsStruck, nil
	}
}

func (w *leakWorld) dnsStruck() bool { return w.dns.attacked() > 0 }

// caseTime bounds one case, and each wait in it.
const caseTime = 100 * time.Second

// one runs a case in a world of its own.
func (run *leakRun) one(ctx context.Context, c leakCase) leakResult {
	r := leakResult{Name: c.name, Does: c.does, Outcome: undecided, Expected: c.outcome, ExpectedEnd: c.end}
	ctx, cancel := context.WithTimeout(ctx, caseTime)
	defer cancel()
	w, err := newLeakWorld(ctx, run, c)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Canary = w.canary
	scenario := attacked
	if c.scenario != nil {
		scenario = c.scenario
	}
	err = scenario(ctx, w, &r)
	for _, host := range []string{w.front, w.trap, w.Alpha.DX, w.Bravo.DX} {
		r.WireOctets += run.capture.seen(host)
	}
	err = errors.Join(err, w.Close(), run.capture.sync(ctx, w.front))
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// attacked is how most cases go: all is well, the fault strikes, a message is sent, its outcome seen, then its end.
func attacked(ctx context.Context, w *leakWorld, r *leakResult) error {
	if err := w.startAlpha(ctx, w.c.clock); err != nil {
		return err
	}
	if w.c.prime {
		if err := w.primed(ctx); err != nil {
			return fmt.Errorf("before the fault: %w", err)
		}
	}
	known := len(w.foreign.received())
	struck, err := w.c.fault(w)
	if err != nil {
		return err
	}
	from := logSize(w.alpha)
	if err := submit(ctx, w.Alpha, w.sender(), w.recipient(), w.message(w.recipient())); err != nil {
		return err
	}
	e, err := decided(ctx, w.alpha, from, w.Bravo.Domain)
	if err != nil {
		return fmt.Errorf("no decision: %w", err)
	}
	r.Outcome, r.Reason, r.FaultStruck = outcomes[e.Message], e.Reason, struck() && strings.Contains(e.Reason, w.c.because)
	if r.Outcome == held {
		err = w.toItsEnd(ctx, r)
	}
	for _, m := range w.foreign.received()[known:] { // sealed perhaps, but to whom?
		r.Plaintext += len(m)
	}
	return err
}

// primed sends a message through, so that alpha knows bravo, and starts alpha's gateway anew: it forgets what it has
// cached, and keeps what it has pinned. Under the test's clock it goes on with its caches.
func (w *leakWorld) primed(ctx context.Context) error {
	from := logSize(w.alpha)
	if err := submit(ctx, w.Alpha, w.sender(), w.recipient(), w.message(w.recipient())); err != nil {
		return err
	}
	e, err := decided(ctx, w.alpha, from, w.Bravo.Domain, delivered, bounced)
	if err != nil {
		return fmt.Errorf("not delivered: %w", err)
	}
	if outcomes[e.Message] != delivered {
		return fmt.Errorf("bounced: %s", e.Reason)
	}
	if w.c.clock {
		return nil
	}
	return errors.Join(w.alpha.Stop(), w.startAlpha(ctx, false))
}

// toItsEnd shows how a held message ends: with the fault, when its time is over; or delivered, when the fault is gone.
func (w *leakWorld) toItsEnd(ctx context.Context, r *leakResult) error {
	if err := w.alpha.Stop(); err != nil {
		return err
	}
	from := logSize(w.alpha)
	if w.c.mend != nil {
		w.c.mend(w)
	} else if err := w.setClock(w.c.after); err != nil {
		return err
	}
	if err := w.startAlpha(ctx, w.c.mend == nil); err != nil {
		return err
	}
	e, err := decided(ctx, w.alpha, from, w.Bravo.Domain, delivered, bounced)
	if err != nil {
		return fmt.Errorf("still held: %w", err)
	}
	if r.End = outcomes[e.Message]; r.End == delivered {
		if n := len(w.inner.letters()); n != 1 {
			return fmt.Errorf("delivered %d times", n)
		}
		return nil
	}
	status, err := bounce(ctx, w.alphaIn)
	if err != nil {
		return fmt.Errorf("no notice came: %w", err)
	}
	r.End += " " + status
	return nil
}

// nothingHappens is the control in which the message arrives.
func nothingHappens(ctx context.Context, w *leakWorld, r *leakResult) error {
	if err := w.startAlpha(ctx, false); err != nil {
		return err
	}
	from := logSize(w.alpha)
	if err := submit(ctx, w.Alpha, w.sender(), w.recipient(), w.message(w.recipient())); err != nil {
		return err
	}
	e, err := decided(ctx, w.alpha, from, w.Bravo.Domain, delivered, bounced)
	if err != nil {
		return err
	}
	r.Outcome, r.Reason, r.FaultStruck = outcomes[e.Message], e.Reason, true // there is none
	return arrived(ctx, w.inner, 1)
}

// clearMail is the control in which the canary is seen. Where the gateway cannot be told to send mail in clear, the test
// sends it itself, over the same wire.
func clearMail(ctx context.Context, w *leakWorld, r *leakResult) error {
	r.FaultStruck = true // there is none
	if w.floor == "dime" {
		r.Reason = "the test: this version of the gateway sends no mail in clear"
		if err := sendTo(ctx, w.trap+":25", w.sender(), w.outsider(), w.message(w.outsider())); err != nil {
			return err
		}
	} else {
		if err := w.startAlpha(ctx, false); err != nil {
			return err
		}
		from := logSize(w.alpha)
		if err := submit(ctx, w.Alpha, w.sender(), w.outsider(), w.message(w.outsider())); err != nil {
			return err
		}
		e, err := decided(ctx, w.alpha, from, "plain.test", delivered, bounced)
		if err != nil {
			return err
		}
		r.Outcome, r.Reason = outcomes[e.Message], "the gateway: "+e.Reason
	}
	if err := arrived(ctx, w.trapped, 1); err != nil {
		return err
	}
	r.Outcome = delivered
	return nil
}

// forwardKeepingSender: the reverse-path stays the author's, who is not bravo's. What is refused goes back to him, as the
// mail server's own notice, and that is mail for a domain with DIME.
func forwardKeepingSender(ctx context.Context, w *leakWorld, r *leakResult) error {
	l, err := w.forwarded(ctx)
	if err != nil {
		return err
	}
	err = submit(ctx, w.Bravo, l.reversePath, w.outsider(), l.octets)
	reply, isReply := errors.AsType[*textproto.Error](err)
	if !isReply {
		return fmt.Errorf("forwarded mail: %w", err)
	}
	r.Outcome, r.Reason, r.FaultStruck = refused, reply.Error(), strings.Contains(reply.Msg, w.c.because)
	notice := "From: MAILER-DAEMON@bravo.test\r\nTo: " + l.reversePath + "\r\nSubject: Undelivered\r\n\r\n" + string(l.octets)
	from := logSize(w.bravo)
	if err := submit(ctx, w.Bravo, "", l.reversePath, []byte(notice)); err != nil {
		return err
	}
	e, err := decided(ctx, w.bravo, from, w.Alpha.Domain, delivered, bounced)
	if err == nil && outcomes[e.Message] == delivered {
		r.End = "returned by DMTP"
	}
	return err
}

// forwardRewritten: the gateway takes it, and its floor lets nothing out in clear.
func forwardRewritten(ctx context.Context, w *leakWorld, r *leakResult) error {
	l, err := w.forwarded(ctx)
	if err != nil {
		return err
	}
	from := logSize(w.bravo)
	if err := submit(ctx, w.Bravo, l.to[0], w.outsider(), l.octets); err != nil {
		return err
	}
	e, err := decided(ctx, w.bravo, from, "plain.test")
	if err != nil {
		return err
	}
	r.Outcome, r.Reason, r.FaultStruck = outcomes[e.Message], e.Reason, strings.Contains(e.Reason, w.c.because)
	status, err := bounce(ctx, w.inner)
	r.End = bounced + " " + status
	return err
}

// forwarded sends a message to bravo and returns it as bravo's mail server has it.
func (w *leakWorld) forwarded(ctx context.Context) (letter, error) {
	var r leakResult
	if err := nothingHappens(ctx, w, &r); err != nil {
		return letter{}, err
	}
	return w.inner.letters()[0], nil
}

package appliance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"dimegate/bridge/handoff"
	"dimegate/bridge/queue"
	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/submission"
	"dimegate/bridge/translate"
	"dimegate/internal/killpoint"
	"dimegate/vault"
	"dimegate/vault/archive"
)

// acceptor puts what the inner mail servers send into the queue of its tenant.
type acceptor struct {
	tenants tenants
	scanner *scanner.Scanner // nil: nobody looks
	journal *journalist
}

// bodies and returns are RFC 6152's, 3030's and 3461's keywords; what was not said is the zero value.
var (
	bodies  = map[string]queue.BodyType{"8BITMIME": queue.Body8BitMIME, "BINARYMIME": queue.BodyBinaryMIME}
	returns = map[string]queue.Return{"HDRS": queue.ReturnHeaders, "FULL": queue.ReturnFull}
	notices = map[string]queue.Notify{
		"NEVER": queue.NotifyNever, "SUCCESS": queue.NotifySuccess, "FAILURE": queue.NotifyFailure, "DELAY": queue.NotifyDelay,
	}
)

func (a acceptor) Accept(ctx context.Context, env submission.Envelope, body io.Reader) error {
	e := queue.Envelope{
		ReversePath: env.From, SMTPUTF8: env.UTF8, RequireTLS: env.Require, EnvelopeID: env.EnvID, Peer: smtpwire.AddrText(env.Client.Addr()),
		Body: bodies[strings.ToUpper(env.Body)], Return: returns[strings.ToUpper(env.Ret)],
	}
	for _, to := range env.To {
		r := queue.Recipient{Address: to.Address, Original: to.Orcpt}
		for _, n := range to.Notify {
			r.Notify |= notices[strings.ToUpper(n)]
		}
		e.Recipients = append(e.Recipients, r)
	}
	err := a.route(ctx, env, e, body)
	switch {
	case errors.Is(err, queue.ErrFull), errors.Is(err, vault.ErrFull):
		return errors.Join(submission.ErrFull, err)
	case errors.Is(err, queue.ErrEnvelope):
		return errors.Join(submission.ErrContent, err)
	case errors.Is(err, archive.ErrNoKey):
		return errors.Join(submission.ErrArchive, err)
	}
	return err
}

// route gives a message to the queue of its tenant, and what is for the journal to the archive, before it goes to anyone else.
func (a acceptor) route(ctx context.Context, env submission.Envelope, e queue.Envelope, body io.Reader) error {
	if slices.ContainsFunc(env.To, func(r submission.Recipient) bool { return a.journal.is(r.Address) }) {
		octets, done, err := a.journal.read(ctx, body)
		if err != nil {
			return err
		}
		defer done()
		if err := a.journal.archive(ctx, env, octets); err != nil {
			return err
		}
		env.To = slices.DeleteFunc(slices.Clone(env.To), func(r submission.Recipient) bool { return a.journal.is(r.Address) })
		e.Recipients = slices.DeleteFunc(e.Recipients, func(r queue.Recipient) bool { return a.journal.is(r.Address) })
		if len(env.To) == 0 {
			return nil
		}
		body = bytes.NewReader(octets)
	}
	t, body, err := a.tenants.sender(env, body)
	if err != nil {
		return err
	}
	return a.accept(ctx, t, env, e, body)
}

// notifier hands notices to the sender's own mail server, with the null reverse-path. A stranger's, whose mail was forwarded on,
// go out as other mail does.
type notifier struct {
	inner inner
	loops *handoff.LoopGuard
	queue *queue.Queue
}

func (n notifier) Notify(ctx context.Context, m queue.Mail) error {
	s, err := n.inner.Server(domainOf(m.To))
	if err != nil {
		return n.send(ctx, m)
	}
	give := func(utf8 bool, octets []byte) error {
		top := n.loops.Mark(translate.Split(octets), m.To)
		return s.Deliver(ctx, handoff.Delivery{To: m.To, UTF8: utf8, Top: top, Message: smtpwire.Octets(octets)})
	}
	err = give(m.SMTPUTF8, m.Octets)
	if refused(err) && m.Fallback != nil {
		err = give(false, m.Fallback)
	}
	if err == nil {
		killpoint.Here(killpoint.NoticeAfter, nil)
	}
	if refused(err) {
		return errors.Join(queue.ErrRefused, err)
	}
	return err
}

// send puts a notice into the queue. There is none about it: its reverse-path is the null one.
func (n notifier) send(ctx context.Context, m queue.Mail) error {
	e := queue.Envelope{SMTPUTF8: m.SMTPUTF8, Body: queue.Body8BitMIME, Recipients: []queue.Recipient{{Address: m.To}}}
	octets := m.Octets
	if m.Fallback != nil { // it is not known yet what the other server takes
		octets, e.SMTPUTF8, e.Body = m.Fallback, false, 0
	}
	_, err := n.queue.Accept(ctx, e, bytes.NewReader(octets))
	if errors.Is(err, queue.ErrEnvelope) {
		return errors.Join(queue.ErrRefused, err)
	}
	return err
}

// refused tells a refusal for good, by the server or because it does not offer what the message needs.
func refused(err error) bool {
	e, ok := errors.AsType[*smtpwire.Error](err)
	return ok && !e.Temporary()
}

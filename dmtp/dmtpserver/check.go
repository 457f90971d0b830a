package dmtpserver

import (
	"context"
	"crypto/sha512"
	"errors"
	"log/slog"

	"dimegate/dmtp"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// replies is the one place where errors become the origin's answer, dmtp.md §9.4 and §9.5; first match wins. What is not here
// is a temporary local error: the origin keeps the message.
var replies = []struct {
	err   error
	reply dmtp.Reply
}{
	{ErrInFlight, dmtp.ReplyInFlight},
	{ErrDeferred, dmtp.ReplyDeferred},
	{ErrLimits, dmtp.ReplyDestinationLimits},
	{ErrNoRoom, dmtp.ReplyDestinationLimits},
	{ErrOriginUnavailable, dmtp.ReplyOriginDoubtful},
	{ErrOriginGone, dmtp.ReplyOriginGone},
	{ErrOriginUnknown, dmtp.ReplyBadOrigin},
	{ErrRecipient, dmtp.ReplyNoRecipient},
	{ErrRecipientSignet, dmtp.ReplyBadRecipient},
	{ErrAuthorSignature, dmtp.ReplyBadAuthor},
	{ErrMessage, dmtp.ReplyBadMessage},
	{ErrRefused, dmtp.ReplyRefused},
	{errCorrupted, dmtp.ReplyCorrupted},
	{errDestinationSignet, dmtp.ReplyBadDestination},
	{errOriginDomain, dmtp.ReplyBadOrigin},
	{errOriginSignature, dmtp.ReplyBadSignature},
}

// What only the server itself finds.
var (
	errCorrupted         = errors.New("dmtpserver: not the octets of the commit value")
	errDestinationSignet = errors.New("dmtpserver: none of our keys opens it")
	errOriginDomain      = errors.New("dmtpserver: the origin is not the domain of MAIL")
	errOriginSignature   = errors.New("dmtpserver: origin signature missing or invalid")
)

func replyFor(err error) dmtp.Reply {
	for _, r := range replies {
		if errors.Is(err, r.err) {
			return r.reply
		}
	}
	return dmtp.ReplyInternal
}

// check passes the message through dmtp.md §9.4, and hands it over if it holds.
func (t *transfer) check(ctx context.Context) (dmtp.Reply, step) {
	b, err := t.buf.Bytes()
	if err != nil {
		t.ss.s.c.Log.LogAttrs(ctx, slog.LevelError, "dmtp buffer", slog.Any("error", err))
		return dmtp.ReplyInternal, outOfStep
	}
	next := inStep
	if n, whole, ok := wireLength(b); !ok || !whole || n != uint64(len(b)) {
		next = outOfStep // SIZE and header disagree: what follows may be message
	}
	commit := sha512.Sum512(b)
	err = t.accept(ctx, b, commit)
	switch {
	case err == nil:
		return dmtp.Reply{Code: 254, Text: "OK [" + string(dmtp.TokenOf(commit)) + "]"}, next
	case errors.Is(err, ErrDuplicate):
		return dmtp.Reply{Code: 255, Text: "OK [" + string(dmtp.TokenOf(commit)) + "]"}, next
	}
	reply := replyFor(err)
	level := slog.LevelInfo
	if reply == dmtp.ReplyInternal {
		level = slog.LevelError
	}
	t.ss.s.c.Log.LogAttrs(ctx, level, "dmtp message refused", slog.String("origin", t.mail.Origin), slog.String("destination", t.rcpt.Destination), slog.Int("code", reply.Code), slog.Any("error", err))
	return reply, next
}

// accept is checks 1 to 8, in this order, and the Deliverer.
func (t *transfer) accept(ctx context.Context, b []byte, commit [64]byte) error {
	s := t.ss.s
	if t.commit.WellFormed() && t.commit != dmtp.TokenOf(commit) {
		return errCorrupted
	}
	m, err := message.Parse(b, message.Limits{Total: int64(s.c.Limits.Message)})
	if err != nil {
		return errors.Join(ErrMessage, err)
	}
	in := &Incoming{Peer: t.ss.v.addr, Origin: t.mail.Origin, Destination: t.rcpt.Destination, Message: m, ID: m.ID(), Commit: commit, MayAsk: t.ss.v.mayAsk}
	if err := t.recorded(ctx, in); err != nil {
		return err
	}
	opened, err := t.open(in)
	if err != nil {
		return err
	}
	if err := t.proveOrigin(ctx, in, opened); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeouts.Deliver)
	defer cancel()
	return s.c.Deliverer.Deliver(ctx, in)
}

// recorded is check 3: what became of this message before. An accepted one is ErrDuplicate, a refused one is refused again.
func (t *transfer) recorded(ctx context.Context, in *Incoming) error {
	ctx, cancel := context.WithTimeout(ctx, t.ss.s.c.Timeouts.Lookup)
	defer cancel()
	o, err := t.ss.s.c.Outcomes.Message(ctx, in.Destination, in.Origin, in.ID)
	switch {
	case err != nil:
		return err
	case o.State == Accepted:
		return ErrDuplicate
	case o.State == InFlight:
		return ErrInFlight
	case o.State == Refused && o.Refusal == nil:
		return ErrRefused
	case o.State == Refused:
		return o.Refusal
	}
	return nil
}

// open is checks 4 and 5: one of our keys opens chunk 5, the origin in it is the domain of MAIL.
func (t *transfer) open(in *Incoming) (*message.Opened, error) {
	for _, k := range t.org.Keys {
		opened, err := in.Message.Open(message.Destination, k.Key)
		if err != nil {
			continue // not this one
		}
		chunk, err := opened.Destination()
		if err != nil {
			return nil, err
		}
		origin, err := dmtp.Domain(chunk.Origin)
		if err != nil || origin != in.Origin {
			return nil, errOriginDomain
		}
		in.DestinationSignet, in.RecipientSignet = k.Signet, chunk.RecipientSignet
		return opened, nil
	}
	return nil, errDestinationSignet
}

// proveOrigin is checks 6 and 7, and of 8 what can be seen here: the origin's signatures by the signet that the author named,
// and that the recipient is of the domain that RCPT said.
func (t *transfer) proveOrigin(ctx context.Context, in *Incoming, opened *message.Opened) error {
	chunk, err := opened.Destination()
	if err != nil {
		return err
	}
	if in.OriginSignet, err = t.originSignet(ctx, in.Destination, in.Origin, chunk.OriginSignet); err != nil {
		return err
	}
	err = opened.Verify(message.Parties{
		Origin:      message.Party{Name: in.Origin, Signet: in.OriginSignet},
		Destination: message.Party{Name: in.Destination, Signet: in.DestinationSignet},
		Governs:     func(_, domain string) bool { return t.org.Governs != nil && t.org.Governs(domain) },
	})
	if errors.Is(err, message.EnvelopeMismatch) || errors.Is(err, message.BadEnvelope) {
		return errors.Join(ErrRecipient, err) // the origin's name has been compared
	}
	if err != nil {
		return errors.Join(errOriginSignature, err)
	}
	if in.Recipient, err = dmtp.Address(chunk.Recipient); err != nil {
		return errors.Join(ErrRecipient, err)
	}
	return nil
}

func (t *transfer) originSignet(ctx context.Context, destination, domain string, fp signet.Fingerprint) (*signet.Signet, error) {
	ctx, cancel := context.WithTimeout(ctx, t.ss.s.c.Timeouts.Origin)
	defer cancel()
	org, err := t.ss.s.c.Origins.OriginSignet(ctx, destination, domain, fp, t.ss.v.mayAsk)
	if err != nil {
		for _, known := range [...]error{ErrOriginGone, ErrOriginUnknown} {
			if errors.Is(err, known) {
				return nil, err
			}
		}
		return nil, errors.Join(ErrOriginUnavailable, err)
	}
	if got, err := org.Fingerprint(signet.Crypto); err != nil || got != fp || org.Name() != "" && !signet.SameName(org.Name(), domain) {
		return nil, ErrOriginUnknown
	}
	return org, nil
}

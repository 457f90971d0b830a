package scanner

import (
	"context"
	"errors"
	"io"
	"net"

	"dimegate/bridge/handoff"
	"dimegate/bridge/smtpwire"
)

// A filterEngine is an SMTP server that judges: what it says to a message is the verdict, and it must not deliver it. Sessions are
// kept for the next message.
type filterEngine struct {
	inner *handoff.Inner
	max   int64
}

// maxSessions bounds the sessions of one scanner, well above what all listeners together have.
const maxSessions = 1000

func newFilter(a Address, c Config) *filterEngine {
	t := smtpwire.Timeouts{Banner: c.Timeout, Command: c.Timeout, Data: c.Timeout, Block: c.Timeout, Verdict: c.Timeout}
	return &filterEngine{max: c.MaxOctets, inner: handoff.New(handoff.Config{
		Address: a.Address, Name: c.Name, TLS: handoff.TLSOff, MaxSessions: maxSessions, Timeouts: t, // on this machine: appliance/config sees to it
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: c.Timeout}).DialContext(ctx, a.Network, a.Address)
		},
	})}
}

func (f *filterEngine) close() error { return f.inner.Close() }

func (f *filterEngine) check(ctx context.Context) error {
	tx, err := f.inner.Begin(ctx, smtpwire.Transaction{}, smtpwire.Facts{})
	if err == nil {
		tx.End(ctx)
	}
	return err
}

func (f *filterEngine) scan(ctx context.Context, e Envelope, r io.Reader) error {
	who := smtpwire.Caller{Addr: e.Client, Hello: e.Hello, Login: e.User, Proto: "ESMTP"} // told if the filter offers XCLIENT or XFORWARD
	tx, err := f.inner.Begin(ctx, smtpwire.Transaction{From: e.From, UTF8: e.UTF8, Caller: who}, smtpwire.Facts{})
	if err != nil {
		return filterVerdict(err)
	}
	defer tx.End(ctx)
	for _, to := range e.To {
		if err := tx.Recipient(ctx, to); err != nil {
			return filterVerdict(err)
		}
	}
	// A line end that is none would let the filter see another message than ours.
	_, err = tx.Stream(ctx, smtpwire.NewLineReader(r, f.max, false))
	return filterVerdict(err)
}

// filterVerdict is what a filter's answer means. What it cannot be asked is no verdict.
func filterVerdict(err error) error {
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, smtpwire.ErrBareEnd), errors.Is(err, smtpwire.ErrLongLine):
		return errors.Join(ErrRejected, err)
	case isReply && refused.Code/100 == 5 && !refused.Local:
		return ErrRejected
	}
	return unavailable(err)
}

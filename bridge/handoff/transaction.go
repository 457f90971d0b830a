package handoff

import (
	"context"
	"errors"
	"io"

	"dimegate/bridge/smtpwire"
)

// A Transaction is a message that is passed on while it comes in, command by command. It holds one of the inner server's
// sessions until End, which must be called. It is for one goroutine.
type Transaction struct {
	inner *Inner
	s     *session
	fresh bool // the server holds nothing of a transaction
	dead  bool // the session is of no more use
}

// Begin says MAIL. What cannot be known before the message has come is taken from f as smtpwire.Client's Mail does; when the
// server offers 8BITMIME it is asked for. The server is told who the client is, t.Caller, as Config.Client says, and judges him
// in our place; what it says to that is an *smtpwire.Error like the others. A kept session that has died meanwhile is replaced by a new one, once. Errors as of
// Deliver.
func (h *Inner) Begin(ctx context.Context, t smtpwire.Transaction, f smtpwire.Facts) (*Transaction, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		s, err := h.session(ctx, t.Caller)
		if err != nil {
			<-h.slots
			return nil, err
		}
		tx := &Transaction{inner: h, s: s}
		kept := s.messages > 0
		s.messages++
		if _, ok := s.Offers("8BITMIME"); ok {
			f.EightBit = true
		}
		err = tx.judge(ctx, h.present(ctx, s, t.Caller))
		if err == nil {
			err = tx.judge(ctx, s.Mail(ctx, t, f))
		}
		if err == nil {
			return tx, nil
		}
		if kept && tx.dead && ctx.Err() == nil { // it died while it was kept
			s.Close()
			continue
		}
		tx.End(ctx)
		return nil, err
	}
}

// EightBit tells whether octets above 127 may be in the message.
func (tx *Transaction) EightBit() bool { _, ok := tx.s.Offers("8BITMIME"); return ok }

// Recipient adds one. A *smtpwire.Error is about this one only.
func (tx *Transaction) Recipient(ctx context.Context, to string) error {
	if tx.dead {
		return ErrUnavailable
	}
	return tx.judge(ctx, tx.s.Recipient(ctx, to))
}

// Noop keeps the server from giving up a transaction whose message is still coming in.
func (tx *Transaction) Noop(ctx context.Context) error {
	if tx.dead {
		return ErrUnavailable
	}
	return tx.judge(ctx, tx.s.Noop(ctx))
}

// Stream sends the message while it is read and returns the server's verdict, which ends the transaction. Errors: those of
// Deliver, and *smtpwire.ReadError.
func (tx *Transaction) Stream(ctx context.Context, r io.Reader) (smtpwire.Reply, error) {
	if tx.dead {
		return smtpwire.Reply{}, ErrUnavailable
	}
	verdict, err := tx.s.Stream(ctx, r)
	tx.fresh = err == nil
	return verdict, tx.judge(ctx, err)
}

// judge notes what an error means for the session, and gives it the names of Deliver's.
func (tx *Transaction) judge(ctx context.Context, err error) error {
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	switch {
	case err == nil, isReply && refused.Local:
		return err
	case isReply && refused.Code == 530: // it wants a password: ours to mend, not the sender's
		return unavailable(err)
	case isReply && refused.Code/10 == 50 && early(refused): // as is a syntax that it does not know
		tx.dead = true
		return unavailable(err)
	case isReply:
		tx.dead = tx.dead || refused.Code == 421 || early(refused)
		return err
	}
	tx.dead = true
	if _, ours := errors.AsType[*smtpwire.ReadError](err); ours || ctx.Err() != nil || errors.Is(err, smtpwire.ErrUncertain) {
		return err
	}
	return unavailable(err)
}

// End takes back what was begun and gives the session away.
func (tx *Transaction) End(ctx context.Context) {
	defer func() { <-tx.inner.slots }()
	if tx.dead || !tx.fresh && tx.s.Reset(ctx) != nil {
		tx.s.Close()
		return
	}
	tx.inner.keep(tx.s)
}

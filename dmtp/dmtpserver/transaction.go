package dmtpserver

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"dimegate/dmtp"
)

// mailFrom opens a transaction, and ends one that is open whatever its reply. The fingerprint is not used: the message says
// which signet its origin signed with.
func (ss *session) mailFrom(ctx context.Context, c dmtp.Mail) error {
	if ss.state == connected {
		return ss.answer(ctx, dmtp.ReplyNeedHello)
	}
	ss.reset()
	if ss.transactions >= ss.s.c.Limits.Transactions {
		return ss.answer(ctx, dmtp.ReplyEnough)
	}
	if c.HasSize && c.Size > ss.s.c.Limits.Message {
		return ss.answer(ctx, dmtp.ReplyTooLarge)
	}
	ss.transactions++
	ss.mail, ss.state = c, mailed
	return ss.answer(ctx, dmtp.ReplyOK)
}

// rcptTo takes the one destination of a transaction: a domain of ours, and if it is told which of our signets the message
// was encrypted to, one whose key we still have.
func (ss *session) rcptTo(ctx context.Context, c dmtp.Rcpt) dmtp.Reply {
	switch ss.state {
	case connected:
		return dmtp.ReplyNeedHello
	case greeted:
		return dmtp.ReplyNeedMail
	case rcpted:
		return dmtp.ReplyOneRcpt
	}
	ctx, cancel := context.WithTimeout(ctx, ss.s.c.Timeouts.Lookup)
	defer cancel()
	org, err := ss.s.c.Domains.Organization(ctx, c.Destination)
	if errors.Is(err, ErrNotFound) {
		return dmtp.ReplyRelay
	}
	if err != nil {
		ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp domain", slog.String("domain", c.Destination), slog.Any("error", err))
		return dmtp.ReplyInternal
	}
	if c.Signet.WellFormed() && !org.shows(c.Signet) {
		return dmtp.ReplyBadDestination
	}
	ss.rcpt, ss.org, ss.state = c, org, rcpted
	return dmtp.ReplyOK
}

// shows tells whether a fingerprint is one of a signet whose key is still held.
func (o *Organization) shows(t dmtp.Token) bool {
	for _, k := range o.Keys {
		if i, _ := find(append(slices.Clip(k.Past), k.Signet), t); i >= 0 {
			return true
		}
	}
	return false
}

// data takes the message. Whatever becomes of it, the transaction is over.
func (ss *session) data(ctx context.Context, c dmtp.Data) error {
	switch ss.state {
	case connected:
		return ss.refuseData(ctx, dmtp.ReplyNeedHello)
	case greeted:
		return ss.refuseData(ctx, dmtp.ReplyNeedMail)
	case mailed:
		return ss.refuseData(ctx, dmtp.ReplyNeedRcpt)
	}
	if reply, known := ss.known(ctx, c.Commit); known {
		return ss.refuseData(ctx, reply)
	}
	bracket := c.Commit
	if !bracket.WellFormed() {
		bracket = randomBracket()
	}
	if err := ss.say(dmtp.Reply{Code: 354, Text: "CONTINUE [" + string(bracket) + "]"}); err != nil {
		return err
	}
	began := time.Now()
	t := &transfer{ss: ss, mail: ss.mail, rcpt: ss.rcpt, org: ss.org, commit: c.Commit}
	ss.reset()
	reply, out := t.receive(ctx)
	defer t.release()
	if out == gone {
		return errBye
	}
	if reply.Code == 0 {
		reply, out = t.check(ctx)
	}
	ss.afterData = true
	ss.s.c.Log.LogAttrs(ctx, slog.LevelInfo, "dmtp message", slog.String("peer", ss.v.prefix.String()), slog.String("origin", t.mail.Origin),
		slog.String("destination", t.rcpt.Destination), slog.Int("octets", t.octets), slog.Int("code", reply.Code), slog.Duration("took", time.Since(began)))
	if out == outOfStep {
		ss.say(reply)
		ss.linger(ctx)
		return errBye
	}
	return ss.answer(ctx, reply)
}

// known answers DATA for a message that was accepted before: its octets need not be sent. Only a real commit value can match.
func (ss *session) known(ctx context.Context, commit dmtp.Token) (dmtp.Reply, bool) {
	value, ok := commit.Octets()
	if !ok {
		return dmtp.Reply{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, ss.s.c.Timeouts.Lookup)
	defer cancel()
	accepted, err := ss.s.c.Outcomes.Accepted(ctx, ss.rcpt.Destination, ss.mail.Origin, value)
	if err != nil { // the same is asked again behind the message
		ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp outcomes", slog.Any("error", err))
	}
	return dmtp.Reply{Code: 255, Text: "OK [" + string(commit) + "]"}, err == nil && accepted
}

// refuseData answers DATA with something else than 354. Octets that are already there are the message of a client that did
// not wait, or commands: nobody can tell, so the session ends.
func (ss *session) refuseData(ctx context.Context, r dmtp.Reply) error {
	if ss.state == rcpted {
		ss.reset()
	}
	if ss.pending(ctx) {
		ss.say(r)
		ss.linger(ctx)
		return errBye
	}
	return ss.answer(ctx, r)
}

// pending tells whether octets have arrived that nobody has read, in our buffer or behind it.
func (ss *session) pending(ctx context.Context) bool {
	if ss.br.Buffered() > 0 {
		return true
	}
	ss.until(ctx, time.Now().Add(2*time.Millisecond))
	_, err := ss.br.Peek(1)
	return err == nil
}

func randomBracket() dmtp.Token {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return dmtp.Token(base64.RawStdEncoding.EncodeToString(b[:]))
}

// An outcome of a transfer for the session.
type step uint8

const (
	inStep    step = iota // the message has been read to its end
	outOfStep             // what follows may be message: reply and close
	gone                  // the client has gone
)

// A transfer is one message from 354 to its reply.
type transfer struct {
	ss     *session
	mail   dmtp.Mail
	rcpt   dmtp.Rcpt
	org    *Organization
	commit dmtp.Token

	buf    Buffer
	octets int
	held   int       // octets of the prefix's share
	end    time.Time // of the whole transfer
}

func (t *transfer) release() {
	if t.buf != nil {
		t.buf.Release()
	}
	t.ss.v.drop(t.held)
	t.held = 0
}

// slowest is the rate below which a message is given up, octets a second, after a first ten minutes: each block may take
// Timeouts.Block, but not for ever.
const slowest = 16 << 10

// receive reads SIZE octets, or without SIZE as many as the message's own header says. A reply code of 0 in step means that it
// is all there.
func (t *transfer) receive(ctx context.Context) (dmtp.Reply, step) {
	limit := t.ss.s.c.Limits.Message
	n := t.mail.Size
	if !t.mail.HasSize {
		n = limit
	}
	t.end = time.Now().Add(10*time.Minute + time.Duration(n/slowest)*time.Second)
	buf, err := t.ss.s.c.Buffers.New(n)
	if err != nil {
		t.ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp buffer", slog.Any("error", err))
		return dmtp.ReplyDestinationLimits, outOfStep
	}
	t.buf = buf
	if t.mail.HasSize {
		return t.take(ctx, n)
	}
	return t.takeByHeader(ctx, limit)
}

// take reads n octets into the buffer. When they do not fit they are read all the same, so that the client hears why; but the
// session is over, for nobody can look whether its SIZE was true.
func (t *transfer) take(ctx context.Context, n uint64) (dmtp.Reply, step) {
	var room error
	chunk := make([]byte, min(n, 2*maxRecord))
	for n > 0 {
		t.ss.until(ctx, earlier(time.Now().Add(t.ss.s.c.Timeouts.Block), t.end))
		got, err := t.ss.br.Read(chunk[:min(n, uint64(len(chunk)))])
		n -= uint64(got)
		t.octets += got
		if got > 0 && room == nil {
			room = t.keep(chunk[:got])
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				return dmtp.ReplyDataTimeout, outOfStep
			}
			return dmtp.Reply{}, gone
		}
	}
	if errors.Is(room, ErrNoRoom) {
		return dmtp.ReplyDestinationLimits, outOfStep
	}
	if room != nil {
		t.ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp buffer", slog.Any("error", room))
		return dmtp.ReplyInternal, outOfStep
	}
	return dmtp.Reply{}, inStep
}

// keep puts octets into the buffer, if there is room for them.
func (t *transfer) keep(p []byte) error {
	if !t.ss.v.hold(len(p)) {
		return ErrNoRoom
	}
	t.held += len(p)
	_, err := t.buf.Write(p)
	return err
}

// The numbers that begin a message, and its tracing block: dmtp.md §9.3.
const (
	tracingNumber = 1837
	messageNumber = 1847
)

// takeByHeader reads a message that says itself where it ends.
func (t *transfer) takeByHeader(ctx context.Context, limit uint64) (dmtp.Reply, step) {
	for {
		head, err := t.buf.Bytes()
		if err != nil { // nothing is mapped yet
			return dmtp.ReplyInternal, outOfStep
		}
		n, whole, ok := wireLength(head)
		if !ok {
			return dmtp.ReplyBadMessage, outOfStep
		}
		if n > limit {
			return dmtp.ReplyTooLarge, outOfStep
		}
		if reply, step := t.take(ctx, n-uint64(len(head))); reply.Code != 0 || step != inStep {
			return reply, step
		}
		if whole {
			return dmtp.Reply{}, inStep
		}
	}
}

// wireLength tells the length of a message from its first octets: whole when they suffice, else how many are needed to know
// more. It is not ok when they begin no message.
func wireLength(b []byte) (n uint64, whole, ok bool) {
	start := 0
	if len(b) >= 2 && binary.BigEndian.Uint16(b) == tracingNumber {
		if len(b) < 4 {
			return 4, false, true
		}
		if start = 4 + int(binary.BigEndian.Uint16(b[2:])); start == 4 {
			return 0, false, false
		}
	}
	if len(b) < start+2 {
		return uint64(start + 2), false, true
	}
	if binary.BigEndian.Uint16(b[start:]) != messageNumber {
		return 0, false, false
	}
	if len(b) < start+6 {
		return uint64(start + 6), false, true
	}
	return uint64(start) + 6 + uint64(binary.BigEndian.Uint32(b[start+2:])), true, true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

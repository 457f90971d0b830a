package translate

import (
	"errors"
	"fmt"
	"time"

	"dimegate/dmtp/message"
)

// Bounds of what a D/MIME message can hold.
const (
	MaxHeader = 1 << 20 // octets of data in chunk 33, and in chunk 34

	maxChunks   = 1024 // in one message (dmime.md §15.3)
	otherChunks = 10   // those that are not content: 2, 4, 5, 33, 34, 225, 226, 248, 249, 255
	maxObjects  = maxChunks - otherChunks
)

// ErrNeedsMulti means that the message fits into D/MIME but not into what libdime reads, and that not all of recipient,
// destination and origin advertise dmime-multi: too large for this peer.
var ErrNeedsMulti = errors.New("translate: a part is too large for a peer without dmime-multi")

// ErrAddress means that the author or the reverse-path cannot be written into a D/MIME message.
var ErrAddress = errors.New("translate: not an address that D/MIME can carry")

// An Envelope is what a message needs beside its octets.
type Envelope struct {
	Author string    // the envelope author's address; stands in for an absent From
	Now    time.Time // submission; stands in for an absent Date
	Return string    // reverse-path: "" none, NullPath, or an address of the origin's domain
	// MultiOK tells that recipient, destination and origin all advertise dmime-multi: any number of parts, of any size.
	// Otherwise the body is at most one display and one attachment chunk, which is all that libdime reads (dmime.md §11).
	MultiOK bool
}

// Import makes the content of a D/MIME message from one RFC 5322 message in its CRLF wire form. Display and Attach are
// slices of raw, which must stay unchanged for as long as the content is used; the header block is copied.
// Errors: ErrAddress, ErrNeedsMulti, and *message.Error of class TooLarge.
func Import(env Envelope, raw []byte) (*message.Content, error) {
	return ImportMessage(env, Split(raw))
}

// ImportMessage is Import of a message that has been split already: what Prepare gives.
func ImportMessage(env Envelope, m Message) (*message.Content, error) {
	if env.Return != "" && env.Return != NullPath && !validPath(env.Return) {
		return nil, fmt.Errorf("%w: the reverse-path", ErrAddress)
	}
	if !validPath(env.Author) {
		return nil, fmt.Errorf("%w: the author", ErrAddress)
	}
	head := derive(m.Header)
	head.synthesize(env.Author, env.Now)

	c := &message.Content{Common: head.encode()}
	b := body{multi: env.MultiOK, left: maxObjects}
	if err := b.cut(m); err != nil {
		return nil, err
	}
	c.Display, c.Attach = b.display, b.attach
	l := layout{body: m.Separator, path: env.Return}
	c.Other = append(l.append(make([]byte, 0, len(m.Header)+512), b.hints), m.Header...)
	if len(c.Other) > MaxHeader && b.hints != nil { // they are the first to go
		c.Other = append(l.append(c.Other[:0], nil), m.Header...)
	}

	if len(c.Common) > MaxHeader {
		return nil, fail(message.TooLarge, message.TypeCommon, "header values over the limit")
	}
	if len(c.Other) > MaxHeader {
		return nil, fail(message.TooLarge, message.TypeOther, "header block over the limit")
	}
	return c, nil
}

// body is a message body on its way into chunks.
type body struct {
	multi           bool
	left            int // chunks that may still be made
	display, attach []message.Part
	hints           []hint
}

func (b *body) cut(m Message) error {
	from, n := 0, 0
	for at, end := range cuts(m) {
		n++
		if len(b.hints) < maxHints {
			b.hints = append(b.hints, describe(n, m.Body[at:end]))
		}
		switch rest := pieces(len(m.Body) - at); {
		case n == 1:
			if err := b.add(&b.display, m.Body[:at:at]); err != nil {
				return err
			}
		case !b.multi || pieces(at-from)+rest > b.left:
			continue // one attachment chunk takes them all, or the chunks that are left
		default:
			if err := b.add(&b.attach, m.Body[from:at:at]); err != nil {
				return err
			}
		}
		from = at
	}
	if n == 0 {
		return b.add(&b.display, m.Body)
	}
	return b.add(&b.attach, m.Body[from:])
}

// add appends one object: one chunk, or with dmime-multi as many as it needs.
func (b *body) add(to *[]message.Part, data []byte) error {
	if len(data) > message.MaxData && !b.multi {
		return ErrNeedsMulti
	}
	if pieces(len(data)) > b.left {
		return fail(message.TooLarge, 0, "more chunks than a message may have")
	}
	for len(data) > 0 {
		n := min(len(data), message.MaxData)
		part := message.Part{Data: data[:n:n]}
		if data = data[n:]; len(data) > 0 {
			part.Flags = message.FlagContinues
		}
		*to = append(*to, part)
		b.left--
	}
	return nil
}

func pieces(n int) int { return (n + message.MaxData - 1) / message.MaxData }

package queue

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// A BodyType is RFC 6152's and RFC 3030's BODY parameter.
type BodyType uint8

const (
	Body7Bit BodyType = iota // also when it is not given
	Body8BitMIME
	BodyBinaryMIME
)

// A Return is RFC 3461's RET parameter. By default a notice returns the header alone.
type Return uint8

const (
	ReturnDefault Return = iota
	ReturnHeaders
	ReturnFull
)

// Notify is RFC 3461's NOTIFY parameter; 0 when it was not given.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota // alone
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// An Envelope is what came with a message (RFC 5321 §3.3), with the parameters of DSN (RFC 3461) decoded from xtext.
type Envelope struct {
	Received    time.Time // set by Accept
	ReversePath string    // without brackets; "" is the null reverse-path
	Recipients  []Recipient
	Body        BodyType
	SMTPUTF8    bool
	RequireTLS  bool // RFC 8689
	Return      Return
	EnvelopeID  string // ENVID
	Peer        string // who handed it in: address or name, for the archive
}

// A Recipient is one RCPT.
type Recipient struct {
	Address  string // local-part@domain, as given
	Notify   Notify
	Original string // ORCPT: type;address
}

// Bounds of an envelope: what RFC 5321 and 3461 allow, with room.
const (
	maxPath       = 1024
	maxRecipients = 10_000
)

// check refuses what cannot be kept or would break a notice.
func (e *Envelope) check() error {
	if len(e.Recipients) == 0 || len(e.Recipients) > maxRecipients {
		return fmt.Errorf("%w: 1 to %d recipients", ErrEnvelope, maxRecipients)
	}
	if !clean(e.ReversePath) || !clean(e.EnvelopeID) || !clean(e.Peer) {
		return fmt.Errorf("%w: reverse-path, ENVID or peer is too long or has control characters", ErrEnvelope)
	}
	for _, r := range e.Recipients {
		if d := domainOf(r.Address); !clean(r.Address) || d == "" || len(d) > 255 || !clean(r.Original) {
			return fmt.Errorf("%w: recipient without a domain, too long or with control characters", ErrEnvelope)
		}
		if r.Notify&NotifyNever != 0 && r.Notify != NotifyNever {
			return fmt.Errorf("%w: NOTIFY=NEVER stands alone", ErrEnvelope)
		}
	}
	return nil
}

// clean reports whether s fits a header line of a notice.
func clean(s string) bool {
	return len(s) <= maxPath && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// domainOf is what follows the last "@", in lower case; ASCII alone changes.
func domainOf(address string) string {
	_, domain, ok := cutLast(address, "@")
	if !ok {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, domain)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// The stored envelope, which the intake leaf commits to: "DEV1" ‖ received u64 in Unix milliseconds ‖ flags u8 (1 SMTPUTF8, 2 REQUIRETLS) ‖
// body u8 ‖ return u8 ‖ reverse-path, envelope id, peer ‖ count u16 ‖ recipients. A recipient: address ‖ notify u8 ‖
// original. Strings have their length before them, u16.
const envelopeMagic = "DEV1"

func (e *Envelope) encode() []byte {
	b := []byte(envelopeMagic)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Received.UnixMilli()))
	var flags byte
	if e.SMTPUTF8 {
		flags |= 1
	}
	if e.RequireTLS {
		flags |= 2
	}
	b = append(b, flags, byte(e.Body), byte(e.Return))
	for _, s := range []string{e.ReversePath, e.EnvelopeID, e.Peer} {
		b = appendString(b, s)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Recipients)))
	for _, r := range e.Recipients {
		b = append(b, r.encode()...)
	}
	return b
}

func (r *Recipient) encode() []byte {
	b := appendString(nil, r.Address)
	b = append(b, byte(r.Notify))
	return appendString(b, r.Original)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// fields is the payload of a leaf: strings with their lengths.
func fields(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = appendString(b, p[:min(len(p), 0xffff)])
	}
	return b
}

// ParseEnvelope reads a stored envelope. ErrDamaged when it is none.
func ParseEnvelope(b []byte) (Envelope, error) {
	c := cursor{b: b}
	var e Envelope
	if string(c.take(len(envelopeMagic))) != envelopeMagic {
		c.bad = true
	}
	e.Received = time.UnixMilli(int64(c.uint(8))).UTC()
	flags := c.uint(1)
	e.SMTPUTF8, e.RequireTLS = flags&1 != 0, flags&2 != 0
	e.Body, e.Return = BodyType(c.uint(1)), Return(c.uint(1))
	e.ReversePath, e.EnvelopeID, e.Peer = c.string(), c.string(), c.string()
	for range c.uint(2) {
		if c.bad {
			break
		}
		e.Recipients = append(e.Recipients, c.recipient())
	}
	if c.bad || len(c.b) > 0 || flags > 3 || e.Body > BodyBinaryMIME || e.Return > ReturnFull {
		return Envelope{}, fmt.Errorf("%w: envelope", ErrDamaged)
	}
	return e, nil
}

func parseRecipient(b []byte) (Recipient, error) {
	c := cursor{b: b}
	r := c.recipient()
	if c.bad || len(c.b) > 0 {
		return Recipient{}, fmt.Errorf("%w: recipient", ErrDamaged)
	}
	return r, nil
}

// A cursor reads from the front of b and remembers that it once could not.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return make([]byte, min(n, 8))
	}
	t := c.b[:n]
	c.b = c.b[n:]
	return t
}

func (c *cursor) uint(n int) (v uint64) {
	for _, x := range c.take(n) {
		v = v<<8 | uint64(x)
	}
	return v
}

func (c *cursor) string() string {
	n := int(c.uint(2))
	if n > len(c.b) {
		c.bad = true
		return ""
	}
	return string(c.take(n))
}

func (c *cursor) recipient() Recipient {
	return Recipient{Address: c.string(), Notify: Notify(c.uint(1)), Original: c.string()}
}

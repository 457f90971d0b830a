package dmtpclient

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dimegate/dmtp"
)

// A Class says what a failure means for the queue.
type Class uint8

// The classes. Network: another host at once, then by schedule. Remote: by schedule. Refresh: drop the cached signets, resolve
// and author anew, once. Permanent: tell the author. Protocol: close, try three times, then permanent. Trust: the peer could
// not be authenticated; hold and alert.
const (
	Network Class = iota
	Remote
	Refresh
	Permanent
	Protocol
	Trust
)

func (c Class) String() string {
	return [...]string{"transient-net", "transient-remote", "refresh-and-retry", "permanent", "protocol", "trust"}[c]
}

var (
	// ErrNoSignet says that the peer knows no such name, or no such fingerprint of it (576, or 450 with that text).
	ErrNoSignet = errors.New("dmtpclient: no such signet")
	// ErrCertificate says that the Verify function refused a host's certificate.
	ErrCertificate = errors.New("dmtpclient: certificate refused")
	// ErrInjected says that clear octets followed a reply to STARTTLS.
	ErrInjected = errors.New("dmtpclient: clear octets behind the reply to STARTTLS")
	// ErrNotDMTP says that a host's banner or mode is not that of DMTPv1.
	ErrNotDMTP = errors.New("dmtpclient: the host does not speak DMTPv1")
	// ErrTooLarge says that the message is larger than the host announced to take. It was not sent.
	ErrTooLarge = errors.New("dmtpclient: larger than the host takes")
	// ErrForbidden says that an address may not be connected to.
	ErrForbidden = errors.New("dmtpclient: address not permitted")
	// ErrRecent says that the host failed a moment ago and was not tried again.
	ErrRecent = errors.New("dmtpclient: the host failed a moment ago")
	// ErrOutOfStep says that the host sent octets that nothing had asked for.
	ErrOutOfStep = errors.New("dmtpclient: reply without a command")
	errReply     = errors.New("dmtpclient: reply not understood")
	errNoHosts   = errors.New("dmtpclient: no hosts")
	errClosed    = errors.New("dmtpclient: closed")
)

// Words is text that a peer sent. Printed, it is quoted ASCII of at most 200 characters.
type Words string

func (w Words) String() string {
	s := strconv.QuoteToASCII(string(w[:min(len(w), 200)]))
	return s[1 : len(s)-1]
}

// Format keeps every verb of fmt from showing the raw text.
func (w Words) Format(s fmt.State, _ rune) { fmt.Fprint(s, w.String()) }

// An Error says which step with which host failed, and how. Its text holds none of the peer's words; Text does.
type Error struct {
	Class Class
	Host  string // the DX host, or "" before one was chosen
	Step  string // connect, tls, certificate, banner, or the command's verb; message for the octets behind DATA
	Code  int    // the reply's code, or 0 without a reply
	Text  Words  // the reply's text
	Sent  bool   // message octets went out: the same octets must be sent again, not new ones (except for Refresh)
	Err   error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("dmtpclient: ")
	if e.Host != "" {
		b.WriteString(e.Host + ": ")
	}
	b.WriteString(e.Step)
	if e.Code != 0 {
		fmt.Fprintf(&b, ": %d, %s", e.Code, dmtp.StatusOf(e.Code).Meaning)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// MinDelay is how long at least to wait before the next try: 15 minutes when the peer spoke of limits.
func (e *Error) MinDelay() time.Duration {
	if e.Code == 431 || e.Code == 450 {
		return 15 * time.Minute
	}
	return 0
}

// ClassOf returns the class of an error of this package. Others are Network: nothing was decided.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Network
}

// classify is the table of retry classes, dmtp.md §10.1, for a refusal of verb.
func classify(verb dmtp.Verb, code int) Class {
	switch {
	case code == 421, verb == dmtp.STARTTLS:
		return Network
	case code/100 == 4:
		return Remote
	case code >= 500 && code <= 503:
		return Protocol
	case verb == dmtp.EHLO:
		return Network // a refusal of the session, not of a message
	case (code == 575 || code == 576) && (verb == dmtp.RCPT || verb == dmtp.DATA), code == 586:
		return Refresh
	case code/100 == 5:
		return Permanent
	}
	return Protocol
}

// noSignet recognises both ways of saying that a name is unknown: ours, and that of the prototype server.
func noSignet(r dmtp.Reply) bool {
	const text = "SIGNET NOT FOUND"
	return r.Code == 576 || r.Code == 450 && len(r.Text) >= len(text) && strings.EqualFold(r.Text[:len(text)], text)
}

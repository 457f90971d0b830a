// Package resolver goes from an address to a verified signet: DNS with DNSSEC validated in process, the management
// record, the certificate of the DX host, the organizational signet, the user signet, and what was seen on the way.
//
// It knows domains and public keys only. It opens no DMTP session itself: see [Fetcher].
package resolver

import (
	"errors"
	"fmt"
)

// State is what DNSSEC says of an answer (RFC 4033 §5). The zero State is Indeterminate: nothing is known.
type State uint8

const (
	Indeterminate State = iota // cannot be found out now: no answer, no anchor, or more work than the limits allow
	Bogus                      // should be signed and is not, or wrongly
	Insecure                   // proved to lie below an unsigned delegation
	Secure                     // a chain of signatures leads to a trust anchor
)

// String returns the word of RFC 4033.
func (s State) String() string {
	switch s {
	case Bogus:
		return "bogus"
	case Insecure:
		return "insecure"
	case Secure:
		return "secure"
	}
	return "indeterminate"
}

// MarshalText writes the word of RFC 4033.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(b []byte) error {
	for v := range Secure + 1 {
		if v.String() == string(b) {
			*s = v
			return nil
		}
	}
	return errors.New("resolver: unknown DNSSEC state")
}

// ErrBogus and ErrIndeterminate are the two ways in which a look-up has no answer. Neither means "does not exist".
var (
	ErrBogus         = errors.New("DNSSEC validation failed")
	ErrIndeterminate = errors.New("DNS answer cannot be had")
)

// A DNSError says why a look-up has no answer that may be used. It is ErrBogus or ErrIndeterminate by its State.
type DNSError struct {
	Name  string
	Type  string
	State State  // Bogus or Indeterminate
	Why   string // ours, never a peer's words
	Chain []Link // what was verified before it failed
	Err   error  // what lies below, when it is not a verdict of ours
}

func (e *DNSError) Error() string {
	s := fmt.Sprintf("%s %s: %s: %s", e.Name, e.Type, e.State, e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports the state as a sentinel.
func (e *DNSError) Is(target error) bool {
	return target == ErrBogus && e.State == Bogus || target == ErrIndeterminate && e.State != Bogus
}

func (e *DNSError) Unwrap() error { return e.Err }

// ErrNoAddress is a host without an address.
var ErrNoAddress = errors.New("no address")

// A bogusError is a verdict inside the validator: the data are there, and wrong.
type bogusError struct{ why string }

func (e *bogusError) Error() string { return e.why }

func bogusf(format string, a ...any) error { return &bogusError{fmt.Sprintf(format, a...)} }

// errLimit ends a look-up that wants more work than any honest zone does (KeyTrap, CVE-2023-50387 and -50868).
var errLimit = errors.New("more work than the limits allow")

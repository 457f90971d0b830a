package resolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Verdicts on a domain or an address that cannot be used (dmtp chapter 8.11). An *Error is one of them.
var (
	ErrTemporary = errors.New("cannot be found out now")                        // DNS or the other side's servers fail; ask again
	ErrNotDIME   = errors.New("the domain does not use DIME")                   // no record: proved, or unsigned and never seen before
	ErrNoSignet  = errors.New("no such signet")                                 // an authenticated DX says so
	ErrDoubtful  = errors.New("the management record cannot be believed")       // bogus, indeterminate, unparsable, ambiguous
	ErrVanished  = errors.New("the management record is gone")                  // of a domain that is remembered to have one
	ErrUntrusted = errors.New("certificate, key or signet refused")             // a trust failure: hold, and tell the operator
	ErrGarbled   = errors.New("the other side's signet cannot be read")         // counted by the caller: dmtp 8.11
	errInternal  = errors.New("resolver: pins cannot be read or written")       // ours; always temporary
	errForged    = errors.New("not what was asked for")                         // another's signet, or another fingerprint
	errUnsigned  = errors.New("was DNSSEC-signed before and is not signed now") // OC-26
)

// An Error is a verdict with its reasons. Its text holds names and our own words only.
type Error struct {
	Verdict error  // one of ErrTemporary, ErrNotDIME, ErrNoSignet, ErrDoubtful, ErrVanished, ErrUntrusted, ErrGarbled
	Name    string // domain or address
	Why     string
	Err     error // what lies below, or nil

	Change   *KeyDecision // of a key change or a record that vanished: what is to follow, and for how long to hold
	Domain   *Domain      // for ErrNoSignet of an address: whose policy says what follows
	Evidence *Evidence    // as far as it got
}

// Error names the domain, never the address: errors are logged.
func (e *Error) Error() string {
	name := e.Name
	if _, domain, ok := strings.Cut(name, "@"); ok {
		name = "*@" + domain
	}
	s := fmt.Sprintf("%s: %v", name, e.Verdict)
	if e.Why != "" {
		s += ": " + e.Why
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// verdicts are all that an *Error can be. An *Error is exactly one of them: see Unwrap.
var verdicts = []error{ErrTemporary, ErrNotDIME, ErrNoSignet, ErrDoubtful, ErrVanished, ErrUntrusted, ErrGarbled}

// Unwrap gives the verdict, for errors.Is, and what lies below, unless that is a verdict itself: a caller that asks for
// ErrNoSignet or ErrNotDIME, which permit plain mail, must not find a peer's answer that led to another verdict.
func (e *Error) Unwrap() []error {
	if e.Err == nil || slices.ContainsFunc(verdicts, func(v error) bool { return errors.Is(e.Err, v) }) {
		return []error{e.Verdict}
	}
	return []error{e.Verdict, e.Err}
}

// verdictOf returns the verdict of an error of this package; what has none is temporary.
func verdictOf(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Verdict
	}
	return ErrTemporary
}

// ended tells that a call ended because the caller went away, which is no verdict on the other side.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// Package escrow opens archived mail by a quorum, and never otherwise: threshold decryption by TDH2 (Shoup and Gennaro)
// of record keys and of users' encryption keys, the ceremony that makes an escrow key, cases, officers' partials and the
// change of officers under the same key. Octets in, octets out: no network, no database, no clock of its own.
//
// Every object begins with four octets of magic and is read strictly: no optional fields, no spare octets, lists in the one
// order; what is read encodes to the same octets. Integers are big-endian. docs/escrow.md explains the whole.
package escrow

import (
	"fmt"
	"time"

	"dimegate/vault"
)

// A Class is the kind of rule that an object or a request breaks. It is an error, so that errors.Is finds it inside the
// one that says where.
type Class string

func (c Class) Error() string { return "escrow: " + string(c) }

// The classes.
const (
	ErrDecode    Class = "decode"    // octets that are no object of the format
	ErrIdentity  Class = "identity"  // a point that is the group's identity
	ErrLabel     Class = "label"     // a wrap's label is not the one wanted
	ErrProof     Class = "proof"     // a proof does not hold
	ErrSet       Class = "set"       // indexes that are no quorum of the epoch
	ErrFeldman   Class = "feldman"   // a share that is not on the committed polynomial
	ErrLink      Class = "link"      // a dealer shares another value than his share
	ErrManifest  Class = "manifest"  // a case that its rules forbid
	ErrScope     Class = "scope"     // a wrap outside the case's bounds
	ErrAEAD      Class = "aead"      // what does not open under its key
	ErrSignature Class = "signature" // a signature or statement that does not hold
	ErrLog       Class = "log"       // what the log does not prove
	ErrEpoch     Class = "epoch"     // records of a key and its epochs that do not belong together
	ErrQuorum    Class = "quorum"    // fewer statements or officers than needed
)

// An Error says which object breaks which rule. It holds no octets of it.
type Error struct {
	Class  Class
	Object string // what was looked at, for instance "wrap"; may be empty
	Reason string
}

func (e *Error) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("escrow: %s: %s", string(e.Class), e.Reason)
	}
	return fmt.Sprintf("escrow: %s: %s: %s", e.Object, string(e.Class), e.Reason)
}

func (e *Error) Unwrap() error { return e.Class }

func refuse(c Class, object, format string, a ...any) error {
	return &Error{Class: c, Object: object, Reason: fmt.Sprintf(format, a...)}
}

// A Purpose is what a key, a case and a label are for.
type Purpose uint8

const (
	Discovery  Purpose = 1 // record keys: single messages
	Continuity Purpose = 2 // users' encryption keys: all mail of a period
)

func (p Purpose) String() string {
	switch p {
	case Discovery:
		return "discovery"
	case Continuity:
		return "continuity"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// A Month is a month of UTC, counted from January 1970.
type Month uint16

// MonthOf is the month of t, which must be between 1970 and 7431.
func MonthOf(t time.Time) Month {
	t = t.UTC()
	return Month((t.Year()-1970)*12 + int(t.Month()) - 1)
}

func (m Month) String() string { return fmt.Sprintf("%04d-%02d", 1970+int(m)/12, int(m)%12+1) }

// MaxOfficers bounds the officers of an epoch.
const MaxOfficers = 64

// digestSize is the length of every digest.
const digestSize = len(vault.Digest{})

// maxTime bounds every time that is read, so that each has a text: the year 9999.
const maxTime = 253402300799

package archive

import (
	"slices"
	"time"

	"dimegate/vault"
)

// A Fate is what becomes of one custodian's copy of a message, and why.
type Fate string

// The fates. The order of rights is hold, retention, erasure: the first that applies decides.
const (
	Held    Fate = "held"    // a legal hold keeps it
	Running Fate = "running" // its retention time runs: it is kept, whoever asks
	Over    Fate = "over"    // its retention time is over: it goes
	Erased  Fate = "erased"  // it has no retention time, and its custodian asked for erasure: it goes
	Kept    Fate = "kept"    // it has no retention time, and nobody asked
)

// Goes tells whether the copy is to be destroyed.
func (f Fate) Goes() bool { return f == Over || f == Erased }

// A Copy is a record under the shred key of one of its custodians.
type Copy struct {
	Custodian []string // his address, in lower case, and those that he had later: a hold on any of them is one on him
	Class     uint16
	Made      time.Time // of intake
	Expires   time.Time // as stamped at intake; zero: no retention time
}

// Decide says what becomes of a copy at a time. Asked tells whether its custodian's erasure was asked for.
func Decide(c Copy, holds []vault.LegalHold, asked bool, now time.Time) Fate {
	switch {
	case c.held(holds):
		return Held
	case !c.Expires.IsZero() && now.Before(c.Expires):
		return Running
	case !c.Expires.IsZero():
		return Over
	case asked:
		return Erased
	}
	return Kept
}

func (c Copy) held(holds []vault.LegalHold) bool {
	return slices.ContainsFunc(holds, func(h vault.LegalHold) bool {
		return slices.ContainsFunc(c.Custodian, func(address string) bool { return h.Covers(address, c.Class, c.Made) })
	})
}

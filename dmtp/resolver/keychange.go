package resolver

import (
	"time"

	"dimegate/dmtp/record"
)

// A KeyEvent is a difference between what is remembered of a name and what it shows now (dmtp chapter 8.10).
type KeyEvent uint8

const (
	UserRotated      KeyEvent = iota // a new user signet, its custody verified
	UserChanged                      // a new user signet, its custody missing or broken
	OrgRotated                       // a new org signet under a POK that is pinned
	POKSecure                        // a POK that is not pinned, in a record that DNSSEC proves
	POKInsecure                      // the same in a record that it does not
	RecordGone                       // no record, and DNSSEC proves it
	RecordGoneUnsure                 // no record, without proof
	UserGone                         // an authenticated DX knows the user no more
)

// String names the event.
func (e KeyEvent) String() string {
	return [...]string{"user signet rotated", "user signet changed without custody", "org signet changed under the same POK",
		"POK changed, record secure", "POK changed, record insecure", "record vanished, absence proved",
		"record vanished, absence not proved", "user signet vanished"}[min(e, UserGone)]
}

// A KeyAction is what follows. The zero value holds.
type KeyAction uint8

const (
	HoldKey   KeyAction = iota // mail waits; see Life
	AcceptKey                  // what is new is taken
	BounceKey                  // at once
	PlainMail                  // the domain, or the user, is one without DIME: SMTP at the floor
)

// String names the action.
func (a KeyAction) String() string {
	return [...]string{"hold", "accept", "bounce", "plain mail"}[min(a, PlainMail)]
}

// KeyFacts are what a key-change decision rests on.
type KeyFacts struct {
	Event    KeyEvent
	Policy   record.Policy // of the domain, as it was seen last
	Since    time.Duration // for how long the same new state was seen
	CAValid  bool          // the DX had a CA-issued certificate for its name
	Agreed   bool          // a second connection confirms the new signet
	Override bool          // a dated override of an administrator permits this change
}

// A KeyDecision is the table's answer. A hold that nothing has ended after Life ends in a bounce, never in SMTP.
type KeyDecision struct {
	Action   KeyAction
	Alert    bool          // tell the operator; else a line in the log
	Life     time.Duration // of a hold
	Enhanced string        // RFC 3463 status of the bounce, or of the one in which a hold ends
	Reason   string
}

// Times of the key-change table.
const (
	trustHold = 72 * time.Hour     // OC-34
	queueLife = 5 * 24 * time.Hour // OC-41
)

// DecideKeyChange is the key-change table of dmtp chapter 8.10 (OC-34).
func DecideKeyChange(f KeyFacts) KeyDecision {
	d := keyTable(f)
	d.Reason = f.Event.String() + d.Reason
	if d.Action != HoldKey {
		return d
	}
	if d.Alert, d.Enhanced = true, "5.7.5"; d.Life == 0 {
		d.Life = trustHold
	}
	return d
}

func keyTable(f KeyFacts) KeyDecision {
	strict, mixed, experimental := f.Policy == record.Strict, f.Policy == record.Mixed, f.Policy == record.Experimental
	switch f.Event {
	case UserRotated, OrgRotated:
		return KeyDecision{Action: AcceptKey}
	case POKSecure:
		return KeyDecision{Action: AcceptKey, Alert: true}
	case UserChanged:
		switch {
		case mixed && f.Override:
			return KeyDecision{Action: AcceptKey, Alert: true, Reason: "; override accepts broken custody"}
		case experimental && f.Since >= 4*time.Hour && f.Agreed:
			return KeyDecision{Action: AcceptKey, Alert: true, Reason: "; unchanged for 4 h and a second connection agrees"}
		}
	case POKInsecure:
		switch {
		case f.Override:
			return KeyDecision{Action: AcceptKey, Alert: true, Reason: "; override"}
		case mixed && f.Since >= 24*time.Hour && f.CAValid:
			return KeyDecision{Action: AcceptKey, Alert: true, Reason: "; unchanged for 24 h, certificate CA-valid"}
		case experimental && f.Since >= 4*time.Hour && f.CAValid:
			return KeyDecision{Action: AcceptKey, Alert: true, Reason: "; unchanged for 4 h, certificate CA-valid"}
		}
	case RecordGone:
		switch {
		case f.Override, experimental:
			return KeyDecision{Action: PlainMail}
		case mixed && f.Since >= 24*time.Hour:
			return KeyDecision{Action: PlainMail, Alert: true, Reason: " for 24 h"}
		}
	case RecordGoneUnsure:
		if f.Override {
			return KeyDecision{Action: PlainMail, Alert: true, Reason: "; override"}
		}
		return KeyDecision{Life: queueLife}
	case UserGone:
		if strict {
			return KeyDecision{Action: BounceKey, Enhanced: "5.7.10"}
		}
		return KeyDecision{Action: PlainMail}
	}
	return KeyDecision{}
}

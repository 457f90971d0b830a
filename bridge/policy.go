// Package bridge is the two directions of mail and the policy between them: Outbound turns a queued message into a
// DMTP delivery, Inbound a verified DMTP message into a hand-off to the inner mail server.
package bridge

import (
	"time"

	"dimegate/bridge/exchange"
	"dimegate/dmtp/record"
)

// A Situation is what is known about one recipient when a message for him is due (dmtp.md §11.2, first column).
type Situation int

const (
	Unknown     Situation = iota // nothing was asked yet, or the asking failed for a reason that is in no other row
	NoRecord                     // no _dx record: proved, or in an insecure zone that is neither pinned nor floored
	Verified                     // record and signet verified
	NoSignet                     // an authenticated DX says that this recipient has no signet
	Unreachable                  // look-up or delivery failed for now
	Untrusted                    // a certificate, POK, signature or key change was rejected
	Doubtful                     // the record is bogus, indeterminate or unparsable
	Vanished                     // pinned as DMTP-capable, and the record is absent now, proved or not
)

func (s Situation) String() string {
	return [...]string{"unknown", "no-record", "verified", "no-signet", "unreachable", "untrusted", "doubtful", "vanished"}[s]
}

// A Floor is the weakest way out that the administrator allows for a domain. Below it, mail is held and then bounced.
type Floor = exchange.Floor

// The floors, rising, but for FloorHold: the zero Floor lets nothing out.
const (
	FloorHold          = exchange.Hold          // nothing leaves until the administrator says so
	FloorOpportunistic = exchange.Opportunistic // plain SMTP where the table allows it, protected as the other side likes
	FloorTLS           = exchange.TLS           // and with a certificate that holds
	FloorMTASTS        = exchange.MTASTS        // and by an MTA-STS policy
	FloorDANE          = exchange.DANE          // and by DNSSEC and TLSA records
	FloorDIME          = exchange.DIME          // DMTP or nothing
)

// A Layer is where a term of the policy stands.
type Layer string

// The layers. Domain and sender each take the place of global; where both speak, the higher floor holds.
const (
	Remote Layer = "remote" // what the other side publishes, and what was found out about it
	Global Layer = "global" // [policy]
	Domain Layer = "domain" // [policy.domain."…"]
	Sender Layer = "sender" // [policy.sender."…"], or a field of the message
)

// An Action is what is to happen with one recipient's copy.
type Action int

const (
	Hold Action = iota // keep, try again, bounce when Life has passed: the zero value fails closed
	SendDMTP
	SendSMTP
	Bounce
)

func (a Action) String() string { return [...]string{"hold", "dmtp", "smtp", "bounce"}[a] }

// A Decision is the outcome for one recipient with its reason: what is recorded in the log and shown by policy explain.
type Decision struct {
	Action   Action
	Life     time.Duration // of a Hold, from the message's acceptance; 0: the queue's own life
	Enhanced string        // RFC 3463 status of a Bounce, or of a Hold that ends in one
	Rule     string        // the row that decided, and what bent it
	Layer    Layer         // whose word was the last

	report bool // it is a journal report: see Outbound.journal
}

// Terms are what the administrator and the sender ask beyond the table.
type Terms struct {
	Floor    Floor
	Layer    Layer // that set the floor
	Override bool  // a dated, logged per-domain override: SMTP although DMTP fails
	Require  bool  // X-DIME-Require: yes
}

// trustLife is how long mail waits for a trust failure to be mended (dmtp.md OC-41).
const trustLife = 72 * time.Hour

// Decide is the outbound table of dmtp.md §11.2 (OC-43). One rule stands above it: a failure is never a reason for clear
// text. Remote is the policy that the recipient's domain publishes. Terms can raise what the remote side asks, never lower it; only an override permits SMTP on failure.
func Decide(s Situation, remote record.Policy, t Terms) Decision {
	if t.Floor == FloorHold {
		return Decision{Action: Hold, Enhanced: "5.7.1", Rule: "floor hold: the administrator holds mail for this domain", Layer: t.Layer}
	}
	d := table(s, remote)
	d.Layer = Remote
	if d.Action == Hold && t.Override && !t.Require && t.Floor < FloorDIME {
		return Decision{Action: SendSMTP, Rule: d.Rule + "; override: SMTP permitted by a dated override", Layer: Domain}
	}
	if d.Action == SendSMTP && t.Require {
		return Decision{Action: Bounce, Enhanced: "5.7.10", Rule: d.Rule + "; sender requires DIME", Layer: Sender}
	}
	if d.Action == SendSMTP && t.Floor == FloorDIME {
		return Decision{Action: Bounce, Enhanced: "5.7.10", Rule: d.Rule + "; floor dime: no SMTP for this domain", Layer: t.Layer}
	}
	return d
}

func table(s Situation, remote record.Policy) Decision {
	switch s {
	case Verified:
		return Decision{Action: SendDMTP, Rule: "record and signet verified"}
	case NoRecord:
		return Decision{Action: SendSMTP, Rule: "the domain publishes no DIME record"}
	case NoSignet:
		if remote == record.Strict {
			return Decision{Action: Bounce, Enhanced: "5.7.10", Rule: "no signet, and the domain takes DIME only"}
		}
		return Decision{Action: SendSMTP, Rule: "the domain says that this recipient has no signet"}
	case Untrusted:
		return Decision{Action: Hold, Life: trustLife, Enhanced: "5.7.5", Rule: "trust failure: certificate, key or signature rejected"}
	case Doubtful:
		return Decision{Action: Hold, Life: trustLife, Enhanced: "5.7.5", Rule: "record bogus, indeterminate or unparsable"}
	case Vanished:
		return Decision{Action: Hold, Enhanced: "5.7.5", Rule: "the domain published a record before, and publishes none now"}
	}
	return Decision{Action: Hold, Enhanced: "4.4.7", Rule: "DMTP fails for now"}
}

package queue

import (
	"context"
	"io"
	"time"
)

// A Class says what a delivery's result means (dmtp.md §10.1).
type Class uint8

const (
	// Unset is no result: a Deliverer that forgets to say is not believed to have delivered.
	Unset     Class = iota
	Done            // the next hop took it
	Network         // no connection or a lost one: by schedule, and the destination rests a while
	Remote          // the other side said: later
	Refresh         // the signets were stale: drop what was built, and once more at once; twice running is the end
	Permanent       // the end
	Protocol        // garbled or impossible replies: three times, then the end
	Trust           // something cannot be trusted: by schedule, for TrustLife
	Park            // held for an administrator, or for Life when that is set
)

func (c Class) String() string {
	return [...]string{"unset", "done", "network", "remote", "refresh", "permanent", "protocol", "trust", "park"}[c]
}

// A Result is what became of one delivery.
type Result struct {
	Class    Class
	Status   string        // RFC 3463; of a class that waits: the status of its end. "": by class
	Code     int           // the other side's reply code
	Text     string        // and its words: kept sealed, shown to the sender
	Host     string        // who said so
	Protocol string        // "dmtp" or "smtp": whose codes these are
	MinDelay time.Duration // at least until the next try
	Life     time.Duration // from acceptance, in place of the queue's; 0: the class's
	Reason   string        // ours, in a few words, for administrators: no address
	Relayed  bool          // of Done: the next hop sends the notice of success, if one was asked for
}

// A Deliverer sends one recipient's copy. An error is a fault of ours, not of the other side: it is tried again by
// schedule, and held after the fifth of a kind while other mail is delivered, as is one that panics. It may be called on many goroutines. What it returns after ctx has ended
// counts if it is Done or Permanent; else the try does not count.
type Deliverer interface {
	Deliver(ctx context.Context, it *Item) (Result, error)
}

// A Notifier hands a notice to the sender's own mail server, with the null reverse-path. ErrRefused: for good.
type Notifier interface {
	Notify(ctx context.Context, n Mail) error
}

// A Mail is a notice, ready to be handed over.
type Mail struct {
	To       string
	SMTPUTF8 bool   // Octets needs it
	Octets   []byte // RFC 5322, CRLF
	Fallback []byte // the same in ASCII with the original's header alone, for a server that does not take Octets; nil: none
}

// A Decision is which way a copy leaves, and by which rule.
type Decision struct {
	Leg  string // "dmtp" or "smtp"
	Rule string // no address
}

// An Item is one recipient's copy, for the time of one delivery. It must not be used after Deliver returned.
type Item struct {
	ID        string
	Record    string
	Envelope  Envelope
	Recipient Recipient
	Accepted  time.Time
	Octets    int64     // of the message
	Attempt   int       // from 1
	Asked     time.Time // when an administrator asked for this try; zero: it is the schedule's
	Via       string    // host:port that plain SMTP shall go by, as an administrator said; "": the usual way
	Decision  Decision  // the last one, if there was one

	q      *Queue
	entry  Entry
	detail *detail
}

// Body opens the message as received. The caller closes it.
func (it *Item) Body(ctx context.Context) (io.ReadCloser, error) { return it.entry.Body(ctx) }

// Built opens what SaveBuilt kept: ErrNoBuilt when there is nothing. If there is, these octets are sent and no others:
// the destination knows a message again by them (dmtp.md §9.1).
func (it *Item) Built(ctx context.Context) (io.ReadCloser, error) { return it.entry.Built(ctx) }

// An Exhibit is what an archive keeps of a delivery beside the message, for those who judge later what was known and done.
type Exhibit struct {
	Kind   ExhibitKind
	Octets []byte
}

// An ExhibitKind says what an exhibit is.
type ExhibitKind uint8

// The kinds.
const (
	ExhibitObject   ExhibitKind = 1 // the D/MIME object
	ExhibitDecision ExhibitKind = 2 // JSON
	ExhibitSignets  ExhibitKind = 3 // JSON: name and signet of each party, as seen
	ExhibitDNS      ExhibitKind = 4 // JSON: the resolver's evidence
)

// SaveBuilt keeps the message that was built, the decision, and what an archive is to have of both, before its first octet is sent.
// ErrBuilt when one is kept.
func (it *Item) SaveBuilt(ctx context.Context, octets []byte, d Decision, exhibits ...Exhibit) error {
	if err := it.entry.SaveBuilt(ctx, octets, it.decided(d), exhibits, it.q.o.Now()); err != nil {
		return err
	}
	it.note(d)
	return nil
}

// Decide keeps a decision before it is acted on. The same again costs nothing.
func (it *Item) Decide(ctx context.Context, d Decision) error {
	leaves := it.decided(d)
	if len(leaves) == 0 {
		return nil
	}
	if err := it.entry.Attest(ctx, leaves, it.q.o.Now()); err != nil {
		return err
	}
	it.note(d)
	return nil
}

// decided is the leaf of a decision that is not the last one again.
func (it *Item) decided(d Decision) []Leaf {
	if d == it.Decision {
		return nil
	}
	return []Leaf{{Decided, fields("decision", d.Leg, d.Rule)}}
}

func (it *Item) note(d Decision) {
	it.Decision = d
	it.detail.Leg, it.detail.Rule = d.Leg, d.Rule
}

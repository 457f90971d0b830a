package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// A State is where an entry stands. Whether it is being delivered just now is not a state but a lease.
type State uint8

const (
	Waiting State = 1 // for its next try
	Held    State = 2 // for an administrator, or for its end
	Notice  State = 3 // its end is decided; its sender is still to be told
)

func (s State) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Held:
		return "held"
	case Notice:
		return "notice"
	}
	return "unknown"
}

// Never is the due time of what only an administrator can move, AtOnce of what he wants tried whatever rests.
var (
	Never  = time.UnixMilli(1<<62 - 1).UTC()
	AtOnce = time.UnixMilli(0).UTC()
)

// A Row is a queue entry as the store shows it without opening what is sealed.
type Row struct {
	ID      string
	Record  string
	Domain  string // the recipient's
	Lane    string // what it is scheduled with: the domain, or noticeLane
	State   State
	Due     time.Time // of a leased row: the end of the lease
	Made    time.Time
	Octets  int64
	Leased  bool
	Lost    int    // leases that were not ended, since the last that was: their holder died
	Version int64  // a change needs the version that was read
	Detail  []byte // ours; holds no address
}

// A NewRow is an entry of a message that is being accepted.
type NewRow struct {
	Domain    string
	Lane      string
	Recipient []byte // to be sealed
	State     State
	Due       time.Time
	Detail    []byte
	Leaf      Leaf
}

// An Event is what a leaf of the log attests about an entry.
type Event uint8

const (
	Accepted Event = iota + 1
	Decided
	Delivered
	Failed
	Dropped
	HeldBack
	Released
	NoticeGiven
	NoticeLost
)

// A Leaf goes into the log in the commit of what it attests; the log shows a salted commitment to the payload.
type Leaf struct {
	Event   Event
	Payload []byte
}

// A Change is how a row shall be. It ends the row's lease.
type Change struct {
	State     State
	Lane      string
	Due       time.Time
	Detail    []byte
	Trouble   []byte // to be sealed; nil keeps what is there
	DropBuilt bool
	Remove    bool // the entry is at its end; its message goes with the last of them, unless the archive keeps it
	Leaves    []Leaf
}

// A Want asks for at most N due rows of a lane; a Claim is what came of it, and when the lane's next row is due.
type Want struct {
	Lane string
	N    int
}

type Claim struct {
	Rows []Row
	Next time.Time
}

// A LaneDue is a lane that has rows, and when the first is due.
type LaneDue struct {
	Lane string
	Due  time.Time
}

// A Store keeps the queue. Every method that changes something returns after the change is durable. Its errors are
// ErrFull, ErrNotFound, ErrChanged, ErrDamaged where they fit; others are temporary. Safe for concurrent use, by several
// processes too.
type Store interface {
	Begin(ctx context.Context) (Draft, error)
	// Claim leases due rows, oldest due first: until the lease ends no other Claim returns them. A row whose holder died
	// is due again, with Lost one higher.
	Claim(ctx context.Context, wants []Want, now, lease time.Time) ([]Claim, error)
	Lanes(ctx context.Context) ([]LaneDue, error)
	// Open opens what is sealed of a row and its message. The caller closes it.
	Open(ctx context.Context, row Row) (Entry, error)
	// Set changes or removes a row that cannot be opened: what would be sealed, c.Trouble and payloads, is left out.
	Set(ctx context.Context, row Row, c Change, now time.Time) error
	Row(ctx context.Context, id string) (Row, error)
	// Sealed is a row's message as it rests, of so many octets, also of one that cannot be opened. The caller closes it.
	Sealed(ctx context.Context, row Row) (r io.ReadCloser, octets int64, err error)
	// Rows lists at most n rows after an id, the oldest first, of one domain unless it is empty.
	Rows(ctx context.Context, domain, after string, n int) ([]Row, error)
}

// A Draft is a message in the making: Write seals. Accept makes it durable, with its rows and leaves, in one commit.
type Draft interface {
	io.Writer
	Accept(ctx context.Context, envelope []byte, rows []NewRow, now time.Time) (Receipt, error)
	Discard() // after Accept it does nothing
}

// Contents is what is sealed of a row beside the message.
type Contents struct {
	Envelope  []byte
	Recipient []byte
	Trouble   []byte // nil: none yet
}

// An Entry is a row with its message, opened.
type Entry interface {
	Contents(ctx context.Context) (Contents, error)
	Body(ctx context.Context) (io.ReadCloser, error)
	// Built opens what SaveBuilt kept: ErrNoBuilt. SaveBuilt keeps it once, with leaves: then ErrBuilt.
	Built(ctx context.Context) (io.ReadCloser, error)
	SaveBuilt(ctx context.Context, octets []byte, leaves []Leaf, exhibits []Exhibit, now time.Time) error
	Attest(ctx context.Context, leaves []Leaf, now time.Time) error
	// Change changes the row, if it is still as it was read: else ErrChanged.
	Change(ctx context.Context, c Change, now time.Time) error
	Close()
}

// noticeLane is where notices wait: not behind a destination that rests. No domain looks like it.
const noticeLane = "!notices"

// detail is what we keep in a row for scheduling and for an administrator's eyes.
type detail struct {
	Attempts int       `json:"attempts,omitzero"`
	Last     time.Time `json:"last,omitzero"`  // try
	Asked    time.Time `json:"asked,omitzero"` // by an administrator, for the next try
	Via      string    `json:"via,omitzero"`   // host:port, likewise, for every try

	Leg  string `json:"leg,omitzero"` // the last decision: way out and rule
	Rule string `json:"rule,omitzero"`

	Class  string        `json:"class,omitzero"` // the last failure
	Code   int           `json:"code,omitzero"`
	Status string        `json:"status,omitzero"`
	Host   string        `json:"host,omitzero"`
	Reason string        `json:"reason,omitzero"`
	Life   time.Duration `json:"life,omitzero"` // in place of the queue's

	Refreshed  bool      `json:"refreshed,omitzero"` // the last try asked for new signets
	Protocol   int       `json:"protocol,omitzero"`  // protocol errors in a row
	Faults     int       `json:"faults,omitzero"`    // of ours, in a row, the same way
	Fault      string    `json:"fault,omitzero"`
	FaultSince time.Time `json:"fault_since,omitzero"`
	Told       bool      `json:"told,omitzero"` // of the delay
	Held       string    `json:"held,omitzero"` // by what

	Notice   string    `json:"notice,omitzero"` // failed or relayed
	Decided  time.Time `json:"decided,omitzero"`
	NoticeNo int       `json:"notice_tries,omitzero"`
}

func (d detail) encode() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic("queue: detail: " + err.Error()) // strings, numbers and times of this millennium
	}
	return b
}

func parseDetail(b []byte) (detail, error) {
	var d detail
	if err := json.Unmarshal(b, &d); err != nil {
		return detail{}, fmt.Errorf("%w: detail", ErrDamaged)
	}
	return d, nil
}

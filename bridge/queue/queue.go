// Package queue keeps outbound mail from the 250 to the inner mail server until each recipient's copy has ended: delivered,
// failed with the sender told, or dropped by an administrator.
//
// It owns when and how often: acceptance, schedule, limits, holds, expiry, notices. It does not own how: a Deliverer
// decides and sends, a Notifier hands notices to the sender's server, a Store keeps it all sealed and durable.
package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Errors that callers decide on.
var (
	ErrFull     = errors.New("queue: no space left")         // 452 4.3.1
	ErrEnvelope = errors.New("queue: envelope not accepted") // the caller's fault: see the text
	ErrNotFound = errors.New("queue: no such entry")
	ErrBusy     = errors.New("queue: being delivered now") // an administrator's command comes too early
	ErrState    = errors.New("queue: not in that state")   // or too late
	ErrChanged  = errors.New("queue: changed meanwhile")   // look again
	ErrDamaged  = errors.New("queue: damaged in storage")  // the entry cannot be read, now or later
	ErrNoBuilt  = errors.New("queue: nothing was built yet")
	ErrBuilt    = errors.New("queue: built already") // send what was built
	ErrSealed   = errors.New("queue: goes sealed over DMTP, to its destination alone")
	ErrRefused  = errors.New("queue: notice refused for good")
)

// Options are the queue's settings. A zero value stands for the default that is named.
type Options struct {
	Life        time.Duration   // of an entry, then its sender is told; 120h
	TrustLife   time.Duration   // the same while something cannot be trusted; 72h
	DelayNotice time.Duration   // after which the sender is told once that mail waits; 4h; negative: never
	Schedule    []time.Duration // between tries, the last repeats; 1m 5m 15m 30m 1h 2h 4h (dmtp.md OC-41)
	Workers     int             // deliveries at one time; 20
	PerDomain   int             // deliveries to one destination at one time; 5
	InFlight    int64           // octets of messages in delivery at one time, a larger one goes alone; 64 MiB
	Lease       time.Duration   // how long a delivery may take; 1h
	Poll        time.Duration   // how often to look for what other processes changed; 5s

	Hostname   string // of this gateway, in notices
	Postmaster string // the address that notices are from

	Now  func() time.Time                  // time.Now
	Rand func(time.Duration) time.Duration // uniform in [0, d); math/rand/v2
	Log  *slog.Logger                      // discards
}

func (o *Options) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Life, 120*time.Hour)
	def(&o.TrustLife, 72*time.Hour)
	def(&o.DelayNotice, 4*time.Hour)
	def(&o.Lease, time.Hour)
	def(&o.Poll, 5*time.Second)
	if len(o.Schedule) == 0 {
		const m, h = time.Minute, time.Hour
		o.Schedule = []time.Duration{m, 5 * m, 15 * m, 30 * m, h, 2 * h, 4 * h}
	}
	if o.Workers <= 0 {
		o.Workers = 20
	}
	if o.PerDomain <= 0 {
		o.PerDomain = 5
	}
	if o.InFlight <= 0 {
		o.InFlight = 64 << 20
	}
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.Postmaster == "" {
		o.Postmaster = "postmaster@" + o.Hostname
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = func(d time.Duration) time.Duration { return rand.N(d) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// A Queue accepts messages and, while Run runs, delivers them. Safe for concurrent use.
type Queue struct {
	store Store
	o     Options
	room  *semaphore.Weighted // octets in delivery
	wake  chan struct{}       // tells Run that something may be due

	mu    sync.Mutex
	lanes map[string]*lane
	busy  int // deliveries in work

	lastSound time.Time // when a Deliverer last had a result
}

// New makes a queue on a store. It starts nothing: see Run.
func New(s Store, o Options) *Queue {
	o.setDefaults()
	return &Queue{store: s, o: o, room: semaphore.NewWeighted(o.InFlight), wake: make(chan struct{}, 1), lanes: map[string]*lane{}}
}

// A Receipt says what became of an accepted message.
type Receipt struct {
	Record  string   // the id of the message
	Entries []string // ids of the queue entries, in the order of the recipients
}

// Accept seals body as it reads it and keeps it with an entry a recipient, in one durable commit: when it returns nil the
// message is the queue's. Otherwise nothing is kept. Errors: ErrEnvelope, ErrFull, those of body, wrapped; others are the
// storage's and temporary.
func (q *Queue) Accept(ctx context.Context, env Envelope, body io.Reader) (Receipt, error) {
	return q.AcceptJudged(ctx, env, body, func() (string, error) { return "", nil })
}

// AcceptJudged is Accept with a judge, who is asked when the body has been read to its end: an error of his refuses the message and
// is returned, wrapped; a word of his, one of ours for administrators' eyes, has its entries held until they are released.
func (q *Queue) AcceptJudged(ctx context.Context, env Envelope, body io.Reader, judge func() (held string, err error)) (Receipt, error) {
	if err := env.check(); err != nil {
		return Receipt{}, err
	}
	d, err := q.store.Begin(ctx)
	if err != nil {
		return Receipt{}, err
	}
	defer d.Discard()
	if _, err := io.Copy(d, body); err != nil {
		return Receipt{}, fmt.Errorf("queue: body: %w", err)
	}
	held, err := judge()
	if err != nil {
		return Receipt{}, fmt.Errorf("queue: refused: %w", err)
	}
	now := q.o.Now()
	env.Received = now
	rows := make([]NewRow, len(env.Recipients))
	for i, r := range env.Recipients {
		domain := domainOf(r.Address)
		rows[i] = NewRow{Domain: domain, Lane: domain, Recipient: r.encode(), State: Waiting, Due: now, Detail: detail{}.encode(),
			Leaf: Leaf{Accepted, fields("accepted", r.Address)}}
		if held != "" {
			rows[i].State, rows[i].Due, rows[i].Detail = Held, Never, detail{Held: held}.encode()
			rows[i].Leaf.Payload = fields("accepted", r.Address, "held", held)
		}
	}
	receipt, err := d.Accept(ctx, env.encode(), rows, now)
	if err != nil {
		return Receipt{}, err
	}
	q.mu.Lock()
	for _, r := range rows {
		q.lane(r.Lane).dueBy(r.Due)
	}
	q.mu.Unlock()
	q.nudge()
	attrs := []slog.Attr{slog.String("record", receipt.Record), slog.Int("recipients", len(rows))}
	if held != "" {
		q.o.Log.LogAttrs(ctx, slog.LevelWarn, "accepted and held: see gateway queue list", append(attrs, slog.String("held", held))...)
		return receipt, nil
	}
	q.o.Log.LogAttrs(ctx, slog.LevelInfo, "accepted", attrs...)
	return receipt, nil
}

// nudge lets Run look again.
func (q *Queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

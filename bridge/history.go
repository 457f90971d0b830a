package bridge

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dimegate/bridge/exchange"
	"dimegate/dmtp/record"
)

// A Past is a decision that was taken, with all that it was taken from: what is needed to take it again under other terms
// (see Replay). Of the recipient only the domain is kept: no term of the policy asks for more.
type Past struct {
	Time      time.Time     `json:"time"`
	Sender    string        `json:"sender"` // the reverse-path
	Domain    string        `json:"domain"`
	Situation Situation     `json:"situation"`
	Remote    record.Policy `json:"remote"`
	Override  bool          `json:"override,omitempty"`
	Require   bool          `json:"require,omitempty"`
	Floor     Floor         `json:"floor"`
	Action    Action        `json:"action"` // what came of it
	Rule      string        `json:"rule"`
	Offered   bool          `json:"offered,omitempty"` // SendSMTP: a server was found that the mail could be offered to
	Rung      exchange.Rung `json:"rung,omitempty"`    // and how its session was protected
}

// A HistoryStore keeps batches of octets under names. Names are given in order of time; what is kept is sealed.
type HistoryStore interface {
	HistoryNames(ctx context.Context) ([]string, error) // sorted
	History(ctx context.Context, name string) ([]byte, error)
	SetHistory(ctx context.Context, name string, octets []byte) error
	DropHistory(ctx context.Context, name string) error
}

// Bounds of a History.
const (
	historyBatch   = 250     // decisions in one batch
	historyOctets  = 1 << 19 // of one batch; a decision that is longer alone is forgotten
	historyPending = 50_000  // decisions that wait for Flush; beyond, the oldest are forgotten
)

// A History remembers decisions for a time. It is an aid, not the log: what came after the last Flush is lost in a crash.
// Safe for concurrent use; it starts nothing.
type History struct {
	store HistoryStore
	life  time.Duration
	now   func() time.Time

	mu      sync.Mutex
	pending []Past
}

// NewHistory makes a History whose decisions are kept for life; 0: nothing is remembered.
func NewHistory(s HistoryStore, life time.Duration, now func() time.Time) *History {
	return &History{store: s, life: life, now: now}
}

// Add remembers a decision, at the time of now. A nil History remembers nothing.
func (h *History) Add(p Past) {
	if h == nil || h.life <= 0 {
		return
	}
	p.Time = h.now().UTC()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) >= historyPending {
		h.pending = slices.Delete(h.pending, 0, historyBatch)
	}
	h.pending = append(h.pending, p)
}

// Flush makes durable what was added.
func (h *History) Flush(ctx context.Context) error {
	h.mu.Lock()
	list := h.pending
	h.pending = nil
	h.mu.Unlock()
	for len(list) > 0 {
		n, octets, err := batch(list)
		if err == nil && len(octets) > 0 {
			// Named by its last decision: what is older than a moment lies in batches of names before it.
			err = h.store.SetHistory(ctx, batchName(list[n-1].Time)+"-"+rand.Text()[:8], octets)
		}
		if err != nil {
			h.mu.Lock()
			h.pending = append(list, h.pending...)
			h.mu.Unlock()
			return err
		}
		list = list[n:]
	}
	return nil
}

// batch writes as many of the first decisions as one batch holds, a line each, and tells how many these are.
func batch(list []Past) (n int, octets []byte, err error) {
	for n < len(list) && n < historyBatch {
		line, err := json.Marshal(list[n])
		if err != nil {
			return 0, nil, err
		}
		if len(octets)+len(line) >= historyOctets && len(octets) > 0 {
			break
		}
		if len(line) < historyOctets {
			octets = append(append(octets, line...), '\n')
		}
		n++
	}
	return n, octets, nil
}

// batchName sorts as time does.
func batchName(t time.Time) string { return t.UTC().Format("20060102T150405.000000000") }

// Sweep drops what has had its time.
func (h *History) Sweep(ctx context.Context) error {
	names, err := h.store.HistoryNames(ctx)
	if err != nil {
		return err
	}
	oldest := batchName(h.now().Add(-h.life))
	var errs []error
	for _, n := range names {
		if n < oldest {
			errs = append(errs, h.store.DropHistory(ctx, n))
		}
	}
	return errors.Join(errs...)
}

// Decisions calls f for each decision since a moment, by batches in order of time. It looks at what is durable.
func Decisions(ctx context.Context, s HistoryStore, since time.Time, f func(Past)) error {
	names, err := s.HistoryNames(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n < batchName(since) {
			continue
		}
		b, err := s.History(ctx, n)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			var p Past
			if err := json.Unmarshal([]byte(line), &p); err != nil {
				return fmt.Errorf("bridge: history %s: not a decision of this version", n)
			}
			if !p.Time.Before(since) {
				f(p)
			}
		}
	}
	return nil
}

// A Replayed is a past decision, taken again.
type Replayed struct {
	Action Action
	Rule   string
	Layer  Layer
	// Open: what would come of an offer by plain SMTP is not known, since none was made, or not that way.
	Open bool
}

// Replay takes a past decision again under other terms. Nobody is asked anything: the other side is as it was then. Of terms
// only Floor and Layer are read. SameWay tells whether plain SMTP would go to the same hosts as it did.
func Replay(p Past, t Terms, sameWay bool) Replayed {
	t.Override, t.Require = p.Override, p.Require
	d := Decide(p.Situation, p.Remote, t)
	r := Replayed{Action: d.Action, Rule: d.Rule, Layer: d.Layer}
	if d.Action != SendSMTP {
		return r
	}
	switch {
	case sameWay && !p.Offered && p.Floor >= FloorOpportunistic && t.Floor >= p.Floor && p.Action != SendDMTP:
		r.Action, r.Rule = p.Action, p.Rule // a floor as high as one that was not met
		return r
	case !sameWay || !p.Offered:
		r.Open = true
		return r
	}
	r.Layer = t.Layer
	if !p.Rung.Meets(t.Floor) {
		r.Action, r.Rule = Hold, fmt.Sprintf("%s; floor %s: the session then was protected by %s", d.Rule, t.Floor, p.Rung)
	}
	return r
}

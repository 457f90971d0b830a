package queue

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A lane is what Run knows of the rows that share limits: a destination's, or the notices. The store is the truth; a lane
// that is wrong costs an empty Claim or waits for the next look around.
type lane struct {
	name   string
	due    time.Time // no row is due earlier, as far as is known; Never: no row
	rest   time.Time // until then nothing is tried, unless an administrator wants it AtOnce
	failed int       // times in a row that it could not be reached
	limit  int       // deliveries at one time: one while it fails, then more with each success
	busy   int
	served uint64 // when it last had its turn
}

func (l *lane) dueBy(t time.Time) {
	if t.Before(l.due) {
		l.due = t
	}
}

// ready is when a claim makes sense.
func (l *lane) ready() time.Time {
	if l.due.After(AtOnce) && l.due.Before(l.rest) {
		return l.rest
	}
	return l.due
}

// restMost bounds how long a destination rests that cannot be reached. It begins with the first wait of the schedule, a
// minute by default, and is doubled each time, up to the schedule's longest wait: nobody who asks for tries every second gets one a minute.
const restMost = 15 * time.Minute

// tried notes how a delivery went: what matters here is whether the destination could be reached.
func (l *lane) tried(c Class, now time.Time, most int, schedule []time.Duration) {
	if c != Network {
		l.failed, l.rest = 0, time.Time{}
		l.limit = min(2*l.limit, most)
		return
	}
	l.limit = 1
	if now.Before(l.rest) {
		return // another delivery of the same moment said so already
	}
	l.rest = now.Add(min(schedule[0]<<min(l.failed, 10), restMost, slices.Max(schedule)))
	l.failed++
}

// lane returns the lane of a name, made when it is new. The caller holds q.mu.
func (q *Queue) lane(name string) *lane {
	l, ok := q.lanes[name]
	if !ok {
		l = &lane{name: name, due: Never, limit: q.o.PerDomain}
		q.lanes[name] = l
	}
	return l
}

// A pass is one Run.
type pass struct {
	*Queue
	d       Deliverer
	n       Notifier
	workers sync.WaitGroup
	turn    uint64
	keeping int // outcomes on their way to the store, of deliveries that do not count as busy any more
}

// Run delivers until ctx ends, and returns nil when every delivery has ended and its result is kept. Trouble with the
// store is logged and tried again.
func (q *Queue) Run(ctx context.Context, d Deliverer, n Notifier) error {
	p := &pass{Queue: q, d: d, n: n}
	defer p.workers.Wait()
	p.workers.Go(func() { p.unpark(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	var look time.Time
	for ctx.Err() == nil {
		now := q.o.Now()
		if !now.Before(look) {
			p.lookAround(ctx)
			look = now.Add(q.o.Poll)
		}
		wants := p.pick(now)
		if len(wants) > 0 && p.start(ctx, wants, now) {
			continue
		}
		timer.Reset(max(p.next(look).Sub(q.o.Now()), 0))
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	return nil
}

// unparkPage is how many entries unpark reads at once.
const unparkPage = 500

// unpark has what the policy held decided anew: it may be another since the last start. What it still holds is held again,
// with the time that it was accepted.
func (p *pass) unpark(ctx context.Context) {
	after := ""
	for ctx.Err() == nil {
		list, err := p.List(ctx, "", after, unparkPage)
		if err != nil {
			p.complain(ctx, "queue held entries", err)
			return
		}
		for _, i := range list {
			if i.State != Held.String() || i.Held != heldByPolicy {
				continue
			}
			if err := p.Release(ctx, i.ID); err != nil {
				p.complain(ctx, "queue entry "+i.ID, err)
			}
		}
		if len(list) < unparkPage {
			return
		}
		after = list[len(list)-1].ID
	}
}

// lookAround learns of rows that came or moved without us: from before the start, from other processes.
func (p *pass) lookAround(ctx context.Context) {
	list, err := p.store.Lanes(ctx)
	if err != nil {
		p.complain(ctx, "queue lanes", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range list {
		p.lane(l.Lane).dueBy(l.Due)
	}
}

// next is when there may be something to do, look at the latest.
func (p *pass) next(look time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy >= p.o.Workers {
		return look
	}
	for name, l := range p.lanes {
		switch {
		case l.busy >= l.limit: // its next delivery's end wakes us
		case l.due == Never && l.busy == 0 && l.failed == 0:
			delete(p.lanes, name)
		case l.ready().Before(look):
			look = l.ready()
		}
	}
	return look
}

// pick shares the free workers among the lanes that are ready, a row each in turn, the lane first that waited longest for
// its turn.
func (p *pass) pick(now time.Time) []Want {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.o.Workers - p.busy
	if free <= 0 {
		return nil
	}
	var ready []*lane
	for _, l := range p.lanes {
		if l.busy < l.limit && !l.ready().After(now) {
			ready = append(ready, l)
		}
	}
	slices.SortFunc(ready, func(a, b *lane) int {
		if a.served != b.served {
			return int(min(max(int64(a.served)-int64(b.served), -1), 1))
		}
		return a.due.Compare(b.due)
	})
	wants := make([]Want, 0, min(len(ready), free))
	for round := 1; free > 0; round++ {
		before := free
		for i, l := range ready {
			if free == 0 || l.busy+round > l.limit {
				continue
			}
			if round == 1 {
				p.turn++
				l.served, l.due = p.turn, Never // until the claim says more; what comes meanwhile makes it due again
				wants = append(wants, Want{Lane: l.name})
			}
			wants[i].N++
			free--
		}
		if free == before {
			break
		}
	}
	return wants
}

// start claims what was picked and sets a worker to each row. It reports whether there was any.
func (p *pass) start(ctx context.Context, wants []Want, now time.Time) bool {
	claims, err := p.store.Claim(ctx, wants, now, now.Add(p.o.Lease))
	if err != nil {
		p.complain(ctx, "queue claim", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, w := range wants {
			p.lane(w.Lane).dueBy(now.Add(p.o.Poll)) // not at once: the store is in trouble
		}
		return false
	}
	any := false
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range claims {
		l := p.lane(wants[i].Lane)
		l.dueBy(c.Next)
		for _, row := range c.Rows {
			any = true
			l.busy++
			p.busy++
			p.workers.Go(func() { p.work(ctx, l, row) })
		}
	}
	return any
}

// work does one row and lets its lane know. The next row may begin while this one's outcome is still being kept: the limits
// are of deliveries, and both then share a commit. As many outcomes as there are workers may be on their way to the store;
// a store that is in trouble stops the deliveries so.
func (p *pass) work(ctx context.Context, l *lane, row Row) {
	early := false
	lane, due := p.do(ctx, row, func(class Class) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if class != Unset {
			l.tried(class, p.o.Now(), p.o.PerDomain, p.o.Schedule)
		}
		if early = p.keeping < p.o.Workers; early {
			p.keeping++
			p.free(l)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if early {
		p.keeping--
	} else {
		p.free(l)
	}
	p.lane(lane).dueBy(due)
	p.nudge()
}

// free gives a delivery's place to the next one. The caller holds q.mu.
func (p *pass) free(l *lane) {
	l.busy--
	p.busy--
	p.lanes[l.name] = l
	p.nudge()
}

// sound notes that a Deliverer had a result, whatever it was; soundSince reports whether one had since a moment.
func (q *Queue) sound(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastSound = now
}

func (q *Queue) soundSince(t time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lastSound.After(t)
}

func (q *Queue) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		q.o.Log.LogAttrs(ctx, slog.LevelError, what, slog.Any("error", err))
	}
}

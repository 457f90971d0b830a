package resolver

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// A cache holds at most max values, of at most maxOctets together, until each one's time; those unused longest give way.
// Safe for concurrent use.
type cache[V any] struct {
	mu        sync.Mutex
	max       int
	maxOctets int
	octets    func(V) int // about how much memory a value takes: what others choose the size of must be counted
	held      int
	order     *list.List // of *entry[V], the last used in front
	byKey     map[string]*list.Element
}

type entry[V any] struct {
	key    string
	value  V
	from   time.Time // when it was put
	until  time.Time
	octets int
}

func newCache[V any](max, maxOctets int, octets func(V) int) *cache[V] {
	return &cache[V]{max: max, maxOctets: maxOctets, octets: octets, order: list.New(), byKey: map[string]*list.Element{}}
}

// get returns the value of key if its time has not come at now. What was put later than now, by more than clocks may differ,
// is dropped: the clock went back, and nothing would end in its time.
func (c *cache[V]) get(key string, now time.Time) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byKey[key]
	if el == nil {
		return v, false
	}
	e := el.Value.(*entry[V])
	if !now.Before(e.until) || now.Before(e.from.Add(-clockSkew)) {
		c.drop(el)
		return v, false
	}
	c.order.MoveToFront(el)
	return e.value, true
}

// put keeps v until that time, which may have passed: then nothing is kept.
func (c *cache[V]) put(key string, v V, until, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byKey[key]; el != nil {
		c.drop(el)
	}
	if !now.Before(until) {
		return
	}
	n := len(key) + c.octets(v)
	c.byKey[key] = c.order.PushFront(&entry[V]{key, v, now, until, n})
	for c.held += n; c.order.Len() > c.max || c.held > c.maxOctets; {
		c.drop(c.order.Back()) // at last v itself, if it alone is too much
	}
}

// forget drops key.
func (c *cache[V]) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byKey[key]; el != nil {
		c.drop(el)
	}
}

// forgetOlder drops key if it was put before t.
func (c *cache[V]) forgetOlder(key string, t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byKey[key]; el != nil && el.Value.(*entry[V]).from.Before(t) {
		c.drop(el)
	}
}

func (c *cache[V]) drop(el *list.Element) {
	e := c.order.Remove(el).(*entry[V])
	delete(c.byKey, e.key)
	c.held -= e.octets
}

// Sizes of what is cached, in octets, roughly.

const smallValue = 256 // what every value takes beside what is counted

func chainOctets(chain []Link) int {
	n := smallValue
	for _, l := range chain {
		n += smallValue
		for _, r := range l.Records {
			n += 2*len(r) + 16 // the text, and the record itself
		}
	}
	return n
}

func (a *Answer) octets() int   { return chainOctets(a.Chain) }
func (e *DNSError) octets() int { return chainOctets(e.Chain) }
func (z *zone) octets() int     { return chainOctets(z.chain) }

func (c *cut) octets() int {
	if c.zone == nil {
		return smallValue
	}
	return c.zone.octets()
}

func (e *Evidence) octets() int {
	if e == nil {
		return 0
	}
	return chainOctets(e.Chain) + 2*len(e.Record) + smallValue*(len(e.Hosts)+len(e.Refused))
}

func (d *Domain) octets() int     { return d.Evidence.octets() + 4*d.Signet.Size() + smallValue }
func (c *cachedUser) octets() int { return c.evidence.octets() + 4*c.signet.Size() + smallValue }
func (e *Error) octets() int      { return e.Evidence.octets() + smallValue }

// A flight lets one of several callers that want the same thing fetch it for all. Safe for concurrent use.
type flight[V any] struct {
	mu    sync.Mutex
	going map[string]*call[V]
}

type call[V any] struct {
	done chan struct{}
	v    V
	err  error
	left bool // the caller that fetched went away before it was done
}

// do returns what fetch does, called here or by another caller under way with the same key. When that other caller's
// context ends first, one of those who wait takes over.
func (f *flight[V]) do(ctx context.Context, key string, fetch func(context.Context) (V, error)) (V, error) {
	for {
		f.mu.Lock()
		if f.going == nil {
			f.going = map[string]*call[V]{}
		}
		c := f.going[key]
		if c == nil {
			c = &call[V]{done: make(chan struct{})}
			f.going[key] = c
			f.mu.Unlock()
			return f.lead(ctx, key, c, fetch)
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			var zero V
			return zero, context.Cause(ctx)
		case <-c.done:
			if !c.left {
				return c.v, c.err
			}
		}
	}
}

func (f *flight[V]) lead(ctx context.Context, key string, c *call[V], fetch func(context.Context) (V, error)) (V, error) {
	c.left = true // stays so if fetch panics
	defer func() {
		f.mu.Lock()
		delete(f.going, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.v, c.err = fetch(ctx)
	c.left = ctx.Err() != nil
	return c.v, c.err
}

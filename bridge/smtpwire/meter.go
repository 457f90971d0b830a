package smtpwire

import (
	"sync"
	"time"
)

// A Meter counts what each key did lately. A count goes down by Hourly in an hour, so that Hourly is both what a key may do at
// once and what it may do in an hour from then on. Its fields are set before use. It may be used by many goroutines.
type Meter[K comparable] struct {
	Hourly int
	Keys   int // that are remembered at most, some 100 octets and the key each; default 32768

	mu sync.Mutex
	m  map[K]level
}

type level struct {
	n    float64
	at   time.Time
	told time.Time
}

func (m *Meter[K]) now(k K, t time.Time) level {
	l := m.m[k]
	l.n = max(0, l.n-float64(m.Hourly)*float64(max(0, t.Sub(l.at)))/float64(time.Hour))
	l.at = t
	return l
}

// Over tells whether n more would be too many for a key now.
func (m *Meter[K]) Over(k K, n int, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now(k, now).n+float64(n) > float64(m.Hourly)
}

// Take counts n more, or nothing when that is too many; then it is false.
func (m *Meter[K]) Take(k K, n int, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.now(k, now)
	if l.n+float64(n) > float64(m.Hourly) {
		return false
	}
	l.n += float64(n)
	m.put(k, l)
	return true
}

// Add counts n more, whether or not it is too many; or fewer, for what was taken and not used.
func (m *Meter[K]) Add(k K, n int, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.now(k, now)
	l.n = max(0, l.n+float64(n))
	m.put(k, l)
}

// Tell is true once an hour for a key: who goes over his limit is told of once, not each time that he tries.
func (m *Meter[K]) Tell(k K, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.now(k, now)
	if now.Sub(l.told) < time.Hour {
		return false
	}
	l.told = now
	m.put(k, l)
	return true
}

func (m *Meter[K]) put(k K, l level) {
	if m.m == nil {
		m.m = map[K]level{}
	}
	if m.Keys <= 0 {
		m.Keys = 1 << 15
	}
	if _, known := m.m[k]; !known && len(m.m) >= m.Keys {
		m.evict(l.at)
	}
	m.m[k] = l
}

// evict makes room: those whose count is down to nothing go, then anyone, about a tenth at once.
func (m *Meter[K]) evict(now time.Time) {
	for k := range m.m {
		if m.now(k, now).n == 0 {
			delete(m.m, k)
		}
	}
	for k := range m.m {
		if len(m.m) <= m.Keys*9/10 {
			return
		}
		delete(m.m, k)
	}
}

package dmtpserver

import (
	"net/netip"
	"sync"
	"time"
)

// maxPrefixes bounds the memory of what network prefixes did: some 100 octets each.
const maxPrefixes = 1 << 16

// A guard counts what network prefixes, /24 and /64, cost us.
type guard struct {
	l *Limits

	mu       sync.Mutex
	sessions int
	prefixes map[netip.Prefix]*tally
}

// A tally is what one prefix did lately.
type tally struct {
	conns                   int
	octets                  int64 // of messages in memory
	minute, hour, callBacks bucket
	seen                    time.Time
}

// A bucket fills with each use and empties at a steady rate.
type bucket struct {
	level float64
	at    time.Time
}

func (b *bucket) drain(now time.Time, limit int, per time.Duration) {
	b.level = max(0, b.level-float64(limit)*float64(now.Sub(b.at))/float64(per))
	b.at = now
}

// A visit is one connection under guard.
type visit struct {
	g      *guard
	prefix netip.Prefix
	addr   netip.Addr
	exempt bool
	over   bool // one too many of its prefix: to be told so, and sent away
	left   bool
}

func newGuard(l *Limits) *guard { return &guard{l: l, prefixes: make(map[netip.Prefix]*tally)} }

func prefixOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // of no address: no prefix, which all of its kind share
	return p
}

// enter counts a connection in. It is nil when there is no room even for a refusal: beyond all sessions, or twice what one
// prefix may have.
func (g *guard) enter(a netip.Addr) *visit {
	v := &visit{g: g, prefix: prefixOf(a), addr: a}
	for _, p := range g.l.Exempt {
		v.exempt = v.exempt || p.Contains(a)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tally(v.prefix)
	if g.sessions >= g.l.Sessions || !v.exempt && t.conns >= 2*g.l.PrefixConns {
		return nil
	}
	v.over = !v.exempt && t.conns >= g.l.PrefixConns
	g.sessions++
	t.conns++
	return v
}

// again counts a connection in that had left as SMTP's and comes back. It is false when there is no room.
func (v *visit) again() bool {
	next := v.g.enter(v.addr)
	if next == nil {
		return false
	}
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.left, v.over = false, next.over // what next counted is v's now
	return !next.over
}

// leave counts the connection out, once: at its end, or when it turns out to be SMTP.
func (v *visit) leave() {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	if !v.left {
		v.left = true
		v.g.sessions--
		v.g.tally(v.prefix).conns--
	}
}

// mayLookUp takes one look-up from the prefix's allowance.
func (v *visit) mayLookUp() bool {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	t, now := v.g.tally(v.prefix), time.Now()
	t.minute.drain(now, v.g.l.LookupsMin, time.Minute)
	t.hour.drain(now, v.g.l.LookupsHour, time.Hour)
	if !v.exempt && (t.minute.level+1 > float64(v.g.l.LookupsMin) || t.hour.level+1 > float64(v.g.l.LookupsHour)) {
		return false
	}
	t.minute.level++
	t.hour.level++
	return true
}

// missed makes the last look-up dearer, because it found nothing.
func (v *visit) missed() {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	t := v.g.tally(v.prefix)
	t.minute.level += float64(v.g.l.MissCost - 1)
	t.hour.level += float64(v.g.l.MissCost - 1)
}

// knew gives the last look-up back: who asked for a signet by its fingerprint, and had it right, learnt no name.
func (v *visit) knew() {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	t := v.g.tally(v.prefix)
	t.minute.level = max(0, t.minute.level-1)
	t.hour.level = max(0, t.hour.level-1)
}

// mayAsk takes one verification call-back from the prefix's allowance.
func (v *visit) mayAsk() bool {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	t := v.g.tally(v.prefix)
	t.callBacks.drain(time.Now(), v.g.l.CallBacksMin, time.Minute)
	if !v.exempt && t.callBacks.level+1 > float64(v.g.l.CallBacksMin) {
		return false
	}
	t.callBacks.level++
	return true
}

// hold takes memory for n octets of a message from the prefix's share: half of all, or one message. Clients that send all but
// the end of many large messages would else keep everyone's out.
func (v *visit) hold(n int) bool {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	t := v.g.tally(v.prefix)
	if share := max(v.g.l.Memory/2, int64(v.g.l.Message)); !v.exempt && t.octets+int64(n) > share {
		return false
	}
	t.octets += int64(n)
	return true
}

// drop gives back what hold took.
func (v *visit) drop(n int) {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.g.tally(v.prefix).octets -= int64(n)
}

// tally finds or makes the entry of a prefix. The caller holds mu. When there are too many, of a handful the one that was
// seen longest ago, and has no connection, makes room.
func (g *guard) tally(p netip.Prefix) *tally {
	now := time.Now()
	if t := g.prefixes[p]; t != nil {
		t.seen = now
		return t
	}
	if len(g.prefixes) >= maxPrefixes {
		var oldest netip.Prefix
		at, n := now, 0
		for q, t := range g.prefixes {
			if t.conns == 0 && !t.seen.After(at) {
				oldest, at = q, t.seen
			}
			if n++; n >= 64 && at != now {
				break
			}
		}
		delete(g.prefixes, oldest)
	}
	t := &tally{seen: now}
	g.prefixes[p] = t
	return t
}

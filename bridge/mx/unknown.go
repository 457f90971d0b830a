package mx

import (
	"net/netip"
	"sync"
	"time"
)

// unknowns counts what clients asked for that is not there, so that addresses cannot be had by trying. The count of a client
// goes down by unknownHour in an hour.
type unknowns struct {
	mu sync.Mutex
	m  map[netip.Prefix]level
}

type level struct {
	n  float64
	at time.Time
}

// maxClients bounds the memory of clients: some 80 octets each.
const maxClients = 1 << 15

func (l level) now(t time.Time) float64 {
	return max(0, l.n-unknownHour*float64(max(0, t.Sub(l.at)))/float64(time.Hour))
}

// spent tells whether a client may not try now.
func (u *unknowns) spent(client netip.Prefix, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.m[client].now(now) >= unknownHour
}

func (u *unknowns) add(client netip.Prefix, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.m == nil {
		u.m = map[netip.Prefix]level{}
	}
	if _, known := u.m[client]; !known && len(u.m) >= maxClients {
		u.evict(now)
	}
	u.m[client] = level{u.m[client].now(now) + 1, now}
}

// evict makes room: those whose count is down to nothing go, then anyone, about a tenth at once.
func (u *unknowns) evict(now time.Time) {
	for c, l := range u.m {
		if l.now(now) == 0 {
			delete(u.m, c)
		}
	}
	for c := range u.m {
		if len(u.m) <= maxClients*9/10 {
			return
		}
		delete(u.m, c)
	}
}

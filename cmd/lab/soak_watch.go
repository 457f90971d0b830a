package main

import (
	"context"
	"time"

	"dimegate/internal/testpeer"
)

// soakLooks is what was seen of both gateways during the load.
type soakLooks struct {
	from     time.Duration // before, they warm up
	gateways map[string]*soakPoints
	looks    int
}

type soakPoints struct{ memory, descriptors, goroutines []point }

// watch looks at both gateways every few seconds until ctx ends. Slopes are taken after the second minute, or in a short
// run after its first third, and of a gateway that was killed only when it has run again for a while.
func (w *soakWorld) watch(ctx context.Context, span time.Duration) *soakLooks {
	every, warm := min(5*time.Second, span/40), min(20*time.Second, span/30)
	l := &soakLooks{from: min(2*time.Minute, span/3), gateways: map[string]*soakPoints{"alpha": {}, "bravo": {}}}
	began := time.Now()
	for ; ctx.Err() == nil; pause(ctx, every) {
		_ = w.collect() // again at the end, and judged there
		at := time.Since(began)
		if at < l.from {
			continue
		}
		l.looks++
		l.gateways["alpha"].look(ctx, w.alpha, at)
		born := w.born.Load()
		if time.Since(time.Unix(0, born)) < warm {
			continue
		}
		l.gateways["bravo"].look(ctx, w.bravo, at)
		if p := l.gateways["bravo"]; w.born.Load() != born { // killed while it was looked at
			*p = soakPoints{before(p.memory, at), before(p.descriptors, at), before(p.goroutines, at)}
		}
	}
	return l
}

// before leaves out what was seen at that very look.
func before(list []point, at time.Duration) []point {
	if n := len(list); n > 0 && list[n-1].at == at {
		return list[:n-1]
	}
	return list
}

// look looks once. A process that is gone is not seen.
func (p *soakPoints) look(ctx context.Context, g *Gateway, at time.Duration) {
	goroutines, err := g.goroutines(ctx)
	if err != nil {
		return
	}
	memory, err := testpeer.AnonymousMemory(g.Pid())
	if err != nil {
		return
	}
	files, err := descriptors(g.Pid())
	if err != nil {
		return
	}
	p.memory = append(p.memory, point{at, float64(memory)})
	p.descriptors = append(p.descriptors, point{at, float64(files)})
	p.goroutines = append(p.goroutines, point{at, float64(goroutines)})
}

// judge puts the slopes into a report.
func (l *soakLooks) judge(r *soakReport) {
	r.JudgedFrom, r.Looks, r.Gateways = l.from.Minutes(), l.looks, map[string]soakGateway{}
	for name, p := range l.gateways {
		r.Gateways[name] = soakGateway{fit(p.memory, memoryBound), fit(p.descriptors, descriptorBound), fit(p.goroutines, goroutineBound)}
	}
}

package main

import (
	"math"
	"time"
)

// A point is one look at something that must not grow.
type point struct {
	at    time.Duration // since the load began
	value float64
}

// A slope is a straight line through points by least squares, and whether it is flat.
type slope struct {
	PerMinute float64 `json:"slope_per_minute"`
	Error     float64 `json:"standard_error"`
	Change    float64 `json:"change"` // over the time looked at: the slope times its length
	Bound     float64 `json:"bound"`  // a change below it is none, whatever the error says
	First     float64 `json:"first"`
	Last      float64 `json:"last"`
	Max       float64 `json:"max"`
	Points    int     `json:"points"`
	Flat      bool    `json:"zero_within_noise"`
}

// grows tells a leak, or that nothing was seen. What falls is none.
func (s slope) grows() bool { return !s.Flat && (s.PerMinute > 0 || s.Points < 3) }

// fit judges points in the order of time. Flat is a slope within twice its standard error, or a change over the whole time
// within the bound. The error takes the points for independent, which neighbours in time are not quite: it is rather too
// small than too large.
func fit(points []point, bound float64) slope {
	s := slope{Bound: bound, Points: len(points)}
	if len(points) < 3 {
		return s // not flat: nothing was seen
	}
	n := float64(len(points))
	var meanX, meanY float64
	for _, p := range points {
		meanX += p.at.Minutes() / n
		meanY += p.value / n
		s.Max = max(s.Max, p.value)
	}
	var xx, xy float64
	for _, p := range points {
		dx := p.at.Minutes() - meanX
		xx += dx * dx
		xy += dx * (p.value - meanY)
	}
	if xx == 0 {
		return s
	}
	s.PerMinute = xy / xx
	var residue float64
	for _, p := range points {
		r := p.value - meanY - s.PerMinute*(p.at.Minutes()-meanX)
		residue += r * r
	}
	s.Error = math.Sqrt(residue / (n - 2) / xx)
	first, last := points[0], points[len(points)-1]
	s.First, s.Last = first.value, last.value
	s.Change = s.PerMinute * (last.at - first.at).Minutes()
	s.Flat = math.Abs(s.PerMinute) <= 2*s.Error || math.Abs(s.Change) <= bound
	return s
}

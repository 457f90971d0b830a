package main

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"dimegate/internal/testpeer"
)

// TestSoak runs ten seconds of load while peers fail: nothing is lost, each fault struck, and what is looked at is
// there. Whether anything grows is judged by the long form.
func TestSoak(t *testing.T) {
	testpeer.Require(t, "postfix", "smtp-sink", "unbound")
	var out bytes.Buffer
	err := runSoak(limited(t), []string{"--minutes", "0.17", "--rate", "20", "--size", "2k", "--json"}, &out)
	var r soakReport
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if derr := d.Decode(&r); derr != nil {
		t.Fatal(derr, err)
	}
	if r.Messages != 204 || r.Accepted != r.Messages || r.Arrived != r.Messages || r.Lost != 0 {
		t.Errorf("%d sent, %d accepted, %d arrived, %d lost: %v", r.Messages, r.Accepted, r.Arrived, r.Lost, err)
	}
	for _, f := range faults {
		if r.Faults[f.name] == 0 {
			t.Errorf("%s: it did not happen", f.name)
		}
	}
	for _, name := range []string{"alpha", "bravo"} {
		for what, s := range r.Gateways[name].slopes() {
			if s.Points < 3 || s.Last <= 0 || s.Bound <= 0 || math.IsNaN(s.PerMinute) {
				t.Errorf("%s of %s: %+v", what, name, s)
			}
		}
	}
	if r.OK != (err == nil) || r.OK != (len(r.Why) == 0) {
		t.Errorf("ok %t, %v, %v", r.OK, r.Why, err)
	}
}

// TestSoakJudge: a lost message, a fault that did not strike and a slope each fail a run by themselves.
func TestSoakJudge(t *testing.T) {
	good := func() *soakReport {
		r := &soakReport{Messages: 10, Accepted: 10, Arrived: 10, Faults: map[string]int{}}
		for _, f := range faults {
			r.Faults[f.name] = 1
		}
		flat := slope{Flat: true}
		r.Gateways = map[string]soakGateway{"alpha": {flat, flat, flat}}
		return r
	}
	tests := map[string]func(*soakReport){
		"lost":         func(r *soakReport) { r.Arrived-- },
		"not accepted": func(r *soakReport) { r.Accepted--; r.Arrived-- },
		"no fault":     func(r *soakReport) { delete(r.Faults, faults[0].name) },
		"memory": func(r *soakReport) {
			r.Gateways["alpha"] = soakGateway{Descriptors: slope{Flat: true}, Goroutines: slope{Flat: true}}
		},
	}
	if r := good(); true {
		if r.judge(); !r.OK {
			t.Error(r.Why)
		}
	}
	for name, spoil := range tests {
		r := good()
		spoil(r)
		if r.judge(); r.OK || len(r.Why) != 1 {
			t.Errorf("%s: ok %t, %v", name, r.OK, r.Why)
		}
	}
}

// TestFit: a straight line is found, noise is no slope, a leak below the noise of a moment is one all the same.
func TestFit(t *testing.T) {
	series := func(f func(i int) float64) (list []point) {
		for i := range 100 {
			list = append(list, point{time.Duration(i) * 6 * time.Second, f(i)}) // ten a minute
		}
		return list
	}
	noise := func(i int) float64 { return float64(i*7919%13) - 6 }
	tests := map[string]struct {
		points []point
		slope  float64
		flat   bool
	}{
		"line":    {series(func(i int) float64 { return 5 + 2*float64(i) }), 20, false},
		"falls":   {series(func(i int) float64 { return 5 - 2*float64(i) }), -20, false},
		"noise":   {series(noise), 0, true},
		"leak":    {series(func(i int) float64 { return noise(i) + 0.2*float64(i) }), 2, false},
		"small":   {series(func(i int) float64 { return 0.01 * float64(i) }), 0.1, true},
		"nothing": {nil, 0, false},
	}
	for name, tt := range tests {
		s := fit(tt.points, 5)
		if math.Abs(s.PerMinute-tt.slope) > 0.5 || s.Flat != tt.flat {
			t.Errorf("%s: %+v", name, s)
		}
		if want := !tt.flat && name != "falls"; s.grows() != want {
			t.Errorf("%s grows: %t", name, !want)
		}
	}
}

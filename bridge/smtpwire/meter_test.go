package smtpwire

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	m := Meter[string]{Hourly: 60}
	for i, step := range []struct {
		after time.Duration
		n     int
		want  bool
	}{
		{0, 50, true}, {0, 11, false}, {0, 10, true}, {0, 1, false}, {-time.Hour, 1, false}, // a clock that goes back gives nothing
		{59 * time.Second, 1, false}, {60 * time.Second, 1, true}, {60 * time.Second, 1, false}, {time.Hour, 59, true}, {9 * time.Hour, 61, false}, {9 * time.Hour, 60, true},
	} {
		now := start.Add(step.after)
		if m.Over("a", step.n, now) == step.want || m.Take("a", step.n, now) != step.want {
			t.Errorf("step %d: %d after %v", i, step.n, step.after)
		}
	}
	now := start.Add(9 * time.Hour)
	if m.Add("a", -60, now); m.Over("a", 60, now) || m.Over("b", 60, now) {
		t.Error("what was given back is gone, or another pays")
	}
	if !m.Tell("a", now) || m.Tell("a", now.Add(59*time.Minute)) || !m.Tell("a", now.Add(time.Hour)) || !m.Tell("b", now) {
		t.Error("told too often, or not at all")
	}
}

// The memory is bounded, and those who did nothing go first.
func TestMeterIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := Meter[int]{Hourly: 10, Keys: 1000}
	for i := range 900 {
		m.Add(i, 0, now)
	}
	for i := range 200 {
		m.Take(-1-i, 10, now)
	}
	for i := range 200 {
		if !m.Over(-1-i, 1, now) {
			t.Fatal("one that is at its limit was forgotten while there were others")
		}
	}
	for i := range 5000 {
		m.Take(i, 10, now)
		if len(m.m) > m.Keys {
			t.Fatalf("%d keys", len(m.m))
		}
	}
}

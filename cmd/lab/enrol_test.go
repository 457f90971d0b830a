package main

import (
	"bytes"
	"testing"

	"dimegate/internal/testpeer"
)

// TestEnrol is lab enrol in short. What a first mail costs is not judged here.
func TestEnrol(t *testing.T) {
	testpeer.Require(t, "unbound")
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	r, err := enrol(limited(t), testpeer.New(t), binary, enrolPlan{users: 100, rounds: 1, perRound: 20, forget: true})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.print(&text)
	t.Log(text.String())
	if !r.OK || r.Users < 120 || r.Kills != 2 || r.Cost.Origin <= 0 || r.Cost.Both <= 0 || r.Cost.Time <= 0 {
		t.Errorf("not fine: %q", r.Why)
	}
}

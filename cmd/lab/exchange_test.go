package main

import "testing"

// TestExchange: what the command runs.
func TestExchange(t *testing.T) {
	l := newLab(t)
	_, bravo := gateways(t, l)
	r, err := beExchange(t.Context(), l, bravo)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range r.Why {
		t.Error(why)
	}
	if !r.OK || r.Failed != 0 || r.Checks < 30 {
		t.Errorf("%d of %d checks failed", r.Failed, r.Checks)
	}
}

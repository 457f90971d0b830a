package main

import "testing"

// TestSmuggle: what the command runs. That the cases would show a door that loses its step is seen at go-smtp without our guard
// (see also TestWithoutTheGuard of bridge/submission), and at a Postfix that takes a bare LF for a line end.
func TestSmuggle(t *testing.T) {
	l := newLab(t)
	alpha, _ := gateways(t, l)
	r, err := smuggle(t.Context(), l, alpha)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range r.Why {
		t.Error(why)
	}
	if !r.OK || r.Desync != 0 || r.Smuggled != 0 || !r.Control || r.Cases < 200 || len(r.Doors) != 7 {
		t.Errorf("%d cases at %d doors, %d lost their step, %d smuggled; control %t", r.Cases, len(r.Doors), r.Desync, r.Smuggled, r.Control)
	}
	for name, d := range r.Doors {
		t.Logf("%s: %d cases, %d lost their step, %d smuggled, %d accepted, %d arrived", name, d.Cases, d.Desync, d.Smuggled, d.Accepted, d.Arrived)
	}
}

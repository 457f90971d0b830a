package bridge

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/bridge/exchange"
	"dimegate/dmtp/record"
)

// Replay: what a past decision becomes, and where that cannot be known.
func TestReplay(t *testing.T) {
	plain := func(floor Floor, rung exchange.Rung) Past {
		return Past{Situation: NoRecord, Floor: floor, Action: SendSMTP, Offered: true, Rung: rung}
	}
	unmet := Past{Situation: NoRecord, Floor: FloorTLS, Action: Hold, Rule: "no TLS there"}
	for _, c := range []struct {
		name  string
		past  Past
		floor Floor
		other bool // another smart host
		want  Action
		open  bool
	}{
		{"sealed stays sealed", Past{Situation: Verified, Floor: FloorTLS, Action: SendDMTP}, FloorDIME, false, SendDMTP, false},
		{"sealed is held", Past{Situation: Verified, Floor: FloorTLS, Action: SendDMTP}, FloorHold, false, Hold, false},
		{"trust failure is not lowered", Past{Situation: Untrusted, Floor: FloorTLS, Action: Hold}, FloorOpportunistic, false, Hold, false},
		{"met, same floor", plain(FloorTLS, exchange.Authentic), FloorTLS, false, SendSMTP, false},
		{"met, lower floor", plain(FloorTLS, exchange.Authentic), FloorOpportunistic, false, SendSMTP, false},
		{"met, higher floor still met", plain(FloorTLS, exchange.Proven), FloorDANE, false, SendSMTP, false},
		{"met, higher floor not met", plain(FloorOpportunistic, exchange.Encrypted), FloorTLS, false, Hold, false},
		{"met, floor dime", plain(FloorTLS, exchange.Proven), FloorDIME, false, Bounce, false},
		{"met, another way", plain(FloorTLS, exchange.Proven), FloorTLS, true, SendSMTP, true},
		{"not met, same floor", unmet, FloorTLS, false, Hold, false},
		{"not met, higher floor", unmet, FloorDANE, false, Hold, false},
		{"not met, lower floor", unmet, FloorOpportunistic, false, SendSMTP, true},
		{"not met, another way", unmet, FloorTLS, true, SendSMTP, true},
		{"held by floor hold, lifted", Past{Situation: NoRecord, Floor: FloorHold, Action: Hold}, FloorTLS, false, SendSMTP, true},
		{"bounced by floor dime, lowered", Past{Situation: NoRecord, Floor: FloorDIME, Action: Bounce}, FloorTLS, false, SendSMTP, true},
		{"the sender's demand stays", Past{Situation: NoRecord, Floor: FloorTLS, Require: true, Action: Bounce}, FloorOpportunistic, false, Bounce, false},
		{"an override stays", Past{Situation: Unreachable, Floor: FloorTLS, Override: true, Action: SendSMTP, Offered: true, Rung: exchange.Authentic}, FloorTLS, false, SendSMTP, false},
		{"strict without a signet", Past{Situation: NoSignet, Remote: record.Strict, Floor: FloorTLS, Action: Bounce}, FloorOpportunistic, false, Bounce, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Replay(c.past, Terms{Floor: c.floor, Layer: Domain}, !c.other)
			if r.Action != c.want || r.Open != c.open || r.Rule == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A shelf is a HistoryStore in memory.
type shelf struct {
	m    map[string][]byte
	full bool
}

func (s *shelf) HistoryNames(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(s.m)), nil
}
func (s *shelf) History(_ context.Context, n string) ([]byte, error) { return s.m[n], nil }
func (s *shelf) DropHistory(_ context.Context, n string) error       { delete(s.m, n); return nil }
func (s *shelf) SetHistory(_ context.Context, n string, b []byte) error {
	if s.full {
		return errors.New("full")
	}
	s.m[n] = b
	return nil
}

// What is added is there after Flush, in order, also when a Flush failed before; Sweep forgets what is old and nothing else.
func TestHistory(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	store := &shelf{m: map[string][]byte{}}
	h := NewHistory(store, 24*time.Hour, func() time.Time { return now })
	since := func(from time.Time) (list []Past) {
		t.Helper()
		if err := Decisions(t.Context(), store, from, func(p Past) { list = append(list, p) }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for i := range historyBatch + 5 {
		h.Add(Past{Sender: "a@alpha.example", Domain: "bravo.example", Situation: Situation(i % 8), Action: Bounce, Rung: exchange.Proven, Floor: FloorDANE})
		now = now.Add(time.Second)
	}
	store.full = true
	if err := h.Flush(t.Context()); err == nil {
		t.Error("a full disk was not told")
	}
	store.full = false
	h.Add(Past{Rule: "the last"})
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := since(time.Time{})
	if len(all) != historyBatch+6 || len(store.m) != 2 || all[len(all)-1].Rule != "the last" || !slices.IsSortedFunc(all, func(a, b Past) int { return a.Time.Compare(b.Time) }) {
		t.Fatalf("%d decisions in %d batches, last %+v", len(all), len(store.m), all[len(all)-1])
	}
	if p := all[7]; p.Situation != Vanished || p.Action != Bounce || p.Rung != exchange.Proven || p.Floor != FloorDANE || p.Sender != "a@alpha.example" {
		t.Errorf("%+v", p)
	}
	if some := since(all[historyBatch].Time); len(some) != 6 {
		t.Errorf("%d since a moment in the second batch", len(some))
	}
	now = all[historyBatch-1].Time.Add(24*time.Hour + time.Second)
	if err := h.Sweep(t.Context()); err != nil || len(since(time.Time{})) != 6 {
		t.Errorf("%v: %d left", err, len(since(time.Time{})))
	}
	for range historyPending + 10 {
		h.Add(Past{})
	}
	if len(h.pending) > historyPending {
		t.Errorf("%d wait", len(h.pending))
	}
	for range 300 { // more octets than one note of the vault holds; and one that is longer alone
		h.Add(Past{Rule: strings.Repeat("x", 4000)})
		now = now.Add(time.Second)
	}
	h.Add(Past{Rule: strings.Repeat("x", historyOctets)})
	h.Add(Past{Rule: "behind it"})
	if err := h.Flush(t.Context()); err != nil || len(h.pending) > 0 {
		t.Error(err, len(h.pending))
	}
	for name, b := range store.m {
		if len(b) > historyOctets {
			t.Errorf("%s: %d octets", name, len(b))
		}
	}
	if all := since(time.Time{}); all[len(all)-1].Rule != "behind it" || len(all[len(all)-2].Rule) != 4000 {
		t.Error("decisions are missing")
	}
	(*History)(nil).Add(Past{})
	none := NewHistory(store, 0, time.Now)
	none.Add(Past{})
	if len(none.pending) != 0 {
		t.Error("remembered without a life")
	}
	store.m["20990101T000000.000000000-X"] = []byte("{")
	if err := Decisions(t.Context(), store, now, func(Past) {}); err == nil {
		t.Error("a damaged batch was read")
	}
}

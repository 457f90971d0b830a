package resolver

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp/key"
)

func somePin(t *testing.T) *Pin {
	t.Helper()
	k := newPair(t).Signing.Public()
	now := time.Now().UTC().Truncate(time.Second)
	return &Pin{Domain: "alpha.test", POKs: []POKPin{{Key: k, Text: pokText(k), Trusted: true, How: "first use", First: now, Last: now}},
		Orgs: []OrgPin{{ID: "id", Crypto: "crypto", At: now, How: "first use"}}, Policy: "mixed", Best: Secure, First: now, Last: now, Until: now.Add(time.Hour)}
}

func TestMemoryStore(t *testing.T) {
	var s MemoryStore
	if p, err := s.Pin(t.Context(), "alpha.test"); p != nil || err != nil {
		t.Fatalf("%v, %v", p, err)
	}
	p := somePin(t)
	if err := s.SetPin(t.Context(), p); err != nil || p.Version != 1 {
		t.Fatalf("%v, version %d", err, p.Version)
	}
	first, _ := s.Pin(t.Context(), "alpha.test")
	second, _ := s.Pin(t.Context(), "alpha.test")
	first.POKs[0].Trusted = false
	if second.POKs[0].Trusted != true {
		t.Error("two readers share a pin")
	}
	if err := s.SetPin(t.Context(), first); err != nil {
		t.Error(err)
	}
	if err := s.SetPin(t.Context(), second); !errors.Is(err, ErrConflict) {
		t.Errorf("the older one was written: %v", err)
	}
	if err := s.SetPin(t.Context(), somePin(t)); !errors.Is(err, ErrConflict) {
		t.Errorf("a new one over an old one: %v", err)
	}
	if all, err := s.Pins(t.Context()); err != nil || len(all) != 1 || all[0].Version != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if err := s.Forget(t.Context(), "alpha.test"); err != nil {
		t.Error(err)
	}
	if p, _ := s.Pin(t.Context(), "alpha.test"); p != nil {
		t.Error("not forgotten")
	}
}

func TestPinCheck(t *testing.T) {
	p := somePin(t)
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	back := new(Pin)
	if err := json.Unmarshal(b, back); err != nil || back.Check() != nil || back.POKs[0].Key != p.POKs[0].Key || back.Best != Secure || !back.Until.Equal(p.Until) {
		t.Errorf("%s: %v, %+v", b, err, back)
	}
	tests := map[string]func(p *Pin){
		"no domain":        func(p *Pin) { p.Domain = "" },
		"no key":           func(p *Pin) { p.POKs = nil },
		"no date":          func(p *Pin) { p.First = time.Time{} },
		"no policy":        func(p *Pin) { p.Policy = "" },
		"a key cut":        func(p *Pin) { p.POKs[0].Text = p.POKs[0].Text[1:] },
		"a key of noise":   func(p *Pin) { p.POKs[0].Text = "?" },
		"a key of nothing": func(p *Pin) { p.POKs[0].Text = pokText(key.SigningPublic{}) },
	}
	for name, spoil := range tests {
		p := somePin(t)
		if spoil(p); p.Check() == nil {
			t.Errorf("%s: passes", name)
		}
		var s MemoryStore
		if s.SetPin(t.Context(), p) == nil {
			t.Errorf("%s: kept", name)
		}
	}
	for _, text := range []string{`"secured"`, `""`, `1`} {
		var s State
		if json.Unmarshal([]byte(text), &s) == nil {
			t.Errorf("%s is a state", text)
		}
	}
}

// TestVerdicts: an *Error is one verdict, whatever led to it. ErrNoSignet and ErrNotDIME permit plain mail.
func TestVerdicts(t *testing.T) {
	for _, v := range verdicts {
		for _, below := range verdicts {
			e := error(&Error{Verdict: v, Name: "alpha.test", Why: "why", Err: fmt.Errorf("below: %w", below)})
			for _, ask := range verdicts {
				if errors.Is(e, ask) != (ask == v) {
					t.Errorf("%v over %v: is %v: %v", v, below, ask, !(ask == v))
				}
			}
			if !strings.Contains(e.Error(), below.Error()) {
				t.Errorf("%v does not say %v", e, below)
			}
		}
		if text := (&Error{Verdict: v, Name: "alice@alpha.test"}).Error(); strings.Contains(text, "alice") || !strings.Contains(text, "alpha.test") {
			t.Errorf("%q would be logged", text)
		}
		e := error(&Error{Verdict: v, Name: "alpha.test", Err: &DNSError{State: Bogus}})
		if !errors.Is(e, ErrBogus) || verdictOf(fmt.Errorf("x: %w", e)) != v {
			t.Errorf("%v hides what lies below", e)
		}
	}
}

package handoff

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dimegate/bridge/translate"
)

// What has been handed over to a recipient is known again when it comes back for him, and for nobody else.
func TestLoopGuard(t *testing.T) {
	ours, theirs := NewLoopGuard([32]byte{1}), NewLoopGuard([32]byte{2})
	const ids = "Message-ID: <1@x>\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n"
	const other = "Message-ID: <2@x>\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n"
	mark := func(g *LoopGuard, header string, to ...string) string {
		return string(g.Mark(translate.Split([]byte(header+"\r\n")), to...))
	}
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("u%d@bravo.example", i)
	}
	m := mark(ours, ids, bob)
	tests := map[string]struct {
		header string
		to     []string
		loop   bool
	}{
		"new":                                {ids, []string{bob}, false},
		"back":                               {m + ids, []string{bob}, true},
		"back, in other letters":             {m + ids, []string{"BOB@Bravo.example"}, true},
		"back, folded":                       {strings.Replace(m, ": ", ":\r\n\t", 1) + ids, []string{bob}, true},
		"back, below another":                {mark(theirs, ids, bob) + "Received: x\r\n" + mark(ours, ids, alice) + m + ids, []string{bob}, true},
		"sent on to another":                 {m + ids, []string{alice}, false},
		"one of two had it":                  {m + ids, []string{bob, alice}, false},
		"both had it":                        {mark(ours, ids, alice, bob) + ids, []string{bob, alice}, true},
		"of twenty":                          {mark(ours, ids, many...) + ids, []string{many[19]}, true},
		"all twenty":                         {mark(ours, ids, many...) + ids, many, true},
		"of another site":                    {mark(theirs, ids, bob) + ids, []string{bob}, false},
		"of another message":                 {mark(ours, other, bob) + ids, []string{bob}, false},
		"another's date":                     {m + strings.Replace(ids, "10:00:00", "10:00:01", 1), []string{bob}, false},
		"cut":                                {m[:len(m)-4] + "\r\n" + ids, []string{bob}, false},
		"not base64":                         {"X-DIME-Loop: " + strings.Repeat("*", 86) + "\r\n" + ids, []string{bob}, false},
		"in the body":                        {ids + "\r\n" + m, []string{bob}, false},
		"without ids":                        {mark(ours, "", bob), []string{bob}, true},
		"too many hosts":                     {strings.Repeat("Received: x\r\n\ty\r\n", MaxHops+1), []string{bob}, true},
		"not too many":                       {strings.Repeat("Received: x\r\n\ty\r\n", MaxHops) + "X-Received: y\r\n\r\nReceived: z\r\n", []string{bob}, false},
		"the first tag only is forged":       {splice(t, mark(theirs, ids, bob), m) + ids, []string{bob}, false},
		"another message's recipients, ours": {splice(t, m, mark(ours, other, bob)) + ids, []string{bob}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := ours.Check(translate.Split([]byte(tt.header+"\r\n")), tt.to...)
			if errors.Is(err, ErrLoop) != tt.loop || err != nil && !tt.loop {
				t.Errorf("%v", err)
			}
		})
	}
	var none *LoopGuard
	if none.Mark(translate.Message{}, bob) != nil || none.Check(translate.Split([]byte(m+ids)), bob) != nil || none.Own(translate.Message{}) != nil {
		t.Error("a guard without a key does something")
	}
}

// splice is the first tag of a marker and the others of a second.
func splice(t *testing.T, first, others string) string {
	t.Helper()
	raw := func(m string) []byte {
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(m, LoopField+":")))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return LoopField + ": " + base64.RawStdEncoding.EncodeToString(append(raw(first)[:tagSize], raw(others)[tagSize:]...)) + "\r\n"
}

// The marker is a line for up to seven recipients, tells not how many they were, and is never twice the same behind the site's tag.
func TestLoopMarker(t *testing.T) {
	g := NewLoopGuard([32]byte{1})
	m := translate.Split([]byte("Message-ID: <1@x>\r\n\r\n"))
	one, again, seven, eight := string(g.Mark(m, bob)), string(g.Mark(m, bob)), string(g.Mark(m, make([]string, 7)...)), string(g.Mark(m, make([]string, 8)...))
	if len(one) != len(seven) || one == again || strings.Count(seven, "\r\n") != 1 || strings.Count(eight, "\r\n") != 2 {
		t.Errorf("%q, %q, %q, %q", one, again, seven, eight)
	}
	for f := range translate.Fields([]byte(one)) {
		if !f.Is(LoopField) || !g.Own(m)([]byte(f.Value())) || NewLoopGuard([32]byte{2}).Own(m)([]byte(f.Value())) {
			t.Errorf("%q", f.Raw)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", g, *g, g); strings.Contains(s, "1, 0, 0, 0") || strings.Contains(s, "1 0 0 0") {
		t.Errorf("prints %s", s)
	}
}

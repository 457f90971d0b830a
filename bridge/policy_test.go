package bridge

import (
	"testing"
	"time"
)

// TestDecide has a row for every cell of dmtp.md §11.2 and for each of the terms that bend it.
func TestDecide(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct {
		name      string
		situation Situation
		remote    Remote
		terms     Terms
		want      Action
		life      time.Duration
		enhanced  string
	}{
		{"no record", NoRecord, Experimental, Terms{}, SendSMTP, 0, ""},
		{"no record, sender requires DIME", NoRecord, Experimental, Terms{Require: true}, Bounce, 0, "5.7.10"},
		{"no record, floor dime", NoRecord, Experimental, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"no record, floor hold", NoRecord, Experimental, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"verified, experimental", Verified, Experimental, Terms{}, SendDMTP, 0, ""},
		{"verified, mixed", Verified, Mixed, Terms{}, SendDMTP, 0, ""},
		{"verified, strict", Verified, Strict, Terms{}, SendDMTP, 0, ""},
		{"verified, override changes nothing", Verified, Strict, Terms{Override: true}, SendDMTP, 0, ""},
		{"verified, floor hold", Verified, Strict, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"no signet, experimental", NoSignet, Experimental, Terms{}, SendSMTP, 0, ""},
		{"no signet, mixed", NoSignet, Mixed, Terms{}, SendSMTP, 0, ""},
		{"no signet, strict", NoSignet, Strict, Terms{}, Bounce, 0, "5.7.10"},
		{"no signet, strict, override does not lower", NoSignet, Strict, Terms{Override: true}, Bounce, 0, "5.7.10"},
		{"no signet, mixed, floor dime", NoSignet, Mixed, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"unreachable, experimental", Unreachable, Experimental, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, mixed", Unreachable, Mixed, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, strict", Unreachable, Strict, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, override", Unreachable, Experimental, Terms{Override: true}, SendSMTP, 0, ""},
		{"unreachable, override, sender requires DIME", Unreachable, Experimental, Terms{Override: true, Require: true}, Hold, 0, "4.4.7"},
		{"unreachable, override, floor dime", Unreachable, Experimental, Terms{Override: true, Floor: FloorDIME}, Hold, 0, "4.4.7"},
		{"untrusted, experimental", Untrusted, Experimental, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"untrusted, strict", Untrusted, Strict, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"doubtful", Doubtful, Experimental, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"vanished", Vanished, Experimental, Terms{}, Hold, 0, "5.7.5"},
		{"not asked", Unknown, Experimental, Terms{}, Hold, 0, "4.4.7"},
		{"zero decision holds", Situation(0), Remote(0), Terms{}, Hold, 0, "4.4.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(c.situation, c.remote, c.terms)
			if d.Action != c.want || d.Life != c.life || d.Enhanced != c.enhanced {
				t.Errorf("got %v %v %q, want %v %v %q", d.Action, d.Life, d.Enhanced, c.want, c.life, c.enhanced)
			}
			if d.Rule == "" {
				t.Error("no reason")
			}
		})
	}
}

// TestFailureIsNeverClearText walks the whole table: without an override no failure ends in SMTP.
func TestFailureIsNeverClearText(t *testing.T) {
	for s := Unknown; s <= Vanished; s++ {
		for r := Experimental; r <= Strict; r++ {
			for f := FloorSMTP; f <= FloorHold; f++ {
				d := Decide(s, r, Terms{Floor: f})
				if d.Action == SendSMTP && s != NoRecord && s != NoSignet {
					t.Errorf("%v, remote %d, floor %d: SMTP", s, r, f)
				}
			}
		}
	}
}

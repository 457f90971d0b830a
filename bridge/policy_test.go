package bridge

import (
	"testing"
	"time"

	"dimegate/dmtp/record"
)

// TestDecide has a row for every cell of dmtp.md §11.2 and for each of the terms that bend it.
func TestDecide(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct {
		name      string
		situation Situation
		remote    record.Policy
		terms     Terms
		want      Action
		life      time.Duration
		enhanced  string
	}{
		{"no record", NoRecord, record.Experimental, Terms{}, SendSMTP, 0, ""},
		{"no record, sender requires DIME", NoRecord, record.Experimental, Terms{Require: true}, Bounce, 0, "5.7.10"},
		{"no record, floor dime", NoRecord, record.Experimental, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"no record, floor hold", NoRecord, record.Experimental, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"verified, experimental", Verified, record.Experimental, Terms{}, SendDMTP, 0, ""},
		{"verified, mixed", Verified, record.Mixed, Terms{}, SendDMTP, 0, ""},
		{"verified, strict", Verified, record.Strict, Terms{}, SendDMTP, 0, ""},
		{"verified, override changes nothing", Verified, record.Strict, Terms{Override: true}, SendDMTP, 0, ""},
		{"verified, floor hold", Verified, record.Strict, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"no signet, experimental", NoSignet, record.Experimental, Terms{}, SendSMTP, 0, ""},
		{"no signet, mixed", NoSignet, record.Mixed, Terms{}, SendSMTP, 0, ""},
		{"no signet, strict", NoSignet, record.Strict, Terms{}, Bounce, 0, "5.7.10"},
		{"no signet, strict, override does not lower", NoSignet, record.Strict, Terms{Override: true}, Bounce, 0, "5.7.10"},
		{"no signet, mixed, floor dime", NoSignet, record.Mixed, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"unreachable, experimental", Unreachable, record.Experimental, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, mixed", Unreachable, record.Mixed, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, strict", Unreachable, record.Strict, Terms{}, Hold, 0, "4.4.7"},
		{"unreachable, override", Unreachable, record.Experimental, Terms{Override: true}, SendSMTP, 0, ""},
		{"unreachable, override, sender requires DIME", Unreachable, record.Experimental, Terms{Override: true, Require: true}, Hold, 0, "4.4.7"},
		{"unreachable, override, floor dime", Unreachable, record.Experimental, Terms{Override: true, Floor: FloorDIME}, Hold, 0, "4.4.7"},
		{"untrusted, experimental", Untrusted, record.Experimental, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"untrusted, strict", Untrusted, record.Strict, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"doubtful", Doubtful, record.Experimental, Terms{}, Hold, 72 * hour, "5.7.5"},
		{"vanished", Vanished, record.Experimental, Terms{}, Hold, 0, "5.7.5"},
		{"not asked", Unknown, record.Experimental, Terms{}, Hold, 0, "4.4.7"},
		{"zero decision holds", Situation(0), record.Policy(0), Terms{}, Hold, 0, "4.4.7"},
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
		for r := record.Experimental; r <= record.Strict; r++ {
			for f := FloorSMTP; f <= FloorHold; f++ {
				d := Decide(s, r, Terms{Floor: f})
				if d.Action == SendSMTP && s != NoRecord && s != NoSignet {
					t.Errorf("%v, remote %d, floor %d: SMTP", s, r, f)
				}
			}
		}
	}
}

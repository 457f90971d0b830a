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
		{"no record", NoRecord, record.Experimental, Terms{Floor: FloorTLS}, SendSMTP, 0, ""},
		{"no record, sender requires DIME", NoRecord, record.Experimental, Terms{Floor: FloorOpportunistic, Require: true}, Bounce, 0, "5.7.10"},
		{"no record, floor dime", NoRecord, record.Experimental, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"no record, floor hold", NoRecord, record.Experimental, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"verified, experimental", Verified, record.Experimental, Terms{Floor: FloorTLS}, SendDMTP, 0, ""},
		{"verified, mixed", Verified, record.Mixed, Terms{Floor: FloorTLS}, SendDMTP, 0, ""},
		{"verified, strict", Verified, record.Strict, Terms{Floor: FloorTLS}, SendDMTP, 0, ""},
		{"verified, override changes nothing", Verified, record.Strict, Terms{Floor: FloorDANE, Override: true}, SendDMTP, 0, ""},
		{"verified, floor hold", Verified, record.Strict, Terms{Floor: FloorHold}, Hold, 0, "5.7.1"},
		{"no signet, experimental", NoSignet, record.Experimental, Terms{Floor: FloorTLS}, SendSMTP, 0, ""},
		{"no signet, mixed", NoSignet, record.Mixed, Terms{Floor: FloorTLS}, SendSMTP, 0, ""},
		{"no signet, strict", NoSignet, record.Strict, Terms{Floor: FloorTLS}, Bounce, 0, "5.7.10"},
		{"no signet, strict, override does not lower", NoSignet, record.Strict, Terms{Floor: FloorDANE, Override: true}, Bounce, 0, "5.7.10"},
		{"no signet, mixed, floor dime", NoSignet, record.Mixed, Terms{Floor: FloorDIME}, Bounce, 0, "5.7.10"},
		{"unreachable, experimental", Unreachable, record.Experimental, Terms{Floor: FloorTLS}, Hold, 0, "4.4.7"},
		{"unreachable, mixed", Unreachable, record.Mixed, Terms{Floor: FloorTLS}, Hold, 0, "4.4.7"},
		{"unreachable, strict", Unreachable, record.Strict, Terms{Floor: FloorTLS}, Hold, 0, "4.4.7"},
		{"unreachable, override", Unreachable, record.Experimental, Terms{Floor: FloorDANE, Override: true}, SendSMTP, 0, ""},
		{"unreachable, override, sender requires DIME", Unreachable, record.Experimental, Terms{Floor: FloorTLS, Override: true, Require: true}, Hold, 0, "4.4.7"},
		{"unreachable, override, floor dime", Unreachable, record.Experimental, Terms{Override: true, Floor: FloorDIME}, Hold, 0, "4.4.7"},
		{"untrusted, experimental", Untrusted, record.Experimental, Terms{Floor: FloorTLS}, Hold, 72 * hour, "5.7.5"},
		{"untrusted, strict", Untrusted, record.Strict, Terms{Floor: FloorTLS}, Hold, 72 * hour, "5.7.5"},
		{"doubtful", Doubtful, record.Experimental, Terms{Floor: FloorTLS}, Hold, 72 * hour, "5.7.5"},
		{"vanished", Vanished, record.Experimental, Terms{Floor: FloorTLS}, Hold, 0, "5.7.5"},
		{"not asked", Unknown, record.Experimental, Terms{Floor: FloorTLS}, Hold, 0, "4.4.7"},
		{"zero decision holds", Situation(0), record.Policy(0), Terms{Floor: FloorTLS}, Hold, 0, "4.4.7"},
		{"zero terms hold", NoRecord, record.Experimental, Terms{}, Hold, 0, "5.7.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.terms.Layer = Domain
			d := Decide(c.situation, c.remote, c.terms)
			if d.Action != c.want || d.Life != c.life || d.Enhanced != c.enhanced {
				t.Errorf("got %v %v %q, want %v %v %q", d.Action, d.Life, d.Enhanced, c.want, c.life, c.enhanced)
			}
			if d.Rule == "" || d.Layer == "" {
				t.Errorf("rule %q, layer %q", d.Rule, d.Layer)
			}
		})
	}
}

// TestFailureIsNeverClearText walks the whole table: without an override no failure ends in SMTP.
func TestFailureIsNeverClearText(t *testing.T) {
	for s := Unknown; s <= Vanished; s++ {
		for r := record.Experimental; r <= record.Strict; r++ {
			for f := FloorHold; f <= FloorDIME; f++ {
				d := Decide(s, r, Terms{Floor: f})
				if d.Action == SendSMTP && s != NoRecord && s != NoSignet {
					t.Errorf("%v, remote %d, floor %d: SMTP", s, r, f)
				}
			}
		}
	}
}

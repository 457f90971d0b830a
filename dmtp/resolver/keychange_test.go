package resolver

import (
	"testing"
	"time"

	"dimegate/dmtp/record"
)

// TestDecideKeyChange is the table of dmtp chapter 8.10, a cell a case, with the times on both sides of each limit.
func TestDecideKeyChange(t *testing.T) {
	const (
		s, m, e = record.Strict, record.Mixed, record.Experimental
		h       = time.Hour
	)
	tests := []struct {
		name     string
		facts    KeyFacts
		action   KeyAction
		alert    bool
		life     time.Duration
		enhanced string
	}{
		{"rotated, strict", KeyFacts{Event: UserRotated, Policy: s}, AcceptKey, false, 0, ""},
		{"rotated, mixed", KeyFacts{Event: UserRotated, Policy: m}, AcceptKey, false, 0, ""},
		{"rotated, experimental", KeyFacts{Event: UserRotated, Policy: e}, AcceptKey, false, 0, ""},

		{"no custody, strict", KeyFacts{Event: UserChanged, Policy: s, Since: 71 * h, Agreed: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"no custody, strict, override", KeyFacts{Event: UserChanged, Policy: s, Override: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"no custody, mixed", KeyFacts{Event: UserChanged, Policy: m, Since: 71 * h, Agreed: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"no custody, mixed, override", KeyFacts{Event: UserChanged, Policy: m, Override: true}, AcceptKey, true, 0, ""},
		{"no custody, experimental, new", KeyFacts{Event: UserChanged, Policy: e, Since: 4*h - 1, Agreed: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"no custody, experimental, alone", KeyFacts{Event: UserChanged, Policy: e, Since: 4 * h}, HoldKey, true, 72 * h, "5.7.5"},
		{"no custody, experimental, agreed", KeyFacts{Event: UserChanged, Policy: e, Since: 4 * h, Agreed: true}, AcceptKey, true, 0, ""},

		{"org signet, strict", KeyFacts{Event: OrgRotated, Policy: s}, AcceptKey, false, 0, ""},
		{"org signet, mixed", KeyFacts{Event: OrgRotated, Policy: m}, AcceptKey, false, 0, ""},
		{"org signet, experimental", KeyFacts{Event: OrgRotated, Policy: e}, AcceptKey, false, 0, ""},

		{"POK secure, strict", KeyFacts{Event: POKSecure, Policy: s}, AcceptKey, true, 0, ""},
		{"POK secure, mixed", KeyFacts{Event: POKSecure, Policy: m}, AcceptKey, true, 0, ""},
		{"POK secure, experimental", KeyFacts{Event: POKSecure, Policy: e}, AcceptKey, true, 0, ""},

		{"POK insecure, strict", KeyFacts{Event: POKInsecure, Policy: s, Since: 71 * h, CAValid: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"POK insecure, strict, override", KeyFacts{Event: POKInsecure, Policy: s, Override: true}, AcceptKey, true, 0, ""},
		{"POK insecure, mixed, new", KeyFacts{Event: POKInsecure, Policy: m, Since: 24*h - 1, CAValid: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"POK insecure, mixed, own certificate", KeyFacts{Event: POKInsecure, Policy: m, Since: 25 * h}, HoldKey, true, 72 * h, "5.7.5"},
		{"POK insecure, mixed, settled", KeyFacts{Event: POKInsecure, Policy: m, Since: 24 * h, CAValid: true}, AcceptKey, true, 0, ""},
		{"POK insecure, experimental, new", KeyFacts{Event: POKInsecure, Policy: e, Since: 4*h - 1, CAValid: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"POK insecure, experimental, own certificate", KeyFacts{Event: POKInsecure, Policy: e, Since: 5 * h}, HoldKey, true, 72 * h, "5.7.5"},
		{"POK insecure, experimental, settled", KeyFacts{Event: POKInsecure, Policy: e, Since: 4 * h, CAValid: true}, AcceptKey, true, 0, ""},

		{"gone, strict", KeyFacts{Event: RecordGone, Policy: s, Since: 71 * h}, HoldKey, true, 72 * h, "5.7.5"},
		{"gone, strict, override", KeyFacts{Event: RecordGone, Policy: s, Override: true}, PlainMail, false, 0, ""},
		{"gone, mixed, new", KeyFacts{Event: RecordGone, Policy: m, Since: 24*h - 1}, HoldKey, true, 72 * h, "5.7.5"},
		{"gone, mixed, settled", KeyFacts{Event: RecordGone, Policy: m, Since: 24 * h}, PlainMail, true, 0, ""},
		{"gone, experimental", KeyFacts{Event: RecordGone, Policy: e}, PlainMail, false, 0, ""},

		{"unsure, strict", KeyFacts{Event: RecordGoneUnsure, Policy: s, Since: 71 * h}, HoldKey, true, 120 * h, "5.7.5"},
		{"unsure, mixed", KeyFacts{Event: RecordGoneUnsure, Policy: m, Since: 71 * h}, HoldKey, true, 120 * h, "5.7.5"},
		{"unsure, experimental", KeyFacts{Event: RecordGoneUnsure, Policy: e, Since: 71 * h}, HoldKey, true, 120 * h, "5.7.5"},
		{"unsure, override", KeyFacts{Event: RecordGoneUnsure, Policy: s, Override: true}, PlainMail, true, 0, ""},

		{"user gone, strict", KeyFacts{Event: UserGone, Policy: s}, BounceKey, false, 0, "5.7.10"},
		{"user gone, mixed", KeyFacts{Event: UserGone, Policy: m}, PlainMail, false, 0, ""},
		{"user gone, experimental", KeyFacts{Event: UserGone, Policy: e}, PlainMail, false, 0, ""},

		{"an event that is none", KeyFacts{Event: 99, Policy: e, Override: true}, HoldKey, true, 72 * h, "5.7.5"},
		{"a policy that is none", KeyFacts{Event: RecordGone, Policy: 99, Since: 1000 * h}, HoldKey, true, 72 * h, "5.7.5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := DecideKeyChange(tt.facts)
			if d.Action != tt.action || d.Alert != tt.alert || d.Life != tt.life || d.Enhanced != tt.enhanced || d.Reason == "" {
				t.Errorf("%v, alert %v, %v, %q (%s); want %v, %v, %v, %q",
					d.Action, d.Alert, d.Life, d.Enhanced, d.Reason, tt.action, tt.alert, tt.life, tt.enhanced)
			}
		})
	}
}

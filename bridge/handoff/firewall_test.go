package handoff

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"dimegate/bridge/translate"
	"dimegate/internal/testmail"
)

var wall = Firewall{AuthServIDs: []string{"mx.bravo.example", "bravo.example"}}

func TestFirewall(t *testing.T) {
	for _, m := range testmail.Ours(t) {
		if m.Name != "exchange-headers" {
			continue
		}
		out, gone, err := wall.Filter(translate.Split(m.Raw))
		if err != nil {
			t.Fatal(err)
		}
		want := []translate.Change{{Name: "X-MS-Exchange-Organization-AuthAs"}, {Name: "X-MS-Exchange-CrossPremises-AuthAs"}, {Name: "Authentication-Results"}, {Name: "X-DIME-Verified"}}
		if !reflect.DeepEqual(gone, want) {
			t.Errorf("removed %+v", gone)
		}
		left := string(out.Bytes())
		for _, keep := range []string{"X-MS-Exchange-ForwardingLoop: ", "X-EOPAttributedMessage: ", "Subject: exchange\r\n", "\r\n\r\nbody\r\n"} {
			if !strings.Contains(left, keep) {
				t.Errorf("%q is gone", keep)
			}
		}
		kept := wall
		kept.KeepExchange = true
		if _, gone, err = kept.Filter(translate.Split(m.Raw)); err != nil || !reflect.DeepEqual(gone, want[2:]) {
			t.Errorf("without Exchange: removed %+v, %v", gone, err)
		}
		return
	}
	t.Error("no message exchange-headers")
}

func TestFirewallRemoves(t *testing.T) {
	tests := map[string]struct {
		header  string
		removed bool
	}{
		"ours":                    {"Authentication-Results: mx.bravo.example; dkim=pass\r\n", true},
		"ours in capitals":        {"AUTHENTICATION-RESULTS : MX.Bravo.Example.\r\n", true},
		"ours, folded":            {"Authentication-Results:\r\n mx.bravo.example\r\n ; none\r\n", true},
		"ours behind a comment":   {"Authentication-Results: (a (b\\)) c) mx.bravo.example 1; none\r\n", true},
		"ours, quoted":            {"Authentication-Results: \"mx.bravo.example\"; none\r\n", true},
		"ours before a comment":   {"Authentication-Results: mx.bravo.example(x); none\r\n", true},
		"another's":               {"Authentication-Results: mx.alpha.example; dkim=pass\r\n", false},
		"another's of our suffix": {"Authentication-Results: evil.mx.bravo.example; dkim=pass\r\n", false},
		"unclosed comment":        {"Authentication-Results: (mx.bravo.example; dkim=pass\r\n", false},
		"empty":                   {"Authentication-Results:\r\n", false},
		"ARC's":                   {"ARC-Authentication-Results: i=1; mx.bravo.example; dkim=pass\r\n", false},
		"an organization's":       {"x-ms-exchange-organization-SCL:\r\n -1\r\n", true},
		"a forest's":              {"X-MS-Exchange-Forest-RulesExecuted: x\r\n", true},
		"Exchange's, not an own":  {"X-MS-Exchange-Transport-Loop: x\r\n", false},
		"X-DIME":                  {"X-DIME: y\r\n", true},
		"X-DIME-anything, folded": {"x-dime-verified:\r\n\tyes\r\n", true},
		"white before the colon":  {"X-MS-Exchange-Organization-SCL \t: -1\r\n", true},
		"folded before the colon": {"X-MS-Exchange-Organization-AuthAs\r\n : Internal\r\n", true},
		"ours, folded before it":  {"Authentication-Results\r\n\t: mx.bravo.example; none\r\n", true},
		"no field, for us":        {"X-DIME-Verified\x0b: yes\r\n", true},
		"Exchange's own":          {"X-MS-Exchange-Transport-x: y\r\nX-MS-Exchange-Inbox-Rules-Loop: a\r\n", false},
		"in the body":             {"Subject: x\r\n\r\nX-DIME: y\r\n", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, gone, err := wall.Filter(translate.Split([]byte("A: b\r\n" + tt.header)))
			if err != nil || (len(gone) == 1) != tt.removed {
				t.Fatalf("%v, %v", gone, err)
			}
			want := "A: b\r\n"
			if !tt.removed {
				want += tt.header
			}
			if got := string(out.Bytes()); got != want {
				t.Errorf("left %q", got)
			}
		})
	}
}

// What the next program might read as a field of its own goes nowhere.
func TestFirewallHidden(t *testing.T) {
	for name, header := range map[string]string{
		"LF": "Subject: x\nX-MS-Exchange-Organization-AuthAs: Internal\r\n", "CR": "Subject: x\rX-DIME: y\r\n", "CR CR LF": "Subject: x\r\r\nX: y\r\n", "NUL": "Subject: x\x00\r\n", "LF first": "\nX-DIME: y\r\n",
	} {
		if _, _, err := wall.Filter(translate.Split([]byte(header))); !errors.Is(err, ErrHiddenHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, gone, err := wall.Filter(translate.Split([]byte("Subject: x\r\n\r\na\nb\rc\x00"))); err != nil || gone != nil || len(m.Body) != 6 {
		t.Errorf("a body: %v", err)
	}
}

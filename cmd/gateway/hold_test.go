package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"dimegate/vault"
)

func TestHolds(t *testing.T) {
	path, _ := initQueue(t, "a@x.example")
	hold := func(args ...string) (int, string, string) {
		t.Helper()
		return cli(t, append([]string{"hold", args[0], "--config", path}, args[1:]...)...)
	}
	for _, row := range []struct {
		args []string
		say  string
	}{
		{[]string{"add", "--everybody"}, "--basis says why"},
		{[]string{"add", "--basis", "x"}, "--everybody"},
		{[]string{"add", "--basis", "x", "--everybody", "--custodian", "bob@a.example"}, "--everybody"},
		{[]string{"add", "--basis", "x", "--custodian", "bob"}, "not an address"},
		{[]string{"add", "--basis", "x", "--everybody", "--from", "2026-02-30"}, "YYYY-MM-DD"},
		{[]string{"add", "--basis", "x", "--everybody", "--from", "2026-02-03", "--to", "2026-02-01"}, "before --from"},
		{[]string{"add", "--basis", "x", "--everybody", "--class", "70000"}, "65535"},
		{[]string{"release", "x"}, "--why"},
		{[]string{"release", "--why", "x", "y"}, "not an id"},
	} {
		if code, _, errs := hold(row.args...); code != 2 || !strings.Contains(errs, row.say) {
			t.Errorf("hold %q: %d %s", row.args, code, errs)
		}
	}
	code, out, errs := hold("add", "--basis", "claim", "--custodian", "Bob@A.example", "--from", "2026-01-01", "--to", "2026-01-31", "--class", "2")
	if code != 0 {
		t.Fatal(errs)
	}
	if !strings.Contains(errs, "nothing is kept of bob@a.example") {
		t.Errorf("of somebody who has no mail: %s", errs)
	}
	id := regexp.MustCompile(`[0-9a-z]{26,32}`).FindString(out)
	_, out, _ = hold("list")
	if !strings.Contains(out, "bob@a.example, classes [2], from 2026-01-01, to 2026-01-31") {
		t.Errorf("list: %s", out)
	}
	_, out, _ = hold("list", "--json")
	var h vault.LegalHold
	if err := json.Unmarshal([]byte(out), &h); err != nil || h.ID.String() != id || !h.Ended.IsZero() {
		t.Errorf("%+v %v", h, err)
	}
	if code, _, errs := hold("release", "--why", "settled", id); code != 0 {
		t.Error(errs)
	}
	if code, _, errs := hold("release", "--why", "settled", id); code != 1 || !strings.Contains(errs, "has ended") {
		t.Errorf("released twice: %d %s", code, errs)
	}
	if _, out, _ := hold("list"); out != "" {
		t.Errorf("list after its end: %s", out)
	}
	if _, out, _ := hold("list", "--all"); !strings.Contains(out, id) {
		t.Errorf("list --all: %s", out)
	}
}

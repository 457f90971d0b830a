package main

import (
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/vault"
)

// TestDue: what is to happen to a key of each state.
func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	c := config.Default()
	c.Organizations = []config.Organization{{Domains: []string{"a.test", "kept.test"}, KeepKeys: []string{"kept.test"}}}
	never := config.Default()
	never.Keys.RotateAfter = 0
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		key  vault.UserKey
		c    *config.Config
		age  time.Duration
		want dueKey
	}{
		"young":                 {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 9 * day, dueKey{What: "rotation", At: made.Add(90 * day), Life: 10}},
		"due":                   {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 90*day + time.Hour, dueKey{What: "rotation", At: made.Add(90 * day), Life: 100}},
		"late":                  {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 92 * day, dueKey{What: "rotation", At: made.Add(90 * day), Life: 102, Late: true}},
		"from before the layer": {vault.UserKey{Address: "x@a.test", Made: made}, c, 9 * day, dueKey{What: "rotation", At: made.Add(30 * day), Life: 30}},
		"of a kept domain":      {vault.UserKey{Address: "x@kept.test", Made: made}, c, 900 * day, dueKey{What: "rotation", Kept: true}},
		"never rotated":         {vault.UserKey{Address: "x@a.test", Made: made}, never, 900 * day, dueKey{What: "rotation", Kept: true}},
		"replaced":              {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day)}, c, 100 * day, dueKey{What: "destruction", At: made.Add(126 * day)}},
		"replaced, late":        {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day)}, c, 128 * day, dueKey{What: "destruction", At: made.Add(126 * day), Late: true}},
		"destroyed":             {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day), Destroyed: made.Add(126 * day)}, c, 128 * day, dueKey{}},
	} {
		got, ok := due(tt.key, tt.c, made.Add(tt.age))
		if ok == (tt.want == dueKey{}) {
			t.Errorf("%s: %t", name, ok)
		}
		if ok {
			tt.want.Name = tt.key.Address
		}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestKeysSchedule lists it by the command.
func TestKeysSchedule(t *testing.T) {
	path := initKeys(t)
	code, out, errs := cli(t, "keys", "schedule", "--config", path)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code != 0 || len(lines) != 3 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	for i, want := range []string{"  destruction  1  alice@a.example", "  rotation     2  alice@a.example", "  rotation     1  bob@b.example"} {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("%q, want …%q", lines[i], want)
		}
	}
	if code, out, errs := cli(t, "keys", "schedule", "--due", "--config", path); code != 0 || out != "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	for name, args := range map[string][]string{"two": {"a@x.test", "b@x.test"}, "no address": {"x"}} {
		if code, _, errs := cli(t, append([]string{"keys", "schedule", "--config", path}, args...)...); code != 2 || errs == "" {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
}

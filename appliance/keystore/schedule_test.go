package keystore

import (
	"slices"
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
		want Due
	}{
		"young":                 {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 9 * day, Due{What: "rotation", At: made.Add(90 * day), Life: 10}},
		"due":                   {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 90*day + time.Hour, Due{What: "rotation", At: made.Add(90 * day), Life: 100}},
		"late":                  {vault.UserKey{Address: "x@a.test", Made: made, Layered: true}, c, 92 * day, Due{What: "rotation", At: made.Add(90 * day), Life: 102, Late: true}},
		"from before the layer": {vault.UserKey{Address: "x@a.test", Made: made}, c, 9 * day, Due{What: "rotation", At: made.Add(30 * day), Life: 30}},
		"of a kept domain":      {vault.UserKey{Address: "x@kept.test", Made: made}, c, 900 * day, Due{What: "rotation", Kept: true}},
		"never rotated":         {vault.UserKey{Address: "x@a.test", Made: made}, never, 900 * day, Due{What: "rotation", Kept: true}},
		"replaced":              {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day)}, c, 100 * day, Due{What: "destruction", At: made.Add(126 * day)}},
		"replaced, late":        {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day)}, c, 128 * day, Due{What: "destruction", At: made.Add(126 * day), Late: true}},
		"destroyed":             {vault.UserKey{Address: "x@a.test", Made: made, Retired: made.Add(90 * day), Destroyed: made.Add(126 * day)}, c, 128 * day, Due{}},
	} {
		got, ok := userDue(tt.key, tt.c, made.Add(tt.age))
		if ok == (tt.want == Due{}) {
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

// TestPrimaryDue: what is to happen to a domain's primary key in each state.
func TestPrimaryDue(t *testing.T) {
	const day = 24 * time.Hour
	c, never := config.Default(), config.Default()
	never.Keys.RemindPrimaryAfter = 0
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key := func(age time.Duration, retired, destroyed time.Time) vault.OrgKey {
		return vault.OrgKey{Domain: "a.test", Kind: vault.PrimaryKey, Made: made.Add(age), Retired: retired, Destroyed: destroyed}
	}
	none := time.Time{}
	due := made.Add(1095 * day)
	for name, tt := range map[string]struct {
		keys []vault.OrgKey
		c    *config.Config
		age  time.Duration
		want []Due
	}{
		"young":       {[]vault.OrgKey{key(0, none, none)}, c, 219 * day, []Due{{"a.test", 1, "primary key: rollover", due, 20, false, false}}},
		"due":         {[]vault.OrgKey{key(0, none, none)}, c, 1097 * day, []Due{{"a.test", 1, "primary key: rollover", due, 100, true, false}}},
		"never":       {[]vault.OrgKey{key(0, none, none)}, never, 1097 * day, nil},
		"begun":       {[]vault.OrgKey{key(0, none, none), key(9*day, none, none)}, c, 10 * day, []Due{{"a.test", 2, "primary key: signing", made.Add(40 * day), 0, false, false}}},
		"forgotten":   {[]vault.OrgKey{key(0, none, none), key(9*day, none, none)}, c, 50 * day, []Due{{"a.test", 2, "primary key: signing", made.Add(40 * day), 0, true, false}}},
		"switched":    {[]vault.OrgKey{key(0, made.Add(40*day), none), key(9*day, none, none)}, c, 50 * day, []Due{{"a.test", 1, "primary key: destruction", made.Add(71 * day), 0, false, false}}},
		"rolled over": {[]vault.OrgKey{key(0, made.Add(40*day), made.Add(71*day)), key(9*day, none, none)}, never, 90 * day, nil},
	} {
		if got := primaryDue(tt.keys, tt.c, made.Add(tt.age)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestSecondaryDue: what is to happen to a domain's secondary keys in each state.
func TestSecondaryDue(t *testing.T) {
	const day = 24 * time.Hour
	c := config.Default()
	c.Organizations = []config.Organization{{Domains: []string{"a.test", "kept.test"}, KeepKeys: []string{"kept.test"}}}
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key := func(n byte, made, retired, destroyed time.Time) vault.OrgKey {
		return vault.OrgKey{ID: vault.ID{n}, Domain: "a.test", Kind: vault.SecondaryKey, Made: made, Retired: retired, Destroyed: destroyed}
	}
	first, next, never := key(1, made, time.Time{}, time.Time{}), key(2, made.Add(365*day), time.Time{}, time.Time{}), time.Time{}
	kept := first
	kept.Domain = "kept.test"
	other := vault.OrgKey{Domain: "a.test", Kind: vault.PrimaryKey, Made: made}
	switched := made.Add(396 * day)
	for name, tt := range map[string]struct {
		keys []vault.OrgKey
		age  time.Duration
		want []Due
	}{
		"young":             {[]vault.OrgKey{other, first}, 73 * day, []Due{{"a.test", 1, "secondary key: successor", made.Add(365 * day), 20, false, false}}},
		"late":              {[]vault.OrgKey{other, first}, 367 * day, []Due{{"a.test", 1, "secondary key: successor", made.Add(365 * day), 100, true, false}}},
		"of a kept domain":  {[]vault.OrgKey{kept}, 900 * day, []Due{{"kept.test", 1, "secondary key: successor", never, 0, false, true}}},
		"with a successor":  {[]vault.OrgKey{other, first, next}, 366 * day, []Due{{"a.test", 2, "secondary key: signing", switched, 0, false, false}}},
		"replaced":          {[]vault.OrgKey{other, key(1, made, switched, never), next}, 397 * day, []Due{{"a.test", 1, "secondary key: destruction", switched.Add(126 * day), 0, false, false}, {"a.test", 2, "secondary key: successor", made.Add(730 * day), 8, false, false}}},
		"gone":              {[]vault.OrgKey{key(1, made, switched, switched.Add(126*day)), next}, 730 * day, []Due{{"a.test", 2, "secondary key: successor", made.Add(730 * day), 100, false, false}}},
		"without secondary": {[]vault.OrgKey{other}, 730 * day, nil},
	} {
		if got := secondaryDue(tt.keys, c, made.Add(tt.age)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

package resolver

import (
	"testing"
	"time"
)

// What was put in a time that is still to come, because the clock went back, is not served for all the time until then.
func TestCacheClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const ttl = time.Hour
	for name, tt := range map[string]struct {
		at   time.Duration
		want bool
	}{
		"at once":                {0, true},
		"before its time":        {ttl - time.Second, true},
		"at its time":            {ttl, false},
		"a year later":           {365 * 24 * time.Hour, false},
		"a little earlier":       {-clockSkew, true},
		"earlier than clocks go": {-clockSkew - time.Second, false},
		"a year earlier":         {-365 * 24 * time.Hour, false},
	} {
		c := newCache(10, 1<<20, func(int) int { return 1 })
		c.put("x", 1, now.Add(ttl), now)
		if _, ok := c.get("x", now.Add(tt.at)); ok != tt.want {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

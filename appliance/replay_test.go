package appliance

import (
	"testing"
	"time"

	"dimegate/appliance/config"
)

// What a gateway decided is taken again under another policy, after it has stopped.
func TestReplayPolicy(t *testing.T) {
	_, alpha := acquainted(t)
	for name, tt := range map[string]struct {
		policy  config.Policy
		since   time.Time
		changed int
		becomes string
	}{
		"the same":           {alpha.config.Policy, time.Time{}, 0, ""},
		"hold for all":       {config.Policy{Floor: "hold"}, time.Time{}, 2, "hold"},
		"hold for a domain":  {config.Policy{Floor: "tls", Domains: map[string]config.DomainPolicy{"bravo.example": {Floor: "hold"}}}, time.Time{}, 1, "hold"},
		"hold for a sender":  {config.Policy{Floor: "tls", Senders: map[string]config.SenderPolicy{"bob@alpha.example": {Floor: "hold"}}}, time.Time{}, 2, "hold"},
		"nothing since then": {config.Policy{Floor: "hold"}, time.Now().Add(time.Hour), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ReplayPolicy(t.Context(), alpha.config, tt.policy, tt.since)
			if err != nil {
				t.Fatal(err)
			}
			if r.Changed != tt.changed || tt.since.IsZero() && r.Decisions != 2 {
				t.Errorf("%+v", r)
			}
			for _, c := range r.Changes {
				if c.Was != "dmtp" || c.Becomes != tt.becomes || c.Open || (c.Sender != "") != (c.Layer == "sender") {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

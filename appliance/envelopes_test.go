package appliance

import (
	"encoding/json"
	"testing"
	"time"

	"dimegate/bridge"
	"dimegate/bridge/journal"
	"dimegate/vault"
)

// TestStoredEnvelopesRelabelled: what a case file says of a direction is nobody's word; the envelope, which the log attests, has its own form.
func TestStoredEnvelopesRelabelled(t *testing.T) {
	for name, x := range map[string]struct {
		direction vault.Kind
		envelope  any
	}{
		"DMTP":              {vault.Inbound, bridge.Arrival{Author: "a@b.example", Recipient: "c@d.example"}},
		"port 25":           {vault.Inbound, Passage{ReturnPath: "a@b.example", Recipients: []string{"c@d.example"}, At: time.Now()}},
		"journal":           {vault.Internal, journal.Stored{Format: journal.StoredFormat, Messages: 1, Recipients: []journal.Recipient{{Address: "c@d.example"}}}},
		"unreadable report": {vault.Internal, journal.Stored{Format: journal.StoredFormat}},
	} {
		b, err := json.Marshal(x.envelope)
		check(t, err)
		for _, d := range []vault.Kind{vault.Outbound, vault.Inbound, vault.Internal} {
			if list, err := StoredEnvelopes(d, b); (err == nil) != (d == x.direction) {
				t.Errorf("%s as %v: %+v, %v", name, d, list, err)
			}
		}
	}
}

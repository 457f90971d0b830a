package appliance

import (
	"cmp"
	"context"
	"slices"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
)

// A Replay is what past decisions would have been under another policy.
type Replay struct {
	Since     time.Time      `json:"since"`
	Decisions int            `json:"decisions"` // that were taken again
	Changed   int            `json:"changed"`
	Changes   []ReplayChange `json:"changes"` // the most frequent first
}

// A ReplayChange is decisions that would change in the same way.
type ReplayChange struct {
	Domain  string       `json:"domain"`           // of the recipients
	Sender  string       `json:"sender,omitempty"` // where a sender's own floor decides
	Was     string       `json:"was"`              // dmtp, smtp, hold or bounce
	Becomes string       `json:"becomes"`
	Open    bool         `json:"open,omitempty"` // it would be tried by plain SMTP; what the servers would have said is not known
	Rule    string       `json:"rule"`
	Layer   bridge.Layer `json:"layer"`
	Count   int          `json:"count"`
}

// ReplayPolicy takes the decisions since a moment again under the policy of another configuration. The vault is c's, and is
// opened beside a running gateway; nobody is asked anything.
func ReplayPolicy(ctx context.Context, c *config.Config, with config.Policy, since time.Time) (Replay, error) {
	v, err := keystore.Open(ctx, c.Vault, false)
	if err != nil {
		return Replay{}, err
	}
	defer v.Close()
	r := Replay{Since: since, Changes: []ReplayChange{}}
	counts := map[ReplayChange]int{}
	err = bridge.Decisions(ctx, keystore.History{Vault: v.Vault}, since, func(p bridge.Past) {
		r.Decisions++
		now := bridge.Replay(p, floorFor(with, p.Sender, p.Domain), sameWay(c.Policy, with, p.Domain))
		if now.Action == p.Action && !now.Open {
			return
		}
		r.Changed++
		change := ReplayChange{Domain: p.Domain, Was: p.Action.String(), Becomes: now.Action.String(), Open: now.Open, Rule: now.Rule, Layer: now.Layer}
		if now.Layer == bridge.Sender {
			change.Sender = p.Sender
		}
		counts[change]++
	})
	for change, n := range counts {
		change.Count = n
		r.Changes = append(r.Changes, change)
	}
	slices.SortFunc(r.Changes, func(a, b ReplayChange) int {
		return cmp.Or(b.Count-a.Count, cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Sender, b.Sender), cmp.Compare(a.Rule, b.Rule))
	})
	return r, err
}

// sameWay tells whether two policies send plain SMTP for a domain to the same host.
func sameWay(a, b config.Policy, domain string) bool {
	domain = normal(domain)
	host, port := a.SmartHostFor(domain)
	host2, port2 := b.SmartHostFor(domain)
	return host == host2 && port == port2
}

package keystore

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/certificates"
	"dimegate/appliance/config"
	"dimegate/dmtp"
	"dimegate/trustful"
	"dimegate/vault"
)

// A Due is one thing that is to happen to a key.
type Due struct {
	Name   string    `json:"name"`
	Number int       `json:"number"`
	What   string    `json:"what"` // rotation or destruction; "secondary key: " and one of SecondaryMade and its like; "primary key: " and rollover, signing or destruction
	At     time.Time `json:"at,omitzero"`
	Life   int       `json:"life_percent,omitempty"` // of a rotation and a successor: how much of the key's life has passed
	Late   bool      `json:"late,omitempty"`         // by more than a day: look into the gateway's log
	Kept   bool      `json:"kept,omitempty"`         // never: by organization.keep_keys, keys.rotate_after or keys.rotate_secondary_after
}

// lateAfter is how long what is due may wait: the gateway looks once an hour, when it runs.
const lateAfter = 24 * time.Hour

// Schedule visits what is to happen to the keys of one domain or address, or of all domains, the listeners' certificates, and all users,
// each in order.
func Schedule(ctx context.Context, v *vault.Vault, c *config.Config, only string, now time.Time, visit func(Due) error) error {
	if !strings.Contains(only, "@") {
		if err := domainsDue(ctx, v, c, only, now, visit); err != nil || only != "" {
			return err
		}
		for file, leaf := range sorted(certificates.InUse(c)) {
			if err := visit(Due{Name: file, What: "certificate: renewal", At: leaf.NotAfter, Life: certificates.Life(leaf, now), Late: now.After(leaf.NotAfter)}); err != nil {
				return err
			}
		}
	}
	if only != "" {
		return usersDue(ctx, v, c, []string{only}, now, visit)
	}
	const page = 200
	for after := ""; ; {
		users, err := v.Users(ctx, after, page)
		if err != nil || len(users) == 0 {
			return err
		}
		var addresses []string
		for _, u := range users {
			addresses = append(addresses, u.Address)
		}
		after = addresses[len(addresses)-1]
		if err := usersDue(ctx, v, c, addresses, now, visit); err != nil {
			return err
		}
	}
}

func domainsDue(ctx context.Context, v *vault.Vault, c *config.Config, only string, now time.Time, visit func(Due) error) error {
	all, err := v.OrgKeys(ctx, only)
	if err != nil {
		return err
	}
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Domain == all[0].Domain {
			n++
		}
		for _, d := range append(primaryDue(all[:n], c, now), secondaryDue(all[:n], c, now)...) {
			if err := visit(d); err != nil {
				return err
			}
		}
		all = all[n:]
	}
	return nil
}

// primaryDue is what is to happen to the primary key among a domain's: all of it by hand.
func primaryDue(keys []vault.OrgKey, c *config.Config, now time.Time) (list []Due) {
	number := 0
	for _, k := range keys {
		if k.Kind == vault.PrimaryKey {
			number++
		}
	}
	switch p, life := Primaries(keys), c.Keys.RemindPrimaryAfter; {
	case len(p) == 1 && life > 0:
		list = append(list, Due{Name: p[0].Domain, Number: number, What: "primary key: rollover", At: p[0].Made.Add(life), Life: percent(now.Sub(p[0].Made), life)})
	case len(p) > 1 && p[0].Retired.IsZero():
		list = append(list, Due{Name: p[0].Domain, Number: number, What: "primary key: signing", At: p[1].Made.Add(CacheLife)})
	case len(p) > 1:
		list = append(list, Due{Name: p[0].Domain, Number: number - 1, What: "primary key: destruction", At: p[0].Retired.Add(CacheLife)})
	}
	for i := range list {
		list[i].Late = now.Sub(list[i].At) > lateAfter
	}
	return list
}

// secondaryDue is what is to happen to the secondary keys among a domain's.
func secondaryDue(keys []vault.OrgKey, c *config.Config, now time.Time) []Due {
	numbers := map[vault.ID]int{}
	for _, k := range keys {
		if k.Kind == vault.SecondaryKey {
			numbers[k.ID] = len(numbers) + 1
		}
	}
	life := c.SecondaryLife(keys[0].Domain)
	var list []Due
	for _, s := range SecondarySteps(keys, max(life, 1)) {
		d := Due{Name: s.Key.Domain, Number: numbers[s.Key.ID], What: "secondary key: " + s.What, At: s.At}
		switch {
		case life == 0 && s.What != SecondarySigns:
			d.At, d.Kept = time.Time{}, true
		case s.What == SecondaryMade:
			d.Life = percent(now.Sub(s.Key.Made), life)
		case s.What == SecondaryDestroyed: // at the latest: what was signed last has its life and its grace
			d.At = s.Key.Retired.Add(c.Keys.RotateAfter + c.Keys.Grace)
		}
		d.Late = !d.Kept && now.Sub(d.At) > lateAfter
		list = append(list, d)
	}
	return list
}

func usersDue(ctx context.Context, v *vault.Vault, c *config.Config, addresses []string, now time.Time, visit func(Due) error) error {
	for _, a := range addresses {
		keys, err := v.UserKeys(ctx, a)
		if err != nil {
			return err
		}
		disabled, err := v.Disabled(ctx, a)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if !disabled.IsZero() && k.Retired.IsZero() {
				k.Retired = disabled // as good as: it is not replaced, and goes at the end of its grace
			}
			if d, ok := userDue(k, c, now); ok {
				if err := visit(d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// userDue is what is to happen to a user's key, if anything is.
func userDue(k vault.UserKey, c *config.Config, now time.Time) (Due, bool) {
	d := Due{Name: k.Address, Number: k.Number}
	life := c.Keys.RotateAfter
	if life != 0 && c.Alt.Mode != "off" && !k.Layered {
		life = trustful.MinLife // it is replaced by one with keys of the alternate layer
	}
	switch {
	case !k.Destroyed.IsZero(), k.Held: // of what is not here nothing is due
		return Due{}, false
	case !k.Retired.IsZero():
		d.What, d.At = "destruction", k.Retired.Add(c.Keys.Grace)
	case life == 0 || c.KeepsKeys(dmtp.DomainOf(k.Address)):
		d.What, d.Kept = "rotation", true
	default:
		d.What, d.At, d.Life = "rotation", k.Made.Add(life), percent(now.Sub(k.Made), life)
	}
	d.Late = !d.Kept && now.Sub(d.At) > lateAfter
	return d, true
}

// Alarms are what somebody must look at: a primary key with four fifths of its life behind it, and whatever should have happened by
// itself and did not. Of users it says how many are late, up to a bound.
func Alarms(ctx context.Context, v *vault.Vault, c *config.Config, now time.Time) (list []Due, err error) {
	err = domainsDue(ctx, v, c, "", now, func(d Due) error {
		if d.Late || d.Life >= certificates.Aged && strings.HasPrefix(d.What, "primary") {
			list = append(list, d)
		}
		return nil
	})
	if err != nil || c.Keys.RotateAfter == 0 {
		return list, err
	}
	const bound = 1000
	late, err := v.AgedUsers(ctx, now.Add(-c.Keys.RotateAfter-lateAfter), time.Time{}, "", bound)
	late = slices.DeleteFunc(late, func(a string) bool { return c.KeepsKeys(dmtp.DomainOf(a)) })
	if len(late) > 0 {
		list = append(list, Due{Name: "users", Number: len(late), What: "rotation", Late: true})
	}
	return list, err
}

// sorted goes through a map in the order of its keys.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// percent is how much of a life has passed. A hundred times ten years is more than a Duration holds.
func percent(passed, life time.Duration) int { return int(passed / (life / 100)) }

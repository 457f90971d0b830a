package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// CacheLife is how long others may use what we published before they look again: 30 days (dmtp.md §8.8), and one for clocks.
const CacheLife = trustful.MinLife + 24*time.Hour

// What is to happen to a secondary key.
const (
	SecondaryMade      = "successor"   // one is published beside it
	SecondarySigns     = "signing"     // it signs, and the one before is retired
	SecondaryDestroyed = "destruction" // it leaves the signet, with its private half: nothing that lives stands on it
)

// A SecondaryStep is what is to happen to one of a domain's secondary keys.
type SecondaryStep struct {
	What string
	Key  vault.OrgKey
	At   time.Time // of a destruction: not before
}

// SecondarySteps says what is to happen to the secondary keys among a domain's, each of which signs users' signets for a life; life 0
// begins nothing new. A successor stands in the signet for as long as others cache that, and signs then; what it replaced stays
// there until no signet stands on it that is current or whose key opens mail.
func SecondarySteps(keys []vault.OrgKey, life time.Duration) []SecondaryStep {
	var steps []SecondaryStep
	var living []vault.OrgKey
	for _, k := range keys {
		switch {
		case k.Kind != vault.SecondaryKey || !k.Destroyed.IsZero():
		case !k.Retired.IsZero():
			steps = append(steps, SecondaryStep{SecondaryDestroyed, k, k.Retired.Add(CacheLife)})
		default:
			living = append(living, k)
		}
	}
	switch {
	case len(living) == 1 && life > 0:
		steps = append(steps, SecondaryStep{SecondaryMade, living[0], living[0].Made.Add(life)})
	case len(living) > 1:
		steps = append(steps, SecondaryStep{SecondarySigns, living[1], living[1].Made.Add(CacheLife)})
	}
	return steps
}

// RotateSecondary takes the steps of a domain that are due, and returns those that it took.
func RotateSecondary(ctx context.Context, v *vault.Vault, domain string, life time.Duration, now time.Time) (took []SecondaryStep, err error) {
	keys, err := v.OrgKeys(ctx, domain)
	if err != nil {
		return nil, err
	}
	for _, s := range SecondarySteps(keys, life) {
		if now.Before(s.At) {
			continue
		}
		done, err := takeSecondary(ctx, v, domain, keys, s, now)
		switch {
		case errors.Is(err, vault.ErrChanged): // another gateway was first
		case err != nil:
			return took, fmt.Errorf("secondary key of %s, %s: %w", domain, s.What, err)
		case done:
			took = append(took, s)
		}
	}
	return took, nil
}

func takeSecondary(ctx context.Context, v *vault.Vault, domain string, keys []vault.OrgKey, s SecondaryStep, now time.Time) (bool, error) {
	public := key.SigningPublic(s.Key.Public)
	switch s.What {
	case SecondarySigns:
		i := slices.IndexFunc(keys, func(k vault.OrgKey) bool { return k.Kind == vault.SecondaryKey && k.Retired.IsZero() })
		return true, v.ChangeOrg(ctx, domain, vault.OrgChange{Retire: []vault.ID{keys[i].ID}}, now)
	case SecondaryDestroyed:
		if stands, err := standsOn(ctx, v, domain, public); stands || err != nil {
			return false, err
		}
		return true, publish(ctx, v, domain, vault.OrgChange{Destroy: []vault.ID{s.Key.ID}}, now, func(d *signet.Details) {
			d.Secondary = slices.DeleteFunc(d.Secondary, func(k signet.SecondaryKey) bool { return k.Key == public })
		})
	}
	made, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		return false, err
	}
	defer made.Destroy()
	return true, publish(ctx, v, domain, vault.OrgChange{Add: vault.OrgKeys{Secondary: made}}, now, func(d *signet.Details) {
		d.Secondary = append(d.Secondary, signet.SecondaryKey{Permissions: signet.SignSignets, Key: made.Public()})
	})
}

// standsOn reports whether a signet that lives was signed by a key.
func standsOn(ctx context.Context, v *vault.Vault, domain string, public key.SigningPublic) (stands bool, err error) {
	err = v.LivingSignets(ctx, domain, func(octets []byte) (more bool, err error) {
		s, err := signet.Parse(octets)
		if err != nil {
			return false, fmt.Errorf("a user's signet in the vault: %w", err)
		}
		stands = s.CertifiedBy(public)
		return !stands, nil
	})
	return stands, err
}

// publish makes a domain's signet anew, with what edit changes in it, as part of a step.
func publish(ctx context.Context, v *vault.Vault, domain string, c vault.OrgChange, now time.Time, edit func(*signet.Details)) error {
	all, err := Organization{Vault: v}.Signets(ctx, domain)
	if err != nil {
		return err
	}
	primary, err := v.OrgSigning(ctx, domain, vault.PrimaryKey)
	if err != nil {
		return err
	}
	defer primary.Destroy()
	if primary.Public() != all[len(all)-1].SigningKey() {
		return fmt.Errorf("the primary key of the signet of %s is not the one in the vault", domain)
	}
	return publishBy(ctx, v, domain, primary, all, c, now, edit)
}

// publishBy is publish with a primary key that need not be the one of the signets before.
func publishBy(ctx context.Context, v *vault.Vault, domain string, primary key.Signing, all []*signet.Signet, c vault.OrgChange, now time.Time, edit func(*signet.Details)) error {
	current := all[len(all)-1]
	d := signet.Details{Dialect: current.Dialect(), Name: domain, Secondary: current.SecondaryKeys()}
	for _, f := range current.Fields() {
		if f.ID >= signet.FieldName && f.ID <= signet.FieldPhoto {
			d.Fields = append(d.Fields, f)
		}
	}
	edit(&d)
	made, err := signAnew(ctx, v, domain, primary, current, d)
	if err != nil {
		return err
	}
	c.Signet, c.Number = made.Bytes(), len(all)+1
	return v.ChangeOrg(ctx, domain, c, now)
}

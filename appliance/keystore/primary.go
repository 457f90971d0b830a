package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

// Why a rollover of a primary key does not go on.
var (
	ErrNoRollover  = errors.New("no rollover of the primary key is under way")
	ErrTooEarly    = errors.New("others may still use what they cached before")
	ErrUnpublished = errors.New("the management record in DNS does not list both primary keys")
)

// A Rollover is a domain's change of its primary key, under way. Both keys stand in the management record until the end; the old one signs
// until the switch.
type Rollover struct {
	Old, New vault.OrgKey
	Switched bool      // the new key signs
	Seen     time.Time // when DNS was first seen to list both; zero: never
	Next     time.Time // not before this the next step; zero while DNS was not seen to list both
}

// RolloverOf returns the rollover of a domain; ErrNoRollover.
func RolloverOf(ctx context.Context, v *vault.Vault, domain string) (r Rollover, err error) {
	keys, err := v.OrgKeys(ctx, domain)
	if err != nil {
		return r, err
	}
	living := Primaries(keys)
	if len(living) < 2 {
		return r, fmt.Errorf("%s: %w", domain, ErrNoRollover)
	}
	r.Old, r.New = living[0], living[1]
	seen, err := note(ctx, v, rolloverNote, domain)
	if err != nil {
		return r, err
	}
	if public, at, _ := strings.Cut(string(seen), " "); public == key.SigningPublic(r.New.Public).String() {
		if r.Seen, err = time.Parse(time.RFC3339, at); err != nil {
			return r, fmt.Errorf("%s: when the record was first seen: %w", domain, vault.ErrCorrupt)
		}
	}
	r.Switched = !r.Old.Retired.IsZero()
	switch {
	case r.Switched:
		r.Next = r.Old.Retired.Add(CacheLife)
	case !r.Seen.IsZero():
		r.Next = r.Seen.Add(CacheLife)
	}
	return r, nil
}

// rolloverNote is the kind of note that says when DNS was first seen to list the new key.
const rolloverNote = "primary rollover"

// Primaries are the primary keys among a domain's that its management record lists: one, or during a rollover the old and the new one.
func Primaries(keys []vault.OrgKey) (list []vault.OrgKey) {
	for _, k := range keys {
		if k.Kind == vault.PrimaryKey && k.Destroyed.IsZero() {
			list = append(list, k)
		}
	}
	return list
}

// BeginRollover makes a domain's next primary key, unless there is one. Nothing that others see changes: the record is to be published.
func BeginRollover(ctx context.Context, v *vault.Vault, domain string, now time.Time) error {
	if _, err := RolloverOf(ctx, v, domain); !errors.Is(err, ErrNoRollover) {
		return err
	}
	if _, err := (Organization{Vault: v}).Signets(ctx, domain); err != nil {
		return err
	}
	made, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		return err
	}
	defer made.Destroy()
	return v.ChangeOrg(ctx, domain, vault.OrgChange{Add: vault.OrgKeys{Primary: made}}, now)
}

// SeeRollover notes that DNS lists some primary keys of a domain: the first time that both are among them counts.
func SeeRollover(ctx context.Context, v *vault.Vault, domain string, listed []key.SigningPublic, now time.Time) error {
	r, err := RolloverOf(ctx, v, domain)
	if err != nil {
		return err
	}
	found := 0
	for _, k := range listed {
		if k == key.SigningPublic(r.Old.Public) || k == key.SigningPublic(r.New.Public) {
			found++
		}
	}
	switch {
	case found < 2:
		return ErrUnpublished
	case !r.Seen.IsZero():
		return nil
	}
	return v.SetNote(ctx, rolloverNote, domain, []byte(key.SigningPublic(r.New.Public).String()+" "+now.UTC().Format(time.RFC3339)))
}

// StepRollover takes the next step: the new key signs the organisational signet and the old one is retired; or, the second time, the old
// one is destroyed. Hurry takes it before others can know the new key for certain: for a key that somebody may have.
func StepRollover(ctx context.Context, v *vault.Vault, domain string, hurry bool, now time.Time) error {
	r, err := RolloverOf(ctx, v, domain)
	switch {
	case err != nil:
		return err
	case r.Seen.IsZero():
		return ErrUnpublished
	case now.Before(r.Next) && !hurry:
		return ErrTooEarly
	case r.Switched:
		return v.ChangeOrg(ctx, domain, vault.OrgChange{Destroy: []vault.ID{r.Old.ID}}, now)
	}
	if stands, err := standsOn(ctx, v, domain, key.SigningPublic(r.Old.Public)); err != nil {
		return err
	} else if stands {
		return fmt.Errorf("%s: users' signets are signed by the primary key itself: under the new one they would be nobody's: wait until they were rotated, which has the secondary key sign them", domain)
	}
	all, err := Organization{Vault: v}.Signets(ctx, domain)
	if err != nil {
		return err
	}
	next, err := v.OrgSuccessor(ctx, domain, vault.PrimaryKey)
	if err != nil {
		return err
	}
	defer next.Destroy()
	return publishBy(ctx, v, domain, next, all, vault.OrgChange{Retire: []vault.ID{r.Old.ID}}, now, func(*signet.Details) {})
}

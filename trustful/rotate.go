package trustful

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dimegate/dmtp/signet"
)

// MinLife is how long a current key must stay at least: as long as others cache a signet (dmtp.md §8.8), so that a peer's
// copy is never more than one step behind.
const MinLife = 30 * 24 * time.Hour

// Rotate replaces both keys of an address, with chain of custody, and returns the new signet. The old encryption key
// opens mail until Sweep destroys it; the old signing key is destroyed with the same commit.
func (k *Keeper) Rotate(ctx context.Context, address string) (*signet.Signet, error) {
	address, err := Normal(address)
	if err != nil {
		return nil, err
	}
	mailbox, _, err := k.generations(ctx, address)
	if err != nil {
		return nil, err
	}
	return k.rotate(ctx, mailbox, time.Time{})
}

// rotate replaces the keys of a normal address, those made before a moment alone; a zero moment: whenever they were made.
// It returns the signet that is current then.
func (k *Keeper) rotate(ctx context.Context, address string, madeBefore time.Time) (*signet.Signet, error) {
	release, err := k.making.acquire(ctx, address)
	if err != nil {
		return nil, err
	}
	defer release()
	u, err := k.current(ctx, address)
	if err != nil {
		return nil, err
	}
	if u.held {
		return nil, ErrOwnKeys
	}
	if !madeBefore.IsZero() && !u.made.Before(madeBefore) {
		return u.signet, nil // another process was first
	}
	return k.make(ctx, address, u.number+1, &u)
}

// rotatePage is how many addresses RotateDue asks the store for at a time.
const rotatePage = 200

// RotateDue rotates the keys that have had their life, and returns how many; among them those that were made before the
// alternate layer was offered, as soon as peers can have forgotten the signet before. One address's fault does not keep the others
// from it: they are tried all, and the error says how many failed, and why the first did. What failed is due again.
func (k *Keeper) RotateDue(ctx context.Context) (rotated int, err error) {
	if k.Life == 0 {
		return 0, nil
	}
	before, bare := k.Now().Add(-k.Life), time.Time{}
	latest := before
	if len(k.Layer.Offer) > 0 {
		bare = k.Now().Add(-MinLife)
		latest = bare
	}
	failed, first := 0, error(nil)
	for after := ""; ; {
		due, err := k.Store.Aged(ctx, before, bare, after, rotatePage)
		if err != nil {
			return rotated, err
		}
		for _, address := range due {
			after = address
			if k.Keeps != nil && k.Keeps(domainOf(address)) {
				continue
			}
			switch _, err := k.rotate(ctx, address, latest); {
			case err == nil:
				rotated++
			case ctx.Err() != nil:
				return rotated, ctx.Err()
			case errors.Is(err, ErrConflict), errors.Is(err, ErrNotOurs), errors.Is(err, ErrNoUser), errors.Is(err, ErrOwnKeys): // done elsewhere; ours no more; disabled
			default:
				if failed++; first == nil {
					first = err
				}
			}
		}
		if len(due) < rotatePage {
			break
		}
	}
	if failed > 0 {
		return rotated, fmt.Errorf("trustful: keys of %d users could not be rotated, the first: %w", failed, first)
	}
	return rotated, nil
}

// Sweep destroys the encryption keys whose grace has ended, and returns how many there were. Mail that is sealed to one
// of them cannot be opened any more, by anybody.
func (k *Keeper) Sweep(ctx context.Context) (int, error) {
	return k.Store.DestroyEncryption(ctx, k.Now().Add(-k.Grace))
}

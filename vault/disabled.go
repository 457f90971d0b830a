package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DisableUser has no keys used of an address, nor made for it, and destroys those that it has: at once when destroy says so, else
// when DestroyUserKeys is called with a moment after now. With a leaf that says by whom and why, in the same commit.
// ErrExists when it is disabled already and is not to be destroyed.
func (v *Vault) DisableUser(ctx context.Context, address string, destroy bool, by, why string, now time.Time) error {
	err := v.updateKey(ctx, func(tx *Tx) error {
		n, err := tx.change(`INSERT INTO disabled (address, since) VALUES (?, ?) ON CONFLICT (address) DO NOTHING`, address, now.UnixMilli())
		if err != nil {
			return err
		}
		if n == 0 && !destroy {
			return fmt.Errorf("%w: it is disabled", ErrExists)
		}
		if err := v.attestUser(tx, LeafUserDisabled, address, by, why, now); err != nil || !destroy {
			return err
		}
		return v.destroyAll(tx, address, now, true)
	})
	if err != nil || !destroy {
		return err
	}
	return v.Scrub(ctx)
}

// EnableUser undoes DisableUser: the address has the keys again that it has still, else it gets new ones. ErrNotFound unless it is
// disabled.
func (v *Vault) EnableUser(ctx context.Context, address, by, why string, now time.Time) error {
	return v.updateKey(ctx, func(tx *Tx) error {
		n, err := tx.change(`DELETE FROM disabled WHERE address = ?`, address)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return v.attestUser(tx, LeafUserEnabled, address, by, why, now)
	})
}

// Disabled tells since when an address is disabled; zero: it is not.
func (v *Vault) Disabled(ctx context.Context, address string) (time.Time, error) {
	var since int64
	err := v.queryRow(ctx, `SELECT since FROM disabled WHERE address = ?`, []any{address}, &since)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	return timeOf(since), err
}

// attestUser writes a leaf about an address: its subject is the last key's id, or of nothing.
func (v *Vault) attestUser(tx *Tx, t LeafType, address, by, why string, now time.Time) error {
	subject := NewID(now)
	var id []byte
	err := tx.queryRow(`SELECT id FROM user_keys WHERE address = ? ORDER BY number DESC LIMIT 1`, []any{address}, &id)
	if err == nil {
		subject = toID(id)
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	return v.attestKey(tx, t, subject, Label(t.String(), address, by, why), now)
}

// destroyAll ends every key that we have of an address, the current one with them; not those that its user has himself. Early: before what backups reckon with.
func (v *Vault) destroyAll(tx *Tx, address string, now time.Time, early bool) error {
	var list []UserKey
	err := tx.queryRows(`SELECT `+userColumns+` FROM user_keys WHERE address = ? AND destroyed = 0 AND held = 0 ORDER BY number`, []any{address}, func(s scanner) error {
		u, err := scanUser(s)
		list = append(list, u)
		return err
	})
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.Retired.IsZero() {
			if err := v.retireUserKey(tx, address, u.Number, now); err != nil {
				return err
			}
		}
		if early {
			if err := tx.erase(u.ID, now); err != nil {
				return err
			}
		}
		if err := v.destroyUserKey(tx, u, now); err != nil {
			return err
		}
	}
	return nil
}

// destroyDisabled destroys the keys of those who were disabled before a moment.
func (v *Vault) destroyDisabled(tx *Tx, before, now time.Time) (int, error) {
	var list []string
	err := tx.queryRows(`SELECT DISTINCT d.address FROM disabled d JOIN user_keys k ON k.address = d.address
		WHERE d.since < ? AND k.destroyed = 0 AND k.held = 0 LIMIT ?`, []any{before.UnixMilli(), destroyBatch}, func(s scanner) error {
		var a string
		err := s.Scan(&a)
		list = append(list, a)
		return err
	})
	for _, a := range list {
		if err == nil {
			err = v.destroyAll(tx, a, now, false)
		}
	}
	return len(list), err
}

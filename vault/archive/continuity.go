package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// KeyClass is the class that labels of users' keys name.
const KeyClass = 0

// KeepKeys returns what escrows users' encryption keys to the continuity key, for retention behind a key's own destruction; zero: until
// somebody asks for erasure. While no continuity key is in force it escrows nothing.
func (a *Archive) KeepKeys(retention time.Duration) vault.KeyEscrowFunc {
	return func(ctx context.Context, r vault.KeyRequest) (*vault.KeyEscrow, error) {
		s, err := a.Sealer(ctx, escrow.Continuity)
		if errors.Is(err, ErrNoKey) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		t, err := a.tokens(ctx)
		if err != nil {
			return nil, err
		}
		defer t.close()
		c, err := a.custodian(ctx, t, normal(r.User.Address), r.User.Made)
		if err != nil {
			return nil, err
		}
		sealed, err := s.SealRecord(r.Key, escrow.Label{Class: KeyClass, Month: escrow.MonthOf(r.User.Made), Archive: a.v.Archive(), Record: r.User.ID,
			Custodian: escrow.Custodian(c.ID), Body: r.Body}, escrow.ShredKey{ID: r.Shred, Key: r.ShredKey})
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		return &vault.KeyEscrow{Custodian: c.ID, Retention: retention, Digest: sealed.Digest, Outer: sealed.Outer}, nil
	}
}

// KeyWrap takes the wrap of a user's key out of its shred key: what officers are given. vault.ErrNotFound: it was never escrowed;
// vault.ErrDestroyed: not any more.
func KeyWrap(ctx context.Context, v *vault.Vault, id vault.ID) (*escrow.Wrap, error) {
	outer, digest, err := v.KeyWrap(ctx, id)
	if err != nil {
		return nil, err
	}
	shred, _, err := escrow.ParseOuter(outer)
	if err != nil {
		return nil, fmt.Errorf("archive: user key %v: %w", id, err)
	}
	key, err := v.OpenShredKey(ctx, shred)
	if errors.Is(err, vault.ErrNotFound) {
		err = vault.ErrDestroyed
	}
	if err != nil {
		return nil, fmt.Errorf("archive: user key %v: %w", id, err)
	}
	defer key.Destroy()
	w, err := escrow.ShredKey{ID: shred, Key: key}.Open(outer)
	if err == nil && (w.Digest() != digest || w.Label.Record != id || w.Label.Kind != escrow.Continuity) {
		err = fmt.Errorf("%w: the wrap is another one", vault.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("archive: user key %v: %w", id, err)
	}
	return w, nil
}

// keyPage is how many escrowed keys are read together.
const keyPage = 1000

// eachKey visits the escrowed keys of some addresses, or of all when the list is nil.
func (a *Archive) eachKey(ctx context.Context, addresses []string, visit func(vault.EscrowedKey) error) error {
	for after := (vault.ID{}); ; {
		list, err := a.v.EscrowedKeys(ctx, addresses, after, keyPage)
		if err != nil {
			return err
		}
		for _, k := range list {
			after = k.ID
			if err := visit(k); err != nil {
				return err
			}
		}
		if len(list) < keyPage {
			return nil
		}
	}
}

// decideKey says what becomes of a key's escrow: Decide's order of rights, of something that is in use until the key itself is destroyed, and
// opens mail of any class: any hold on its user keeps it.
func decideKey(k vault.EscrowedKey, names []string, holds []vault.LegalHold, asked bool, now time.Time) Fate {
	held := slices.ContainsFunc(holds, func(h vault.LegalHold) bool {
		return h.Ended.IsZero() && (len(h.Custodians) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(h.Custodians, n) }))
	})
	c := Copy{Custodian: names, Class: KeyClass, Made: k.Made, Expires: keyExpires(k)}
	switch {
	case !k.Alive:
		return Gone
	case held:
		return Held
	case k.Retention > 0 && k.Destroyed.IsZero():
		return Running
	}
	return Decide(c, nil, asked, now)
}

// keyExpires is when the escrow of a key ends; zero while that is not known.
func keyExpires(k vault.EscrowedKey) time.Time {
	if k.Retention == 0 || k.Destroyed.IsZero() {
		return time.Time{}
	}
	return k.Destroyed.Add(k.Retention)
}

// keys looks at the escrow of users' keys.
func (r *round) keys(ctx context.Context) error {
	by := map[string]vault.CustodianID{} // of an address
	for id, names := range r.names {
		by[names[0]] = id
	}
	var only []string // all
	if r.only != nil {
		only = addressesOf(r.only, r.names)
	}
	return r.a.eachKey(ctx, only, func(k vault.EscrowedKey) error {
		custodian := by[k.Address]
		asked := r.asked[custodian]
		fate := decideKey(k, append([]string{k.Address}, r.names[custodian]...), r.holds, asked != nil, r.now)
		why, goes := fate.destruction(asked != nil)
		if !goes || r.goneOnly && fate != Gone {
			return nil
		}
		if !r.dry {
			if fate == Gone {
				r.back = append(r.back, custodian)
			}
			err := r.a.v.DestroyKeyEscrow(ctx, k, why == vault.ByErasure, why, len(r.holds), r.now)
			if errors.Is(err, vault.ErrChanged) {
				return nil // a hold was placed: the next sweep looks again
			} else if err != nil {
				return err
			}
			if asked != nil {
				asked.Keys++
			}
		}
		r.out.UserKeys++
		return nil
	})
}

// addressesOf are those of custodians, each his own; never nil.
func addressesOf(list []vault.CustodianID, names map[vault.CustodianID][]string) []string {
	own := []string{}
	for _, id := range list {
		if n := names[id]; len(n) > 0 {
			own = append(own, n[0])
		}
	}
	return own
}

// keysWait counts the escrowed keys that a request waits for.
func (a *Archive) keysWait(ctx context.Context, e *Erasure, names map[vault.CustodianID][]string, holds []vault.LegalHold, now time.Time) error {
	all := map[string][]string{}
	for _, id := range e.Custodians {
		if n := names[id]; len(n) > 0 {
			all[n[0]] = n
		}
	}
	return a.eachKey(ctx, addressesOf(e.Custodians, names), func(k vault.EscrowedKey) error {
		switch decideKey(k, all[k.Address], holds, true, now) {
		case Held:
			e.Held++
		case Running:
			e.Running++
			e.Until = later(e.Until, keyExpires(k))
		}
		return nil
	})
}

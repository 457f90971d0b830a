package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// rolesSubject is what the leaves about roles are about.
func rolesSubject() ID {
	d := NewDigest("roles")
	return ID(d[:len(ID{})])
}

// Roles is what the last leaf about roles attests: who has which, in the form of the caller's; nil when there is none. It
// needs no seal. ErrCorrupt when it is not what the leaf commits to: whoever
// changes it must change the log, and whoever takes it away is found by audit.Verify.
func (v *Vault) Roles(ctx context.Context) ([]byte, error) {
	var leaf, opening []byte
	err := v.queryRow(ctx, rolesQuery, rolesArgs(), &leaf, &opening)
	return rolesPayload(leaf, opening, err)
}

const rolesQuery = `SELECT leaf, opening FROM openings JOIN leaves USING (idx) WHERE owner = ? ORDER BY idx DESC LIMIT 1`

func rolesArgs() []any {
	subject := rolesSubject()
	return []any{subject[:]}
}

func rolesPayload(leaf, opening []byte, err error) ([]byte, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	l, err := ParseLeaf(leaf)
	if err != nil {
		return nil, err
	}
	payload, ok := opens(l, opening)
	if !ok || l.Type != LeafRoles || l.Subject != rolesSubject() {
		return nil, fmt.Errorf("%w: who has which role is not what the log attests", ErrCorrupt)
	}
	return payload, nil
}

// opens returns the payload of an opening, and whether it is what a leaf commits to.
func opens(l Leaf, opening []byte) (payload []byte, ok bool) {
	var o Opening
	if len(opening) < len(o.Salt) {
		return nil, false
	}
	copy(o.Salt[:], opening)
	o.Payload = opening[len(o.Salt):]
	return o.Payload, o.Commit(l.Type) == l.Commitment
}

// LeafOpened tells whether what leaf n hides is there and is what it commits to. It is asked of leaves about roles and looks: their
// openings are in the clear, and never destroyed. Who removes one gives people the roles back that they had before.
func (v *Vault) LeafOpened(ctx context.Context, n int64, l Leaf) (bool, error) {
	var owner, opening []byte
	err := v.queryRow(ctx, `SELECT owner, opening FROM openings WHERE idx = ?`, []any{n}, &owner, &opening)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	_, ok := opens(l, opening)
	return ok && bytes.Equal(owner, l.Subject[:]), nil
}

// ChangeRoles attests what f makes of the roles as they are. Nobody else changes them meanwhile; an error of f leaves them.
func (v *Vault) ChangeRoles(ctx context.Context, now time.Time, f func(old []byte) ([]byte, error)) error {
	return v.update(ctx, func(tx *Tx) error {
		var leaf, opening []byte
		err := tx.queryRow(rolesQuery, rolesArgs(), &leaf, &opening)
		old, err := rolesPayload(leaf, opening, err)
		if err != nil {
			return err
		}
		payload, err := f(old)
		if err != nil {
			return err
		}
		return v.attestKey(tx, LeafRoles, rolesSubject(), payload, now)
	})
}

// AttestLook writes a leaf about a look at addresses, with who looked and at what.
func (v *Vault) AttestLook(ctx context.Context, payload []byte, now time.Time) error {
	return v.update(ctx, func(tx *Tx) error { return v.attestKey(tx, LeafLook, NewID(now), payload, now) })
}

package vault

import (
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
// needs no seal. ErrCorrupt when it is not what the leaf commits to: whoever changes it must change the log.
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
	var o Opening
	if len(opening) < len(o.Salt) {
		return nil, fmt.Errorf("%w: the opening of a leaf about roles", ErrCorrupt)
	}
	copy(o.Salt[:], opening)
	o.Payload = opening[len(o.Salt):]
	if l.Type != LeafRoles || l.Subject != rolesSubject() || o.Commit(LeafRoles) != l.Commitment {
		return nil, fmt.Errorf("%w: who has which role is not what the log attests", ErrCorrupt)
	}
	return o.Payload, nil
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

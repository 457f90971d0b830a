package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/internal/safefile"
)

// sealSubject is what the leaves about a role's seals are about.
func sealSubject(role Role) ID {
	d := NewDigest("seal", []byte(role.String()))
	return ID(d[:len(ID{})])
}

// AttestSeal writes what is about to be done to a role's seals into the log; what is public, such as a seal's kind and id, and
// the digest of the header that comes of it.
func (v *Vault) AttestSeal(ctx context.Context, role Role, what string, header Digest, now time.Time) error {
	return v.update(ctx, func(tx *Tx) error {
		return v.attestKey(tx, LeafSeal, sealSubject(role), Label("seal", role.String(), what, string(header[:])), now)
	})
}

// SealAttested compares a role's header with what the last leaf about it says it is; ErrChanged, with what was to be done, when
// it is another. A role whose seals were never changed has no such leaf.
func (v *Vault) SealAttested(ctx context.Context, role Role, path string) error {
	var opening []byte
	subject := sealSubject(role)
	err := v.queryRow(ctx, `SELECT opening FROM openings WHERE owner = ? ORDER BY idx DESC LIMIT 1`, []any{subject[:]}, &opening)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	parts := unlabel(opening[min(saltSize, len(opening)):])
	if len(parts) == 3 {
		return nil // written by a gateway that knew no digest
	}
	if len(parts) != 4 {
		return fmt.Errorf("%w: the leaf about the %v seal", ErrCorrupt, role)
	}
	b, err := safefile.ReadSecret(path, maxSealHeader)
	if err != nil {
		return fmt.Errorf("vault: seal header: %w", err)
	}
	if d := NewDigest("seal header", b); string(d[:]) != parts[3] {
		return fmt.Errorf("%w: the header is not what the log's last leaf about it says: %q was cut short before it was done, or the header was changed or put back by hand", ErrChanged, parts[2])
	}
	return nil
}

// NewRoot puts a new root key into the header at path, before those of r, under every seal that the newest one is under:
// each must be among seals, or nothing changes. r wraps under the new key from then on, and unwraps under all.
func NewRoot(ctx context.Context, path string, r *Root, now time.Time, attest Attest, seals ...Seal) error {
	h, err := ReadSealHeader(path)
	if err != nil {
		return err
	}
	key := NewSecret()
	id := idOfRoot(key)
	grown := &Root{role: r.role, newest: id, keys: map[rootID]Secret{id: key}}
	fresh := SealHeader{Role: h.Role, Roots: []SealRoot{{ID: hex.EncodeToString(id[:]), Made: now.UTC().Truncate(time.Second)}}}
	for _, e := range h.Roots[0].Entries {
		i := slices.IndexFunc(seals, func(s Seal) bool { return s.Kind() == e.Kind && s.ID() == e.ID })
		if i < 0 {
			err = fmt.Errorf("%s: %w: remove it first, or bring it", e.name(), ErrNotGiven)
		} else {
			err = fresh.add(ctx, grown, seals[i])
		}
		if err != nil {
			grown.Destroy()
			return err
		}
	}
	h.Roots = append(fresh.Roots, h.Roots...)
	if err := h.write(path, attest); err != nil {
		grown.Destroy()
		return err
	}
	r.keys[id], r.newest = key, id
	return nil
}

// DropOldRoots takes every root key but the newest out of the header. What was wrapped under those does not open again:
// Rewrap goes before.
func DropOldRoots(path string, attest Attest) error {
	h, err := ReadSealHeader(path)
	if err != nil {
		return err
	}
	h.Roots = h.Roots[:1]
	return h.write(path, attest)
}

// rewrapBatch is how many wraps one commit replaces.
const rewrapBatch = 200

// A wrapRow is a column of wraps under one role, and how its labels are made. Columns are key, label parts, wrap.
type wrapRow struct {
	role   Role
	list   string // after a rowid, at most so many
	update string
	label  func(v *Vault, s scanner) (rowid int64, wrap, label []byte, err error)
}

// wrapRows is every place where a wrap rests.
var wrapRows = []wrapRow{
	{HostRole, `SELECT rowid, wrap, name FROM named_keys WHERE rowid > ? ORDER BY rowid LIMIT ?`,
		`UPDATE named_keys SET wrap = ? WHERE rowid = ? AND wrap = ?`,
		func(v *Vault, s scanner) (id int64, wrap, label []byte, err error) {
			var name string
			err = s.Scan(&id, &wrap, &name)
			return id, wrap, v.namedLabel(name), err
		}},
	{HostRole, `SELECT slot, wrap, owner FROM wraps WHERE slot > ? AND purpose = 2 AND used = 1 AND owner NOT IN (SELECT id FROM org_keys)
		ORDER BY slot LIMIT ?`, updateWrap,
		func(_ *Vault, s scanner) (id int64, wrap, label []byte, err error) {
			var owner []byte
			err = s.Scan(&id, &wrap, &owner)
			return id, wrap, keyLabel(toID(owner)), err
		}},
	{HostRole, orgWraps + ` AND purpose = 2 ORDER BY slot LIMIT ?`, updateWrap, scanOrgWrap},
	{SigningRole, orgWraps + ` AND purpose = 3 ORDER BY slot LIMIT ?`, updateWrap, scanOrgWrap},
	{SigningRole, `SELECT slot, wrap, address, number, id FROM wraps JOIN user_keys ON id = owner
		WHERE slot > ? AND purpose = 3 AND used = 1 ORDER BY slot LIMIT ?`, updateWrap,
		func(_ *Vault, s scanner) (id int64, wrap, label []byte, err error) {
			var u UserKey
			var owner []byte
			err = s.Scan(&id, &wrap, &u.Address, &u.Number, &owner)
			u.ID = toID(owner)
			return id, wrap, u.label(), err
		}},
}

const (
	updateWrap = `UPDATE wraps SET wrap = ? WHERE slot = ? AND wrap = ?`
	orgWraps   = `SELECT slot, wrap, domain, kind, id FROM wraps JOIN org_keys ON id = owner WHERE slot > ? AND used = 1`
)

func scanOrgWrap(_ *Vault, s scanner) (rowid int64, wrap, label []byte, err error) {
	var domain string
	var kind OrgKeyKind
	var id []byte
	err = s.Scan(&rowid, &wrap, &domain, &kind, &id)
	return rowid, wrap, orgLabel(domain, kind, toID(id)), err
}

// Rewrap puts every wrap of a role under its newest root key, and returns how many it changed. It can be cut short
// anywhere and run again. Nobody else has the vault meanwhile: only its owner calls it.
func (v *Vault) Rewrap(ctx context.Context, role Role) (int, error) {
	root := v.host
	if role == SigningRole {
		root = v.signing
	}
	if root == nil {
		return 0, ErrSealed
	}
	total := 0
	for _, w := range wrapRows {
		if w.role != role {
			continue
		}
		n, err := v.rewrapRows(ctx, root, w)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, v.Scrub(ctx)
}

func (v *Vault) rewrapRows(ctx context.Context, root *Root, w wrapRow) (total int, err error) {
	type change struct {
		rowid    int64
		old, new []byte
	}
	for after := int64(0); ; {
		var list []change
		rows := 0
		err := v.queryRows(ctx, w.list, []any{after, rewrapBatch}, func(s scanner) error {
			rowid, wrap, label, err := w.label(v, s)
			if err != nil {
				return err
			}
			after = rowid
			rows++
			if bytes.HasPrefix(wrap[min(len(wrap), len(wrapMagic)+1):], root.newest[:]) {
				return nil
			}
			key, err := root.Unwrap(wrap, label)
			if err != nil {
				return err
			}
			defer key.Destroy()
			fresh, err := root.Wrap(key, label)
			list = append(list, change{rowid, bytes.Clone(wrap), fresh})
			return err
		})
		if err != nil {
			return total, err
		}
		if len(list) > 0 {
			err = v.update(ctx, func(tx *Tx) error {
				for _, c := range list {
					if err := tx.exec(w.update, c.new, c.rowid, c.old); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return total, err
			}
		}
		total += len(list)
		if rows < rewrapBatch {
			return total, nil
		}
	}
}

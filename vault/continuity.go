package vault

import (
	"cmp"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/dmtp/key"
)

// A KeyRequest is what the escrow of a user's key is made from. The secrets are the caller's: they are not kept.
type KeyRequest struct {
	User     UserKey
	Key      Secret // under which the generation's private keys rest
	Body     Digest // SHA-512/256 of the sealed encryption key
	Shred    ID
	ShredKey Secret // the wrap's own
}

// A KeyEscrow is a way to a user's key beside the host's: a wrap that a continuity quorum opens, inside a shred key of its own.
type KeyEscrow struct {
	Custodian CustodianID
	Retention time.Duration // from the key's destruction on; zero: until somebody asks for erasure
	Digest    Digest        // of the wrap
	Outer     []byte        // DEW1
}

// KeyEscrowFunc escrows a user's key. It returns nil when there is nothing to seal to.
type KeyEscrowFunc = func(context.Context, KeyRequest) (*KeyEscrow, error)

// readyEscrow is an escrow before its commit.
type readyEscrow struct {
	KeyEscrow
	shred ID
	wrap  []byte // of the shred key, for the host
	body  Digest
}

// makeEscrow asks f for the escrow of a generation whose private keys rest under key; nil when there is none.
func (v *Vault) makeEscrow(ctx context.Context, u UserKey, key Secret, encryption []byte, f KeyEscrowFunc) (*readyEscrow, error) {
	if f == nil {
		return nil, nil
	}
	r := &readyEscrow{shred: RandomID(), body: Digest(sha512.Sum512_256(encryption))}
	shred := NewSecret()
	defer shred.Destroy()
	e, err := f(ctx, KeyRequest{User: u, Key: key, Body: r.body, Shred: r.shred, ShredKey: shred})
	if err != nil {
		return nil, fmt.Errorf("escrow of user key %v: %w", u.ID, err)
	}
	if e == nil {
		return nil, nil
	}
	r.KeyEscrow = *e
	r.wrap, err = v.host.Wrap(shred, keyLabel(r.shred))
	return r, err
}

// putEscrow keeps an escrow, if there is one, with the leaf that officers' tools look for. ErrChanged: its custodian was erased since.
func (v *Vault) putEscrow(tx *Tx, u UserKey, r *readyEscrow, now time.Time) error {
	if r == nil {
		return nil
	}
	if err := tx.holdsCustodian(r.Custodian); err != nil {
		return err
	}
	// What K opens is compared with the signet: so the leaf commits to that, and to whose it is.
	octets, envelope := NewDigest("octets", u.Signet), NewDigest("envelope", []byte(u.Address))
	o := newOpening(slices.Concat(octets[:], envelope[:]))
	leaf, err := tx.appendLeaf(Leaf{Type: LeafIntake, Time: now, Archive: v.archive, Subject: u.ID, Public: IntakePublic(r.body, []Digest{r.Digest}), Commitment: o.Commit(LeafIntake)})
	if err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO user_escrow (id, shred, digest, outer, retention, leaf) VALUES (?, ?, ?, ?, ?, ?)`,
		u.ID[:], r.shred[:], r.Digest[:], r.Outer, r.Retention.Milliseconds(), leaf); err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, leaf, u.ID[:], o.octets()); err != nil {
		return err
	}
	return tx.putWrap(r.shred, WrapHost, r.wrap)
}

// escrowPage is how many keys are looked at together.
const escrowPage = 100

// EscrowUserKeys escrows the keys that were made when there was nothing to seal to, a commit each, and returns how many it did. It ends
// when f returns nil; a key that fails keeps no other waiting, and the first error is returned.
func (v *Vault) EscrowUserKeys(ctx context.Context, f KeyEscrowFunc, now time.Time) (done int, err error) {
	var failed error // the first
	for after := (ID{}); ; {
		var list []UserKey
		var sealed [][]byte
		err := v.queryRows(ctx, `SELECT `+userColumns+`, encryption FROM user_keys WHERE destroyed = 0 AND held = 0 AND id > ?
			AND id NOT IN (SELECT id FROM user_escrow) ORDER BY id LIMIT ?`, []any{after[:], escrowPage}, func(s scanner) error {
			var b []byte
			u, err := scanUser(s, &b)
			list, sealed = append(list, u), append(sealed, b)
			return err
		})
		if err != nil {
			return done, err
		}
		for i, u := range list {
			after = u.ID
			ok, err := v.escrowUserKey(ctx, u, sealed[i], f, now)
			switch {
			case ctx.Err() != nil:
				return done, errors.Join(failed, ctx.Err())
			case err != nil:
				failed = cmp.Or(failed, err)
			case !ok:
				return done, failed
			default:
				done++
			}
		}
		if len(list) < escrowPage {
			return done, failed
		}
	}
}

func (v *Vault) escrowUserKey(ctx context.Context, u UserKey, sealed []byte, f KeyEscrowFunc, now time.Time) (bool, error) {
	if v.host == nil {
		return false, ErrSealed
	}
	var wrap []byte
	if err := v.queryRow(ctx, `SELECT wrap FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{u.ID[:], WrapHost}, &wrap); err != nil {
		return false, fmt.Errorf("user key %v: %w", u.ID, err)
	}
	key, err := v.host.Unwrap(wrap, keyLabel(u.ID))
	if err != nil {
		return false, fmt.Errorf("user key %v: %w", u.ID, err)
	}
	defer key.Destroy()
	if scalar, err := OpenOctets(key, PartKey, u.ID[:], sealed); err != nil { // a wrap of what opens nothing helps nobody
		return false, fmt.Errorf("user key %v: %w", u.ID, err)
	} else {
		clear(scalar)
	}
	r, err := v.makeEscrow(ctx, u, key, sealed, f)
	if err != nil || r == nil {
		return false, err
	}
	return true, v.updateKey(ctx, func(tx *Tx) error {
		var n int
		err := tx.queryRow(`SELECT COUNT(*) FROM user_keys WHERE id = ? AND destroyed = 0 AND id NOT IN (SELECT id FROM user_escrow)`, []any{u.ID[:]}, &n)
		if err != nil || n == 0 { // it was destroyed meanwhile
			return err
		}
		return v.putEscrow(tx, u, r, now)
	})
}

// An EscrowedKey is a user's key that a continuity quorum opens.
type EscrowedKey struct {
	UserKey
	Retention time.Duration
	Digest    Digest
	Leaf      int64
	Shred     ID
	Alive     bool // the shred key is there: one that came back with a backup, after it was erased, is not
}

// EscrowedKeys lists at most n keys behind after, by id, of some addresses or of all.
func (v *Vault) EscrowedKeys(ctx context.Context, addresses []string, after ID, n int) ([]EscrowedKey, error) {
	query, args := `SELECT `+userColumns+`, retention, digest, leaf, shred, EXISTS (SELECT 1 FROM wraps WHERE owner = shred AND purpose = ? AND used = 1)
		FROM user_escrow JOIN user_keys USING (id) WHERE outer IS NOT NULL AND id > ?`, []any{WrapHost, after[:]}
	if addresses != nil {
		query += ` AND address IN (` + placeholders(len(addresses)) + `)`
		for _, a := range addresses {
			args = append(args, a)
		}
	}
	var list []EscrowedKey
	err := v.queryRows(ctx, query+` ORDER BY id LIMIT ?`, append(args, n), func(s scanner) error {
		var e EscrowedKey
		var retention int64
		var digest, shred []byte
		u, err := scanUser(s, &retention, &digest, &e.Leaf, &shred, &e.Alive)
		if err == nil && len(digest) != len(Digest{}) {
			err = fmt.Errorf("%w: escrow of user key %v", ErrCorrupt, u.ID)
		}
		if err != nil {
			return err
		}
		e.UserKey, e.Retention, e.Digest, e.Shred = u, time.Duration(retention)*time.Millisecond, Digest(digest), toID(shred)
		list = append(list, e)
		return nil
	})
	return list, err
}

// KeyWrap is the outer wrap of a user's key, and its digest. ErrNotFound: it was never escrowed; ErrDestroyed: its wrap was.
func (v *Vault) KeyWrap(ctx context.Context, id ID) (outer []byte, d Digest, err error) {
	var digest []byte
	err = v.queryRow(ctx, `SELECT outer, digest FROM user_escrow WHERE id = ?`, []any{id[:]}, &outer, &digest)
	switch {
	case err != nil:
	case outer == nil:
		err = ErrDestroyed
	case len(digest) != len(Digest{}):
		err = ErrCorrupt
	}
	if err != nil {
		return nil, Digest{}, fmt.Errorf("escrow of user key %v: %w", id, err)
	}
	return outer, Digest(digest), nil
}

// SealedUserKey is a generation with its encryption key and what opens its alternate layer, as they rest: PartKey and PartLayer, bound to
// id. Layer is nil where it has none. ErrDestroyed when they are gone.
func (v *Vault) SealedUserKey(ctx context.Context, id ID) (u UserKey, encryption, layer []byte, err error) {
	found := false
	err = v.queryRows(ctx, `SELECT `+userColumns+`, encryption, layer FROM user_keys WHERE id = ?`, []any{id[:]}, func(s scanner) error {
		var err error
		found = true
		u, err = scanUser(s, &encryption, &layer)
		return err
	})
	switch {
	case err == nil && !found:
		err = ErrNotFound
	case err == nil && encryption == nil:
		err = ErrDestroyed
	}
	if err != nil {
		return UserKey{}, nil, nil, fmt.Errorf("user key %v: %w", id, err)
	}
	return u, encryption, layer, nil
}

// DestroyKeyEscrow destroys the escrow of a user's key, with its leaf, and the sealed keys with it when the host has destroyed its own
// way to them. Early, holds and ErrChanged as in DropShred.
func (v *Vault) DestroyKeyEscrow(ctx context.Context, e EscrowedKey, early bool, why Destruction, holds int, now time.Time) error {
	return v.updateKey(ctx, func(tx *Tx) error {
		if err := tx.checkHolds(holds); err != nil {
			return err
		}
		drop := func() error { return tx.dropWrap(e.Shred, WrapHost) }
		if early {
			drop = func() error { return tx.erase(e.Shred, now) }
		}
		if err := drop(); err != nil {
			return err
		}
		// The row stays without its wrap: a key that was erased is not escrowed anew.
		if err := tx.changeOne(`UPDATE user_escrow SET outer = NULL WHERE id = ? AND outer IS NOT NULL`, e.ID[:]); err != nil {
			return err
		}
		if err := tx.exec(`DELETE FROM openings WHERE idx = ?`, e.Leaf); err != nil {
			return err
		}
		if _, err := tx.appendLeaf(Leaf{Type: LeafDestroyed, Time: now, Archive: v.archive, Subject: e.ID, Public: why.public(),
			Commitment: newOpening(nil).Commit(LeafDestroyed)}); err != nil {
			return err
		}
		return tx.dropReading(e.ID)
	})
}

// dropReading overwrites what opens a generation's mail, sealed as it is, once neither the host nor an escrow has a way to it.
func (tx *Tx) dropReading(id ID) error {
	var ways int
	if err := tx.queryRow(`SELECT (SELECT COUNT(*) FROM wraps WHERE owner = ?1 AND purpose = ?2 AND used = 1) +
		(SELECT COUNT(*) FROM user_escrow WHERE id = ?1 AND outer IS NOT NULL)`, []any{id[:], WrapHost}, &ways); err != nil || ways > 0 {
		return err
	}
	if err := tx.exec(`UPDATE user_keys SET encryption = zeroblob(length(encryption)), layer = zeroblob(length(layer)) WHERE id = ?`, id[:]); err != nil {
		return err
	}
	return tx.exec(`UPDATE user_keys SET encryption = NULL, layer = NULL WHERE id = ?`, id[:])
}

// checkEscrowed refuses while keys of an address are escrowed.
func (tx *Tx) checkEscrowed(addresses []string) error {
	for _, a := range addresses {
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM user_escrow JOIN user_keys USING (id) WHERE outer IS NOT NULL AND address = ?`, []any{a}, &n); err != nil {
			return err
		} else if n > 0 {
			return fmt.Errorf("%w: keys of the custodian are escrowed", ErrChanged)
		}
	}
	return nil
}

// OpenUserKey opens what SealedUserKey gave, with the key that a quorum opened. ErrCorrupt or ErrWrongKey when it does not fit, or is not the
// key of the generation's signet: public is that one's. The caller destroys the key and clears the layer's octets.
func OpenUserKey(k Secret, id ID, encryption, layer []byte, public key.EncryptionPublic) (key.Encryption, []byte, error) {
	scalar, err := OpenOctets(k, PartKey, id[:], encryption)
	if err != nil {
		return key.Encryption{}, nil, fmt.Errorf("user key %v: %w", id, err)
	}
	defer clear(scalar)
	private, err := encryptionOf(scalar)
	if err == nil && private.Public() != public {
		err = fmt.Errorf("%w: it is not the signet's", ErrCorrupt)
	}
	var open []byte
	if err == nil && layer != nil {
		open, err = OpenOctets(k, PartLayer, id[:], layer)
	}
	if err != nil {
		private.Destroy()
		return key.Encryption{}, nil, fmt.Errorf("user key %v: %w", id, err)
	}
	return private, open, nil
}

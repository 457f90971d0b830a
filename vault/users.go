package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"dimegate/dmtp/key"
)

// A UserKey is one generation of an address's keys, without them.
type UserKey struct {
	ID        ID
	Address   string // lower case
	Number    int    // from 1
	Signet    []byte
	Made      time.Time
	Retired   time.Time // zero while it is the current one
	Destroyed time.Time // of the encryption key
	Layered   bool      // it has keys of the alternate layer
	Held      bool      // the private keys are the user's own and were never here
}

// UserSecrets are the private keys of a generation. Layer is what opens the alternate layer, in its owner's form; nil for none. Escrow,
// where it is not nil, escrows what opens mail, in the commit that makes it.
type UserSecrets struct {
	key.Pair
	Layer  []byte
	Escrow KeyEscrowFunc
}

// AppendUserKey keeps the next generation of an address, of which the caller sets Address, Number, Signet and Made. In
// the same commit the one before is retired and its signing key destroyed, which has signed the custody and has nothing
// left to sign. ErrChanged unless Number is one more than the address has: so of concurrent callers one succeeds.
func (v *Vault) AppendUserKey(ctx context.Context, u UserKey, k UserSecrets) error {
	u.ID = NewID(u.Made)
	signing, err := v.wrapUserSigning(u, k.Signing)
	if err != nil {
		return err
	}
	sealed, wrap, err := v.sealReading(ctx, u, k)
	if err != nil {
		return err
	}
	return v.updateKey(ctx, func(tx *Tx) error {
		if err := v.followUserKey(tx, u); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO user_keys (address, number, id, signet, encryption, layer, made) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			u.Address, u.Number, u.ID[:], u.Signet, sealed.encryption, sealed.layer, u.Made.UnixMilli()); err != nil {
			return err
		}
		if err := tx.putWrap(u.ID, WrapSigning, signing); err != nil {
			return err
		}
		if err := tx.putWrap(u.ID, WrapHost, wrap); err != nil {
			return err
		}
		if err := v.attestKey(tx, LeafKeyMade, u.ID, u.payload(), u.Made); err != nil {
			return err
		}
		return v.putEscrow(tx, u, sealed.escrow, u.Made)
	})
}

// AdmitUserKey keeps the next generation of an address whose private keys its user made and has; else as AppendUserKey.
func (v *Vault) AdmitUserKey(ctx context.Context, u UserKey) error {
	u.ID = NewID(u.Made)
	return v.updateKey(ctx, func(tx *Tx) error {
		if err := v.followUserKey(tx, u); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO user_keys (address, number, id, signet, made, held) VALUES (?, ?, ?, ?, ?, 1)`,
			u.Address, u.Number, u.ID[:], u.Signet, u.Made.UnixMilli()); err != nil {
			return err
		}
		return v.attestKey(tx, LeafKeyAdmitted, u.ID, u.payload(), u.Made)
	})
}

// VouchUserKey notes that an address's current key signs the custody of keys that its user made; request is what they are in.
// ErrNotFound unless the current generation is number, and ours.
func (v *Vault) VouchUserKey(ctx context.Context, address string, number int, request []byte, now time.Time) error {
	return v.updateKey(ctx, func(tx *Tx) error {
		u := UserKey{Address: address, Number: number}
		var id []byte
		err := tx.queryRow(`SELECT id, signet FROM user_keys WHERE address = ? AND number = ? AND retired = 0 AND held = 0`,
			[]any{address, number}, &id, &u.Signet)
		if err != nil {
			return err
		}
		u.ID = toID(id)
		d := NewDigest("request", request)
		return v.attestKey(tx, LeafKeyVouched, u.ID, append(u.payload(), d[:]...), now)
	})
}

// followUserKey retires the current generation before u, if there is one. ErrChanged unless u is the next, and where its address was
// disabled since the caller looked.
func (v *Vault) followUserKey(tx *Tx, u UserKey) error {
	var disabled, last, current int
	if err := tx.queryRow(`SELECT COUNT(*) FROM disabled WHERE address = ?`, []any{u.Address}, &disabled); err != nil {
		return err
	}
	if disabled > 0 {
		return ErrChanged
	}
	if err := tx.queryRow(`SELECT COALESCE(MAX(number), 0), COALESCE(MAX(CASE retired WHEN 0 THEN number END), 0) FROM user_keys WHERE address = ?`,
		[]any{u.Address}, &last, &current); err != nil {
		return err
	}
	if u.Number != last+1 {
		return ErrChanged
	}
	if current == 0 { // the last one was destroyed, and vouches for nothing
		return nil
	}
	return v.retireUserKey(tx, u.Address, last, u.Made)
}

// payload is what a user key's leaves commit to.
func (u UserKey) payload() []byte {
	d := NewDigest("signet", u.Signet)
	return Label("user", u.Address, strconv.Itoa(u.Number), string(d[:]))
}

func (u UserKey) label() []byte {
	return Label("user signing key", u.Address, strconv.Itoa(u.Number), string(u.ID[:]))
}

func (v *Vault) wrapUserSigning(u UserKey, k key.Signing) ([]byte, error) {
	seed := k.Seed()
	defer clear(seed)
	s, err := SecretOf(seed)
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	return v.signing.Wrap(s, u.label())
}

// sealedReading is what opens a generation's mail, sealed. Layer is nil where it has no such key.
type sealedReading struct {
	encryption, layer []byte
	escrow            *readyEscrow // nil for none
}

// sealReading seals what opens mail under a new key, which it wraps for the host: whoever gets a wrap of it opens all.
func (v *Vault) sealReading(ctx context.Context, u UserKey, k UserSecrets) (sealed sealedReading, wrap []byte, err error) {
	scalar := k.Encryption.Scalar()
	defer clear(scalar)
	if len(scalar) != SecretSize {
		return sealed, nil, errors.New("vault: no encryption key")
	}
	s := NewSecret()
	defer s.Destroy()
	if wrap, err = v.host.Wrap(s, keyLabel(u.ID)); err != nil {
		return sealed, nil, err
	}
	sealed.encryption = SealOctets(s, PartKey, u.ID[:], scalar)
	if k.Layer != nil {
		sealed.layer = SealOctets(s, PartLayer, u.ID[:], k.Layer)
	}
	sealed.escrow, err = v.makeEscrow(ctx, u, s, sealed.encryption, k.Escrow)
	return sealed, wrap, err
}

// keyLabel labels the host's wrap of a record key or of a user key's key.
func keyLabel(owner ID) []byte { return Label("key", string(owner[:])) }

// retireUserKey marks the current generation retired and destroys its signing key.
func (v *Vault) retireUserKey(tx *Tx, address string, number int, now time.Time) error {
	u := UserKey{Address: address, Number: number}
	var id []byte
	if err := tx.queryRow(`SELECT id, signet FROM user_keys WHERE address = ? AND number = ? AND retired = 0`,
		[]any{address, number}, &id, &u.Signet); err != nil {
		return err
	}
	u.ID = toID(id)
	if err := tx.dropWrap(u.ID, WrapSigning); err != nil {
		return err
	}
	if err := tx.exec(`UPDATE user_keys SET retired = ? WHERE id = ?`, now.UnixMilli(), id); err != nil {
		return err
	}
	return v.attestKey(tx, LeafKeyRetired, u.ID, u.payload(), now)
}

const userColumns = `id, address, number, signet, made, retired, destroyed, layer IS NOT NULL, held`

// scanUser scans userColumns, and what the query has behind them.
func scanUser(s scanner, more ...any) (UserKey, error) {
	var u UserKey
	var id []byte
	var made, retired, destroyed int64
	if err := s.Scan(append([]any{&id, &u.Address, &u.Number, &u.Signet, &made, &retired, &destroyed, &u.Layered, &u.Held}, more...)...); err != nil {
		return UserKey{}, err
	}
	u.ID, u.Made, u.Retired, u.Destroyed = toID(id), timeOf(made), timeOf(retired), timeOf(destroyed)
	return u, nil
}

// UserKeys returns the generations of an address, oldest first; none is no error.
func (v *Vault) UserKeys(ctx context.Context, address string) ([]UserKey, error) {
	var list []UserKey
	err := v.queryRows(ctx, `SELECT `+userColumns+` FROM user_keys WHERE address = ? ORDER BY number`, []any{address}, func(s scanner) error {
		u, err := scanUser(s)
		list = append(list, u)
		return err
	})
	return list, err
}

// Users returns at most n addresses after the one given, in order, with their current generation.
func (v *Vault) Users(ctx context.Context, after string, n int) ([]UserKey, error) {
	var list []UserKey
	err := v.queryRows(ctx, `SELECT `+userColumns+` FROM user_keys WHERE retired = 0 AND address > ? ORDER BY address LIMIT ?`,
		[]any{after, n}, func(s scanner) error {
			u, err := scanUser(s)
			list = append(list, u)
			return err
		})
	return list, err
}

// AgedUsers returns at most n addresses after the one given, in order, whose current keys were made before a moment, and those
// that have no key of the alternate layer and were made before bareBefore.
func (v *Vault) AgedUsers(ctx context.Context, madeBefore, bareBefore time.Time, after string, n int) ([]string, error) {
	var list []string
	err := v.queryRows(ctx, `SELECT address FROM user_keys WHERE retired = 0 AND held = 0 AND (made < ? OR layer IS NULL AND made < ?) AND address > ?
		AND address NOT IN (SELECT address FROM disabled) ORDER BY address LIMIT ?`,
		[]any{madeBefore.UnixMilli(), bareBefore.UnixMilli(), after, n}, func(s scanner) error {
			var a string
			err := s.Scan(&a)
			list = append(list, a)
			return err
		})
	return list, err
}

// LivingSignets visits the signets of a domain's users under which mail may still come or be judged, the oldest first: each that
// is current, or whose encryption key is not destroyed yet. It ends when visit says false.
func (v *Vault) LivingSignets(ctx context.Context, domain string, visit func(signet []byte) (more bool, err error)) error {
	const page = 200
	var made int64
	var id []byte
	for {
		n := 0
		var list [][]byte
		err := v.queryRows(ctx, `SELECT made, id, signet FROM user_keys WHERE destroyed = 0 AND address LIKE ? AND (made > ? OR made = ? AND id > ?)
			ORDER BY made, id LIMIT ?`, []any{"%@" + domain, made, made, id, page}, func(s scanner) error {
			var b []byte
			err := s.Scan(&made, &id, &b)
			list = append(list, b)
			n++
			return err
		})
		if err != nil {
			return err
		}
		for _, b := range list {
			if more, err := visit(b); err != nil || !more {
				return err
			}
		}
		if n < page {
			return nil
		}
	}
}

// UserSigning opens the signing key of an address's current generation; ErrNotFound unless that is number. The caller
// destroys it.
func (v *Vault) UserSigning(ctx context.Context, address string, number int) (key.Signing, error) {
	u := UserKey{Address: address, Number: number}
	var id, wrap []byte
	err := v.queryRow(ctx, `SELECT k.id, w.wrap FROM user_keys k
		LEFT JOIN wraps w ON w.owner = k.id AND w.purpose = ? AND w.used = 1 WHERE k.address = ? AND k.number = ? AND k.retired = 0`,
		[]any{WrapSigning, address, number}, &id, &wrap)
	if err != nil {
		return key.Signing{}, err
	}
	u.ID = toID(id)
	k, err := openSigning(v.signing, wrap, u.label())
	if err != nil {
		return key.Signing{}, fmt.Errorf("signing key %v: %w", u.ID, err)
	}
	return k, nil
}

// UserEncryption opens the encryption key of a generation; ErrDestroyed when it has gone. The caller destroys it.
func (v *Vault) UserEncryption(ctx context.Context, address string, number int) (key.Encryption, error) {
	scalar, err := v.openReading(ctx, address, number, "encryption", PartKey)
	if err != nil {
		return key.Encryption{}, err
	}
	defer clear(scalar)
	return encryptionOf(scalar)
}

// UserLayer opens what opens the alternate layer of a generation's mail, nil where it has none; ErrDestroyed when it has gone. The
// caller clears it.
func (v *Vault) UserLayer(ctx context.Context, address string, number int) ([]byte, error) {
	return v.openReading(ctx, address, number, "layer", PartLayer)
}

// openReading opens a column of user_keys that is sealed under the generation's key.
func (v *Vault) openReading(ctx context.Context, address string, number int, column string, part Part) ([]byte, error) {
	var id, sealed, wrap []byte
	var destroyed int64
	err := v.queryRow(ctx, `SELECT k.id, k.`+column+`, k.destroyed, w.wrap FROM user_keys k
		LEFT JOIN wraps w ON w.owner = k.id AND w.purpose = ? AND w.used = 1 WHERE k.address = ? AND k.number = ?`,
		[]any{WrapHost, address, number}, &id, &sealed, &destroyed, &wrap)
	switch {
	case err != nil:
		return nil, err
	case destroyed != 0:
		return nil, ErrDestroyed
	case sealed == nil && part == PartLayer:
		return nil, nil
	}
	s, err := v.host.Unwrap(wrap, keyLabel(toID(id)))
	if err != nil {
		return nil, fmt.Errorf("%s key %v: %w", column, toID(id), err)
	}
	defer s.Destroy()
	octets, err := OpenOctets(s, part, id, sealed)
	if err != nil {
		return nil, fmt.Errorf("%s key %v: %w", column, toID(id), err)
	}
	return octets, nil
}

// destroyBatch is how many keys one commit destroys.
const destroyBatch = 100

// DestroyUserKeys destroys the encryption keys, and those of the alternate layer, of the generations that were retired before a moment, and all
// keys of those who were disabled before it, and returns how many. Wraps that escrow holds stay, and with them the sealed key; without one nothing that opens mail is left in the
// database, nor in its write-ahead log.
func (v *Vault) DestroyUserKeys(ctx context.Context, retiredBefore, now time.Time) (int, error) {
	total := 0
	for {
		n := 0
		err := v.updateKey(ctx, func(tx *Tx) error {
			var err error
			n, err = v.destroySome(tx, retiredBefore, now)
			return err
		})
		if err != nil {
			return total, err
		}
		total += n
		if n < destroyBatch {
			break
		}
	}
	if total == 0 {
		return 0, nil
	}
	return total, v.Scrub(ctx)
}

func (v *Vault) destroySome(tx *Tx, retiredBefore, now time.Time) (int, error) {
	var list []UserKey
	err := tx.queryRows(`SELECT `+userColumns+` FROM user_keys WHERE retired > 0 AND retired < ? AND destroyed = 0
		ORDER BY retired LIMIT ?`, []any{retiredBefore.UnixMilli(), destroyBatch}, func(s scanner) error {
		u, err := scanUser(s)
		list = append(list, u)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, u := range list {
		if err := v.destroyUserKey(tx, u, now); err != nil {
			return 0, err
		}
	}
	disabled, err := v.destroyDisabled(tx, retiredBefore, now)
	return len(list) + disabled, err
}

// destroyUserKey destroys what opens mail of a retired generation.
func (v *Vault) destroyUserKey(tx *Tx, u UserKey, now time.Time) error {
	if u.Held { // nothing of it is here: its signet's time is over
		return tx.exec(`UPDATE user_keys SET destroyed = ? WHERE id = ?`, now.UnixMilli(), u.ID[:])
	}
	if err := tx.dropWrap(u.ID, WrapHost); err != nil {
		return err
	}
	if err := tx.dropReading(u.ID); err != nil {
		return err
	}
	if err := tx.exec(`UPDATE user_keys SET destroyed = ? WHERE id = ?`, now.UnixMilli(), u.ID[:]); err != nil {
		return err
	}
	return v.attestKey(tx, LeafKeyDestroyed, u.ID, u.payload(), now)
}

// Scrub brings the write-ahead log into the database and empties it, so that what was overwritten is in neither.
func (v *Vault) Scrub(ctx context.Context) error { return v.write.checkpoint(ctx) }

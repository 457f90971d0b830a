package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Shred says what a shred key is for: destroying it erases a custodian's copies of a class and month.
type Shred struct {
	ID        ID
	Custodian CustodianID
	Class     uint16
	Month     uint16 // as in labels: (year − 1970)·12 + month − 1
	Made      time.Time
}

func (s Shred) octets() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append([]byte(nil), s.Custodian[:]...), s.Class), s.Month)
}

// ShredKey opens the shred key of a custodian, class and month, and makes it where there is none: once, whoever else asks. Token is
// that of the three. The caller destroys the key.
func (v *Vault) ShredKey(ctx context.Context, token Token, s Shred) (ID, Secret, error) {
	id, key, err := v.findShred(ctx, token, s)
	if !errors.Is(err, ErrNotFound) {
		return id, key, err
	}
	if v.host == nil {
		return ID{}, Secret{}, ErrSealed
	}
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return ID{}, Secret{}, err
	}
	defer k.Destroy()
	fresh := NewSecret()
	defer fresh.Destroy()
	s.ID = RandomID()
	wrap, err := v.host.Wrap(fresh, keyLabel(s.ID))
	if err != nil {
		return ID{}, Secret{}, err
	}
	err = v.updateKey(ctx, func(tx *Tx) error {
		if err := tx.holdsCustodian(s.Custodian); err != nil {
			return err
		}
		// One that was erased and came back with a backup makes room; the sweep ends it.
		if err := tx.exec(`UPDATE shred_keys SET token = randomblob(16) WHERE token = ? AND id NOT IN (SELECT owner FROM wraps WHERE purpose = ? AND used = 1)`, token[:], WrapHost); err != nil {
			return err
		}
		n, err := tx.change(`INSERT INTO shred_keys (id, token, custodian, month, sealed, made) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token) DO NOTHING`,
			s.ID[:], token[:], s.Custodian[:], s.Month, SealOctets(k, PartArchive, Label("shred key", string(s.ID[:])), s.octets()), s.Made.UnixMilli())
		if err != nil || n == 0 { // another caller was first
			return err
		}
		if err := tx.putWrap(s.ID, WrapHost, wrap); err != nil {
			return err
		}
		_, err = v.attestSealed(tx, k, s.ID, CaseLeaf{Type: LeafKeyMade, Payload: shredPayload(s)}, s.Made)
		return err
	})
	if err != nil {
		return ID{}, Secret{}, fmt.Errorf("vault: shred key: %w", err)
	}
	return v.findShred(ctx, token, s)
}

// shredPayload is what the leaves of a shred key's life commit to.
func shredPayload(s Shred) []byte { return Label("shred", string(s.octets())) }

func (v *Vault) findShred(ctx context.Context, token Token, want Shred) (ID, Secret, error) {
	var id, sealed, wrap []byte
	err := v.queryRow(ctx, `SELECT s.id, s.sealed, w.wrap FROM shred_keys s JOIN wraps w ON w.owner = s.id AND w.purpose = ? AND w.used = 1
		WHERE s.token = ?`, []any{WrapHost, token[:]}, &id, &sealed, &wrap)
	if err != nil {
		return ID{}, Secret{}, err
	}
	got, err := v.openShred(ctx, id, sealed)
	if err != nil {
		return ID{}, Secret{}, err
	}
	if want.ID, want.Made = got.ID, got.Made; got != want {
		return ID{}, Secret{}, fmt.Errorf("%w: shred key %v is for another custodian, class or month", ErrCorrupt, got.ID)
	}
	key, err := v.unwrapShred(got.ID, wrap)
	return got.ID, key, err
}

func (v *Vault) unwrapShred(id ID, wrap []byte) (Secret, error) {
	if v.host == nil {
		return Secret{}, ErrSealed
	}
	key, err := v.host.Unwrap(wrap, keyLabel(id))
	if err != nil {
		return Secret{}, fmt.Errorf("shred key %v: %w", id, err)
	}
	return key, nil
}

func (v *Vault) openShred(ctx context.Context, id, sealed []byte) (Shred, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Shred{}, err
	}
	defer k.Destroy()
	b, err := OpenOctets(k, PartArchive, Label("shred key", string(id)), sealed)
	if err == nil && (len(b) != 20 || len(id) != len(ID{})) {
		err = ErrCorrupt
	}
	if err != nil {
		return Shred{}, fmt.Errorf("vault: shred key: %w", err)
	}
	return Shred{ID: ID(id), Custodian: CustodianID(b), Class: binary.BigEndian.Uint16(b[16:]), Month: binary.BigEndian.Uint16(b[18:])}, nil
}

// OpenShredKey opens a shred key by its id; ErrNotFound when it was destroyed. The caller destroys it.
func (v *Vault) OpenShredKey(ctx context.Context, id ID) (Secret, error) {
	var wrap []byte
	err := v.queryRow(ctx, `SELECT wrap FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{id[:], WrapHost}, &wrap)
	if err != nil {
		return Secret{}, fmt.Errorf("shred key %v: %w", id, err)
	}
	return v.unwrapShred(id, wrap)
}

// Shreds lists the shred keys that live, of some custodians or of all, of the months from first to last, by month.
func (v *Vault) Shreds(ctx context.Context, custodians []CustodianID, first, last uint16) ([]Shred, error) {
	query, args := `SELECT id, sealed, made FROM shred_keys WHERE month BETWEEN ? AND ?`, []any{first, last}
	if len(custodians) > 0 {
		query += ` AND custodian IN (` + placeholders(len(custodians)) + `)`
		for _, c := range custodians {
			args = append(args, c[:])
		}
	}
	var list []Shred
	err := v.queryRows(ctx, query+` ORDER BY month, id`, args, func(sc scanner) error {
		var id, sealed []byte
		var made int64
		if err := sc.Scan(&id, &sealed, &made); err != nil {
			return err
		}
		s, err := v.openShred(ctx, id, sealed)
		s.Made = timeOf(made)
		list = append(list, s)
		return err
	})
	return list, err
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

// An EscrowKey is one that the archive seals to, with what is known of it: octets of the escrow package's. The last epoch is the
// current one.
type EscrowKey struct {
	ID      Digest
	Purpose uint8
	Record  []byte // DEK1
	Epochs  []EscrowEpoch
	Made    time.Time
}

// An EscrowEpoch is an epoch with the statements of all of its officers, DEE1 and DEG1 one after the other.
type EscrowEpoch struct {
	Number     int
	Octets     []byte
	Statements []byte
	Leaf       int64 // that says it is in force
}

// EscrowVersion changes whenever a key or an epoch comes into force: it is the last one's leaf, -1 before the first.
func (v *Vault) EscrowVersion(ctx context.Context) (leaf int64, err error) {
	err = v.queryRow(ctx, `SELECT COALESCE(MAX(leaf), -1) FROM escrow_epochs`, nil, &leaf)
	return leaf, err
}

// EscrowKeys lists all escrow keys, the oldest first, with their epochs from the first on. ErrCorrupt for what InstallEscrow did not
// write.
func (v *Vault) EscrowKeys(ctx context.Context) ([]EscrowKey, error) {
	if last, err := v.EscrowVersion(ctx); err != nil || last < 0 { // none: nor is a key made to check them with
		return nil, err
	}
	own, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return nil, err
	}
	defer own.Destroy()
	var list []EscrowKey
	err = v.queryRows(ctx, `SELECT k.id, k.purpose, k.record, k.made, e.number, e.epoch, e.statements, e.leaf, e.mac FROM escrow_keys k
		JOIN escrow_epochs e ON e.key = k.id ORDER BY k.made, k.id, e.number`, nil, func(s scanner) error {
		var k EscrowKey
		var e EscrowEpoch
		var id, mac []byte
		var made int64
		if err := s.Scan(&id, &k.Purpose, &k.Record, &made, &e.Number, &e.Octets, &e.Statements, &e.Leaf, &mac); err != nil {
			return err
		}
		if k.Made = timeOf(made); !hmac.Equal(mac, k.mac(own, e)) {
			return fmt.Errorf("%w: an escrow key, or an epoch of it, is not one that was installed here", ErrCorrupt)
		}
		if len(id) != len(Digest{}) {
			return fmt.Errorf("%w: id of an escrow key", ErrCorrupt)
		}
		k.ID = Digest(id)
		if n := len(list); n == 0 || list[n-1].ID != k.ID {
			list = append(list, k)
		}
		last := &list[len(list)-1]
		last.Epochs = append(last.Epochs, e)
		return nil
	})
	return list, err
}

// mac is what an epoch's row is known by: of the key's record and time, and all of the epoch.
func (k EscrowKey) mac(own Secret, e EscrowEpoch) []byte {
	m := hmac.New(sha256.New, own.raw())
	m.Write(Label("escrow epoch", strconv.FormatInt(k.Made.UnixMilli(), 10), strconv.Itoa(e.Number), strconv.FormatInt(e.Leaf, 10)))
	for _, part := range [][]byte{k.Record, e.Octets, e.Statements} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write(part)
	}
	return m.Sum(nil)
}

// InstallEscrow brings the last of a key's epochs into force, and the key with its first, with leaf 8: public is the epoch's digest,
// payload that of the statements. ErrExists when that epoch, or a later one, is in force already.
func (v *Vault) InstallEscrow(ctx context.Context, k EscrowKey, public Digest, payload []byte, now time.Time) error {
	own, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer own.Destroy()
	e := k.Epochs[len(k.Epochs)-1]
	k.Made = timeOf(now.UnixMilli())
	return v.updateKey(ctx, func(tx *Tx) error {
		var last int
		if err := tx.queryRow(`SELECT COALESCE(MAX(number), 0) FROM escrow_epochs WHERE key = ?`, []any{k.ID[:]}, &last); err != nil {
			return err
		}
		switch {
		case last >= e.Number:
			return fmt.Errorf("epoch %d: %w", e.Number, ErrExists)
		case last > 0:
			var made int64
			if err := tx.queryRow(`SELECT made FROM escrow_keys WHERE id = ?`, []any{k.ID[:]}, &made); err != nil {
				return err
			}
			k.Made = timeOf(made)
		default:
			if err := tx.exec(`INSERT INTO escrow_keys (id, purpose, record, made) VALUES (?, ?, ?, ?)`, k.ID[:], k.Purpose, k.Record, now.UnixMilli()); err != nil {
				return err
			}
		}
		o := newOpening(payload)
		leaf, err := tx.appendLeaf(Leaf{Type: LeafEpoch, Time: now, Archive: v.archive, Subject: ID(k.ID[:16]), Public: public, Commitment: o.Commit(LeafEpoch)})
		if err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, leaf, k.ID[:16], o.octets()); err != nil {
			return err
		}
		for _, e := range k.Epochs { // a key that was reshared before it came here brings its whole chain
			if e.Number <= last {
				continue
			}
			e.Leaf = leaf
			if err := tx.exec(`INSERT INTO escrow_epochs (key, number, epoch, statements, leaf, mac) VALUES (?, ?, ?, ?, ?, ?)`,
				k.ID[:], e.Number, e.Octets, e.Statements, leaf, k.mac(own, e)); err != nil {
				return err
			}
		}
		return nil
	})
}

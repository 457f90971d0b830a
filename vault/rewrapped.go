package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A NewWrap takes the place of a wrap of a record, under the same shred key.
type NewWrap struct {
	Record   ID
	Old, New Digest // of the wraps
	Shred    ID
	Body     Digest // of the sealed body, as the wrap's label has it
	Outer    []byte // DEW1
}

// ReplaceWraps puts wraps in the place of others: outer wrap and digest are overwritten where they stand, and a leaf 2 a record says so,
// whose public part is the intake's with the new digests, and whose payload the public part of the leaf that it replaces. All of a
// record stand together. One that was shredded, or replaced, meanwhile is passed over; n are those that were not. One commit.
func (v *Vault) ReplaceWraps(ctx context.Context, list []NewWrap, now time.Time) (n int, err error) {
	err = v.updateKey(ctx, func(tx *Tx) error {
		n = 0
		for len(list) > 0 {
			end := 1
			for end < len(list) && list[end].Record == list[0].Record {
				end++
			}
			done, err := v.replaceWraps(tx, list[:end], now)
			if err != nil {
				return err
			}
			n, list = n+done, list[end:]
		}
		return nil
	})
	return n, err
}

// replaceWraps is ReplaceWraps for one record.
func (v *Vault) replaceWraps(tx *Tx, list []NewWrap, now time.Time) (n int, err error) {
	record, body := list[0].Record, list[0].Body
	leaf, err := tx.currentLeaf(record)
	if errors.Is(err, ErrNotFound) { // it ended
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	for _, w := range list {
		done, err := tx.change(`UPDATE archive_wraps SET digest = ?, outer = ? WHERE record = ? AND digest = ? AND shred = ? AND length(outer) = ?
			AND shred IN (SELECT owner FROM wraps WHERE purpose = ? AND used = 1)`, w.New[:], w.Outer, record[:], w.Old[:], w.Shred[:], len(w.Outer), WrapHost)
		if err != nil {
			return 0, err
		}
		n += int(done)
	}
	if n == 0 {
		return 0, nil
	}
	digests, err := tx.wrapDigests(record)
	if err != nil {
		return 0, err
	}
	o := newOpening(leaf.Public[:])
	at, err := tx.appendLeaf(Leaf{Type: LeafRewrap, Time: now, Archive: v.archive, Subject: record, Public: IntakePublic(body, digests), Commitment: o.Commit(LeafRewrap)})
	if err != nil {
		return 0, err
	}
	for _, w := range list {
		if err := tx.exec(`INSERT OR REPLACE INTO rewrapped (record, n, leaf) SELECT record, n, ? FROM archive_wraps WHERE record = ? AND digest = ?`, at, record[:], w.New[:]); err != nil {
			return 0, err
		}
	}
	return n, tx.exec(`INSERT INTO rewraps (leaf, record, opening) VALUES (?, ?, ?)`, at, record[:], o.octets())
}

// currentLeaf is the leaf that attests a record's wraps as they are.
func (tx *Tx) currentLeaf(record ID) (Leaf, error) {
	var b []byte
	err := tx.queryRow(`SELECT leaf FROM leaves WHERE idx = (SELECT `+currentLeaf+` FROM records r WHERE r.id = ?)`, []any{record[:]}, &b)
	if err != nil {
		return Leaf{}, err
	}
	l, err := ParseLeaf(b)
	if err == nil && (l.Subject != record || l.Type != LeafIntake && l.Type != LeafRewrap) {
		err = fmt.Errorf("record %v: %w: its leaf is another's", record, ErrCorrupt)
	}
	return l, err
}

// currentLeaf is the index of the leaf that attests the wraps of record r: its intake's, or that of the last re-wrap.
const currentLeaf = `COALESCE((SELECT MAX(x.leaf) FROM rewraps x WHERE x.record = r.id), r.leaf)`

func (tx *Tx) wrapDigests(record ID) (list []Digest, err error) {
	err = tx.queryRows(`SELECT digest FROM archive_wraps WHERE record = ?`, []any{record[:]}, func(s scanner) error {
		var b []byte
		if err := s.Scan(&b); err != nil {
			return err
		}
		if len(b) != len(Digest{}) {
			return fmt.Errorf("%w: digest of a wrap", ErrCorrupt)
		}
		list = append(list, Digest(b))
		return nil
	})
	return list, err
}

// A RewrapLeaf is a leaf 2, with what opens its commitment. That needs no seal: the payload stands in the log.
type RewrapLeaf struct {
	Index   int64
	Opening Opening
}

// rewraps lists a record's, in their order.
func (v *Vault) rewraps(ctx context.Context, record ID) (list []RewrapLeaf, err error) {
	err = v.queryRows(ctx, `SELECT leaf, opening FROM rewraps WHERE record = ? ORDER BY leaf`, []any{record[:]}, func(s scanner) error {
		var r RewrapLeaf
		var b []byte
		if err := s.Scan(&r.Index, &b); err != nil {
			return err
		}
		if len(b) != len(r.Opening.Salt)+len(Digest{}) {
			return fmt.Errorf("%w: opening of leaf %d", ErrCorrupt, r.Index)
		}
		r.Opening = Opening{[32]byte(b), b[32:]}
		list = append(list, r)
		return nil
	})
	return list, err
}

// WrapsBefore counts the wraps that were sealed before a leaf, and open still: with the first leaf of a key, those under keys before it.
// Mail that was on its way in while that key came counts as the new key's.
func (v *Vault) WrapsBefore(ctx context.Context, leaf int64) (n int64, err error) {
	err = v.queryRow(ctx, `SELECT COUNT(*) FROM archive_wraps w JOIN records r ON r.id = w.record
		LEFT JOIN rewrapped x ON x.record = w.record AND x.n = w.n WHERE w.outer IS NOT NULL AND COALESCE(x.leaf, r.leaf) < ?`, []any{leaf}, &n)
	return n, err
}

// WrapShred is the shred key that a record's wrap is in; ErrNotFound when it is not there any more.
func (v *Vault) WrapShred(ctx context.Context, record ID, of Digest) (ID, error) {
	var shred []byte
	err := v.queryRow(ctx, `SELECT shred FROM archive_wraps WHERE record = ? AND digest = ? AND outer IS NOT NULL`, []any{record[:], of[:]}, &shred)
	return toID(shred), err
}

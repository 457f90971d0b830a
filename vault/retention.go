package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A KeptCopy is a record under the shred key of one of its custodians.
type KeptCopy struct {
	Record  ID
	Class   uint16
	Made    time.Time // of intake
	Expires time.Time // as stamped at intake; zero: no retention time
}

// KeptCopies lists what a shred key opens, and tells whether the key is there: one that came back with a backup, after it was
// erased, is not.
func (v *Vault) KeptCopies(ctx context.Context, shred ID) (list []KeptCopy, alive bool, err error) {
	var n int
	if err := v.queryRow(ctx, `SELECT COUNT(*) FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{shred[:], WrapHost}, &n); err != nil {
		return nil, false, err
	}
	err = v.queryRows(ctx, `SELECT w.record, r.class, r.made, a.expires FROM archive_wraps w JOIN records r ON r.id = w.record JOIN archive a ON a.record = w.record
		WHERE w.shred = ? AND w.outer IS NOT NULL ORDER BY w.record`, []any{shred[:]}, func(s scanner) error {
		var c KeptCopy
		var record []byte
		var made, expires int64
		err := s.Scan(&record, &c.Class, &made, &expires)
		c.Record, c.Made, c.Expires = toID(record), timeOf(made), timeOf(expires)
		list = append(list, c)
		return err
	})
	return list, n > 0, err
}

// A Destruction says why copies are destroyed; a record's leaf names it to whoever reads the log.
type Destruction string

// Why copies go.
const (
	ByRetention Destruction = "retention" // their time is over
	ByErasure   Destruction = "erasure"
)

// public is the public part of the leaf of a record that was destroyed: there are two of them, which anybody can compute.
func (d Destruction) public() Digest { return NewDigest("destroyed", []byte(d)) }

// copyBatch is how many copies go in one commit: mail waits for no more.
const copyBatch = 200

// DestroyCopies takes records from a shred key, with the custodian's own entries of the index where own is not zero. A record that
// nobody else holds ends, with its leaf: body, envelope, index, what hung on it. Holds is how many holds the caller has looked at,
// those that ended too; ErrChanged when there are others by now. It returns how many records ended.
func (v *Vault) DestroyCopies(ctx context.Context, shred ID, records []ID, own Token, why Destruction, holds int, now time.Time) (ended int, err error) {
	for len(records) > 0 {
		some := records[:min(copyBatch, len(records))]
		records = records[len(some):]
		var n int
		err := v.update(ctx, func(tx *Tx) error {
			n = 0
			if err := tx.checkHolds(holds); err != nil {
				return err
			}
			for _, id := range some {
				gone, err := v.destroyCopy(tx, shred, id, own, why, now)
				if err != nil {
					return err
				}
				if gone {
					n++
				}
			}
			return nil
		})
		if err != nil {
			return ended, err
		}
		ended += n
	}
	return ended, nil
}

func (tx *Tx) checkHolds(seen int) error {
	var n int
	err := tx.queryRow(`SELECT COUNT(*) FROM holds`, nil, &n)
	if err == nil && n != seen {
		err = fmt.Errorf("%w: a hold was placed", ErrChanged)
	}
	return err
}

func (v *Vault) destroyCopy(tx *Tx, shred, record ID, own Token, why Destruction, now time.Time) (ended bool, err error) {
	if err := tx.exec(`UPDATE archive_wraps SET outer = NULL WHERE record = ? AND shred = ?`, record[:], shred[:]); err != nil {
		return false, err
	}
	if own != (Token{}) {
		if err := tx.exec(`DELETE FROM archive_index WHERE token = ? AND record = ?`, own[:], record[:]); err != nil {
			return false, err
		}
	}
	if n, err := tx.keptWraps(record); err != nil || n > 0 {
		return false, err
	}
	if _, err := tx.appendLeaf(Leaf{Type: LeafDestroyed, Time: now, Archive: v.archive, Subject: record, Public: why.public(),
		Commitment: newOpening(nil).Commit(LeafDestroyed)}); err != nil {
		return false, err
	}
	if err := tx.dropKept(record); err != nil {
		return false, err
	}
	if err := v.dropExhibits(tx, record); err != nil {
		return false, err
	}
	var waiting int // in the queue: it ends with its delivery
	if err := tx.queryRow(`SELECT COUNT(*) FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{record[:], WrapHost}, &waiting); err != nil || waiting > 0 {
		return true, err
	}
	return true, v.deleteRecord(tx, record)
}

// DropShred destroys a shred key that opens nothing any more, with its leaf; early puts it into the ledger that restores obey.
// ErrChanged when mail has come under it, or a hold was placed, meanwhile.
func (v *Vault) DropShred(ctx context.Context, s Shred, early bool, why Destruction, holds int, now time.Time) error {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.updateKey(ctx, func(tx *Tx) error {
		if err := tx.checkHolds(holds); err != nil {
			return err
		}
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM archive_wraps WHERE shred = ? AND outer IS NOT NULL`, []any{s.ID[:]}, &n); err != nil {
			return err
		} else if n > 0 {
			return fmt.Errorf("%w: mail came under shred key %v", ErrChanged, s.ID)
		}
		if early {
			err = tx.erase(s.ID, now)
		} else {
			err = tx.dropWrap(s.ID, WrapHost)
		}
		if err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM shred_keys WHERE id = ?`, `DELETE FROM openings WHERE owner = ?`} {
			if err := tx.exec(q, s.ID[:]); err != nil {
				return err
			}
		}
		_, err = v.attestSealed(tx, k, s.ID, CaseLeaf{Type: LeafKeyDestroyed, Payload: []byte(why)}, now)
		return err
	})
}

// DropCustodian deletes the name of a custodian who has no shred key any more, unless keys of his addresses are escrowed.
func (v *Vault) DropCustodian(ctx context.Context, id CustodianID, addresses []string) error {
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.checkEscrowed(addresses); errors.Is(err, ErrChanged) {
			return nil
		} else if err != nil {
			return err
		}
		return tx.exec(`DELETE FROM custodians WHERE id = ? AND id NOT IN (SELECT custodian FROM shred_keys)`, id[:])
	})
}

// An ErasureRequest is somebody's erasure that was asked for. What it says rests sealed; the address goes when it is done.
type ErasureRequest struct {
	ID         ID            `json:"id"`
	Asked      time.Time     `json:"asked"`
	Done       time.Time     `json:"done"` // zero: something of it is kept still
	Address    string        `json:"address,omitempty"`
	Custodians []CustodianID `json:"-"` // of the address, and of those that the person had before
	By         string        `json:"by"`
	Reason     string        `json:"reason"`
	Copies     int           `json:"copies"` // destroyed so far
	Keys       int           `json:"keys"`
}

// erasureOctets is what is sealed of a request.
type erasureOctets struct {
	ErasureRequest
	Of []CustodianID `json:"custodians"`
}

func erasureContext(id ID) []byte { return Label("erasure", string(id[:])) }

func sealErasure(k Secret, r ErasureRequest) ([]byte, error) {
	b, err := json.Marshal(erasureOctets{r, r.Custodians})
	if err != nil {
		return nil, err
	}
	return SealOctets(k, PartArchive, erasureContext(r.ID), b), nil
}

// AskErasure keeps a request, with a leaf that commits to who asked and why, and to the custodian's ids: not to his address, which
// an id does not tell once its salt is gone.
func (v *Vault) AskErasure(ctx context.Context, r ErasureRequest, now time.Time) error {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	sealed, err := sealErasure(k, r)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(erasureOctets{ErasureRequest{ID: r.ID, By: r.By, Reason: r.Reason}, r.Custodians})
	if err != nil {
		return err
	}
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.exec(`INSERT INTO erasure_requests (id, asked, sealed) VALUES (?, ?, ?)`, r.ID[:], now.UnixMilli(), sealed); err != nil {
			return err
		}
		_, err := v.attestSealed(tx, k, r.ID, CaseLeaf{Type: LeafErasureAsked, Payload: payload}, now)
		return err
	})
}

// SetErasure writes a request anew. With a time in Done it is over: the custodian's name goes in the same commit, and the address
// with it, and a leaf says so. ErrChanged then: something is kept of a custodian, or keys of one of addresses, which are theirs, are escrowed.
func (v *Vault) SetErasure(ctx context.Context, r ErasureRequest, addresses []string) error {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	var done int64
	if !r.Done.IsZero() {
		done, r.Address = r.Done.UnixMilli(), ""
	}
	sealed, err := sealErasure(k, r)
	if err != nil {
		return err
	}
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.changeOne(`UPDATE erasure_requests SET done = ?, sealed = ? WHERE id = ? AND done = 0`, done, sealed, r.ID[:]); err != nil || done == 0 {
			return err
		}
		if err := tx.checkEscrowed(addresses); err != nil {
			return err
		}
		for _, id := range r.Custodians {
			var left int
			if err := tx.queryRow(`SELECT COUNT(*) FROM shred_keys WHERE custodian = ?`, []any{id[:]}, &left); err != nil {
				return err
			} else if left > 0 {
				return fmt.Errorf("%w: mail of the custodian came", ErrChanged)
			}
			if err := tx.exec(`DELETE FROM custodians WHERE id = ?`, id[:]); err != nil {
				return err
			}
		}
		_, err := v.attestSealed(tx, k, r.ID, CaseLeaf{Type: LeafErasureDone, Payload: fmt.Appendf(nil, "%d copies, %d keys", r.Copies, r.Keys)}, r.Done)
		return err
	})
}

// ErasureRequests lists all requests, the oldest first.
func (v *Vault) ErasureRequests(ctx context.Context) ([]ErasureRequest, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	var list []ErasureRequest
	err = v.queryRows(ctx, `SELECT id, asked, done, sealed FROM erasure_requests ORDER BY asked, id`, nil, func(s scanner) error {
		var id, sealed []byte
		var asked, done int64
		if err := s.Scan(&id, &asked, &done, &sealed); err != nil {
			return err
		}
		b, err := OpenOctets(k, PartArchive, erasureContext(toID(id)), sealed)
		var r erasureOctets
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return fmt.Errorf("erasure %v: %w", toID(id), err)
		}
		r.ID, r.Asked, r.Done, r.Custodians = toID(id), timeOf(asked), timeOf(done), r.Of
		list = append(list, r.ErasureRequest)
		return nil
	})
	return list, err
}

package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A QueueRow is one recipient of an outbound message: what can be read without the host seal. State and Detail are the
// queue's own; they hold no address.
type QueueRow struct {
	ID      ID
	Record  ID
	Domain  string
	Lane    string // what it is scheduled with
	State   uint8
	Due     time.Time // of a leased row: when the lease ends; Never for what waits for an administrator
	Made    time.Time
	Octets  int64
	Leased  bool
	Lost    int   // leases in a row that were not ended: their holder died, or is late
	Version int64 // of the row as it was read; a change needs it
	Detail  []byte
}

// Never is the due time of a row that only an administrator can move.
var Never = time.UnixMilli(1<<62 - 1).UTC()

// A NewRow is one recipient of a message that is being accepted.
type NewRow struct {
	Domain    string
	Lane      string
	Recipient []byte // sealed before it rests
	State     uint8
	Due       time.Time
	Detail    []byte
	Payload   []byte // what its leaf commits to
}

// Accept makes a draft a record with its queue rows, all in one commit: when it returns nil the message is on stable
// storage and in the log. It ends the draft in any case. The row ids are in the order of rows.
func (v *Vault) Accept(ctx context.Context, d *Draft, envelope []byte, rows []NewRow, now time.Time) ([]ID, error) {
	defer d.Discard()
	if len(rows) == 0 {
		return nil, errors.New("vault: a message without a recipient")
	}
	in, err := v.prepare(d, Outbound, envelope, now)
	if err != nil {
		return nil, err
	}
	ids := make([]ID, len(rows))
	sealed := make([][]byte, len(rows))
	leaves := make([]recordLeaf, len(rows))
	for i, r := range rows {
		ids[i] = NewID(now)
		sealed[i] = SealOctets(d.key, PartRecipient, ids[i][:], r.Recipient)
		leaves[i] = v.recordLeaf(d.key, LeafRecipient, ids[i], rowPublic(d.id), r.Payload, now)
	}
	err = v.update(ctx, func(tx *Tx) error {
		if err := in.put(tx, v); err != nil {
			return err
		}
		for i, r := range rows {
			if err := tx.exec(`INSERT INTO queue (id, record, domain, lane, state, due, made, octets, detail, recipient) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				ids[i][:], d.id[:], r.Domain, r.Lane, r.State, r.Due.UnixMilli(), now.UnixMilli(), d.octets, r.Detail, sealed[i]); err != nil {
				return err
			}
			if err := tx.putLeaf(leaves[i], d.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.done()
	return ids, nil
}

// rowPublic is the public part of a queue row's leaves: its record, by which the log alone can be reconciled.
func rowPublic(record ID) Digest {
	var d Digest
	copy(d[:], record[:])
	return d
}

const queueColumns = `id, record, domain, lane, state, due, made, octets, owner IS NOT NULL, lost, version, detail`

func scanRow(s scanner) (QueueRow, error) {
	var r QueueRow
	var id, record []byte
	var due, made int64
	if err := s.Scan(&id, &record, &r.Domain, &r.Lane, &r.State, &due, &made, &r.Octets, &r.Leased, &r.Lost, &r.Version, &r.Detail); err != nil {
		return QueueRow{}, err
	}
	r.ID, r.Record, r.Due, r.Made = toID(id), toID(record), time.UnixMilli(due).UTC(), timeOf(made)
	return r, nil
}

// A Want asks for at most N due rows of a lane.
type Want struct {
	Lane string
	N    int
}

// A Claim is what was leased of one lane, and when its next row is due (Never when there is none).
type Claim struct {
	Rows []QueueRow
	Next time.Time
}

// ClaimRows leases the rows that are due at now, oldest due first, until lease ends.
func (v *Vault) ClaimRows(ctx context.Context, wants []Want, now, lease time.Time) ([]Claim, error) {
	claims := make([]Claim, len(wants))
	err := v.update(ctx, func(tx *Tx) error {
		for i, w := range wants {
			c, err := v.claim(tx, w, now, lease)
			if err != nil {
				return err
			}
			claims[i] = c
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

func (v *Vault) claim(tx *Tx, w Want, now, lease time.Time) (Claim, error) {
	c := Claim{Next: Never}
	err := tx.queryRows(`SELECT `+queueColumns+` FROM queue WHERE lane = ? AND due <= ? ORDER BY due LIMIT ?`,
		[]any{w.Lane, now.UnixMilli(), w.N}, func(s scanner) error {
			r, err := scanRow(s)
			c.Rows = append(c.Rows, r)
			return err
		})
	if err != nil {
		return Claim{}, err
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		if r.Leased { // and its time is over, or it would not be due
			r.Lost++
		}
		r.Leased, r.Due = true, lease
		r.Version++
		if err := tx.changeOne(`UPDATE queue SET due = ?, owner = ?, lost = ?, version = ? WHERE id = ?`,
			lease.UnixMilli(), v.owner[:], r.Lost, r.Version, r.ID[:]); err != nil {
			return Claim{}, err
		}
	}
	var due int64
	if err := tx.queryRow(`SELECT COALESCE(MIN(due), ?) FROM queue WHERE lane = ?`, []any{Never.UnixMilli(), w.Lane}, &due); err != nil {
		return Claim{}, err
	}
	c.Next = time.UnixMilli(due).UTC()
	return c, nil
}

// farOff is how much later than now a row may be due by itself. What is later was put off by a clock that was wrong.
const farOff = 30 * 24 * time.Hour

// freeLeases ends the leases of a process that died: there is one owner, and it is only starting. The first time a row is
// due at once, then after 1, 4, 9 seconds and so on: what kills the process must not be the first thing that the next one
// does, and an innocent row that was in flight must not wait long.
func (v *Vault) freeLeases(ctx context.Context) error {
	now := v.now()
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.exec(`UPDATE queue SET due = ? + 1000 * lost * lost, lost = lost + 1, owner = NULL, version = version + 1 WHERE owner IS NOT NULL`,
			now.UnixMilli()); err != nil {
			return err
		}
		return tx.exec(`UPDATE queue SET due = ?, version = version + 1 WHERE due > ? AND due < ?`,
			now.UnixMilli(), now.Add(farOff).UnixMilli(), Never.UnixMilli())
	})
}

// A LaneDue is a lane that has rows, and when the first of them is due.
type LaneDue struct {
	Lane string
	Due  time.Time
}

// QueueLanes lists the lanes that have rows which will be due without an administrator.
func (v *Vault) QueueLanes(ctx context.Context) ([]LaneDue, error) {
	var list []LaneDue
	// One step down the index for each lane, not one for each row.
	err := v.queryRows(ctx, `WITH RECURSIVE l (lane) AS (
			SELECT MIN(lane) FROM queue
			UNION ALL SELECT (SELECT MIN(lane) FROM queue WHERE lane > l.lane) FROM l WHERE l.lane IS NOT NULL)
		SELECT lane, (SELECT MIN(due) FROM queue q WHERE q.lane = l.lane) FROM l WHERE lane IS NOT NULL`, nil,
		func(s scanner) error {
			var l LaneDue
			var due int64
			if err := s.Scan(&l.Lane, &due); err != nil {
				return err
			}
			if l.Due = time.UnixMilli(due).UTC(); l.Due.Before(Never) {
				list = append(list, l)
			}
			return nil
		})
	return list, err
}

// QueueRow reads one row.
func (v *Vault) QueueRow(ctx context.Context, id ID) (QueueRow, error) {
	var r QueueRow
	found := false
	err := v.queryRows(ctx, `SELECT `+queueColumns+` FROM queue WHERE id = ?`, []any{id[:]}, func(s scanner) error {
		var err error
		r, err = scanRow(s)
		found = true
		return err
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return r, err
}

// QueueRows reads at most n rows after the id given, oldest first; those of one domain when it is not empty.
func (v *Vault) QueueRows(ctx context.Context, domain string, after ID, n int) ([]QueueRow, error) {
	var list []QueueRow
	err := v.queryRows(ctx, `SELECT `+queueColumns+` FROM queue WHERE id > ? AND (? = '' OR domain = ?) ORDER BY id LIMIT ?`,
		[]any{after[:], domain, domain, n}, func(s scanner) error {
			r, err := scanRow(s)
			list = append(list, r)
			return err
		})
	return list, err
}

// A RowLeaf is what the log says of a change.
type RowLeaf struct {
	Type    LeafType
	Payload []byte
}

// A RowChange is how a row shall be after a change.
type RowChange struct {
	State     uint8
	Lane      string
	Due       time.Time
	Detail    []byte
	Trouble   []byte // sealed before it rests; nil keeps what is there
	DropBuilt bool   // what was built is not to be sent again
	Remove    bool   // the row is at its end; with its last row the record's queue wrap goes, too
	Leaves    []RowLeaf
}

// ChangeRow changes the row that the caller read, or ends it, and ends its lease. ErrChanged when the row is no longer as
// it was read. The record is the row's; a nil one, for a row whose record does not open, can seal nothing: no Trouble is
// kept, and the leaves have no payload.
func (v *Vault) ChangeRow(ctx context.Context, r *Record, row QueueRow, c RowChange, now time.Time) error {
	var trouble []byte
	if c.Trouble != nil && r != nil {
		trouble = SealOctets(r.key, PartTrouble, row.ID[:], c.Trouble)
	}
	leaves := v.rowLeaves(r, row.ID, row.Record, c.Leaves, now)
	return v.update(ctx, func(tx *Tx) error {
		if c.DropBuilt || c.Remove {
			if err := v.dropBuilt(tx, row.ID); err != nil {
				return err
			}
		}
		if err := tx.changeRow(row, c, trouble); err != nil {
			return err
		}
		for _, l := range leaves {
			if err := tx.putLeaf(l, row.Record); err != nil {
				return err
			}
		}
		if !c.Remove {
			return nil
		}
		return v.afterRow(tx, row.Record)
	})
}

// changeRow changes or deletes the row that was read.
func (tx *Tx) changeRow(row QueueRow, c RowChange, trouble []byte) error {
	if c.Remove {
		return tx.changeOne(`DELETE FROM queue WHERE id = ? AND version = ?`, row.ID[:], row.Version)
	}
	return tx.changeOne(`UPDATE queue SET state = ?, lane = ?, due = ?, detail = ?, trouble = COALESCE(?, trouble), owner = NULL,
		lost = 0, version = version + 1 WHERE id = ? AND version = ?`,
		c.State, c.Lane, c.Due.UnixMilli(), c.Detail, trouble, row.ID[:], row.Version)
}

// rowLeaves makes the leaves of a row, sealed under its record's key when there is one.
func (v *Vault) rowLeaves(r *Record, row, record ID, list []RowLeaf, now time.Time) []recordLeaf {
	leaves := make([]recordLeaf, len(list))
	for i, l := range list {
		if r != nil {
			leaves[i] = v.recordLeaf(r.key, l.Type, row, rowPublic(record), l.Payload, now)
			continue
		}
		leaves[i].leaf = Leaf{Type: l.Type, Time: now, Archive: v.archive, Subject: row, Public: rowPublic(record), Commitment: Opening{}.Commit(l.Type)}
	}
	return leaves
}

// afterRow ends a record when its last row has gone.
func (v *Vault) afterRow(tx *Tx, record ID) error {
	var left int
	if err := tx.queryRow(`SELECT COUNT(*) FROM queue WHERE record = ?`, []any{record[:]}, &left); err != nil || left > 0 {
		return err
	}
	return v.endRecord(tx, record)
}

func (v *Vault) dropBuilt(tx *Tx, row ID) error {
	var file bool
	err := tx.queryRow(`SELECT file FROM built WHERE id = ?`, []any{row[:]}, &file)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if file {
		tx.afterCommit(func() { v.removeFile(row.String() + objectSuffix) })
	}
	return tx.exec(`DELETE FROM built WHERE id = ?`, row[:])
}

// RowRecipient opens a row's recipient; RowTrouble its last failure, nil when there is none.
func (r *Record) RowRecipient(ctx context.Context, row ID) ([]byte, error) {
	var sealed []byte
	if err := r.v.queryRow(ctx, `SELECT recipient FROM queue WHERE id = ? AND record = ?`, []any{row[:], r.ID[:]}, &sealed); err != nil {
		return nil, fmt.Errorf("queue row %v: %w", row, err)
	}
	b, err := OpenOctets(r.key, PartRecipient, row[:], sealed)
	if err != nil {
		return nil, fmt.Errorf("queue row %v: recipient: %w", row, err)
	}
	return b, nil
}

// RowTrouble opens a row's last failure; nil when there was none.
func (r *Record) RowTrouble(ctx context.Context, row ID) ([]byte, error) {
	var sealed []byte
	err := r.v.queryRow(ctx, `SELECT trouble FROM queue WHERE id = ? AND record = ?`, []any{row[:], r.ID[:]}, &sealed)
	if err != nil || sealed == nil {
		return nil, err
	}
	b, err := OpenOctets(r.key, PartTrouble, row[:], sealed)
	if err != nil {
		return nil, fmt.Errorf("queue row %v: trouble: %w", row, err)
	}
	return b, nil
}

// SaveBuilt keeps the message that was built for a row, before it is sent for the first time, the leaves that belong to it, and, where
// the archive has the record, exhibits. ErrExists when there is one: that one is to be sent. The caller holds the lease, and keeps it.
func (v *Vault) SaveBuilt(ctx context.Context, r *Record, row ID, octets []byte, leaves []RowLeaf, now time.Time, exhibits ...Exhibit) error {
	// What is kept free is for this: what was accepted must be able to leave.
	var n int
	if err := v.queryRow(ctx, `SELECT COUNT(*) FROM built WHERE id = ?`, []any{row[:]}, &n); err != nil {
		return err
	} else if n > 0 {
		return ErrExists
	}
	name := row.String() + objectSuffix
	v.removeFile(name) // of a commit that failed: no row names it
	out := spill{path: v.bodyPath(name)}
	err := writeStream(&out, r.key, PartObject, row[:], octets)
	if err == nil {
		err = out.finish()
	}
	if err == nil {
		ready := v.rowLeaves(r, row, r.ID, leaves, now)
		err = v.withExhibits(ctx, r, exhibits, now, func(tx *Tx) error {
			inline := out.inline()
			if err := tx.exec(`INSERT INTO built (id, object, file) VALUES (?, ?, ?)`, row[:], inline, inline == nil); err != nil {
				return err
			}
			for _, l := range ready {
				if err := tx.putLeaf(l, r.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		out.remove()
	}
	return storageError(err)
}

func writeStream(w io.Writer, key Secret, part Part, context, plain []byte) error {
	s, err := NewStreamWriter(w, key, part, context)
	if err != nil {
		return err
	}
	if _, err := s.Write(plain); err != nil {
		return err
	}
	return s.Close()
}

// Built opens the message that was built for a row; ErrNotFound when none was.
func (r *Record) Built(ctx context.Context, row ID) (io.ReadCloser, error) {
	var file bool
	if err := r.v.queryRow(ctx, `SELECT file FROM built WHERE id = ?`, []any{row[:]}, &file); err != nil {
		return nil, err
	}
	b, err := r.v.openStream(ctx, file, row.String()+objectSuffix, `SELECT object FROM built WHERE id = ?`, row[:], r.key, PartObject, row[:])
	if err != nil {
		return nil, fmt.Errorf("queue row %v: built message: %w", row, err)
	}
	return b, nil
}

// AddRowLeaves writes leaves about a row without changing it, such as a decision before what it decides is done.
func (v *Vault) AddRowLeaves(ctx context.Context, r *Record, row ID, leaves []RowLeaf, now time.Time) error {
	ready := v.rowLeaves(r, row, r.ID, leaves, now)
	return v.update(ctx, func(tx *Tx) error {
		for _, l := range ready {
			if err := tx.putLeaf(l, r.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

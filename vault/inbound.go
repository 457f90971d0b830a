package vault

import (
	"context"
	"errors"
	"time"
)

// An InboundID names an inbound message: the MAIL domain and the D/MIME message id.
type InboundID struct {
	Origin  string
	Message [64]byte
	Octets  [64]byte // SHA-512 of the octets that came; kept beside the two that name the message
}

// An InboundState says what is known of an inbound message.
type InboundState uint8

const (
	InboundNew      InboundState = 0 // nothing: the first copy, or the last try left no outcome
	InboundFlight   InboundState = 1 // this or another living process has it in hand
	InboundAccepted InboundState = 2
	InboundRefused  InboundState = 3 // for good, with the inner server's code
)

// Inbound is the state of a message, and its outcome once there is one.
type InboundStatus struct {
	State  InboundState
	Code   int    // of a refusal: the inner server's reply
	Status string // and its enhanced code, "" for none
	// Doubtful says that an earlier try ended without an outcome, by a crash: the message may have been handed over.
	Doubtful bool
}

// Inbound tells what is known of a message. A second copy of what is in flight is answered 451, of what has ended with
// the outcome.
func (v *Vault) Inbound(ctx context.Context, id InboundID) (InboundStatus, error) {
	var s InboundStatus
	var owner []byte
	err := v.queryRow(ctx, `SELECT state, code, status, owner FROM inbound WHERE origin = ? AND message = ?`,
		[]any{id.Origin, id.Message[:]}, &s.State, &s.Code, &s.Status, &owner)
	if errors.Is(err, ErrNotFound) {
		return InboundStatus{}, nil
	}
	return v.living(s, owner), err
}

// InboundAcceptedOctets tells whether a message of equal octets, by their SHA-512, was accepted from an origin.
func (v *Vault) InboundAcceptedOctets(ctx context.Context, origin string, sum [64]byte) (bool, error) {
	var n int
	err := v.queryRow(ctx, `SELECT COUNT(*) FROM inbound WHERE origin = ? AND octets = ? AND state = ?`,
		[]any{origin, sum[:], InboundAccepted}, &n)
	return n > 0, err
}

// living turns a flight whose process died into a new message: the folder has one owner, and a restart makes it another.
func (v *Vault) living(s InboundStatus, owner []byte) InboundStatus {
	if s.State == InboundFlight && toID(owner) != v.owner {
		return InboundStatus{Doubtful: true}
	}
	return s
}

// BeginInbound makes a draft a record and notes that the message is in flight, in one commit, unless it already is or has
// ended: then the state says so and nothing is kept. InboundNew means go on. It ends the draft in any case. The caller
// ends the flight with EndInbound or DeferInbound.
func (v *Vault) BeginInbound(ctx context.Context, d *Draft, id InboundID, envelope []byte, now time.Time) (InboundStatus, error) {
	defer d.Discard()
	in, err := v.prepare(d, Inbound, envelope, now)
	if err != nil {
		return InboundStatus{}, err
	}
	var s InboundStatus
	err = v.update(ctx, func(tx *Tx) error {
		var owner, record []byte
		s = InboundStatus{}
		err := tx.queryRow(`SELECT state, code, status, owner, record FROM inbound WHERE origin = ? AND message = ?`,
			[]any{id.Origin, id.Message[:]}, &s.State, &s.Code, &s.Status, &owner, &record)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if s = v.living(s, owner); s.State != InboundNew {
			return nil
		}
		if err := in.put(tx, v); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO inbound (origin, message, octets, state, record, tries, owner, began) VALUES (?, ?, ?, ?, ?, 1, ?, ?)
			ON CONFLICT (origin, message) DO UPDATE SET record = excluded.record, tries = inbound.tries + 1,
				owner = excluded.owner, began = excluded.began, octets = excluded.octets`,
			id.Origin, id.Message[:], id.Octets[:], InboundFlight, d.id[:], v.owner[:], now.UnixMilli()); err != nil {
			return err
		}
		if record == nil {
			return nil
		}
		return v.endRecord(tx, toID(record)) // of the try that died: the archive keeps it, since it may have been handed over
	})
	if err != nil {
		return InboundStatus{}, err
	}
	if s.State == InboundNew {
		d.done()
	}
	return s, nil
}

// EndInbound notes the outcome of a message in flight: accepted when code is 0, else refused for good. Payload is what
// the leaf commits to.
func (v *Vault) EndInbound(ctx context.Context, id InboundID, code int, status string, payload []byte, now time.Time) error {
	state, leaf := InboundAccepted, LeafAccepted
	if code != 0 {
		state, leaf = InboundRefused, LeafRefused
	}
	return v.endFlight(ctx, id, leaf, code == 0, payload, now, func(tx *Tx) error {
		return tx.exec(`UPDATE inbound SET state = ?, code = ?, status = ?, ended = ?, record = NULL, owner = NULL WHERE origin = ? AND message = ?`,
			state, code, status, now.UnixMilli(), id.Origin, id.Message[:])
	})
}

// DeferInbound ends a flight without an outcome: a later try starts afresh. Lost says that it may have been handed over all the same:
// then the archive keeps it.
func (v *Vault) DeferInbound(ctx context.Context, id InboundID, lost bool, payload []byte, now time.Time) error {
	return v.endFlight(ctx, id, LeafDeferred, lost, payload, now, forgetFlight(id))
}

// EndPassage ends a flight of plain mail, of which no copy comes under its id: crossed says that it was handed over, or may have been.
func (v *Vault) EndPassage(ctx context.Context, id InboundID, t LeafType, crossed bool, payload []byte, now time.Time) error {
	return v.endFlight(ctx, id, t, crossed, payload, now, forgetFlight(id))
}

func forgetFlight(id InboundID) func(*Tx) error {
	return func(tx *Tx) error {
		return tx.exec(`DELETE FROM inbound WHERE origin = ? AND message = ?`, id.Origin, id.Message[:])
	}
}

// endFlight writes the leaf, lets change do the rest, and ends the record; the archive keeps it when it crossed.
func (v *Vault) endFlight(ctx context.Context, id InboundID, t LeafType, crossed bool, payload []byte, now time.Time, change func(*Tx) error) error {
	var b []byte
	err := v.queryRow(ctx, `SELECT record FROM inbound WHERE origin = ? AND message = ? AND state = ? AND owner = ?`,
		[]any{id.Origin, id.Message[:], InboundFlight, v.owner[:]}, &b)
	if errors.Is(err, ErrNotFound) {
		return ErrChanged
	} else if err != nil {
		return err
	}
	r, err := v.Record(ctx, toID(b))
	if err != nil {
		return err
	}
	defer r.Close()
	leaf := v.recordLeaf(r.key, t, r.ID, Digest{}, payload, now)
	return v.update(ctx, func(tx *Tx) error {
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM inbound WHERE origin = ? AND message = ? AND record = ?`,
			[]any{id.Origin, id.Message[:], r.ID[:]}, &n); err != nil {
			return err
		}
		if n != 1 {
			return ErrChanged
		}
		if err := tx.putLeaf(leaf, r.ID); err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		if !crossed {
			return v.discardRecord(tx, r.ID)
		}
		return v.endRecord(tx, r.ID)
	})
}

// How long inbound notes are kept (dmtp.md §9.5).
const (
	abandonAfter = 7 * 24 * time.Hour
	forgetAfter  = 400 * 24 * time.Hour
	sweepBatch   = 200
)

// SweepInbound closes the flights that died and saw no retry in 7 days, each with a leaf, and forgets outcomes after 400
// days. It returns how many there were of both.
func (v *Vault) SweepInbound(ctx context.Context, now time.Time) (abandoned, forgotten int, err error) {
	for {
		n, err := v.abandonSome(ctx, now)
		abandoned += n
		if err != nil {
			return abandoned, 0, err
		}
		if n < sweepBatch {
			break
		}
	}
	var n int64
	err = v.update(ctx, func(tx *Tx) error {
		var err error
		n, err = tx.change(`DELETE FROM inbound WHERE state <> ? AND began < ? AND ended < ?`,
			InboundFlight, now.Add(-forgetAfter).UnixMilli(), now.Add(-forgetAfter).UnixMilli())
		return err
	})
	return abandoned, int(n), err
}

func (v *Vault) abandonSome(ctx context.Context, now time.Time) (int, error) {
	type flight struct {
		id     InboundID
		record ID
	}
	n := 0
	err := v.update(ctx, func(tx *Tx) error {
		var list []flight
		err := tx.queryRows(`SELECT origin, message, record FROM inbound WHERE state = ? AND began < ? AND owner <> ? LIMIT ?`,
			[]any{InboundFlight, now.Add(-abandonAfter).UnixMilli(), v.owner[:], sweepBatch}, func(s scanner) error {
				var f flight
				var message, record []byte
				err := s.Scan(&f.id.Origin, &message, &record)
				copy(f.id.Message[:], message)
				f.record = toID(record)
				list = append(list, f)
				return err
			})
		if err != nil {
			return err
		}
		for _, f := range list {
			// Without an outcome there is nothing to hide: neither payload nor salt, hence no opening to keep.
			var o Opening
			if _, err := tx.appendLeaf(Leaf{Type: LeafAbandoned, Time: now, Archive: v.archive, Subject: f.record,
				Commitment: o.Commit(LeafAbandoned)}); err != nil {
				return err
			}
			if err := tx.exec(`DELETE FROM inbound WHERE origin = ? AND message = ?`, f.id.Origin, f.id.Message[:]); err != nil {
				return err
			}
			if err := v.endRecord(tx, f.record); err != nil { // the archive keeps it: it may have been handed over
				return err
			}
		}
		n = len(list)
		return nil
	})
	return n, err
}

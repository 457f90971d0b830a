package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A LegalHold keeps what it covers from the sweep and from erasure until it ends. What its scope says rests sealed. An empty list
// or a zero time does not narrow it.
type LegalHold struct {
	ID    ID        `json:"id"`
	Case  ID        `json:"case"` // that it began with; zero for none
	Made  time.Time `json:"made"`
	Ended time.Time `json:"ended"` // zero while it holds

	Basis      string    `json:"basis"`
	Custodians []string  `json:"custodians"` // addresses, in lower case
	Classes    []uint16  `json:"classes"`
	From       time.Time `json:"from"` // of intake, inclusive
	To         time.Time `json:"to"`   // exclusive
}

// Covers tells whether the hold keeps a message of a custodian, class and time of intake.
func (h LegalHold) Covers(custodian string, class uint16, made time.Time) bool {
	return h.CoversMonth(custodian, class, made, made.Add(time.Nanosecond))
}

// CoversMonth tells whether it keeps any message of a custodian and class that came from from on and before to: of a whole shred
// key's month, say.
func (h LegalHold) CoversMonth(custodian string, class uint16, from, to time.Time) bool {
	return h.Ended.IsZero() &&
		(len(h.Custodians) == 0 || slices.Contains(h.Custodians, strings.ToLower(custodian))) &&
		(len(h.Classes) == 0 || slices.Contains(h.Classes, class)) &&
		(h.From.IsZero() || to.After(h.From)) && (h.To.IsZero() || from.Before(h.To))
}

func holdContext(id ID) []byte { return Label("hold", string(id[:])) }

// AddHold places a hold, with its leaf in the same commit.
func (v *Vault) AddHold(ctx context.Context, h LegalHold, now time.Time) error {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.update(ctx, func(tx *Tx) error { return v.putHold(tx, k, h, now) })
}

func (v *Vault) putHold(tx *Tx, k Secret, h LegalHold, now time.Time) error {
	if h.ID.IsZero() {
		return errors.New("vault: a hold without an id")
	}
	for i, c := range h.Custodians {
		h.Custodians[i] = strings.ToLower(c)
	}
	h.Made, h.Ended = now, time.Time{}
	octets, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO holds (id, made, sealed) VALUES (?, ?, ?)`, h.ID[:], now.UnixMilli(), SealOctets(k, PartCase, holdContext(h.ID), octets)); err != nil {
		return err
	}
	_, err = v.attestSealed(tx, k, h.ID, CaseLeaf{Type: LeafHoldPlaced, Payload: octets}, now)
	return err
}

// EndHold ends a hold, with a leaf that commits to why. ErrNotFound when there is none, ErrChanged when it has ended already.
func (v *Vault) EndHold(ctx context.Context, id ID, why []byte, now time.Time) error {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		var ended int64
		if err := tx.queryRow(`SELECT ended FROM holds WHERE id = ?`, []any{id[:]}, &ended); err != nil {
			return fmt.Errorf("hold %v: %w", id, err)
		}
		if ended != 0 {
			return fmt.Errorf("hold %v: %w: it has ended", id, ErrChanged)
		}
		if err := tx.exec(`UPDATE holds SET ended = ? WHERE id = ?`, now.UnixMilli(), id[:]); err != nil {
			return err
		}
		_, err := v.attestSealed(tx, k, id, CaseLeaf{Type: LeafHoldEnded, Payload: why}, now)
		return err
	})
}

// Holds lists all holds, those that have ended too, the oldest first.
func (v *Vault) Holds(ctx context.Context) ([]LegalHold, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	var list []LegalHold
	err = v.queryRows(ctx, `SELECT id, made, ended, sealed FROM holds ORDER BY made, id`, nil, func(s scanner) error {
		var h LegalHold
		var id, sealed []byte
		var made, ended int64
		if err := s.Scan(&id, &made, &ended, &sealed); err != nil {
			return err
		}
		if len(id) != len(ID{}) {
			return fmt.Errorf("%w: id of a hold", ErrCorrupt)
		}
		octets, err := OpenOctets(k, PartCase, holdContext(ID(id)), sealed)
		if err == nil {
			err = json.Unmarshal(octets, &h)
		}
		if err != nil {
			return fmt.Errorf("hold %v: %w", ID(id), err)
		}
		h.ID, h.Made = ID(id), timeOf(made)
		if ended != 0 {
			h.Ended = timeOf(ended)
		}
		list = append(list, h)
		return nil
	})
	return list, err
}

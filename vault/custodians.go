package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// archiveKey is the named key that seals what the archive knows of custodians.
const archiveKey = "archive"

// A Custodian is whose copy of a message the archive keeps: an address of ours, with the salt that its id is made from. One whose
// address changes is another custodian from then on.
type Custodian struct {
	ID      CustodianID
	Salt    [32]byte
	Former  CustodianID // the same person under the address before; zero for none
	Address string
}

// Custodian returns the custodian of an address, which is in lower case, or ErrNotFound. Token is the address's.
func (v *Vault) Custodian(ctx context.Context, token Token, address string) (Custodian, error) {
	var id, sealed []byte
	if err := v.queryRow(ctx, `SELECT id, sealed FROM custodians WHERE token = ?`, []any{token[:]}, &id, &sealed); err != nil {
		return Custodian{}, err
	}
	c, err := v.openCustodian(ctx, id, sealed)
	if err == nil && c.Address != address {
		err = fmt.Errorf("%w: custodian of another address", ErrCorrupt)
	}
	return c, err
}

// CustodianByID returns the one of an id, or ErrNotFound.
func (v *Vault) CustodianByID(ctx context.Context, id CustodianID) (Custodian, error) {
	var sealed []byte
	if err := v.queryRow(ctx, `SELECT sealed FROM custodians WHERE id = ?`, []any{id[:]}, &sealed); err != nil {
		return Custodian{}, err
	}
	return v.openCustodian(ctx, id[:], sealed)
}

// Custodians lists all.
func (v *Vault) Custodians(ctx context.Context) ([]Custodian, error) {
	var list []Custodian
	err := v.queryRows(ctx, `SELECT id, sealed FROM custodians ORDER BY made, id`, nil, func(s scanner) error {
		var id, sealed []byte
		if err := s.Scan(&id, &sealed); err != nil {
			return err
		}
		c, err := v.openCustodian(ctx, id, sealed)
		list = append(list, c)
		return err
	})
	return list, err
}

func (v *Vault) openCustodian(ctx context.Context, id, sealed []byte) (Custodian, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Custodian{}, err
	}
	defer k.Destroy()
	b, err := OpenOctets(k, PartArchive, Label("custodian", string(id)), sealed)
	if err == nil && (len(b) < custodianHead || len(id) != len(CustodianID{})) {
		err = ErrCorrupt
	}
	if err != nil {
		return Custodian{}, fmt.Errorf("vault: custodian: %w", err)
	}
	return Custodian{CustodianID(id), [32]byte(b), CustodianID(b[32:]), string(b[custodianHead:])}, nil
}

// custodianHead is what stands before the address in a custodian's row.
const custodianHead = 32 + len(CustodianID{})

func (c Custodian) seal(k Secret) []byte {
	return SealOctets(k, PartArchive, Label("custodian", string(c.ID[:])), slices.Concat(c.Salt[:], c.Former[:], []byte(c.Address)))
}

// AddCustodian keeps a new custodian. Where another caller was first, his is kept, and returned.
func (v *Vault) AddCustodian(ctx context.Context, token Token, c Custodian, now time.Time) (Custodian, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Custodian{}, err
	}
	defer k.Destroy()
	sealed := c.seal(k)
	err = v.update(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO custodians (id, token, sealed, made) VALUES (?, ?, ?, ?) ON CONFLICT (token) DO NOTHING`, c.ID[:], token[:], sealed, now.UnixMilli())
	})
	if err != nil {
		return Custodian{}, err
	}
	return v.Custodian(ctx, token, c.Address)
}

// RenameCustodian keeps the custodian of an address as the successor of Former, with a leaf that commits to payload. One that the address
// has keeps id and salt; ErrExists when it is another's successor. What was so before is no change.
func (v *Vault) RenameCustodian(ctx context.Context, token Token, c Custodian, payload []byte, now time.Time) error {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	old, err := v.Custodian(ctx, token, c.Address)
	write := `UPDATE custodians SET sealed = ? WHERE id = ? AND token = ?`
	switch {
	case errors.Is(err, ErrNotFound):
		write = `INSERT INTO custodians (sealed, id, token, made) VALUES (?, ?, ?, ?)`
	case err != nil:
		return err
	case old.Former == c.Former:
		return nil
	case old.Former != (CustodianID{}):
		return ErrExists
	default:
		c.ID, c.Salt = old.ID, old.Salt
	}
	args := []any{c.seal(k), c.ID[:], token[:], now.UnixMilli()}
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.changeOne(write, args[:strings.Count(write, "?")]...); err != nil {
			return err
		}
		_, err := v.attestSealed(tx, k, ID(c.ID), CaseLeaf{Type: LeafRenamed, Payload: payload}, now)
		return err
	})
}

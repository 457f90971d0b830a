package vault

import (
	"context"
	"fmt"
	"time"
)

// A Token stands in the archive's index for what must not be read from a stolen disk: the start of an HMAC under a key of the vault's.
type Token [16]byte

// A CustodianID names a custodian to whoever has his salt and address: escrow specification §4.1.
type CustodianID [16]byte

// Roles of an address in the archive's index.
const (
	RoleAuthor    = 1
	RoleRecipient = 2 // Bcc too
)

// A KeepRequest is what a record's archive part is made from. The key is the draft's: it is not kept and not destroyed.
type KeepRequest struct {
	Record ID
	Key    Secret
	Body   Digest // SHA-512/256 of the sealed body
	Octets Digest // D("octets", octets as received)
	Now    time.Time
}

// A Keeping is the archive's part of an intake.
type Keeping struct {
	Class   uint16
	Expires time.Time // the end of its retention as it is said now; zero: it has no retention time
	Content Token     // of the octets
	Wraps   []KeptWrap
	Index   []IndexEntry
}

// A KeptWrap is one custodian's way to a record's key.
type KeptWrap struct {
	Shred  ID
	Digest Digest // of the wrap, D("wrap", DET1)
	Outer  []byte // DEW1, the wrap inside the shred key
}

// An IndexEntry says under which token a record is found.
type IndexEntry struct {
	Token Token
	Role  uint8
}

// Keep makes the record that the draft becomes an archived one: f is called once, before the transaction of the intake, and what it
// returns is in its commit. An error of f is the intake's. ErrChanged from the intake: a shred key was destroyed meanwhile; the
// caller says that the mail shall come again.
func (d *Draft) Keep(f func(KeepRequest) (*Keeping, error)) { d.keep = f }

// putKept writes the archive's part of an intake.
func (tx *Tx) putKept(record ID, k *Keeping) error {
	if err := tx.exec(`INSERT INTO archive (record, expires, content) VALUES (?, ?, ?)`, record[:], millis(k.Expires), k.Content[:]); err != nil {
		return err
	}
	for n, w := range k.Wraps {
		if err := tx.holdsShred(w.Shred); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO archive_wraps (record, n, shred, digest, outer) VALUES (?, ?, ?, ?, ?)`, record[:], n, w.Shred[:], w.Digest[:], w.Outer); err != nil {
			return err
		}
	}
	for _, e := range k.Index {
		if err := tx.exec(`INSERT INTO archive_index (token, record, role) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, e.Token[:], record[:], e.Role); err != nil {
			return err
		}
	}
	return nil
}

// millis is a time as the tables have it: timeOf's inverse.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// holdsShred refuses a shred key that was destroyed since it was asked for.
func (tx *Tx) holdsShred(id ID) error {
	var n int
	if err := tx.queryRow(`SELECT COUNT(*) FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{id[:], WrapHost}, &n); err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("shred key %v: %w", id, ErrChanged)
	}
	return nil
}

// holdsCustodian refuses one who was erased since he was asked for.
func (tx *Tx) holdsCustodian(id CustodianID) error {
	var n int
	if err := tx.queryRow(`SELECT COUNT(*) FROM custodians WHERE id = ?`, []any{id[:]}, &n); err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("custodian: %w", ErrChanged)
	}
	return nil
}

// keptWraps counts the ways that are left to a record's key, the queue's apart.
func (tx *Tx) keptWraps(record ID) (n int, err error) {
	err = tx.queryRow(`SELECT COUNT(*) FROM archive_wraps WHERE record = ? AND outer IS NOT NULL`, []any{record[:]}, &n)
	return n, err
}

// dropKept removes what the archive has of a record that ends.
func (tx *Tx) dropKept(record ID) error {
	for _, table := range []string{"archive", "archive_wraps", "archive_index", "rewraps", "rewrapped"} {
		if err := tx.exec(`DELETE FROM `+table+` WHERE record = ?`, record[:]); err != nil {
			return err
		}
	}
	return nil
}

// SealedEnvelope is a record's envelope as it rests; no key is needed.
func (v *Vault) SealedEnvelope(ctx context.Context, id ID) ([]byte, error) {
	var b []byte
	if err := v.queryRow(ctx, `SELECT envelope FROM records WHERE id = ?`, []any{id[:]}, &b); err != nil {
		return nil, fmt.Errorf("record %v: %w", id, err)
	}
	return b, nil
}

package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxNote bounds a note, in octets.
const maxNote = 1 << 20

// Note opens the note of a kind and name; ErrNotFound when there is none, ErrCorrupt when it is not what was written.
func (v *Vault) Note(ctx context.Context, kind, name string) ([]byte, error) {
	var sealed []byte
	err := v.queryRow(ctx, `SELECT sealed FROM notes WHERE kind = ? AND name = ?`, []any{kind, name}, &sealed)
	if err != nil {
		return nil, err
	}
	k, err := v.NamedKey(ctx, "notes")
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	b, err := OpenOctets(k, PartNote, Label(kind, name), sealed)
	if err != nil {
		return nil, fmt.Errorf("vault: note %q of %s: %w", kind, name, err)
	}
	return b, nil
}

// SetNote replaces the note of a kind and name; it is durable on return. A note is sealed under a key of the vault's own and
// bound to its kind and name, so that nobody without the host seal can write one or move it; its name is not hidden.
func (v *Vault) SetNote(ctx context.Context, kind, name string, octets []byte) error {
	if len(octets) > maxNote {
		return fmt.Errorf("vault: note %q of %s is over %d octets", kind, name, maxNote)
	}
	k, err := v.NamedKey(ctx, "notes")
	if err != nil {
		return err
	}
	defer k.Destroy()
	sealed := SealOctets(k, PartNote, Label(kind, name), octets)
	return v.update(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO notes (kind, name, sealed) VALUES (?, ?, ?)
			ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed`, kind, name, sealed)
	})
}

// UpdateNote replaces the note of a kind and name by what f makes of it, nil when there is none; it is durable on return.
// Nobody else writes it meanwhile, also in another process. An error of f leaves everything as it was.
func (v *Vault) UpdateNote(ctx context.Context, kind, name string, f func(old []byte) ([]byte, error)) error {
	return v.updateNote(ctx, kind, name, f, nil)
}

// DecideNote is UpdateNote for an administrator's decision: its payload goes into the log in the same commit, with its
// opening in the clear. When f makes nothing of the note, it is removed.
func (v *Vault) DecideNote(ctx context.Context, kind, name string, payload []byte, now time.Time, f func(old []byte) ([]byte, error)) error {
	d := NewDigest("note", []byte(kind), []byte{0}, []byte(name))
	subject := ID(d[:len(ID{})])
	return v.updateNote(ctx, kind, name, f, func(tx *Tx) error { return v.attestKey(tx, LeafTrust, subject, payload, now) })
}

func (v *Vault) updateNote(ctx context.Context, kind, name string, f func(old []byte) ([]byte, error), then func(*Tx) error) error {
	k, err := v.NamedKey(ctx, "notes")
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		var sealed, old []byte
		err := tx.queryRow(`SELECT sealed FROM notes WHERE kind = ? AND name = ?`, []any{kind, name}, &sealed)
		if err == nil {
			old, err = OpenOctets(k, PartNote, Label(kind, name), sealed)
		} else if errors.Is(err, ErrNotFound) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("vault: note %q of %s: %w", kind, name, err)
		}
		octets, err := f(old)
		if err != nil {
			return err
		}
		switch {
		case len(octets) > maxNote:
			return fmt.Errorf("vault: note %q of %s is over %d octets", kind, name, maxNote)
		case octets == nil:
			err = tx.exec(`DELETE FROM notes WHERE kind = ? AND name = ?`, kind, name)
		default:
			err = tx.exec(`INSERT INTO notes (kind, name, sealed) VALUES (?, ?, ?)
				ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed`, kind, name, SealOctets(k, PartNote, Label(kind, name), octets))
		}
		if err == nil && then != nil {
			err = then(tx)
		}
		return err
	})
}

// NoteNames lists the names of a kind, in order.
func (v *Vault) NoteNames(ctx context.Context, kind string) ([]string, error) {
	var names []string
	err := v.queryRows(ctx, `SELECT name FROM notes WHERE kind = ? ORDER BY name`, []any{kind}, func(s scanner) error {
		var n string
		err := s.Scan(&n)
		names = append(names, n)
		return err
	})
	return names, err
}

// DropNote removes a note; ErrNotFound when there is none.
func (v *Vault) DropNote(ctx context.Context, kind, name string) error {
	return v.update(ctx, func(tx *Tx) error {
		n, err := tx.change(`DELETE FROM notes WHERE kind = ? AND name = ?`, kind, name)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A Restore says what a copy is made a vault with.
type Restore struct {
	Key     Secret    // of its file of wraps; zero: without one, and so without users' keys
	ID      ID        // of the backup
	Made    time.Time // when it was made
	Erased  []Erasure // from the ledger: keys that shall not come back
	LastLog string    // what is known of the log's end elsewhere: its last checkpoint's text; for the leaf
	Now     time.Time
}

// A Restored says what became of a copy.
type Restored struct {
	Wraps     int   `json:"wraps"`     // that open again
	Erased    int   `json:"erased"`    // that the ledger kept out
	Destroyed int   `json:"destroyed"` // keys of users and domains that the backup does not hold, or that were erased
	Dropped   int   `json:"dropped"`   // recipients who waited when the backup was made: their entries are not in it
	LogSize   int64 `json:"log_size"`  // leaves of the backup; the leaf behind them says that it was restored
}

// Reinstate makes a copy in dir a vault that a gateway can open, in one commit: its wraps come back, those of erased keys excepted;
// what has no wrap is marked destroyed, with its leaf; the log says that it was restored, and goes on under a name of its own,
// since what grew from the same beginning elsewhere is known to witnesses. It is run once on a copy. ErrWrongKey.
func Reinstate(ctx context.Context, dir string, r Restore) (out Restored, err error) {
	v, err := Open(ctx, Options{Dir: dir, Owner: true})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if out.LogSize, err = v.LogSize(ctx); err != nil {
		return out, err
	}
	waiting, err := v.openRecipients(ctx, out.LogSize)
	if err != nil {
		return out, err
	}
	err = v.update(ctx, func(tx *Tx) error {
		restored := out
		if err := v.noteRestore(tx, r, out.LogSize); err != nil {
			return err
		}
		if err := tx.takeBack(dir, r, &restored); err != nil {
			return err
		}
		for id, public := range waiting {
			if _, err := tx.appendLeaf(Leaf{Type: LeafDropped, Time: r.Now, Archive: v.archive, Subject: id, Public: public, Commitment: Opening{}.Commit(LeafDropped)}); err != nil {
				return err
			}
		}
		restored.Dropped = len(waiting)
		if err := v.endWithoutWraps(tx, r, &restored); err != nil {
			return err
		}
		out = restored
		return nil
	})
	if err != nil {
		return out, err
	}
	if err := os.Remove(filepath.Join(dir, copiedWraps)); err != nil {
		return out, fmt.Errorf("vault: %w", err)
	}
	return out, v.Scrub(ctx)
}

// noteRestore writes the leaf and gives the log its next name.
func (v *Vault) noteRestore(tx *Tx, r Restore, size int64) error {
	payload := Label("restored", string(r.ID[:]), r.Made.UTC().Format(time.RFC3339), r.LastLog)
	if err := v.attestKey(tx, LeafRestored, r.ID, payload, r.Now); err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(v.restores+1)), uint64(size))
	if err := tx.exec(`DELETE FROM meta WHERE name = 'restored'`); err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO meta (name, value) VALUES ('restored', ?)`, value); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM checkpoints`) // they are of the log's name before
}

// takeBack puts the wraps of the sealed file back, and the ledger's erasures.
func (tx *Tx) takeBack(dir string, r Restore, out *Restored) error {
	erased := map[ID]bool{}
	for _, e := range r.Erased {
		if err := tx.erase(e.Key, e.At); err != nil {
			return err
		}
		erased[e.Key] = true
	}
	if r.Key.IsZero() {
		return nil
	}
	return eachCopiedWrap(dir, r.Key, r.ID, func(owner ID, p Purpose, wrap []byte) error {
		if erased[owner] {
			if p == WrapHost {
				out.Erased++
			}
			return nil
		}
		out.Wraps++
		return tx.putWrap(owner, p, wrap)
	})
}

// eachCopiedWrap reads the sealed file of a copy. ErrWrongKey.
func eachCopiedWrap(dir string, key Secret, id ID, visit func(owner ID, p Purpose, wrap []byte) error) error {
	f, err := os.Open(filepath.Join(dir, copiedWraps))
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer f.Close()
	s, err := NewStreamReader(f, key, PartBackup, id[:])
	if err != nil {
		return fmt.Errorf("wraps of the backup: %w", err)
	}
	row := make([]byte, copiedWrapSize)
	for {
		if _, err := io.ReadFull(s, row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("wraps of the backup: %w", err)
		}
		if err := visit(ID(row), Purpose(row[16]), row[17:]); err != nil {
			return err
		}
	}
}

// CountCopiedWraps reads the whole sealed file of a copy.
func CountCopiedWraps(dir string, key Secret, id ID) (n int64, err error) {
	err = eachCopiedWrap(dir, key, id, func(ID, Purpose, []byte) error { n++; return nil })
	return n, err
}

// openRecipients are those whom the log accepted and who have no end in it, with what their leaves are public about.
func (v *Vault) openRecipients(ctx context.Context, size int64) (map[ID]Digest, error) {
	open := map[ID]Digest{}
	for n := int64(0); n < size; {
		leaves, err := v.LogLeaves(ctx, n, 1000)
		if err != nil {
			return nil, err
		}
		if len(leaves) == 0 {
			return nil, fmt.Errorf("%w: leaf %d is gone", ErrCorrupt, n)
		}
		for _, b := range leaves {
			l, err := ParseLeaf(b)
			if err != nil {
				return nil, err
			}
			switch l.Type {
			case LeafRecipient:
				open[l.Subject] = l.Public
			case LeafDelivered, LeafFailed, LeafDropped:
				delete(open, l.Subject)
			}
		}
		n += int64(len(leaves))
	}
	return open, nil
}

// endWithoutWraps marks the keys destroyed that nothing opens any more.
func (v *Vault) endWithoutWraps(tx *Tx, r Restore, out *Restored) error {
	type ended struct {
		id      ID
		payload []byte
		current bool
		user    bool
	}
	var list []ended
	err := tx.queryRows(`SELECT `+userColumns+` FROM user_keys WHERE destroyed = 0 AND held = 0
		AND NOT EXISTS (SELECT 1 FROM wraps WHERE owner = id AND purpose = 2 AND used = 1)`, nil, func(s scanner) error {
		u, err := scanUser(s)
		list = append(list, ended{u.ID, u.payload(), u.Retired.IsZero(), true})
		return err
	})
	if err != nil {
		return err
	}
	err = tx.queryRows(`SELECT id, domain, kind, public, retired FROM org_keys WHERE destroyed = 0
		AND NOT EXISTS (SELECT 1 FROM wraps WHERE owner = id AND used = 1)`, nil, func(s scanner) error {
		var id, public []byte
		var domain string
		var kind OrgKeyKind
		var retired int64
		err := s.Scan(&id, &domain, &kind, &public, &retired)
		list = append(list, ended{toID(id), orgPayload(domain, kind, public), retired == 0, false})
		return err
	})
	if err != nil {
		return err
	}
	for _, k := range list {
		if k.current {
			if err := v.attestKey(tx, LeafKeyRetired, k.id, k.payload, r.Now); err != nil {
				return err
			}
		}
		if err := v.attestKey(tx, LeafKeyDestroyed, k.id, k.payload, r.Now); err != nil {
			return err
		}
		set := `UPDATE org_keys SET`
		if k.user {
			if err := tx.dropReading(k.id); err != nil {
				return err
			}
			set = `UPDATE user_keys SET`
		}
		at := r.Now.UnixMilli()
		if err := tx.exec(set+` retired = CASE retired WHEN 0 THEN ? ELSE retired END, destroyed = ? WHERE id = ?`, at, at, k.id[:]); err != nil {
			return err
		}
		if err := tx.dropWrap(k.id, WrapSigning); err != nil {
			return err
		}
	}
	out.Destroyed = len(list)
	return nil
}

// Restored tells how often this vault was made from a backup, and how many leaves the last one had.
func (v *Vault) Restored() (times int, size int64) { return v.restores, v.restoredAt }

// RestoredTime is when this vault was last made from a backup; zero when it never was.
func (v *Vault) RestoredTime(ctx context.Context) (time.Time, error) {
	if v.restores == 0 {
		return time.Time{}, nil
	}
	list, err := v.LogLeaves(ctx, v.restoredAt, 1)
	if err != nil || len(list) == 0 {
		return time.Time{}, errors.Join(err, fmt.Errorf("%w: the leaf of the last restore", ErrCorrupt))
	}
	l, err := ParseLeaf(list[0])
	return l.Time, err
}

func (v *Vault) readRestores(ctx context.Context) error {
	b, err := v.meta(ctx, "restored")
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if len(b) != 12 {
		return fmt.Errorf("%w: what it says of its restores", ErrCorrupt)
	}
	v.restores, v.restoredAt = int(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint64(b[4:]))
	return nil
}

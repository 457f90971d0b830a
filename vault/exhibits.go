package vault

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"time"
)

// An Exhibit belongs to an archived record beside octets and envelope. Kinds are the discovery's.
type Exhibit struct {
	Kind   uint8
	Octets []byte
	About  []byte // what its leaf commits to, such as the row that it is of
}

// MaxExhibits bounds the exhibits of a record.
const MaxExhibits = 100_000

const exhibitSuffix = ".exhibit"

// Exhibit adds one to the record that the draft becomes; where the archive does not keep it, nothing of it rests.
func (d *Draft) Exhibit(x Exhibit) { d.exhibits = append(d.exhibits, x) }

// A readyExhibit is sealed, and its file, if it has one, is on disk.
type readyExhibit struct {
	n      int
	kind   uint8
	id     ID // of its file
	digest Digest
	out    spill
	leaf   recordLeaf
}

// ExhibitContext is what the n-th exhibit of a record is sealed under, beside its key.
func ExhibitContext(record ID, n int) []byte {
	return Label("exhibit", string(record[:]), fmt.Sprint(n))
}

// readyExhibits seals exhibits under their record's key, numbered from first on. The caller removes them when the commit fails.
func (v *Vault) readyExhibits(key Secret, record ID, first int, list []Exhibit, now time.Time) (ready []*readyExhibit, err error) {
	defer func() {
		if err != nil {
			removeExhibits(ready)
		}
	}()
	for i, x := range list {
		e := &readyExhibit{n: first + i, kind: x.Kind, id: NewID(now)}
		e.out.path = v.bodyPath(e.id.String() + exhibitSuffix)
		ready = append(ready, e)
		sum := sha512.New512_256()
		if err := writeStream(io.MultiWriter(sum, &e.out), key, PartExhibit, ExhibitContext(record, e.n), x.Octets); err != nil {
			return ready, storageError(err)
		}
		if err := e.out.finish(); err != nil {
			return ready, storageError(err)
		}
		e.digest = Digest(sum.Sum(nil))
		e.leaf = v.recordLeaf(key, LeafExhibit, record, NewDigest("exhibit", []byte{x.Kind}, e.digest[:]), x.About, now)
	}
	return ready, nil
}

func removeExhibits(list []*readyExhibit) {
	for _, e := range list {
		e.out.remove()
	}
}

// putExhibits writes exhibits with their leaves. errExhibit: another has taken a number meanwhile.
func (tx *Tx) putExhibits(record ID, list []*readyExhibit, now time.Time) error {
	for _, e := range list {
		leaf, err := tx.appendLeaf(e.leaf.leaf)
		if err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, leaf, record[:], e.leaf.sealed); err != nil {
			return err
		}
		var file []byte
		inline := e.out.inline()
		if inline == nil {
			file = e.id[:]
		}
		err = tx.exec(`INSERT INTO exhibits (record, n, kind, made, digest, sealed, file, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			record[:], e.n, e.kind, now.UnixMilli(), e.digest[:], inline, file, leaf)
		if errors.Is(err, ErrExists) {
			return errExhibit
		} else if err != nil {
			return err
		}
	}
	return nil
}

var errExhibit = fmt.Errorf("%w: an exhibit's number", ErrChanged)

// exhibitTries bounds how often a number is looked for that no other delivery of the same message takes.
const exhibitTries = 8

// withExhibits runs a transaction that adds exhibits to a record, where the archive has it.
func (v *Vault) withExhibits(ctx context.Context, r *Record, list []Exhibit, now time.Time, then func(*Tx) error) error {
	var archived int
	if err := v.queryRow(ctx, `SELECT COUNT(*) FROM archive WHERE record = ?`, []any{r.ID[:]}, &archived); err != nil {
		return err
	}
	if archived == 0 {
		list = nil
	}
	for try := 1; ; try++ {
		var first int
		if err := v.queryRow(ctx, `SELECT COALESCE(MAX(n) + 1, 0) FROM exhibits WHERE record = ?`, []any{r.ID[:]}, &first); err != nil {
			return err
		}
		if first+len(list) > MaxExhibits {
			list = nil
		}
		ready, err := v.readyExhibits(r.key, r.ID, first, list, now)
		if err != nil {
			return err
		}
		err = v.update(ctx, func(tx *Tx) error {
			if err := then(tx); err != nil {
				return err
			}
			return tx.putExhibits(r.ID, ready, now)
		})
		if err != nil {
			removeExhibits(ready)
		}
		if !errors.Is(err, errExhibit) || try == exhibitTries {
			return err
		}
	}
}

// dropExhibits removes a record's. Files go after the commit.
func (v *Vault) dropExhibits(tx *Tx, record ID) error {
	err := tx.queryRows(`SELECT file FROM exhibits WHERE record = ? AND file IS NOT NULL`, []any{record[:]}, func(s scanner) error {
		var file []byte
		if err := s.Scan(&file); err != nil {
			return err
		}
		tx.afterCommit(func() { v.removeFile(toID(file).String() + exhibitSuffix) })
		return nil
	})
	if err != nil {
		return err
	}
	return tx.exec(`DELETE FROM exhibits WHERE record = ?`, record[:])
}

// A SealedExhibit is an exhibit as it rests: part 19 under the record's key, context ExhibitContext.
type SealedExhibit struct {
	N      int
	Kind   uint8
	Made   time.Time
	Digest Digest // SHA-512/256 of the sealed octets
	Leaf   int64
}

// SealedExhibits lists a record's, by number.
func (v *Vault) SealedExhibits(ctx context.Context, record ID) ([]SealedExhibit, error) {
	var list []SealedExhibit
	err := v.queryRows(ctx, `SELECT n, kind, made, digest, leaf FROM exhibits WHERE record = ? ORDER BY n`, []any{record[:]}, func(s scanner) error {
		var x SealedExhibit
		var made int64
		var digest []byte
		if err := s.Scan(&x.N, &x.Kind, &made, &digest, &x.Leaf); err != nil {
			return err
		}
		if len(digest) != len(Digest{}) {
			return fmt.Errorf("record %v: %w: exhibit %d", record, ErrCorrupt, x.N)
		}
		x.Made, x.Digest = timeOf(made), Digest(digest)
		list = append(list, x)
		return nil
	})
	return list, err
}

// OpenSealedExhibit reads one, a sealed stream of so many octets. The caller closes it.
func (v *Vault) OpenSealedExhibit(ctx context.Context, record ID, n int) (io.ReadCloser, int64, error) {
	var sealed, file []byte
	if err := v.queryRow(ctx, `SELECT sealed, file FROM exhibits WHERE record = ? AND n = ?`, []any{record[:], n}, &sealed, &file); err != nil {
		return nil, 0, fmt.Errorf("record %v: exhibit %d: %w", record, n, err)
	}
	if file == nil {
		return io.NopCloser(bytes.NewReader(sealed)), int64(len(sealed)), nil
	}
	f, err := v.openFile(toID(file).String() + exhibitSuffix)
	if err != nil {
		return nil, 0, fmt.Errorf("record %v: exhibit %d: %w", record, n, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

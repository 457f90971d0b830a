package vault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"dimegate/internal/safefile"
)

// An Erasure is a key that was destroyed before its time: a shred key at an erasure, the keys of a user who was disabled. Backups
// made before may hold it as long as their own keys live; a restore must not bring it back.
type Erasure struct {
	Key ID
	At  time.Time // to the second
}

// erase destroys a key before its time, in the commit that says why. Scrub comes after the commit.
func (tx *Tx) erase(key ID, now time.Time) error {
	for _, p := range []Purpose{WrapHost, WrapSigning} {
		if err := tx.dropWrap(key, p); err != nil {
			return err
		}
	}
	return tx.exec(`INSERT INTO erasures (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`, key[:], now.Unix())
}

// Erasures lists what was destroyed before its time, the oldest first.
func (v *Vault) Erasures(ctx context.Context) ([]Erasure, error) {
	var list []Erasure
	err := v.queryRows(ctx, `SELECT id, at FROM erasures ORDER BY at, id`, nil, func(s scanner) error {
		var id []byte
		var at int64
		err := s.Scan(&id, &at)
		list = append(list, Erasure{toID(id), time.Unix(at, 0).UTC()})
		return err
	})
	return list, err
}

const (
	ledgerFormat = "dimegate-erasures-1 "
	maxLedger    = 64 << 20
)

// SaveLedger brings the erasures into the ledger at path, the file that a restore reads. What stands there and not in the vault
// stays: the vault may be a restored one.
func (v *Vault) SaveLedger(ctx context.Context, path string) error {
	list, err := v.Erasures(ctx)
	if err != nil {
		return err
	}
	before, err := ReadLedger(path, v.archive)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil && !slices.ContainsFunc(list, func(e Erasure) bool { return !slices.Contains(before, e) }) {
		return nil
	}
	if err != nil {
		return err
	}
	list = append(list, before...)
	slices.SortFunc(list, func(a, b Erasure) int { return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.Key[:], b.Key[:])) })
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%v\n", ledgerFormat, v.archive)
	for _, e := range slices.Compact(list) {
		fmt.Fprintf(&b, "%s %v\n", e.At.Format(time.RFC3339), e.Key)
	}
	if err := safefile.Write(path, b.Bytes()); err != nil {
		return fmt.Errorf("vault: erasure ledger: %w", err)
	}
	return nil
}

// ReadLedger reads the ledger of an archive. Errors: fs.ErrNotExist; ErrCorrupt for anything but what SaveLedger writes.
func ReadLedger(path string, archive ID) ([]Erasure, error) {
	b, err := safefile.ReadSecret(path, maxLedger)
	if err != nil {
		return nil, fmt.Errorf("vault: erasure ledger: %w", err)
	}
	head, rest, _ := strings.Cut(string(b), "\n")
	if head != ledgerFormat+archive.String() {
		return nil, fmt.Errorf("%w: erasure ledger %s: not the ledger of archive %v", ErrCorrupt, path, archive)
	}
	var list []Erasure
	for line := range strings.Lines(rest) {
		at, id, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		e := Erasure{}
		var terr, ierr error
		e.At, terr = time.Parse(time.RFC3339, at)
		e.Key, ierr = ParseID(id)
		if terr != nil || ierr != nil || !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("%w: erasure ledger %s: line %d is not a time and an id", ErrCorrupt, path, len(list)+2)
		}
		list = append(list, e)
	}
	return list, nil
}

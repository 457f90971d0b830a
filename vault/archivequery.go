package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An ArchiveQuery asks for records of some shred keys, or with some tokens, or both; at most MaxQueryList of each.
type ArchiveQuery struct {
	Shreds    []ID
	Tokens    []Token // any of them
	First     ID      // records from this id on: ids sort by time
	Last      ID      // and to this one
	From, To  time.Time
	MinOctets int64
	MaxOctets int64 // 0: any
	Direction Kind  // 0: both
}

// MaxQueryList bounds the lists of a query.
const MaxQueryList = 10_000

// An ArchivedWrap is one wrap of a record that a query found.
type ArchivedWrap struct {
	Record    ID
	Direction Kind
	Made      time.Time
	Octets    int64
	Class     uint16
	Expires   time.Time
	Content   Token
	Leaf      int64 // that attests its wraps as they are
	N         int
	Shred     ID
	Digest    Digest
	Gone      bool // it was shredded
}

// FindArchived visits the wraps that a query finds, those of one record together, ascending by record. Without shred keys it visits
// all wraps of a record that has one of the tokens.
func (v *Vault) FindArchived(ctx context.Context, q ArchiveQuery, visit func(ArchivedWrap) error) error {
	if len(q.Shreds) == 0 && len(q.Tokens) == 0 {
		return errors.New("vault: a query without custodian or address")
	}
	if len(q.Shreds) > MaxQueryList || len(q.Tokens) > MaxQueryList {
		return fmt.Errorf("vault: a query over more than %d custodians, classes or addresses in a month", MaxQueryList)
	}
	query, args := q.statement()
	return v.queryRows(ctx, query, args, func(s scanner) error {
		var w ArchivedWrap
		var record, shred, digest, content []byte
		var made, expires int64
		if err := s.Scan(&record, &w.Direction, &made, &w.Octets, &w.Class, &w.Leaf, &expires, &content, &w.N, &shred, &digest, &w.Gone); err != nil {
			return err
		}
		if len(content) != len(Token{}) || len(digest) != len(Digest{}) {
			return fmt.Errorf("%w: archived record %v", ErrCorrupt, toID(record))
		}
		w.Record, w.Shred, w.Digest, w.Content = toID(record), toID(shred), Digest(digest), Token(content)
		w.Made, w.Expires = timeOf(made), timeOf(expires)
		return visit(w)
	})
}

// statement drives the search by tokens where there are any, which are rarer than a custodian's whole mail. CROSS JOIN holds SQLite
// to that order.
func (q ArchiveQuery) statement() (string, []any) {
	var b strings.Builder
	var args []any
	b.WriteString(`SELECT r.id, r.kind, r.made, r.octets, r.class, ` + currentLeaf + `, a.expires, a.content, w.n, w.shred, w.digest, w.outer IS NULL FROM `)
	if len(q.Tokens) > 0 {
		b.WriteString(`(SELECT DISTINCT record FROM archive_index WHERE token IN (` + placeholders(len(q.Tokens)) + `) AND record BETWEEN ? AND ? ORDER BY record) i
			CROSS JOIN archive_wraps w ON w.record = i.record`)
		for _, t := range q.Tokens {
			args = append(args, t[:])
		}
		args = append(args, q.First[:], q.Last[:])
	} else {
		b.WriteString(`archive_wraps w`)
	}
	b.WriteString(` CROSS JOIN records r ON r.id = w.record CROSS JOIN archive a ON a.record = w.record WHERE r.made >= ? AND r.made < ? AND r.octets >= ?`)
	args = append(args, q.From.UnixMilli(), q.To.UnixMilli(), q.MinOctets)
	if q.MaxOctets > 0 {
		b.WriteString(` AND r.octets <= ?`)
		args = append(args, q.MaxOctets)
	}
	if q.Direction != 0 {
		b.WriteString(` AND r.kind = ?`)
		args = append(args, q.Direction)
	}
	if len(q.Shreds) > 0 {
		b.WriteString(` AND w.shred IN (` + placeholders(len(q.Shreds)) + `)`)
		for _, s := range q.Shreds {
			args = append(args, s[:])
		}
		if len(q.Tokens) == 0 {
			b.WriteString(` AND w.record BETWEEN ? AND ?`)
			args = append(args, q.First[:], q.Last[:])
		}
	}
	b.WriteString(` ORDER BY w.record, w.n`)
	return b.String(), args
}

// ArchivedWraps returns a record's digests of wraps, ascending, and the outer wrap of one of them. ErrNotFound: there is no such wrap,
// with the digests of those that there are; ErrDestroyed: it was shredded.
func (v *Vault) ArchivedWraps(ctx context.Context, record ID, of Digest) (all []Digest, outer []byte, err error) {
	found := false
	err = v.queryRows(ctx, `SELECT digest, outer FROM archive_wraps WHERE record = ?`, []any{record[:]}, func(s scanner) error {
		var digest, b []byte
		if err := s.Scan(&digest, &b); err != nil {
			return err
		}
		if len(digest) != len(Digest{}) {
			return fmt.Errorf("%w: digest of a wrap", ErrCorrupt)
		}
		d := Digest(digest)
		all = append(all, d)
		if d == of {
			found, outer = true, b
		}
		return nil
	})
	switch {
	case err == nil && !found:
		err = ErrNotFound
	case err == nil && outer == nil:
		err = ErrDestroyed
	}
	slices.SortFunc(all, func(a, b Digest) int { return strings.Compare(string(a[:]), string(b[:])) })
	if err != nil {
		return all, nil, fmt.Errorf("record %v: wrap: %w", record, err)
	}
	return all, outer, nil
}

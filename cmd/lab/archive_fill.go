package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"dimegate/bridge"
	"dimegate/vault"
	"dimegate/vault/archive"
)

// What the archive is filled with: a custodian, his correspondent whose mail is searched for, and the rest of the world.
const (
	labCustodian = "alice@corp.test"
	labParty     = "eve@peer.test"
	labPeriod    = 360 * 24 * time.Hour // over which intake is spread
	labSlices    = 100                  // in which real and generated records take turns
	labPool      = 20_000               // addresses of the rest of the world
)

// A filler writes generated records straight into the tables: the rows that an intake would make, with wraps, bodies and tokens that
// nothing opens and nobody can tell from others. The log over them is a true one.
type filler struct {
	db      *sql.DB
	archive vault.ID
	mine    []fillShred // of the searched custodian
	others  []fillShred
	pool    []vault.Token
	domains []vault.Token
	rnd     *mathrand.ChaCha8
	hashes  map[int64]tlog.Hash // of the log's edge
}

type fillShred struct {
	id    vault.ID
	month uint16
}

func newFiller(dir string, archive vault.ID) (*filler, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "vault.db")+
		"?_pragma=synchronous(off)&_pragma=busy_timeout(60000)&_pragma=cache_size(-400000)&_pragma=wal_autocheckpoint(20000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	f := &filler{db: db, archive: archive, rnd: mathrand.NewChaCha8([32]byte{7}), hashes: map[int64]tlog.Hash{}}
	for range labPool {
		f.pool = append(f.pool, f.token())
	}
	for range labPool / 10 {
		f.domains = append(f.domains, f.token())
	}
	return f, nil
}

func (f *filler) token() (t vault.Token) {
	f.rnd.Read(t[:])
	return t
}

func (f *filler) pick(n int) int { return int(f.rnd.Uint64() % uint64(n)) }

func (f *filler) octets(n int) []byte {
	b := make([]byte, n)
	f.rnd.Read(b)
	return b
}

// shreds reads the shred keys that the archive has made, and adds those of the rest of the world, a hundred a month.
func (f *filler) shreds(ctx context.Context) error {
	rows, err := f.db.QueryContext(ctx, `SELECT id, month FROM shred_keys`)
	if err != nil {
		return err
	}
	defer rows.Close()
	f.mine = nil
	for rows.Next() {
		var id []byte
		var s fillShred
		if err := rows.Scan(&id, &s.month); err != nil {
			return err
		}
		s.id = vault.ID(id)
		f.mine = append(f.mine, s)
	}
	if f.others == nil {
		for range 200 {
			f.others = append(f.others, fillShred{id: vault.RandomID()})
		}
	}
	return rows.Err()
}

// fill writes n records of the time around at. One in twenty is the searched custodian's, too; none is his correspondent's.
func (f *filler) fill(ctx context.Context, n int, at time.Time, step time.Duration) (err error) {
	if err := f.shreds(ctx); err != nil {
		return err
	}
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var size int64
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(idx), -1) + 1 FROM leaves`).Scan(&size); err != nil {
		return err
	}
	clear(f.hashes) // the vault has written since
	w := fillWriter{f: f, ctx: ctx, tx: tx, stmts: map[string]*sql.Stmt{}}
	for i := range n {
		if err := w.record(size+int64(i), at.Add(time.Duration(i)*step)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// A fillWriter is one transaction of a filler.
type fillWriter struct {
	f     *filler
	ctx   context.Context
	tx    *sql.Tx
	stmts map[string]*sql.Stmt
}

func (w *fillWriter) exec(query string, args ...any) error {
	s := w.stmts[query]
	if s == nil {
		var err error
		if s, err = w.tx.PrepareContext(w.ctx, query); err != nil {
			return err
		}
		w.stmts[query] = s
	}
	_, err := s.ExecContext(w.ctx, args...)
	return err
}

func (w *fillWriter) record(leaf int64, at time.Time) error {
	f := w.f
	id := vault.NewID(at)
	shred := f.others[f.pick(len(f.others))]
	if len(f.mine) > 0 && f.pick(20) == 0 {
		shred = f.mine[f.pick(len(f.mine))]
	}
	body, outer := f.octets(300), f.octets(382)
	var digest, wrap vault.Digest
	f.rnd.Read(digest[:])
	f.rnd.Read(wrap[:])
	if err := w.leaf(leaf, vault.Leaf{Type: vault.LeafIntake, Time: at, Archive: f.archive, Subject: id, Public: vault.IntakePublic(digest, []vault.Digest{wrap})}); err != nil {
		return err
	}
	if err := w.exec(`INSERT INTO records (id, kind, made, octets, class, digest, envelope, body, file, leaf) VALUES (?, ?, ?, ?, 1, ?, ?, ?, 0, ?)`,
		id[:], vault.Inbound, at.UnixMilli(), 2000+f.pick(200_000), digest[:], f.octets(220), body, leaf); err != nil {
		return err
	}
	content := f.token()
	if err := w.exec(`INSERT INTO archive (record, expires, content) VALUES (?, ?, ?)`, id[:], at.AddDate(10, 0, 0).UnixMilli(), content[:]); err != nil {
		return err
	}
	if err := w.exec(`INSERT INTO archive_wraps (record, n, shred, digest, outer) VALUES (?, 0, ?, ?, ?)`, id[:], shred.id[:], wrap[:], outer); err != nil {
		return err
	}
	for role := 1; role <= 2; role++ {
		address, domain := f.pool[f.pick(len(f.pool))], f.domains[f.pick(len(f.domains))]
		for _, t := range []vault.Token{address, domain} {
			if err := w.exec(`INSERT INTO archive_index (token, record, role) VALUES (?, ?, ?)`, t[:], id[:], role); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *fillWriter) leaf(n int64, l vault.Leaf) error {
	octets := l.Octets()
	hashes, err := tlog.StoredHashes(n, octets, tlog.HashReaderFunc(w.read))
	if err != nil {
		return err
	}
	if err := w.exec(`INSERT INTO leaves (idx, leaf) VALUES (?, ?)`, n, octets); err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, n)
	for i, h := range hashes {
		if err := w.exec(`INSERT INTO hashes (idx, hash) VALUES (?, ?)`, first+int64(i), h[:]); err != nil {
			return err
		}
		w.f.hashes[first+int64(i)] = h
	}
	if len(w.f.hashes) > 1<<16 {
		clear(w.f.hashes)
	}
	return nil
}

func (w *fillWriter) read(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if h, ok := w.f.hashes[x]; ok {
			list[i] = h
			continue
		}
		var b []byte
		if err := w.tx.QueryRowContext(w.ctx, `SELECT hash FROM hashes WHERE idx = ?`, x).Scan(&b); err != nil {
			return nil, err
		}
		list[i] = tlog.Hash(b)
	}
	return list, nil
}

// keepReal archives n messages through the vault, as an intake does: sealed, with real wraps. Every tenth is a copy of another one.
func keepReal(ctx context.Context, v *vault.Vault, a *archive.Archive, first, n int, at time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := first; i < first+n; i++ {
		g.Go(func() error { return keepOne(ctx, v, a, i, at.Add(time.Duration(i-first)*time.Second)) })
	}
	return g.Wait()
}

func keepOne(ctx context.Context, v *vault.Vault, a *archive.Archive, i int, at time.Time) error {
	keep, err := a.Keeping(ctx, archive.Message{Author: labParty, Recipients: []string{labCustodian}, Custodians: []string{labCustodian}, Class: 1, Retention: 10 * 365 * 24 * time.Hour})
	if err != nil {
		return err
	}
	d, err := v.NewDraft()
	if err != nil {
		return err
	}
	d.Keep(keep)
	if _, err := d.Write(labMessage(i)); err != nil {
		return err
	}
	envelope, err := json.Marshal(bridge.Arrival{Origin: "b.example", Author: labParty, Recipient: labCustodian, ReturnPath: labParty, At: at})
	if err != nil {
		return err
	}
	id := vault.InboundID{Origin: "peer.test"}
	rand.Read(id.Message[:])
	if _, err := v.BeginInbound(ctx, d, id, envelope, at); err != nil {
		return err
	}
	return v.EndInbound(ctx, id, 0, "", []byte("accepted"), at)
}

// labMessage is the i-th message: 1 to 13 kB of words, among which is its number; every tenth is the one before it again.
func labMessage(i int) []byte {
	if i%10 == 9 {
		i--
	}
	r := mathrand.New(mathrand.NewPCG(1, uint64(i)))
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: number%d\r\nMessage-ID: <%d@peer.test>\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n", labParty, labCustodian, i, i)
	for n := 10 + r.IntN(150); n > 0; n-- {
		for range 10 {
			b.WriteString([]string{"contract", "merger", "meeting", "the", "of", "invoice", "friday", "closing"}[r.IntN(8)])
			b.WriteByte(' ')
		}
		b.WriteString("\r\n")
	}
	return []byte(b.String())
}

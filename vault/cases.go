package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A CaseState says how far a case has come.
type CaseState uint8

// The states of a case, in their order.
const (
	CaseOpen      CaseState = 1 // it is searched
	CaseSelected  CaseState = 2 // its manifest is made, and not signed by who asks
	CaseSubmitted CaseState = 3 // it is before the officers
	CaseGranted   CaseState = 4 // a quorum's partials were relayed: it counts as opened
	CaseClosed    CaseState = 5
)

var caseStates = [...]string{CaseOpen: "open", CaseSelected: "selected", CaseSubmitted: "submitted", CaseGranted: "granted", CaseClosed: "closed"}

func (s CaseState) String() string {
	if int(s) < len(caseStates) && s > 0 {
		return caseStates[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// A Case is a row of the table of cases. Octets are the discovery's own, and rest sealed.
type Case struct {
	ID      ID
	State   CaseState
	Opened  time.Time
	Expires time.Time
	Octets  []byte
}

// A CaseLeaf is a leaf about a case, with what it commits to.
type CaseLeaf struct {
	Index   int64
	Octets  []byte // as hashed; set when it is read
	Type    LeafType
	Public  Digest
	Payload []byte
}

const casesKey = "cases"

func caseContext(id ID) []byte { return Label("case", string(id[:])) }

// OpenCase keeps a new case with its hold, the leaf that tells of the case and the leaf of the hold, in one commit.
func (v *Vault) OpenCase(ctx context.Context, c Case, h LegalHold, notice []byte, now time.Time) error {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	h.Case = c.ID
	return v.update(ctx, func(tx *Tx) error {
		err := tx.exec(`INSERT INTO cases (id, state, opened, expires, sealed) VALUES (?, ?, ?, ?, ?)`, c.ID[:], c.State, c.Opened.UnixMilli(),
			c.Expires.UnixMilli(), SealOctets(k, PartCase, caseContext(c.ID), c.Octets))
		if err == nil {
			_, err = v.attestSealed(tx, k, c.ID, CaseLeaf{Type: LeafCaseAsked, Payload: notice}, now)
		}
		if err != nil {
			return err
		}
		return v.putHold(tx, k, h, now)
	})
}

// attestSealed writes a leaf about subject, with its opening under the key of cases.
func (v *Vault) attestSealed(tx *Tx, k Secret, subject ID, l CaseLeaf, now time.Time) (int64, error) {
	o := newOpening(l.Payload)
	n, err := tx.appendLeaf(Leaf{Type: l.Type, Time: now, Archive: v.archive, Subject: subject, Public: l.Public, Commitment: o.Commit(l.Type)})
	if err != nil {
		return 0, err
	}
	return n, tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, n, subject[:], SealOctets(k, PartOpening, append(subject[:], byte(l.Type)), o.octets()))
}

const caseColumns = `SELECT id, state, opened, expires, sealed FROM cases`

func scanCase(s scanner, k Secret) (Case, error) {
	var c Case
	var id, sealed []byte
	var opened, expires int64
	if err := s.Scan(&id, &c.State, &opened, &expires, &sealed); err != nil {
		return Case{}, storageError(err)
	}
	if len(id) != len(ID{}) {
		return Case{}, fmt.Errorf("%w: id of a case", ErrCorrupt)
	}
	c.ID, c.Opened, c.Expires = ID(id), timeOf(opened), timeOf(expires)
	var err error
	if c.Octets, err = OpenOctets(k, PartCase, caseContext(c.ID), sealed); err != nil {
		return Case{}, fmt.Errorf("case %v: %w", c.ID, err)
	}
	return c, nil
}

// Cases lists all cases, the oldest first.
func (v *Vault) Cases(ctx context.Context) ([]Case, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	var list []Case
	err = v.queryRows(ctx, caseColumns+` ORDER BY opened, id`, nil, func(s scanner) error {
		c, err := scanCase(s, k)
		list = append(list, c)
		return err
	})
	return list, err
}

// Case reads one; ErrNotFound when there is none.
func (v *Vault) Case(ctx context.Context, id ID) (Case, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return Case{}, err
	}
	defer k.Destroy()
	c := Case{}
	err = ErrNotFound
	if qerr := v.queryRows(ctx, caseColumns+` WHERE id = ?`, []any{id[:]}, func(s scanner) error {
		c, err = scanCase(s, k)
		return err
	}); qerr != nil {
		err = qerr
	}
	if err != nil {
		return Case{}, fmt.Errorf("case %v: %w", id, err)
	}
	return c, nil
}

// ChangeCase changes a case: f sees it as it is, changes what it likes, and says which leaves go with that. Case and leaves are
// one commit, and nobody else changes the case meanwhile; an error of f leaves everything. With the state CaseClosed its files go.
func (v *Vault) ChangeCase(ctx context.Context, id ID, now time.Time, f func(c *Case) ([]CaseLeaf, error)) error {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		var c Case
		found := false
		if err := tx.queryRows(caseColumns+` WHERE id = ?`, []any{id[:]}, func(s scanner) (err error) {
			c, err = scanCase(s, k)
			found = true
			return err
		}); err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("case %v: %w", id, ErrNotFound)
		}
		leaves, err := f(&c)
		if err != nil {
			return err
		}
		for _, l := range leaves {
			if _, err := v.attestSealed(tx, k, id, l, now); err != nil {
				return err
			}
		}
		if c.State == CaseClosed {
			if err := tx.exec(`DELETE FROM case_files WHERE owner = ?`, id[:]); err != nil {
				return err
			}
		}
		return tx.exec(`UPDATE cases SET state = ?, expires = ?, sealed = ? WHERE id = ?`, c.State, c.Expires.UnixMilli(), SealOctets(k, PartCase, caseContext(id), c.Octets), id[:])
	})
}

// CaseLeaves reads the leaves about a case or a hold, in order, with what they commit to. ErrCorrupt: it is not what a leaf says.
func (v *Vault) CaseLeaves(ctx context.Context, id ID) ([]CaseLeaf, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	var list []CaseLeaf
	err = v.queryRows(ctx, `SELECT idx, leaf, opening FROM openings JOIN leaves USING (idx) WHERE owner = ? ORDER BY idx`, []any{id[:]}, func(s scanner) error {
		var c CaseLeaf
		var sealed []byte
		if err := s.Scan(&c.Index, &c.Octets, &sealed); err != nil {
			return err
		}
		l, err := ParseLeaf(c.Octets)
		if err != nil {
			return err
		}
		opening, err := OpenOctets(k, PartOpening, append(id[:], byte(l.Type)), sealed)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", c.Index, err)
		}
		payload, ok := opens(l, opening)
		if !ok || l.Subject != id {
			return fmt.Errorf("%w: leaf %d says something else than what is kept of it", ErrCorrupt, c.Index)
		}
		c.Type, c.Public, c.Payload = l.Type, l.Public, payload
		list = append(list, c)
		return nil
	})
	return list, err
}

// casePiece is how much of a case's file is in one row, and so in one commit: mail waits for no more.
const casePiece = 1 << 20

// A CaseWriter seals a file of a case into its rows as it is written. It is whole when Close returns nil.
type CaseWriter struct {
	ctx   context.Context // of the call that made it: an io.Writer has none
	v     *Vault
	owner ID
	name  string
	n     int
	buf   bytes.Buffer
	seal  *StreamWriter
}

// CreateCaseFile begins a file of a case, in place of one of that name.
func (v *Vault) CreateCaseFile(ctx context.Context, owner ID, name string) (*CaseWriter, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	w := &CaseWriter{ctx: ctx, v: v, owner: owner, name: name}
	if w.seal, err = NewStreamWriter(caseRows{w}, k, PartCase, caseFileContext(owner, name)); err != nil {
		return nil, err
	}
	return w, v.update(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM case_files WHERE owner = ? AND name = ?`, owner[:], name)
	})
}

func caseFileContext(owner ID, name string) []byte {
	return Label("case file", string(owner[:]), name)
}

func (w *CaseWriter) Write(p []byte) (int, error) { return w.seal.Write(p) }

// Close writes what is left.
func (w *CaseWriter) Close() error {
	if err := w.seal.Close(); err != nil {
		return err
	}
	return w.flush()
}

func (w *CaseWriter) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	err := w.v.update(w.ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO case_files (owner, name, n, piece) VALUES (?, ?, ?, ?)`, w.owner[:], w.name, w.n, w.buf.Bytes())
	})
	w.n++
	w.buf.Reset()
	return err
}

// caseRows is below the seal of a CaseWriter.
type caseRows struct{ w *CaseWriter }

func (c caseRows) Write(p []byte) (int, error) {
	n, _ := c.w.buf.Write(p)
	if c.w.buf.Len() >= casePiece {
		return n, c.w.flush()
	}
	return n, nil
}

// OpenCaseFile reads a file of a case; ErrNotFound when there is none. Memory: a piece.
func (v *Vault) OpenCaseFile(ctx context.Context, owner ID, name string) (io.Reader, error) {
	k, err := v.NamedKey(ctx, casesKey)
	if err != nil {
		return nil, err
	}
	defer k.Destroy()
	r, err := NewStreamReader(&casePieces{ctx: ctx, v: v, owner: owner, name: name}, k, PartCase, caseFileContext(owner, name))
	if errors.Is(err, ErrTruncated) {
		return nil, fmt.Errorf("file %q of case %v: %w", name, owner, ErrNotFound)
	}
	return r, err
}

// casePieces reads the rows of a file one after the other.
type casePieces struct {
	ctx   context.Context
	v     *Vault
	owner ID
	name  string
	n     int
	rest  []byte
}

func (c *casePieces) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		err := c.v.queryRow(c.ctx, `SELECT piece FROM case_files WHERE owner = ? AND name = ? AND n = ?`, []any{c.owner[:], c.name, c.n}, &c.rest)
		if errors.Is(err, ErrNotFound) {
			return 0, io.EOF
		} else if err != nil {
			return 0, err
		}
		c.n++
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// A SealedRecord is a record as it rests, its body excepted; no key is needed.
type SealedRecord struct {
	Kind     Kind
	Made     time.Time
	Octets   int64 // of the message as received
	Envelope []byte
	Openings []SealedOpening // of later leaves about it and its rows, in their order
	Leaf     int64           // of its intake
	Rewraps  []RewrapLeaf    // those that replaced it, in their order
}

// A SealedOpening is what a leaf about a record hides: part 6 under the record's key, bound to the leaf's subject and type.
type SealedOpening struct {
	Index  int64
	Sealed []byte
}

// SealedRecord reads a record; ErrNotFound when there is none.
func (v *Vault) SealedRecord(ctx context.Context, id ID) (SealedRecord, error) {
	var r SealedRecord
	var made int64
	if err := v.queryRow(ctx, `SELECT kind, made, octets, envelope, leaf FROM records WHERE id = ?`, []any{id[:]}, &r.Kind, &made, &r.Octets, &r.Envelope, &r.Leaf); err != nil {
		return SealedRecord{}, fmt.Errorf("record %v: %w", id, err)
	}
	r.Made = timeOf(made)
	err := v.queryRows(ctx, `SELECT idx, opening FROM openings WHERE owner = ? ORDER BY idx`, []any{id[:]}, func(s scanner) error {
		var o SealedOpening
		err := s.Scan(&o.Index, &o.Sealed)
		r.Openings = append(r.Openings, o)
		return err
	})
	if err == nil {
		r.Rewraps, err = v.rewraps(ctx, id)
	}
	return r, err
}

package escrow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Reviewer is an officer's tool: what he knows, against which a case is checked before anything is signed.
type Reviewer struct {
	Key   *Key
	Epoch *Epoch
	Trust Trust
	Last  Checkpoint          // the last that he saw; the zero value when there is none
	Seen  func(vault.ID) bool // whether he approved this record before; may be nil
	Now   func() time.Time
}

// A Count is how many entries of a case one custodian has in one class and month.
type Count struct {
	Custodian string `json:"custodian"`
	Class     uint16 `json:"class"`
	Month     string `json:"month"`
	Entries   int    `json:"entries"`
}

// A Review is what an officer is shown of a case that passed every check.
type Review struct {
	Manifest   *Manifest
	Checkpoint Checkpoint // of the bundle: the last one seen from now on
	Custodians []string
	Counts     []Count
	Records    int // distinct
	Before     int // of them, approved by this officer before
	RecordIDs  []vault.ID
}

// An EntryError says which entry of a case is wrong. One is enough: nothing is made for the whole case.
type EntryError struct {
	Entry  int
	Record vault.ID // zero when not even that can be read
	Err    error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %d: %v", e.Entry, e.Err) }
func (e *EntryError) Unwrap() error { return e.Err }

// Review reads a bundle to its end and makes every check of the specification's §5.1. It makes nothing. Memory: the manifest
// and a batch.
func (r Reviewer) Review(ctx context.Context, bundle io.Reader) (*Review, error) {
	b, err := ReadBundle(bundle)
	if err != nil {
		return nil, err
	}
	v := &Review{Manifest: b.Manifest}
	var names map[Custodian]string
	if v.Checkpoint, names, err = r.CheckHead(&b.Bundle); err != nil {
		return nil, err
	}
	for _, c := range b.Manifest.Custodians {
		v.Custodians = append(v.Custodians, names[c])
	}
	c := counter{counts: map[Count]int{}, records: map[vault.ID]bool{}}
	for n := 0; n < len(b.Manifest.Entries); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch, err := r.batch(b, n, v.Checkpoint)
		if err != nil {
			return nil, err
		}
		for _, w := range batch {
			c.add(w.Label, names[w.Label.Custodian])
		}
		n += len(batch)
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		return nil, err
	}
	c.finish(v, r.Seen)
	return v, nil
}

// CheckHead makes the checks of steps 1 and 2 that need no entry: who asks for what, that the log attests the case, and who the
// custodians are. It returns the checkpoint that everything of the case is proved under, and the custodians' addresses.
func (r Reviewer) CheckHead(b *Bundle) (Checkpoint, map[Custodian]string, error) {
	if err := r.checkCase(b); err != nil {
		return Checkpoint{}, nil, err
	}
	cp, err := r.checkLog(b)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	names, err := b.names()
	return cp, names, err
}

// checkCase is step 1: the manifest, and who asks.
func (r Reviewer) checkCase(b *Bundle) error {
	if err := b.Manifest.Check(r.Key, r.Epoch, r.Now()); err != nil {
		return err
	}
	return CheckRequest(b.Manifest, b.Request)
}

// CheckRequest verifies that st is the requester's own request for the case.
func CheckRequest(m *Manifest, st *Statement) error {
	if st.Kind != Request || st.Subject != m.digest || st.Size != m.LogSize || st.Root != m.LogRoot {
		return refuse(ErrSignature, "request", "is not for this case")
	}
	return st.Verify(m.RequesterKey)
}

// checkLog is step 2 as far as it is about the case: the note, what it is consistent with, and the case's own leaf.
func (r Reviewer) checkLog(b *Bundle) (Checkpoint, error) {
	m := b.Manifest
	cp, err := r.Trust.Open(b.Note)
	if err != nil {
		return Checkpoint{}, err
	}
	bad := func(format string, a ...any) (Checkpoint, error) {
		return Checkpoint{}, refuse(ErrLog, "log", format, a...)
	}
	if cp.Origin != m.LogOrigin || r.Last.Size > 0 && cp.Origin != r.Last.Origin {
		return bad("the checkpoint is of another log")
	}
	if m.LogSize > uint64(cp.Size) {
		return bad("the checkpoint is older than the case")
	}
	if cp.Size < r.Last.Size {
		return bad("the checkpoint has %d leaves, the last one seen %d: ask for a newer bundle, and why", cp.Size, r.Last.Size)
	}
	if err := b.consistent(cp, Checkpoint{m.LogOrigin, int64(m.LogSize), m.LogRoot}); err != nil {
		return bad("the tree that the case stands on is no part of the checkpoint's")
	}
	if r.Last.Size > 0 {
		if err := b.consistent(cp, r.Last); err != nil {
			return bad("the last checkpoint seen, of %d leaves, is no part of this one: the log was changed, or the bundle was made for somebody else", r.Last.Size)
		}
	}
	l, err := vault.ParseLeaf(b.CaseLeaf)
	if err != nil || l.Type != vault.LeafCaseOpened || l.Archive != m.Archive || l.Subject != m.Case || l.Public != m.digest || b.CaseIndex < m.LogSize {
		return bad("the case's leaf is not this case's")
	}
	if !cp.Has(b.CaseIndex, b.CaseLeaf, b.CaseProof) {
		return bad("the case's leaf is not in the log")
	}
	return cp, nil
}

// consistent checks that old is a beginning of cp.
func (b *Bundle) consistent(cp, old Checkpoint) error {
	if old.Size == cp.Size {
		if old.Root != cp.Root {
			return ErrLog
		}
		return nil
	}
	for _, c := range b.Consistency {
		if c.Size == uint64(old.Size) {
			return tlog.CheckTree(c.Proof, cp.Size, cp.Root, old.Size, old.Root)
		}
	}
	return ErrLog
}

// names recomputes the custodians' ids from salts and addresses, so that nobody is shown another's name.
func (b *Bundle) names() (map[Custodian]string, error) {
	names := make(map[Custodian]string, len(b.Custodians))
	for i, c := range b.Custodians {
		id := CustodianOf(c.Salt, c.Address)
		if id != b.Manifest.Custodians[i] {
			return nil, refuse(ErrScope, "custodian", "number %d is not who the bundle says", i+1)
		}
		names[id] = strings.ToLower(c.Address)
	}
	return names, nil
}

// batch reads and checks at most batchSize entries from n on: steps 2, 3 and 4.
func (r Reviewer) batch(b *BundleReader, n int, cp Checkpoint) ([]*Wrap, error) {
	var wraps []*Wrap
	for i := n; i < len(b.Manifest.Entries) && len(wraps) < batchSize; i++ {
		e, err := b.Next()
		if err != nil {
			return nil, &EntryError{Entry: i, Err: err}
		}
		w, err := r.CheckEntry(b.Manifest, i, e, cp)
		if err != nil {
			return nil, err
		}
		wraps = append(wraps, w)
	}
	if bad := checkWraps(r.Key, wraps); len(bad) > 0 {
		return nil, &EntryError{n + bad[0], wraps[bad[0]].Label.Record, refuse(ErrProof, "wrap", "was changed, or not sealed under this label")}
	}
	return wraps, nil
}

// CheckEntry makes the checks of steps 2 and 3 on entry n of a case: the wrap is the one that the manifest names and inside the
// case's bounds, and the log attests its record with it. Its proof is for CheckWraps. Every error is an *EntryError.
func (r Reviewer) CheckEntry(m *Manifest, n int, e *BundleEntry, cp Checkpoint) (*Wrap, error) {
	w, err := ParseWrap(e.Wrap)
	if err != nil {
		return nil, &EntryError{Entry: n, Err: err}
	}
	if err := m.CheckWrap(n, w); err != nil {
		return nil, &EntryError{n, w.Label.Record, err}
	}
	if err := w.checkLabel(r.Key); err != nil {
		return nil, &EntryError{n, w.Label.Record, err}
	}
	if err := e.CheckLogged(m.Entries[n], w, cp); err != nil {
		return nil, &EntryError{n, w.Label.Record, err}
	}
	return w, nil
}

// Consistent checks that old is a beginning of cp, by a proof that the bundle has.
func (b *Bundle) Consistent(cp, old Checkpoint) error {
	if b.consistent(cp, old) != nil {
		return refuse(ErrLog, "log", "a tree of %d leaves is no part of the checkpoint's", old.Size)
	}
	return nil
}

// CheckLogged checks that the log attests the record of w with this body and this wrap.
func (e *BundleEntry) CheckLogged(m Entry, w *Wrap, cp Checkpoint) error {
	bad := func(why string) error { return refuse(ErrLog, "leaf", "%s", why) }
	l, err := vault.ParseLeaf(e.Leaf)
	if err != nil || l.Type != vault.LeafIntake && l.Type != vault.LeafRewrap {
		return bad("is no intake's")
	}
	if l.Archive != w.Label.Archive || l.Subject != w.Label.Record {
		return bad("is another record's")
	}
	if !strictly(e.Wraps, compareDigests) || !slices.Contains(e.Wraps, m.Wrap) {
		return bad("does not attest this wrap")
	}
	if l.Public != vault.IntakePublic(w.Label.Body, slices.Clone(e.Wraps)) {
		return bad("attests another body or other wraps")
	}
	if !cp.Has(m.Leaf, e.Leaf, e.Proof) {
		return bad("is not in the log")
	}
	return nil
}

// A counter adds up what the officer is shown.
type counter struct {
	counts  map[Count]int
	records map[vault.ID]bool
}

func (c *counter) add(l Label, custodian string) {
	c.counts[Count{Custodian: custodian, Class: l.Class, Month: l.Month.String()}]++
	c.records[l.Record] = true
}

func (c *counter) finish(v *Review, seen func(vault.ID) bool) {
	for k, n := range c.counts {
		k.Entries = n
		v.Counts = append(v.Counts, k)
	}
	slices.SortFunc(v.Counts, func(a, b Count) int {
		if d := strings.Compare(a.Custodian, b.Custodian); d != 0 {
			return d
		}
		if d := strings.Compare(a.Month, b.Month); d != 0 {
			return d
		}
		return int(a.Class) - int(b.Class)
	})
	v.Records = len(c.records)
	for id := range c.records {
		v.RecordIDs = append(v.RecordIDs, id)
		if seen != nil && seen(id) {
			v.Before++
		}
	}
	slices.SortFunc(v.RecordIDs, func(a, b vault.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
}

func compareDigests(a, b vault.Digest) int { return bytes.Compare(a[:], b[:]) }

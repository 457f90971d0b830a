package archive_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// A rewrapping is an archive under a key whose successor is in force, and the records' keys as a quorum of the old one gives them.
type rewrapping struct {
	*world
	old, new *testescrow.Officers
	hits     []archive.Hit // before
	keys     map[vault.Digest]vault.Secret
	labels   map[vault.Digest]escrow.Label
}

// rewrapped is whose copies are re-wrapped.
const rewrapped = "bob@corp.example"

func newRewrapping(t *testing.T, records int) *rewrapping {
	t.Helper()
	w, old := quorum(t)
	r := &rewrapping{world: w, old: old, keys: map[vault.Digest]vault.Secret{}, labels: map[vault.Digest]escrow.Label{}}
	for i := range records {
		_, row := w.accept(toElse, fmt.Sprint("text ", i))
		w.deliver(row)
	}
	r.hits = w.search(archive.Query{Parties: []string{"hidden@third.example"}})
	w.now = w.now.Add(time.Second)
	var err error
	r.new, err = testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, w.now)
	w.ok(err)
	w.ok(w.a.Install(t.Context(), r.new.Key, []*escrow.Epoch{r.new.Epoch}, r.new.Attestations, w.now))
	w.each(old, r.hits, func(x escrow.Opened, wrap vault.Digest) {
		k, err := vault.SecretOf(x.Key.Octets())
		w.ok(err)
		r.keys[wrap], r.labels[wrap] = k, x.Label
	})
	return r
}

// each visits bob's copies of hits as they are now, opened by two officers.
func (w *world) each(o *testescrow.Officers, hits []archive.Hit, visit func(escrow.Opened, vault.Digest)) {
	w.Helper()
	names, err := w.a.CustodianNames(w.Context(), rewrapped)
	w.ok(err)
	bob := escrow.CustodianOf(names[0].Salt, names[0].Address)
	c := testescrow.VaultCase{Vault: w.v, Custodians: names, Classes: []uint16{toElse.Class}, First: escrow.MonthOf(w.now) - 12, Last: escrow.MonthOf(w.now), Now: w.now}
	owner := map[vault.Digest]vault.ID{}
	for _, h := range hits {
		for _, x := range h.Wraps {
			if escrow.Custodian(x.Custodian) == bob {
				c.Entries = append(c.Entries, escrow.Entry{Leaf: uint64(h.Leaf), Wrap: x.Digest})
				owner[x.Digest] = h.Record
			}
		}
	}
	c.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		d := c.Entries[n].Wrap
		det1, all, err := w.a.Wrap(w.Context(), owner[d], d)
		return all, det1, err
	}
	_, err = o.Open(w.Context(), c, func(x escrow.Opened) error {
		visit(x, c.Entries[x.Entry].Wrap)
		return nil
	}, 1, 3)
	w.ok(err)
}

// file is what a station makes of all; change changes a label before it is sealed.
func (r *rewrapping) file(change func(*escrow.Label)) *escrow.Rewrap {
	r.Helper()
	to, err := r.new.Sealer()
	r.ok(err)
	f := &escrow.Rewrap{Old: r.old.Key.ID(), New: r.new.Key.ID()}
	for d, k := range r.keys {
		l := r.labels[d]
		e := escrow.Rewrapped{Record: l.Record, Old: d}
		change(&l)
		e.Wrap, err = to.Seal(k, l)
		r.ok(err)
		f.Entries = append(f.Entries, e)
	}
	slices.SortFunc(f.Entries, func(a, b escrow.Rewrapped) int { return bytes.Compare(a.Record[:], b.Record[:]) })
	return f
}

func asItWas(*escrow.Label) {}

func (r *rewrapping) rewrap(f *escrow.Rewrap) (*archive.Rewrapped, error) {
	return r.a.Rewrap(r.Context(), f, func() time.Time { return r.now }, func(int, int) {})
}

func (r *rewrapping) under(o *testescrow.Officers) int64 {
	n, err := r.a.Under(r.Context(), o.Key.ID())
	r.ok(err)
	return n
}

// TestRewrap: what a quorum of the old key sealed anew opens by the new one's officers, octet by octet, and by the old one's not any more,
// whatever they have of before; a run that is ended in the middle is ended by the next one.
func TestRewrap(t *testing.T) {
	const records = 120
	r := newRewrapping(t, records)
	if n, m := r.under(r.old), r.under(r.new); n != 2*records || m != 0 {
		t.Fatalf("%d wraps are under the old key, %d under the new one", n, m)
	}
	var outers [][]byte
	for d, l := range r.labels {
		_, outer, err := r.v.ArchivedWraps(t.Context(), l.Record, d)
		r.ok(err)
		outers = append(outers, outer)
	}
	r.ok(r.v.Scrub(t.Context()))
	disk := func() []byte {
		var all []byte
		for _, name := range []string{"vault.db", "vault.db-wal"} {
			b, err := os.ReadFile(filepath.Join(r.at.Dir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	if before := disk(); !bytes.Contains(before, outers[0]) {
		t.Fatal("the wraps cannot be seen on the disk: the test looks in the wrong place")
	}
	f := r.file(asItWas)
	func() {
		defer func() { recover() }()
		r.a.Rewrap(t.Context(), f, func() time.Time { return r.now }, func(done, _ int) {
			if done == 110 {
				panic("as if the process ended here")
			}
		})
	}()
	if n := r.under(r.old); n <= records || n >= 2*records {
		t.Fatalf("after a run that was ended in the middle %d wraps are under the old key", n)
	}
	done, err := r.rewrap(f)
	if err != nil || done.Before == 0 || done.Before+done.Done != records || done.Gone != 0 {
		t.Fatalf("the next run: %+v, %v", done, err)
	}
	for name, f := range map[string]*escrow.Rewrap{"again": f, "another file of the case": r.file(asItWas)} {
		if done, err := r.rewrap(f); err != nil || done.Before != records {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	if n, m := r.under(r.old), r.under(r.new); n != records || m != records { // alice's copies stay
		t.Errorf("%d wraps are under the old key, %d under the new one", n, m)
	}
	after := disk()
	for _, o := range outers {
		if bytes.Contains(after, o) {
			t.Fatal("an old wrap is on the disk still")
		}
	}
	hits := r.search(archive.Query{Parties: []string{"hidden@third.example"}})
	n := 0
	r.each(r.new, hits, func(x escrow.Opened, wrap vault.Digest) {
		for d, l := range r.labels {
			if l.Record == x.Label.Record && r.keys[d].Equal(x.Key) {
				n++
			}
		}
	})
	if n != records {
		t.Errorf("the new officers get %d of %d keys", n, records)
	}
	if got, err := r.opened(r.new, hits, rewrapped, toElse.Class, 1, 2); err != nil || len(got) != records || !slices.Contains(slices.Collect(maps.Values(got)), "text 7") {
		t.Errorf("the new officers open %d, %v", len(got), err)
	}
	if got, err := r.opened(r.old, r.hits, rewrapped, toElse.Class, 1, 2, 3); err == nil || len(got) > 0 {
		t.Errorf("all old officers open %d with what was known before, %v", len(got), err)
	}
	if got, err := r.opened(r.old, hits, rewrapped, toElse.Class, 1, 2, 3); err == nil || len(got) > 0 {
		t.Errorf("all old officers open %d of what is there now, %v", len(got), err)
	}
	for _, h := range hits { // the leaves chain to the intake
		s, err := r.v.SealedRecord(t.Context(), h.Record)
		r.ok(err)
		leaves, err := r.v.LogLeaves(t.Context(), s.Leaf, 1)
		r.ok(err)
		intake, err := vault.ParseLeaf(leaves[0])
		r.ok(err)
		if len(s.Rewraps) != 1 || s.Rewraps[0].Index != h.Leaf || vault.Digest(s.Rewraps[0].Opening.Payload) != intake.Public {
			t.Fatalf("record %v: re-wraps %+v", h.Record, s.Rewraps)
		}
	}
}

// TestRewrapRefuses: a wrap that would give a record another class, month, custodian or body, or that is another record's, or of another
// key, changes nothing of the whole file.
func TestRewrapRefuses(t *testing.T) {
	r := newRewrapping(t, 3)
	last := func(change func(*escrow.Label)) *escrow.Rewrap {
		n := 0
		return r.file(func(l *escrow.Label) {
			if n++; n == len(r.keys) {
				change(l)
			}
		})
	}
	before := r.search(archive.Query{Parties: []string{"hidden@third.example"}})
	stranger, err := testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, r.now)
	r.ok(err)
	other := r.file(asItWas)
	other.New = stranger.Key.ID()
	from := r.file(asItWas)
	from.Old = stranger.Key.ID()
	swapped := r.file(asItWas)
	swapped.Entries[0].Wrap, swapped.Entries[1].Wrap = swapped.Entries[1].Wrap, swapped.Entries[0].Wrap
	for name, c := range map[string]struct {
		f    *escrow.Rewrap
		want error
	}{
		"class":           {last(func(l *escrow.Label) { l.Class++ }), archive.ErrLabel},
		"month":           {last(func(l *escrow.Label) { l.Month++ }), archive.ErrLabel},
		"custodian":       {last(func(l *escrow.Label) { rand.Read(l.Custodian[:]) }), archive.ErrLabel},
		"body":            {last(func(l *escrow.Label) { rand.Read(l.Body[:]) }), archive.ErrLabel},
		"archive":         {last(func(l *escrow.Label) { rand.Read(l.Archive[:]) }), archive.ErrLabel},
		"another record":  {swapped, archive.ErrLabel},
		"another new key": {other, archive.ErrReplaced},
		"another old key": {from, vault.ErrChanged},
	} {
		if done, err := r.rewrap(c.f); !errors.Is(err, c.want) || done != nil {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	if after := r.search(archive.Query{Parties: []string{"hidden@third.example"}}); !slices.EqualFunc(before, after, func(a, b archive.Hit) bool {
		return a.Leaf == b.Leaf && slices.Equal(a.Wraps, b.Wraps)
	}) {
		t.Error("something was changed")
	}
}

// TestRewrapGone: what was shredded since the case was selected stays so, and is counted; the rest is re-wrapped.
func TestRewrapGone(t *testing.T) {
	r := newRewrapping(t, 3)
	f := r.file(asItWas)
	shred, err := r.v.WrapShred(t.Context(), f.Entries[1].Record, f.Entries[1].Old)
	r.ok(err)
	holds, err := r.v.Holds(t.Context())
	r.ok(err)
	_, err = r.v.DestroyCopies(t.Context(), shred, []vault.ID{f.Entries[1].Record}, vault.Token{}, vault.ByErasure, len(holds), r.now)
	r.ok(err)
	done, err := r.rewrap(f)
	if err != nil || done.Gone != 1 || done.Done != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, _, err := r.v.ArchivedWraps(t.Context(), f.Entries[1].Record, f.Entries[1].Old); !errors.Is(err, vault.ErrDestroyed) {
		t.Errorf("the shredded wrap: %v", err)
	}
}

package archive_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/backup"
)

const day = 24 * time.Hour

// A right is a row of the table in docs/operating.md, "Retention and erasure", with what is said there of days.
type right struct {
	hold, retention, erasure string
	atOnce, end              string
}

func (r right) address() string {
	return fmt.Sprintf("%s.%s.%s@corp.example", r.hold, r.retention, r.erasure)
}

// rights reads the table: 27 combinations, each once.
func rights(t *testing.T) []right {
	t.Helper()
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []right
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (none|active|released) \| (none|running|over) \| (none|before|after) \| ([a-z, ]+) \| ([a-z, ]+) \|$`).FindAllStringSubmatch(string(page), -1) {
		r := right{m[1], m[2], m[3], m[4], m[5]}
		if seen[r.address()] {
			t.Errorf("%s stands there twice", r.address())
		}
		seen[r.address()] = true
		list = append(list, r)
	}
	if len(list) != 27 {
		t.Fatalf("%d combinations in docs/operating.md", len(list))
	}
	return list
}

// a kept copy is one custodian's, of one message that nobody else holds.
type keptCopy struct {
	right
	record vault.ID
	wrap   vault.Digest
}

// is says what is left of a copy: "kept", "erased" or "destroyed", by its fate and the log.
func (c keptCopy) is(w *world, v *vault.Vault, a *archive.Archive) string {
	w.Helper()
	_, _, err := a.Wrap(w.Context(), c.record, c.wrap)
	if err == nil {
		return "kept"
	}
	if !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDestroyed) {
		w.Fatal(err)
	}
	why := "shredded" // its key alone is gone
	for n := int64(0); ; n += 500 {
		leaves, err := v.LogLeaves(w.Context(), n, 500)
		w.ok(err)
		for _, b := range leaves {
			l, err := vault.ParseLeaf(b)
			w.ok(err)
			if l.Type == vault.LeafDestroyed && l.Subject == c.record {
				why = map[vault.Digest]string{vault.NewDigest("destroyed", []byte("erasure")): "erased", vault.NewDigest("destroyed", []byte("retention")): "destroyed"}[l.Public]
			}
		}
		if len(leaves) < 500 {
			return why
		}
	}
}

// TestRights goes through all 27 combinations of hold, retention and erasure, and restores a backup that was made before all of it.
func TestRights(t *testing.T) {
	w := newWorld(t)
	w.install()
	begin := w.now
	to := func(n int) { w.now = begin.Add(time.Duration(n) * day) }
	sweep := func(dry bool) archive.Swept {
		t.Helper()
		s, err := w.a.Sweep(t.Context(), w.now, dry)
		w.ok(err)
		return s
	}
	retention := map[string]time.Duration{"none": 0, "running": 5 * 365 * day, "over": 30 * day}
	var copies []keptCopy
	for _, r := range rights(t) {
		m := archive.Message{Author: r.address(), Recipients: []string{"x@else.example"}, Custodians: []string{r.address()}, Class: 3, Retention: retention[r.retention]}
		record, row := w.accept(m, "text of "+r.address())
		w.deliver(row)
		hits := w.search(archive.Query{Custodians: []string{r.address()}})
		copies = append(copies, keptCopy{r, record, hits[0].Wraps[0].Digest})
	}
	keys, file := t.TempDir(), filepath.Join(t.TempDir(), "early.tar")
	_, err := backup.Create(t.Context(), w.v, backup.Options{Folder: w.at.Dir, Keys: keys, File: file, Grace: 36 * day, Now: w.now})
	w.ok(err)

	to(1)
	holds := map[string]vault.ID{}
	for _, c := range copies {
		if c.hold == "none" {
			continue
		}
		h := vault.LegalHold{ID: vault.NewID(w.now), Basis: "test", Custodians: []string{c.address()}, From: begin.Add(-time.Hour), To: begin.Add(time.Hour), Classes: []uint16{3}}
		w.ok(w.v.AddHold(t.Context(), h, w.now))
		if c.hold == "released" {
			holds[c.address()] = h.ID
		}
	}
	erase := func(when string) {
		t.Helper()
		for _, c := range copies {
			if c.erasure == when {
				e, err := w.a.Erase(t.Context(), c.address(), "privacy", "test", w.now)
				w.ok(err)
				if done := c.atOnce == "erased"; !e.Done.IsZero() != done || done == (e.Held+e.Running > 0) {
					t.Errorf("%s: asked %s: %+v", c.address(), when, e)
				}
			}
			if got := c.is(w, w.v, w.a); got != c.atOnce && c.erasure == when {
				t.Errorf("%s: right after day %v: %s, want %s", c.address(), w.now.Sub(begin)/day, got, c.atOnce)
			}
		}
	}
	to(5)
	erase("before")
	to(10)
	sweep(false)
	to(20)
	for _, id := range holds {
		w.ok(w.v.EndHold(t.Context(), id, []byte("test"), w.now))
	}
	to(21)
	sweep(false)
	to(41)
	erase("after")
	for _, c := range copies {
		if got := c.is(w, w.v, w.a); c.erasure == "none" && got != c.atOnce {
			t.Errorf("%s: before the sweep: %s, want %s", c.address(), got, c.atOnce)
		}
	}
	to(42)
	before, size := sweep(true), logSize(w)
	if after := logSize(w); after != size {
		t.Errorf("a dry sweep wrote %d leaves", after-size)
	}
	if did := sweep(false); did.Keys != before.Keys || did.Copies[archive.Over] != before.Copies[archive.Over] || did.Copies[archive.Held] != 9 {
		t.Errorf("the dry sweep said %+v, and the sweep did %+v", before, did)
	}
	if again := sweep(false); again.Keys != 0 || again.Records != 0 {
		t.Errorf("a second sweep: %+v", again)
	}
	check := func(v *vault.Vault, a *archive.Archive, restored bool) {
		t.Helper()
		for _, c := range copies {
			got, want := c.is(w, v, a), c.end
			if restored && want == "erased" {
				want = "shredded"
			} else if restored && want == "destroyed" {
				want = "kept" // until the next sweep: its time was over, nobody had asked
			}
			if got != want {
				t.Errorf("%s (restored %v): %s, want %s", c.address(), restored, got, want)
			}
			names, err := a.CustodianNames(t.Context(), c.address())
			w.ok(err)
			if !restored && c.end == "erased" && len(names) > 0 {
				t.Errorf("%s: his name is still there", c.address())
			}
		}
	}
	check(w.v, w.a, false)
	reconcile(w, w.v, len(copies))
	if _, err := audit.Verify(t.Context(), w.v, "", nil); err != nil {
		t.Error(err)
	}

	_, err = backup.Keep(t.Context(), w.v, keys, begin.Add(20*day)) // the backup's own key lives, as within its 30 days
	w.ok(err)
	at := testvault.Vault{Dir: filepath.Join(t.TempDir(), "vault"), Keys: w.at.Keys}
	_, _, err = backup.Restore(t.Context(), backup.RestoreOptions{File: file, Folder: at.Dir, Keys: keys, Now: w.now})
	w.ok(err)
	v := at.Open(t, vault.Options{Now: func() time.Time { return w.now }})
	a, err := archive.Open(t.Context(), v)
	w.ok(err)
	check(v, a, true)
	// The first sweep of a gateway destroys what came back of the erased, names too; what is over waits for holds to be placed anew.
	s, err := a.SweepDaily(t.Context(), w.now)
	w.ok(err)
	if s.Records != s.Copies[archive.Gone] {
		t.Errorf("the first sweep after a restore: %+v", s)
	}
	erased := 0
	for _, c := range copies {
		if c.end != "erased" {
			continue
		}
		erased++
		if names, err := a.CustodianNames(t.Context(), c.address()); err != nil || len(names) > 0 {
			t.Errorf("%s: his name came back: %v", c.address(), err)
		}
		found := 0
		w.ok(a.Search(t.Context(), archive.Query{Parties: []string{c.address()}}, func(archive.Hit) error { found++; return nil }))
		if found > 0 {
			t.Errorf("%s: found in the index after a restore", c.address())
		}
	}
	if s.Copies[archive.Gone] != erased || erased != 8 {
		t.Errorf("%d of %d erased copies came back and went: %+v", s.Copies[archive.Gone], erased, s)
	}
	if s, err := a.SweepDaily(t.Context(), w.now.Add(archive.AfterRestore)); err != nil || s.Copies[archive.Over] == 0 || s.Records != s.Copies[archive.Over] {
		t.Errorf("two weeks after a restore: %+v, %v", s, err)
	}
	reconcile(w, v, len(copies))
}

func logSize(w *world) int64 {
	w.Helper()
	n, err := w.v.LogSize(w.Context())
	w.ok(err)
	return n
}

// reconcile: what was destroyed keeps counting.
func reconcile(w *world, v *vault.Vault, delivered int) {
	w.Helper()
	r, err := audit.Reconcile(w.Context(), v)
	w.ok(err)
	if !r.OK() || r.Delivered != int64(delivered) {
		w.Errorf("reconciled: %+v", r)
	}
}

// TestErasureIsOneCustodians: what others hold of the same message stays theirs, and new mail of who was erased is kept anew.
func TestErasureIsOneCustodians(t *testing.T) {
	w := newWorld(t)
	w.install()
	m := toElse
	m.Retention = 0
	record, row := w.accept(m, "text") // waits in the queue meanwhile
	if _, err := w.a.Erase(t.Context(), "nobody@corp.example", "p", "r", w.now); !errors.Is(err, archive.ErrNothing) {
		t.Errorf("of somebody unknown: %v", err)
	}
	e, err := w.a.Erase(t.Context(), "ALICE@corp.example", "p", "r", w.now)
	w.ok(err)
	if e.Done.IsZero() || e.Copies != 1 || e.Keys != 1 || e.Address != "" {
		t.Errorf("%+v", e)
	}
	hits := w.search(archive.Query{Custodians: []string{"bob@corp.example"}})
	if len(hits) != 1 || hits[0].Record != record {
		t.Fatalf("bob's: %+v", hits)
	}
	if _, _, err := w.a.Wrap(t.Context(), record, hits[0].Wraps[0].Digest); err != nil {
		t.Errorf("bob's wrap: %v", err)
	}
	if hits := w.search(archive.Query{Parties: []string{"alice@corp.example"}}); len(hits) != 0 {
		t.Error("alice is in the index")
	}
	w.now = w.now.Add(time.Hour)
	second, _ := w.accept(m, "text again")
	if hits := w.search(archive.Query{Custodians: []string{"alice@corp.example"}}); len(hits) != 1 || hits[0].Record != second {
		t.Errorf("her new mail: %+v", hits)
	}
	_, err = w.a.Erase(t.Context(), "bob@corp.example", "p", "r", w.now)
	w.ok(err)
	if _, err := w.v.Record(t.Context(), record); err != nil {
		t.Errorf("it waits in the queue, and cannot be delivered: %v", err)
	}
	w.deliver(row)
	if _, _, err := w.v.SealedBody(t.Context(), record); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("delivered, and held by nobody: %v", err)
	}
}

// TestPersonsAddresses: a hold on an address, and an erasure of it, are about what its person had under earlier ones, too.
func TestPersonsAddresses(t *testing.T) {
	w := newWorld(t)
	w.install()
	m := archive.Message{Author: "maiden@corp.example", Recipients: []string{"x@else.example"}, Custodians: []string{"maiden@corp.example"}}
	_, row := w.accept(m, "before")
	w.deliver(row)
	w.ok(w.a.Rename(t.Context(), "maiden@corp.example", "married@corp.example", "anna", "married", w.now))
	h := vault.LegalHold{ID: vault.NewID(w.now), Basis: "b", Custodians: []string{"married@corp.example"}}
	w.ok(w.v.AddHold(t.Context(), h, w.now))
	e, err := w.a.Erase(t.Context(), "married@corp.example", "p", "r", w.now)
	w.ok(err)
	if e.Held != 1 || e.Copies != 0 || !e.Done.IsZero() {
		t.Errorf("under a hold on the new address: %+v", e)
	}
	if _, err := w.a.Erase(t.Context(), "married@corp.example", "p", "r", w.now); !errors.Is(err, vault.ErrExists) {
		t.Errorf("asked again: %v", err)
	}
	w.ok(w.v.EndHold(t.Context(), h.ID, nil, w.now))
	s, err := w.a.Sweep(t.Context(), w.now, false)
	w.ok(err)
	if s.Erasures != 1 || s.Records != 1 {
		t.Errorf("after the hold: %+v", s)
	}
	for _, address := range []string{"maiden@corp.example", "married@corp.example"} {
		if names, err := w.a.CustodianNames(t.Context(), address); err != nil || len(names) > 0 {
			t.Errorf("%s is still there: %v", address, err)
		}
	}
}

// TestHoldDuringASweep: a hold that is placed while a sweep looks stops it before it destroys.
func TestHoldDuringASweep(t *testing.T) {
	w := newWorld(t)
	w.install()
	m := toElse
	m.Retention = day
	record, row := w.accept(m, "text")
	w.deliver(row)
	hits := w.search(archive.Query{Custodians: []string{"bob@corp.example"}})
	w.now = w.now.Add(2 * day)
	holds, err := w.v.Holds(t.Context())
	w.ok(err)
	w.ok(w.v.AddHold(t.Context(), vault.LegalHold{ID: vault.NewID(w.now), Basis: "b"}, w.now))
	if _, err := w.v.DestroyCopies(t.Context(), hits[0].Wraps[0].Shred, []vault.ID{record}, vault.Token{}, vault.ByRetention, len(holds), w.now); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("destroyed under a hold: %v", err)
	}
	s, err := w.a.Sweep(t.Context(), w.now, false)
	w.ok(err)
	if s.Copies[archive.Held] != 2 || s.Records != 0 {
		t.Errorf("%+v", s)
	}
}

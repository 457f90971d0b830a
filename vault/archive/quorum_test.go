package archive_test

import (
	"bytes"
	"database/sql"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// quorum is a world whose officers can open.
func quorum(t testing.TB) (*world, *testescrow.Officers) {
	t.Helper()
	w := newWorld(t)
	o, err := testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, w.now)
	w.ok(err)
	w.ok(w.a.Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, w.now))
	return w, o
}

// opened has officers open one custodian's copies of what was found, and returns the octets by record.
func (w *world) opened(o *testescrow.Officers, hits []archive.Hit, address string, class uint16, officers ...uint16) (map[vault.ID]string, error) {
	w.Helper()
	ctx := w.Context()
	names, err := w.a.CustodianNames(ctx, address)
	w.ok(err)
	c := testescrow.VaultCase{Vault: w.v, Custodians: names, Classes: []uint16{class}, First: escrow.MonthOf(w.now) - 12, Last: escrow.MonthOf(w.now), Now: w.now}
	owner := map[vault.Digest]vault.ID{}
	for _, h := range hits {
		for _, x := range h.Wraps {
			if slices.ContainsFunc(names, func(n escrow.CustodianName) bool {
				return escrow.CustodianOf(n.Salt, n.Address) == escrow.Custodian(x.Custodian)
			}) {
				c.Entries = append(c.Entries, escrow.Entry{Leaf: uint64(h.Leaf), Wrap: x.Digest})
				owner[x.Digest] = h.Record
			}
		}
	}
	c.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		d := c.Entries[n].Wrap
		det1, all, err := w.a.Wrap(ctx, owner[d], d)
		return all, det1, err
	}
	out := map[vault.ID]string{}
	_, err = o.Open(ctx, c, func(x escrow.Opened) error {
		body, _, err := w.v.SealedBody(ctx, x.Label.Record)
		if err != nil {
			return err
		}
		defer body.Close()
		r, err := vault.NewStreamReader(body, x.Key, vault.PartBody, nil)
		if err != nil {
			return err
		}
		octets, err := io.ReadAll(r)
		out[x.Label.Record] = string(octets)
		sealed, eerr := w.v.SealedEnvelope(ctx, x.Label.Record)
		w.ok(eerr)
		if b, err := vault.OpenOctets(x.Key, vault.PartEnvelope, x.Label.Record[:], sealed); err != nil || !bytes.HasSuffix(b, []byte("envelope")) {
			w.Errorf("envelope %q, %v", b, err)
		}
		return err
	}, officers...)
	return out, err
}

// TestQuorumOpens: what was delivered opens by two officers of three, whole, and by one of them not at all.
func TestQuorumOpens(t *testing.T) {
	w, o := quorum(t)
	large := strings.Repeat("a long line of a message\r\n", 8<<10)
	small, row := w.accept(toElse, "the merger")
	w.deliver(row)
	big, row := w.accept(toElse, large)
	w.deliver(row)
	hits := w.search(archive.Query{Parties: []string{"hidden@third.example"}})
	if len(hits) != 2 || len(hits[0].Wraps) != 2 {
		t.Fatalf("found %+v", hits)
	}
	got, err := w.opened(o, hits, "bob@corp.example", toElse.Class, 1, 3)
	if err != nil || got[small] != "the merger" || got[big] != large {
		t.Errorf("opened %d, %v", len(got), err)
	}
	if got, err := w.opened(o, hits, "alice@corp.example", toElse.Class, 2); err == nil || len(got) > 0 {
		t.Errorf("one officer opens %d, %v", len(got), err)
	}
}

// TestStamped is row 8 of the archive's issue: policy changes, the class gets a shorter life, the custodian another address; what
// came before keeps class, expiry and custodian.
func TestStamped(t *testing.T) {
	w, o := quorum(t)
	m := archive.Message{Author: "alice@corp.example", Recipients: []string{"x@else.example"}, Custodians: []string{"alice@corp.example"}, Class: 1, Retention: 1000 * time.Hour}
	find := func(q archive.Query) []archive.Hit { return w.search(q) }
	before, _ := w.accept(m, "before")
	stamped := find(archive.Query{Custodians: m.Custodians})[0]
	m.Class = 2 // by another policy
	w.now = w.now.Add(time.Second)
	w.accept(m, "another class")
	m.Class, m.Retention = 1, time.Hour // the class is shorter now
	w.now = w.now.Add(time.Second)
	w.accept(m, "shorter")
	w.now = w.now.Add(time.Second)
	w.ok(w.a.Rename(t.Context(), "alice@corp.example", "Alice.Smith@corp.example", "anna", "married", w.now))
	m.Author, m.Custodians = "alice.smith@corp.example", []string{"alice.smith@corp.example"}
	after, _ := w.accept(m, "renamed")

	hits := find(archive.Query{Custodians: m.Custodians})
	if len(hits) != 4 || hits[0].Record != before || hits[3].Record != after {
		t.Fatalf("by her new name: %d", len(hits))
	}
	if h := hits[0]; h.Class != 1 || h.Class != stamped.Class || !h.Expires.Equal(stamped.Expires) || h.Wraps[0] != stamped.Wraps[0] {
		t.Errorf("stamped %+v, is %+v", stamped, h)
	}
	if h := hits[1]; h.Class != 2 || h.Expires.Sub(h.Made) != 1000*time.Hour || h.Wraps[0].Custodian != stamped.Wraps[0].Custodian {
		t.Errorf("by another policy %+v", h)
	}
	if h := hits[2]; h.Class != 1 || h.Expires.Sub(h.Made) != time.Hour {
		t.Errorf("with a shorter class %+v", h)
	}
	if hits[3].Wraps[0].Custodian == stamped.Wraps[0].Custodian {
		t.Error("her new address has the old id")
	}
	if n := len(find(archive.Query{Custodians: []string{"alice@corp.example"}})); n != 3 {
		t.Errorf("by her old name: %d", n)
	}
	names, err := w.a.CustodianNames(t.Context(), "alice.smith@corp.example")
	w.ok(err)
	if len(names) != 2 || names[0].Address != "alice.smith@corp.example" || names[1].Address != "alice@corp.example" {
		t.Errorf("names %+v", names)
	}
	if err := w.a.Rename(t.Context(), "alice.smith@corp.example", "alice@corp.example", "anna", "married", w.now); !errors.Is(err, archive.ErrRename) {
		t.Errorf("back: %v", err)
	}
	if got, err := w.opened(o, hits, "alice.smith@corp.example", 2, 1, 2); err == nil {
		t.Errorf("a case about class 2 opens what was stamped with class 1: %v", got)
	}
	if got, err := w.opened(o, slices.DeleteFunc(hits, func(h archive.Hit) bool { return h.Class != 1 }), "alice.smith@corp.example", 1, 1, 2); err != nil || len(got) != 3 || got[before] != "before" {
		t.Errorf("opened %v, %v", got, err)
	}
}

// TestPlantedKey: who can write the database and has not the host seal cannot have mail sealed to a key of his own.
func TestPlantedKey(t *testing.T) {
	folder := testvault.New(t)
	v := folder.Open(t, vault.Options{})
	a, err := archive.Open(t.Context(), v)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	o, err := testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, time.Now())
	check(err)
	check(a.Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, time.Now()))
	v.Close()
	evil, err := testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, time.Now())
	check(err)
	var said []byte
	for _, s := range evil.Attestations {
		said = append(said, s.Octets()...)
	}
	db, err := sql.Open("sqlite", filepath.Join(folder.Dir, "vault.db"))
	check(err)
	id, old := evil.Key.ID(), o.Key.ID()
	_, err = db.Exec(`UPDATE escrow_keys SET id = ?, record = ? WHERE id = ?`, id[:], evil.Key.Octets(), old[:])
	check(err)
	_, err = db.Exec(`UPDATE escrow_epochs SET key = ?, epoch = ?, statements = ?`, id[:], evil.Epoch.Octets(), said)
	check(err)
	check(db.Close())
	if _, err := archive.Open(t.Context(), folder.Open(t, vault.Options{})); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("with a key that was planted: %v", err)
	}
}

package discovery

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// A found entry is a row of a search's result, as it is kept with the case: 92 octets.
type found struct {
	leaf      uint64
	wrap      vault.Digest
	record    vault.ID
	custodian escrow.Custodian
	class     uint16
	month     escrow.Month
	octets    uint64
	time      int64 // of intake, Unix seconds
}

const foundSize = 8 + 32 + 16 + 16 + 2 + 2 + 8 + 8

func (f found) append(b []byte) []byte {
	b = append(binary.BigEndian.AppendUint64(b, f.leaf), f.wrap[:]...)
	b = append(append(b, f.record[:]...), f.custodian[:]...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, f.class), uint16(f.month))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, f.octets), uint64(f.time))
}

func parseFound(b []byte) found {
	return found{leaf: binary.BigEndian.Uint64(b), wrap: vault.Digest(b[8:]), record: vault.ID(b[40:]), custodian: escrow.Custodian(b[56:72]),
		class: binary.BigEndian.Uint16(b[72:]), month: escrow.Month(binary.BigEndian.Uint16(b[74:])), octets: binary.BigEndian.Uint64(b[76:]), time: int64(binary.BigEndian.Uint64(b[84:]))}
}

func (f found) entry() escrow.Entry { return escrow.Entry{Leaf: f.leaf, Wrap: f.wrap} }

func searchFile(n int) string { return fmt.Sprintf("found-%d", n) }

const (
	selectionPart = "selection"
	recordsPart   = "records"
	requestPart   = "request"
)

func answerPart(index uint16) string { return fmt.Sprintf("answer-%d", index) }

// A look is the payload of the leaf that a search leaves. The terms are in the case's own state; the digest binds them.
type look struct {
	By      string   `json:"by"`
	Command string   `json:"command"`
	Case    vault.ID `json:"case"`
	Search  int      `json:"search"`
	Terms   string   `json:"terms"` // D("terms", salt of the leaf aside, JSON)
}

// maxSearches bounds the searches of one case.
const maxSearches = 1000

// Search looks, over keyed tokens of addresses, dates, sizes and direction alone, for what is within the bounds of a case and these
// terms, and keeps the set with the case. A leaf about it is written before anything is read.
func (d *Desk) Search(ctx context.Context, id vault.ID, t Terms) (*Search, error) {
	open := []vault.CaseState{vault.CaseOpen, vault.CaseSelected}
	var s Search
	var q archive.Query
	var names map[escrow.Custodian]string
	err := d.change(ctx, id, open, func(c *Case) ([]vault.CaseLeaf, error) {
		if len(c.About.Searches) >= maxSearches {
			return nil, refusef("case %v has %d searches: open another one", id, maxSearches)
		}
		s = Search{Number: len(c.About.Searches) + 1, At: d.Now().UTC().Truncate(time.Second), By: d.By, Terms: t}
		c.About.Searches = append(c.About.Searches, s)
		q = c.query(t)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	terms, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	digest := vault.NewDigest("terms", terms)
	payload, err := json.Marshal(look{d.By, "case search", id, s.Number, hex.EncodeToString(digest[:])})
	if err != nil {
		return nil, err
	}
	if err := d.Vault.AttestLook(ctx, payload, d.Now()); err != nil {
		return nil, err
	}
	if names, err = d.names(ctx, q.Custodians); err != nil {
		return nil, err
	}
	if s.Found, err = d.keep(ctx, id, s.Number, q, names); err != nil {
		return nil, err
	}
	s.Done = true
	return &s, d.change(ctx, id, open, func(c *Case) ([]vault.CaseLeaf, error) {
		c.About.Searches[s.Number-1] = s
		return nil, nil
	})
}

// query is what to ask the archive: the terms, within the case's bounds.
func (c *Case) query(t Terms) archive.Query {
	q := archive.Query{Custodians: c.About.Custodians, Classes: c.About.Classes, From: c.About.From, To: c.About.To, Domains: t.Domains,
		MinOctets: t.MinOctets, MaxOctets: t.MaxOctets, Direction: t.Direction}
	for _, p := range t.Parties {
		q.Parties = append(q.Parties, strings.ToLower(p))
	}
	if t.From.After(q.From) {
		q.From = t.From
	}
	if !t.To.IsZero() && (q.To.IsZero() || t.To.Before(q.To)) {
		q.To = t.To
	}
	return q
}

// names are all ids that the addresses ever had.
func (d *Desk) names(ctx context.Context, addresses []string) (map[escrow.Custodian]string, error) {
	names := map[escrow.Custodian]string{}
	for _, a := range addresses {
		list, err := d.Archive.CustodianNames(ctx, a)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			names[escrow.CustodianOf(n.Salt, n.Address)] = a
		}
	}
	return names, nil
}

// keep makes the search and keeps what it finds as it comes.
func (d *Desk) keep(ctx context.Context, id vault.ID, number int, q archive.Query, names map[escrow.Custodian]string) (Counts, error) {
	file, err := d.Vault.CreateCaseFile(ctx, id, searchFile(number))
	if err != nil {
		return Counts{}, err
	}
	w := bufio.NewWriterSize(file, 64<<10)
	c := newTally(names)
	row := make([]byte, 0, foundSize)
	err = d.Archive.Search(ctx, q, func(h archive.Hit) error {
		for _, hw := range h.Wraps {
			if hw.Gone {
				c.Gone++
				continue
			}
			if _, ours := names[escrow.Custodian(hw.Custodian)]; !ours {
				continue
			}
			if c.Entries >= escrow.MaxEntries {
				return refusef("over %d entries: narrow the search", escrow.MaxEntries)
			}
			f := found{uint64(h.Leaf), hw.Digest, h.Record, escrow.Custodian(hw.Custodian), h.Class, escrow.MonthOf(h.Made), uint64(h.Octets), h.Made.Unix()}
			c.add(f)
			if _, err := w.Write(f.append(row)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = file.Close()
	}
	return c.finish(), err
}

// A tally adds up what is said of a set.
type tally struct {
	Counts
	names map[escrow.Custodian]string
	by    map[escrow.Count]int
	last  vault.ID
}

func newTally(names map[escrow.Custodian]string) *tally {
	return &tally{names: names, by: map[escrow.Count]int{}}
}

// add takes an entry; those of a record come one after the other.
func (t *tally) add(f found) {
	t.Entries++
	if f.record != t.last {
		t.Records++
		t.Octets += int64(f.octets)
		t.last = f.record
	}
	t.by[escrow.Count{Custodian: t.names[f.custodian], Class: f.class, Month: f.month.String()}]++
}

func (t *tally) finish() Counts {
	c := t.Counts
	for k, n := range t.by {
		k.Entries = n
		c.By = append(c.By, k)
	}
	slices.SortFunc(c.By, func(a, b escrow.Count) int {
		return compareAll(strings.Compare(a.Custodian, b.Custodian), strings.Compare(a.Month, b.Month), int(a.Class)-int(b.Class))
	})
	return c
}

func compareAll(list ...int) int {
	for _, n := range list {
		if n != 0 {
			return n
		}
	}
	return 0
}

// Select fixes the set of searches (the last one, when none is named) as the manifest that officers are asked for, and writes the
// selection file for the station. Wraps that do not hold are left out and named: one of them would fail the case whole.
func (d *Desk) Select(ctx context.Context, id vault.ID, searches []int) (*Selection, *Selected, error) {
	open := []vault.CaseState{vault.CaseOpen, vault.CaseSelected}
	c, err := d.working(ctx, id, open...)
	if err != nil {
		return nil, nil, err
	}
	set, searches, err := d.union(ctx, c, searches)
	if err != nil {
		return nil, nil, err
	}
	names, err := d.names(ctx, c.About.Custodians)
	if err != nil {
		return nil, nil, err
	}
	key, err := d.findKey(ctx, c.About.Key)
	if err != nil {
		return nil, nil, err
	}
	set, damaged, other, err := d.sound(ctx, key.Key, set)
	if err != nil {
		return nil, nil, err
	}
	if escrow.IsRewrap(c.About.Basis) && len(set) > escrow.MaxRewrapEntries {
		return nil, nil, refusef("%d entries: a case re-wraps at most %d: take fewer months or custodians, and the rest in further cases", len(set), escrow.MaxRewrapEntries)
	}
	if len(set) == 0 && other > 0 {
		return nil, nil, refusef("nothing is selected: all %d entries are sealed to another escrow key: open a case of that one (--escrow-key)", other)
	}
	if len(set) == 0 {
		return nil, nil, refusef("nothing is selected: no wrap of what was found holds")
	}
	sel, err := d.manifest(ctx, c, key, set)
	if err != nil {
		return nil, nil, err
	}
	t := newTally(names)
	for _, f := range set {
		t.add(f)
	}
	digest := sel.Manifest.Digest()
	s := &Selected{At: d.Now().UTC().Truncate(time.Second), Searches: searches, Digest: hex.EncodeToString(digest[:]), Found: t.finish(), Damaged: damaged, OtherKey: other}
	octets, err := sel.Octets()
	if err == nil {
		err = d.put(ctx, id, selectionPart, octets)
	}
	if err == nil {
		var ids []byte
		for _, f := range set {
			ids = append(ids, f.record[:]...)
		}
		err = d.put(ctx, id, recordsPart, ids)
	}
	if err != nil {
		return nil, nil, err
	}
	return sel, s, d.change(ctx, id, open, func(c *Case) ([]vault.CaseLeaf, error) {
		c.About.Selected, c.state = s, vault.CaseSelected
		return nil, nil
	})
}

func (d *Desk) put(ctx context.Context, id vault.ID, name string, octets []byte) error {
	w, err := d.Vault.CreateCaseFile(ctx, id, name)
	if err != nil {
		return err
	}
	if _, err := w.Write(octets); err != nil {
		return err
	}
	return w.Close()
}

func (d *Desk) get(ctx context.Context, id vault.ID, name string) ([]byte, error) {
	r, err := d.Vault.OpenCaseFile(ctx, id, name)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// union reads what searches found, in the manifest's order, each entry once.
func (d *Desk) union(ctx context.Context, c *Case, searches []int) ([]found, []int, error) {
	if len(searches) == 0 && len(c.About.Searches) > 0 {
		searches = []int{len(c.About.Searches)}
	}
	if len(searches) == 0 {
		return nil, nil, refusef("nothing was searched in case %v yet", c.ID)
	}
	var set []found
	for _, n := range searches {
		if n < 1 || n > len(c.About.Searches) || !c.About.Searches[n-1].Done {
			return nil, nil, fmt.Errorf("discovery: case %v has no search %d that was ended", c.ID, n)
		}
		b, err := d.get(ctx, c.ID, searchFile(n))
		if err != nil {
			return nil, nil, err
		}
		for ; len(b) >= foundSize; b = b[foundSize:] {
			set = append(set, parseFound(b))
		}
	}
	slices.SortFunc(set, func(a, b found) int {
		if a.leaf != b.leaf {
			if a.leaf < b.leaf {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.wrap[:], b.wrap[:])
	})
	set = slices.CompactFunc(set, func(a, b found) bool { return a.wrap == b.wrap })
	if len(set) > escrow.MaxEntries {
		return nil, nil, refusef("%d entries: a case has at most %d", len(set), escrow.MaxEntries)
	}
	return set, searches, nil
}

// soundBatch is how many wraps are checked together.
const soundBatch = 1000

// sound keeps the entries whose wraps hold: label, proof, and the leaf that attests body and wraps. Other are those of another key.
func (d *Desk) sound(ctx context.Context, key *escrow.Key, set []found) (good []found, damaged []string, other int, err error) {
	for n := 0; n < len(set); n += soundBatch {
		batch := set[n:min(n+soundBatch, len(set))]
		var wraps []*escrow.Wrap
		var places []found
		for _, f := range batch {
			w, why, err := d.wrap(ctx, f)
			if err != nil {
				return nil, nil, 0, err
			}
			if why != "" {
				damaged = append(damaged, fmt.Sprintf("%v: %s", f.record, why))
				continue
			}
			if w.Label.Key != key.ID() {
				other++
				continue
			}
			wraps, places = append(wraps, w), append(places, f)
		}
		bad := escrow.CheckWraps(key, wraps)
		for i, f := range places {
			if _, is := slices.BinarySearch(bad, i); is {
				damaged = append(damaged, fmt.Sprintf("%v: its wrap was changed", f.record))
				continue
			}
			good = append(good, f)
		}
	}
	return good, damaged, other, nil
}

// wrap reads an entry's wrap and compares it with its row and its leaf; why says what is wrong with it.
func (d *Desk) wrap(ctx context.Context, f found) (w *escrow.Wrap, why string, err error) {
	octets, all, err := d.Archive.Wrap(ctx, f.record, f.wrap)
	switch {
	case errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDestroyed):
		return nil, "it is gone", nil
	case errors.Is(err, vault.ErrCorrupt):
		return nil, "its wrap is damaged", nil
	case err != nil:
		return nil, "", err
	}
	if w, err = escrow.ParseWrap(octets); err != nil || w.Digest() != f.wrap {
		return nil, "its wrap is damaged", nil
	}
	l := w.Label
	if l.Record != f.record || l.Custodian != f.custodian || l.Class != f.class || l.Month != f.month || l.Archive != d.Vault.Archive() {
		return nil, "its wrap says something else than its row", nil
	}
	leaves, err := d.Vault.LogLeaves(ctx, int64(f.leaf), 1)
	if err != nil {
		return nil, "", err
	}
	if len(leaves) != 1 {
		return nil, "its leaf is gone", nil
	}
	leaf, err := vault.ParseLeaf(leaves[0])
	if err != nil || leaf.Subject != f.record || leaf.Public != vault.IntakePublic(l.Body, all) {
		return nil, "its leaf attests something else", nil
	}
	return w, "", nil
}

// manifest makes the manifest of a set, which stands on the log as it is.
func (d *Desk) manifest(ctx context.Context, c *Case, key *archive.Key, set []found) (*Selection, error) {
	request, err := ParseCaseRequest([]byte(c.About.Request))
	if err != nil {
		return nil, err
	}
	signed, err := d.Log.Checkpoint(ctx, d.Now())
	if err != nil {
		return nil, err
	}
	tree, err := audit.ParseCheckpoint(signed, d.LogKey)
	if err != nil {
		return nil, err
	}
	m := escrow.Manifest{Suite: key.Key.Suite(), Purpose: key.Key.Purpose, Case: c.ID, Archive: d.Vault.Archive(), Key: key.Key.ID(), Epoch: key.Epoch().Digest(),
		Opened: d.Now().Truncate(time.Second), Expires: c.Expires.Truncate(time.Second), First: set[0].month, Last: set[0].month,
		Requester: request.Requester, RequesterKey: request.Key, Basis: c.About.Basis, CaseKey: request.CaseKey,
		LogOrigin: tree.Origin, LogSize: uint64(tree.Size), LogRoot: tree.Root}
	custodians, classes := map[escrow.Custodian]bool{}, map[uint16]bool{}
	for _, f := range set {
		m.First, m.Last = min(m.First, f.month), max(m.Last, f.month)
		m.Entries = append(m.Entries, f.entry())
		if !custodians[f.custodian] {
			custodians[f.custodian] = true
			m.Custodians = append(m.Custodians, f.custodian)
		}
		if !classes[f.class] {
			classes[f.class] = true
			m.Classes = append(m.Classes, f.class)
		}
	}
	sel := &Selection{}
	if sel.Manifest, err = escrow.NewManifest(m); err != nil {
		return nil, err
	}
	byID := map[escrow.Custodian]escrow.CustodianName{}
	for _, a := range c.About.Custodians {
		list, err := d.Archive.CustodianNames(ctx, a)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			byID[escrow.CustodianOf(n.Salt, n.Address)] = n
		}
	}
	for _, id := range sel.Manifest.Custodians {
		sel.Custodians = append(sel.Custodians, byID[id])
	}
	return sel, nil
}

package station

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// A Case is what was opened: items with their marks, for search, exports, evidence and the mailbox. It is a discovery.Source, and safe
// for concurrent use. Close it.
type Case struct {
	station *Station
	file    *discovery.CaseFile
	journal *journal
	record  *discovery.CaseRecord
	faults  []Fault
	records map[vault.ID]*opened
	byItem  [][]*opened // records of item n+1

	mu    sync.Mutex
	items []discovery.Item
	marks map[vault.ID][]string // by the first record of an item
}

// An opened record: where its frames are.
type opened struct {
	id         vault.ID
	leaf       uint64
	frames     []place
	custodians []string
	message    message
}

type place struct {
	at int64
	n  int
}

var _ discovery.Source = (*Case)(nil)

// Case reads what was opened in the station so far. ErrExpired when the time of the case is over.
func (s *Station) Case(k *Keys, now time.Time) (*Case, error) {
	if s.selection == nil {
		return nil, ErrNotSigned
	}
	if !now.Before(s.selection.Manifest.Expires) {
		return nil, ErrExpired
	}
	return s.openedCase(k)
}

func (s *Station) openedCase(k *Keys) (*Case, error) {
	f, err := discovery.OpenCaseFile(s.path(caseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotOpened
	} else if err != nil {
		return nil, err
	}
	c := &Case{station: s, file: f, records: map[vault.ID]*opened{}}
	if err := c.load(k); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Case) load(k *Keys) error {
	b, err := c.file.Bundle()
	if err != nil {
		return err
	}
	if b.Manifest.Digest() != c.station.selection.Manifest.Digest() {
		return errors.New("station: the case file is of another case than was signed here")
	}
	c.record = &discovery.CaseRecord{Head: b.Bundle, Key: c.file.Key, Epochs: c.file.Epochs, Attestations: c.file.Attestations,
		Leaves: c.file.Leaves, LogKey: c.file.LogKey}
	for _, a := range c.file.Answers() {
		st, err := statementOf(a)
		if err != nil {
			return err
		}
		c.record.Answers = append(c.record.Answers, st)
	}
	var order []*opened
	entries := c.station.selection.Manifest.Entries
	store, err := vault.SecretOf(k.store.Octets())
	if err != nil {
		return err
	}
	if c.journal, err = openJournal(c.station.path(journalFile), store, false, func(at int64, f *frame) error {
		if f.Fault != "" {
			c.faults = append(c.faults, Fault{f.Entry, entries[f.Entry].Leaf, f.Record, f.Fault})
			return nil
		}
		r := c.records[f.Record]
		if r == nil {
			if f.Message == nil {
				return fmt.Errorf("station: %w: the journal's frame %d", vault.ErrCorrupt, f.Entry)
			}
			r = &opened{id: f.Record, leaf: entries[f.Entry].Leaf, message: *f.Message}
			r.message.Envelope = nil // read again for who asks
			c.records[f.Record] = r
			order = append(order, r)
		}
		r.frames = append(r.frames, place{at, f.Entry})
		r.custodians = append(r.custodians, f.Custodian)
		return nil
	}); err != nil {
		return err
	}
	if err := c.loadMarks(); err != nil {
		return err
	}
	c.group(order)
	return nil
}

func statementOf(a escrow.Answer) (*escrow.Statement, error) {
	f, err := a.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := escrow.ReadAnswer(f)
	if err != nil {
		return nil, err
	}
	return r.Statement, nil
}

// group makes items of records: those whose octets have one digest are one item, with every envelope.
func (c *Case) group(order []*opened) {
	number := map[vault.Digest]int{}
	for _, r := range order {
		m := r.message
		n, ok := number[m.Content]
		if !ok {
			n = len(c.items)
			number[m.Content] = n
			c.byItem = append(c.byItem, nil)
			class := uint16(0)
			if len(m.Envelopes) > 0 {
				class = m.Envelopes[0].Class
			}
			c.items = append(c.items, discovery.Item{Number: n + 1, Record: r.id, Leaf: r.leaf, Direction: m.Direction, Class: class, Octets: m.Octets, Content: m.Content})
		}
		i := &c.items[n]
		i.Envelopes = append(i.Envelopes, m.Envelopes...)
		i.Custodians = append(i.Custodians, r.custodians...)
		c.byItem[n] = append(c.byItem[n], r)
	}
	for n := range c.items {
		i := &c.items[n]
		slices.Sort(i.Custodians)
		i.Custodians = slices.Compact(i.Custodians)
		i.Marks = c.marks[i.Record]
	}
}

// Close closes the case; the station's keys stay the caller's.
func (c *Case) Close() error {
	err := c.file.Close()
	if c.journal != nil {
		c.journal.key.Destroy()
		err = errors.Join(err, c.journal.close())
	}
	return err
}

// Items are all, by number. Marks that are changed later are not in what was returned.
func (c *Case) Items() []discovery.Item {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items
}

// Faults are the entries that did not open.
func (c *Case) Faults() []Fault { return c.faults }

// Whole tells whether every entry of the case was tried: else gateway case station open has more to do.
func (c *Case) Whole() bool { return c.journal.n == len(c.station.selection.Manifest.Entries) }

// Case is what proves how the case came to be open.
func (c *Case) Case() *discovery.CaseRecord { return c.record }

// Expires is when the case ends, whatever was done with it.
func (c *Case) Expires() time.Time { return c.station.selection.Manifest.Expires }

func (c *Case) item(number int) ([]*opened, error) {
	if number < 1 || number > len(c.byItem) {
		return nil, fmt.Errorf("station: there is no item %d: there are %d", number, len(c.byItem))
	}
	return c.byItem[number-1], nil
}

// key reads a record's key out of the journal; the caller destroys it.
func (c *Case) key(r *opened) (vault.Secret, error) {
	f, _, err := c.journal.read(r.frames[0].at, r.frames[0].n, c.journal.size)
	if err != nil {
		return vault.Secret{}, err
	}
	defer clear(f.Key)
	return vault.SecretOf(f.Key)
}

// A sealedPart opens a sealed part as it is read, and clears its key at Close.
type sealedPart struct {
	*vault.StreamReader
	key vault.Secret
}

func (p sealedPart) Close() error {
	p.key.Destroy()
	return nil
}

func (c *Case) open(r *opened, sealed io.Reader, part vault.Part, context []byte) (io.ReadCloser, error) {
	key, err := c.key(r)
	if err != nil {
		return nil, err
	}
	s, err := vault.NewStreamReader(sealed, key, part, context)
	if err != nil {
		key.Destroy()
		return nil, fmt.Errorf("station: record %v: %w", r.id, err)
	}
	return sealedPart{s, key}, nil
}

// Open gives an item's exact octets.
func (c *Case) Open(_ context.Context, number int) (io.ReadCloser, error) {
	list, err := c.item(number)
	if err != nil {
		return nil, err
	}
	r, err := c.file.Record(list[0].id)
	if err != nil {
		return nil, err
	}
	return c.open(list[0], r.Body(), vault.PartBody, nil)
}

// Exhibits lists those of all records of an item.
func (c *Case) Exhibits(_ context.Context, number int) ([]discovery.Exhibit, error) {
	list, err := c.item(number)
	if err != nil {
		return nil, err
	}
	var all []discovery.Exhibit
	for _, o := range list {
		r, err := c.file.Record(o.id)
		if err != nil {
			return nil, err
		}
		for i, x := range r.Exhibits {
			h := sha512.New512_256()
			if _, err := io.Copy(h, r.Exhibit(i)); err != nil {
				return nil, err
			}
			all = append(all, discovery.Exhibit{Record: o.id, N: x.N, Kind: x.Kind, Made: x.Made, Digest: vault.Digest(h.Sum(nil)), Leaf: x.Leaf})
		}
	}
	return all, nil
}

// OpenExhibit gives an exhibit's octets.
func (c *Case) OpenExhibit(_ context.Context, x discovery.Exhibit) (io.ReadCloser, error) {
	o := c.records[x.Record]
	if o == nil {
		return nil, fmt.Errorf("station: record %v was not opened", x.Record)
	}
	r, err := c.file.Record(x.Record)
	if err != nil {
		return nil, err
	}
	for i, e := range r.Exhibits {
		if e.N == x.N {
			return c.open(o, r.Exhibit(i), vault.PartExhibit, vault.ExhibitContext(x.Record, x.N))
		}
	}
	return nil, fmt.Errorf("station: record %v has no exhibit %d", x.Record, x.N)
}

// Intakes is what the log says of each record of an item.
func (c *Case) Intakes(_ context.Context, number int) ([]discovery.Intake, error) {
	list, err := c.item(number)
	if err != nil {
		return nil, err
	}
	var all []discovery.Intake
	for _, o := range list {
		f, _, err := c.journal.read(o.frames[0].at, o.frames[0].n, c.journal.size)
		if err != nil {
			return nil, err
		}
		in := discovery.Intake{Record: o.id, Leaf: discovery.ProvedLeaf{Index: o.leaf, Octets: f.Leaf, Proof: f.Proof}, Body: f.Message.Body, Wraps: f.Wraps,
			Named: [][]byte{f.Wrap}, Salt: f.Message.Salt, Envelope: f.Message.Envelope}
		key, err := vault.SecretOf(f.Key)
		clear(f.Key)
		if err == nil {
			in.Events, err = c.events(o, key)
			key.Destroy()
		}
		for _, p := range o.frames[1:] {
			if err != nil {
				break
			}
			if f, _, err = c.journal.read(p.at, p.n, c.journal.size); err == nil {
				clear(f.Key)
				in.Named = append(in.Named, f.Wrap)
			}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

func (c *Case) events(o *opened, key vault.Secret) ([]discovery.Event, error) {
	r, err := c.file.Record(o.id)
	if err != nil {
		return nil, err
	}
	var list []discovery.Event
	for _, e := range r.Events {
		l, err := vault.ParseLeaf(e.Leaf.Octets)
		if err != nil {
			return nil, err
		}
		b, err := vault.OpenOctets(key, vault.PartOpening, append(l.Subject[:], byte(l.Type)), e.Opening)
		if err != nil {
			return nil, fmt.Errorf("station: record %v: leaf %d: %w", o.id, e.Leaf.Index, err)
		}
		op := vault.Opening{Payload: b[min(len(b), 32):]}
		copy(op.Salt[:], b)
		if len(b) < 32 || op.Commit(l.Type) != l.Commitment {
			return nil, fmt.Errorf("station: record %v: leaf %d: %w: it says something else", o.id, e.Leaf.Index, vault.ErrCorrupt)
		}
		list = append(list, discovery.Event{Leaf: e.Leaf, Salt: op.Salt, Payload: op.Payload})
	}
	return list, nil
}

var marksContext = vault.Label("marks")

func (c *Case) loadMarks() error {
	c.marks = map[vault.ID][]string{}
	sealed, err := safefile.Read(c.station.path(marksFile), 1<<30)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	b, err := vault.OpenOctets(c.journal.key, vault.PartStation, marksContext, sealed)
	if err != nil {
		return fmt.Errorf("station: %s: %w", marksFile, err)
	}
	return json.Unmarshal(b, &c.marks)
}

// Refresh reads the marks again, which another process of the station may have changed.
func (c *Case) Refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.loadMarks(); err != nil {
		return err
	}
	c.items = slices.Clone(c.items)
	for n := range c.items {
		c.items[n].Marks = c.marks[c.items[n].Record]
	}
	return nil
}

// maxMark bounds a mark, in octets.
const maxMark = 64

// Mark gives items a mark, or takes it from them; it is durable on return.
func (c *Case) Mark(mark string, numbers []int, remove bool) error {
	if mark == "" || len(mark) > maxMark {
		return fmt.Errorf("station: a mark has 1 to %d octets", maxMark)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	items := slices.Clone(c.items)
	for _, n := range numbers {
		if _, err := c.item(n); err != nil {
			return err
		}
		i := &items[n-1]
		i.Marks = slices.DeleteFunc(slices.Clone(i.Marks), func(m string) bool { return m == mark })
		if !remove {
			i.Marks = append(i.Marks, mark)
			slices.Sort(i.Marks)
		}
	}
	marks := map[vault.ID][]string{}
	for _, i := range items {
		if len(i.Marks) > 0 {
			marks[i.Record] = i.Marks
		}
	}
	b, err := json.Marshal(marks)
	if err != nil {
		return err
	}
	if err := safefile.Write(c.station.path(marksFile), vault.SealOctets(c.journal.key, vault.PartStation, marksContext, b)); err != nil {
		return err
	}
	c.items, c.marks = items, marks
	return nil
}

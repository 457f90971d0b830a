package station

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// A Fault is an entry of the case that does not open, and why.
type Fault struct {
	Entry  int      `json:"entry"`
	Leaf   uint64   `json:"leaf"`
	Record vault.ID `json:"record"`
	Reason string   `json:"reason"`
}

// A Report is what a station has to say of an opening.
type Report struct {
	Entries int            `json:"entries"`
	Before  int            `json:"opened_before"` // by runs before this one
	Opened  int            `json:"opened"`
	Faults  []Fault        `json:"unopenable"`
	Refused []escrow.Blame `json:"-"` // officers whose answers are not used
}

// Envelopes reads a stored envelope of a record: bridge and journal have their own forms.
type Envelopes func(direction vault.Kind, stored []byte) ([]discovery.Envelope, error)

// OpenCase opens a case file: it checks the case, what the log says of it and the officers' answers, combines their partials, opens
// every message, compares it with the log, and keeps its key sealed. It goes on where a run before it was ended. Progress is called
// with how many entries of how many are done. Memory: a batch of entries. The folder keeps the case file.
func (s *Station) OpenCase(ctx context.Context, k *Keys, path string, envelopes Envelopes, now time.Time, progress func(done, total int)) (*Report, error) {
	if s.selection == nil {
		return nil, ErrNotSigned
	}
	if s.selection.Manifest.Rewraps() {
		return nil, ErrRewrap
	}
	o, err := s.begin(k, path, now)
	if err != nil {
		return nil, err
	}
	defer o.file.Close()
	o.envelopes, o.progress = envelopes, progress
	if o.journal, err = openJournal(s.path(journalFile), k.store, true, o.recall); err != nil {
		return nil, err
	}
	defer o.journal.close()
	o.report.Before = o.journal.n
	r, err := escrow.Station{Key: o.file.Key, Epoch: o.epoch, Manifest: o.manifest, CaseKey: k.caseKey, From: o.journal.n, Faulty: o.faulty}.Open(ctx, o.file.Answers(), o.wrap, o.visit)
	if r != nil {
		o.report.Refused = r.Refused
	}
	if serr := o.journal.sync(); err == nil {
		err = serr
	}
	return o.report, err
}

// begin takes a case file, and checks everything that is about the whole case. The caller closes the file.
func (s *Station) begin(k *Keys, path string, now time.Time) (*opening, error) {
	if s.selection == nil {
		return nil, ErrNotSigned
	}
	if !now.Before(s.selection.Manifest.Expires) {
		return nil, ErrExpired
	}
	if err := s.takeFile(path); err != nil {
		return nil, err
	}
	c, err := discovery.OpenCaseFile(s.path(caseFile))
	if err != nil {
		return nil, err
	}
	o := &opening{station: s, file: c, manifest: s.selection.Manifest, seen: map[vault.ID]int64{}, keys: k,
		report: &Report{Entries: len(s.selection.Manifest.Entries)}, pending: map[int]*escrow.BundleEntry{}}
	if err := o.check(now); err != nil {
		c.Close()
		return nil, err
	}
	return o, nil
}

// takeFile brings the case file into the folder, by a link where that can be done. Without a path it is there already.
func (s *Station) takeFile(path string) error {
	to := s.path(caseFile)
	if path == "" {
		if _, err := os.Stat(to); err != nil {
			return ErrNotOpened
		}
		return nil
	}
	from, err := os.Stat(path)
	if err != nil {
		return err
	}
	if there, err := os.Stat(to); err == nil && (os.SameFile(from, there) || from.Size() == there.Size() && from.ModTime().Equal(there.ModTime())) {
		return nil
	}
	temp := to + ".new"
	os.Remove(temp)
	if os.Link(path, temp) != nil {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := safefile.CreateFrom(temp, f); err != nil {
			return err
		}
		if err := os.Chtimes(temp, time.Time{}, from.ModTime()); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, to); err != nil {
		return err
	}
	return safefile.SyncDir(s.dir)
}

// An opening is the work of OpenCase.
type opening struct {
	station   *Station
	keys      *Keys
	file      *discovery.CaseFile
	manifest  *escrow.Manifest
	epoch     *escrow.Epoch
	names     map[escrow.Custodian]string
	at        escrow.Checkpoint
	bundle    *escrow.BundleReader
	next      int                         // entry of the bundle
	pending   map[int]*escrow.BundleEntry // read, not visited yet
	journal   *journal
	seen      map[vault.ID]int64 // records that were opened: where their first frame is
	frames    map[int64]int      // which frame is there
	envelopes Envelopes
	progress  func(done, total int)
	report    *Report
}

// check checks everything that is about the whole case.
func (o *opening) check(now time.Time) error {
	c, m := o.file, o.manifest
	b, err := c.Bundle()
	if err != nil {
		return err
	}
	if b.Manifest.Digest() != m.Digest() {
		return errors.New("station: the case file is of another case than was signed here")
	}
	if c.LogKey != o.station.info.Log {
		return errors.New("station: the case file is of another log than this station was told to believe")
	}
	if err := escrow.CheckChain(c.Key, c.Epochs); err != nil {
		return err
	}
	o.epoch = c.Epochs[len(c.Epochs)-1]
	if err := escrow.Attested(o.epoch, c.Attestations); err != nil {
		return err
	}
	for _, f := range o.epoch.Officers {
		if f.Person == m.Requester || f.Key == m.RequesterKey {
			return ErrOfficer
		}
	}
	r := escrow.Reviewer{Key: c.Key, Epoch: o.epoch, Trust: o.station.trust(), Now: func() time.Time { return now }}
	if o.at, o.names, err = r.CheckHead(&b.Bundle); err != nil {
		return err
	}
	o.bundle = b
	return o.checkAnswers()
}

// checkAnswers checks that the log attests every answer and that its partials were relayed: a case is not opened outside the log.
func (o *opening) checkAnswers() error {
	attested := map[vault.Digest]bool{}
	for _, p := range o.file.Leaves {
		l, err := vault.ParseLeaf(p.Octets)
		if err != nil || l.Subject != o.manifest.Case || l.Archive != o.manifest.Archive || p.Index >= uint64(o.at.Size) ||
			tlog.CheckRecord(p.Proof, o.at.Size, o.at.Root, int64(p.Index), tlog.RecordHash(p.Octets)) != nil {
			return fmt.Errorf("station: leaf %d of the case file is not in the log, or not about this case", p.Index)
		}
		if l.Type == vault.LeafAnswer || l.Type == vault.LeafPartials {
			attested[l.Public] = true
		}
	}
	for _, a := range o.file.Answers() {
		f, err := a.Open()
		if err != nil {
			return err
		}
		r, err := escrow.ReadAnswer(f)
		f.Close()
		if err != nil {
			return err
		}
		if st := r.Statement; !attested[st.LeafDigest()] || st.Kind == escrow.Approval && !attested[st.Extra] {
			return fmt.Errorf("station: the log does not attest the answer of officer %d: the gateway must relay it first (gateway case approve)", st.Index)
		}
	}
	return nil
}

// recall takes up what a run before this one did.
func (o *opening) recall(at int64, f *frame) error {
	if f.Fault != "" {
		o.report.Faults = append(o.report.Faults, Fault{f.Entry, o.manifest.Entries[f.Entry].Leaf, f.Record, f.Fault})
		return nil
	}
	o.report.Opened++
	o.remember(at, f)
	return nil
}

func (o *opening) remember(at int64, f *frame) {
	if o.frames == nil {
		o.frames = map[int64]int{}
	}
	if _, ok := o.seen[f.Record]; !ok {
		o.seen[f.Record], o.frames[at] = at, f.Entry
	}
}

// wrap reads the bundle up to an entry, and checks that the log attests it.
func (o *opening) wrap(n int) ([]byte, error) {
	var e *escrow.BundleEntry
	for o.next <= n {
		var err error
		if e, err = o.bundle.Next(); err != nil {
			return nil, err
		}
		o.next++
	}
	if e == nil {
		return nil, errors.New("station: the entry was read before")
	}
	w, err := escrow.ParseWrap(e.Wrap)
	if err != nil {
		return nil, err
	}
	if err := e.CheckLogged(o.manifest.Entries[n], w, o.at); err != nil {
		return nil, err
	}
	o.pending[n] = e
	return e.Wrap, nil
}

// faulty keeps that the archive gave an entry wrongly.
func (o *opening) faulty(b escrow.Blame) error { return o.fault(b.Entry, b.Record, b.Err) }

func (o *opening) fault(entry int, record vault.ID, why error) error {
	delete(o.pending, entry)
	f := &frame{Entry: entry, Record: record, Fault: why.Error()}
	if _, err := o.journal.add(f); err != nil {
		return err
	}
	o.report.Faults = append(o.report.Faults, Fault{entry, o.manifest.Entries[entry].Leaf, record, f.Fault})
	o.progress(o.journal.n, o.report.Entries)
	return nil
}

// visit opens the message of a key that came out, once a record, and keeps it.
func (o *opening) visit(k escrow.Opened) error {
	e := o.pending[k.Entry]
	delete(o.pending, k.Entry)
	key := k.Key.Octets()
	defer clear(key)
	f := &frame{Entry: k.Entry, Record: k.Label.Record, Custodian: o.names[k.Label.Custodian], Class: k.Label.Class, Key: key,
		Leaf: e.Leaf, Proof: e.Proof, Wraps: e.Wraps, Wrap: e.Wrap}
	var err error
	if first, ok := o.seen[f.Record]; ok {
		err = o.sameKey(first, k.Key)
	} else {
		f.Message, err = o.open(k, e)
	}
	if err != nil && !blames(err) {
		return err
	}
	if err != nil {
		return o.fault(k.Entry, f.Record, err)
	}
	at, err := o.journal.add(f)
	if err != nil {
		return err
	}
	o.remember(at, f)
	o.report.Opened++
	o.progress(o.journal.n, o.report.Entries)
	return nil
}

// holds says whether the log has a leaf of the case file.
func (o *opening) holds(p discovery.ProvedLeaf) bool { return o.at.Has(p.Index, p.Octets, p.Proof) }

// errContent is a record whose parts are not what the log attests.
var errContent = errors.New("the message is not what the log attests")

// blames tells a fault of the archive from one of this machine.
func blames(err error) bool {
	return errors.Is(err, errContent) || errors.Is(err, vault.ErrCorrupt) || errors.Is(err, vault.ErrWrongKey) || errors.Is(err, vault.ErrTruncated)
}

// sameKey compares the key of a record's second wrap with that of the first.
func (o *opening) sameKey(first int64, key vault.Secret) error {
	f, _, err := o.journal.read(first, o.frames[first], o.journal.size)
	if err != nil {
		return err
	}
	defer clear(f.Key)
	k, err := vault.SecretOf(f.Key)
	if err != nil {
		return err
	}
	defer k.Destroy()
	if !k.Equal(key) {
		return fmt.Errorf("%w: its wraps hold different keys", errContent)
	}
	return nil
}

// open opens body and envelope of a record, and compares them with its leaf.
func (o *opening) open(k escrow.Opened, e *escrow.BundleEntry) (*message, error) {
	r, err := o.file.Record(k.Label.Record)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errContent, err)
	}
	m := &message{Direction: r.Direction, Body: k.Label.Body}
	sealed, octets := sha512.New512_256(), vault.NewDigester("octets")
	body, err := vault.NewStreamReader(io.TeeReader(r.Body(), sealed), k.Key, vault.PartBody, nil)
	if err != nil {
		return nil, err
	}
	if m.Octets, err = io.Copy(octets, body); err != nil {
		return nil, err
	}
	if vault.Digest(sealed.Sum(nil)) != k.Label.Body {
		return nil, fmt.Errorf("%w: its sealed body is another one", errContent)
	}
	m.Content = vault.Digest(octets.Sum(nil))
	b, err := vault.OpenOctets(k.Key, vault.PartEnvelope, k.Label.Record[:], r.Envelope)
	if err != nil {
		return nil, err
	}
	if len(b) < len(m.Salt) {
		return nil, fmt.Errorf("%w: its envelope is too short", errContent)
	}
	m.Salt, m.Envelope = [32]byte(b), b[len(m.Salt):]
	l, err := r.IntakeLeaf(e.Leaf, o.holds)
	if err != nil {
		return nil, err
	}
	env := vault.NewDigest("envelope", m.Envelope)
	if (vault.Opening{Salt: m.Salt, Payload: slices.Concat(m.Content[:], env[:])}).Commit(vault.LeafIntake) != l.Commitment {
		return nil, fmt.Errorf("%w: octets or envelope are other ones", errContent)
	}
	if m.Envelopes, err = o.envelopes(r.Direction, m.Envelope); err != nil {
		return nil, fmt.Errorf("%w: its envelope cannot be read: %w", errContent, err)
	}
	for i := range m.Envelopes {
		x := &m.Envelopes[i]
		x.Record, x.Leaf, x.Direction, x.Class = k.Label.Record, o.manifest.Entries[k.Entry].Leaf, r.Direction, k.Label.Class
	}
	return m, nil
}

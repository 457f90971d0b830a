package escrow

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A Station opens the wraps of one case, where the case's private key is.
type Station struct {
	Key      *Key
	Epoch    *Epoch
	Manifest *Manifest
	CaseKey  CaseKey

	From   int               // entries before it are passed over: a run before this one had them
	Faulty func(Blame) error // is told of each entry that the archive gave wrongly, in one order with the visits; may be nil
}

// A Blame says who is at fault, with what: an officer, or for an entry whoever keeps the archive.
type Blame struct {
	Officer uint16 // 0: no officer
	Person  string
	Entry   int // -1: no entry
	Record  vault.ID
	Err     error
}

func (b Blame) String() string {
	if b.Officer != 0 {
		return fmt.Sprintf("officer %d (%s): %v", b.Officer, b.Person, b.Err)
	}
	return fmt.Sprintf("entry %d: %v", b.Entry, b.Err)
}

// An Opened is one key that came out. The station opens the body with it, compares digests and octets with the log, and
// returns from the visit; Key is destroyed then.
type Opened struct {
	Entry int
	Label Label
	Key   vault.Secret
}

// An OpenReport is what the station has to say.
type OpenReport struct {
	Opened     []int   // entries, ascending
	Unopenable []Blame // entries that the archive gave wrongly
	Refused    []Blame // officers whose answers are not used
}

// An Answer is an officer's answer file, to be read more than once.
type Answer interface{ Open() (io.ReadCloser, error) }

// Open checks the answers, takes the partials of the lowest officers whose answers hold, and visits every key that comes out.
// Wrap gives the DET1 octets of an entry; an error of visit ends the work. When fewer than a quorum of answers hold it is an
// error of class ErrQuorum beside a report that says who was refused. Memory: a batch for each officer.
func (s Station) Open(ctx context.Context, answers []Answer, wrap func(entry int) ([]byte, error), visit func(Opened) error) (*OpenReport, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	r := &opening{Station: s, ctx: ctx, work: work{s.Key, s.Epoch, s.Manifest.digest}, report: &OpenReport{}}
	defer r.close()
	for _, a := range answers {
		if err := r.accept(a); err != nil {
			return r.report, err
		}
	}
	slices.SortFunc(r.officers, func(a, b *answering) int { return int(a.index) - int(b.index) })
	for n := s.From; n < len(s.Manifest.Entries); n += batchSize {
		if err := ctx.Err(); err != nil {
			return r.report, err
		}
		if err := r.batch(n, min(batchSize, len(s.Manifest.Entries)-n), wrap, visit); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

func (s Station) check() error {
	m := s.Manifest
	switch {
	case m.Key != s.Key.id || m.Suite != s.Key.suite.id || s.Epoch.Key != s.Key.id || m.Epoch != s.Epoch.digest:
		return refuse(ErrManifest, "station", "case, key and epoch do not belong together")
	case string(s.CaseKey.Public()) != string(m.CaseKey):
		return refuse(ErrManifest, "station", "the case key is another case's")
	}
	return nil
}

// An opening is the work of one case.
type opening struct {
	Station
	ctx      context.Context
	work     work
	officers []*answering // whose answers still hold
	report   *OpenReport
}

// An answering is an officer's answer as it is read.
type answering struct {
	index  uint16
	file   io.ReadCloser
	reader *AnswerReader
	ready  []*partial // read, not used yet
	at     int        // the entry of the first of them
}

func (r *opening) close() {
	for _, a := range r.officers {
		a.file.Close()
	}
}

// accept checks an answer whole and opens it anew. A refusal to take part is no fault; a wrong answer is blamed on its officer, as
// far as its signature says that it is his.
func (r *opening) accept(a Answer) error {
	f, err := a.Open()
	if err != nil {
		return err
	}
	st, err := CheckAnswer(r.Manifest, r.Epoch, f)
	if cerr := f.Close(); err == nil && cerr != nil {
		return cerr
	}
	if err != nil {
		r.refuse(indexOf(st), err)
		return nil
	}
	if st.Kind == Decline {
		return nil
	}
	if slices.ContainsFunc(r.officers, func(o *answering) bool { return o.index == st.Index }) {
		r.refuse(st.Index, refuse(ErrSet, "answer", "a second one"))
		return nil
	}
	if f, err = a.Open(); err != nil {
		return err
	}
	o := &answering{index: st.Index, file: f}
	if o.reader, err = ReadAnswer(f); err != nil {
		f.Close()
		return err
	}
	r.officers = append(r.officers, o)
	return nil
}

func indexOf(st *Statement) uint16 {
	if st == nil {
		return 0
	}
	return st.Index
}

func (r *opening) refuse(i uint16, err error) {
	o, _ := r.Epoch.Officer(i)
	r.report.Refused = append(r.report.Refused, Blame{Officer: i, Person: o.Person, Entry: -1, Err: err})
}

// batch opens count entries from n on.
func (r *opening) batch(n, count int, wrap func(int) ([]byte, error), visit func(Opened) error) error {
	wraps, faults := r.wraps(n, count, wrap)
	quorum, err := r.quorum(n, wraps)
	if err != nil {
		return err
	}
	set := make([]uint16, len(quorum))
	for i, o := range quorum {
		set[i] = o.index
	}
	if err := r.Epoch.checkSet(set); err != nil {
		return err
	}
	lambda := r.Key.suite.lagrange(set)
	u := make([]group.Element, len(quorum))
	for i, w := range wraps {
		if w == nil {
			if r.Faulty != nil {
				if err := r.Faulty(faults[n+i]); err != nil {
					return err
				}
			}
			continue
		}
		for j, o := range quorum {
			u[j] = o.ready[n+i-o.at].u
		}
		p := r.Key.suite.combine(lambda, u)
		key := w.open(p)
		p.Set(r.Key.suite.group.Identity())
		err := visit(Opened{n + i, w.Label, key})
		key.Destroy()
		if err != nil {
			return err
		}
		r.report.Opened = append(r.report.Opened, n+i)
	}
	for _, o := range r.officers {
		o.forget(n + count)
	}
	return nil
}

// wraps reads and checks the wraps of a batch; nil where one is not usable, and listed.
func (r *opening) wraps(n, count int, wrap func(int) ([]byte, error)) ([]*Wrap, map[int]Blame) {
	wraps := make([]*Wrap, count)
	faults := map[int]Blame{}
	var good []*Wrap
	var places []int
	blame := func(i int, err error) {
		b := Blame{Entry: n + i, Err: err}
		if wraps[i] != nil {
			b.Record = wraps[i].Label.Record
		}
		r.report.Unopenable = append(r.report.Unopenable, b)
		wraps[i], faults[n+i] = nil, b
	}
	for i := range wraps {
		octets, err := wrap(n + i)
		if err == nil {
			wraps[i], err = ParseWrap(octets)
		}
		if err == nil {
			err = r.Manifest.CheckWrap(n+i, wraps[i])
		}
		if err == nil {
			err = wraps[i].checkLabel(r.Key)
		}
		if err != nil {
			blame(i, err)
			continue
		}
		good, places = append(good, wraps[i]), append(places, i)
	}
	for _, b := range checkWraps(r.Key, good) {
		blame(places[b], refuse(ErrProof, "wrap", "was changed, or not sealed under this label"))
	}
	return wraps, faults
}

// quorum finds the lowest officers whose partials for a batch hold. Who gives one false partial is refused with all of his.
func (r *opening) quorum(n int, wraps []*Wrap) ([]*answering, error) {
	var quorum []*answering
	for i := 0; i < len(r.officers) && len(quorum) < r.Epoch.Quorum; {
		o := r.officers[i]
		if err := r.holds(o, n, wraps); err != nil {
			r.refuse(o.index, err)
			o.file.Close()
			r.officers = slices.Delete(r.officers, i, i+1)
			continue
		}
		quorum = append(quorum, o)
		i++
	}
	if len(quorum) < r.Epoch.Quorum {
		return nil, refuse(ErrQuorum, "case", "%d answers hold, %d are needed", len(quorum), r.Epoch.Quorum)
	}
	return quorum, nil
}

// holds reads and checks an officer's partials for a batch.
func (r *opening) holds(o *answering, n int, wraps []*Wrap) error {
	for o.at+len(o.ready) < n+len(wraps) {
		b, err := o.reader.next()
		if err != nil {
			return err
		}
		if b.index != o.index || int(b.first) != o.at+len(o.ready) { // changed since the answer was checked
			return refuse(ErrDecode, "answer", "its messages are not in order")
		}
		list, err := b.open(r.CaseKey, r.Manifest)
		if err != nil {
			return err
		}
		o.ready = append(o.ready, list...)
		o.forget(n) // while it catches up with the others
	}
	var mine []*partial
	var theirs []*Wrap
	var places []int
	for i, w := range wraps {
		if w != nil {
			mine, theirs, places = append(mine, o.ready[n+i-o.at]), append(theirs, w), append(places, n+i)
		}
	}
	bad, err := r.work.checkPartials(o.index, theirs, mine)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return &EntryError{places[bad[0]], theirs[bad[0]].Label.Record, refuse(ErrProof, "partial", "does not hold for this wrap, case and epoch")}
	}
	return nil
}

// forget drops the partials of the entries before n.
func (o *answering) forget(n int) {
	if k := min(n-o.at, len(o.ready)); k > 0 {
		for _, p := range o.ready[:k] {
			p.forget()
		}
		o.ready = slices.Clone(o.ready[k:])
		o.at += k
	}
}

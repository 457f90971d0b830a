package station

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// ErrNotRewrap is returned for a case whose officers were not asked to re-wrap.
var ErrNotRewrap = errors.New("station: the case's basis is not \"rewrap\": its officers gave mail to be read, not to be sealed anew")

// Rewrap opens what a quorum gave in a case that re-wraps, compares every message with the log as OpenCase does, and seals its key to another
// escrow key under a label that is otherwise the same. Nothing is kept but which entries these were; what it returns is the signed file for the gateway. Run
// again, it makes another one. Progress is called with how many entries of how many are done.
func (s *Station) Rewrap(ctx context.Context, k *Keys, path string, to *escrow.Sealer, now time.Time, progress func(done, total int)) ([]byte, *Report, error) {
	if s.selection != nil && !s.selection.Manifest.Rewraps() {
		return nil, nil, ErrNotRewrap
	}
	o, err := s.begin(k, path, now)
	if err != nil {
		return nil, nil, err
	}
	defer o.file.Close()
	m := o.manifest
	if to.Key().ID() == m.Key || to.Key().Purpose != m.Purpose || to.Key().Organisation != o.file.Key.Organisation {
		return nil, nil, errors.New("station: the new key is the case's own, or of another purpose or organisation")
	}
	for _, f := range to.Epoch().Officers {
		if f.Person == m.Requester || f.Key == m.RequesterKey {
			return nil, nil, ErrOfficer
		}
	}
	o.envelopes = func(vault.Kind, []byte) ([]discovery.Envelope, error) { return nil, nil } // nobody reads them
	out := escrow.Rewrap{Case: m.Case, Old: m.Key, New: to.Key().ID()}
	var opened []uint64
	done := func() { progress(len(out.Entries)+len(o.report.Faults), o.report.Entries) }
	fault := func(entry int, record vault.ID, why error) error {
		delete(o.pending, entry)
		o.report.Faults = append(o.report.Faults, Fault{entry, m.Entries[entry].Leaf, record, why.Error()})
		done()
		return nil
	}
	r, err := escrow.Station{Key: o.file.Key, Epoch: o.epoch, Manifest: m, CaseKey: k.caseKey, Faulty: func(b escrow.Blame) error {
		return fault(b.Entry, b.Record, b.Err)
	}}.Open(ctx, o.file.Answers(), o.wrap, func(x escrow.Opened) error {
		e := o.pending[x.Entry]
		if _, err := o.open(x, e); blames(err) {
			return fault(x.Entry, x.Label.Record, err)
		} else if err != nil {
			return err
		}
		delete(o.pending, x.Entry)
		w, err := to.Seal(x.Key, x.Label)
		if err != nil {
			return err
		}
		opened = append(opened, m.Entries[x.Entry].Leaf)
		out.Entries = append(out.Entries, escrow.Rewrapped{Record: x.Label.Record, Old: m.Entries[x.Entry].Wrap, Wrap: w})
		done()
		return nil
	})
	if r != nil {
		o.report.Refused = r.Refused
	}
	if err != nil {
		return nil, o.report, err
	}
	if o.report.Opened = len(out.Entries); o.report.Opened == 0 {
		return nil, o.report, nil
	}
	file, err := out.Sign(k.signing)
	if err != nil {
		return nil, o.report, err
	}
	b, err := json.Marshal(rewrapped{opened, faults(o.report)})
	if err != nil {
		return nil, o.report, err
	}
	return file, o.report, safefile.Write(s.path(rewrapFile), b)
}

// rewrapped is what the closing of a case that re-wraps says: indexes of leaves.
type rewrapped struct {
	Opened     []uint64 `json:"opened"`
	Unopenable []uint64 `json:"unopenable"`
}

func faults(r *Report) (list []uint64) {
	for _, f := range r.Faults {
		list = append(list, f.Leaf)
	}
	return list
}

// rewrappedCase reads it; nothing when no file was written yet.
func (s *Station) rewrappedCase() (rewrapped, error) {
	var r rewrapped
	b, err := safefile.Read(s.path(rewrapFile), maxRewrapped)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return r, err
	}
	if json.Unmarshal(b, &r) != nil {
		return r, fmt.Errorf("station: %s cannot be read: run gateway case station rewrap again", rewrapFile)
	}
	return r, nil
}

const maxRewrapped = 32 * escrow.MaxRewrapEntries

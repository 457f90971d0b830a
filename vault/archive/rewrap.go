package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// Rewrapped is what became of the entries of a re-wrap file.
type Rewrapped struct {
	Entries int `json:"entries"`
	Done    int `json:"rewrapped"`
	Before  int `json:"rewrapped_before"` // by a run, or a file, before this one
	Gone    int `json:"gone"`             // shredded since the case was selected
}

// rewrapBatch is how many entries one commit takes at most; those of a record stay together.
const rewrapBatch = 100

// Rewrap puts the wraps of a file, which was checked against its case, in the place of the old ones. Every label is compared with that
// of the wrap it replaces before anything changes. It can be cut short anywhere: called again, it does the rest. What SQLite may still
// have of the old wraps in the write-ahead log is gone when it returns.
func (a *Archive) Rewrap(ctx context.Context, r *escrow.Rewrap, now func() time.Time, progress func(done, total int)) (*Rewrapped, error) {
	s, err := a.Sealer(ctx, escrow.Discovery)
	if err != nil {
		return nil, err
	}
	if s.Key().ID() != r.New {
		return nil, ErrReplaced
	}
	for _, e := range r.Entries {
		if _, err := a.replacement(ctx, e, r.Old); err != nil {
			return nil, err
		}
	}
	out := &Rewrapped{Entries: len(r.Entries)}
	var batch []vault.NewWrap
	flush := func() error {
		n, err := a.v.ReplaceWraps(ctx, batch, now())
		out.Done += n
		out.Gone += len(batch) - n
		batch = batch[:0]
		return err
	}
	for i, e := range r.Entries {
		if len(batch) >= rewrapBatch && batch[len(batch)-1].Record != e.Record {
			if err := flush(); err != nil {
				return out, err
			}
		}
		w, err := a.replacement(ctx, e, r.Old)
		switch {
		case err != nil:
			return out, err
		case w.before:
			out.Before++
		case w.gone:
			out.Gone++
		default:
			outer, err := a.outer(ctx, w.Shred, e.Wrap)
			if errors.Is(err, vault.ErrNotFound) {
				out.Gone++
				break
			} else if err != nil {
				return out, err
			}
			w.Outer = outer
			batch = append(batch, w.NewWrap)
		}
		progress(i+1, len(r.Entries))
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return out, err
		}
	}
	return out, a.v.Scrub(ctx)
}

// A replacement is what is to be done with an entry.
type replacement struct {
	vault.NewWrap
	before, gone bool
}

// replacement compares an entry with the wrap that it replaces: all that its label says but the key.
func (a *Archive) replacement(ctx context.Context, e escrow.Rewrapped, from vault.Digest) (replacement, error) {
	fail := func(err error) (replacement, error) {
		return replacement{}, fmt.Errorf("archive: record %v: %w", e.Record, err)
	}
	det1, all, err := a.Wrap(ctx, e.Record, e.Old)
	switch {
	case errors.Is(err, vault.ErrNotFound) && len(all) > 0:
		return replacement{before: true}, nil
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDestroyed):
		return replacement{gone: true}, nil
	case err != nil:
		return replacement{}, err
	}
	old, err := escrow.ParseWrap(det1)
	if err != nil {
		return fail(err)
	}
	want := old.Label
	if want.Key != from {
		return fail(fmt.Errorf("%w: its wrap is sealed to another key than the case's", vault.ErrChanged))
	}
	if want.Key = e.Wrap.Label.Key; want != e.Wrap.Label {
		return fail(fmt.Errorf("%w: the new wrap says something else than the old one", ErrLabel))
	}
	shred, err := a.v.WrapShred(ctx, e.Record, e.Old)
	if errors.Is(err, vault.ErrNotFound) { // shredded in between
		return replacement{gone: true}, nil
	} else if err != nil {
		return fail(err)
	}
	return replacement{NewWrap: vault.NewWrap{Record: e.Record, Old: e.Old, New: e.Wrap.Digest(), Shred: shred, Body: want.Body}}, nil
}

// outer seals a wrap into its shred key.
func (a *Archive) outer(ctx context.Context, shred vault.ID, w *escrow.Wrap) ([]byte, error) {
	key, err := a.v.OpenShredKey(ctx, shred)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	return escrow.ShredKey{ID: shred, Key: key}.Wrap(w)
}

// Under counts the wraps that open still, by the key of discovery that they are sealed to: those of a key before it was replaced. Mail that
// was on its way in when the new key came may be counted as the new key's.
func (a *Archive) Under(ctx context.Context, id vault.Digest) (int64, error) {
	keys, err := a.Keys(ctx)
	if err != nil {
		return 0, err
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool { return k.Key.Purpose != escrow.Discovery })
	i := slices.IndexFunc(keys, func(k *Key) bool { return k.Key.ID() == id })
	if i < 0 {
		return 0, nil
	}
	before, err := a.v.WrapsBefore(ctx, keys[i].First)
	if err != nil {
		return 0, err
	}
	end := int64(math.MaxInt64)
	if i+1 < len(keys) {
		end = keys[i+1].First
	}
	n, err := a.v.WrapsBefore(ctx, end)
	return n - before, err
}

package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/vault"
)

// A Swept is what a sweep did, or would do. Copies counts by fate: a copy is a record as one custodian has it.
type Swept struct {
	Copies   map[Fate]int `json:"copies"`
	Records  int          `json:"records"`   // that ended: nobody else holds them
	Keys     int          `json:"keys"`      // shred keys that were destroyed
	UserKeys int          `json:"user_keys"` // escrows of users' keys that were destroyed
	Erasures int          `json:"erasures"`  // requests that are done with it
}

// Gone is the fate of copies whose shred key was erased before: they came back with a backup that was made earlier.
const Gone Fate = "gone"

// unusedAfter is how old a shred key without mail gets: one is made a moment before the mail under it is kept.
const unusedAfter = 24 * time.Hour

// Sweep destroys the copies that nobody may keep any longer and the shred keys that then open nothing, each with its leaf, and brings
// erasures that waited for a retention time or a hold to their end. With dry it counts only. Stopped in the middle, the next one
// goes on. vault.ErrChanged: a hold was placed meanwhile; sweep again.
func (a *Archive) Sweep(ctx context.Context, now time.Time, dry bool) (Swept, error) {
	return a.sweep(ctx, now, sweepHow{dry: dry})
}

// AfterRestore is how long SweepDaily leaves alone what came back with a backup: holds that were placed after it was made are not in
// it, and have to be placed anew first.
const AfterRestore = 14 * 24 * time.Hour

// SweepDaily is Sweep for a gateway that runs: within AfterRestore of a restore only what was erased goes again.
func (a *Archive) SweepDaily(ctx context.Context, now time.Time) (Swept, error) {
	restored, err := a.v.RestoredTime(ctx)
	if err != nil {
		return Swept{}, err
	}
	return a.sweep(ctx, now, sweepHow{goneOnly: !restored.IsZero() && now.Before(restored.Add(AfterRestore))})
}

// sweepHow says what a sweep is to do.
type sweepHow struct {
	dry      bool
	goneOnly bool                // only copies whose key is gone
	only     []vault.CustodianID // nil: all
}

func (a *Archive) sweep(ctx context.Context, now time.Time, how sweepHow) (Swept, error) {
	r := &round{a: a, now: now, sweepHow: how, out: Swept{Copies: map[Fate]int{}}, asked: map[vault.CustodianID]*vault.ErasureRequest{}}
	var err error
	if r.holds, err = a.v.Holds(ctx); err != nil {
		return r.out, err
	}
	requests, err := a.v.ErasureRequests(ctx)
	if err != nil {
		return r.out, err
	}
	for i := range requests {
		for _, id := range requests[i].Custodians {
			if requests[i].Done.IsZero() {
				r.asked[id] = &requests[i]
			}
		}
	}
	if r.names, err = a.names(ctx); err != nil {
		return r.out, err
	}
	shreds, err := a.v.Shreds(ctx, how.only, 0, 0xffff)
	if err != nil {
		return r.out, err
	}
	for _, s := range shreds {
		if err := r.shred(ctx, s); err != nil {
			return r.out, err
		}
	}
	if err := r.keys(ctx); err != nil {
		return r.out, err
	}
	if how.dry {
		return r.out, nil
	}
	if err := r.finish(ctx, requests); err != nil {
		return r.out, err
	}
	return r.out, a.v.Scrub(ctx)
}

// A round is one sweep under way.
type round struct {
	sweepHow
	a     *Archive
	now   time.Time
	holds []vault.LegalHold
	asked map[vault.CustodianID]*vault.ErasureRequest
	names map[vault.CustodianID][]string
	back  []vault.CustodianID // whose erased keys came back with a backup
	out   Swept
}

// shred looks at what one shred key opens.
func (r *round) shred(ctx context.Context, s vault.Shred) error {
	copies, alive, err := r.a.v.KeptCopies(ctx, s.ID)
	if err != nil {
		return err
	}
	names := r.names[s.Custodian]
	if names == nil { // holds go by them
		return fmt.Errorf("archive: shred key %v: its custodian: %w", s.ID, vault.ErrNotFound)
	}
	if !alive {
		r.back = append(r.back, s.Custodian)
	}
	asked := r.asked[s.Custodian]
	going := map[vault.Destruction][]vault.ID{}
	if alive && r.goneOnly {
		return nil
	}
	for _, c := range copies {
		fate := Gone
		if alive {
			fate = Decide(Copy{Custodian: names, Class: c.Class, Made: c.Made, Expires: c.Expires}, r.holds, asked != nil, r.now)
		}
		r.out.Copies[fate]++
		if why, goes := fate.destruction(asked != nil); goes {
			going[why] = append(going[why], c.Record)
		}
	}
	gone := len(going[vault.ByRetention]) + len(going[vault.ByErasure])
	drop := gone == len(copies) && (gone > 0 || !alive || asked != nil || r.now.Sub(s.Made) > unusedAfter)
	if r.dry {
		if drop {
			r.out.Keys++
		}
		return nil
	}
	if err := r.destroy(ctx, s, names[0], asked, going); err != nil || !drop {
		return err
	}
	why := vault.ByRetention
	if asked != nil || !alive {
		why = vault.ByErasure
	}
	if err := r.a.v.DropShred(ctx, s, why == vault.ByErasure, why, len(r.holds), r.now); errors.Is(err, vault.ErrChanged) {
		return nil // something is under it since, or a hold was placed: the next sweep looks again, and no other key waits for that
	} else if err != nil {
		return err
	}
	r.out.Keys++
	if asked != nil {
		asked.Keys++
	}
	return nil
}

// destruction is why a copy of a fate goes, if it does. What somebody asked to be erased goes by that, his retention time over or not:
// then his name goes from the index, too.
func (f Fate) destruction(asked bool) (vault.Destruction, bool) {
	switch {
	case f == Over && !asked:
		return vault.ByRetention, true
	case f == Over, f == Erased, f == Gone:
		return vault.ByErasure, true
	}
	return "", false
}

func (r *round) destroy(ctx context.Context, s vault.Shred, name string, asked *vault.ErasureRequest, going map[vault.Destruction][]vault.ID) error {
	for why, records := range going {
		own := vault.Token{}
		if why == vault.ByErasure {
			t, err := r.a.tokens(ctx)
			if err != nil {
				return err
			}
			own = t.address(name)
			t.close()
		}
		ended, err := r.a.v.DestroyCopies(ctx, s.ID, records, own, why, len(r.holds), r.now)
		r.out.Records += ended
		if err != nil {
			return err
		}
		if asked != nil {
			asked.Copies += len(records)
		}
	}
	return nil
}

// names are each custodian's addresses: first his own, then those that the same person had later.
func (a *Archive) names(ctx context.Context) (map[vault.CustodianID][]string, error) {
	list, err := a.v.Custodians(ctx)
	if err != nil {
		return nil, err
	}
	names, by := map[vault.CustodianID][]string{}, map[vault.CustodianID]vault.Custodian{}
	for _, c := range list {
		names[c.ID], by[c.ID] = []string{c.Address}, c
	}
	for _, c := range list {
		former, ok := by[c.Former]
		for n := 0; ok && n < maxAddresses; n++ {
			names[former.ID] = append(names[former.ID], c.Address)
			former, ok = by[former.Former]
		}
	}
	return names, nil
}

// finish writes down what was done for each request, and ends those of which nothing is left.
func (r *round) finish(ctx context.Context, requests []vault.ErasureRequest) error {
	for _, id := range r.back {
		if err := r.a.v.DropCustodian(ctx, id, addressesOf([]vault.CustodianID{id}, r.names)); err != nil {
			return err
		}
	}
	for i := range requests {
		q := &requests[i]
		if !q.Done.IsZero() {
			continue
		}
		left, err := r.a.v.Shreds(ctx, q.Custodians, 0, 0xffff)
		if err != nil {
			return err
		}
		own := addressesOf(q.Custodians, r.names)
		keys, err := r.a.v.EscrowedKeys(ctx, own, vault.ID{}, 1)
		if err != nil {
			return err
		}
		if len(left) == 0 && len(keys) == 0 {
			q.Done = r.now
			r.out.Erasures++
		}
		if err := r.a.v.SetErasure(ctx, *q, own); errors.Is(err, vault.ErrChanged) {
			continue // mail of his came meanwhile: the next sweep ends it
		} else if err != nil {
			return err
		}
	}
	return nil
}

// ErrNothing is returned for an erasure of somebody of whom nothing is kept.
var ErrNothing = errors.New("archive: nothing is kept of this address")

// Erase asks for the erasure of what is kept of an address, and destroys at once what neither a hold nor a retention time keeps; the
// rest goes with the sweep after their end. ErrNothing; vault.ErrExists when it was asked before and is not done.
func (a *Archive) Erase(ctx context.Context, address, by, reason string, now time.Time) (Erasure, error) {
	t, err := a.tokens(ctx)
	if err != nil {
		return Erasure{}, err
	}
	list, err := a.custodians(ctx, t, address)
	t.close()
	if err != nil {
		return Erasure{}, err
	} else if len(list) == 0 {
		return Erasure{}, ErrNothing
	}
	r := vault.ErasureRequest{ID: vault.NewID(now), Asked: now, Address: normal(address), By: by, Reason: reason}
	for _, c := range list {
		r.Custodians = append(r.Custodians, c.ID)
	}
	requests, err := a.v.ErasureRequests(ctx)
	if err != nil {
		return Erasure{}, err
	}
	if slices.ContainsFunc(requests, func(q vault.ErasureRequest) bool { return q.Done.IsZero() && slices.Contains(q.Custodians, list[0].ID) }) {
		return Erasure{}, vault.ErrExists
	}
	if err := a.v.AskErasure(ctx, r, now); err != nil {
		return Erasure{}, err
	}
	if _, err := a.sweep(ctx, now, sweepHow{only: r.Custodians}); err != nil {
		return Erasure{}, err
	}
	all, err := a.Erasures(ctx, now)
	for _, e := range all {
		if e.ID == r.ID {
			return e, nil
		}
	}
	return Erasure{}, err
}

// An Erasure is a request, and what keeps the rest of it.
type Erasure struct {
	vault.ErasureRequest
	Held    int       `json:"held"`    // copies that a hold keeps
	Running int       `json:"running"` // whose retention time runs
	Until   time.Time `json:"until"`   // the last of these; zero: none
}

// Erasures lists all requests, the oldest first.
func (a *Archive) Erasures(ctx context.Context, now time.Time) ([]Erasure, error) {
	requests, err := a.v.ErasureRequests(ctx)
	if err != nil {
		return nil, err
	}
	holds, err := a.v.Holds(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.names(ctx)
	if err != nil {
		return nil, err
	}
	var list []Erasure
	for _, r := range requests {
		e := Erasure{ErasureRequest: r}
		if r.Done.IsZero() {
			if err := a.waits(ctx, &e, names, holds, now); err != nil {
				return nil, err
			}
		}
		list = append(list, e)
	}
	return list, nil
}

// waits counts what keeps the rest of a request.
func (a *Archive) waits(ctx context.Context, e *Erasure, names map[vault.CustodianID][]string, holds []vault.LegalHold, now time.Time) error {
	shreds, err := a.v.Shreds(ctx, e.Custodians, 0, 0xffff)
	if err != nil {
		return err
	}
	for _, s := range shreds {
		copies, _, err := a.v.KeptCopies(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, c := range copies {
			switch Decide(Copy{Custodian: names[s.Custodian], Class: c.Class, Made: c.Made, Expires: c.Expires}, holds, true, now) {
			case Held:
				e.Held++
			case Running:
				e.Running++
				e.Until = later(e.Until, c.Expires)
			}
		}
	}
	return a.keysWait(ctx, e, names, holds, now)
}

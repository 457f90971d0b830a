package officer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A Change is a plan with what it means, as an officer looks at it before he deals or accepts.
type Change struct {
	Plan    *escrow.Plan
	Key     *escrow.Key
	Old     *escrow.Epoch
	Leaves  []escrow.Officer
	Comes   []escrow.Officer
	Stays   []escrow.Officer
	history []*escrow.Epoch // before Old
}

// NewPlan plans a change of a key's officers on the epoch old, which is in force. Who stays, by name, keeps his index and his
// keys; add are officer files.
func (d *Desk) NewPlan(key vault.Digest, old uint32, add []escrow.Officer, remove, dealers []string, quorum int, now time.Time) (*Change, error) {
	ks, err := d.key(key)
	if err != nil {
		return nil, err
	}
	if old == 0 || int(old) > len(ks.epochs) {
		return nil, fmt.Errorf("epoch %d is not known here", old)
	}
	p, err := planOn(ks.epochs[old-1], ks.epochs[:old-1], add, remove, dealers, quorum, now)
	if err != nil {
		return nil, err
	}
	return d.Change(p, KnownKey{})
}

func planOn(old *escrow.Epoch, history []*escrow.Epoch, add []escrow.Officer, remove, dealers []string, quorum int, now time.Time) (*escrow.Plan, error) {
	var officers []escrow.Officer
	for _, o := range old.Officers {
		if !slices.Contains(remove, o.Person) {
			officers = append(officers, o)
		}
	}
	for _, name := range remove {
		if _, ok := old.Person(name); !ok {
			return nil, fmt.Errorf("%s is no officer", name)
		}
	}
	for _, o := range add {
		if i := slices.IndexFunc(officers, func(p escrow.Officer) bool { return p.Person == o.Person }); i >= 0 {
			o.Index = officers[i].Index // the same person with new keys
			officers[i] = o
			continue
		}
		officers = append(officers, escrow.Officer{Person: o.Person, Key: o.Key, Recipient: o.Recipient})
	}
	var set []uint16
	for _, name := range dealers {
		o, ok := old.Person(name)
		if !ok {
			return nil, fmt.Errorf("%s is no officer: only officers deal", name)
		}
		set = append(set, o.Index)
	}
	return escrow.NewPlan(old, history, set, officers, quorum, now)
}

// Change says what a plan means. Who knows the key needs nothing else; a new officer gives it with its epochs, of which he has
// compared the digest with two old officers.
func (d *Desk) Change(p *escrow.Plan, known KnownKey) (*Change, error) {
	epochs := known.Epochs
	if ks, err := d.key(p.Key); err == nil {
		known.Key, epochs = ks.key, ks.epochs
	} else if known.Key == nil {
		return nil, err
	}
	if err := escrow.CheckChain(known.Key, epochs); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(epochs, func(e *escrow.Epoch) bool { return e.Digest() == p.Old })
	if at < 0 {
		return nil, &escrow.Error{Class: escrow.ErrEpoch, Object: "plan", Reason: "is made on an epoch that is not known here"}
	}
	c := &Change{Plan: p, Key: known.Key, Old: epochs[at], history: epochs[:at]}
	if p.Key != known.Key.ID() {
		return nil, &escrow.Error{Class: escrow.ErrEpoch, Object: "plan", Reason: "is of another key"}
	}
	if err := p.Check(c.Old, c.history); err != nil {
		return nil, err
	}
	if err := d.checkQuorums(c.Key, p.Quorum); err != nil {
		return nil, err
	}
	for _, o := range p.Officers {
		if _, ok := c.Old.Person(o.Person); ok {
			c.Stays = append(c.Stays, o)
		} else {
			c.Comes = append(c.Comes, o)
		}
	}
	for _, o := range c.Old.Officers {
		if !slices.ContainsFunc(p.Officers, func(n escrow.Officer) bool { return n.Person == o.Person }) {
			c.Leaves = append(c.Leaves, o)
		}
	}
	return c, nil
}

// A Dealt is what a dealer gives out: the first two to everyone, each sealed sub-share to its officer.
type Dealt struct {
	Deal      *escrow.Deal
	Statement *escrow.Statement
	Sealed    map[uint16][]byte // age files, by the new officer's index
}

// Deal deals the officer's share out to the officers of a plan: to deal is to approve.
func (d *Desk) Deal(k *Keys, c *Change, r Recipients, now time.Time) (*Dealt, error) {
	ks, err := d.key(c.Key.ID())
	if err != nil {
		return nil, err
	}
	s, err := d.loadShare(k, ks, c.Old)
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	deal, subs, err := escrow.DealPlan(s, c.Old, c.Plan)
	if err != nil {
		return nil, err
	}
	out := &Dealt{Deal: deal, Sealed: map[uint16][]byte{}}
	for i, u := range subs {
		defer u.Destroy()
		to, err := r.Parse(c.Plan.Officers[i].Recipient)
		if err != nil {
			return nil, err
		}
		b := u.Octets()
		out.Sealed[u.To], err = escrow.SealFile(to, b)
		clear(b)
		if err != nil {
			return nil, err
		}
	}
	out.Statement, err = escrow.Statement{Kind: escrow.DealShares, Index: s.Index, Time: now, Subject: deal.Digest(), Extra: c.Plan.Digest()}.Sign(k.Signing)
	return out, err
}

// A Receipt is what dealers gave a new officer.
type Receipt struct {
	Deals      []*escrow.Deal
	Statements []*escrow.Statement
	Sealed     [][]byte // sub-shares to this officer
}

// Accept checks the deals of a change, makes the officer's new share, keeps it, and attests it. When a deal is at fault the error
// is an *escrow.DealFault and the statement a complaint about it, to be given to the others. Trust is needed from who is new.
func (d *Desk) Accept(k *Keys, c *Change, r Receipt, t escrow.Trust, own Recipients, now time.Time) (*escrow.Epoch, *escrow.Statement, error) {
	me, err := d.place(c)
	if err != nil {
		return nil, nil, err
	}
	e, s, err := d.receive(k, c, me, r)
	if f, ok := errors.AsType[*escrow.DealFault](err); ok {
		st, serr := escrow.Statement{Kind: escrow.Complaint, Index: me, Time: now, Subject: f.Deal, Extra: c.Plan.Digest()}.Sign(k.Signing)
		if serr != nil {
			return nil, nil, serr
		}
		return nil, st, err
	}
	if err != nil {
		return nil, nil, err
	}
	defer s.Destroy()
	to, err := own.Parse(d.me.Recipient)
	if err != nil {
		return nil, nil, err
	}
	b := s.Octets()
	defer clear(b)
	file, err := escrow.SealFile(to, b)
	if err != nil {
		return nil, nil, err
	}
	ks, err := d.enrol(c, e, t)
	if err != nil {
		return nil, nil, err
	}
	st, err := d.attest(k, ks, e, me, file, now)
	return e, st, err
}

// place is the officer's index in the new epoch.
func (d *Desk) place(c *Change) (uint16, error) {
	for _, o := range c.Plan.Officers {
		if o.Line() == d.me.Line() {
			return o.Index, nil
		}
	}
	return 0, errors.New("the plan has no place for this officer with these keys")
}

// receive opens the sub-shares and makes epoch and share of them.
func (d *Desk) receive(k *Keys, c *Change, me uint16, r Receipt) (*escrow.Epoch, escrow.Share, error) {
	e, err := escrow.Next(c.Key, c.Old, c.history, c.Plan, r.Deals, r.Statements)
	if err != nil {
		return nil, escrow.Share{}, err
	}
	var subs []escrow.SubShare
	for _, file := range r.Sealed {
		b, err := k.open(file)
		if err != nil {
			return nil, escrow.Share{}, err
		}
		u, err := escrow.ParseSubShare(b)
		clear(b)
		if err != nil {
			return nil, escrow.Share{}, err
		}
		defer u.Destroy()
		subs = append(subs, u)
	}
	s, err := escrow.Accept(e, c.Plan, r.Deals, me, subs)
	return e, s, err
}

// enrol puts the new epoch into the state, and the key with it when the officer is new.
func (d *Desk) enrol(c *Change, e *escrow.Epoch, t escrow.Trust) (*keyState, error) {
	ks, err := d.key(c.Key.ID())
	if err != nil {
		if err := d.trustLog(t); err != nil {
			return nil, err
		}
		ks = &keyState{Record: fmt.Sprintf("%x", c.Key.Octets()), Log: t.Log, key: c.Key}
		for _, o := range append(slices.Clone(c.history), c.Old) {
			ks.addEpoch(o)
		}
		d.state.Keys = append(d.state.Keys, ks)
	}
	if _, ok := ks.epoch(e.Digest()); ok {
		return ks, nil
	}
	// A plan that failed leaves an epoch that never came into force: the next one on the same old epoch takes its place.
	for ks.last().Number >= e.Number {
		last := ks.last()
		if s, err := ks.share(last.Digest()); err == nil {
			if err := d.drop(s); err != nil {
				return nil, err
			}
		}
		ks.Epochs, ks.epochs = ks.Epochs[:len(ks.Epochs)-1], ks.epochs[:len(ks.epochs)-1]
	}
	if err := e.Check(ks.key, ks.last()); err != nil {
		return nil, err
	}
	ks.addEpoch(e)
	return ks, nil
}

func (d *Desk) drop(s *shareState) error {
	if err := overwrite(filepath.Join(d.dir, s.File)); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	s.Erased = &now
	return nil
}

// Erase destroys the officer's share of the epoch before e, which is in force: all its officers have attested their shares. Then
// it signs that this was done.
func (d *Desk) Erase(k *Keys, e *escrow.Epoch, attestations []*escrow.Statement, now time.Time) (*escrow.Statement, error) {
	ks, err := d.key(e.Key)
	if err != nil {
		return nil, err
	}
	old, ok := ks.epoch(e.Previous)
	if !ok {
		return nil, &escrow.Error{Class: escrow.ErrEpoch, Object: "epoch", Reason: "does not follow one that is known here"}
	}
	if err := e.Check(ks.key, old); err != nil {
		return nil, err
	}
	if err := escrow.Attested(e, attestations); err != nil {
		return nil, err
	}
	me, ok := old.Person(d.me.Person)
	if !ok || me.Key != d.me.Key {
		return nil, errors.New("this officer had no share of the epoch before")
	}
	for _, s := range ks.Shares {
		if s.Epoch == hexOf(old.Digest()) && s.Erased == nil {
			if err := d.drop(s); err != nil {
				return nil, err
			}
		}
	}
	if err := d.save(); err != nil {
		return nil, err
	}
	return escrow.Statement{Kind: escrow.AttestErasure, Index: me.Index, Time: now, Subject: old.Digest(), Extra: e.Digest()}.Sign(k.Signing)
}

package escrow

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A Plan is a change of officers under the same key, DEQ1: to add, remove or refresh.
type Plan struct {
	Key      vault.Digest
	Old      vault.Digest // digest of the epoch that deals
	Number   uint32       // of the new epoch
	Created  time.Time
	Quorum   int       // of the new epoch
	Dealers  []uint16  // exactly a quorum of the old epoch, ascending
	Officers []Officer // of the new epoch, by index

	suite  *suite
	octets []byte
	digest vault.Digest
}

const planMagic = "DEQ1"

func (p *Plan) encode() []byte {
	b := append([]byte(planMagic), byte(p.suite.id))
	b = slices.Concat(b, p.Key[:], p.Old[:], be32(p.Number))
	b = appendTime(b, p.Created)
	b = append(b, 0, byte(p.Quorum), byte(len(p.Officers)), byte(len(p.Dealers)))
	for _, i := range p.Dealers {
		b = append(b, be16(i)...)
	}
	for _, o := range p.Officers {
		b = o.append(b)
	}
	return b
}

// NewPlan plans the epoch after old. Officers with the index 0 are given theirs: who had one in
// old or before it has it again, who is new has the next that nobody had.
func NewPlan(old *Epoch, history []*Epoch, dealers []uint16, officers []Officer, quorum int, now time.Time) (*Plan, error) {
	last, known := uint16(0), map[string]uint16{}
	for _, e := range append(slices.Clone(history), old) {
		for _, o := range e.Officers {
			last, known[o.Person] = max(last, o.Index), o.Index
		}
	}
	officers = slices.Clone(officers)
	for i, o := range officers {
		if o.Index == 0 {
			officers[i].Index = known[o.Person]
		}
		if officers[i].Index == 0 {
			last++
			officers[i].Index = last
		}
	}
	slices.SortFunc(officers, func(a, b Officer) int { return int(a.Index) - int(b.Index) })
	if len(officers) > MaxOfficers || len(dealers) > MaxOfficers || quorum > MaxOfficers {
		return nil, refuse(ErrSet, "plan", "more than 64 officers")
	}
	p := &Plan{Key: old.Key, Old: old.digest, Number: old.Number + 1, Created: now, Quorum: quorum,
		Dealers: slices.Sorted(slices.Values(dealers)), Officers: officers, suite: old.suite}
	p, err := ParsePlan(p.encode())
	if err != nil {
		return nil, err
	}
	return p, p.Check(old, history)
}

// ParsePlan reads a plan. Whether it fits the epoch before: see Check.
func ParsePlan(b []byte) (*Plan, error) {
	c := cursor{b: b, object: "plan"}
	c.magic(planMagic)
	p := &Plan{suite: c.suite()}
	c.fixed(p.Key[:])
	c.fixed(p.Old[:])
	p.Number, p.Created = c.u32(), c.time()
	if c.err == nil && p.Number < 2 {
		c.fail(ErrDecode, "a plan makes epoch 2 or a later one")
	}
	n := c.quorum(&p.Quorum)
	if s := int(c.u8()); c.list(s, 2) {
		for range s {
			p.Dealers = append(p.Dealers, c.u16())
		}
		if s < 2 || s > MaxOfficers || !strictly(p.Dealers, func(a, b uint16) int { return int(a) - int(b) }) || p.Dealers[0] == 0 {
			c.fail(ErrDecode, "dealers must be 2 to 64 indexes that ascend from 1")
		}
	}
	p.Officers = c.officers(n)
	if err := c.end(); err != nil {
		return nil, err
	}
	p.octets = slices.Clone(b)
	p.digest = vault.NewDigest("plan", b)
	return p, nil
}

// Octets is the plan; not to be changed.
func (p *Plan) Octets() []byte { return p.octets }

// Digest names the plan.
func (p *Plan) Digest() vault.Digest { return p.digest }

// Check refuses a plan that does not follow old, or gives an index that a person had, in old or before it, to another.
func (p *Plan) Check(old *Epoch, history []*Epoch) error {
	if p.suite != old.suite || p.Key != old.Key || p.Old != old.digest || p.Number-1 != old.Number {
		return refuse(ErrEpoch, "plan", "is not made on this epoch")
	}
	if err := old.checkSet(p.Dealers); err != nil {
		return err
	}
	for _, e := range append(slices.Clone(history), old) {
		for _, o := range p.Officers {
			if was, ok := e.Officer(o.Index); ok && was.Person != o.Person {
				return refuse(ErrSet, "plan", "index %d was another person's", o.Index)
			}
			if was, ok := e.Person(o.Person); ok && was.Index != o.Index {
				return refuse(ErrSet, "plan", "officer %d had the index %d", o.Index, was.Index)
			}
		}
	}
	return nil
}

// A Deal is the public part of what one old officer gives, DER1: commitments to the polynomial that shares out his share.
type Deal struct {
	Plan   vault.Digest
	Dealer uint16

	suite       *suite
	commitments []group.Element
	octets      []byte
	digest      vault.Digest
}

const dealMagic = "DER1"

func encodeDeal(s *suite, plan vault.Digest, i uint16, commitments []group.Element) []byte {
	b := append([]byte(dealMagic), byte(s.id))
	b = slices.Concat(b, plan[:], be16(i), []byte{byte(len(commitments))})
	for _, c := range commitments {
		b = append(b, s.encode(c)...)
	}
	return b
}

// ParseDeal reads a deal. Whether it is right: see Check.
func ParseDeal(b []byte) (*Deal, error) {
	c := cursor{b: b, object: "deal"}
	c.magic(dealMagic)
	d := &Deal{suite: c.suite()}
	c.fixed(d.Plan[:])
	d.Dealer = c.u16()
	n := int(c.u8())
	if c.err == nil && (d.Dealer == 0 || n < 2 || n > MaxOfficers) {
		c.fail(ErrDecode, "a deal has a dealer and 2 to 64 commitments")
	}
	if c.err == nil {
		d.commitments = c.points(d.suite, n)
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	d.octets = slices.Clone(b)
	d.digest = vault.NewDigest("deal", b)
	return d, nil
}

// Octets is the deal; not to be changed.
func (d *Deal) Octets() []byte { return d.octets }

// Digest names the deal.
func (d *Deal) Digest() vault.Digest { return d.digest }

// Check refuses a deal that is not of this plan, or shares out another value than its dealer's share.
func (d *Deal) Check(p *Plan, old *Epoch) error {
	if d.Plan != p.digest || d.suite != p.suite {
		return refuse(ErrDecode, "deal", "is of another plan")
	}
	if !slices.Contains(p.Dealers, d.Dealer) {
		return refuse(ErrSet, "deal", "%d is no dealer of the plan", d.Dealer)
	}
	return checkDeal(p, old, d.Dealer, d.commitments)
}

func checkDeal(p *Plan, old *Epoch, dealer uint16, commitments []group.Element) error {
	if len(commitments) != p.Quorum {
		return refuse(ErrDecode, "deal", "%d commitments for a quorum of %d", len(commitments), p.Quorum)
	}
	h, err := old.point(dealer)
	if err != nil {
		return err
	}
	if !commitments[0].IsEqual(h.h) {
		return refuse(ErrLink, "deal", "dealer %d shares another value than his share", dealer)
	}
	return nil
}

// A SubShare is what one dealer gives one new officer, DEU1. It never leaves an age file to that officer.
type SubShare struct {
	Plan, Deal vault.Digest
	Dealer, To uint16

	suite *suite
	q     func() group.Scalar
}

const (
	subShareMagic = "DEU1"
	subShareSize  = 4 + 1 + 2*digestSize + 2 + 2 + scalarSize
)

// Octets is the plaintext; the caller clears it.
func (u SubShare) Octets() []byte {
	q := u.suite.encodeScalar(u.q())
	defer clear(q)
	return slices.Concat([]byte(subShareMagic), []byte{byte(u.suite.id)}, u.Plan[:], u.Deal[:], be16(u.Dealer), be16(u.To), q)
}

// ParseSubShare reads the plaintext.
func ParseSubShare(b []byte) (SubShare, error) {
	c := cursor{b: b, object: "sub-share"}
	if len(b) != subShareSize {
		c.fail(ErrDecode, "is %d octets, not %d", len(b), subShareSize)
	}
	c.magic(subShareMagic)
	var u SubShare
	u.suite = c.suite()
	c.fixed(u.Plan[:])
	c.fixed(u.Deal[:])
	u.Dealer, u.To = c.u16(), c.u16()
	q := c.scalar(u.suite)
	if err := c.end(); err != nil {
		return SubShare{}, err
	}
	u.q = func() group.Scalar { return q }
	return u, nil
}

// Destroy overwrites the secret.
func (u SubShare) Destroy() {
	if u.q != nil {
		wipe(u.q())
	}
}

func (SubShare) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// A redeal is a deal under way, with its secrets.
type redeal struct {
	coefficients []group.Scalar
	deal         *Deal
	subShares    []SubShare
}

// DealPlan deals s out to the officers of a plan. The caller has shown the plan to its officer: to deal is to approve.
func DealPlan(s Share, old *Epoch, p *Plan) (*Deal, []SubShare, error) {
	t, err := dealPlan(s, old, p, system)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(t.coefficients[1:]...) // the first is the share itself, which is the caller's
	return t.deal, t.subShares, nil
}

func dealPlan(s Share, old *Epoch, p *Plan, src source) (*redeal, error) {
	if s.Epoch != old.digest || p.Old != old.digest || !slices.Contains(p.Dealers, s.Index) {
		return nil, refuse(ErrSet, "deal", "officer %d is no dealer of the plan", s.Index)
	}
	g := s.suite
	t := &redeal{coefficients: []group.Scalar{s.x()}}
	x := g.encodeScalar(s.x())
	defer clear(x)
	commitments := []group.Element{g.mulGen(s.x())}
	for k := 1; k < p.Quorum; k++ {
		b := g.nonZero(src, "reshare", x, p.digest[:], []byte{byte(k)})
		t.coefficients = append(t.coefficients, b)
		commitments = append(commitments, g.mulGen(b))
	}
	var err error
	if t.deal, err = ParseDeal(encodeDeal(g, p.digest, s.Index, commitments)); err != nil {
		return nil, err
	}
	if err := t.deal.Check(p, old); err != nil { // the share is not the epoch's
		return nil, err
	}
	for _, o := range p.Officers {
		q := g.evaluate(t.coefficients, o.Index)
		t.subShares = append(t.subShares, SubShare{Plan: p.digest, Deal: t.deal.digest, Dealer: s.Index, To: o.Index, suite: g,
			q: func() group.Scalar { return q }})
	}
	return t, nil
}

// A DealFault says whose deal is wrong: the new officer complains of it.
type DealFault struct {
	Dealer uint16
	Deal   vault.Digest
	Err    error
}

func (f *DealFault) Error() string { return f.Err.Error() }
func (f *DealFault) Unwrap() error { return f.Err }

// VerifyComplaint checks that st is the complaint of an officer of the plan about a deal. Whether he is right only a second run
// without the one or the other can say.
func (p *Plan) VerifyComplaint(st *Statement, d *Deal) error {
	i := slices.IndexFunc(p.Officers, func(o Officer) bool { return o.Index == st.Index })
	if i < 0 {
		return refuse(ErrSet, "complaint", "%d is no officer's index in the plan", st.Index)
	}
	if st.Kind != Complaint || st.Subject != d.digest || st.Extra != p.digest || d.Plan != p.digest {
		return refuse(ErrSignature, "complaint", "is about something else")
	}
	return st.Verify(p.Officers[i].Key)
}

// Next is the epoch that a plan and its deals give, which everyone computes for himself. Deals are one for each dealer of the
// plan, in any order, each with its dealer's statement.
func Next(k *Key, old *Epoch, history []*Epoch, p *Plan, deals []*Deal, statements []*Statement) (*Epoch, error) {
	if old.Key != k.id || old.suite != k.suite || !old.commitments[0].IsEqual(k.h) {
		return nil, refuse(ErrEpoch, "epoch", "is not of this key")
	}
	if err := p.Check(old, history); err != nil {
		return nil, err
	}
	deals, err := sortDeals(p, old, deals, statements)
	if err != nil {
		return nil, err
	}
	g := p.suite
	lambda := g.lagrange(p.Dealers)
	e := &Epoch{Key: k.id, Number: p.Number, Created: p.Created, Quorum: p.Quorum, Previous: old.digest, Officers: p.Officers, suite: g}
	for n := range p.Quorum {
		column := make([]group.Element, len(deals))
		for i, d := range deals {
			column[i] = d.commitments[n]
		}
		e.commitments = append(e.commitments, g.combine(lambda, column))
	}
	for _, d := range deals {
		e.Dealers = append(e.Dealers, Dealer{d.Dealer, d.digest})
	}
	if e, err = e.seal(); err != nil {
		return nil, err
	}
	return e, e.Check(k, old)
}

// sortDeals checks deals and brings them into the plan's order.
func sortDeals(p *Plan, old *Epoch, deals []*Deal, statements []*Statement) ([]*Deal, error) {
	deals = slices.SortedFunc(slices.Values(deals), func(a, b *Deal) int { return int(a.Dealer) - int(b.Dealer) })
	if len(deals) != len(p.Dealers) {
		return nil, refuse(ErrSet, "plan", "%d deals, it has %d dealers", len(deals), len(p.Dealers))
	}
	for n, d := range deals {
		if d.Dealer != p.Dealers[n] {
			return nil, refuse(ErrSet, "plan", "no deal, or two, of dealer %d", p.Dealers[n])
		}
		i := slices.IndexFunc(statements, func(s *Statement) bool { return s.Index == d.Dealer && s.Subject == d.digest })
		if i < 0 {
			return nil, refuse(ErrSignature, "deal", "no statement of dealer %d about it", d.Dealer)
		}
		if err := statements[i].VerifyOfficer(old, DealShares, d.digest, p.digest); err != nil {
			return nil, err
		}
		if err := d.Check(p, old); err != nil {
			return nil, &DealFault{d.Dealer, d.digest, err}
		}
	}
	return deals, nil
}

// Accept makes new officer j's share from his sub-shares, one of each dealer. Next made the epoch e from the same deals.
func Accept(e *Epoch, p *Plan, deals []*Deal, j uint16, subShares []SubShare) (Share, error) {
	g := p.suite
	sum := g.group.NewScalar()
	for n, lambda := range g.lagrange(p.Dealers) {
		dealer := p.Dealers[n]
		d := slices.IndexFunc(deals, func(d *Deal) bool { return d.Dealer == dealer && d.Plan == p.digest })
		u := slices.IndexFunc(subShares, func(u SubShare) bool { return u.Dealer == dealer })
		if d < 0 || u < 0 {
			return Share{}, refuse(ErrSet, "sub-share", "dealer %d's deal or sub-share is missing", dealer)
		}
		deal, sub := deals[d], subShares[u]
		if sub.Plan != p.digest || sub.Deal != deal.digest || sub.To != j || sub.suite != g {
			return Share{}, refuse(ErrDecode, "sub-share", "dealer %d's is of another plan, deal or officer", dealer)
		}
		if err := checkShare(g, deal.commitments, j, sub.q()); err != nil {
			return Share{}, &DealFault{dealer, deal.digest, err}
		}
		t := lambda.Mul(lambda, sub.q())
		sum.Add(sum, t)
		wipe(t)
	}
	if err := checkShare(g, e.commitments, j, sum); err != nil {
		return Share{}, err
	}
	return newShare(g, e.Key, e.digest, j, sum), nil
}

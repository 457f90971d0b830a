package escrow

import (
	"slices"
	"sync"
	"time"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// An Epoch is one set of officers of a key with the commitments to the polynomial that their shares lie on. Safe for
// concurrent use.
type Epoch struct {
	Key      vault.Digest
	Number   uint32 // from 1
	Created  time.Time
	Quorum   int          // M
	Previous vault.Digest // digest of the epoch before; zero in the first
	Officers []Officer    // by index
	Dealers  []Dealer     // by index; none in the first epoch

	suite       *suite
	commitments []group.Element
	octets      []byte
	digest      vault.Digest

	mu     sync.Mutex
	public map[uint16]officerPoint
}

// A Dealer names the deal of an officer of the epoch before.
type Dealer struct {
	Index uint16
	Deal  vault.Digest
}

// An officerPoint is h_i = g^{x_i} and its encoding.
type officerPoint struct {
	h       group.Element
	encoded []byte
}

const epochMagic = "DEE1"

func (e *Epoch) encode() []byte {
	b := append([]byte(epochMagic), byte(e.suite.id))
	b = append(b, e.Key[:]...)
	b = append(b, be32(e.Number)...)
	b = appendTime(b, e.Created)
	b = append(b, 0, byte(e.Quorum), byte(len(e.Officers)))
	b = append(b, e.Previous[:]...)
	for _, o := range e.Officers {
		b = o.append(b)
	}
	for _, c := range e.commitments {
		b = append(b, e.suite.encode(c)...)
	}
	b = append(b, byte(len(e.Dealers)))
	for _, d := range e.Dealers {
		b = append(b, be16(d.Index)...)
		b = append(b, d.Deal[:]...)
	}
	return b
}

// seal gives a new epoch its octets and digest. What was made is read back, so that nothing is made that nobody reads.
func (e *Epoch) seal() (*Epoch, error) { return ParseEpoch(e.encode()) }

// ParseEpoch reads an epoch record, DEE1. Whether it belongs to a key or follows an epoch: see Check.
func ParseEpoch(b []byte) (*Epoch, error) {
	c := cursor{b: b, object: "epoch record"}
	c.magic(epochMagic)
	e := &Epoch{suite: c.suite(), public: map[uint16]officerPoint{}}
	c.fixed(e.Key[:])
	e.Number, e.Created = c.u32(), c.time()
	n := c.quorum(&e.Quorum)
	c.fixed(e.Previous[:])
	e.Officers = c.officers(n)
	if c.err == nil {
		e.commitments = c.points(e.suite, e.Quorum)
	}
	e.Dealers = c.dealers()
	if first := e.Number == 1; c.err == nil && (e.Number == 0 || first != (len(e.Dealers) == 0) || first != (e.Previous == vault.Digest{})) {
		c.fail(ErrDecode, "number, previous epoch and dealers do not fit together")
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	e.octets = slices.Clone(b)
	e.digest = vault.NewDigest("epoch", b)
	return e, nil
}

// quorum reads mode, M and N, and checks their bounds; it returns N.
func (c *cursor) quorum(m *int) int {
	mode := c.u8()
	*m = int(c.u8())
	n := int(c.u8())
	if c.err == nil && mode != 0 {
		c.fail(ErrDecode, "unknown mode %d", mode)
	}
	if why := quorumFault(*m, n); c.err == nil && why != "" {
		c.fail(ErrDecode, "%s", why)
	}
	return n
}

func quorumFault(m, n int) string {
	if m < 2 || m > n || n > MaxOfficers {
		return "a quorum is at least 2, at most the officers, who are 64 at most"
	}
	return ""
}

func (c *cursor) dealers() []Dealer {
	n := int(c.u8())
	if n > MaxOfficers {
		c.fail(ErrDecode, "more than 64 dealers")
	}
	if !c.list(n, 2+digestSize) {
		return nil
	}
	list := make([]Dealer, n)
	last := uint16(0)
	for i := range list {
		list[i].Index = c.u16()
		c.fixed(list[i].Deal[:])
		if list[i].Index <= last {
			c.fail(ErrDecode, "dealers' indexes do not ascend from 1")
		}
		last = list[i].Index
	}
	return list
}

// Octets is the record; not to be changed.
func (e *Epoch) Octets() []byte { return e.octets }

// Digest names the epoch.
func (e *Epoch) Digest() vault.Digest { return e.digest }

// Officer finds an officer by index.
func (e *Epoch) Officer(i uint16) (Officer, bool) {
	n, ok := slices.BinarySearchFunc(e.Officers, i, func(o Officer, i uint16) int { return int(o.Index) - int(i) })
	if !ok {
		return Officer{}, false
	}
	return e.Officers[n], true
}

// Person finds an officer by name.
func (e *Epoch) Person(name string) (Officer, bool) {
	i := slices.IndexFunc(e.Officers, func(o Officer) bool { return o.Person == name })
	if i < 0 {
		return Officer{}, false
	}
	return e.Officers[i], true
}

// point is h_i, computed once from the commitments.
func (e *Epoch) point(i uint16) (officerPoint, error) {
	if _, ok := e.Officer(i); !ok {
		return officerPoint{}, refuse(ErrSet, "epoch", "%d is no officer's index", i)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.public[i]
	if !ok {
		p.h = e.suite.evaluatePublic(e.commitments, i)
		if p.h.IsIdentity() { // commitments that were made for it: the share would be zero
			return officerPoint{}, refuse(ErrIdentity, "epoch", "officer %d's share is zero", i)
		}
		p.encoded = e.suite.encode(p.h)
		e.public[i] = p
	}
	return p, nil
}

// Check says whether e is an epoch of k: the first when previous is nil, else the one after previous.
func (e *Epoch) Check(k *Key, previous *Epoch) error {
	switch {
	case e.suite != k.suite || e.Key != k.id:
		return refuse(ErrEpoch, "epoch", "is of another key")
	case !e.commitments[0].IsEqual(k.h):
		return refuse(ErrEpoch, "epoch", "its shares make another key")
	case previous == nil && e.Number != 1:
		return refuse(ErrEpoch, "epoch", "is number %d, and the one before is not known", e.Number)
	case previous != nil && (e.Number == 1 || e.Number-1 != previous.Number || e.Previous != previous.digest):
		return refuse(ErrEpoch, "epoch", "does not follow epoch %d", previous.Number)
	case previous != nil && len(e.Dealers) != previous.Quorum:
		return refuse(ErrEpoch, "epoch", "%d dealers, the epoch before had a quorum of %d", len(e.Dealers), previous.Quorum)
	}
	for _, o := range e.Officers {
		if _, err := e.point(o.Index); err != nil {
			return err
		}
	}
	if previous == nil {
		return nil
	}
	for _, d := range e.Dealers {
		if _, ok := previous.Officer(d.Index); !ok {
			return refuse(ErrSet, "epoch", "dealer %d was no officer before", d.Index)
		}
	}
	return nil
}

// checkSet refuses what is not exactly a quorum of distinct officers, ascending.
func (e *Epoch) checkSet(set []uint16) error {
	if len(set) != e.Quorum {
		return refuse(ErrSet, "quorum", "%d officers, %d are needed", len(set), e.Quorum)
	}
	last := uint16(0)
	for _, i := range set {
		if i <= last {
			return refuse(ErrSet, "quorum", "indexes do not ascend from 1")
		}
		if _, ok := e.Officer(i); !ok {
			return refuse(ErrSet, "quorum", "%d is no officer's index", i)
		}
		last = i
	}
	return nil
}

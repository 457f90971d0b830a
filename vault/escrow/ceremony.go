package escrow

import (
	"slices"
	"time"

	"github.com/cloudflare/circl/group"
)

// A Ceremony is what makes a key.
type Ceremony struct {
	Suite        Suite
	Purpose      Purpose
	Organisation string // lower-case domain
	Quorum       int
	Officers     []Officer // Deal numbers them from 1
	Now          time.Time
}

// Dealt is what a ceremony made. The shares are secret: seal each to its officer, then Destroy.
type Dealt struct {
	Key    *Key
	Epoch  *Epoch
	Shares []Share // by index
}

// Destroy overwrites the shares.
func (d *Dealt) Destroy() {
	for _, s := range d.Shares {
		s.Destroy()
	}
}

// Deal draws the polynomial, computes key, commitments and shares, and overwrites the polynomial. The private scalar exists
// while it runs, and never again.
func (c Ceremony) Deal() (*Dealt, error) {
	t, err := c.deal(system)
	if err != nil {
		return nil, err
	}
	defer t.destroy()
	return &Dealt{Key: t.key, Epoch: t.epoch, Shares: t.shares}, nil
}

// A dealing is a ceremony under way, with its secrets.
type dealing struct {
	coefficients []group.Scalar
	key          *Key
	epoch        *Epoch
	shares       []Share
}

func (t *dealing) destroy() { wipe(t.coefficients...) }

func (c Ceremony) deal(src source) (*dealing, error) {
	s := lookUp(c.Suite)
	switch {
	case s == nil || !s.offered:
		return nil, refuse(ErrDecode, "ceremony", "unknown suite")
	case c.Purpose != Discovery && c.Purpose != Continuity:
		return nil, refuse(ErrDecode, "ceremony", "unknown %s", c.Purpose)
	case !validDomain(c.Organisation):
		return nil, refuse(ErrDecode, "ceremony", "the organisation is no lower-case domain")
	case c.Now.Unix() < 0 || c.Now.Unix() > maxTime:
		return nil, refuse(ErrDecode, "ceremony", "the clock is wrong")
	}
	if why := quorumFault(c.Quorum, len(c.Officers)); why != "" {
		return nil, refuse(ErrSet, "ceremony", "%s", why)
	}
	officers := slices.Clone(c.Officers)
	for i := range officers {
		officers[i].Index = uint16(i + 1)
		if why := officers[i].fault(); why != "" {
			return nil, refuse(ErrDecode, "ceremony", "officer %d: %s", i+1, why)
		}
	}
	if why := officersFault(officers); why != "" {
		return nil, refuse(ErrSet, "ceremony", "%s", why)
	}
	for {
		t, again, err := c.draw(s, officers, src)
		if !again {
			return t, err
		}
	}
}

// draw is one try; it is made again in the case that someone's share is zero.
func (c Ceremony) draw(s *suite, officers []Officer, src source) (t *dealing, again bool, err error) {
	t = &dealing{}
	context := appendStr8(appendTime([]byte{byte(c.Purpose)}, c.Now), c.Organisation)
	commitments := make([]group.Element, c.Quorum)
	for k := range commitments {
		t.coefficients = append(t.coefficients, s.nonZero(src, "dealer", []byte{byte(k)}, context))
		commitments[k] = s.mulGen(t.coefficients[k])
	}
	t.key = newKey(s, c.Purpose, c.Now, c.Organisation, commitments[0])
	e := &Epoch{Key: t.key.id, Number: 1, Created: c.Now, Quorum: c.Quorum, Officers: officers, suite: s, commitments: commitments}
	if t.epoch, err = e.seal(); err != nil {
		t.destroy()
		return nil, false, err
	}
	for _, o := range officers {
		x := s.evaluate(t.coefficients, o.Index)
		t.shares = append(t.shares, newShare(s, t.key.id, t.epoch.digest, o.Index, x))
		again = again || x.IsZero()
	}
	if again {
		t.destroy()
	}
	return t, again, nil
}

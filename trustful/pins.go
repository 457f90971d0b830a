package trustful

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// How says why a signet was accepted (dmtp.md §8.9).
type How uint8

const (
	FirstUse   How = 1 + iota // the first one seen of this address
	Custody                   // an unbroken chain of custody leads to it from one that was accepted before
	Manual                    // an administrator said so
	Unverified                // accepted without a proof: a first one that is itself a successor, or after a quarantine
)

// hows is the registry of How, as stored and shown.
var hows = [...]string{FirstUse: "first-use", Custody: "custody", Manual: "manual", Unverified: "unverified"}

func (h How) String() string {
	if int(h) >= len(hows) || hows[h] == "" {
		return "?"
	}
	return hows[h]
}

// ParseHow is the inverse of String.
func ParseHow(s string) (How, error) {
	if i := slices.Index(hows[:], s); i > 0 {
		return How(i), nil
	}
	return 0, errors.New("trustful: not a way of accepting a signet")
}

// A Pin is a signet of someone else's user that was accepted. Pins outlive every cache.
type Pin struct {
	Signet   []byte             // the binary signet in ID form
	Crypto   signet.Fingerprint // its fingerprints
	Full     signet.Fingerprint
	ID       signet.Fingerprint
	How      How
	Accepted time.Time
	Checked  time.Time // when it was last seen to be current
}

// A Doubt is a signet that took the place of a pinned one without a proof of custody, and is not accepted.
type Doubt struct {
	Crypto signet.Fingerprint
	Since  time.Time
}

// A PinStore keeps what we know of others' users. It is safe for concurrent use, by several processes too.
type PinStore interface {
	// Pins returns what was accepted for an address, the oldest first, and the doubt there is, if any.
	Pins(ctx context.Context, address string) ([]Pin, *Doubt, error)

	// AddPins appends pins and ends the doubt, if the address has exactly known pins now; else ErrConflict.
	AddPins(ctx context.Context, address string, known int, pins []Pin) error

	// Checked notes that the last pin was seen to be current.
	Checked(ctx context.Context, address string, at time.Time) error

	// SetDoubt replaces the doubt about an address, and returns the one that stands: when it is about the same signet,
	// the older one.
	SetDoubt(ctx context.Context, address string, d Doubt) (Doubt, error)
}

// Peers tells of other organisations' users: the resolver, joined by the appliance. Every signet that it returns is
// verified under its organisation, in ID form, and names the address; custody is ours to verify. Its errors wrap
// ErrUnavailable when asking again later may help, ErrNoSignet when the organisation itself says that there is none; all
// others mean that an answer came and cannot be trusted.
type Peers interface {
	// Author returns the signet of an address that has that cryptographic fingerprint, current or not.
	Author(ctx context.Context, address string, crypto signet.Fingerprint) (*signet.Signet, error)

	// History returns the signets of an address from the one of that full fingerprint to the current one, the oldest
	// first (HIST, asked as often as it takes).
	History(ctx context.Context, address string, from signet.Fingerprint) ([]*signet.Signet, error)

	// Current asks over a connection of its own whether that full fingerprint is the current one (VRFY).
	Current(ctx context.Context, address string, full signet.Fingerprint) (bool, error)
}

// Errors about other organisations' users.
var (
	ErrUnavailable = errors.New("trustful: the other side's signet cannot be had now")
	ErrNoSignet    = errors.New("trustful: the other side has no such signet")
	ErrHeld        = errors.New("trustful: a key changed without custody")
)

// A HeldError says that a signet is not accepted now: it took the place of a pinned one without custody. The mail waits
// for an administrator, for a custody that is mended, or for its own end. It is ErrHeld.
type HeldError struct {
	Since time.Time // when the changed signet was first seen
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%v (seen since %s)", ErrHeld, e.Since.UTC().Format(time.RFC3339))
}

func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// A Remote is the policy that the other organisation's record publishes.
type Remote uint8

const (
	Strict Remote = iota // also what is not known
	Mixed
	Experimental
)

// A Claim is a signet that someone else's organisation vouches for, to be compared with what we know.
type Claim struct {
	Address  string
	Signet   *signet.Signet // verified under its organisation, in ID form, for Address
	Remote   Remote
	Override bool // the administrator's accept-broken-custody for this domain
	Reading  bool // it is an author's signet in a message that came: one that was current before is as good
}

// quarantine is how long a changed key of an experimental domain waits before a second look may accept it, and
// checkedStep how old the note of a pin's last look may get before it is written again.
const (
	quarantine  = 4 * time.Hour
	checkedStep = time.Hour
)

// Pins compares signets with those that were accepted before, and decides about changes (dmtp.md §8.9 and §8.10).
type Pins struct {
	store PinStore
	peers Peers
	now   func() time.Time
}

// NewPins takes what it needs; now is the clock, time.Now but in tests.
func NewPins(store PinStore, peers Peers, now func() time.Time) *Pins {
	return &Pins{store, peers, now}
}

// Trust accepts a claim and remembers it, or says why not: *HeldError for a change without custody, ErrUnavailable when
// the history cannot be had now. Nothing may be sealed to, or read as written by, a signet that it did not accept.
func (p *Pins) Trust(ctx context.Context, c Claim) error {
	address, err := Normal(c.Address)
	if err != nil {
		return err
	}
	c.Address = address
	if err := c.Signet.VerifyName(address); err != nil {
		return err
	}
	claimed, err := newPin(c.Signet)
	if err != nil {
		return err
	}
	for range 4 { // someone else may be accepting the same signet
		pins, _, err := p.store.Pins(ctx, address)
		if err != nil {
			return err
		}
		if err := p.trust(ctx, c, claimed, pins); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("trustful: pins: %w", ErrConflict)
}

func (p *Pins) trust(ctx context.Context, c Claim, claimed Pin, pins []Pin) error {
	if len(pins) == 0 {
		how := FirstUse
		if _, successor := c.Signet.Custody(); successor {
			how = Unverified
		}
		return p.accept(ctx, c.Address, 0, how, claimed)
	}
	last := pins[len(pins)-1]
	if claimed.ID == last.ID {
		if p.now().Sub(last.Checked) < checkedStep {
			return nil
		}
		return p.store.Checked(ctx, c.Address, p.now())
	}
	if c.Reading && slices.ContainsFunc(pins, func(q Pin) bool { return q.ID == claimed.ID }) {
		return nil
	}
	if sameKeys(last.Signet, c.Signet) { // the organisation signed the same keys anew
		return p.accept(ctx, c.Address, len(pins), Custody, claimed)
	}
	steps, err := p.custody(ctx, c, claimed, last)
	switch {
	case errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
		return err
	case err == nil && len(steps) == 0: // older than the last pin, in one chain with it
		return nil
	case err == nil:
		return p.accept(ctx, c.Address, len(pins), Custody, steps...)
	}
	return p.changed(ctx, c, claimed, len(pins))
}

// custody returns the steps from the last pin to the claimed signet, or none when the claim is of an author and the
// chain leads from it to the last pin. Any other error than ErrUnavailable means that there is no such chain.
func (p *Pins) custody(ctx context.Context, c Claim, claimed, last Pin) ([]Pin, error) {
	chain, err := p.peers.History(ctx, c.Address, last.Full)
	if err == nil {
		var steps []Pin
		if steps, err = walk(c.Address, chain, last, claimed); err == nil {
			return steps, nil
		}
	}
	if !c.Reading || errors.Is(err, ErrUnavailable) {
		return nil, err
	}
	if chain, err = p.peers.History(ctx, c.Address, claimed.Full); err != nil {
		return nil, err
	}
	_, err = walk(c.Address, chain, claimed, last)
	return nil, err
}

// maxChain bounds a history: a rotation a week for twenty years.
const maxChain = 1040

// errChain is why a history is no chain of custody between two signets.
var errChain = errors.New("trustful: no chain of custody")

// walk verifies a history from one signet on, and returns the steps after it up to and with another (signets.md §12).
func walk(address string, chain []*signet.Signet, from, to Pin) ([]Pin, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, errChain
	}
	var steps []Pin
	seen := map[key.SigningPublic]bool{}
	for i, s := range chain {
		pin, err := newPin(s)
		if err != nil {
			return nil, err
		}
		if s.VerifyName(address) != nil || seen[s.SigningKey()] || i == 0 && pin.ID != from.ID {
			return nil, errChain
		}
		seen[s.SigningKey()] = true
		if i == 0 {
			continue
		}
		if err := s.VerifyCustody(chain[i-1]); err != nil {
			return nil, err
		}
		if steps = append(steps, pin); pin.ID == to.ID {
			return steps, nil
		}
	}
	return nil, errChain
}

// sameKeys reports whether a stored signet holds the request of another: the user's keys, custody and own signature.
func sameKeys(stored []byte, s *signet.Signet) bool {
	old, err := signet.Parse(stored)
	if err != nil {
		return false
	}
	a, aerr := old.Fingerprint(signet.Request)
	b, berr := s.Fingerprint(signet.Request)
	return aerr == nil && berr == nil && a == b
}

// changed decides about a signet that no custody leads to: dmtp.md §8.10, the row of user signets.
func (p *Pins) changed(ctx context.Context, c Claim, claimed Pin, known int) error {
	doubt, err := p.store.SetDoubt(ctx, c.Address, Doubt{claimed.Crypto, p.now()})
	if err != nil {
		return err
	}
	switch {
	case c.Override && c.Remote != Strict:
		return p.accept(ctx, c.Address, known, Manual, claimed)
	case c.Remote == Experimental && p.now().Sub(doubt.Since) >= quarantine:
		if same, err := p.peers.Current(ctx, c.Address, claimed.Full); err == nil && same {
			return p.accept(ctx, c.Address, known, Unverified, claimed)
		}
	}
	return &HeldError{doubt.Since}
}

// Accept pins a signet by an administrator's word, whatever stood there before.
func (p *Pins) Accept(ctx context.Context, s *signet.Signet) error {
	address, err := Normal(s.Name())
	if err != nil {
		return err
	}
	pin, err := newPin(s)
	if err != nil {
		return err
	}
	pins, _, err := p.store.Pins(ctx, address)
	if err != nil {
		return err
	}
	return p.accept(ctx, address, len(pins), Manual, pin)
}

func (p *Pins) accept(ctx context.Context, address string, known int, how How, pins ...Pin) error {
	now := p.now()
	for i := range pins {
		pins[i].How, pins[i].Accepted, pins[i].Checked = how, now, now
	}
	return p.store.AddPins(ctx, address, known, pins)
}

func newPin(s *signet.Signet) (p Pin, err error) {
	p.Signet = slices.Clone(s.Bytes())
	p.Crypto, p.Full, p.ID, err = fingerprints(s)
	return p, err
}

// fingerprints returns the three of a signet in ID form.
func fingerprints(s *signet.Signet) (crypto, full, id signet.Fingerprint, err error) {
	if s.Form() != signet.ID {
		return crypto, full, id, errors.New("trustful: the signet is not in ID form")
	}
	for _, f := range []struct {
		form signet.Form
		into *signet.Fingerprint
	}{{signet.Crypto, &crypto}, {signet.Full, &full}, {signet.ID, &id}} {
		if *f.into, err = s.Fingerprint(f.form); err != nil {
			return crypto, full, id, err
		}
	}
	return crypto, full, id, nil
}

package trustful

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// MinGrace is how long a retired encryption key must be kept at least: 30 days of others' caches (dmtp.md §8.8), 5 days
// of their queues, and one.
const MinGrace = 36 * 24 * time.Hour

// Errors about our own users.
var (
	// ErrNotOurs is returned for an address whose domain is none of ours.
	ErrNotOurs = errors.New("trustful: not one of our domains")
	// ErrNoUser is returned for an address that has no signet and shall not get one.
	ErrNoUser = errors.New("trustful: no such user")
	// ErrDisabled is an ErrNoUser: an administrator's decision, until which is undone no keys are used or made.
	ErrDisabled = fmt.Errorf("%w: disabled", ErrNoUser)
)

// An Organization vouches for its users: it has the organisation's keys, which the Keeper never sees.
type Organization interface {
	// Signets returns the organisational signets of one of our domains, in ID form, the oldest first: the last is the
	// current one. ErrNotOurs for other domains.
	Signets(ctx context.Context, domain string) ([]*signet.Signet, error)

	// Certify returns the user signet, in ID form, that one of the domain's users gets with these details. The organisation
	// may add fields of its own.
	Certify(ctx context.Context, domain string, u *signet.Uncertified, d signet.Details) (*signet.Signet, error)

	// SignRequest returns the user signet that one of the domain's users gets for keys that he made himself: see signet.SignRequest.
	SignRequest(ctx context.Context, domain string, request *signet.Signet, d signet.Details) (*signet.Signet, error)

	// Rename returns one of the domain's user signets under another name of the domain: see signet.Renamed.
	Rename(ctx context.Context, domain string, s *signet.Signet, name string) (*signet.Signet, error)
}

// Mailboxes knows which addresses exist: the inner mail server. Confirm returns nil for one that it knows for certain,
// ErrNoUser for one that it refuses or would accept whatever its name, and any other error when it cannot say now.
type Mailboxes interface {
	Confirm(ctx context.Context, address string) error
}

// Options is what a Keeper is made of. Now is time.Now unless a test says otherwise.
type Options struct {
	Store        Store
	Organization Organization
	Mailboxes    Mailboxes // nil: only senders are enrolled
	Pins         *Pins
	Peers        Peers
	Grace        time.Duration              // of retired keys; at least MinGrace
	Life         time.Duration              // of current keys, after which RotateDue replaces them; 0: they stay
	Keeps        func(domain string) bool   // says that a domain's users keep their keys; nil: none does
	Separator    func(domain string) string // between mailbox and detail of a sub-address; nil, or "": the domain has none
	Layer        Layer
	Now          func() time.Time
}

// A Keeper has the keys of our users. It is safe for concurrent use, and several processes may have one over one store.
type Keeper struct {
	Options
	making locks
}

// NewKeeper takes what it needs and starts nothing.
func NewKeeper(o Options) (*Keeper, error) {
	if o.Grace < MinGrace {
		return nil, fmt.Errorf("trustful: grace %v is under %v: mail sealed to a cached signet would be lost", o.Grace, MinGrace)
	}
	if o.Life != 0 && o.Life < MinLife {
		return nil, fmt.Errorf("trustful: a life of %v is under %v: peers cache a signet that long", o.Life, MinLife)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Keeper{Options: o}, nil
}

// A user is an address with its current generation and the signets that go with it.
type user struct {
	address string
	mailbox string // under which its keys are kept
	number  int
	signet  *signet.Signet
	made    time.Time
	held    bool         // his private keys are his own
	signing *key.Signing // of one that is held, lent by the user: see TakeBack
}

// Enrol returns the current signet of one of our addresses, and makes its keys when it has none: once, whoever else asks
// at the same time. A sub-address has those of its mailbox. The caller knows that the mailbox exists: its owner sent mail, or the inner server confirmed it.
func (k *Keeper) Enrol(ctx context.Context, address string) (*signet.Signet, error) {
	u, err := k.enrol(ctx, address)
	return u.signet, err
}

func (k *Keeper) enrol(ctx context.Context, address string) (user, error) {
	address, err := Normal(address)
	if err != nil {
		return user{}, err
	}
	if _, err := k.organization(ctx, domainOf(address)); err != nil {
		return user{}, err
	}
	u, err := k.current(ctx, address)
	if !errors.Is(err, ErrNoUser) || errors.Is(err, ErrDisabled) {
		return u, err
	}
	release, err := k.making.acquire(ctx, u.mailbox)
	if err != nil {
		return user{}, err
	}
	defer release()
	u, err = k.current(ctx, address) // the one before us may have made them
	if !errors.Is(err, ErrNoUser) || errors.Is(err, ErrDisabled) {
		return u, err
	}
	if _, err := k.make(ctx, u.mailbox, u.number+1, nil); err != nil && !errors.Is(err, ErrConflict) {
		return user{}, err
	}
	return k.current(ctx, address) // what is in the store counts: another process may have been first
}

// current returns what the store has, ErrNoUser when that is nothing, with the mailbox and the number of what was last.
func (k *Keeper) current(ctx context.Context, address string) (user, error) {
	mailbox, all, err := k.generations(ctx, address)
	if err != nil {
		return user{}, err
	}
	if len(all) == 0 {
		return user{mailbox: mailbox}, ErrNoUser
	}
	g := all[len(all)-1]
	if !g.Current() { // destroyed before its time: what comes next begins a new chain
		return user{mailbox: mailbox, number: g.Number}, ErrNoUser
	}
	s, err := k.signetFor(ctx, address, g)
	return user{address, mailbox, g.Number, s, g.Made, g.Held, nil}, err
}

// organization returns the current organisational signet of one of our domains.
func (k *Keeper) organization(ctx context.Context, domain string) (*signet.Signet, error) {
	all, err := k.Organization.Signets(ctx, domain)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: it has no organisational signet", ErrNotOurs)
	}
	return all[len(all)-1], nil
}

// make makes keys and their signet, those of a number that begin a chain or the successor of previous, and stores them in one commit:
// before that nothing of them has left this function, after it they are published.
func (k *Keeper) make(ctx context.Context, address string, number int, previous *user) (*signet.Signet, error) {
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		return nil, err
	}
	defer pair.Destroy()
	custodian := (*key.Signing)(nil)
	if previous != nil {
		custodian = previous.signing
	}
	if previous != nil && !previous.held {
		old, err := k.Store.Signing(ctx, address, previous.number)
		if err != nil {
			return nil, err
		}
		defer old.Destroy()
		custodian = &old
	}
	layers, err := k.Layer.generate()
	if err != nil {
		return nil, err
	}
	offered, fields := message.Offer(layers, k.Layer.Always)
	u, err := signet.NewUncertified(pair, signet.RequestDetails{Previous: custodian, Layers: offered})
	if err != nil {
		return nil, err
	}
	made, err := k.Organization.Certify(ctx, domainOf(address), u, signet.Details{Name: address, Fields: append(advertised(signet.User, len(layers) > 0), fields...)})
	if err != nil {
		return nil, err
	}
	if err := k.check(ctx, address, u, made, previous); err != nil {
		return nil, err
	}
	return made, k.Store.Append(ctx, address, Generation{Number: number, Signet: made.Bytes(), Made: k.Now()}, Keys{pair, layers})
}

// check is the look that a user's agent takes at what the organisation signed, before it is published: the same keys,
// the right name, every signature, and custody.
func (k *Keeper) check(ctx context.Context, address string, u *signet.Uncertified, made *signet.Signet, previous *user) error {
	org, err := k.organization(ctx, domainOf(address))
	if err != nil {
		return err
	}
	if err := made.VerifyUser(org); err != nil {
		return fmt.Errorf("trustful: the signet that was signed: %w", err)
	}
	if made.Form() != signet.ID || made.Name() != address || !u.Begins(made) {
		return errors.New("trustful: the signet that was signed is not the one that was asked for")
	}
	if previous != nil {
		if err := made.VerifyCustody(previous.signet); err != nil {
			return fmt.Errorf("trustful: the signet that was signed: %w", err)
		}
	}
	return nil
}

package resolver

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"dimegate/dmtp/signet"
)

// A User is an address with a signet that its organisation vouches for. It does not change. Whether this signet may take
// the place of one that was used before is not decided here: see History, and trustful.
type User struct {
	Address  string
	Signet   *signet.Signet
	Org      *Domain
	Weak     bool      // the signet does not say whose it is: AcceptUnnamed
	Fresh    time.Time // when it was last known to be the current one; zero: it is a past one
	Evidence *Evidence
}

// A cachedUser is what is kept of a user. It says nothing without an org signet to verify it under: see holds.
type cachedUser struct {
	under    atomic.Pointer[signet.Signet] // an org signet under which it was verified; signets do not change
	signet   *signet.Signet
	weak     bool
	from     time.Time // when it was fetched
	fresh    time.Time
	evidence *Evidence
}

// User returns the current signet of an address, verified under its organisation: names and signatures hold, and it was
// current within the hour when it is for sending, else within the day. The error is an *Error, ErrBadName, or the
// context's.
func (r *Resolver) User(ctx context.Context, address string, sending bool) (*User, error) {
	address, domain, err := NormalAddress(address)
	if err != nil {
		return nil, err
	}
	soft, id := userSoft, address
	if sending {
		soft, id = userSoftSend, "sending "+address
	}
	return r.userFlight.do(ctx, id, func(ctx context.Context) (*User, error) {
		v := &visit{r: r}
		defer v.close()
		d, err := r.org(ctx, domain, v)
		if err != nil {
			return nil, err
		}
		return r.user(ctx, d, address, soft, v)
	})
}

// user is User below a domain that is verified.
func (r *Resolver) user(ctx context.Context, d *Domain, address string, soft time.Duration, v *visit) (*User, error) {
	now := r.now()
	known, _ := r.users.get(address, now)
	if known != nil && (now.Before(known.from.Add(-clockSkew)) || !known.holds(d)) {
		known = nil
	}
	if known != nil && now.Before(known.fresh.Add(soft)) {
		return known.user(d, address), nil
	}
	if e, ok := r.missing.get(address, now); ok {
		return nil, e
	}
	v.to(d, d.forUser(address))
	s, err := v.session(ctx)
	switch {
	case err != nil && known != nil && verdictOf(err) == ErrTemporary && !ended(ctx):
		return known.user(d, address), nil // it lives until its hard time
	case err != nil:
		return nil, err
	}
	if known != nil {
		fp, err := known.signet.Fingerprint(signet.Full)
		if err != nil {
			return nil, err
		}
		current, _, err := s.Verify(ctx, address, fp)
		switch {
		case err == nil && current:
			fresh := newCachedUser(d, known.signet, known.weak, known.from, now, known.evidence)
			r.users.put(address, fresh, known.from.Add(signetHard), now)
			return fresh.user(d, address), nil
		case ended(ctx):
			return nil, context.Cause(ctx)
		case err != nil && !errors.Is(err, ErrNoSignet):
			return known.user(d, address), nil
		}
	}
	u, err := r.fetchUser(ctx, d, address, s, v)
	if err == nil || known == nil || verdictOf(err) != ErrTemporary || ended(ctx) {
		return u, err
	}
	return known.user(d, address), nil
}

// fetchUser asks for the current signet and verifies it (dmtp chapter 8.5).
func (r *Resolver) fetchUser(ctx context.Context, d *Domain, address string, s Session, v *visit) (*User, error) {
	now := r.now()
	octets, err := s.Signet(ctx, address)
	if err != nil {
		return nil, r.userFailed(ctx, d, address, err)
	}
	fetched, err := signet.Parse(octets)
	if err != nil {
		return nil, &Error{Verdict: ErrGarbled, Name: address, Err: err, Evidence: v.ev}
	}
	if fetched.VerifyUser(d.Signet) != nil && now.Sub(d.at) > time.Minute { // the organisation may have a new signet
		renewed, err := r.renew(ctx, d.Name, nil, v)
		if err != nil {
			return nil, err
		}
		d = renewed
		v.to(d, d.forUser(address))
	}
	weak, err := r.checkUser(fetched, d, address)
	if err != nil {
		r.alarm(ctx, "substitution", address, err.Error(), v.ev)
		return nil, &Error{Verdict: ErrUntrusted, Name: address, Why: "user signet", Err: err, Evidence: v.ev}
	}
	v.ev.UserSignet, v.ev.Fresh = fingerprint(fetched, signet.ID), now
	c := newCachedUser(d, fetched, weak, now, now, v.ev)
	r.users.put(address, c, earlier(now.Add(signetHard), d.hard), now)
	return c.user(d, address), nil
}

// checkUser verifies a fetched signet under the domain's and its name.
func (r *Resolver) checkUser(s *signet.Signet, d *Domain, address string) (weak bool, err error) {
	if err := s.VerifyUser(d.Signet); err != nil {
		return false, err
	}
	return r.named(s, address)
}

// userFailed is for a DX that gives no user signet. That there is none is believed, since the DX is authenticated.
func (r *Resolver) userFailed(ctx context.Context, d *Domain, address string, err error) error {
	now := r.now()
	switch {
	case ended(ctx):
		return context.Cause(ctx)
	case errors.Is(err, ErrNoSignet):
		r.users.forget(address)
		e := &Error{Verdict: ErrNoSignet, Name: address, Domain: d, Evidence: d.forUser(address)}
		r.missing.put(address, e, now.Add(noSignetTTL), now)
		return e
	}
	return &Error{Verdict: ErrTemporary, Name: address, Err: err, Domain: d, Evidence: d.forUser(address)}
}

// newCachedUser keeps a signet that was verified under d's.
func newCachedUser(d *Domain, s *signet.Signet, weak bool, from, fresh time.Time, ev *Evidence) *cachedUser {
	c := &cachedUser{signet: s, weak: weak, from: from, fresh: fresh, evidence: ev}
	c.under.Store(d.Signet)
	return c
}

// holds tells whether the signet verifies under its organisation's current one.
func (c *cachedUser) holds(d *Domain) bool {
	if c.under.Load() == d.Signet {
		return true
	}
	if c.signet.VerifyUser(d.Signet) != nil {
		return false
	}
	c.under.Store(d.Signet)
	return true
}

func (c *cachedUser) user(d *Domain, address string) *User {
	return &User{Address: address, Signet: c.signet, Org: d, Weak: c.weak, Fresh: c.fresh, Evidence: c.evidence}
}

// forUser begins the evidence of a user with that of the domain.
func (d *Domain) forUser(address string) *Evidence {
	ev := *d.Evidence
	ev.Address, ev.At = address, d.now()
	return &ev
}

// Forget drops what is cached of a name, so that the next look-up asks: for a peer that refuses a signet as outdated.
func (r *Resolver) Forget(name string) {
	if address, domain, err := NormalAddress(name); err == nil {
		r.users.forget(address)
		r.missing.forget(address)
		name = domain
	}
	if domain, err := NormalDomain(name); err == nil {
		r.domains.forget(domain)
		r.failed.forget(domain)
	}
}

// Retry drops the failures of a name that are remembered from before t, so that the next look-up asks: for who has mended
// something. What DNS itself keeps stays.
func (r *Resolver) Retry(name string, t time.Time) {
	if address, domain, err := NormalAddress(name); err == nil {
		r.missing.forgetOlder(address, t)
		name = domain
	}
	if domain, err := NormalDomain(name); err == nil {
		r.failed.forgetOlder(domain, t)
	}
}

// Known tells whether a domain is in the cache, so that a look-up of its org signet may need no network.
func (r *Resolver) Known(domain string) bool {
	name, err := NormalDomain(domain)
	if err != nil {
		return false
	}
	_, ok := r.domains.get(name, r.now())
	return ok
}

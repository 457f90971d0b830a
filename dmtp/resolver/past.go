package resolver

import (
	"context"
	"errors"
	"slices"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// maxHistory bounds the signets of a chain that are verified: a rotation a week for twenty years.
const maxHistory = 1040

// OrgByFingerprint returns the org signet of a domain that has the fingerprint, in any of its forms: that of a message's
// origin. It may be an older one than the domain's current, but its POK must be in the record now. ErrNoSignet: the
// domain has none such.
func (r *Resolver) OrgByFingerprint(ctx context.Context, domain string, fp signet.Fingerprint) (*signet.Signet, *Domain, error) {
	v := &visit{r: r}
	defer v.close()
	d, err := r.org(ctx, domain, v)
	if err != nil {
		return nil, nil, err
	}
	if has(d.Signet, fp) {
		return d.Signet, d, nil
	}
	if r.now().Sub(d.at) > time.Minute { // a newer one than we know
		if d, err = r.renew(ctx, d.Name, nil, v); err != nil {
			return nil, nil, err
		}
		if has(d.Signet, fp) {
			return d.Signet, d, nil
		}
	}
	v.to(d, d.Evidence.clone())
	s, err := r.past(ctx, v, d.Name, fp, func(s *signet.Signet) error { return s.VerifyOrg(d.Record.POKs) })
	return s, d, err
}

// UserByFingerprint returns the signet of an address that has the fingerprint, in any of its forms, current or not: that of
// a message's author. It is verified under its organisation and names the address.
func (r *Resolver) UserByFingerprint(ctx context.Context, address string, fp signet.Fingerprint) (*User, error) {
	address, domain, err := NormalAddress(address)
	if err != nil {
		return nil, err
	}
	v := &visit{r: r}
	defer v.close()
	d, err := r.org(ctx, domain, v)
	if err != nil {
		return nil, err
	}
	now := r.now()
	if known, ok := r.users.get(address, now); ok && has(known.signet, fp) && known.holds(d) {
		return known.user(d, address), nil
	}
	v.to(d, d.forUser(address))
	conn, err := v.session(ctx)
	if err != nil {
		return nil, err
	}
	current, err := r.fetchUser(ctx, d, address, conn, v)
	switch {
	case err == nil && has(current.Signet, fp):
		return current, nil
	case err != nil && !errors.Is(err, ErrNoSignet): // one who has left may have written before
		return nil, err
	case current != nil:
		d = current.Org
	}
	orgs := r.orgs(ctx, v, d)
	v.to(d, d.forUser(address))
	s, err := r.past(ctx, v, address, fp, func(s *signet.Signet) error { return underAny(s, orgs) })
	if err != nil {
		return nil, err
	}
	v.ev.UserSignet = fingerprint(s, signet.ID)
	return &User{Address: address, Signet: s, Org: d, Weak: s.Form() != signet.ID, Evidence: v.ev}, nil
}

// past asks for the signet of a name by its fingerprint: through the history, which gives it with its name, then by SGNT,
// which gives it as far as the fingerprint reaches.
func (r *Resolver) past(ctx context.Context, v *visit, name string, fp signet.Fingerprint, verify func(*signet.Signet) error) (*signet.Signet, error) {
	conn, err := v.session(ctx)
	if err != nil {
		return nil, err
	}
	list, err := conn.History(ctx, name, fp, nextStart)
	if err == nil && len(list) > 0 {
		if s, err := signet.Parse(list[0]); err == nil && has(s, fp) && verify(s) == nil {
			if _, err := r.named(s, name); err == nil {
				return s, nil
			}
		}
	}
	if ended(ctx) {
		return nil, context.Cause(ctx)
	}
	octets, err := conn.SignetByFingerprint(ctx, name, fp)
	switch {
	case ended(ctx):
		return nil, context.Cause(ctx)
	case errors.Is(err, ErrNoSignet):
		return nil, &Error{Verdict: ErrNoSignet, Name: name, Why: "none with that fingerprint", Domain: v.domain, Evidence: v.ev}
	case err != nil:
		return nil, &Error{Verdict: ErrTemporary, Name: name, Err: err, Evidence: v.ev}
	}
	s, err := signet.Parse(octets)
	if err != nil {
		return nil, &Error{Verdict: ErrGarbled, Name: name, Err: err, Evidence: v.ev}
	}
	if !has(s, fp) { // a peer that does not know it may answer with the current one: a wrong answer, and no alarm
		return nil, &Error{Verdict: ErrNoSignet, Name: name, Why: "none with that fingerprint", Err: errForged, Domain: v.domain, Evidence: v.ev}
	}
	if err = verify(s); err == nil {
		_, err = r.named(s, name)
	}
	if err != nil {
		r.alarm(ctx, "substitution", name, err.Error(), v.ev)
		return nil, &Error{Verdict: ErrUntrusted, Name: name, Err: err, Evidence: v.ev}
	}
	return s, nil
}

// has tells that s has the fingerprint in one of the forms that it reaches.
func has(s *signet.Signet, fp signet.Fingerprint) bool {
	for f := signet.Crypto; f <= s.Form(); f++ {
		if got, err := s.Fingerprint(f); err == nil && got.Equal(fp) {
			return true
		}
	}
	return false
}

// nextStart tells a session where the next part of a history begins.
func nextStart(last []byte) ([64]byte, error) {
	s, err := signet.Parse(last)
	if err != nil {
		return [64]byte{}, err
	}
	return s.Fingerprint(signet.Full)
}

// orgs returns the org signets under which users of d may have been signed: the current one, and those of its history
// whose POK is in the record or was trusted before.
func (r *Resolver) orgs(ctx context.Context, v *visit, d *Domain) []*signet.Signet {
	list := []*signet.Signet{d.Signet}
	pin, err := r.c.Store.Pin(ctx, d.Name)
	if err != nil || pin == nil || pin.Check() != nil || len(pin.Orgs) < 2 {
		return list
	}
	start, err := signet.ParseFingerprint(pin.Orgs[0].ID)
	if err != nil {
		return list
	}
	conn, err := v.session(ctx)
	if err != nil {
		return list
	}
	poks := slices.Clone(d.Record.POKs)
	for _, p := range pin.POKs {
		if p.Trusted {
			poks = append(poks, p.Key)
		}
	}
	history, err := conn.History(ctx, d.Name, start, nextStart)
	if err != nil {
		return list
	}
	for _, octets := range history[:min(len(history), maxOrgPins)] {
		s, err := signet.Parse(octets)
		if err == nil && s.VerifyOrg(poks) == nil && s.VerifyName(d.Name) == nil {
			list = append(list, s)
		}
	}
	return list
}

func underAny(s *signet.Signet, orgs []*signet.Signet) error {
	err := error(key.ErrSignature)
	for _, o := range orgs {
		if err = s.VerifyUser(o); err == nil {
			return nil
		}
	}
	return err
}

// History returns the signets of an address from the one with that full fingerprint to the current one, the oldest first:
// each in ID form and of that name, verified under an org signet of its domain, and in the custody of the one before (dmtp
// chapter 8.6). ErrNoSignet: the peer knows no such start. ErrUntrusted: what it gave is no such chain.
func (r *Resolver) History(ctx context.Context, address string, from signet.Fingerprint) ([]*signet.Signet, error) {
	address, domain, err := NormalAddress(address)
	if err != nil {
		return nil, err
	}
	v := &visit{r: r}
	defer v.close()
	d, err := r.org(ctx, domain, v)
	if err != nil {
		return nil, err
	}
	v.to(d, d.forUser(address))
	conn, err := v.session(ctx)
	if err != nil {
		return nil, err
	}
	octets, err := conn.History(ctx, address, from, nextStart)
	if err != nil && errors.Is(err, ErrNoSignet) && !ended(ctx) {
		return nil, &Error{Verdict: ErrNoSignet, Name: address, Why: "no history from that fingerprint", Domain: d, Evidence: v.ev}
	} else if err != nil {
		return nil, r.userFailed(ctx, d, address, err)
	}
	list, err := parseHistory(octets, address, from)
	if err == nil {
		if err = signet.VerifyChain(list, d.Signet); err != nil {
			err = signet.VerifyChain(list, r.orgs(ctx, v, d)...)
		}
	}
	if err != nil {
		r.alarm(ctx, "substitution", address, err.Error(), v.ev)
		return nil, &Error{Verdict: ErrUntrusted, Name: address, Why: "chain of custody", Err: err, Evidence: v.ev}
	}
	return list, nil
}

func parseHistory(octets [][]byte, address string, from signet.Fingerprint) ([]*signet.Signet, error) {
	if len(octets) == 0 || len(octets) > maxHistory {
		return nil, errors.New("a history of no length that can be")
	}
	var list []*signet.Signet
	for _, o := range octets {
		s, err := signet.Parse(o)
		if err != nil {
			return nil, err
		}
		if err := s.VerifyName(address); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if !has(list[0], from) {
		return nil, errForged
	}
	return list, nil
}

// Current asks over a connection of its own, to another host first where there is one, whether that full fingerprint is
// the current one of the address: a second opinion (dmtp chapter 8.10).
func (r *Resolver) Current(ctx context.Context, address string, full signet.Fingerprint) (bool, error) {
	address, domain, err := NormalAddress(address)
	if err != nil {
		return false, err
	}
	d, err := r.Org(ctx, domain)
	if err != nil {
		return false, err
	}
	hosts := d.Hosts
	if len(hosts) > 1 {
		hosts = append(slices.Clone(hosts[1:]), hosts[0])
	}
	conn, err := r.connect(ctx, d, hosts, d.forUser(address))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	current, _, err := conn.Verify(ctx, address, full)
	if err != nil && errors.Is(err, ErrNoSignet) && !ended(ctx) {
		return false, nil
	} else if err != nil {
		return false, r.userFailed(ctx, d, address, err)
	}
	return current, nil
}

func (e *Evidence) clone() *Evidence {
	c := *e
	return &c
}

package trustful

import (
	"context"
	"errors"
	"strings"

	"dimegate/dmtp/signet"
)

// HistoryLimit is how many signets History returns at most; who wants more asks again from the last one (dmtp.md OC-19).
const HistoryLimit = 64

// Signet answers SGNT (dmtp.md OC-17): the current signet of a domain or an address of ours in ID form, or the one, current
// or past, that has the fingerprint fp, cut to the form that fp names. A zero fp is none. An address without keys gets
// them when the inner server confirms it. ErrNoUser stands for all that we have not got; it creates nothing.
func (k *Keeper) Signet(ctx context.Context, name string, fp signet.Fingerprint) (*signet.Signet, error) {
	all, err := k.published(ctx, name)
	if err != nil && !errors.Is(err, ErrNoUser) {
		return nil, err
	}
	if fp == (signet.Fingerprint{}) {
		if len(all) > 0 {
			return all[len(all)-1], nil
		}
		return k.discover(ctx, name)
	}
	i, form := find(all, fp)
	if i < 0 {
		return nil, ErrNoUser
	}
	return all[i].Cut(form)
}

// Verify answers VRFY (OC-18): whether fp, of any form, is of the current signet of name, and that signet's ID
// fingerprint. ErrNoUser when there never was one of that fingerprint.
func (k *Keeper) Verify(ctx context.Context, name string, fp signet.Fingerprint) (current bool, id signet.Fingerprint, err error) {
	all, err := k.published(ctx, name)
	if err != nil {
		return false, id, err
	}
	i, _ := find(all, fp)
	if i < 0 {
		return false, id, ErrNoUser
	}
	id, err = all[len(all)-1].Fingerprint(signet.ID)
	return i == len(all)-1, id, err
}

// History answers HIST (OC-19): the signets of name from the one with the fingerprint from to the one with the
// fingerprint to, in ID form, the oldest first, HistoryLimit at most. Zero values stand for the first and the current.
func (k *Keeper) History(ctx context.Context, name string, from, to signet.Fingerprint) ([]*signet.Signet, error) {
	all, err := k.published(ctx, name)
	if err != nil {
		return nil, err
	}
	first, last := 0, len(all)-1
	if from != (signet.Fingerprint{}) {
		first, _ = find(all, from)
	}
	if to != (signet.Fingerprint{}) {
		last, _ = find(all, to)
	}
	if first < 0 || last < first {
		return nil, ErrNoUser
	}
	return all[first:min(last+1, first+HistoryLimit)], nil
}

// published returns every signet of a domain or an address of ours, the oldest first, in ID form.
func (k *Keeper) published(ctx context.Context, name string) ([]*signet.Signet, error) {
	if !strings.Contains(name, "@") {
		all, err := k.Organization.Signets(ctx, lower(name))
		if errors.Is(err, ErrNotOurs) {
			err = ErrNoUser
		}
		return all, err
	}
	address, err := Normal(name)
	if err != nil {
		return nil, ErrNoUser
	}
	generations, err := k.Store.Generations(ctx, address)
	if err != nil {
		return nil, err
	}
	if len(generations) == 0 {
		return nil, ErrNoUser
	}
	all := make([]*signet.Signet, len(generations))
	for i, g := range generations {
		if all[i], err = parseStored(g); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// discover enrols an address that someone asks for, if the inner server knows it.
func (k *Keeper) discover(ctx context.Context, name string) (*signet.Signet, error) {
	address, err := Normal(name)
	if err != nil || k.Mailboxes == nil {
		return nil, ErrNoUser
	}
	if _, err := k.organization(ctx, domainOf(address)); errors.Is(err, ErrNotOurs) {
		return nil, ErrNoUser
	} else if err != nil {
		return nil, err
	}
	if err := k.Mailboxes.Confirm(ctx, address); err != nil {
		return nil, err
	}
	return k.Enrol(ctx, address)
}

// find returns the index of the signet with that fingerprint and the form whose fingerprint it is, or -1.
func find(all []*signet.Signet, fp signet.Fingerprint) (int, signet.Form) {
	for i, s := range all {
		for _, form := range []signet.Form{signet.ID, signet.Full, signet.Crypto} {
			if own, err := s.Fingerprint(form); err == nil && own == fp {
				return i, form
			}
		}
	}
	return -1, 0
}

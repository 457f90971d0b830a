package trustful

import (
	"context"
	"errors"

	"dimegate/dmtp"
	"dimegate/dmtp/signet"
)

// Current returns the current signet of a domain or an address of ours, in ID form: what SGNT answers without a fingerprint.
// An address without keys gets them when the inner server confirms it. ErrNoUser stands for all that we have not got; such
// a question costs a look, and makes nothing.
func (k *Keeper) Current(ctx context.Context, name string) (*signet.Signet, error) {
	all, err := k.Chain(ctx, name)
	if err == nil {
		return all[len(all)-1], nil
	}
	if !errors.Is(err, ErrNoUser) || errors.Is(err, ErrDisabled) || !dmtp.IsAddress(name) {
		return nil, err
	}
	return k.discover(ctx, name)
}

// Chain returns every signet that a domain or an address of ours ever had, in ID form, each the successor of the one
// before it, the current one last; else ErrNoUser. It makes nothing.
func (k *Keeper) Chain(ctx context.Context, name string) ([]*signet.Signet, error) {
	name, err := dmtp.Name(name)
	if err != nil {
		return nil, ErrNoUser
	}
	if !dmtp.IsAddress(name) {
		all, err := k.Organization.Signets(ctx, name)
		if errors.Is(err, ErrNotOurs) || err == nil && len(all) == 0 {
			err = ErrNoUser
		}
		return all, err
	}
	_, generations, err := k.generations(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(generations) == 0 || !generations[len(generations)-1].Current() {
		return nil, ErrNoUser
	}
	all := make([]*signet.Signet, len(generations))
	for i, g := range generations {
		if all[i], err = k.signetFor(ctx, name, g); err != nil {
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

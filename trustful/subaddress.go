package trustful

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dimegate/dmtp/signet"
)

// base returns the mailbox that a normal address is a sub-address of (RFC 5233: "user+detail"), or nothing.
func (k *Keeper) base(address string) string {
	if k.Separator == nil {
		return ""
	}
	local, domain, _ := strings.Cut(address, "@")
	separator := k.Separator(domain)
	if separator == "" {
		return ""
	}
	user, _, found := strings.Cut(local, separator)
	if !found || user == "" {
		return ""
	}
	base, err := Normal(user + "@" + domain)
	if err != nil {
		return ""
	}
	return base
}

// generations returns those that serve a normal address, the oldest first, and the mailbox that they are kept under: its own
// where it has any, else, of a sub-address, those of the mailbox. None is no error.
func (k *Keeper) generations(ctx context.Context, address string) (mailbox string, all []Generation, err error) {
	all, err = k.Store.Generations(ctx, address)
	base := k.base(address)
	if err != nil || len(all) > 0 || base == "" {
		return address, all, err
	}
	all, err = k.Store.Generations(ctx, base)
	return base, all, err
}

// signetFor reads a generation's signet as one of an address: a sub-address shows its mailbox's signet under its own name, which
// the organisation signs when it is asked for. All but the name, and all fingerprints but that of the ID form, stay.
func (k *Keeper) signetFor(ctx context.Context, address string, g Generation) (*signet.Signet, error) {
	s, err := parseStored(g)
	if err != nil || s.Name() == address {
		return s, err
	}
	domain := domainOf(address)
	made, err := k.Organization.Rename(ctx, domain, s, address)
	if err != nil {
		return nil, err
	}
	org, err := k.organization(ctx, domain)
	if err != nil {
		return nil, err
	}
	if err := made.VerifyUser(org); err != nil {
		return nil, fmt.Errorf("trustful: the signet that was renamed: %w", err)
	}
	if full, err := made.Fingerprint(signet.Full); err != nil || !sameFull(s, full) || made.Name() != address {
		return nil, errors.New("trustful: the signet that was renamed is not the one that was asked for")
	}
	return made, nil
}

func sameFull(s *signet.Signet, full signet.Fingerprint) bool {
	own, err := s.Fingerprint(signet.Full)
	return err == nil && own == full
}

package appliance

import (
	"context"
	"time"

	"dimegate/appliance/keystore"
)

// sweepKeys takes the steps that are due in the lives of keys: users' are replaced, and destroyed at the end of their grace;
// organisations' secondary keys get a successor, give way to it, and go. A fault is told, and tried again in an hour.
func (t *tenant) sweepKeys(ctx context.Context) {
	t.rotateSecondary(ctx)
	n, err := t.keeper.RotateDue(ctx)
	if err != nil && ctx.Err() == nil {
		t.Log.Error("keys past their life could not be rotated: they stay in use, and are tried again in an hour", "error", err)
	}
	if n > 0 {
		t.Log.Info("keys rotated at the end of their life", "count", n)
	}
	if n, err := t.keeper.Sweep(ctx); err != nil && ctx.Err() == nil {
		t.Log.Error("keys past their grace could not be destroyed", "error", err)
	} else if n > 0 {
		t.Log.Info("keys destroyed at the end of their grace", "count", n)
	}
}

func (t *tenant) rotateSecondary(ctx context.Context) {
	for _, domain := range t.domains() {
		took, err := keystore.RotateSecondary(ctx, t.vault.Vault, domain, t.config.SecondaryLife(domain), t.Now())
		if err != nil && ctx.Err() == nil {
			t.Log.Error("a secondary key could not be rotated: all stays as it is, and is tried again in an hour", "error", err)
		}
		for _, s := range took {
			t.Log.Info("secondary key", "domain", domain, "step", s.What)
		}
	}
	t.seeRollovers(ctx)
	t.refreshOrganizations(ctx)
}

// seeRollovers notes when DNS lists both keys of a domain whose primary key is being replaced: others' time runs from then on.
func (t *tenant) seeRollovers(ctx context.Context) {
	for _, domain := range t.domains() {
		if r, err := keystore.RolloverOf(ctx, t.vault.Vault, domain); err != nil || !r.Seen.IsZero() {
			continue
		}
		r, _, err := t.published(ctx, domain)
		if err == nil && r != nil {
			err = keystore.SeeRollover(ctx, t.vault.Vault, domain, r.POKs, t.Now())
		}
		if err != nil && ctx.Err() == nil {
			t.Log.Warn("the primary key is being replaced, and its record waits", "domain", domain, "error", err)
		}
	}
}

// refreshEvery is how long what changed in the vault beside us may wait until we serve it.
const refreshEvery = time.Minute

// watchOrganizations takes up what commands and other gateways on the vault did to our organisations.
func (t *tenant) watchOrganizations(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(refreshEvery):
			t.refreshOrganizations(ctx)
		}
	}
}

func (t *tenant) refreshOrganizations(ctx context.Context) {
	for _, domain := range t.domains() {
		changed, err := t.orgs.refresh(ctx, domain)
		switch {
		case err != nil && ctx.Err() == nil:
			t.Log.Error("what is published for a domain could not be read again: it is served as before", "error", err)
		case changed:
			t.Log.Info("a new organisational signet is served", "domain", domain)
		}
	}
}

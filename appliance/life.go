package appliance

import (
	"context"
	"time"

	"dimegate/appliance/keystore"
)

// sweepKeys takes the steps that are due in the lives of keys: users' are replaced, and destroyed at the end of their grace;
// organisations' secondary keys get a successor, give way to it, and go. A fault is told, and tried again in an hour.
func (a *Appliance) sweepKeys(ctx context.Context) {
	a.rotateSecondary(ctx)
	n, err := a.keeper.RotateDue(ctx)
	if err != nil && ctx.Err() == nil {
		a.Log.Error("keys past their life could not be rotated: they stay in use, and are tried again in an hour", "error", err)
	}
	if n > 0 {
		a.Log.Info("keys rotated at the end of their life", "count", n)
	}
	if n, err := a.keeper.Sweep(ctx); err != nil && ctx.Err() == nil {
		a.Log.Error("keys past their grace could not be destroyed", "error", err)
	} else if n > 0 {
		a.Log.Info("keys destroyed at the end of their grace", "count", n)
	}
}

func (a *Appliance) rotateSecondary(ctx context.Context) {
	for _, domain := range a.domains() {
		took, err := keystore.RotateSecondary(ctx, a.vault.Vault, domain, a.config.SecondaryLife(domain), a.Now())
		if err != nil && ctx.Err() == nil {
			a.Log.Error("a secondary key could not be rotated: all stays as it is, and is tried again in an hour", "error", err)
		}
		for _, s := range took {
			a.Log.Info("secondary key", "domain", domain, "step", s.What)
		}
	}
	a.refreshOrganizations(ctx)
}

// refreshEvery is how long what changed in the vault beside us may wait until we serve it.
const refreshEvery = time.Minute

// watchOrganizations takes up what commands and other gateways on the vault did to our organisations.
func (a *Appliance) watchOrganizations(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(refreshEvery):
			a.refreshOrganizations(ctx)
		}
	}
}

func (a *Appliance) refreshOrganizations(ctx context.Context) {
	for _, domain := range a.domains() {
		changed, err := a.orgs.refresh(ctx, domain)
		switch {
		case err != nil && ctx.Err() == nil:
			a.Log.Error("what is published for a domain could not be read again: it is served as before", "error", err)
		case changed:
			a.Log.Info("a new organisational signet is served", "domain", domain)
		}
	}
}

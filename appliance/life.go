package appliance

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dimegate/appliance/keystore"
)

// alarms are what somebody must look at about the keys of a tenant, as of the last sweep.
type alarms struct {
	mu  sync.Mutex
	now []string
	log map[string]time.Time // when each was last told in the log
}

func (a *alarms) lines() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// set replaces them all, and returns those that were not told for a day.
func (a *alarms) set(lines []string, now time.Time) (untold []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	log := map[string]time.Time{}
	for _, l := range lines {
		if log[l] = a.log[l]; now.Sub(log[l]) >= 24*time.Hour {
			log[l] = now
			untold = append(untold, l)
		}
	}
	a.now, a.log = lines, log
	return untold
}

// lookForAlarms finds what is late or due by hand, and tells each once a day.
func (t *tenant) lookForAlarms(ctx context.Context) {
	list, err := keystore.Alarms(ctx, t.vault.Vault, t.config, t.Now())
	if err != nil {
		if ctx.Err() == nil {
			t.Log.Error("what is due for keys cannot be told", "error", err)
		}
		return
	}
	var lines []string
	for _, d := range list {
		switch {
		case d.At.IsZero():
			lines = append(lines, fmt.Sprintf("keys of %d %s are past their life", d.Number, d.Name))
		case d.Late:
			lines = append(lines, fmt.Sprintf("%s: %s was due on %s", d.Name, d.What, d.At.UTC().Format(time.DateOnly)))
		default:
			lines = append(lines, fmt.Sprintf("%s: %s is due on %s", d.Name, d.What, d.At.UTC().Format(time.DateOnly)))
		}
	}
	for _, l := range t.alarms.set(lines, t.Now()) {
		t.Log.Warn(`alarm: see "gateway keys schedule --due"`, "what", l)
	}
}

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
	t.lookForAlarms(ctx)
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

package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
)

// sealedRetry is how often a gateway that waits for its seals tries them.
const sealedRetry = 2 * time.Second

// AwaitSeals returns when the seals of a vault of the configuration open, which is at once unless they cannot be reached: then
// the process lives and is not ready, takes no mail, and tries on until ctx ends. Seals that open nothing while all were
// reached are an error: waiting would not help.
func AwaitSeals(ctx context.Context, c *config.Config, log *slog.Logger) error {
	views := c.Tenants()
	err := trySeals(ctx, views)
	if !errors.Is(err, vault.ErrAway) {
		return err
	}
	if c.Health.Listen != "" {
		ln, lerr := net.Listen("tcp", c.Health.Listen)
		if lerr != nil {
			return fmt.Errorf("health.listen: %s: %w", c.Health.Listen, listenRemedy(lerr))
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			done <- health(ctx, ln, func() []state {
				var list []state
				for _, view := range views {
					list = append(list, state{view: view})
				}
				return list
			})
		}()
		defer func() { cancel(); <-done }()
	}
	for last := ""; errors.Is(err, vault.ErrAway); err = trySeals(ctx, views) {
		if now := err.Error(); now != last {
			log.Error("sealed: not ready until a seal opens", "error", now)
			last = now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sealedRetry):
		}
	}
	if err == nil {
		log.Info("unsealed")
	}
	return err
}

// trySeals is nil when the seals of one of some vaults open.
func trySeals(ctx context.Context, views []*config.Config) error {
	var errs []error
	for _, view := range views {
		_, err := keystore.TrySeals(ctx, view.Vault)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// warnLost names each seal that does not open while another one did.
func (t *tenant) warnLost(lost []keystore.LostSeal) {
	for _, l := range lost {
		t.Log.Warn("a seal does not open; another one did", "role", l.Role.String(), "seal", l.String(), "error", l.Why)
	}
}

// watchSeals tries every seal now and then, and tells what changed: a lost one is to be mended before the other is lost,
// too. The gateway runs on: it has what the seals open.
func (t *tenant) watchSeals(ctx context.Context) error {
	before := t.vault.Missing
	closed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(t.config.Vault.CheckSeals):
		}
		lost, err := keystore.TrySeals(ctx, t.config.Vault)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !closed {
				t.Log.Error("no seal opens any more: the gateway runs on, and could not be started again", "error", err)
			}
			closed = true
			continue
		}
		closed = false
		t.warnLost(without(lost, before))
		for _, l := range without(before, lost) {
			t.Log.Info("a seal opens again", "role", l.Role.String(), "seal", l.String())
		}
		before = lost
	}
}

// without is what stands in list and not in other.
func without(list, other []keystore.LostSeal) []keystore.LostSeal {
	known := map[string]bool{}
	for _, l := range other {
		known[l.Role.String()+" "+l.String()] = true
	}
	var out []keystore.LostSeal
	for _, l := range list {
		if !known[l.Role.String()+" "+l.String()] {
			out = append(out, l)
		}
	}
	return out
}

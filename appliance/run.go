package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/backup"
)

// Run serves until ctx ends, and then ends the sessions in order. It returns nil after a clean stop, or the first fault
// of a part, which ends all others. Close is still to be called.
func (a *Appliance) Run(ctx context.Context) error {
	parts := map[string]func(context.Context) error{"scanners": a.checkScanners, "tenants": a.tenants.run}
	for kind, l := range map[string]struct {
		open  []net.Listener
		serve func(context.Context, net.Listener) error
	}{
		"submission": {a.listeners.submission, a.submission.Serve},
		"dmtp":       {a.listeners.dmtp, a.server.Serve},
		"dmtp dual":  {a.listeners.dual, a.server.ServeDual},
		"health":     {a.listeners.health, func(ctx context.Context, ln net.Listener) error { return health(ctx, ln, a.states) }},
	} {
		for _, ln := range l.open {
			address := ln.Addr().String()
			a.Log.Info("listening", "kind", kind, "address", address)
			parts[kind+" "+address] = func(ctx context.Context) error { return l.serve(ctx, ln) }
		}
	}
	if a.plain != nil {
		parts["plain smtp"] = a.plain.run
	}
	for _, ln := range a.listeners.acme {
		parts["acme"] = func(ctx context.Context) error { return a.obtainer.Run(ctx, ln) }
	}
	for i, w := range a.watchers {
		parts[fmt.Sprintf("certificates %d", i)] = w.Run
	}
	err := together(ctx, parts)
	for _, t := range a.tenants {
		if t.inbound != nil {
			t.inbound.Wait()
		}
	}
	return err
}

// together runs parts until ctx ends or one of them fails, which ends the others, and waits for all. Its error is that of the part,
// or nil.
func together(ctx context.Context, parts map[string]func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for name, f := range parts {
		running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	<-ctx.Done()
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// checkpoints signs the log while it grows, and has the witnesses cosign it.
func (t *tenant) checkpoints(ctx context.Context) error {
	key, err := audit.VaultKey(ctx, t.vault.Vault)
	if err != nil {
		return err
	}
	return audit.New(t.vault.Vault, key).Run(ctx, t.Log, t.witnesses...)
}

// sweepEvery is how often what has had its time is destroyed or closed.
const sweepEvery = time.Hour

// sweep closes inbound flights that nobody will end, takes the steps of keys that are due, and empties the write-ahead log of what was
// destroyed. A fault is told, not fatal: mail goes on.
func (t *tenant) sweep(ctx context.Context) error {
	for {
		t.sweepOnce(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sweepEvery):
		}
	}
}

func (t *tenant) sweepOnce(ctx context.Context) {
	t.sweepKeys(ctx)
	if abandoned, _, err := t.vault.SweepInbound(ctx, t.Now()); err != nil && ctx.Err() == nil {
		t.Log.Error("inbound outcomes could not be swept", "error", err)
	} else if abandoned > 0 {
		t.Log.Warn("inbound messages without an outcome were closed", "count", abandoned)
	}
	t.sweepExchange(ctx)
	t.sweepEscrow(ctx)
	t.sweepArchive(ctx)
	t.keepBackupKeys(ctx)
	if err := t.vault.Scrub(ctx); err != nil && ctx.Err() == nil {
		t.Log.Warn("what was destroyed may still be in the write-ahead log", "error", err)
	}
}

// sweepEscrow escrows the users' keys that were made before there was a continuity key.
func (t *tenant) sweepEscrow(ctx context.Context) {
	escrowed, err := t.escrowKeys(ctx)
	n := 0
	if err == nil && escrowed != nil {
		n, err = t.vault.EscrowUserKeys(ctx, escrowed, t.Now())
	}
	if err != nil && ctx.Err() == nil {
		t.Log.Error("users' keys could not be sealed to the continuity key; it is tried again in an hour", "error", err)
	}
	if n > 0 {
		t.Log.Info("users' keys sealed to the continuity key", "count", n)
	}
}

// sweepArchive destroys, once a day, what the archive has kept for its time. Before backups' keys are seen to, since these take the
// ledger of what was erased along.
func (t *tenant) sweepArchive(ctx context.Context) {
	if t.Now().Before(t.archiveSwept.Add(archiveEvery)) {
		return
	}
	a, err := archive.Open(ctx, t.vault.Vault)
	var s archive.Swept
	if err == nil {
		s, err = a.SweepDaily(ctx, t.Now())
	}
	switch {
	case errors.Is(err, vault.ErrChanged): // a hold was placed, or mail came: in an hour
		return
	case err != nil:
		if ctx.Err() == nil {
			t.Log.Error("the archive could not be swept; it is tried again in an hour", "error", err)
		}
		return
	}
	t.archiveSwept = t.Now()
	if s.Keys > 0 || s.Records > 0 || s.UserKeys > 0 {
		t.Log.Info("destroyed in the archive", "records", s.Records, "shred_keys", s.Keys, "user_keys", s.UserKeys, "erasures_done", s.Erasures)
	}
}

// archiveEvery is how often the archive is swept.
const archiveEvery = 24 * time.Hour

// keepBackupKeys destroys the backups' keys that have had their life, and brings there what a restore must know.
func (t *tenant) keepBackupKeys(ctx context.Context) {
	folder := t.config.Backup.KeysFolder
	if folder == "" {
		return
	}
	n, err := backup.Keep(ctx, t.vault.Vault, folder, t.Now())
	if err != nil && ctx.Err() == nil {
		t.Log.Error("backup.keys_folder: what a restore must know could not be kept there; it is tried again in an hour", "folder", folder, "error", err)
	}
	if n > 0 {
		t.Log.Info("backups' keys destroyed after 30 days", "count", n)
	}
}

// listenRemedy says what to do about a socket that cannot be opened.
func listenRemedy(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return errors.New("in use by another process: stop that one, or choose another port")
	case errors.Is(err, os.ErrPermission):
		return errors.New("not permitted to this user: ports below 1024 need CAP_NET_BIND_SERVICE (setcap, or AmbientCapabilities in systemd)")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errors.New("is no address of this machine")
	}
	return err
}

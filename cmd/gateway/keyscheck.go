package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/backup"
)

var keysCheckCommand = command{
	name: "check", summary: "look at every key: it opens, fits its signet, and continues the one before; say what is wrong and what to do",
	usage:   "[--config FILE] [--json]",
	example: "gateway keys check",
	run:     runKeysCheck,
}

// maxFindings is how many findings are printed: where everything is wrong the first ones say it.
const maxFindings = 50

// A keysReport is what keys check prints.
type keysReport struct {
	keystore.Checked
	Findings []keystore.Finding `json:"findings"`
	More     int                `json:"more,omitempty"` // that were not printed
}

func (r *keysReport) add(f keystore.Finding) error {
	if len(r.Findings) == maxFindings {
		r.More++
		return nil
	}
	r.Findings = append(r.Findings, f)
	return nil
}

func (r *keysReport) fault(thing string, err error, remedy string) {
	_ = r.add(keystore.Finding{Thing: thing, Fault: err.Error(), Remedy: remedy}) // it keeps, and never fails
}

func runKeysCheck(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("keys check: takes no operand")
	}
	c, err := viewFor(ctx, *path)
	if err != nil {
		return err
	}
	r := &keysReport{Findings: []keystore.Finding{}}
	if err := authorize(ctx, c); errors.Is(err, vault.ErrCorrupt) {
		r.fault("vault.db", err, "stop the gateway, move the vault away and restore a backup: gateway backup restore")
	} else if err != nil {
		return err
	} else if err := r.checkKeys(ctx, c); err != nil {
		return err
	}
	if *asJSON {
		if err := json.NewEncoder(std.out).Encode(r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Findings {
			fmt.Fprintf(std.out, "%s: %s\n  %s\n", f.Thing, f.Fault, f.Remedy)
		}
		if r.More > 0 {
			fmt.Fprintf(std.out, "and %d more\n", r.More)
		}
		fmt.Fprintf(std.out, "%d domains, %d users, %d keys that open and fit; %d findings\n", r.Domains, r.Users, r.Keys, len(r.Findings)+r.More)
	}
	if len(r.Findings) > 0 {
		return errReported
	}
	return nil
}

// checkKeys looks at seals, keys, and what is known elsewhere.
func (r *keysReport) checkKeys(ctx context.Context, c *config.Config) error {
	o := vault.Options{Dir: c.Vault.Folder}
	for role, root := range map[vault.Role]**vault.Root{vault.HostRole: &o.Host, vault.SigningRole: &o.Signing} {
		*root = r.seal(ctx, c.Vault, role)
		if *root != nil {
			defer (*root).Destroy()
		}
	}
	v, err := vault.Open(ctx, o)
	if errors.Is(err, vault.ErrCorrupt) || errors.Is(err, vault.ErrNotFound) {
		r.fault(c.Vault.Folder, err, "move what is there away and restore a backup: gateway backup restore")
		return nil
	} else if err != nil {
		return usageError{fmt.Errorf("%s: %w", c.Vault.Key("folder"), err)}
	}
	defer v.Close()
	for _, role := range sealRoles {
		header := keystore.SealHeader(c.Vault.Folder, role)
		if err := v.SealAttested(ctx, role, header); errors.Is(err, vault.ErrChanged) || errors.Is(err, vault.ErrCorrupt) {
			r.fault(header, err, "look at \"gateway seal status\" and do again what was cut short; where nobody did anything, the header is of another time: put the right one back")
		}
	}
	k := keystore.KeyCheck{Vault: v, Host: o.Host != nil, Signing: o.Signing != nil, Grace: c.Keys.Grace, Now: time.Now(), Found: r.add}
	err = k.Run(ctx)
	r.Checked = k.Checked
	if errors.Is(err, vault.ErrCorrupt) {
		r.fault("vault.db", err, "stop the gateway, move the vault away and restore a backup: gateway backup restore")
	} else if err != nil {
		return err
	}
	return r.elsewhere(ctx, v, c.Backup.KeysFolder)
}

// seal opens a role; nil when it does not open, which is a finding.
func (r *keysReport) seal(ctx context.Context, c config.Vault, role vault.Role) *vault.Root {
	header := keystore.SealHeader(c.Folder, role)
	root, err := keystore.OpenRole(ctx, c, role)
	switch {
	case errors.Is(err, vault.ErrAway):
		r.fault(header, err, "bring the token or key service back: nothing under this seal was looked at")
		return nil
	case err != nil:
		r.fault(header, err, "nothing under this seal was looked at")
		return nil
	}
	if h, err := vault.ReadSealHeader(header); err == nil && len(h.Roots) > 1 {
		r.fault(header, errors.New("it has more than one root key: \"seal rewrap\" was cut short"), fmt.Sprintf("stop the gateway and run it again: gateway seal rewrap %v", role))
	}
	return root
}

// elsewhere compares the vault with what the folder of backups' keys knows of it.
func (r *keysReport) elsewhere(ctx context.Context, v *vault.Vault, folder string) error {
	if folder == "" {
		return nil
	}
	const remedy = "this is an older copy of the vault: stop the gateway, move it away, and let \"gateway backup restore\" do it, which keeps out what was erased since"
	last, _, err := backup.LastLog(folder, v.Archive())
	if err != nil {
		r.fault("backup.keys_folder", err, "mount the folder, or restore the file")
		return nil
	}
	if last.Size > 0 {
		if err := audit.Known(ctx, v, last); err != nil {
			r.fault("the log", err, remedy)
		}
	}
	ledger, err := vault.ReadLedger(backup.Ledger(folder, v.Archive()), v.Archive())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no backup was made yet
	} else if err != nil {
		r.fault("backup.keys_folder", err, "restore the file: without it a restore brings back what was erased")
		return nil
	}
	for _, e := range ledger {
		there, err := v.HasWrap(ctx, e.Key, vault.WrapHost)
		if err != nil {
			return err
		}
		if there {
			r.fault(fmt.Sprintf("key %v", e.Key), fmt.Errorf("it was erased on %s, and is back", e.At.Format(time.DateOnly)), remedy)
		}
	}
	return nil
}

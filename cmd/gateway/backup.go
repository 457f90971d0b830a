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
	"dimegate/vault"
	"dimegate/vault/backup"
)

var backupCommand = command{
	name:    "backup",
	summary: "make a backup of the vault while the gateway runs, check one, restore one",
	sub: []command{
		{
			name: "create", summary: "write a backup, one file, and its key, which lives 30 days, into backup.keys_folder",
			usage:   "[--config FILE] [--json] FILE",
			example: "gateway backup create /mnt/backups/$(date +%F).tar",
			run:     runBackupCreate,
		},
		{
			name: "verify", summary: "read a whole backup, on any machine: files, log, bodies, and with its key what that opens",
			usage:   "[--keys FOLDER] [--json] FILE",
			example: "gateway backup verify --keys /mnt/keys /mnt/backups/2026-12-01.tar",
			run:     runBackupVerify,
		},
		{
			name: "restore", summary: "make the vault of a backup, where there is none; keys that were erased since do not come back",
			usage:   "[--config FILE] [--without-keys] [--json] FILE",
			example: "gateway backup restore /mnt/backups/2026-12-01.tar",
			run:     runBackupRestore,
		},
	},
}

func runBackupCreate(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	file, c, err := backupLine(ctx, fs, path, args)
	if err != nil {
		return err
	}
	v, err := openVaultOf(ctx, c)
	if err != nil {
		return err
	}
	defer v.Close()
	p := newProgress(std, "octets", 0)
	m, err := backup.Create(ctx, v, backup.Options{Folder: c.Vault.Folder, Keys: c.Backup.KeysFolder, File: file, Grace: c.Keys.Grace, Now: time.Now(), Done: p.add})
	p.end()
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(m)
	}
	fmt.Fprintf(std.out, "%s: %d leaves, %d keys, %d bodies\n", file, m.LogSize, m.Wraps, bodies(m))
	if m.Waiting > 0 {
		fmt.Fprintf(std.out, "not in it: %d entries of the queue, which a restore would send a second time\n", m.Waiting)
	}
	_, err = fmt.Fprintf(std.out, "its key %s dies on %s\n", m.ID, m.KeyDies.Format(time.DateOnly))
	return err
}

// backupLine reads a command line with one FILE, and the configuration, which must name a folder for keys.
func backupLine(ctx context.Context, fs *flag.FlagSet, path *string, args []string) (string, *config.Config, error) {
	rest, err := parse(fs, args)
	if err != nil {
		return "", nil, err
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return "", nil, err
	}
	switch {
	case len(rest) != 1:
		return "", nil, usagef("%s: name the backup's FILE", fs.Name())
	case c.Backup.KeysFolder == "":
		return "", nil, usagef("backup.keys_folder: is empty: name a folder for the backups' keys, on other storage than the data folder and the backups")
	}
	return rest[0], c, nil
}

func bodies(m backup.Manifest) int { return max(0, len(m.Entries)-4) }

func runBackupVerify(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	keys := fs.String("keys", "", "`FOLDER` of the backups' keys; without it what they open is not looked at")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("backup verify: name the backup's FILE")
	}
	p := newProgress(std, "octets", 0)
	r, err := backup.Verify(ctx, rest[0], *keys, p.add)
	p.end()
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(r)
	}
	key := "its key is not there: the domains' primary and encryption keys come back with it, users' keys and the archive's do not"
	if r.Key {
		key = "its key opens all of them, until " + r.KeyDies.Format(time.DateOnly)
	}
	_, err = fmt.Fprintf(std.out, "fine: of %s, %d leaves, %d bodies, %d keys; %s\n", r.Made.Format(time.RFC3339), r.LogSize, bodies(r.Manifest), r.Wraps, key)
	return err
}

func runBackupRestore(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	noKeys := fs.Bool("without-keys", false, "restore a backup whose key has died: every user gets new keys, which others will ask about, and archived mail opens no more")
	asJSON := fs.Bool("json", false, "print JSON")
	file, c, err := backupLine(ctx, fs, path, args)
	if err != nil {
		return err
	}
	p := newProgress(std, "octets", 0)
	m, r, err := backup.Restore(ctx, backup.RestoreOptions{File: file, Folder: c.Vault.Folder, Keys: c.Backup.KeysFolder, NoKeys: *noKeys, Now: time.Now(), Done: p.add})
	p.end()
	if err != nil {
		return restoreFault(c, err)
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(struct {
			Made time.Time `json:"made"`
			vault.Restored
		}{m.Made, r})
	}
	_, err = fmt.Fprintf(std.out, `%s is as it was on %s: %d wraps of keys are back, %d keys were erased since and stay so, %d are marked as destroyed
%d recipients waited then: their entries ended as dropped; ask your mail server's log what became of them
the log goes on under a new name: give its key ("gateway audit checkpoint --json") to the witnesses and officers
`, c.Vault.Folder, m.Made.Format(time.RFC3339), r.Wraps, r.Erased, r.Destroyed, r.Dropped)
	return err
}

// restoreFault says what to do about a restore that did not begin.
func restoreFault(c *config.Config, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return refusedError{fmt.Errorf("%s is there: a restore writes over nothing: move it away first", c.Vault.Folder)}
	case errors.Is(err, backup.ErrNoKey):
		return fmt.Errorf("%w: restore a younger backup, or bring the key back; --without-keys restores the rest, without users' keys and without a way into the archive", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: bring the folder's files back: without the ledger what was erased would return", err)
	}
	return err
}

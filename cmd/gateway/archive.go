package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/trustful"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/backup"
)

var archivesCommand = command{
	name:    "archive",
	summary: "what is kept of mail that crossed: destroy what has had its time, erase what somebody asks for",
	sub: []command{
		{
			name: "sweep", summary: "destroy what no hold, no retention time and nobody keeps; the running gateway does it every day",
			usage:   "[--config FILE] [--dry-run] [--json]",
			example: "gateway archive sweep --dry-run",
			run:     runArchiveSweep,
		},
		{
			name: "erase", summary: "erase what is kept of an address: at once what may go, the rest when its hold or retention time ends",
			usage:   "[--config FILE] --reason TEXT [--json] ADDRESS",
			example: `gateway archive erase --reason "asked for by letter of 2 May" bob@example.com`,
			run:     runArchiveErase,
		},
		{
			name: "rename", summary: "a person has another address from now on: cases about the new one have what was kept under the old",
			usage:   "[--config FILE] --why TEXT OLD NEW",
			example: `gateway archive rename --why "marriage" b.miller@example.com b.smith@example.com`,
			run:     runArchiveRename,
		},
		{
			name: "erasures", summary: "list the erasures that were asked for, and what keeps the rest of each",
			usage:   "[--config FILE] [--all] [--json]",
			example: "gateway archive erasures",
			run:     runArchiveErasures,
		},
	},
}

// openArchive opens the vault with its seals, and its archive. The caller closes the vault.
func openArchive(ctx context.Context, path string) (*config.Config, *keystore.Opened, *archive.Archive, error) {
	c, v, err := openSealed(ctx, path)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := archive.Open(ctx, v.Vault)
	if err != nil {
		v.Close()
		return nil, nil, nil, err
	}
	return c, v, a, nil
}

func runArchiveSweep(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	dry := fs.Bool("dry-run", false, "count only")
	asJSON := fs.Bool("json", false, "print JSON")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("archive sweep: takes no operand")
	}
	c, v, a, err := openArchive(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	s, err := a.Sweep(ctx, time.Now(), *dry)
	if errors.Is(err, vault.ErrChanged) {
		return errors.New("archive sweep: a hold was placed, or mail came, meanwhile: sweep again")
	} else if err != nil {
		return err
	}
	if !*dry {
		if err := saveLedger(ctx, c, v.Vault); err != nil {
			return err
		}
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(s)
	}
	gone, verb := s.Copies[archive.Over]+s.Copies[archive.Erased]+s.Copies[archive.Gone], "destroyed"
	if *dry {
		verb = "would be destroyed"
	}
	_, err = fmt.Fprintf(std.out, "copies %s: %d (over %d, erased %d, back with a backup %d); shred keys: %d; escrowed user keys: %d\nkept: %d by holds, %d whose time runs, %d without a retention time\n",
		verb, gone, s.Copies[archive.Over], s.Copies[archive.Erased], s.Copies[archive.Gone], s.Keys, s.UserKeys, s.Copies[archive.Held], s.Copies[archive.Running], s.Copies[archive.Kept])
	return err
}

// saveLedger brings what was erased to where a restore looks for it.
func saveLedger(ctx context.Context, c *config.Config, v *vault.Vault) error {
	if c.Backup.KeysFolder == "" {
		return nil
	}
	return v.SaveLedger(ctx, backup.Ledger(c.Backup.KeysFolder, v.Archive()))
}

func runArchiveErase(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	reason := fs.String("reason", "", "why: `TEXT`, which the log's leaf commits to; without the address")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) != 1:
		return usagef("archive erase: give one address")
	case strings.TrimSpace(*reason) == "":
		return usagef("archive erase: --reason says why")
	}
	address, err := trustful.Normal(rest[0])
	if err != nil {
		return usagef("archive erase: %q is not an address", rest[0])
	}
	c, v, a, err := openArchive(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	now := time.Now()
	e, err := a.Erase(ctx, address, person(), *reason, now)
	switch {
	case errors.Is(err, archive.ErrNothing):
		return fmt.Errorf("archive erase: nothing is kept of %s", address)
	case errors.Is(err, vault.ErrExists):
		return fmt.Errorf("archive erase: %s: asked for already: gateway archive erasures", address)
	case errors.Is(err, vault.ErrChanged):
		return errors.New("archive erase: it is asked for; a hold was placed, or mail came, meanwhile: gateway archive sweep goes on")
	case err != nil:
		return err
	}
	if err := saveLedger(ctx, c, v.Vault); err != nil {
		return fmt.Errorf("archive erase: it is done here, but a restore does not know it yet: %w", err)
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(e)
	}
	return printErased(std, c, e, now)
}

// printErased says what was done, what is still there, and what backups hold.
func printErased(std stdio, c *config.Config, e archive.Erasure, now time.Time) error {
	fmt.Fprintf(std.out, "erasure %v: %d copies destroyed, %d shred keys\n", e.ID, e.Copies, e.Keys)
	if e.Done.IsZero() {
		fmt.Fprintf(std.out, "kept: %s\n", keeps(e))
	}
	text := fmt.Sprintf("a restore does not bring it back, and the keys of backups made before now are gone on %s", date(now.Add(backup.Life)))
	if c.Backup.KeysFolder == "" {
		text = "backup.keys_folder is not set: a copy of the data folder that was made before now, with a seal, still opens to the officers"
	}
	_, err := fmt.Fprintln(std.out, text)
	return err
}

// keeps is what keeps the rest of an erasure, in words.
func keeps(e archive.Erasure) string {
	var all []string
	if e.Held > 0 {
		all = append(all, fmt.Sprintf("%d copies by a hold", e.Held))
	}
	if e.Running > 0 {
		all = append(all, fmt.Sprintf("%d by their retention time, the last until %s", e.Running, date(e.Until)))
	}
	if all == nil {
		return "nothing: it goes with the next sweep"
	}
	return strings.Join(all, ", ")
}

func runArchiveErasures(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	all := fs.Bool("all", false, "those that are done, too")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("archive erasures: takes no operand")
	}
	_, v, a, err := openArchive(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	list, err := a.Erasures(ctx, time.Now())
	if err != nil {
		return err
	}
	if !*all {
		list = slices.DeleteFunc(list, func(e archive.Erasure) bool { return !e.Done.IsZero() })
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, e := range list {
		if *asJSON {
			if err := json.NewEncoder(std.out).Encode(e); err != nil {
				return err
			}
			continue
		}
		state := "waits: " + keeps(e)
		if !e.Done.IsZero() {
			state = "done " + date(e.Done)
		}
		fmt.Fprintf(tw, "%v\tasked %s by %s\t%s\t%s\t%s\n", e.ID, date(e.Asked), e.By, e.Address, state, e.Reason)
	}
	return tw.Flush()
}

func runArchiveRename(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	why := fs.String("why", "", "why: `TEXT`, which the log's leaf commits to; without the addresses")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) != 2:
		return usagef("archive rename: give the old and the new address")
	case strings.TrimSpace(*why) == "":
		return usagef("archive rename: --why says why")
	}
	for i, a := range rest {
		if rest[i], err = trustful.Normal(a); err != nil {
			return usagef("archive rename: %q is not an address", a)
		}
	}
	_, v, a, err := openArchive(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	switch err := a.Rename(ctx, rest[0], rest[1], person(), *why, time.Now()); {
	case errors.Is(err, vault.ErrNotFound):
		return fmt.Errorf("archive rename: nothing is kept of %s", rest[0])
	case errors.Is(err, archive.ErrRename):
		return fmt.Errorf("archive rename: %s is somebody else's successor already, or %s had that address before", rest[1], rest[0])
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s was %s before: what is kept stays as it was stamped, and is found under both\n", rest[1], rest[0])
	return err
}

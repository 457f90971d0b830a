package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp"
)

var keysScheduleCommand = command{
	name: "schedule", summary: "list what is to happen to the keys of domains and users, and when: rotation, and the destruction of replaced ones",
	usage:   "[--config FILE] [--json] [--due] [NAME]",
	example: "gateway keys schedule --due",
	run:     runKeysSchedule,
}

// soonLife is the percentage of a key's life from which it is listed by --due.
const soonLife = 80

func runKeysSchedule(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	soon := fs.Bool("due", false, "only keys with four fifths of their life behind them; exit code 1 when something is late")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	only := ""
	switch {
	case len(rest) > 1:
		return usagef("keys schedule: one domain or address at most")
	case len(rest) == 1:
		if only, err = dmtp.Name(rest[0]); err != nil {
			return usagef("keys schedule: %q is neither a domain nor an address", rest[0])
		}
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	v, err := openVaultOf(ctx, c)
	if err != nil {
		return err
	}
	defer v.Close()
	out := bufio.NewWriter(std.out)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	late := false
	err = keystore.Schedule(ctx, v, c, only, time.Now(), func(d keystore.Due) error {
		late = late || d.Late
		switch {
		case *soon && !d.Late && d.Life < soonLife:
			return nil
		case *asJSON:
			return json.NewEncoder(out).Encode(d)
		}
		_, err := fmt.Fprintf(tw, "%s\t%s\t%d\t%s\n", dueWhen(d), d.What, d.Number, d.Name)
		return err
	})
	if ferr := tw.Flush(); err == nil {
		err = ferr
	}
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err == nil && *soon && late {
		return errReported
	}
	return err
}

func dueWhen(d keystore.Due) string {
	switch {
	case d.Kept:
		return "never"
	case d.Late:
		return d.At.UTC().Format(time.DateOnly) + " LATE"
	}
	return d.At.UTC().Format(time.DateOnly)
}

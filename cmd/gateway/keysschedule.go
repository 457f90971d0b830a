package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance/config"
	"dimegate/trustful"
	"dimegate/vault"
)

var keysScheduleCommand = command{
	name: "schedule", summary: "list what is to happen to users' keys, and when: rotation, and the destruction of replaced ones",
	usage:   "[--config FILE] [--json] [--due] [ADDRESS]",
	example: "gateway keys schedule --due",
	run:     runKeysSchedule,
}

// A dueKey is one thing that is to happen to a key.
type dueKey struct {
	Name   string    `json:"name"`
	Number int       `json:"number"`
	What   string    `json:"what"` // rotation or destruction
	At     time.Time `json:"at,omitzero"`
	Life   int       `json:"life_percent,omitempty"` // of a rotation: how much of the key's life has passed
	Late   bool      `json:"late,omitempty"`         // by more than a day: look into the gateway's log
	Kept   bool      `json:"kept,omitempty"`         // never: by organization.keep_keys or keys.rotate_after
}

// lateAfter is how long what is due may wait: the gateway looks once an hour, when it runs.
const lateAfter = 24 * time.Hour

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
		return usagef("keys schedule: one address at most")
	case len(rest) == 1:
		if only, err = trustful.Normal(rest[0]); err != nil {
			return usagef("keys schedule: %q is not an address", rest[0])
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
	err = eachDue(ctx, v, c, only, time.Now(), func(d dueKey) error {
		late = late || d.Late
		switch {
		case *soon && !d.Late && d.Life < soonLife:
			return nil
		case *asJSON:
			return json.NewEncoder(out).Encode(d)
		}
		_, err := fmt.Fprintf(tw, "%s\t%s\t%d\t%s\n", d.when(), d.What, d.Number, d.Name)
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

func (d dueKey) when() string {
	switch {
	case d.Kept:
		return "never"
	case d.Late:
		return d.At.UTC().Format(time.DateOnly) + " LATE"
	}
	return d.At.UTC().Format(time.DateOnly)
}

// eachDue visits what is to happen to the keys of one address, or of all in order.
func eachDue(ctx context.Context, v *vault.Vault, c *config.Config, only string, now time.Time, visit func(dueKey) error) error {
	const page = 200
	addresses := []string{only}
	for after := ""; only == ""; {
		users, err := v.Users(ctx, after, page)
		if err != nil {
			return err
		}
		if addresses = addresses[:0]; len(users) == 0 {
			return nil
		}
		for _, u := range users {
			addresses = append(addresses, u.Address)
		}
		after = addresses[len(addresses)-1]
		if err := dueOf(ctx, v, c, addresses, now, visit); err != nil {
			return err
		}
	}
	return dueOf(ctx, v, c, addresses, now, visit)
}

func dueOf(ctx context.Context, v *vault.Vault, c *config.Config, addresses []string, now time.Time, visit func(dueKey) error) error {
	for _, a := range addresses {
		keys, err := v.UserKeys(ctx, a)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if d, ok := due(k, c, now); ok {
				if err := visit(d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// due is what is to happen to a key, if anything is.
func due(k vault.UserKey, c *config.Config, now time.Time) (dueKey, bool) {
	d := dueKey{Name: k.Address, Number: k.Number}
	life := c.Keys.RotateAfter
	if life != 0 && c.Alt.Mode != "off" && !k.Layered {
		life = trustful.MinLife // it is replaced by one with keys of the alternate layer
	}
	switch {
	case !k.Destroyed.IsZero():
		return dueKey{}, false
	case !k.Retired.IsZero():
		d.What, d.At = "destruction", k.Retired.Add(c.Keys.Grace)
	case life == 0 || c.KeepsKeys(k.Address[strings.LastIndexByte(k.Address, '@')+1:]):
		d.What, d.Kept = "rotation", true
	default:
		d.What, d.At, d.Life = "rotation", k.Made.Add(life), int(100*now.Sub(k.Made)/life)
	}
	d.Late = !d.Kept && now.Sub(d.At) > lateAfter
	return d, true
}

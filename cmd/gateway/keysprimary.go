package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/setup"
	"dimegate/dmtp"
	"dimegate/dmtp/key"
)

var keysPrimaryCommand = command{
	name: "primary", summary: "replace the primary key of a domain, in dated steps",
	sub: []command{
		{
			name: "rollover", summary: "make the next primary key, and print the steps and the record that lists both; again: print them again",
			usage:   "[--config FILE] [--json] DOMAIN",
			example: "gateway keys primary rollover example.org",
			run:     runPrimaryRollover,
		},
		{
			name: "finish", summary: "take the next step of a rollover, when DNS shows what it must and others had their time",
			usage:   "[--config FILE] [--json] [--hurry] DOMAIN",
			example: "gateway keys primary finish example.org",
			run:     runPrimaryFinish,
		},
	},
}

// A rolloverView is where a rollover stands, as printed.
type rolloverView struct {
	Domain   string     `json:"domain"`
	Old      string     `json:"old_key,omitempty"`
	New      string     `json:"new_key"`
	Switched bool       `json:"new_key_signs"`
	Done     bool       `json:"done"`
	Seen     *time.Time `json:"record_seen,omitempty"` // when DNS was first seen to list both
	Next     *time.Time `json:"next_step,omitempty"`   // not before
	Record   string     `json:"record_line"`           // to be published now
}

func runPrimaryRollover(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	return onPrimary(ctx, std, fs, args, func(r primaryRun) error {
		if err := keystore.BeginRollover(ctx, r.vault.Vault, r.domain, time.Now()); err != nil {
			return err
		}
		return r.show(ctx)
	})
}

func runPrimaryFinish(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	hurry := fs.Bool("hurry", false, "do not wait until others can know the new key: for an old one that somebody may have")
	return onPrimary(ctx, std, fs, args, func(r primaryRun) error {
		v, now := r.vault.Vault, time.Now()
		if _, err := keystore.RolloverOf(ctx, v, r.domain); err != nil {
			return fmt.Errorf("%w: begin one with \"gateway keys primary rollover %s\"", err, r.domain)
		}
		published, err := appliance.Published(ctx, r.config, r.domain, appliance.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return fmt.Errorf("%s: its record cannot be looked up now: %w", r.domain, err)
		}
		if published == nil {
			return fmt.Errorf("%s: %w: publish what \"gateway keys primary rollover %s\" prints", r.domain, keystore.ErrUnpublished, r.domain)
		}
		if err := keystore.SeeRollover(ctx, v, r.domain, published.POKs, now); err != nil {
			return fmt.Errorf("%s: %w: publish what \"gateway keys primary rollover %s\" prints", r.domain, err, r.domain)
		}
		switch err := keystore.StepRollover(ctx, v, r.domain, *hurry, now); {
		case errors.Is(err, keystore.ErrTooEarly):
			roll, rerr := keystore.RolloverOf(ctx, v, r.domain)
			if rerr != nil {
				return rerr
			}
			return refusedError{fmt.Errorf("%s: %w: come again on %s, or take --hurry", r.domain, err, dateOf(roll.Next))}
		case err != nil:
			return err
		}
		return r.show(ctx)
	})
}

// A primaryRun is one command about a domain's primary key.
type primaryRun struct {
	std    stdio
	config *config.Config
	vault  *keystore.Opened
	domain string
	json   bool
}

func onPrimary(ctx context.Context, std stdio, fs *flag.FlagSet, args []string, do func(primaryRun) error) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("keys primary: name a domain")
	}
	domain, err := dmtp.Domain(rest[0])
	if err != nil {
		return usagef("keys primary: %q is not a domain", rest[0])
	}
	c, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	if _, ours := c.Organization(domain); !ours {
		return usagef("keys primary: %s is none of organization.domains", domain)
	}
	return do(primaryRun{std, c, v, domain, *asJSON})
}

// show prints where the rollover stands, what is to be published now, and what comes next.
func (r primaryRun) show(ctx context.Context) error {
	records, err := setup.Records(ctx, r.config, r.vault.Vault, r.domain, nil)
	if err != nil {
		return err
	}
	view := rolloverView{Domain: r.domain, Record: records[0].RecordLine}
	roll, err := keystore.RolloverOf(ctx, r.vault.Vault, r.domain)
	switch {
	case errors.Is(err, keystore.ErrNoRollover):
		view.New, view.Switched, view.Done = records[0].POK, true, true
	case err != nil:
		return err
	default:
		view.Old, view.New, view.Switched = key.SigningPublic(roll.Old.Public).String(), key.SigningPublic(roll.New.Public).String(), roll.Switched
		if !roll.Seen.IsZero() {
			view.Seen = &roll.Seen
		}
		if !roll.Next.IsZero() {
			view.Next = &roll.Next
		}
	}
	if r.json {
		return json.NewEncoder(r.std.out).Encode(view)
	}
	view.print(r.std.out)
	return nil
}

func (v rolloverView) print(out io.Writer) {
	finish := "gateway keys primary finish " + v.Domain
	switch {
	case v.Done:
		fmt.Fprintf(out, "The old primary key of %s is destroyed. Publish the record of the new one alone:\n\n%s\n", v.Domain, v.Record)
		return
	case v.Switched:
		fmt.Fprintf(out, "The new primary key of %s signs. Publish this record, which lists both and has the new key's tls values:\n\n%s\n\n", v.Domain, v.Record)
		fmt.Fprintf(out, "on %s, not before: %q: the old key is destroyed, and the record that it prints lists the new one alone\n", dateOf(*v.Next), finish)
		return
	}
	fmt.Fprintf(out, "The next primary key of %s is made; the old one signs still. Publish this record, which lists both:\n\n%s\n\n", v.Domain, v.Record)
	if v.Next == nil {
		fmt.Fprintf(out, "when DNS has it: %q, which notes the day (a running gateway notes it, too)\n31 days after: the same: the new key signs\n", finish)
	} else {
		fmt.Fprintf(out, "on %s, not before: %q: the new key signs\n", dateOf(*v.Next), finish)
	}
	fmt.Fprintf(out, "31 days after that: the same: the old key is destroyed, and the record lists the new one alone\n")
}

func dateOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

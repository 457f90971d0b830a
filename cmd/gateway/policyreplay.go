package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
)

func runPolicyReplay(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE` of the gateway whose decisions they are")
	with := fs.String("with", "", "configuration `FILE` whose [policy] decides again")
	since := fs.String("since", "", "`TIME` to begin at: how long ago, as 168h, or a day, as 2026-11-01")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("policy replay: takes no operand")
	case *with == "" || *since == "":
		return usagef("policy replay: --since and --with are needed")
	}
	from, err := parseSince(*since, time.Now())
	if err != nil {
		return err
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	other, err := config.Load(*with)
	if err != nil {
		return usageError{err}
	}
	r, err := appliance.ReplayPolicy(ctx, c, other.Policy, from)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(r)
	}
	return printReplay(std.out, r, c.Policy.History)
}

// parseSince reads how long ago, or a day, which begins at midnight UTC.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day, nil
	}
	return time.Time{}, usagef("--since: %q is neither a time like 168h nor a day like 2026-11-01", s)
}

func printReplay(w io.Writer, r appliance.Replay, kept time.Duration) error {
	fmt.Fprintf(w, "%d decisions since %s, %d would change\n", r.Decisions, r.Since.UTC().Format("2006-01-02 15:04 UTC"), r.Changed)
	if r.Decisions == 0 {
		fmt.Fprintf(w, "(decisions are kept for %s, by policy.history, and are written once a minute)\n", kept)
	}
	if len(r.Changes) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "COUNT\tDOMAIN\tSENDER\tWAS\tBECOMES\tBY\tRULE")
	for _, c := range r.Changes {
		becomes := c.Becomes
		if c.Open {
			becomes += "?"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Count, c.Domain, orDash(c.Sender), c.Was, becomes, c.Layer, c.Rule)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "smtp? would be tried by plain SMTP; what the servers would have offered is not known")
	return err
}

// orDash is what a column says that has nothing to say.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

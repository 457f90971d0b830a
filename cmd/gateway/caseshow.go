package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/vault"
	"dimegate/vault/discovery"
)

func runCaseList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	all := fs.Bool("all", false, "closed ones too")
	f := newCaseFlags(fs)
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("case list: takes no operand")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	cases, err := d.Cases(ctx)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, c := range cases {
		if c.About.Closed != nil && !*all {
			continue
		}
		if *f.json {
			if err := json.NewEncoder(std.out).Encode(c); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", c.ID, c.State, c.Opened.UTC().Format(time.DateOnly), printable(c.About.Requester), printable(strings.Join(c.About.Custodians, ",")), printable(c.About.Basis))
	}
	return tw.Flush()
}

func runCaseShow(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	c, err := d.Case(ctx, id)
	if err != nil {
		return casePolicy(err)
	}
	if c.Quorum, err = d.Quorum(ctx, c); err != nil {
		return casePolicy(err)
	}
	if *f.json {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(c)
	}
	printCase(std.out, c)
	return nil
}

func printCase(w io.Writer, c *discovery.Case) {
	a := c.About
	fmt.Fprintf(w, "case %s: %s\n  basis       %s\n  asked by    %s, request %s; opened by %s\n  opened      %s\n  expires     %s\n  custodians  %s\n  intake      %s to %s\n  classes     %s\n  hold        %s\n",
		c.ID, c.State, printable(a.Basis), printable(a.Requester), a.Fingerprint, printable(a.By), c.Opened.UTC().Format(time.RFC3339), c.Expires.UTC().Format(time.RFC3339),
		printable(strings.Join(a.Custodians, ", ")), shownDay(a.From), shownDay(a.To), shownClasses(a.Classes), a.Hold)
	for _, s := range a.Searches {
		fmt.Fprintf(w, "  search %-4d %s by %s: %s\n", s.Number, s.At.Format(time.RFC3339), printable(s.By), printable(shownTerms(s.Terms)))
		printCounts(w, s.Found)
	}
	if a.Selected != nil {
		fmt.Fprintf(w, "  selected    searches %s, digest %s\n", strings.Trim(fmt.Sprint(a.Selected.Searches), "[]"), a.Selected.Digest)
		printCounts(w, a.Selected.Found)
	}
	for _, s := range a.Answers {
		fmt.Fprintf(w, "  officer %-3d %s %s, %s\n", s.Index, printable(s.Person), map[bool]string{true: "approves", false: "declines"}[s.Approved], s.At.Format(time.RFC3339))
	}
	if c.Quorum > 0 {
		fmt.Fprintf(w, "  quorum      %d\n", c.Quorum)
	}
	if a.Closed != nil {
		fmt.Fprintf(w, "  closed      %s: %d records opened, %d unopenable%s\n", a.Closed.At.Format(time.RFC3339), a.Closed.Opened, a.Closed.Unopenable, printable(strings.TrimSuffix("; abandoned: "+a.Closed.Abandoned, "; abandoned: ")))
	}
}

func shownDay(t time.Time) string {
	if t.IsZero() {
		return "any"
	}
	return t.UTC().Format(time.RFC3339)
}

func shownClasses(list []uint16) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Trim(fmt.Sprint(list), "[]")
}

func shownTerms(t discovery.Terms) string {
	list := slices.Concat(t.Parties, t.Domains)
	if !t.From.IsZero() || !t.To.IsZero() {
		list = append(list, shownDay(t.From)+" to "+shownDay(t.To))
	}
	if t.MinOctets > 0 || t.MaxOctets > 0 {
		list = append(list, fmt.Sprintf("%d to %d octets", t.MinOctets, t.MaxOctets))
	}
	if t.Direction != 0 {
		list = append(list, map[vault.Kind]string{vault.Inbound: "inbound", vault.Outbound: "outbound"}[t.Direction])
	}
	if len(list) == 0 {
		return "all of the case"
	}
	return strings.Join(list, ", ")
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
)

// numbers is a flag of numbers that may be repeated.
type numbers []int64

func (n *numbers) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 {
		return errors.New("not a number")
	}
	*n = append(*n, v)
	return nil
}

func (n *numbers) String() string { return strings.Trim(fmt.Sprint([]int64(*n)), "[]") }

func printCounts(w io.Writer, c discovery.Counts) {
	fmt.Fprintf(w, "    %d records, %d entries, %d octets", c.Records, c.Entries, c.Octets)
	if c.Gone > 0 {
		fmt.Fprintf(w, "; %d entries are shredded", c.Gone)
	}
	fmt.Fprintln(w)
	for _, x := range c.By {
		fmt.Fprintf(w, "    %7d   %s, %s, class %d\n", x.Entries, printable(x.Custodian), x.Month, x.Class)
	}
}

func runCaseSearch(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var t discovery.Terms
	fs.Var((*list)(&t.Parties), "party", "`ADDRESS` that wrote or got it; may be repeated: any of them")
	fs.Var((*list)(&t.Domains), "domain", "`DOMAIN` of one of them; may be repeated")
	from, to := moment{}, moment{last: true}
	fs.Var(&from, "from", "first `DAY` of intake, UTC")
	fs.Var(&to, "to", "last `DAY` of intake, UTC")
	fs.Int64Var(&t.MinOctets, "min-octets", 0, "at least `N` octets")
	fs.Int64Var(&t.MaxOctets, "max-octets", 0, "at most `N` octets")
	direction := fs.String("direction", "", "inbound or outbound")
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	}
	switch *direction {
	case "":
	case "inbound":
		t.Direction = vault.Inbound
	case "outbound":
		t.Direction = vault.Outbound
	default:
		return usagef("case search: --direction %q: inbound or outbound", *direction)
	}
	t.From, t.To = from.Time, to.Time
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	s, err := d.Search(ctx, id, t)
	if err != nil {
		return casePolicy(err)
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(s)
	}
	fmt.Fprintf(std.out, "search %d: %s\n", s.Number, printable(shownTerms(s.Terms)))
	printCounts(std.out, s.Found)
	return nil
}

func runCaseSelect(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var searches numbers
	fs.Var(&searches, "search", "`N`: what this search found; may be repeated")
	out := fs.String("out", "", "`FILE` for the station; must not exist")
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
	var which []int
	for _, n := range searches {
		which = append(which, int(n))
	}
	return f.writeSelection(ctx, std, d, id, which, *out)
}

// writeSelection fixes the set of a case and writes the file for the station.
func (f caseFlags) writeSelection(ctx context.Context, std stdio, d *discovery.Desk, id vault.ID, which []int, out string) error {
	sel, s, err := d.Select(ctx, id, which)
	if err != nil {
		return casePolicy(err)
	}
	b, err := sel.Octets()
	if err != nil {
		return err
	}
	name := outName(out, "selection-"+id.String()+".json")
	if err := safefile.Create(name, b); err != nil {
		return err
	}
	if *f.json {
		err = json.NewEncoder(std.out).Encode(struct {
			Case vault.ID `json:"case"`
			*discovery.Selected
			File string `json:"file"`
		}{id, s, name})
	} else {
		printCounts(std.out, s.Found)
		for _, x := range s.Damaged {
			fmt.Fprintf(std.out, "NOT SELECTED: %s\n", printable(x))
		}
		if s.OtherKey > 0 {
			fmt.Fprintf(std.out, "left out, sealed to another escrow key: %d entries (gateway case open --escrow-key)\n", s.OtherKey)
		}
		fmt.Fprintf(std.out, "wrote %s\n", name)
	}
	if err == nil && len(s.Damaged) > 0 {
		err = errReported
	}
	return err
}

// writeTo writes a file that must not exist, whole or not at all.
func writeTo(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil { // never over a file
		return err
	}
	return safefile.SyncDir(filepath.Dir(name))
}

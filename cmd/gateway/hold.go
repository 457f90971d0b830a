package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/trustful"
	"dimegate/vault"
)

var holdCommand = command{
	name:    "hold",
	summary: "legal holds: what the archive keeps whatever its retention, and whoever asks for erasure",
	sub: []command{
		{
			name: "add", summary: "place a hold on custodians' mail, by date of intake and class; it is logged",
			usage:   "[--config FILE] --basis TEXT {--custodian ADDRESS... | --everybody} [--from DAY] [--to DAY] [--class N...]",
			example: `gateway hold add --basis "claim of 3 March, Smith v. Example" --custodian bob@example.com --from 2026-01-01`,
			run:     runHoldAdd,
		},
		{
			name: "list", summary: "list the holds that are in force, or with --all those that ended, too",
			usage:   "[--config FILE] [--all] [--json]",
			example: "gateway hold list",
			run:     runHoldList,
		},
		{
			name: "release", summary: "end a hold: retention and erasure take their course again; it is logged",
			usage:   "[--config FILE] --why TEXT HOLD",
			example: `gateway hold release --why "settled on 2 May" 01960c4f3a7d0000a4c1c5b9a2c33f10`,
			run:     runHoldRelease,
		},
	},
}

// classes is a flag that may be given several times.
type classes []uint16

func (c *classes) String() string { return fmt.Sprint([]uint16(*c)) }

func (c *classes) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("a class is a number from 0 to 65535")
	}
	*c = append(*c, uint16(n))
	return nil
}

// A day is a flag: the begin of a day, in UTC.
type day struct{ time.Time }

func (d *day) String() string { return d.Format(time.DateOnly) }

func (d *day) Set(s string) (err error) {
	if d.Time, err = time.Parse(time.DateOnly, s); err != nil {
		return errors.New("a day is written YYYY-MM-DD")
	}
	return nil
}

func runHoldAdd(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	basis := fs.String("basis", "", "why the law wants it: `TEXT`, which stands in the log's leaf")
	everybody := fs.Bool("everybody", false, "every custodian")
	var custodians list
	var of classes
	var from, to day
	fs.Var(&custodians, "custodian", "an `ADDRESS` whose mail is held; may be given again")
	fs.Var(&of, "class", "a retention class `N`, else every one; may be given again")
	fs.Var(&from, "from", "mail that came on this `DAY` (UTC) or later")
	fs.Var(&to, "to", "mail that came on this `DAY` or earlier")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("hold add: takes no operand")
	case strings.TrimSpace(*basis) == "":
		return usagef("hold add: --basis says why")
	case everybodyOrNobody(*everybody, custodians):
		return usagef("hold add: name custodians by --custodian, or say --everybody")
	}
	h := vault.LegalHold{ID: vault.NewID(time.Now()), Basis: *basis, Classes: of, From: from.Time}
	if !to.IsZero() {
		h.To = to.AddDate(0, 0, 1)
	}
	if !h.From.IsZero() && !h.To.IsZero() && !h.To.After(h.From) {
		return usagef("hold add: --to is before --from")
	}
	for _, c := range custodians {
		address, err := trustful.Normal(c)
		if err != nil {
			return usagef("hold add: %q is not an address", c)
		}
		h.Custodians = append(h.Custodians, address)
	}
	_, v, a, err := openArchive(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.AddHold(ctx, h, time.Now()); err != nil {
		return err
	}
	for _, address := range h.Custodians {
		if names, err := a.CustodianNames(ctx, address); err != nil {
			return err
		} else if len(names) == 0 {
			fmt.Fprintf(std.err, "nothing is kept of %s until now: the hold is on what will come; is the address right?\n", address)
		}
	}
	_, err = fmt.Fprintf(std.out, "hold %v is in force\n", h.ID)
	return err
}

func everybodyOrNobody(everybody bool, custodians list) bool {
	return everybody == (len(custodians) > 0)
}

func runHoldList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	all := fs.Bool("all", false, "those that ended, too")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("hold list: takes no operand")
	}
	_, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	holds, err := v.Holds(ctx)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, h := range holds {
		if !*all && !h.Ended.IsZero() {
			continue
		}
		if *asJSON {
			if err := json.NewEncoder(std.out).Encode(h); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(tw, "%v\t%s\t%s\t%s\n", h.ID, holdState(h), holdScope(h), h.Basis)
	}
	return tw.Flush()
}

func holdState(h vault.LegalHold) string {
	if h.Ended.IsZero() {
		return "since " + date(h.Made)
	}
	return date(h.Made) + " to " + date(h.Ended)
}

// holdScope is what a hold covers, in words.
func holdScope(h vault.LegalHold) string {
	scope := "everybody"
	if len(h.Custodians) > 0 {
		scope = strings.Join(h.Custodians, ", ")
	}
	if len(h.Classes) > 0 {
		scope += fmt.Sprintf(", classes %d", h.Classes)
	}
	if !h.From.IsZero() {
		scope += ", from " + date(h.From)
	}
	if !h.To.IsZero() {
		scope += ", to " + date(h.To.AddDate(0, 0, -1))
	}
	if !h.Case.IsZero() {
		scope += ", of case " + h.Case.String()
	}
	return scope
}

func runHoldRelease(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	why := fs.String("why", "", "why it ends: `TEXT`, which stands in the log's leaf")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) != 1:
		return usagef("hold release: give the id of one hold, as hold list shows it")
	case strings.TrimSpace(*why) == "":
		return usagef("hold release: --why says why")
	}
	id, err := vault.ParseID(rest[0])
	if err != nil {
		return usagef("hold release: %q is not an id", rest[0])
	}
	_, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := caseKeeps(ctx, v.Vault, id); err != nil {
		return err
	}
	payload, err := json.Marshal(map[string]string{"by": person(), "why": *why})
	if err != nil {
		return err
	}
	if err := v.EndHold(ctx, id, payload, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "hold %v has ended\n", id)
	return err
}

// caseKeeps refuses to end the hold of a case that goes on.
func caseKeeps(ctx context.Context, v *vault.Vault, id vault.ID) error {
	holds, err := v.Holds(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(holds, func(h vault.LegalHold) bool { return h.ID == id })
	if i < 0 || holds[i].Case.IsZero() {
		return nil
	}
	c, err := v.Case(ctx, holds[i].Case)
	if err == nil && c.State != vault.CaseClosed {
		return refusedError{fmt.Errorf("hold release: it belongs to case %v, which is %v: close the case", c.ID, c.State)}
	}
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	return err
}

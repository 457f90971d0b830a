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
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/mod/sumdb/note"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

var caseCommand = command{
	name:    "case",
	summary: "cases over archived mail: open one, search tokens, ask the officers, give the station what they grant",
	sub: []command{
		{
			name: "open", summary: "open a case: what it is about is on hold from now on",
			usage:   "[--config FILE] --request FILE --basis TEXT --custodian ADDRESS ... [--from DAY] [--to DAY] [--class N ...] --expires DAY [--json]",
			example: `gateway case open --request case.request --basis "court order 12 O 34/26" --custodian alice@example.org --from 2026-01-01 --to 2026-03-31 --expires 2026-06-30`,
			run:     runCaseOpen,
		},
		caseDSARCommand,
		{
			name: "list", summary: "list cases: who asked, for what, how far they are",
			usage:   "[--config FILE] [--all] [--json]",
			example: "gateway case list",
			run:     runCaseList,
		},
		{
			name: "show", summary: "show everything about a case: basis, scope, searches, answers",
			usage:   "[--config FILE] [--json] CASE",
			example: "gateway case show 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseShow,
		},
		{
			name: "search", summary: "search within a case, over tokens of addresses, dates, sizes and direction; shows counts, never mail",
			usage:   "[--config FILE] [--party ADDRESS ...] [--domain DOMAIN ...] [--from DAY] [--to DAY] [--min-octets N] [--max-octets N] [--direction inbound|outbound] [--json] CASE",
			example: "gateway case search --party bob@example.net --from 2026-02-01 --to 2026-02-14 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseSearch,
		},
		{
			name: "select", summary: "fix what searches found (the last one, or those named) as the set to ask for; the file goes to the station",
			usage:   "[--config FILE] [--search N ...] [--out FILE] [--json] CASE",
			example: "gateway case select --search 2 --search 3 --out selection.json 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseSelect,
		},
		{
			name: "submit", summary: "enter the signed request in the log, and write the bundle for the officers; later, without --request, a newer bundle",
			usage:   "[--config FILE] [--request FILE] [--known SIZE ...] [--out FILE] [--json] CASE",
			example: "gateway case submit --request request.deg1 --out case.deb1 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseSubmit,
		},
		{
			name: "approve", summary: "relay officers' answers, approvals and refusals: check them, enter them in the log, keep them for the station",
			usage:   "[--config FILE] [--json] CASE ANSWER ...",
			example: "gateway case approve 0f5cm4nq6v2k1s0s7v3t8e2g9c anna.answer ben.answer",
			run:     runCaseApprove,
		},
		{
			name: "decrypt", summary: "write the case file for the station: sealed mail, proofs and the officers' answers; it opens there alone",
			usage:   "[--config FILE] --to FILE [--json] CASE",
			example: "gateway case decrypt --to case.zip 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseDecrypt,
		},
		{
			name: "close", summary: "end a case with what its station signed; the hold ends with it unless it is to go on",
			usage:   "[--config FILE] [--keep-hold] [--json] --closing FILE | --abandon TEXT CASE",
			example: "gateway case close --closing closing.json 0f5cm4nq6v2k1s0s7v3t8e2g9c",
			run:     runCaseClose,
		},
		caseStationCommand,
	},
}

// caseFlags are those of every command of cases on the gateway.
type caseFlags struct {
	config *string
	json   *bool
}

func newCaseFlags(fs *flag.FlagSet) caseFlags {
	return caseFlags{fs.String("config", defaultConfig, "configuration `FILE`"), fs.Bool("json", false, "print JSON")}
}

// desk opens the gateway's side of cases. Close closes it.
func (f caseFlags) desk(ctx context.Context) (d *discovery.Desk, close func(), err error) {
	c, o, err := openSealed(ctx, *f.config)
	if err != nil {
		return nil, nil, err
	}
	if d, err = newDesk(ctx, c, o); err != nil {
		o.Close()
		return nil, nil, err
	}
	return d, func() { o.Close() }, nil
}

func newDesk(ctx context.Context, c *config.Config, o *keystore.Opened) (*discovery.Desk, error) {
	a, err := archive.Open(ctx, o.Vault)
	if err != nil {
		return nil, err
	}
	k, err := audit.VaultKey(ctx, o.Vault)
	if err != nil {
		return nil, err
	}
	log := audit.New(o.Vault, k)
	var witnesses []*audit.RemoteWitness
	var verifiers []note.Verifier
	for i, text := range c.Audit.Witnesses {
		w, err := appliance.NewRemoteWitness(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("audit.witnesses[%d]: %w", i+1, err)}
		}
		witnesses, verifiers = append(witnesses, w), append(verifiers, w.Verifier)
	}
	cosign := func(ctx context.Context) error {
		var all error
		for _, w := range witnesses {
			all = errors.Join(all, log.Cosign(ctx, w))
		}
		return all
	}
	return &discovery.Desk{Vault: o.Vault, Archive: a, Log: log, LogKey: k.Verifier(), Witnesses: verifiers, Cosign: cosign, By: person(), Now: time.Now}, nil
}

// casePolicy makes a refusal of what policy refuses, and wrong use of a case that is not there.
func casePolicy(err error) error {
	if _, ok := errors.AsType[discovery.Refusal](err); ok {
		return refusedError{err}
	}
	if errors.Is(err, vault.ErrNotFound) {
		return usageError{err}
	}
	return policy(err)
}

// aCase is the id among the operands, which are at least one.
func aCase(fs *flag.FlagSet, args []string, more bool) (vault.ID, []string, error) {
	rest, err := parse(fs, args)
	if err != nil {
		return vault.ID{}, nil, err
	}
	name := strings.TrimPrefix(fs.Name(), "gateway ")
	if len(rest) == 0 || !more && len(rest) > 1 {
		return vault.ID{}, nil, usagef("%s: name one case: gateway case list shows them", name)
	}
	id, err := vault.ParseID(rest[0])
	if err != nil {
		return vault.ID{}, nil, usagef("%s: %q is no case's id: gateway case list shows them", name, rest[0])
	}
	return id, rest[1:], nil
}

// A moment is a flag's date, or a moment as RFC 3339 writes it. Of a last day it is the end.
type moment struct {
	time.Time
	last bool
}

func (d *moment) Set(s string) error {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if d.Time = t; d.last {
			d.Time = t.AddDate(0, 0, 1)
		}
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("not a day as 2026-03-31 (UTC)")
	}
	d.Time = t
	return nil
}

func (d *moment) String() string {
	if d == nil || d.IsZero() {
		return ""
	}
	return d.Format(time.RFC3339)
}

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

func runCaseOpen(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	request := fs.String("request", "", "case request `FILE`, as gateway case station init prints it")
	var o discovery.Order
	fs.StringVar(&o.Basis, "basis", "", "`TEXT`: the law, order or request; officers and the privacy officer read it")
	fs.Var((*list)(&o.Custodians), "custodian", "`ADDRESS` whose mail the case is about; may be repeated")
	fs.StringVar(&o.Key, "escrow-key", "", "how the `ID` of the escrow key begins that the mail is sealed to, where another one has replaced it; gateway escrow list shows ids")
	var of classes
	fs.Var(&of, "class", "retention class, `N`; may be repeated; any when not given")
	from, to, expires := moment{}, moment{last: true}, moment{last: true}
	fs.Var(&from, "from", "first `DAY` of intake, UTC")
	fs.Var(&to, "to", "last `DAY` of intake, UTC")
	fs.Var(&expires, "expires", "last `DAY` of the case, within 90 days")
	f := newCaseFlags(fs)
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || *request == "" || o.Basis == "" || len(o.Custodians) == 0 || expires.IsZero() {
		return usagef("case open: give --request, --basis, --custodian and --expires, and no operand")
	}
	o.Classes = of
	o.From, o.To, o.Expires = from.Time, to.Time, expires.Time
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	line, err := readFile(std, *request)
	if err != nil {
		return err
	}
	if o.Request, err = discovery.ParseCaseRequest(line); err != nil {
		return usageError{fmt.Errorf("%s: %w", *request, err)}
	}
	c, err := d.Open(ctx, o)
	if _, ok := errors.AsType[discovery.Refusal](err); ok {
		return refusedError{err}
	} else if err != nil {
		return usageError{err}
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(c)
	}
	_, err = fmt.Fprintf(std.out, "case %s is open until %s; hold %s began\nfingerprint of the request: %s: compare it with the station's\n", c.ID, c.Expires.UTC().Format(time.RFC3339), c.About.Hold, c.About.Fingerprint)
	return err
}

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

func runCaseSubmit(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	request := fs.String("request", "", "the signed request, `FILE` of the station")
	out := fs.String("out", "", "`FILE` for the officers; must not exist")
	var known numbers
	fs.Var(&known, "known", "`SIZE` of the log that an officer saw last, when his tool asks for a bundle that proves growth from it; may be repeated")
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
	if *request != "" {
		b, err := readFile(std, *request)
		if err != nil {
			return err
		}
		st, err := escrow.ParseStatement(b)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", *request, err)}
		}
		if err := d.Submit(ctx, id, st); err != nil {
			return casePolicy(err)
		}
	}
	name := outName(*out, "case-"+id.String()+".deb1")
	if err := writeTo(name, func(w io.Writer) error { return d.WriteBundle(ctx, id, w, known) }); err != nil {
		return casePolicy(err)
	}
	return f.saidFile(std, id, name)
}

func (f caseFlags) saidFile(std stdio, id vault.ID, name string) error {
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Case vault.ID `json:"case"`
			File string   `json:"file"`
		}{id, name})
	}
	_, err := fmt.Fprintf(std.out, "wrote %s\n", name)
	return err
}

func runCaseApprove(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newCaseFlags(fs)
	id, files, err := aCase(fs, args, true)
	if err != nil {
		return err
	} else if len(files) == 0 {
		return usagef("case approve: name the case and the officers' answers")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	for _, name := range files {
		answer, err := os.Open(name)
		if err != nil {
			return usageError{err}
		}
		said, c, err := d.Relay(ctx, id, answer)
		answer.Close()
		if err != nil {
			return casePolicy(fmt.Errorf("%s: %w", name, err))
		}
		if *f.json {
			err = json.NewEncoder(std.out).Encode(struct {
				*discovery.OfficerSaid
				State string `json:"state"`
			}{said, c.State})
		} else {
			_, err = fmt.Fprintf(std.out, "officer %d (%s) %s; the case is %s\n", said.Index, printable(said.Person), map[bool]string{true: "approves", false: "declines"}[said.Approved], c.State)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func runCaseDecrypt(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	to := fs.String("to", "", "`FILE` for the station; must not exist")
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	} else if *to == "" {
		return usagef("case decrypt: give --to FILE")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	p := newProgress(std, "records", 0)
	err = writeTo(*to, func(w io.Writer) error { return d.Release(ctx, id, w, p.reach) })
	p.end()
	if err != nil {
		return casePolicy(err)
	}
	return f.saidFile(std, id, *to)
}

func runCaseClose(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	closing := fs.String("closing", "", "closing `FILE` of the station")
	abandon := fs.String("abandon", "", "end a case that nobody opened, and say why: `TEXT`")
	keep := fs.Bool("keep-hold", false, "the hold goes on")
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	} else if (*closing == "") == (*abandon == "") {
		return usagef("case close: give --closing FILE, or --abandon TEXT")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	var b []byte
	if *closing != "" {
		if b, err = readUpTo(std, *closing, discovery.MaxClosing); err != nil {
			return err
		}
	}
	var c *discovery.Case
	if b != nil {
		c, err = d.Close(ctx, id, b, *keep)
	} else {
		c, err = d.Abandon(ctx, id, *abandon, *keep)
	}
	if err != nil {
		return casePolicy(err)
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(c)
	}
	hold := "ended"
	if *keep {
		hold = "goes on"
	}
	_, err = fmt.Fprintf(std.out, "case %s is closed: %d records were opened, %d could not be; the hold %s\n", c.ID, c.About.Closed.Opened, c.About.Closed.Unopenable, hold)
	return err
}

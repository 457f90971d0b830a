package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/discovery"
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

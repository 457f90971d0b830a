package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
)

var caseStationCommand = command{
	name:    "station",
	summary: "the discovery station, on a machine of its own: ask for a case, open what a quorum gave, search it, forget it",
	sub: []command{
		{
			name: "init", summary: "make the case's key and the requester's, and print the case request file",
			usage:   "--requester ADDRESS --log KEY --witness KEY [--token FILE [--recipient RECIPIENT]] [--passphrase-file FILE] [--json] FOLDER",
			example: "gateway case station init --requester rita@example.org --log dimegate/…+…+… --witness witness.example.org+…+… case-2026-7 > case.request",
			run:     runStationInit,
		},
		{
			name: "sign", summary: "show what was selected on the gateway, ask, and sign the request",
			usage:   "[--out FILE] [--yes] [--passphrase-file FILE] [--json] FOLDER SELECTION",
			example: "gateway case station sign --out request.deg1 case-2026-7 selection.json",
			run:     runStationSign,
		},
		{
			name: "open", summary: "open the case file with what the officers gave; goes on where it was ended",
			usage:   "[--passphrase-file FILE] [--json] FOLDER [CASEFILE]",
			example: "gateway case station open case-2026-7 case.zip",
			run:     runStationOpen,
		},
		{
			name: "rewrap", summary: "in a case whose basis is rewrap: seal the records' keys anew to another escrow key, and write the file for the gateway; keeps nothing",
			usage:   "[--dealer FINGERPRINT] [--epoch FILE ...] [--out FILE] [--passphrase-file FILE] [--json] FOLDER CASEFILE TRANSCRIPT STATEMENT ...",
			example: "gateway case station rewrap --dealer 0123456789abcdef --out rewrap.drw1 case-2026-7 case.zip transcript.txt attest-1-*.deg1",
			run:     runStationRewrap,
		},
		{
			name: "list", summary: "list the items, or those with a mark",
			usage:   "[--mark MARK] [--passphrase-file FILE] [--json] FOLDER",
			example: "gateway case station list --mark privilege case-2026-7",
			run:     runStationList,
		},
		{
			name: "search", summary: "search every item whole: words, \"phrases\", OR, -not, begin*, subject: from: to: file:",
			usage:   "[--passphrase-file FILE] [--json] FOLDER QUERY",
			example: `gateway case station search case-2026-7 'merger OR acqui* -subject:newsletter "closing date"'`,
			run:     runStationSearch,
		},
		{
			name: "show", summary: "write an item's exact octets",
			usage:   "[--out FILE] [--passphrase-file FILE] FOLDER ITEM",
			example: "gateway case station show --out 12.eml case-2026-7 12",
			run:     runStationShow,
		},
		{
			name: "mark", summary: "mark items: privilege and redaction withhold them from exports, other marks are yours",
			usage:   "[--remove] [--passphrase-file FILE] FOLDER MARK ITEM[-ITEM] ...",
			example: "gateway case station mark case-2026-7 privilege 3 12-19",
			run:     runStationMark,
		},
		stationCredentialCommand,
		stationMailboxCommand,
		stationExportCommand,
		{
			name: "close", summary: "destroy the case key and all that was opened, and sign that it is done",
			usage:   "[--export FILE] [--out FILE] [--yes] [--passphrase-file FILE] [--json] FOLDER",
			example: "gateway case station close --export evidence-06EQZ….manifest --out closing.json case-2026-7",
			run:     runStationClose,
		},
	},
}

// stationFlags are those of every command of the station.
type stationFlags struct {
	passphrase *string
	json       *bool
}

func newStationFlags(fs *flag.FlagSet) stationFlags {
	return stationFlags{
		passphrase: fs.String("passphrase-file", "", "`FILE` with the passphrase, mode 0600; asked for when not given"),
		json:       fs.Bool("json", false, "print JSON"),
	}
}

func openStation(dir string) (*station.Station, error) {
	s, err := station.Open(dir)
	if err != nil {
		return nil, usageError{fmt.Errorf("%w: is %s a station's folder? gateway case station init makes one", err, dir)}
	}
	return s, nil
}

// unlocked opens a station with its keys. The caller destroys them.
func (f stationFlags) unlocked(std stdio, dir string) (*station.Station, *station.Keys, error) {
	s, err := openStation(dir)
	if err != nil {
		return nil, nil, err
	}
	if s.Closed() {
		return nil, nil, refusedError{station.ErrClosed}
	}
	harden()
	id, err := unlockWith(std, s.Token(), *f.passphrase)
	if err != nil {
		return nil, nil, err
	}
	k, err := s.Unlock(id)
	return s, k, err
}

// opened is unlocked, and the case that was opened there. End closes both.
func (f stationFlags) opened(std stdio, dir string) (c *station.Case, end func(), err error) {
	s, k, err := f.unlocked(std, dir)
	if err != nil {
		return nil, nil, err
	}
	if c, err = s.Case(k, time.Now()); err != nil {
		k.Destroy()
		return nil, nil, stationPolicy(err)
	}
	if !c.Whole() {
		fmt.Fprintln(std.err, "not all of the case is opened yet: gateway case station open goes on")
	}
	return c, func() { c.Close(); k.Destroy() }, nil
}

// stationPolicy makes a refusal of what policy refuses.
func stationPolicy(err error) error {
	for _, p := range []error{station.ErrExpired, station.ErrClosed, station.ErrOfficer, station.ErrRewrap, station.ErrNotRewrap, station.ErrNotSigned, station.ErrNotOpened} {
		if errors.Is(err, p) {
			return refusedError{err}
		}
	}
	return policy(err)
}

func runStationInit(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	requester := fs.String("requester", "", "mail `ADDRESS` of who asks for the case, in lower case; no escrow officer")
	token := fs.String("token", "", "age plugin identity `FILE` of a token that protects the keys, in place of a passphrase")
	recipient := fs.String("recipient", "", "the token's age `RECIPIENT`, where the file does not say it")
	var t escrow.Trust
	fs.StringVar(&t.Log, "log", "", "verifier `KEY` of the gateway's log")
	fs.Var((*list)(&t.Witnesses), "witness", "verifier `KEY` of a witness of it; may be repeated")
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) != 1 || *requester == "" || t.Log == "" || len(t.Witnesses) == 0 {
		return usagef("case station init: give --requester, --log, --witness and one folder")
	}
	harden()
	l, err := newLock(std, *f.passphrase, *token, *recipient)
	if err != nil {
		return err
	}
	s, err := station.Create(rest[0], *requester, t, l)
	if err != nil {
		return usageError{err}
	}
	r := s.Request()
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Requester   string `json:"requester"`
			Fingerprint string `json:"fingerprint"`
			Line        string `json:"case_request"`
			Folder      string `json:"folder"`
		}{r.Requester, r.Fingerprint(), r.Line(), rest[0]})
	}
	fmt.Fprintf(std.err, "keys in %s; fingerprint of the request, to be read to who opens the case: %s\n", rest[0], r.Fingerprint())
	_, err = io.WriteString(std.out, r.Line())
	return err
}

func runStationSign(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	out := fs.String("out", "", "`FILE` for the signed request; must not exist")
	yes := fs.Bool("yes", false, "sign without asking")
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) != 2 {
		return usagef("case station sign: name the station's folder and the selection file")
	}
	s, err := openStation(rest[0])
	if err != nil {
		return err
	}
	b, err := readUpTo(std, rest[1], discovery.MaxSelection)
	if err != nil {
		return err
	}
	sel, err := discovery.ParseSelection(b)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", rest[1], err)}
	}
	now := time.Now()
	if err := s.CheckSelection(sel, now); err != nil {
		return refusedError{fmt.Errorf("%s: %w", rest[1], err)}
	}
	if !*f.json {
		printManifest(std.out, sel, now)
	}
	s, k, err := f.unlocked(std, rest[0])
	if err != nil {
		return err
	}
	defer k.Destroy()
	if err := confirm(std, *yes, "You ask the officers to open every one of these records for the basis above."); err != nil {
		return err
	}
	st, err := s.Sign(k, sel, now)
	if err != nil {
		return stationPolicy(err)
	}
	name := outName(*out, "request-"+sel.Manifest.Case.String()+".deg1")
	if err := safefile.Create(name, st.Octets()); err != nil {
		return err
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Case   vault.ID  `json:"case"`
			Digest string    `json:"case_digest"`
			Time   time.Time `json:"time"`
			File   string    `json:"file"`
		}{sel.Manifest.Case, hexDigest(sel.Manifest.Digest()), st.Time, name})
	}
	_, err = fmt.Fprintf(std.out, "signed: %s requests\nwrote %s\n", printable(sel.Manifest.Requester), name)
	return err
}

// printManifest shows what a selection is about.
func printManifest(w io.Writer, sel *discovery.Selection, now time.Time) {
	m := sel.Manifest
	var names []string
	for _, c := range sel.Custodians {
		names = append(names, strings.ToLower(c.Address))
	}
	fmt.Fprintf(w, "case %s\n  digest      %s\n  basis       %s\n  asked by    %s\n  opened      %s\n  expires     %s, in %d hours\n  months      %s to %s\n  classes     %s\n  custodians  %d: %s\n  entries     %d\n  log         %s, %d leaves\n",
		m.Case, hexDigest(m.Digest()), printable(m.Basis), printable(m.Requester), m.Opened.Format(time.RFC3339), m.Expires.Format(time.RFC3339), int(m.Expires.Sub(now).Hours()),
		m.First, m.Last, strings.Trim(fmt.Sprint(m.Classes), "[]"), len(names), printable(strings.Join(names, ", ")), len(m.Entries), printable(m.LogOrigin), m.LogSize)
}

func runStationOpen(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) < 1 || len(rest) > 2 {
		return usagef("case station open: name the station's folder, and the case file the first time")
	}
	s, k, err := f.unlocked(std, rest[0])
	if err != nil {
		return err
	}
	defer k.Destroy()
	p := newProgress(std, "opened", 0)
	r, err := s.OpenCase(ctx, k, append(rest, "")[1], appliance.StoredEnvelopes, time.Now(), p.reach)
	p.end()
	if r != nil {
		for _, b := range r.Refused {
			fmt.Fprintf(std.err, "not used: %s\n", printable(b.String()))
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return usageError{err}
	} else if err != nil {
		return stationPolicy(err)
	}
	c, err := s.Case(k, time.Now())
	if err != nil {
		return err
	}
	defer c.Close()
	return f.saidOpened(std, r, len(c.Items()))
}

func (f stationFlags) saidOpened(std stdio, r *station.Report, items int) error {
	if *f.json {
		type refusal struct {
			Officer uint16 `json:"officer"`
			Person  string `json:"person"`
			Reason  string `json:"reason"`
		}
		refused := []refusal{}
		for _, b := range r.Refused {
			refused = append(refused, refusal{b.Officer, b.Person, b.Err.Error()})
		}
		if err := json.NewEncoder(std.out).Encode(struct {
			*station.Report
			Items   int       `json:"items"`
			Refused []refusal `json:"refused_answers"`
		}{r, items, refused}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(std.out, "opened %d entries of %d, %d before this run: %d items\n", r.Opened, r.Entries, r.Before, items)
		for _, x := range r.Faults {
			fmt.Fprintf(std.out, "NOT OPENED: entry %d, record %s: %s\n", x.Entry, x.Record, printable(x.Reason))
		}
	}
	if len(r.Faults) > 0 {
		return errReported
	}
	return nil
}

// An itemRow is an item, as listed.
type itemRow struct {
	discovery.Item
	Digest  string `json:"content_digest"`
	Subject string `json:"subject"`
	Date    string `json:"date"`
}

func runStationList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	mark := fs.String("mark", "", "only items with this `MARK`")
	f := newStationFlags(fs)
	folder, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	c, end, err := f.opened(std, folder)
	if err != nil {
		return err
	}
	defer end()
	var numbers []int
	for _, i := range c.Items() {
		if *mark == "" || hasMark(i, *mark) {
			numbers = append(numbers, i.Number)
		}
	}
	return f.printItems(ctx, std, c, numbers)
}

func hasMark(i discovery.Item, mark string) bool {
	for _, m := range i.Marks {
		if m == mark {
			return true
		}
	}
	return false
}

// printItems lists items, a line each.
func (f stationFlags) printItems(ctx context.Context, std stdio, c *station.Case, numbers []int) error {
	items := c.Items()
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	e := json.NewEncoder(std.out)
	for _, n := range numbers {
		i := items[n-1]
		subject, date, err := c.Subject(ctx, n)
		if err != nil {
			return err
		}
		if *f.json {
			if err := e.Encode(itemRow{i, hexDigest(i.Content), subject, date}); err != nil {
				return err
			}
			continue
		}
		from, received := "", time.Time{}
		to := 0
		for _, x := range i.Envelopes {
			if received.IsZero() {
				from, received = x.From, x.Received
			}
			to += len(x.Recipients)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d recipients\t%d octets\t%s\t%s\n", n, received.UTC().Format("2006-01-02 15:04"), printable(from), to, i.Octets, printable(strings.Join(i.Marks, ",")), printable(subject))
	}
	return tw.Flush()
}

func runStationSearch(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) < 2 {
		return usagef("case station search: name the station's folder and what to look for")
	}
	q, err := station.ParseQuery(strings.Join(rest[1:], " "))
	if err != nil {
		return usageError{err}
	}
	c, end, err := f.opened(std, rest[0])
	if err != nil {
		return err
	}
	defer end()
	p := newProgress(std, "searched", int64(len(c.Items())))
	r, err := c.Search(ctx, q, p.reach)
	p.end()
	if err != nil {
		return err
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(r)
	}
	if err := f.printItems(ctx, std, c, r.Found); err != nil {
		return err
	}
	fmt.Fprintf(std.err, "%d of %d items", len(r.Found), len(c.Items()))
	if len(r.Unsearched) > 0 {
		fmt.Fprintf(std.err, "; %d have parts that are not text and were not looked into: --json lists them", len(r.Unsearched))
	}
	fmt.Fprintln(std.err)
	return nil
}

func runStationShow(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	out := fs.String("out", "", "`FILE` for the octets; must not exist")
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) != 2 {
		return usagef("case station show: name the station's folder and an item's number")
	}
	n, err := strconv.Atoi(rest[1])
	if err != nil {
		return usagef("case station show: %q is no item's number", rest[1])
	}
	c, end, err := f.opened(std, rest[0])
	if err != nil {
		return err
	}
	defer end()
	r, err := c.Open(ctx, n)
	if err != nil {
		return usageError{err}
	}
	defer r.Close()
	if *out != "" {
		return safefile.CreateFrom(*out, r)
	}
	_, err = io.Copy(std.out, r)
	return err
}

func runStationMark(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	remove := fs.Bool("remove", false, "take the mark from them")
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) < 3 {
		return usagef("case station mark: name the station's folder, the mark and items")
	}
	numbers, err := itemNumbers(rest[2:])
	if err != nil {
		return err
	}
	c, end, err := f.opened(std, rest[0])
	if err != nil {
		return err
	}
	defer end()
	if err := c.Mark(rest[1], numbers, *remove); err != nil {
		return usageError{err}
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Mark    string `json:"mark"`
			Items   []int  `json:"items"`
			Removed bool   `json:"removed"`
		}{rest[1], numbers, *remove})
	}
	_, err = fmt.Fprintf(std.out, "%d items\n", len(numbers))
	return err
}

// itemNumbers reads numbers and ranges of them.
func itemNumbers(args []string) ([]int, error) {
	var list []int
	for _, a := range args {
		first, last, ok := strings.Cut(a, "-")
		if !ok {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from < 1 || to < from || to > escrow.MaxEntries {
			return nil, usagef("%q is no item's number and no range of them, as 3 or 12-19", a)
		}
		for n := from; n <= to; n++ {
			list = append(list, n)
		}
	}
	return list, nil
}

func runStationClose(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	export := fs.String("export", "", "manifest `FILE` of the evidence package (or another list of what was exported), whose digest the log gets")
	out := fs.String("out", "", "`FILE` for the closing file; must not exist")
	yes := fs.Bool("yes", false, "close without asking")
	f := newStationFlags(fs)
	folder, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	s, err := openStation(folder)
	if err != nil {
		return err
	}
	var k *station.Keys
	digest := vault.Digest{}
	if !s.Closing() {
		if s, k, err = f.unlocked(std, folder); err != nil {
			return err
		}
		defer k.Destroy()
		if *export != "" {
			b, err := readUpTo(std, *export, 1<<30)
			if err != nil {
				return err
			}
			digest = vault.NewDigest("export", b)
		}
		if err := confirm(std, *yes, "The case key and everything that was opened is destroyed: nothing of it can be opened here again."); err != nil {
			return err
		}
	}
	b, err := s.CloseCase(k, digest, time.Now())
	if err != nil {
		return stationPolicy(err)
	}
	name := outName(*out, "closing-"+s.Selection().Manifest.Case.String()+".json")
	if err := safefile.Create(name, b); err != nil {
		return err
	}
	c, err := discovery.ParseClosing(b, s.Selection().Manifest)
	if err != nil {
		return err
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Case       vault.ID `json:"case"`
			Opened     int      `json:"opened"`
			Unopenable int      `json:"unopenable"`
			File       string   `json:"file"`
		}{s.Selection().Manifest.Case, len(c.Opened), len(c.Unopenable), name})
	}
	_, err = fmt.Fprintf(std.out, "closed: %d records were opened; the case key and what it opened are destroyed\nwrote %s\n", len(c.Opened), name)
	return err
}

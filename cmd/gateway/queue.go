package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
	"dimegate/dmtp"
)

// queueCommand works beside a running gateway: what it changes the gateway sees within seconds.
var queueCommand = command{
	name:    "queue",
	summary: "list outbound mail that waits, and decide about it",
	sub: []command{
		{
			name: "list", summary: "list entries, oldest first: no address is shown",
			usage:   "[--config FILE] [--json] [DOMAIN]",
			example: "gateway queue list example.net",
			run:     runQueueList,
		},
		{
			name: "show", summary: "show all that is known of an entry; its addresses where roles are given",
			usage:   "[--config FILE] [--json] ENTRY",
			example: "gateway queue show 06h1144ehvsp7tbe5bu11lkaoc",
			run:     runQueueShow,
		},
		queueOperation("retry", "try entries at once", (*queue.Queue).Retry),
		queueOperation("hold", "hold entries until they are released: they do not expire", (*queue.Queue).Hold),
		queueOperation("release", "release held entries, also those in quarantine, and try them at once", (*queue.Queue).Release),
		queueOperation("fail", "end entries as undeliverable: their senders are told", (*queue.Queue).Fail),
		{
			name: "route", summary: "send entries by another host, with plain SMTP alone and where the floor permits it",
			usage:   "[--config FILE] [--json] --to (HOST:PORT | usual) (ENTRY... | --domain DOMAIN | --all)",
			example: "gateway queue route --to relay.example.org:25 --domain example.net",
			run:     runQueueRoute,
		},
		{
			name: "dump", summary: "write an entry's sealed object: nobody reads it without its keys",
			usage:   "[--config FILE] [--json] [--out FILE] ENTRY",
			example: "gateway queue dump --out entry.sealed 06h1144ehvsp7tbe5bu11lkaoc",
			run:     runQueueDump,
		},
		queueOperation("drop", "end entries without telling anyone", (*queue.Queue).Drop),
	},
}

func queueOperation(name, summary string, do func(*queue.Queue, context.Context, string) error) command {
	return command{
		name: name, summary: summary,
		usage:   "[--config FILE] [--json] (ENTRY... | --domain DOMAIN | --all)",
		example: "gateway queue " + name + " --domain example.net",
		run: func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
			return runQueueOperation(ctx, std, fs, args, name, do)
		},
	}
}

// openQueue opens the queue beside the gateway. The caller calls done.
func openQueue(ctx context.Context, path string) (q *queue.Queue, done func(), err error) {
	q, _, done, err = openQueueOf(ctx, path)
	return q, done, err
}

func openQueueOf(ctx context.Context, path string) (q *queue.Queue, c *config.Config, done func(), err error) {
	c, o, err := openSealed(ctx, path)
	if err != nil {
		return nil, nil, nil, err
	}
	return queue.New(spool.Store{Vault: o.Vault}, queue.Options{Hostname: c.Hostname}), c, func() { o.Close() }, nil
}

// queuePage is how many entries are read at once.
const queuePage = 500

// eachEntry calls visit for each entry of a domain, or of all when it is empty.
func eachEntry(ctx context.Context, q *queue.Queue, domain string, visit func(queue.Info) error) error {
	after := ""
	for {
		list, err := q.List(ctx, domain, after, queuePage)
		if err != nil {
			return err
		}
		for _, i := range list {
			if err := visit(i); err != nil {
				return err
			}
		}
		if len(list) < queuePage {
			return nil
		}
		after = list[len(list)-1].ID
	}
}

func runQueueList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usagef("queue list: one domain at most")
	}
	domain := ""
	if len(rest) == 1 {
		if domain, err = dmtp.Domain(rest[0]); err != nil {
			return usagef("queue list: %q is not a domain", rest[0])
		}
	}
	q, done, err := openQueue(ctx, *path)
	if err != nil {
		return err
	}
	defer done()
	out := bufio.NewWriter(std.out)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	err = eachEntry(ctx, q, domain, func(i queue.Info) error {
		if *asJSON {
			return json.NewEncoder(out).Encode(i)
		}
		_, err := fmt.Fprintf(tw, "%s\t%s\t%s\t%d octets\t%s\t%s\n", i.ID, i.Accepted.Local().Format(time.DateTime), i.Domain, i.Octets, standing(i), i.Reason)
		return err
	})
	return errors.Join(err, tw.Flush(), out.Flush())
}

// standing is an entry's state in a word or two.
func standing(i queue.Info) string {
	switch {
	case i.Active:
		return "active"
	case i.Held != "":
		return "held: " + i.Held
	case i.Notice != "":
		return "notice: " + i.Notice
	}
	return i.State
}

func runQueueShow(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("queue show: one entry")
	}
	_, o, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer o.Close()
	q := queue.New(spool.Store{Vault: o.Vault}, queue.Options{})
	attested, err := attestsLooks(ctx, o.Vault)
	if err != nil {
		return err
	}
	d, looked := queue.Details{}, false
	if attested {
		d, err = q.Look(ctx, rest[0])
		looked = err == nil
	}
	if !attested || errors.Is(err, queue.ErrDamaged) {
		d.Info, err = q.Show(ctx, rest[0])
	}
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return fmt.Errorf("%s: no such entry: it has ended, or never was", rest[0])
	case err != nil:
		return err
	case *asJSON && looked:
		return json.NewEncoder(std.out).Encode(d)
	case *asJSON:
		return json.NewEncoder(std.out).Encode(d.Info)
	}
	if err := printEntry(std.out, d.Info); err != nil || attested && !looked {
		return err
	}
	return printSealed(std.out, d, looked)
}

// printSealed is what only those see whose look is in the log.
func printSealed(w io.Writer, d queue.Details, looked bool) error {
	if !looked {
		_, err := fmt.Fprintln(w, "\nSender and recipient are shown where roles are given, since the look goes into the log: see \"gateway roles grant --help\".")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "from\t<%s>\nto\t<%s>\n", d.From, d.To)
	for _, f := range [][2]string{{"original recipient", d.Original}, {"envelope id", d.EnvelopeID}, {"the other side said", d.Said}} {
		if f[1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", f[0], f[1])
		}
	}
	return tw.Flush()
}

// printEntry is one entry, a line a fact.
func printEntry(w io.Writer, i queue.Info) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	line("entry", "%s", i.ID)
	line("message", "%s, %d octets", i.Record, i.Octets)
	line("domain", "%s", i.Domain)
	line("state", "%s", standing(i))
	line("accepted", "%s", i.Accepted.Local().Format(time.RFC3339))
	line("attempts", "%d", i.Attempts)
	if i.Last != nil {
		line("last attempt", "%s", i.Last.Local().Format(time.RFC3339))
	}
	if i.Due != nil {
		line("next", "%s", i.Due.Local().Format(time.RFC3339))
	}
	if i.Route != "" {
		line("route", "%s, for plain SMTP", i.Route)
	}
	if i.Leg != "" {
		line("way", "%s: %s", i.Leg, i.Rule)
	}
	if i.Class != "" {
		line("failure", "%s %d %s %s", i.Class, i.Code, i.Status, i.Host)
	}
	if i.Reason != "" {
		line("reason", "%s", i.Reason)
	}
	return tw.Flush()
}

// A queueResult is what became of one entry.
type queueResult struct {
	ID    string `json:"id"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func runQueueOperation(ctx context.Context, std stdio, fs *flag.FlagSet, args []string, name string, do func(*queue.Queue, context.Context, string) error) error {
	t, err := parseTargets(fs, args, name)
	if err != nil {
		return err
	}
	q, done, err := openQueue(ctx, *t.config)
	if err != nil {
		return err
	}
	defer done()
	return t.each(ctx, std, q, func(id string) error { return do(q, ctx, id) })
}

// queueTargets are the entries that a command is about.
type queueTargets struct {
	name   string // of the command
	config *string
	asJSON *bool
	domain *string
	ids    []string
	bulk   bool // those of a domain, or all
}

// parseTargets reads the flags and operands of every command about entries.
func parseTargets(fs *flag.FlagSet, args []string, name string) (t queueTargets, err error) {
	t = queueTargets{
		name:   name,
		config: fs.String("config", defaultConfig, "configuration `FILE`"),
		asJSON: fs.Bool("json", false, "print JSON, an object a line"),
		domain: fs.String("domain", "", "all entries of a `DOMAIN`"),
	}
	all := fs.Bool("all", false, "all entries")
	if t.ids, err = parse(fs, args); err != nil {
		return t, err
	}
	given := 0
	for _, b := range []bool{len(t.ids) > 0, *t.domain != "", *all} {
		if b {
			given++
		}
	}
	if given != 1 {
		return t, usagef("queue %s: entries, or --domain, or --all", name)
	}
	t.bulk = len(t.ids) == 0
	if *t.domain != "" {
		if *t.domain, err = dmtp.Domain(*t.domain); err != nil {
			return t, usagef("queue %s: --domain is not a domain", name)
		}
	}
	return t, nil
}

// each does something to every entry and prints what became of it.
func (t queueTargets) each(ctx context.Context, std stdio, q *queue.Queue, do func(id string) error) error {
	if t.bulk {
		if err := eachEntry(ctx, q, *t.domain, func(i queue.Info) error { t.ids = append(t.ids, i.ID); return nil }); err != nil {
			return err
		}
	}
	bar := newProgress(std, "queue "+t.name+": entries", int64(len(t.ids)))
	defer bar.end()
	bad, refused := 0, 0
	for _, id := range t.ids {
		err := do(id)
		bar.add(1)
		if t.bulk && (errors.Is(err, queue.ErrState) || errors.Is(err, queue.ErrNotFound)) {
			continue // not meant: it is not in a state for this, or has ended meanwhile
		}
		if err != nil {
			bad++
		}
		if _, ok := errors.AsType[refusedError](err); ok {
			refused++
		}
		if err := printResult(std, id, t.name, err, *t.asJSON); err != nil {
			return err
		}
	}
	switch {
	case bad == 0:
		return nil
	case bad == refused:
		return errRefused
	}
	return errReported
}

func printResult(std stdio, id, name string, err error, asJSON bool) error {
	if asJSON {
		r := queueResult{ID: id, OK: err == nil}
		if err != nil {
			r.Error = err.Error()
		}
		return json.NewEncoder(std.out).Encode(r)
	}
	if err != nil {
		fmt.Fprintf(std.err, "gateway: queue %s %s: %v\n", name, id, err)
		return nil
	}
	_, err = fmt.Fprintf(std.out, "%s  %s\n", id, name)
	return err
}

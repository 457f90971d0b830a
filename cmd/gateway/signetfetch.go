package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
)

var signetFetchCommand = command{
	name: "fetch", summary: "look a domain or an address up as a stranger would, and show what the answer rests on",
	usage:   "[--json] [--config FILE | --resolver ADDRESS:PORT [--anchor FILE] [--ca FILE] [--permit PREFIX]...] [--fingerprint F] [--chain] [--out FILE] NAME",
	example: "gateway signet fetch alice@example.com",
	run:     runSignetFetch,
}

// A fetch is one look-up by hand.
type fetch struct {
	name        string
	fingerprint string
	chain       bool
	out         string
	json        bool
	dial        func(ctx context.Context, to netip.AddrPort) (net.Conn, error) // nil: TCP
}

// A fetched is what came of it, for JSON.
type fetched struct {
	Name         string             `json:"name"`
	OK           bool               `json:"ok"`
	Verdict      string             `json:"verdict,omitempty"`
	Signet       string             `json:"signet,omitempty"` // standard base64
	Fingerprints map[string]string  `json:"fingerprints,omitempty"`
	Policy       string             `json:"policy,omitempty"`
	Evidence     *resolver.Evidence `json:"evidence,omitempty"`
	Alarms       []string           `json:"alarms,omitempty"`
	signet       *signet.Signet
}

func runSignetFetch(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var f fetch
	path := fs.String("config", defaultConfig, "configuration `FILE`: its dns, tls and dmtp.permit")
	var resolvers, permit list
	fs.Var(&resolvers, "resolver", "recursive resolver, `ADDRESS:PORT`, in place of the configuration; may be repeated")
	anchor := fs.String("anchor", "", "`FILE` of DS or DNSKEY records that trust begins with; the public root's if not given")
	ca := fs.String("ca", "", "`FILE` of CA certificates in PEM; the system's if not given")
	fs.Var(&permit, "permit", "`PREFIX` of private addresses that may be connected to; may be repeated")
	fs.StringVar(&f.fingerprint, "fingerprint", "", "`FINGERPRINT`, in any form, of the signet wanted; the current one if not given")
	fs.BoolVar(&f.chain, "chain", false, "print the DNSSEC chain, too")
	fs.StringVar(&f.out, "out", "", "write the signet in armor to this `FILE`")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("signet fetch: give one domain or address")
	}
	f.name = rest[0]
	c := config.Default()
	if len(resolvers) > 0 {
		c.DNS.Resolvers, c.DNS.TrustAnchorFile, c.TLS.CAFile, c.DMTP.Permit = resolvers, *anchor, *ca, permit
	} else if *anchor != "" || *ca != "" || len(permit) > 0 {
		return usagef("signet fetch: --anchor, --ca and --permit go with --resolver")
	} else if c, err = config.Load(*path); err != nil {
		return usageError{err}
	}
	return f.run(ctx, std, c)
}

func (f *fetch) run(ctx context.Context, std stdio, c *config.Config) error {
	alarms := &alarmText{Handler: slog.DiscardHandler}
	r, end, err := appliance.NewResolver(c, &resolver.MemoryStore{}, appliance.Options{Log: slog.New(alarms), Now: time.Now, Dial: f.dial})
	if err != nil {
		return usageError{err}
	}
	defer end()
	got := &fetched{Name: f.name}
	err = f.look(ctx, r, got)
	if errors.Is(err, resolver.ErrBadName) {
		return usagef("signet fetch: %q is neither a domain nor an address", f.name)
	}
	if _, wrong := errors.AsType[usageError](err); wrong || ctx.Err() != nil {
		return err
	}
	got.OK, got.Alarms = err == nil, alarms.texts
	if err != nil {
		got.Verdict = err.Error()
	}
	if got.signet != nil {
		got.describe()
		if f.out != "" {
			if err := safefile.Write(f.out, got.signet.Armored()); err != nil {
				return err
			}
		}
	}
	if f.json {
		err = json.NewEncoder(std.out).Encode(got)
	} else {
		err = got.print(std.out, f.chain)
	}
	if err == nil && !got.OK {
		return errReported
	}
	return err
}

// look fills in what was found; with an error, the evidence as far as it goes.
func (f *fetch) look(ctx context.Context, r *resolver.Resolver, got *fetched) error {
	var fp signet.Fingerprint
	var err error
	if f.fingerprint != "" {
		if fp, err = signet.ParseFingerprint(f.fingerprint); err != nil {
			return usagef("signet fetch: --fingerprint: %w", err)
		}
	}
	var d *resolver.Domain
	if strings.Contains(f.name, "@") {
		var u *resolver.User
		if f.fingerprint != "" {
			u, err = r.UserByFingerprint(ctx, f.name, fp)
		} else {
			u, err = r.User(ctx, f.name, true)
		}
		if err == nil {
			d, got.signet, got.Evidence = u.Org, u.Signet, u.Evidence
		}
	} else if f.fingerprint != "" {
		got.signet, d, err = r.OrgByFingerprint(ctx, f.name, fp)
	} else if d, err = r.Org(ctx, f.name); err == nil {
		got.signet = d.Signet
	}
	if e, ok := errors.AsType[*resolver.Error](err); ok {
		got.Evidence = e.Evidence
	}
	if d != nil && err == nil {
		got.Policy = d.Record.Policy.String()
		if got.Evidence == nil {
			got.Evidence = d.Evidence
		}
	}
	return err
}

func (g *fetched) describe() {
	g.Signet, g.Fingerprints = g.signet.Base64(), map[string]string{}
	for form := signet.Crypto; form <= g.signet.Form(); form++ {
		if fp, err := g.signet.Fingerprint(form); err == nil {
			g.Fingerprints[form.String()] = fp.String()
		}
	}
}

// print writes it for people, the chain of trust from the top down.
func (g *fetched) print(w io.Writer, chain bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(title, format string, a ...any) { fmt.Fprintf(tw, "%s\t%s\n", title, fmt.Sprintf(format, a...)) }
	row("name", "%s", g.Name)
	if ev := g.Evidence; ev != nil {
		printEvidence(row, ev, chain)
	}
	if g.Policy != "" {
		row("policy", "%s", g.Policy)
	}
	for _, form := range []string{"crypto", "full", "id"} {
		if fp := g.Fingerprints[form]; fp != "" {
			row(form, "%s", fp)
		}
	}
	for _, a := range g.Alarms {
		row("alarm", "%s", a)
	}
	if g.OK {
		row("verdict", "verified")
	} else {
		row("verdict", "%s", g.Verdict)
	}
	return tw.Flush()
}

func printEvidence(row func(title, format string, a ...any), ev *resolver.Evidence, chain bool) {
	state := ev.State.String()
	if ev.Why != "" {
		state += ": " + ev.Why
	}
	row("dnssec", "%s", state)
	for _, l := range ev.Chain {
		if l.What == "keys" || l.What == "anchor" || chain {
			row("", "%s of %s, %d records", l.What, l.Zone, len(l.Records))
		}
		for _, r := range l.Records {
			if chain {
				row("", "  %s", strings.ReplaceAll(r, "\t", " "))
			}
		}
	}
	if ev.Record != "" {
		row("record", "%s", ev.Record)
	}
	for _, h := range ev.Hosts {
		row("dx", "%s, from %s", h.Name, h.From)
	}
	if c := ev.Certificate; c != nil {
		row("certificate", "%s of %s: %s", c.ID[:16], c.Host, c.Reason)
		row("", "tls value %s, CA-valid %v, revocation %s", c.TLS, c.CAValid, c.Revocation)
	}
	for _, r := range ev.Refused {
		row("refused", "%s: %s", r.Host, r.Reason)
	}
	if !ev.Fresh.IsZero() {
		row("current", "%s", ev.Fresh.UTC().Format(time.RFC3339))
	}
}

// An alarmText is a log handler that keeps what alarms say.
type alarmText struct {
	slog.Handler
	texts []string
}

func (*alarmText) Enabled(context.Context, slog.Level) bool { return true }

func (a *alarmText) Handle(_ context.Context, r slog.Record) error {
	text := strings.TrimPrefix(r.Message, "alarm: ")
	r.Attrs(func(at slog.Attr) bool {
		if at.Key == "text" {
			text += ": " + at.Value.String()
		}
		return true
	})
	a.texts = append(a.texts, text)
	return nil
}

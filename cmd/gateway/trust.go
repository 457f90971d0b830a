package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

var trustCommand = command{
	name:    "trust",
	summary: "what is remembered of other organisations' keys: list it, accept a change, forget",
	sub: []command{
		{
			name: "list", summary: "list what is pinned of every domain, or all that is pinned of one domain or address",
			usage:   "[--config FILE] [--json] [NAME]",
			example: "gateway trust list example.com",
			run:     runTrustList,
		},
		{
			name: "accept", summary: "accept a domain's or a user's new key, a certificate, or what the policy would not permit; it is logged",
			usage:   "[--config FILE] [--json] [--pok KEY | --certificate SHA256 | --permit WHAT --for TIME] [--by WHO] --why TEXT NAME",
			example: `gateway trust accept --why "told by telephone, fingerprint compared" example.com`,
			run:     runTrustAccept,
		},
		{
			name: "forget", summary: "forget a domain, or one user's keys: it is met for the first time again; it is logged",
			usage:   "[--config FILE] [--by WHO] --why TEXT NAME",
			example: `gateway trust forget --why "moved to another company" example.com`,
			run:     runTrustForget,
		},
	},
}

func runTrustList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usagef("trust list: one name at most")
	}
	_, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	if len(rest) == 1 && dmtp.IsAddress(rest[0]) {
		return listUser(ctx, std.out, v, rest[0], *asJSON)
	}
	pins := keystore.DomainPins{Vault: v.Vault}
	if len(rest) == 0 {
		all, err := pins.Pins(ctx)
		if err != nil {
			return err
		}
		return printPins(std.out, all, *asJSON)
	}
	domain, err := resolver.NormalDomain(rest[0])
	if err != nil {
		return usagef("trust list: %q is not a domain", rest[0])
	}
	pin, err := pins.Pin(ctx, domain)
	switch {
	case err != nil:
		return err
	case pin == nil:
		return fmt.Errorf("%s: nothing is pinned", domain)
	case *asJSON:
		return json.NewEncoder(std.out).Encode(pin)
	}
	return printPin(std.out, pin)
}

// openSealed opens the vault with its seals: pins are under them.
func openSealed(ctx context.Context, path string) (*config.Config, *keystore.Opened, error) {
	c, err := loadFor(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	v, err := keystore.Open(ctx, c.Vault, false)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return c, v, nil
}

// printPins is the list of all, a line a domain.
func printPins(w io.Writer, all []*resolver.Pin, asJSON bool) error {
	if asJSON {
		for _, p := range all {
			if err := json.NewEncoder(w).Encode(p); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range all {
		trusted, waiting := 0, 0
		for _, k := range p.POKs {
			if k.Trusted {
				trusted++
			} else {
				waiting++
			}
		}
		note := ""
		if waiting > 0 {
			note = fmt.Sprintf("%d keys not accepted", waiting)
		}
		if !p.Gone.IsZero() {
			note = "no record since " + p.Gone.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d keys\t%s\t%s\n", p.Domain, p.Best, p.Policy, trusted, date(p.Last), note)
	}
	return tw.Flush()
}

func date(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.DateOnly)
}

func printPin(w io.Writer, p *resolver.Pin) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "domain\t%s\n", p.Domain)
	if !p.First.IsZero() {
		fmt.Fprintf(tw, "record\tbest state %s, policy %s, verified %s to %s\n", p.Best, p.Policy, date(p.First), date(p.Last))
		fmt.Fprintf(tw, "\tits absence is not believed without proof until %s\n", date(p.Until))
	}
	if !p.Gone.IsZero() {
		fmt.Fprintf(tw, "\tgone since %s\n", p.Gone.UTC().Format(time.RFC3339))
	}
	if !p.Plain.IsZero() {
		fmt.Fprintf(tw, "\tits zone was signed and is not since %s\n", p.Plain.UTC().Format(time.RFC3339))
	}
	for _, k := range p.POKs {
		how := "NOT ACCEPTED, seen since " + k.First.UTC().Format(time.RFC3339)
		if k.Trusted {
			how = "accepted: " + k.How + ", seen " + date(k.First) + " to " + date(k.Last)
		}
		fmt.Fprintf(tw, "key\t%s\t%s\n", k.Text, how)
	}
	for _, o := range p.Orgs {
		fmt.Fprintf(tw, "signet\t%s\t%s, %s\n", o.ID, o.How, date(o.At))
	}
	for _, c := range p.Certificates {
		fmt.Fprintf(tw, "certificate\t%s\tby hand\n", c)
	}
	for _, o := range p.Overrides {
		fmt.Fprintf(tw, "override\t%s until %s\tby %s: %s\n", o.What, o.Until.UTC().Format(time.RFC3339), o.By, o.Why)
	}
	return tw.Flush()
}

// A userPin is one accepted signet of someone else's user, as listed.
type userPin struct {
	Address  string    `json:"address"`
	ID       string    `json:"id"`
	How      string    `json:"how"`
	Accepted time.Time `json:"accepted"`
	Checked  time.Time `json:"checked"`
}

func listUser(ctx context.Context, w io.Writer, v *keystore.Opened, name string, asJSON bool) error {
	address, err := trustful.Normal(name)
	if err != nil {
		return usagef("trust list: %q is not an address", name)
	}
	pins, doubt, err := keystore.Pins{Vault: v.Vault}.Pins(ctx, address)
	if err != nil {
		return err
	}
	if len(pins) == 0 {
		return fmt.Errorf("%s: nothing is pinned", address)
	}
	for _, p := range pins {
		row := userPin{address, p.ID.String(), p.How.String(), p.Accepted, p.Checked}
		if asJSON {
			err = json.NewEncoder(w).Encode(row)
		} else {
			_, err = fmt.Fprintf(w, "%s  %s  %s\n", date(row.Accepted), row.How, row.ID)
		}
		if err != nil {
			return err
		}
	}
	if doubt != nil && !asJSON {
		_, err = fmt.Fprintf(w, "another signet without custody since %s\n", doubt.Since.UTC().Format(time.RFC3339))
	}
	return err
}

// An acceptance is what is to be accepted.
type acceptance struct {
	pok, certificate, permit string
	life                     time.Duration
	by, why                  string
	dial                     func(ctx context.Context, to netip.AddrPort) (net.Conn, error) // nil: TCP
}

// maxOverride is how long an override may last: it is dated, and ends.
const maxOverride = 90 * 24 * time.Hour

func runTrustAccept(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var a acceptance
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	fs.StringVar(&a.pok, "pok", "", "the primary `KEY` to accept, in base64; those that the domain lists now if not given")
	fs.StringVar(&a.certificate, "certificate", "", "`SHA256` of a self-signed certificate to accept from the domain's DX, in hex")
	fs.StringVar(&a.permit, "permit", "", "`WHAT` to permit for a time: "+strings.Join(resolver.Overrides, ", "))
	fs.DurationVar(&a.life, "for", 0, "how long to permit it: a `TIME` of at most 2160h")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	c, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	var d keystore.Decision
	if dmtp.IsAddress(rest) {
		if a.pok != "" || a.certificate != "" || a.permit != "" {
			return usagef("trust accept: --pok, --certificate and --permit are for domains")
		}
		d, err = a.user(ctx, c, v, rest)
	} else {
		d, err = a.domain(ctx, v, rest, time.Now())
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(d)
	}
	_, err = fmt.Fprintf(std.out, "%s: accepted: %s; a running gateway sees it within five minutes\n", d.Domain, d.What)
	return err
}

// parse reads the flags that all decisions have, and the one name.
func (a *acceptance) parse(fs *flag.FlagSet, args []string) (name string, err error) {
	who := ""
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	fs.StringVar(&a.by, "by", who, "`WHO` decides")
	fs.StringVar(&a.why, "why", "", "`TEXT`: why; it goes into the log")
	rest, err := parse(fs, args)
	command := strings.TrimPrefix(fs.Name(), "gateway ")
	switch {
	case err != nil:
		return "", err
	case len(rest) != 1:
		return "", usagef("%s: give one name", command)
	case strings.TrimSpace(a.why) == "":
		return "", usagef("%s: say why, with --why: it goes into the log", command)
	case a.permit == "" && a.life != 0 || a.permit != "" && (a.life <= 0 || a.life > maxOverride):
		return "", usagef("%s: --permit and --for go together, and --for is at most %v", command, maxOverride)
	case a.permit != "" && !slices.Contains(resolver.Overrides, a.permit):
		return "", usagef("%s: --permit is one of %s", command, strings.Join(resolver.Overrides, ", "))
	}
	return rest[0], nil
}

// domain accepts something of a domain.
func (a *acceptance) domain(ctx context.Context, v *keystore.Opened, name string, now time.Time) (keystore.Decision, error) {
	d := keystore.Decision{By: a.by, Why: a.why}
	var err error
	if d.Domain, err = resolver.NormalDomain(name); err != nil {
		return d, usagef("trust accept: %q is neither a domain nor an address", name)
	}
	var change func(*resolver.Pin) (bool, error)
	switch {
	case a.permit != "":
		d.What, d.Until = a.permit, now.Add(a.life)
		change = func(p *resolver.Pin) (bool, error) {
			p.Overrides = slices.DeleteFunc(p.Overrides, func(o *resolver.Override) bool { return o.What == d.What || !now.Before(o.Until) })
			p.Overrides = append(p.Overrides, &resolver.Override{What: d.What, Until: d.Until, By: d.By, Why: d.Why})
			return true, nil
		}
	case a.certificate != "":
		id := strings.ToLower(strings.ReplaceAll(a.certificate, ":", ""))
		if b, err := hex.DecodeString(id); err != nil || len(b) != 32 {
			return d, usagef("trust accept: --certificate is 64 hexadecimal digits")
		}
		d.What = "certificate " + id
		change = func(p *resolver.Pin) (bool, error) {
			if p.First.IsZero() {
				return false, fmt.Errorf("%s: was never met: accept its key first, with --pok", d.Domain)
			}
			if !slices.Contains(p.Certificates, id) {
				p.Certificates = append(p.Certificates, id)
			}
			return true, nil
		}
	default:
		if change, err = a.keys(&d, now); err != nil {
			return d, err
		}
		if d.What == "" { // the log wants to know which: look before
			pin, err := keystore.DomainPins{Vault: v.Vault}.Pin(ctx, d.Domain)
			if err != nil {
				return d, err
			}
			keys := waiting(pin)
			if len(keys) == 0 {
				return d, fmt.Errorf("%s: no key waits to be accepted", d.Domain)
			}
			d.What = "keys " + strings.Join(keys, " ")
			change = trustKeys(keys, now)
		}
	}
	return d, keystore.DomainPins{Vault: v.Vault}.Decide(ctx, d, now, change)
}

// keys is for --pok, or leaves d.What empty.
func (a *acceptance) keys(d *keystore.Decision, now time.Time) (func(*resolver.Pin) (bool, error), error) {
	if a.pok == "" {
		return nil, nil
	}
	if _, err := primaryKey(a.pok); err != nil {
		return nil, usagef("trust accept: --pok: %w", err)
	}
	d.What = "keys " + a.pok
	return trustKeys([]string{a.pok}, now), nil
}

func primaryKey(text string) (key.SigningPublic, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != 32 {
		return key.SigningPublic{}, errors.New("a primary key is 43 characters of base64, as in the record")
	}
	return key.ParseSigningPublic(b)
}

// waiting are the keys that the record listed last and that are not accepted.
func waiting(p *resolver.Pin) []string {
	var out []string
	if p == nil {
		return nil
	}
	for _, k := range p.POKs {
		if !k.Trusted {
			out = append(out, k.Text)
		}
	}
	return out
}

func trustKeys(texts []string, now time.Time) func(*resolver.Pin) (bool, error) {
	return func(p *resolver.Pin) (bool, error) {
		for _, text := range texts {
			k, err := primaryKey(text)
			if err != nil {
				return false, err
			}
			p.Trust(k, now)
		}
		return true, nil
	}
}

// user accepts the signet that an address has now, verified under its organisation.
func (a *acceptance) user(ctx context.Context, c *config.Config, v *keystore.Opened, name string) (keystore.Decision, error) {
	pins := keystore.DomainPins{Vault: v.Vault}
	r, end, err := appliance.NewResolver(c, pins, appliance.Options{Log: slog.New(slog.DiscardHandler), Now: time.Now, Dial: a.dial})
	if err != nil {
		return keystore.Decision{}, usageError{err}
	}
	defer end()
	u, err := r.User(ctx, name, true)
	if errors.Is(err, resolver.ErrBadName) {
		return keystore.Decision{}, usagef("trust accept: %q is neither a domain nor an address", name)
	} else if err != nil {
		return keystore.Decision{}, err
	}
	fp, err := u.Signet.Fingerprint(signet.ID)
	if err != nil {
		return keystore.Decision{}, err
	}
	if err := trustful.NewPins(keystore.Pins{Vault: v.Vault}, nil, time.Now).Accept(ctx, u.Signet); err != nil {
		return keystore.Decision{}, err
	}
	d := keystore.Decision{Domain: u.Org.Name, What: "user signet " + fp.String(), By: a.by, Why: a.why}
	return d, pins.Decide(ctx, d, time.Now(), func(*resolver.Pin) (bool, error) { return true, nil })
}

func runTrustForget(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var a acceptance
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	name, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if dmtp.IsAddress(name) {
		return a.forgetUser(ctx, std.out, *path, name)
	}
	domain, err := resolver.NormalDomain(name)
	if err != nil {
		return usagef("trust forget: %q is neither a domain nor an address", name)
	}
	_, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	d := keystore.Decision{Domain: domain, What: keystore.Forget, By: a.by, Why: a.why}
	found := false
	err = keystore.DomainPins{Vault: v.Vault}.Decide(ctx, d, time.Now(), func(p *resolver.Pin) (bool, error) {
		if found = p.Version > 0; !found {
			return false, fmt.Errorf("%s: nothing is pinned", domain)
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: forgotten: the next meeting is the first\n", domain)
	return err
}

// forgetUser forgets the keys of an address; the organisation's stay.
func (a *acceptance) forgetUser(ctx context.Context, w io.Writer, path, name string) error {
	address, err := trustful.Normal(name)
	if err != nil {
		return usagef("trust forget: %q is not an address", name)
	}
	_, v, err := openSealed(ctx, path)
	if err != nil {
		return err
	}
	defer v.Close()
	domain := address[strings.LastIndexByte(address, '@')+1:]
	err = keystore.Pins{Vault: v.Vault}.Forget(ctx, address, keystore.Decision{Domain: domain, What: keystore.Forget + " a user", By: a.by, Why: a.why}, time.Now())
	if errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("%s: nothing is pinned", address)
	} else if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: forgotten: the next meeting is the first\n", address)
	return err
}

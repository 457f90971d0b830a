package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

var keysCommand = command{
	name:    "keys",
	summary: "list and show the keys and signets of your domains and users",
	sub: []command{
		{
			name: "list", summary: "list domains and users that have keys",
			usage:   "[--config FILE] [--json] [DOMAIN]",
			example: "gateway keys list example.org",
			run:     runKeysList,
		},
		{
			name: "show", summary: "show every signet of a domain or an address, the oldest first",
			usage:   "[--config FILE] [--json] NAME",
			example: "gateway keys show alice@example.org",
			run:     runKeysShow,
		},
		{
			name: "export-signet", summary: "print a signet in armor",
			usage:   "[--config FILE] [--json] [--form crypto|full|id] NAME",
			example: "gateway keys export-signet alice@example.org > alice.signet",
			run:     runKeysExport,
		},
		keysCheckCommand,
		keysDisableCommand,
		keysEnableCommand,
		keysVouchCommand,
		keysSignRequestCommand,
		keysTakeBackCommand,
		keysScheduleCommand,
		keysTLSCommand,
		keysPrimaryCommand,
	},
}

// A keyRow is one domain or user, as listed.
type keyRow struct {
	Name   string    `json:"name"`
	Kind   string    `json:"kind"` // organization or user
	Number int       `json:"number"`
	Made   time.Time `json:"made"`
	Signet string    `json:"signet"` // ID fingerprint of the current one
	// Disabled is since when a user has no keys used or made.
	Disabled time.Time `json:"disabled,omitzero"`
	problem  error
}

func runKeysList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a line")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usagef("keys list: one domain at most")
	}
	only := ""
	if len(rest) == 1 {
		if only, err = dmtp.Domain(rest[0]); err != nil {
			return usagef("keys list: %q is not a domain", rest[0])
		}
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	out := bufio.NewWriter(std.out)
	broken := 0
	err = eachKey(ctx, v, only, func(r keyRow) error {
		if r.problem != nil {
			broken++
			fmt.Fprintf(std.err, "gateway: %s: %v\n", r.Name, r.problem)
			return nil
		}
		if *asJSON {
			return json.NewEncoder(out).Encode(r)
		}
		since := ""
		if !r.Disabled.IsZero() {
			since = "  disabled since " + r.Disabled.Format(time.DateOnly)
		}
		_, err := fmt.Fprintf(out, "%s  %d  %s  %s%s\n", r.Made.Format(time.DateOnly), r.Number, r.Signet[:12], r.Name, since)
		return err
	})
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err == nil && broken > 0 {
		return errReported
	}
	return err
}

// eachKey visits the domains and then the users of one domain, or of all.
func eachKey(ctx context.Context, v *vault.Vault, only string, visit func(keyRow) error) error {
	keys, err := v.OrgKeys(ctx, only)
	if err != nil {
		return err
	}
	seen := ""
	for _, k := range keys {
		if k.Kind != vault.PrimaryKey || !k.Retired.IsZero() || k.Domain == seen { // the next one does not sign yet
			continue
		}
		seen = k.Domain
		all, err := v.OrgSignets(ctx, k.Domain)
		if err != nil {
			return err
		}
		r := keyRow{Name: k.Domain, Kind: "organization", Number: len(all), Made: k.Made}
		if len(all) > 0 {
			r.Signet, r.problem = idOf(all[len(all)-1])
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	const page = 500
	for after := ""; ; {
		users, err := v.Users(ctx, after, page)
		if err != nil {
			return err
		}
		for _, u := range users {
			after = u.Address
			if only != "" && dmtp.DomainOf(u.Address) != only {
				continue
			}
			r := keyRow{Name: u.Address, Kind: "user", Number: u.Number, Made: u.Made}
			r.Signet, r.problem = idOf(u.Signet)
			if r.Disabled, err = v.Disabled(ctx, u.Address); err != nil {
				return err
			}
			if err := visit(r); err != nil {
				return err
			}
		}
		if len(users) < page {
			return nil
		}
	}
}

func idOf(octets []byte) (string, error) {
	s, err := signet.Parse(octets)
	if err != nil {
		return "", fmt.Errorf("the signet in the vault: %w", err)
	}
	fp, err := s.Fingerprint(signet.ID)
	return fp.String(), err
}

// A shownSignet is one step of a name.
type shownSignet struct {
	Number    int        `json:"number"`
	Current   bool       `json:"current"`
	Made      *time.Time `json:"made,omitempty"`
	Retired   *time.Time `json:"retired,omitempty"`
	Destroyed *time.Time `json:"encryption_key_destroyed,omitempty"`
	Custody   bool       `json:"custody"`                  // it carries a signature of the one before
	Held      bool       `json:"keys_with_user,omitempty"` // his private keys are not here
	Escrowed  bool       `json:"escrowed,omitempty"`       // a continuity quorum opens its encryption key
	ID        string     `json:"id"`
	Full      string     `json:"full"`
	Crypto    string     `json:"crypto"`
	Octets    int        `json:"octets"`

	Layer  []string `json:"alternate_layer,omitempty"`        // suites that a user's signet offers a key of
	Always bool     `json:"alternate_layer_always,omitempty"` // it asks that all mail lie under one
	Policy string   `json:"alternate_policy,omitempty"`       // what a domain's signet says of its users' agents
}

func runKeysShow(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("keys show: name a domain or an address")
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	chain, err := chainOf(ctx, v, rest[0])
	if err != nil {
		return err
	}
	shown := make([]shownSignet, len(chain))
	for i, s := range chain {
		_, custody := s.Custody()
		shown[i] = shownSignet{Number: i + 1, Current: i == len(chain)-1, Custody: custody, Octets: s.Size()}
		shown[i].showLayer(s)
		for form, into := range map[signet.Form]*string{signet.ID: &shown[i].ID, signet.Full: &shown[i].Full, signet.Crypto: &shown[i].Crypto} {
			fp, err := s.Fingerprint(form)
			if err != nil {
				return err
			}
			*into = fp.String()
		}
	}
	if err := dateUsers(ctx, v, rest[0], shown); err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(shown)
	}
	for _, s := range shown {
		printShown(std.out, s)
	}
	return nil
}

// showLayer adds what a signet says of the alternate layer.
func (to *shownSignet) showLayer(s *signet.Signet) {
	for _, id := range message.Offered(s) {
		to.Layer = append(to.Layer, id.Digits()+" "+id.String())
	}
	to.Always = message.WantsLayer(s)
	for _, f := range s.Fields() {
		if s.Kind() == signet.Org && f.ID == signet.FieldNamed && f.Name == message.PolicyField {
			to.Policy = string(f.Value)
		}
	}
}

// dateUsers adds the dates, which a domain's signets have not got.
func dateUsers(ctx context.Context, v *vault.Vault, name string, shown []shownSignet) error {
	address, err := trustful.Normal(name)
	if err != nil {
		return nil
	}
	generations, err := v.UserKeys(ctx, address)
	if err != nil {
		return err
	}
	optional := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	for i, g := range generations[:min(len(generations), len(shown))] {
		shown[i].Made, shown[i].Retired, shown[i].Destroyed = optional(g.Made), optional(g.Retired), optional(g.Destroyed)
		shown[i].Held = g.Held
		_, _, err := v.KeyWrap(ctx, g.ID)
		if shown[i].Escrowed = err == nil; err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDestroyed) {
			return err
		}
	}
	return nil
}

func printShown(w io.Writer, s shownSignet) {
	state := "past"
	if s.Current {
		state = "current"
	}
	if s.Held {
		state += ", its keys are with the user"
	}
	if s.Escrowed {
		state += ", its encryption key is sealed to the officers of the continuity key"
	}
	fmt.Fprintf(w, "signet %d, %s, %d octets\n", s.Number, state, s.Octets)
	for _, d := range []struct {
		what string
		at   *time.Time
	}{{"made", s.Made}, {"retired", s.Retired}, {"encryption key destroyed", s.Destroyed}} {
		if d.at != nil {
			fmt.Fprintf(w, "  %s %s\n", d.what, d.at.Format(time.RFC3339))
		}
	}
	for _, l := range s.Layer {
		fmt.Fprintf(w, "  alternate layer %s\n", l)
	}
	if s.Always {
		fmt.Fprintln(w, "  alternate layer asked for in all mail")
	}
	if s.Policy != "" {
		fmt.Fprintf(w, "  alternate policy %s\n", strconv.Quote(s.Policy))
	}
	fmt.Fprintf(w, "  id      %s\n  full    %s\n  crypto  %s\n", s.ID, s.Full, s.Crypto)
}

func runKeysExport(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	form := fs.String("form", "id", "`FORM`: crypto, full or id")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("keys export-signet: name a domain or an address")
	}
	forms := map[string]signet.Form{"crypto": signet.Crypto, "full": signet.Full, "id": signet.ID}
	f, ok := forms[strings.ToLower(*form)]
	if !ok {
		return usagef("keys export-signet: --form is crypto, full or id")
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	chain, err := chainOf(ctx, v, rest[0])
	if err != nil {
		return err
	}
	s, err := chain[len(chain)-1].Cut(f)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(struct {
			Name   string `json:"name"`
			Form   string `json:"form"`
			Signet string `json:"signet"`
		}{rest[0], strings.ToLower(*form), s.Base64()})
	}
	_, err = std.out.Write(s.Armored())
	return err
}

// chainOf is every signet of a name; a name without any is an answer: exit code 1.
func chainOf(ctx context.Context, v *vault.Vault, name string) ([]*signet.Signet, error) {
	if _, err := dmtp.Name(name); err != nil {
		return nil, usagef("%q is neither a domain nor an address", name)
	}
	k, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v}, Organization: keystore.Organization{Vault: v}, Grace: trustful.MinGrace})
	if err != nil {
		return nil, err
	}
	chain, err := k.Chain(ctx, name)
	if errors.Is(err, trustful.ErrDisabled) {
		return nil, fmt.Errorf("%s has no signet that others are shown: %w", name, err)
	}
	if errors.Is(err, trustful.ErrNoUser) {
		return nil, fmt.Errorf("%s has no keys here", name)
	}
	return chain, err
}

// openVault opens the vault of a configuration, beside a gateway that may be running, and no seal: signets are public.
func openVault(ctx context.Context, path string) (*vault.Vault, error) {
	c, err := loadFor(ctx, path)
	if err != nil {
		return nil, err
	}
	return openVaultOf(ctx, c)
}

func openVaultOf(ctx context.Context, c *config.Config) (*vault.Vault, error) {
	v, err := vault.Open(ctx, vault.Options{Dir: c.Vault.Folder})
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", c.Vault.Key("folder"), err)}
	}
	return v, nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
)

var sealsCommand = command{
	name:    "seal",
	summary: "what opens the gateway's keys: several seals at once, any one opens",
	sub: []command{
		{
			name: "status", summary: "list the seals of both roles; opens nothing",
			usage:   "[--config FILE] [--json]",
			example: "gateway seal status",
			run:     runSealStatus,
		},
		{
			name: "test", summary: "open each seal, and say which one does not: exit code 1",
			usage:   "[--config FILE] [--json]",
			example: "gateway seal test --json",
			run:     runSealTest,
		},
		{
			name: "add", summary: "add what the configuration names and the headers do not have; or a passphrase or shares that people keep",
			usage:   "[--config FILE] [--role host|signing] [--passphrase NAME | --quorum K --holder NAME=AGE-RECIPIENT... --out FOLDER] [--share FILE...] [--json]",
			example: "gateway seal add --quorum 2 --holder ann=age1… --holder ben=age1… --holder cy=age1… --out /media/usb",
			run:     runSealAdd,
		},
		{
			name: "remove", summary: "take a seal away, by the kind and id that status shows",
			usage:   "[--config FILE] [--json] ROLE KIND [ID]",
			example: "gateway seal remove host pkcs11 token",
			run:     runSealRemove,
		},
		{
			name: "rewrap", summary: "make a new root key and wrap everything under it; the gateway must not run",
			usage:   "[--config FILE] [--share FILE...] [--json] ROLE",
			example: "gateway seal rewrap host",
			run:     runSealRewrap,
		},
	},
}

var sealRoles = []vault.Role{vault.HostRole, vault.SigningRole}

func parseRole(name string) (vault.Role, error) {
	for _, r := range sealRoles {
		if r.String() == name {
			return r, nil
		}
	}
	return 0, usagef("%q is no role: host or signing", name)
}

// A sealRow is one seal of a role.
type sealRow struct {
	Role       string `json:"role"`
	Kind       string `json:"kind"`
	ID         string `json:"id,omitempty"`
	Configured bool   `json:"configured"`
	Added      bool   `json:"added"`             // the header has it
	ByHand     bool   `json:"by_hand"`           // people keep it
	Opens      *bool  `json:"opens,omitempty"`   // of test
	Problem    string `json:"problem,omitempty"` // of test, or what is wrong with the configuration's
	Key        string `json:"key,omitempty"`     // the configuration's
	Where      string `json:"where,omitempty"`
}

func (r sealRow) name() string {
	if r.ID == "" {
		return r.Kind
	}
	return r.Kind + " " + r.ID
}

// sealRows lists what the headers have, and what the configuration names and they have not.
func sealRows(c config.Vault) ([]sealRow, error) {
	var rows []sealRow
	for _, role := range sealRoles {
		h, err := vault.ReadSealHeader(keystore.SealHeader(c.Folder, role))
		if err != nil {
			return nil, usageError{err}
		}
		given := keystore.Seals(c, role)
		for _, e := range h.Roots[0].Entries {
			r := sealRow{Role: role.String(), Kind: e.Kind, ID: e.ID, Added: true, ByHand: keystore.ByHand(vault.MissingSeal{Kind: e.Kind, ID: e.ID})}
			if i := slices.IndexFunc(given, func(g keystore.Given) bool { return g.Seal != nil && g.Kind() == e.Kind && g.ID() == e.ID }); i >= 0 {
				r.Configured, r.Key, r.Where = true, given[i].Key, given[i].What
			}
			rows = append(rows, r)
		}
		for _, g := range given {
			r := sealRow{Role: role.String(), Configured: true, Key: g.Key, Where: g.What}
			switch {
			case g.Fault != nil:
				r.Kind, r.Problem = "unusable", g.Fault.Error()
			case h.Has(g.Kind(), g.ID()):
				continue
			default:
				r.Kind, r.ID, r.Problem = g.Kind(), g.ID(), "not added: run gateway seal add"
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func runSealStatus(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	c, asJSON, err := sealFlags(ctx, fs, args)
	if err != nil {
		return err
	}
	rows, err := sealRows(c.Vault)
	if err != nil {
		return err
	}
	return printSeals(std.out, rows, asJSON)
}

func runSealTest(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	c, asJSON, err := sealFlags(ctx, fs, args)
	if err != nil {
		return err
	}
	rows, err := sealRows(c.Vault)
	if err != nil {
		return err
	}
	fine := true
	for i := range rows {
		r := &rows[i]
		if r.Added && !r.ByHand {
			problem, err := tryOne(ctx, c.Vault, *r)
			if err != nil {
				return err
			}
			opens := problem == nil
			if r.Opens = &opens; !opens {
				r.Problem = problem.Error()
			}
		}
		fine = fine && r.Problem == ""
	}
	if err := printSeals(std.out, rows, asJSON); err != nil {
		return err
	}
	if !fine {
		return errReported
	}
	return nil
}

// tryOne opens a role with one seal alone.
func tryOne(ctx context.Context, c config.Vault, r sealRow) (problem, err error) {
	role, err := parseRole(r.Role)
	if err != nil {
		return nil, err
	}
	for _, g := range keystore.Seals(c, role) {
		if g.Seal == nil || g.Kind() != r.Kind || g.ID() != r.ID {
			continue
		}
		root, err := vault.OpenSeal(ctx, keystore.SealHeader(c.Folder, role), role, g.Seal)
		if err != nil {
			return errors.New(whyClosed(err, r.name())), nil
		}
		root.Destroy()
		return nil, nil
	}
	return errors.New("not in the configuration, or cannot be used: restore it, or remove it"), nil
}

// whyClosed is what one seal said, without the others that were not asked.
func whyClosed(err error, name string) string {
	switch {
	case errors.Is(err, vault.ErrAway):
		return name + ": cannot be reached"
	case errors.Is(err, vault.ErrWrongKey):
		return name + ": its key is another one"
	}
	return name + ": " + err.Error()
}

func sealFlags(ctx context.Context, fs *flag.FlagSet, args []string) (*config.Config, bool, error) {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a seal")
	rest, err := parse(fs, args)
	if err != nil {
		return nil, false, err
	}
	if len(rest) > 0 {
		return nil, false, usagef("%s: takes no operand", fs.Name())
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return nil, false, err
	}
	return c, *asJSON, nil
}

func printSeals(w io.Writer, rows []sealRow, asJSON bool) error {
	if asJSON {
		for _, r := range rows {
			if err := json.NewEncoder(w).Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.Role, r.name(), r.state(), r.Where)
	}
	return tw.Flush()
}

// state is a row's end in words.
func (r sealRow) state() string {
	switch {
	case r.Opens != nil && *r.Opens:
		return "opens"
	case r.Problem != "":
		return "DOES NOT OPEN: " + r.Problem
	case r.ByHand:
		return "people keep it"
	case !r.Configured:
		return "not in the configuration"
	}
	return "configured"
}

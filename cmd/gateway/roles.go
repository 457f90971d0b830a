package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/roles"
	"dimegate/vault"
)

var rolesCommand = command{
	name:    "roles",
	summary: "who may do what with this gateway: list it, give a role, take one",
	sub: []command{
		{
			name: "list", summary: "list people and their roles, or with --table what each role may do",
			usage:   "[--config FILE] [--table] [--json]",
			example: "gateway roles list",
			run:     runRolesList,
		},
		{
			name: "grant", summary: "give a person a role; the first must be security-administrator",
			usage:   "[--config FILE] ROLE PERSON",
			example: "gateway roles grant auditor anna",
			run: func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
				return runRolesChange(ctx, std, fs, args, roles.Grants.Grant, "is now")
			},
		},
		{
			name: "revoke", summary: "take a role from a person",
			usage:   "[--config FILE] ROLE PERSON",
			example: "gateway roles revoke operator ben",
			run: func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
				return runRolesChange(ctx, std, fs, args, roles.Grants.Revoke, "is no longer")
			},
		},
	},
}

// A line is the command line that runs, as authorize sees it.
type line struct {
	command      string // its name behind "gateway"
	args         []string
	organization *string // whose vault it works on; nil: on every one
}

type lineKey struct{}

// withLine notes the command line for loadFor, and gives each command that opens a vault the flag that says whose.
func withLine(ctx context.Context, fs *flag.FlagSet, args []string) context.Context {
	l := line{command: strings.TrimPrefix(fs.Name(), "gateway "), args: args}
	if rule, ok := roles.Table[l.command]; ok && !rule.All {
		l.organization = fs.String("organization", "", "`NAME` or domain of the organisation whose vault is meant; needed where there are several vaults")
	}
	return context.WithValue(ctx, lineKey{}, l)
}

// loadFor reads the configuration for a command that works with what it names, if the person may use that command: the view of the
// organisation that --organization names, where there are several vaults.
func loadFor(ctx context.Context, path string) (*config.Config, error) {
	c, err := viewFor(ctx, path)
	if err != nil {
		return nil, err
	}
	return c, authorize(ctx, c)
}

// viewFor is loadFor for what everybody may see.
func viewFor(ctx context.Context, path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, usageError{err}
	}
	l, _ := ctx.Value(lineKey{}).(line)
	named := ""
	if l.organization != nil {
		named = *l.organization
	}
	if c, err = tenantOf(c, named); err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// loadAll is loadFor for a command that works on every vault: the person must be one who may in each.
func loadAll(ctx context.Context, path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, usageError{err}
	}
	for _, view := range c.Tenants() {
		if err := authorize(ctx, view); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// tenantOf is the view of the organisation of a name or domain, "" where there is one vault only.
func tenantOf(c *config.Config, name string) (*config.Config, error) {
	views := c.Tenants()
	if name == "" && len(views) == 1 {
		return views[0], nil
	}
	var names []string
	for _, view := range views {
		if name != "" && view.Serves(name) {
			return view, nil
		}
		for _, o := range view.Organizations {
			names = append(names, o.Name)
		}
	}
	if name == "" {
		return nil, fmt.Errorf("there are %d vaults: say whose is meant with --organization: %s", len(views), strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("--organization %s: there is no such organisation or domain: there are %s", name, strings.Join(names, ", "))
}

// authorize refuses a command that is not among the person's duties, and writes a leaf before one that shows addresses. It
// needs no seal. Before there is a vault there are no roles.
func authorize(ctx context.Context, c *config.Config) error {
	v, err := vault.Open(ctx, vault.Options{Dir: c.Vault.Folder})
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	} else if err != nil {
		return usageError{fmt.Errorf("%s: %w", c.Vault.Key("folder"), err)}
	}
	defer v.Close()
	octets, err := v.Roles(ctx)
	if err != nil {
		return err
	}
	grants, err := roles.Parse(octets)
	if err != nil {
		return err
	}
	l, _ := ctx.Value(lineKey{}).(line)
	who := person()
	if err := grants.Check(who, l.command); err != nil {
		return refusedError{err}
	}
	if !roles.Table[l.command].Leaf || len(grants) == 0 {
		return nil
	}
	payload, err := json.Marshal(struct {
		By      string   `json:"by"`
		Command string   `json:"command"`
		Args    []string `json:"args"`
	}{who, l.command, l.args})
	if err != nil {
		return err
	}
	return v.AttestLook(ctx, payload, time.Now())
}

// attestsLooks tells whether commands that show addresses have left a leaf: where roles are given.
func attestsLooks(ctx context.Context, v *vault.Vault) (bool, error) {
	octets, err := v.Roles(ctx)
	if err != nil {
		return false, err
	}
	grants, err := roles.Parse(octets)
	return len(grants) > 0, err
}

// person is the account that the command was started by: before sudo, if it came that way.
func person() string {
	uid := cmp.Or(os.Getenv("SUDO_UID"), strconv.Itoa(os.Getuid()))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}

func runRolesList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	table := fs.Bool("table", false, "what each role may do")
	asJSON := fs.Bool("json", false, "print JSON")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("roles list: takes no operand")
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	if *table {
		if *asJSON {
			return json.NewEncoder(std.out).Encode(roles.Table)
		}
		for _, command := range slices.Sorted(maps.Keys(roles.Table)) {
			fmt.Fprintf(tw, "%s\t%s\n", command, joinRoles(roles.Table[command].Roles))
		}
		return tw.Flush()
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	octets, err := v.Roles(ctx)
	if err != nil {
		return err
	}
	grants, err := roles.Parse(octets)
	switch {
	case err != nil:
		return err
	case *asJSON:
		return json.NewEncoder(std.out).Encode(grants)
	case len(grants) == 0:
		_, err := fmt.Fprintln(std.out, "nobody has been given a role: whoever may read the vault may do everything")
		return err
	}
	for _, who := range slices.Sorted(maps.Keys(grants)) {
		fmt.Fprintf(tw, "%s\t%s\n", printable(who), joinRoles(grants[who]))
	}
	return tw.Flush()
}

func joinRoles(list []roles.Role) string {
	var names []string
	for _, r := range list {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

func runRolesChange(ctx context.Context, std stdio, fs *flag.FlagSet, args []string, do func(roles.Grants, string, roles.Role) (roles.Grants, error), done string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(fs.Name(), "gateway ")
	if len(rest) != 2 || !account(rest[1]) {
		return usagef("%s: a role and a person: the name of an account, or # and its number", name)
	}
	role, who := roles.Role(rest[0]), rest[1]
	if !slices.Contains(roles.All, role) {
		return usagef("%s: there is no role %q: there are %s", name, role, joinRoles(roles.All))
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	now := time.Now()
	err = v.ChangeRoles(ctx, now, func(old []byte) ([]byte, error) {
		grants, err := roles.Parse(old)
		if err != nil {
			return nil, err
		}
		// Asked again: between authorize and here somebody may have taken the role away.
		if err := grants.Check(person(), name); err != nil {
			return nil, refusedError{err}
		}
		if grants, err = do(grants, who, role); err != nil {
			return nil, refusedError{fmt.Errorf("%s: %w", name, err)}
		}
		return grants.Octets(person(), now)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s %s %s\n", who, done, role)
	return err
}

// account tells whether a text may be the name of an account: letters, digits, and . _ - @ \ behind the first; or # and a number.
func account(s string) bool {
	if n, ok := strings.CutPrefix(s, "#"); ok {
		_, err := strconv.ParseUint(n, 10, 32)
		return err == nil
	}
	return s != "" && len(s) <= 256 && !strings.HasPrefix(s, "-") && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@\\$+", r))
	})
}

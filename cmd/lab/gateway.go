package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"dimegate/internal/testpeer"
)

// A Gateway is the gateway process of one organisation, with everything it keeps.
type Gateway struct {
	*testpeer.Process
	Config string   // its configuration file
	Data   string   // its data folder
	Inner  string   // host:port of the mail server it hands over to
	Env    []string // beside our own

	lab    *Lab
	org    *Org
	binary string
}

// Build compiles the gateway, without cgo and, unless tags are given, as it is shipped, and returns the program's path.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	path := filepath.Join(dir, strings.Join(append([]string{"gateway"}, tags...), "-"))
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", path, "dimegate/cmd/gateway")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// gatewayConfig is the configuration of an organisation's gateway in the lab: what differs from the defaults.
func (l *Lab) gatewayConfig(g *Gateway) string {
	o := g.org
	return fmt.Sprintf(`data_folder = %[1]q
hostname = "dx.%[2]s"

[[organization]]
domains = [%[2]q]
dx = ["dx.%[2]s"]
inner = %[3]q

[submission]
listen = ["%[4]s:2525"]
max_octets = 115343360 # 110 MiB

[dmtp]
listen = ["%[4]s:26"]
listen_dual = ["%[4]s:25"]
permit = ["127.0.0.0/8"]

[policy]
floor = "dime"

[handoff]
exchange_fields = "keep"

[dns]
resolvers = [%[5]q]
trust_anchor_file = %[6]q

[queue]
schedule = ["1s"]

[health]
listen = ""
`, g.Data, o.Domain, g.Inner, o.DX, l.Resolver.Addr, l.anchorFile())
}

func (l *Lab) anchorFile() string { return filepath.Join(l.Dir, "anchor") }

// NewGateway configures an organisation's gateway, makes its keys, and publishes its record. It does not start it.
func (l *Lab) NewGateway(ctx context.Context, binary string, o *Org) (*Gateway, error) {
	g := &Gateway{Inner: o.Postfix.Addr, lab: l, org: o, binary: binary}
	g.Data = filepath.Join(cmp.Or(o.volume, l.Dir), "dx."+o.Domain)
	g.Config = filepath.Join(l.Dir, "dx."+o.Domain+".toml")
	if err := g.Configure(nil); err != nil {
		return nil, err
	}
	out, err := g.Command(ctx, "init", "--config", g.Config, "--json")
	if err != nil {
		return nil, err
	}
	var made struct {
		Domains []struct {
			RecordLine string `json:"record_line"`
		}
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return nil, fmt.Errorf("gateway init: %w", err)
	}
	if len(made.Domains) != 1 {
		return nil, fmt.Errorf("gateway init made %d domains", len(made.Domains))
	}
	return g, l.Publish(o, made.Domains[0].RecordLine)
}

// Configure writes the configuration file anew; edit may change it.
func (g *Gateway) Configure(edit func(string) string) error {
	if err := os.WriteFile(g.lab.anchorFile(), []byte(g.lab.Tree.Anchor()), 0o644); err != nil {
		return err
	}
	text := g.lab.gatewayConfig(g)
	if edit != nil {
		text = edit(text)
	}
	return os.WriteFile(g.Config, []byte(text), 0o644)
}

// Command runs a gateway subcommand to its end and returns what it printed.
func (g *Gateway) Command(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, g.binary, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("gateway %s: %w\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// LogFile holds what all runs of the gateway have logged.
func (g *Gateway) LogFile() string { return filepath.Join(g.lab.Dir, "dx."+g.org.Domain+".log") }

// Run starts the gateway, for the first time or again, and waits until it answers.
func (g *Gateway) Run(ctx context.Context) error {
	p, err := g.lab.StartIn("", append(slices.Clone(g.Env), "LAB_PROFILE="+g.profileSocket()), "dx."+g.org.Domain, g.binary, "run", "--config", g.Config)
	if err != nil {
		return err
	}
	g.Process = p
	return p.Up(ctx, g.org.DX+":26", g.org.DX+":2525")
}

// StartGateways makes and starts the gateways of both organisations, alpha's first.
func (l *Lab) StartGateways(ctx context.Context, binary string) ([2]*Gateway, error) {
	var made [2]*Gateway
	for i, o := range l.Orgs() {
		g, err := l.NewGateway(ctx, binary, o)
		if err != nil {
			return made, err
		}
		made[i] = g
	}
	for _, g := range made { // both records are out before one of them is asked for
		if err := g.Run(ctx); err != nil {
			return made, err
		}
	}
	return made, nil
}

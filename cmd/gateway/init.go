package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/setup"
	"dimegate/internal/safefile"
)

var initCommand = command{
	name:    "init",
	summary: "make an installation: configuration, keys, signets, certificates, the DNS record to publish",
	usage:   "[--config FILE] [--domain DOMAIN ...] [--dx HOST ...] [--inner HOST:PORT] [--data FOLDER] [--name NAME] [--policy POLICY] [--json]",
	example: "gateway init --domain example.org --dx dx.example.org --inner 127.0.0.1:10025",
	run:     runInit,
}

// A list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

func runInit(ctx context.Context, std stdio, fset *flag.FlagSet, args []string) error {
	path := fset.String("config", defaultConfig, "configuration `FILE`: written when it is not there")
	var a setup.Answer
	fset.Var((*list)(&a.Domains), "domain", "`DOMAIN` of yours; may be repeated")
	fset.Var((*list)(&a.DX), "dx", "host `NAME` under which others reach this gateway; may be repeated")
	fset.StringVar(&a.Inner, "inner", "", "your mail server, `HOST:PORT`")
	fset.StringVar(&a.DataFolder, "data", "", "data `FOLDER`")
	fset.StringVar(&a.Name, "name", "", "your organisation's `NAME`, for people")
	fset.StringVar(&a.Policy, "policy", "", "what the record says to others: experimental, mixed or strict")
	asJSON := fset.Bool("json", false, "print JSON")
	if rest, err := parse(fset, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("init: takes no operand: name a domain with --domain")
	}
	c, wrote, err := initConfig(ctx, *path, a)
	if err != nil {
		return usageError{err}
	}
	made, err := setup.Make(ctx, c, time.Now())
	if err != nil {
		if wrote {
			os.Remove(*path)
		}
		return usageError{fmt.Errorf("init: %w", err)}
	}
	if *asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Config      string `json:"config"`
			WroteConfig bool   `json:"wrote_config"`
			*setup.Made
		}{*path, wrote, made})
	}
	printMade(std.out, *path, wrote, c, made)
	return nil
}

// initConfig loads the configuration, or writes the one that the answers make. A wrong answer writes nothing.
func initConfig(ctx context.Context, path string, a setup.Answer) (c *config.Config, wrote bool, err error) {
	answered := len(a.Domains)+len(a.DX) > 0 || a.Inner+a.DataFolder+a.Name+a.Policy != ""
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if answered {
			return nil, false, fmt.Errorf("init: %s exists already: change it there, and run \"gateway init --config %s\" alone", path, path)
		}
		c, err := loadAll(ctx, path)
		return c, false, err
	}
	if len(a.Domains) == 0 {
		return nil, false, fmt.Errorf("init: %s is not there, so one is made: name your domain with --domain example.org", path)
	}
	if a.DataFolder != "" {
		if a.DataFolder, err = filepath.Abs(a.DataFolder); err != nil {
			return nil, false, err
		}
	}
	text := []byte(setup.File(a))
	if c, _, err = config.Decode(path, text); err != nil {
		return nil, false, err
	}
	c.Resolve(filepath.Dir(path))
	if err := c.Check(); err != nil {
		return nil, false, fmt.Errorf("init: the configuration that would be written: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, false, fmt.Errorf("init: --config: %w", err)
	}
	if err := safefile.Create(path, text); err != nil {
		return nil, false, fmt.Errorf("init: --config: %w", err)
	}
	return c, true, nil
}

func printMade(w io.Writer, path string, wrote bool, c *config.Config, m *setup.Made) {
	if wrote {
		fmt.Fprintf(w, "wrote %s\n", path)
	}
	if m.New {
		fmt.Fprintf(w, "made  %s\n", m.DataFolder)
	}
	for _, d := range m.Domains {
		verb := "has "
		if d.New {
			verb = "made"
		}
		fmt.Fprintf(w, "%s  keys and signet of %s, primary key %s\n", verb, d.Name, d.POK)
	}
	fmt.Fprintf(w, "\nKeep copies of these, apart from backups of the data; nothing here opens without them:\n")
	for _, s := range m.Seals {
		fmt.Fprintf(w, "  %s  (%s seal)\n", s.File, s.Role)
	}
	fmt.Fprintf(w, "\nPublish:\n\n")
	for _, d := range m.Domains {
		fmt.Fprintln(w, d.RecordLine)
	}
	if m.SelfSigned {
		fmt.Fprint(w, `
The certificate is self-signed: others believe it only when the zone is signed with DNSSEC. (For a zone that is not, name
a certificate of a public CA under [[dmtp.certificate]].)
`)
	}
	fmt.Fprintf(w, `
Then:
  1. let port 26 in, for %s
  2. gateway run --config %s
  3. make %s the smart host of your mail server at %s
`, strings.Join(c.DMTP.Listen, ", "), path, strings.Join(c.Submission.Listen, ", "), inner(c))
}

// inner lists the mail servers of all organisations, each once.
func inner(c *config.Config) string {
	var servers list
	seen := map[string]bool{}
	for _, o := range c.Organizations {
		if !seen[o.Inner] {
			seen[o.Inner] = true
			servers = append(servers, o.Inner)
		}
	}
	return servers.String()
}

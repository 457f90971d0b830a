package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/bridge"
)

var policyCommand = command{
	name:    "policy",
	summary: "how mail leaves: what would become of a message, and why",
	sub: []command{{
		name: "explain", summary: "say what the gateway would do with a message now, by asking DNS and servers as it would; nothing is sent",
		usage:   "[--config FILE] [--json] --from ADDRESS --to ADDRESS [--size OCTETS] [--require-dime] [--require-tls] [--timeout TIME]",
		example: "gateway policy explain --from alice@example.org --to bob@example.net",
		run:     runPolicyExplain,
	}, {
		name: "replay", summary: "take the decisions of the past again under a changed [policy], and say which would be others; nobody is asked anything",
		usage:   "[--config FILE] [--json] --since TIME --with FILE",
		example: "gateway policy replay --since 168h --with /etc/dimegate/new.toml",
		run:     runPolicyReplay,
	}},
}

func runPolicyExplain(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var q bridge.Question
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	fs.StringVar(&q.Sender, "from", "", "sender's `ADDRESS`: the reverse-path, \"<>\" for the null one")
	fs.StringVar(&q.Recipient, "to", "", "recipient's `ADDRESS`")
	fs.Int64Var(&q.Octets, "size", 0, "`OCTETS` of the message")
	fs.BoolVar(&q.Require, "require-dime", false, "as with the field X-DIME-Require: yes")
	fs.BoolVar(&q.RequireTLS, "require-tls", false, "as with REQUIRETLS")
	limit := fs.Duration("timeout", 2*time.Minute, "`TIME` after which to give up")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return usagef("policy explain: takes no operand: name the addresses with --from and --to")
	case q.Sender == "" || q.Recipient == "":
		return usagef("policy explain: --from and --to are needed; --from \"<>\" is the null reverse-path")
	case q.Octets < 0 || *limit <= 0:
		return usagef("policy explain: --size and --timeout are not negative")
	}
	if q.Sender == "<>" {
		q.Sender = ""
	}
	for flag, a := range map[string]string{"--from": q.Sender, "--to": q.Recipient} {
		if i := strings.LastIndexByte(a, '@'); a != "" && (i < 1 || i == len(a)-1) {
			return usagef("policy explain: %s: %q is not an address", flag, a)
		}
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	e, err := appliance.OpenExplainer(ctx, c, appliance.Options{})
	if err != nil {
		return usageError{err}
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	got, err := e.Explain(ctx, q)
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(std.out).Encode(got)
	} else {
		err = printExplanation(std.out, got)
	}
	if err == nil && got.Action != "dmtp" && got.Action != "smtp" {
		return errReported
	}
	return err
}

// actions are what each word means to people.
var actions = map[string]string{
	"dmtp": "sealed, over DMTP", "smtp": "by plain SMTP", "hold": "held, tried again, then returned", "bounce": "returned to the sender",
}

func printExplanation(w io.Writer, e bridge.Explanation) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "decision\t%s: %s\n", e.Action, actions[e.Action])
	fmt.Fprintf(tw, "rule\t%s\n", e.Rule)
	fmt.Fprintf(tw, "decided by\t%s\n", e.Layer)
	fmt.Fprintf(tw, "recipient\t%s\n", e.Situation)
	fmt.Fprintf(tw, "floor\t%s, of layer %s\n", e.Floor, e.FloorOf)
	if e.Override {
		fmt.Fprintf(tw, "override\tplain SMTP is permitted for now: see \"gateway trust list\"\n")
	}
	if e.Suite != "" {
		fmt.Fprintf(tw, "alternate layer\t%s\n", e.Suite)
	}
	if e.Reason != "" {
		fmt.Fprintf(tw, "reason\t%s\n", e.Reason)
	}
	if e.Status != "" {
		fmt.Fprintf(tw, "status\t%s\n", e.Status)
	}
	for _, h := range e.Hosts {
		at := h.Name
		if h.Address != "" {
			at += " [" + h.Address + "]"
		}
		fmt.Fprintf(tw, "host\t%s: %s", at, h.Outcome)
		if h.Rung != "" {
			fmt.Fprintf(tw, ", over %s", h.Rung)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

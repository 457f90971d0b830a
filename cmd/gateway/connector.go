package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"

	"dimegate/appliance/config"
	"dimegate/appliance/connector"
)

var connectorCommand = command{
	name:    "connector",
	summary: "the mail server's side of the connection",
	sub: []command{{
		name: "print", summary: "print the configuration of your mail server for this gateway: " + strings.Join(connector.Servers, ", "),
		usage:   "[--config FILE] [--domain DOMAIN] [--gateway ADDRESS] [--json] SERVER",
		example: "gateway connector print postfix",
		run:     runConnectorPrint,
	}},
}

// runConnectorPrint prints what belongs into the mail server's files on its output, and what keeps the two apart beside it.
func runConnectorPrint(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	domain := fs.String("domain", "", "a `DOMAIN` of the mail server, where there is more than one")
	gateway := fs.String("gateway", "", "the `ADDRESS` under which the mail server sees this gateway; without it, that of submission.listen")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("connector print: name the mail server: %s", strings.Join(connector.Servers, ", "))
	}
	c, err := config.Load(*path)
	if err != nil {
		return usageError{err}
	}
	k, err := connector.For(c, *domain, *gateway)
	if err != nil {
		return usagef("connector print: %w", err)
	}
	text, err := k.Print(rest[0])
	if err != nil {
		return usagef("connector print: %w", err)
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(struct {
			Server   string   `json:"server"`
			Text     string   `json:"text"`
			Warnings []string `json:"warnings"`
		}{rest[0], text, append([]string{}, k.Warnings...)})
	}
	for _, w := range k.Warnings {
		fmt.Fprintln(std.err, "warning:", w)
	}
	_, err = io.WriteString(std.out, text)
	return err
}

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"dimegate/appliance/demo"
)

var demoCommand = command{
	name:    "demo",
	summary: "two organisations on this machine exchange a message, and what each of them could read",
	usage:   "[--eml FILE] [--verbose]",
	example: "gateway demo --eml message.eml",
	run:     runDemo,
}

func runDemo(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	eml := fs.String("eml", "", "send this `FILE`, a message in RFC 5322 form, in place of our own")
	verbose := fs.Bool("verbose", false, "show the gateways' logs")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("demo: takes no operand: name a message with --eml")
	}
	o := demo.Options{Out: std.out, Log: slog.New(slog.DiscardHandler)}
	if *verbose {
		o.Log = slog.New(slog.NewTextHandler(std.err, nil))
	}
	if *eml != "" {
		b, err := os.ReadFile(*eml)
		if err != nil {
			return usagef("demo: --eml: %w", err)
		}
		o.Message = wireForm(b)
	}
	err := demo.Run(ctx, o)
	if errors.Is(err, demo.ErrNotAsPromised) {
		return fmt.Errorf("demo: %w: see the table", err)
	}
	return err
}

// wireForm ends every line of a message with CRLF, as SMTP carries it: files on disk often have LF alone.
func wireForm(b []byte) []byte {
	if bytes.Contains(b, []byte("\r\n")) {
		return b
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

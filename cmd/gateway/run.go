package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"

	"dimegate/appliance"
	"dimegate/appliance/config"
)

var runCommand = command{
	name:    "run",
	summary: "run the gateway until it is told to stop",
	usage:   "[--config FILE]",
	example: "gateway run --config /etc/dimegate/gateway.toml",
	run:     runGateway,
}

func runGateway(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("run: takes no operand: name the configuration with --config")
	}
	c, err := config.Load(*path)
	if err == nil {
		err = c.CheckFiles()
	}
	if err != nil {
		return usageError{err}
	}
	log := newLogger(c.Log)
	a, err := openUnsealed(ctx, c, log)
	if errors.Is(err, context.Canceled) {
		return nil // told to stop while it was sealed
	} else if err != nil {
		return usageError{err}
	}
	err = a.Run(ctx)
	if err == nil {
		log.Info("stopped")
	}
	return errors.Join(err, a.Close())
}

// openUnsealed waits for the seals, and opens the gateway.
func openUnsealed(ctx context.Context, c *config.Config, log *slog.Logger) (*appliance.Appliance, error) {
	if err := appliance.AwaitSeals(ctx, c, log); err != nil {
		return nil, err
	}
	return appliance.Open(ctx, c, appliance.Options{Log: log})
}

// newLogger writes to standard error as the checked [log] table says.
func newLogger(c config.Log) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Level)) // checked: one of four words
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

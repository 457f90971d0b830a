package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"dimegate/appliance/config"
	"dimegate/trustful"
	"dimegate/vault"
)

var keysDisableCommand = command{
	name: "disable", summary: "have no keys used of an address, nor made for it, and its signet shown to nobody; its keys go after the grace, or now",
	usage:   "[--config FILE] [--now] [--json] --why TEXT ADDRESS",
	example: "gateway keys disable --now --why 'left on 30 November' ben@example.org",
	run: func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
		now := fs.Bool("now", false, "destroy its keys now: mail that is sealed to them opens no more on this host; where a continuity key escrowed them, its quorum opens it until \"gateway archive erase\"")
		return runKeysDecision(ctx, std, fs, args, func(ctx context.Context, c *config.Config, v *vault.Vault, address, why string) (string, error) {
			err := v.DisableUser(ctx, address, *now, person(), why, time.Now())
			if errors.Is(err, vault.ErrExists) {
				return "", fmt.Errorf("%s is disabled already: --now destroys its keys", address)
			}
			if *now {
				if err == nil {
					err = saveLedger(ctx, c, v)
				}
				return "disabled, and its keys destroyed; backups of the last 30 days hold them as long as their own keys live", err
			}
			return "disabled; its keys are destroyed at the end of their grace", err
		})
	},
}

var keysEnableCommand = command{
	name: "enable", summary: "undo disable: the address has its keys again, or gets new ones, without chain of custody, where they are gone",
	usage:   "[--config FILE] [--json] --why TEXT ADDRESS",
	example: "gateway keys enable --why 'is back' ben@example.org",
	run: func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
		return runKeysDecision(ctx, std, fs, args, func(ctx context.Context, c *config.Config, v *vault.Vault, address, why string) (string, error) {
			err := v.EnableUser(ctx, address, person(), why, time.Now())
			if errors.Is(err, vault.ErrNotFound) {
				return "", fmt.Errorf("%s is not disabled", address)
			}
			return "enabled", err
		})
	},
}

// runKeysDecision is an administrator's decision about an address.
func runKeysDecision(ctx context.Context, std stdio, fs *flag.FlagSet, args []string, decide func(ctx context.Context, c *config.Config, v *vault.Vault, address, why string) (string, error)) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	why := fs.String("why", "", "`TEXT` for the log: on whose behalf, and why")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || *why == "" {
		return usagef("%s: name one address, and say --why", fs.Name())
	}
	address, err := trustful.Normal(rest[0])
	if err != nil {
		return usagef("%q is no address that could have keys", rest[0])
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	v, err := openVaultOf(ctx, c)
	if err != nil {
		return err
	}
	defer v.Close()
	done, err := decide(ctx, c, v, address, *why)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(map[string]string{"address": address, "done": done})
	}
	_, err = fmt.Fprintf(std.out, "%s: %s\n", address, done)
	return err
}

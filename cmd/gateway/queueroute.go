package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"dimegate/appliance/config"
	"dimegate/bridge/queue"
)

// usualWay is what --to says to take a route back.
const usualWay = "usual"

func runQueueRoute(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	to := fs.String("to", "", "the `HOST:PORT` that takes the mail on; \""+usualWay+"\": the domain's own, or the smart host")
	t, err := parseTargets(fs, args, "route")
	if err != nil {
		return err
	}
	if *to == "" {
		return usagef("queue route: --to is missing: HOST:PORT, or %q", usualWay)
	}
	q, c, done, err := openQueueOf(ctx, *t.config)
	if err != nil {
		return err
	}
	defer done()
	hop := strings.ToLower(*to)
	if hop == usualWay {
		hop = ""
	} else if err := c.CheckRoute(hop); err != nil {
		return usagef("queue route --to: %w", err)
	}
	return t.each(ctx, std, q, func(id string) error {
		err := q.Route(ctx, id, hop, func(sender, domain string) error { return mayRoute(c, sender, domain) })
		if errors.Is(err, queue.ErrSealed) {
			return refusedError{err}
		}
		return err
	})
}

// mayRoute holds a route against the floor. It names no address.
func mayRoute(c *config.Config, sender, domain string) error {
	floor, layer, may := c.Policy.Reroutable(sender, domain)
	if may {
		return nil
	}
	return refusedError{fmt.Errorf("floor %s, set for %s, permits no other host for %s", floor, layers[layer], domain)}
}

// layers are who set a floor, for people.
var layers = map[string]string{"global": "all", "domain": "the domain", "sender": "the sender"}

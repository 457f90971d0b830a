package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"dimegate/appliance/setup"
	"dimegate/dmtp"
)

var keysTLSCommand = command{
	name: "tls", summary: "print the records of your domains for the certificates in use, and for those that are to come",
	usage:   "[--config FILE] [--json] [--also FILE]... [DOMAIN]",
	example: "gateway keys tls --also /etc/dimegate/tls/next.pem",
	run:     runKeysTLS,
}

// runKeysTLS is the roll-over of a certificate (dmtp chapter 8.3): publish the record with the next one beside the live one,
// wait for a TTL, switch, and publish without the old one a TTL after that.
func runKeysTLS(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a domain")
	var also list
	fs.Var(&also, "also", "`FILE` of a certificate in PEM that the record shall vouch for, too: the next one before a switch, the old one after it")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usagef("keys tls: one domain at most")
	}
	name := ""
	if len(rest) == 1 {
		if name, err = dmtp.Domain(rest[0]); err != nil {
			return usagef("keys tls: %q is not a domain", rest[0])
		}
	}
	var covers []setup.Cover
	for _, file := range also {
		c, err := setup.ReadCover(file)
		if err != nil {
			return usageError{err}
		}
		covers = append(covers, c)
	}
	c, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	domains, err := setup.Records(ctx, c, v.Vault, name, covers)
	if err != nil {
		return err
	}
	if len(domains) == 0 {
		return fmt.Errorf("%s has no keys here", name)
	}
	for _, d := range domains {
		if *asJSON {
			err = json.NewEncoder(std.out).Encode(d)
		} else {
			_, err = fmt.Fprintln(std.out, d.RecordLine)
		}
		if err != nil {
			return err
		}
	}
	if *asJSON {
		return nil
	}
	for _, c := range covers {
		fmt.Fprintf(std.out, "; vouches for %s, too: %s, good until %s\n", c.File, c.Subject, c.NotAfter.UTC().Format("2006-01-02"))
	}
	if len(covers) > 0 {
		fmt.Fprintln(std.out, "; publish this, wait for its TTL, switch the certificate; publish it without the old one after another TTL")
	}
	return nil
}

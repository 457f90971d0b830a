package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"dimegate/vault/escrow"
)

var officerFollow = command{
	name: "follow", summary: "believe the log of a vault that was restored, in place of the one so far",
	usage:   "--log KEY --witness KEY [--dir FOLDER] [--yes] [--json]",
	example: "gateway officer follow --log dimegate/…/1+…+… --witness witness.example.org+…+…",
	run:     runOfficerFollow,
}

func runOfficerFollow(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var t escrow.Trust
	fs.StringVar(&t.Log, "log", "", "verifier `KEY` of the log as it goes on")
	fs.Var((*list)(&t.Witnesses), "witness", "verifier `KEY` of a witness that you trust; may be repeated")
	f := newOfficerFlags(fs, false)
	fs.BoolVar(f.yes, "yes", false, "follow without asking")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || t.Log == "" || len(t.Witnesses) == 0 {
		return usagef("officer follow: give --log and --witness")
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	c, err := d.Continues(t)
	if err != nil {
		return policy(err)
	}
	if !*f.json {
		fmt.Fprintf(std.out, "log so far  %s\n  you saw     %d leaves\n", printable(c.Old), c.Size)
		for _, k := range c.Keys {
			fmt.Fprintf(std.out, "  of the key  %s\n", printable(k))
		}
	}
	err = confirm(std, *f.yes, "A restored vault is the one honest cause of this: the log begins anew at its backup, and nothing compares it with what you saw. Do you know of the restore, and from whom besides the operator?")
	if err != nil {
		return err
	}
	if err := d.Follow(t); err != nil {
		return err
	}
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Old  string   `json:"old"`
			Size int64    `json:"seen"`
			New  string   `json:"log"`
			Keys []string `json:"keys"`
		}{c.Old, c.Size, t.Log, c.Keys})
	}
	_, err = io.WriteString(std.out, "cases are checked against the new log from now on; what you saw of the old one is kept\n")
	return err
}

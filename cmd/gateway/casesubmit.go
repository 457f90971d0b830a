package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

func runCaseSubmit(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	request := fs.String("request", "", "the signed request, `FILE` of the station")
	out := fs.String("out", "", "`FILE` for the officers; must not exist")
	var known numbers
	fs.Var(&known, "known", "`SIZE` of the log that an officer saw last, when his tool asks for a bundle that proves growth from it; may be repeated")
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	if *request != "" {
		b, err := readFile(std, *request)
		if err != nil {
			return err
		}
		st, err := escrow.ParseStatement(b)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", *request, err)}
		}
		if err := d.Submit(ctx, id, st); err != nil {
			return casePolicy(err)
		}
	}
	name := outName(*out, "case-"+id.String()+".deb1")
	if err := writeTo(name, func(w io.Writer) error { return d.WriteBundle(ctx, id, w, known) }); err != nil {
		return casePolicy(err)
	}
	return f.saidFile(std, id, name)
}

func (f caseFlags) saidFile(std stdio, id vault.ID, name string) error {
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Case vault.ID `json:"case"`
			File string   `json:"file"`
		}{id, name})
	}
	_, err := fmt.Fprintf(std.out, "wrote %s\n", name)
	return err
}

func runCaseApprove(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newCaseFlags(fs)
	id, files, err := aCase(fs, args, true)
	if err != nil {
		return err
	} else if len(files) == 0 {
		return usagef("case approve: name the case and the officers' answers")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	for _, name := range files {
		answer, err := os.Open(name)
		if err != nil {
			return usageError{err}
		}
		said, c, err := d.Relay(ctx, id, answer)
		answer.Close()
		if err != nil {
			return casePolicy(fmt.Errorf("%s: %w", name, err))
		}
		if *f.json {
			err = json.NewEncoder(std.out).Encode(struct {
				*discovery.OfficerSaid
				State string `json:"state"`
			}{said, c.State})
		} else {
			_, err = fmt.Fprintf(std.out, "officer %d (%s) %s; the case is %s\n", said.Index, printable(said.Person), map[bool]string{true: "approves", false: "declines"}[said.Approved], c.State)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func runCaseDecrypt(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	to := fs.String("to", "", "`FILE` for the station; must not exist")
	f := newCaseFlags(fs)
	id, _, err := aCase(fs, args, false)
	if err != nil {
		return err
	} else if *to == "" {
		return usagef("case decrypt: give --to FILE")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	p := newProgress(std, "records", 0)
	err = writeTo(*to, func(w io.Writer) error { return d.Release(ctx, id, w, p.reach) })
	p.end()
	if err != nil {
		return casePolicy(err)
	}
	return f.saidFile(std, id, *to)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"dimegate/vault/audit"
)

func runAuditReconcile(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("audit reconcile: takes no operand")
	}
	v, err := openVault(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	r, err := audit.Reconcile(ctx, v)
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(std.out).Encode(struct {
			OK bool `json:"ok"`
			audit.Reconciliation
			MissingCount int `json:"missing_count"`
		}{r.OK(), r, len(r.Missing)})
	} else {
		err = printReconciliation(std.out, r)
	}
	if err == nil && !r.OK() {
		return errReported
	}
	return err
}

func printReconciliation(w io.Writer, r audit.Reconciliation) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range []struct {
		name string
		n    int64
	}{{"accepted", r.Accepted}, {"delivered", r.Delivered}, {"bounced", r.Bounced}, {"dropped", r.Dropped}, {"held", r.Held}, {"queued", r.Queued}, {"missing", int64(len(r.Missing))}} {
		fmt.Fprintf(tw, "%d\t  %s\n", row.n, row.name)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range r.Missing {
		fmt.Fprintf(w, "MISSING: the recipient of leaf %d is neither in the queue nor at an end\n", n)
	}
	for _, n := range r.Strange {
		fmt.Fprintf(w, "NOT FINE: leaf %d ends what was not accepted, or what had ended, or accepts a recipient again\n", n)
	}
	if r.Unknown > 0 {
		fmt.Fprintf(w, "NOT FINE: %d entries of the queue have no leaf\n", r.Unknown)
	}
	return nil
}

var auditProveCommand = command{
	name: "prove", summary: "write a proof that a leaf is in the log, which anyone with the log's public key can check; or check one",
	usage:   "[--config FILE] LEAF | --check FILE --key TEXT",
	example: "gateway audit prove 4711 > leaf-4711.json",
	run:     runAuditProve,
}

func runAuditProve(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	check := fs.String("check", "", "check the proof in this `FILE`; nothing else is needed")
	key := fs.String("key", "", "the log's public key, `TEXT`, as \"gateway audit checkpoint --json\" prints it")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case *check != "" && (len(rest) > 0 || *key == ""):
		return usagef("audit prove: --check needs --key, and takes no operand")
	case *check != "":
		return checkProof(std, *check, *key)
	case len(rest) != 1:
		return usagef("audit prove: name one leaf by its number")
	}
	n, err := strconv.ParseInt(rest[0], 10, 64)
	if err != nil || n < 0 {
		return usagef("audit prove: %q is not the number of a leaf", rest[0])
	}
	_, o, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer o.Close()
	k, err := audit.VaultKey(ctx, o.Vault)
	if err != nil {
		return err
	}
	p, err := audit.New(o.Vault, k).Prove(ctx, n, time.Now())
	if err != nil {
		return err
	}
	return json.NewEncoder(std.out).Encode(p)
}

func checkProof(std stdio, file, key string) error {
	b, err := readFile(std, file)
	if err != nil {
		return err
	}
	var p audit.Proof
	if err := json.Unmarshal(b, &p); err != nil {
		return usagef("%s: not a proof as \"gateway audit prove\" writes it", file)
	}
	l, tree, err := p.Check(key)
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		fmt.Fprintf(std.out, "NOT FINE: %v\n", f)
		return errReported
	} else if err != nil {
		return usagef("%s: %w", file, err)
	}
	_, err = fmt.Fprintf(std.out, "leaf %d, %q of %s, is in the log of %d leaves\n", p.Index, l.Type, l.Time.Format("2006-01-02 15:04:05 UTC"), tree.Size)
	return err
}

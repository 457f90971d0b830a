package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"dimegate/vault/discovery/evidence"
)

var evidenceCommand = command{
	name:    "evidence",
	summary: "check what a case brought to light",
	sub: []command{{
		name: "verify", summary: "check an evidence package with nothing but itself: no network, no configuration, no keys",
		usage:   "[--trust FILE] [--json] FILE",
		example: "gateway evidence verify --trust keys-we-know.txt evidence-06EQZ….zip",
		run:     runEvidenceVerify,
	}},
}

// An evidenceReport is what evidence verify says.
type evidenceReport struct {
	OK      bool   `json:"ok"`
	File    string `json:"file,omitempty"`   // of the package: the first that is wrong
	Reason  string `json:"reason,omitempty"` // and what is wrong with it
	Trusted bool   `json:"trusted"`          // keys were compared with a trust file
	*evidence.Report
}

func runEvidenceVerify(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	trustFile := fs.String("trust", "", "`FILE` with the keys that you know from elsewhere: lines as this command prints them")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("evidence verify: name one package")
	}
	var trust *evidence.Trust
	if *trustFile != "" {
		b, err := readUpTo(std, *trustFile, evidence.MaxTrust)
		if err != nil {
			return err
		}
		if trust, err = evidence.ParseTrust(b); err != nil {
			return usagef("--trust %s: %w", *trustFile, err)
		}
	}
	f, err := os.Open(rest[0])
	if err != nil {
		return usagef("evidence verify: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return usagef("evidence verify: %s: name the ZIP file of a package", rest[0])
	}
	r, err := evidence.Verify(ctx, f, st.Size(), trust)
	fault, bad := errors.AsType[*evidence.Fault](err)
	if err != nil && !bad {
		return err
	}
	out := evidenceReport{OK: err == nil, Trusted: trust != nil, Report: r}
	if bad {
		out.File, out.Reason = fault.File, fault.Error()
	}
	switch {
	case *asJSON:
		err = json.NewEncoder(std.out).Encode(out)
	case bad:
		_, err = fmt.Fprintf(std.out, "NOT FINE: %v\n", fault)
	default:
		err = printPackage(std.out, rest[0], out)
	}
	if err == nil && bad {
		return errReported
	}
	return err
}

func printPackage(w io.Writer, name string, r evidenceReport) error {
	day := func(t time.Time) string { return t.Format(time.RFC3339) }
	fmt.Fprintf(w, "%s: case %s of %s\n", name, r.Case, r.Organisation)
	fmt.Fprintf(w, "%s asked for it: %s\nopened %s, expires %s, package signed %s\n\n", r.Requester, r.Basis, day(r.Opened), day(r.Expires), day(r.Exported))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range r.Officers {
		when := ""
		if o.Time != nil {
			when = day(*o.Time)
		} else {
			o.Answer = "no answer"
		}
		fmt.Fprintf(tw, "officer %d\t%s\t%s\t%s\n", o.Index, o.Person, o.Answer, when)
	}
	fmt.Fprintf(tw, "quorum\t%d of %d\n", r.Quorum, len(r.Officers))
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nlog %s: %s", r.Origin, count(r.Size, "leaf", "leaves"))
	for _, c := range r.Cosigned {
		fmt.Fprintf(w, ", cosigned by %s at %s", c.Witness, day(c.Time))
	}
	fmt.Fprint(w, "\n\n")
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "MESSAGE\tOCTETS\tLOGGED\tLEAF\tCUSTODIANS\tEXHIBITS\n")
	for _, m := range r.Messages {
		for _, rec := range m.Records {
			fmt.Fprintf(tw, "%d\t%d\t%s\t%d\t%s\t%d\n", m.Number, m.Octets, day(rec.Logged), rec.Leaf, strings.Join(rec.Custodians, ", "), m.Exhibits)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nproved of each of %s: its octets and envelope are those that the gateway entered in its log, nothing of that log was changed since the\ncheckpoint was cosigned, and it is one of those that the quorum approved in this case\n",
		count(int64(len(r.Messages)), "message", "messages"))
	for _, x := range r.Withheld {
		fmt.Fprintf(w, "not in the package: leaf %d (%q)\n", x.Leaf, x.Reason)
	}
	if r.Trusted {
		fmt.Fprint(w, "\nThe keys that you named are those of the package. All that it starts from:\n\n")
	} else {
		fmt.Fprint(w, "\nAll of it starts from these keys, which the package itself names. Compare them with what officers, log and witnesses say, or give what you\nknow with --trust, in lines like these:\n\n")
	}
	_, err := fmt.Fprintln(w, strings.Join(r.Trust, "\n"))
	return err
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"dimegate/trustful"
	"dimegate/vault/discovery"
)

var caseDSARCommand = command{
	name: "dsar", summary: "open a case of all that is kept of a person's own mail, for him (subject access), and select it; a quorum approves it like any",
	usage:   "[--config FILE] --request FILE --reference TEXT [--expires DAY] [--out FILE] [--json] ADDRESS",
	example: `gateway case dsar --request case.request --reference "letter of 2 May 2026" --out selection.json bob@example.org`,
	run:     runCaseDSAR,
}

// dsarLife is how long a subject-access case lasts when nobody says otherwise: the month of GDPR article 12(3).
const dsarLife = 30 * 24 * time.Hour

func runCaseDSAR(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	request := fs.String("request", "", "case request `FILE`, as gateway case station init prints it")
	reference := fs.String("reference", "", "`TEXT`: how and when he asked; officers and the privacy officer read it")
	out := fs.String("out", "", "`FILE` for the station; must not exist")
	expires := moment{last: true}
	fs.Var(&expires, "expires", "last `DAY` of the case, within 90 days; in 30 days when not given")
	f := newCaseFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) != 1 || *request == "" || strings.TrimSpace(*reference) == "" {
		return usagef("case dsar: give --request, --reference and one address")
	}
	address, err := trustful.Normal(rest[0])
	if err != nil {
		return usagef("case dsar: %q is not an address", rest[0])
	}
	if expires.IsZero() {
		expires.Time = time.Now().Add(dsarLife)
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	line, err := readFile(std, *request)
	if err != nil {
		return err
	}
	r, err := discovery.ParseCaseRequest(line)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", *request, err)}
	}
	c, err := d.Open(ctx, discovery.Order{Request: r, Basis: "access by the data subject: " + *reference, Custodians: []string{address}, Expires: expires.Time})
	if _, ok := errors.AsType[discovery.Refusal](err); ok {
		return refusedError{err}
	} else if err != nil {
		return usageError{err}
	}
	if !*f.json {
		fmt.Fprintf(std.out, "case %s is open until %s; hold %s began\nfingerprint of the request: %s: compare it with the station's\n", c.ID, c.Expires.UTC().Format(time.RFC3339), c.About.Hold, c.About.Fingerprint)
	}
	if _, err := d.Search(ctx, c.ID, discovery.Terms{}); err != nil {
		return casePolicy(err)
	}
	return f.writeSelection(ctx, std, d, c.ID, nil, *out)
}

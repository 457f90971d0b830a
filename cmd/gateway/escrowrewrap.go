package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault/archive"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
)

// runEscrowRewrap is the gateway's side of a re-wrap.
func runEscrowRewrap(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newCaseFlags(fs)
	id, rest, err := aCase(fs, args, true)
	if err != nil {
		return err
	} else if len(rest) != 1 {
		return usagef("escrow rewrap: name the case and the file that its station wrote")
	}
	d, end, err := f.desk(ctx)
	if err != nil {
		return err
	}
	defer end()
	file, err := readUpTo(std, rest[0], int64(escrow.MaxRewrap))
	if err != nil {
		return err
	}
	p := newProgress(std, "re-wrapped", 0)
	r, err := d.Rewrap(ctx, id, file, p.reach)
	p.end()
	switch {
	case err == nil:
	case errors.Is(err, escrow.ErrSignature), errors.Is(err, escrow.ErrLabel), errors.Is(err, escrow.ErrProof), errors.Is(err, archive.ErrLabel):
		return refusedError{fmt.Errorf("%s: %w: nothing was changed", rest[0], err)}
	default:
		return casePolicy(err)
	}
	if *f.json {
		return printJSON(std.out, r)
	}
	_, err = fmt.Fprintf(std.out, "re-wrapped %d of %d, %d before this run, %d are gone\n", r.Done, r.Entries, r.Before, r.Gone)
	return err
}

// runStationRewrap is the station's.
func runStationRewrap(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	dealer := fs.String("dealer", "", "the `FINGERPRINT` that was written down at the new key's ceremony")
	out := fs.String("out", "", "`FILE` for the gateway; must not exist")
	var epochs list
	fs.Var(&epochs, "epoch", "epoch record `FILE` of the new key after the first, in order; may be repeated")
	f := newStationFlags(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	} else if len(rest) < 4 {
		return usagef("case station rewrap: name the station's folder, the case file, the new key's transcript and the statements of all of its officers")
	}
	to, err := newKeySealer(std, rest[2], *dealer, epochs, rest[3:])
	if err != nil {
		return err
	}
	s, k, err := f.unlocked(std, rest[0])
	if err != nil {
		return err
	}
	defer k.Destroy()
	p := newProgress(std, "sealed anew", 0)
	file, r, err := s.Rewrap(ctx, k, rest[1], to, time.Now(), p.reach)
	p.end()
	if r != nil {
		for _, b := range r.Refused {
			fmt.Fprintf(std.err, "not used: %s\n", printable(b.String()))
		}
	}
	if err != nil {
		return stationPolicy(err)
	}
	name := outName(*out, "rewrap-"+s.Selection().Manifest.Case.String()+".drw1")
	if file == nil {
		name = ""
	} else if err := safefile.Create(name, file); err != nil {
		return err
	}
	return f.saidRewrapped(std, r, name)
}

// newKeySealer reads what escrow install takes.
func newKeySealer(std stdio, transcript, dealer string, epochs, statements []string) (*escrow.Sealer, error) {
	t, err := readTranscript(std, transcript, dealer)
	if err != nil {
		return nil, err
	}
	chain, err := readChain(std, t, epochs)
	if err != nil {
		return nil, err
	}
	said, err := readStatements(std, statements)
	if err != nil {
		return nil, err
	}
	to, err := escrow.NewSealer(t.Key, chain, said)
	return to, policy(err)
}

func (f stationFlags) saidRewrapped(std stdio, r *station.Report, file string) error {
	if *f.json {
		if err := json.NewEncoder(std.out).Encode(struct {
			*station.Report
			File string `json:"file,omitempty"`
		}{r, file}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(std.out, "sealed anew %d entries of %d\n", r.Opened, r.Entries)
		for _, x := range r.Faults {
			fmt.Fprintf(std.out, "NOT SEALED ANEW: entry %d, record %s: %s\n", x.Entry, x.Record, printable(x.Reason))
		}
		if file != "" {
			fmt.Fprintf(std.out, "wrote %s\n", file)
		}
	}
	if len(r.Faults) > 0 {
		return errReported
	}
	return nil
}

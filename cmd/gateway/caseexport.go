package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault/discovery/evidence"
	"dimegate/vault/discovery/export"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
)

var stationExportCommand = command{
	name: "export", summary: "write what was opened: .eml files, mbox, load files, or an evidence package; goes on where it was ended",
	usage:   "--out FOLDER [--format eml,mbox,dat,csv,evidence] [--prefix TEXT] [--volume N] [--transcript FILE] [--passphrase-file FILE] [--json] FOLDER",
	example: "gateway case station export --out /media/usb/case-2026-7 --format eml,dat,evidence case-2026-7",
	run:     runStationExport,
}

// formatEvidence is the form that export has not.
const formatEvidence = "evidence"

// An exportReport is what case station export says.
type exportReport struct {
	*export.Report
	Evidence string `json:"evidence,omitempty"` // the package
	Manifest string `json:"manifest,omitempty"` // what case station close --export takes
	Proved   int    `json:"proved,omitempty"`   // messages of the package, which was checked after it was written
}

func runStationExport(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	out := fs.String("out", "", "`FOLDER` to write to; made when it is not there")
	formats := fs.String("format", "eml,dat", "any of eml, mbox, dat, csv, evidence, with commas between")
	prefix := fs.String("prefix", "DG", "`TEXT` before control numbers")
	volume := fs.Int("volume", 10_000, "at most `N` items in a volume")
	transcript := fs.String("transcript", "", "the ceremony's transcript, for the evidence package: `FILE`")
	f := newStationFlags(fs)
	folder, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	o := export.Options{Folder: *out, Prefix: *prefix, VolumeItems: *volume}
	packed := false
	for name := range strings.SplitSeq(*formats, ",") {
		switch format := export.Format(name); {
		case name == formatEvidence:
			packed = true
		case slices.Contains(export.Formats, format):
			o.Formats = append(o.Formats, format)
		default:
			return usagef("case station export: --format %q is none of %v and evidence", name, export.Formats)
		}
	}
	if *out == "" || *volume < 1 {
		return usagef("case station export: give --out, and --volume 1 or more")
	}
	var words []byte
	if *transcript != "" {
		if words, err = readUpTo(std, *transcript, escrow.MaxTranscript); err != nil {
			return err
		}
	}
	s, k, err := f.unlocked(std, folder)
	if err != nil {
		return err
	}
	defer k.Destroy()
	c, err := s.Case(k, time.Now())
	if err != nil {
		return stationPolicy(err)
	}
	defer c.Close()
	if !c.Whole() {
		return refusedError{errors.New("case station export: not all of the case is opened yet: gateway case station open goes on")}
	}
	r := exportReport{Report: &export.Report{Folder: *out, Items: len(c.Items())}}
	if len(o.Formats) > 0 {
		p := newProgress(std, "exported", int64(len(c.Items())))
		o.Progress = p.reach
		r.Report, err = export.Write(ctx, c, o)
		p.end()
		if err != nil {
			return err
		}
	}
	if packed {
		if err := packEvidence(ctx, std, s, k, c, *out, words, &r); err != nil {
			return err
		}
	}
	return f.saidExported(std, r)
}

func (f stationFlags) saidExported(std stdio, r exportReport) error {
	if *f.json {
		return json.NewEncoder(std.out).Encode(r)
	}
	if r.Volumes > 0 {
		fmt.Fprintf(std.out, "%s, %d withheld, %d octets in %s under %s\n", count(int64(r.Items), "item", "items"), r.Withheld, r.Octets, count(int64(r.Volumes), "volume", "volumes"), r.Folder)
	}
	if r.Evidence != "" {
		fmt.Fprintf(std.out, "wrote %s, and checked it: %s proved\nat the end: gateway case station close --export %s\n", r.Evidence, count(int64(r.Proved), "message", "messages"), r.Manifest)
	}
	return nil
}

// packEvidence writes an evidence package and checks it before it gets its name.
func packEvidence(ctx context.Context, std stdio, s *station.Station, k *station.Keys, c *station.Case, dir string, transcript []byte, r *exportReport) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, evidence.Name(c.Case().Head.Manifest))
	r.Evidence, r.Manifest = name+".zip", name+".manifest"
	if _, err := os.Lstat(r.Evidence); !errors.Is(err, fs.ErrNotExist) {
		return usagef("case station export: %s is there already: name another folder", r.Evidence)
	}
	t, err := os.CreateTemp(dir, ".evidence-*.part") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	defer t.Close()
	p := newProgress(std, "packed", int64(len(c.Items())))
	err = evidence.Write(ctx, t, c, evidence.Input{Witnesses: s.Trust().Witnesses, Transcript: transcript, Requester: k.Signing(),
		Software: "dimegate " + builtVersion(), Now: time.Now(), Progress: p.reach})
	p.end()
	if err == nil {
		err = t.Sync()
	}
	if err != nil {
		return err
	}
	st, err := t.Stat()
	if err != nil {
		return err
	}
	proved, err := evidence.Verify(ctx, t, st.Size(), nil)
	if err != nil {
		return fmt.Errorf("the package does not verify, and is thrown away: %w", err)
	}
	r.Proved = len(proved.Messages)
	manifest, err := evidence.TagManifest(t, st.Size())
	if err != nil {
		return err
	}
	if err := safefile.Write(r.Manifest, manifest); err != nil {
		return err
	}
	if err := os.Link(t.Name(), r.Evidence); err != nil {
		return err
	}
	return safefile.SyncDir(dir)
}

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

var officerCommand = command{
	name:    "officer",
	summary: "an escrow officer's tool, on his own machine: keys, share, cases, changes of officers",
	sub: []command{
		{
			name: "keygen", summary: "make an officer's keys, and print the officer file for the ceremony",
			usage:   "--person ADDRESS [--dir FOLDER] [--token FILE [--recipient RECIPIENT]] [--passphrase-file FILE] [--json]",
			example: "gateway officer keygen --person anna@example.org > anna.pub",
			run:     runOfficerKeygen,
		},
		{
			name: "attest", summary: "check your share of a ceremony, keep it, and sign that it is right",
			usage:   "--transcript FILE --share FILE --log KEY --witness KEY [--dealer FINGERPRINT] [--dir FOLDER] [--out FILE] [--yes] [--passphrase-file FILE] [--json]",
			example: "gateway officer attest --transcript transcript.txt --share share-1.age --log dimegate/…+…+… --witness witness.example.org+…+…",
			run:     runOfficerAttest,
		},
		{
			name: "review", summary: "make every check on a case, and show what it is about; signs nothing",
			usage:   "[--dir FOLDER] [--json] BUNDLE",
			example: "gateway officer review case.deb1",
			run:     runOfficerReview,
		},
		{
			name: "approve", summary: "review a case, ask, and give your partials for exactly its entries",
			usage:   "[--dir FOLDER] [--out FILE] [--yes] [--passphrase-file FILE] [--json] BUNDLE",
			example: "gateway officer approve --out anna.answer case.deb1",
			run:     runOfficerApprove,
		},
		{
			name: "decline", summary: "review a case, ask, and sign that you take no part",
			usage:   "[--dir FOLDER] [--out FILE] [--yes] [--passphrase-file FILE] [--json] BUNDLE",
			example: "gateway officer decline --out anna.answer case.deb1",
			run:     runOfficerDecline,
		},
		officerReshare,
		officerFollow,
	},
}

// officerFlags are those that most of an officer's commands have.
type officerFlags struct {
	dir, passphrase, out *string
	yes, json            *bool
}

func newOfficerFlags(fs *flag.FlagSet, signs bool) officerFlags {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	f := officerFlags{
		dir:        fs.String("dir", filepath.Join(home, ".dimegate-officer"), "the officer's `FOLDER`"),
		json:       fs.Bool("json", false, "print JSON"),
		passphrase: new(string), out: new(string), yes: new(bool),
	}
	if signs {
		f.passphrase = fs.String("passphrase-file", "", "`FILE` with the passphrase, mode 0600; asked for when not given")
		f.out = fs.String("out", "", "`FILE` for what is signed; must not exist")
		f.yes = fs.Bool("yes", false, "sign without asking")
	}
	return f
}

func (f officerFlags) desk() (*officer.Desk, error) {
	d, err := officer.Open(*f.dir)
	if err != nil {
		return nil, usageError{fmt.Errorf("%w: is --dir the officer's folder? gateway officer keygen makes one", err)}
	}
	return d, nil
}

func runOfficerKeygen(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	person := fs.String("person", "", "your mail `ADDRESS`, in lower case: your name among the officers, for life")
	token := fs.String("token", "", "age plugin identity `FILE` of a token that protects the keys, in place of a passphrase")
	recipient := fs.String("recipient", "", "the token's age `RECIPIENT`, where the file does not say it")
	f := newOfficerFlags(fs, false)
	fs.StringVar(f.passphrase, "passphrase-file", "", "`FILE` with the passphrase, mode 0600; asked for when not given")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || *person == "" {
		return usagef("officer keygen: give --person ADDRESS, and nothing else")
	}
	harden()
	l, err := newLock(std, *f.passphrase, *token, *recipient)
	if err != nil {
		return err
	}
	d, err := officer.Create(*f.dir, *person, l)
	if err != nil {
		return usageError{err}
	}
	o := d.Officer()
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Person      string `json:"person"`
			Fingerprint string `json:"fingerprint"`
			Line        string `json:"officer_file"`
			Folder      string `json:"folder"`
		}{o.Person, o.Fingerprint(), o.Line(), *f.dir})
	}
	fmt.Fprintf(std.err, "keys in %s; your fingerprint, to be read to the other officers: %s\n", *f.dir, o.Fingerprint())
	_, err = io.WriteString(std.out, o.Line())
	return err
}

func runOfficerAttest(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	transcript := fs.String("transcript", "", "the ceremony's transcript, `FILE`")
	share := fs.String("share", "", "your share, `FILE`")
	dealer := fs.String("dealer", "", "the dealer's `FINGERPRINT` that you wrote down")
	var t escrow.Trust
	fs.StringVar(&t.Log, "log", "", "verifier `KEY` of the gateway's log")
	fs.Var((*list)(&t.Witnesses), "witness", "verifier `KEY` of a witness that you trust; may be repeated")
	f := newOfficerFlags(fs, true)
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || *transcript == "" || *share == "" || t.Log == "" || len(t.Witnesses) == 0 {
		return usagef("officer attest: give --transcript, --share, --log and --witness")
	}
	if err := t.Check(); err != nil {
		return usageError{err}
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	tr, err := readTranscript(std, *transcript, *dealer)
	if err != nil {
		return err
	}
	file, err := readFile(std, *share)
	if err != nil {
		return err
	}
	harden()
	keys, err := unlock(std, d, *f.passphrase)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	c, err := d.Ceremony(keys, tr, file)
	if err != nil {
		return err
	}
	row := rowOf(tr.Key, tr.Epoch)
	row.Dealer = tr.DealerFingerprint()
	if !*f.json {
		row.print(std.out)
		fmt.Fprintf(std.out, "  made with     %s, %s\n  you           officer %d; your share is on the committed polynomial\n", printable(tr.Software), tr.Time.Format(time.RFC3339), c.Index)
	}
	if err := confirm(std, *f.yes, "Do the fingerprints agree with those that were read out and written down? You sign that your share is right."); err != nil {
		return err
	}
	st, err := d.Attest(keys, c, t, time.Now())
	if err != nil {
		return err
	}
	name := outName(*f.out, fmt.Sprintf("attest-%d-%d.deg1", tr.Epoch.Number, c.Index))
	return f.wrote(std, name, st, row)
}

// outName is where a result goes.
func outName(given, usual string) string {
	if given != "" {
		return given
	}
	return usual
}

// wrote writes a statement and says so.
func (f officerFlags) wrote(std stdio, name string, st *escrow.Statement, about any) error {
	if err := safefile.Create(name, st.Octets()); err != nil {
		return err
	}
	return f.said(std, name, st, about)
}

func (f officerFlags) said(std stdio, name string, st *escrow.Statement, about any) error {
	if *f.json {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Signed string    `json:"signed"`
			Index  uint16    `json:"index"`
			Time   time.Time `json:"time"`
			File   string    `json:"file"`
			About  any       `json:"about"`
		}{st.Kind.String(), st.Index, st.Time, name, about})
	}
	_, err := fmt.Fprintf(std.out, "signed: officer %d %s\nwrote %s\n", st.Index, st.Kind, name)
	return err
}

// A caseRow is a case, as shown before anything is signed.
type caseRow struct {
	Case         string         `json:"case"`
	Digest       string         `json:"case_digest"`
	Organisation string         `json:"organisation"`
	Purpose      string         `json:"purpose"`
	Epoch        uint32         `json:"epoch"`
	Quorum       int            `json:"quorum"`
	Basis        string         `json:"basis"`
	Rewraps      bool           `json:"rewraps"` // it seals records anew to another key, and opens no mail for anybody
	Requester    string         `json:"requester"`
	Opened       time.Time      `json:"opened"`
	Expires      time.Time      `json:"expires"`
	HoursLeft    int            `json:"hours_left"`
	FirstMonth   string         `json:"first_month"`
	LastMonth    string         `json:"last_month"`
	Custodians   []string       `json:"custodians"`
	Counts       []escrow.Count `json:"counts"`
	Entries      int            `json:"entries"`
	Records      int            `json:"records"`
	New          int            `json:"new_records"`
	Before       int            `json:"approved_before"`
	LogOrigin    string         `json:"log_origin"`
	LogSize      int64          `json:"log_size"`
}

func rowOfCase(c *officer.Case, now time.Time) caseRow {
	m := c.Manifest
	return caseRow{Case: m.Case.String(), Digest: hexDigest(m.Digest()), Organisation: c.Key.Organisation, Purpose: m.Purpose.String(),
		Epoch: c.Epoch.Number, Quorum: c.Epoch.Quorum, Basis: m.Basis, Rewraps: m.Rewraps(), Requester: m.Requester, Opened: m.Opened, Expires: m.Expires,
		HoursLeft: int(m.Expires.Sub(now).Hours()), FirstMonth: m.First.String(), LastMonth: m.Last.String(), Custodians: c.Custodians,
		Counts: c.Counts, Entries: len(m.Entries), Records: c.Records, New: c.Records - c.Before, Before: c.Before,
		LogOrigin: c.Checkpoint.Origin, LogSize: c.Checkpoint.Size}
}

func (r caseRow) print(w io.Writer) {
	fmt.Fprintf(w, "case %s of %s, %s\n  digest      %s\n  basis       %s\n  asked by    %s\n  opened      %s\n  expires     %s, in %d hours\n  months      %s to %s\n",
		r.Case, r.Organisation, r.Purpose, r.Digest, printable(r.Basis), printable(r.Requester), r.Opened.Format(time.RFC3339), r.Expires.Format(time.RFC3339), r.HoursLeft, r.FirstMonth, r.LastMonth)
	if r.Rewraps {
		fmt.Fprintln(w, "  RE-WRAPS    the station seals these records anew to another escrow key, after this one came under suspicion, and opens no mail for anybody")
	}
	fmt.Fprintf(w, "  custodians  %d: %s\n", len(r.Custodians), printable(strings.Join(r.Custodians, ", ")))
	for _, c := range r.Counts {
		fmt.Fprintf(w, "  %7d     %s, %s, class %d\n", c.Entries, printable(c.Custodian), c.Month, c.Class)
	}
	fmt.Fprintf(w, "  records     %d: %d new, %d that you approved before\n  log         %s, %d leaves: cosigned, and grown from what you saw last\n  quorum      %d officers of epoch %d\n",
		r.Records, r.New, r.Before, printable(r.LogOrigin), r.LogSize, r.Quorum, r.Epoch)
}

// reviewed opens a bundle and reviews it. The caller closes the file.
func (f officerFlags) reviewed(ctx context.Context, std stdio, name string, now time.Time) (*officer.Desk, *officer.Case, *os.File, error) {
	d, err := f.desk()
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	c, err := d.Review(ctx, file, now)
	if err != nil {
		file.Close()
		return nil, nil, nil, policy(fmt.Errorf("%s: %w", name, err))
	}
	if !*f.json {
		rowOfCase(c, now).print(std.out)
	}
	return d, c, file, nil
}

func runOfficerReview(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newOfficerFlags(fs, false)
	name, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	now := time.Now()
	_, c, file, err := f.reviewed(ctx, std, name, now)
	if err != nil {
		return err
	}
	defer file.Close()
	if *f.json {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(rowOfCase(c, now))
	}
	_, err = fmt.Fprintln(std.out, "every check holds; nothing was signed")
	return err
}

func runOfficerApprove(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newOfficerFlags(fs, true)
	return answer(ctx, std, fs, args, f, "You give your part of opening every one of these records.",
		func(d *officer.Desk, k *officer.Keys, c *officer.Case, file *os.File, path string) (*escrow.Statement, error) {
			return d.Approve(ctx, k, c, file, time.Now(), path)
		})
}

func runOfficerDecline(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newOfficerFlags(fs, true)
	return answer(ctx, std, fs, args, f, "You sign that you take no part in this case.",
		func(d *officer.Desk, k *officer.Keys, c *officer.Case, _ *os.File, path string) (*escrow.Statement, error) {
			st, err := d.Decline(k, c, time.Now())
			if err != nil {
				return nil, err
			}
			return st, safefile.Create(path, st.Octets())
		})
}

// answer reviews a case, shows it, asks, and signs.
func answer(ctx context.Context, std stdio, fs *flag.FlagSet, args []string, f officerFlags, question string,
	sign func(*officer.Desk, *officer.Keys, *officer.Case, *os.File, string) (*escrow.Statement, error)) error {
	name, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	harden()
	now := time.Now()
	d, c, file, err := f.reviewed(ctx, std, name, now)
	if err != nil {
		return err
	}
	defer file.Close()
	keys, err := unlock(std, d, *f.passphrase)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	if err := confirm(std, *f.yes, question); err != nil {
		return err
	}
	path := outName(*f.out, "answer-"+c.Manifest.Case.String())
	st, err := sign(d, keys, c, file, path)
	if err != nil {
		return policy(err)
	}
	return f.said(std, path, st, rowOfCase(c, now))
}

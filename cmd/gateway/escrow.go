package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

var escrowCommand = command{
	name:    "escrow",
	summary: "make the keys that only a quorum of officers opens, and check how they were made",
	sub: []command{
		{
			name: "init", summary: "the ceremony: make an escrow key and give each officer his share; on a machine of its own, without network",
			usage:   "--org DOMAIN --officers FILE,FILE,... --quorum M [--purpose discovery|continuity] [--continuity-quorum M] [--discovery TRANSCRIPT] [--out FOLDER] [--with-network] [--json]",
			example: "gateway escrow init --org example.org --officers anna.pub,ben.pub,cleo.pub --quorum 2 --out /media/escrow",
			run:     runEscrowInit,
		},
		{
			name: "verify", summary: "check a ceremony's transcript, and who has attested his share",
			usage:   "[--dealer FINGERPRINT] [--epoch FILE ...] [--json] TRANSCRIPT [STATEMENT ...]",
			example: "gateway escrow verify --dealer 0123456789abcdef transcript.txt attest-1-*.deg1",
			run:     runEscrowVerify,
		},
		{
			name: "install", summary: "bring a key, or a later epoch of it, into force on the gateway: with the statements of all of its officers; it is logged",
			usage:   "[--config FILE] [--dealer FINGERPRINT] [--epoch FILE ...] [--json] TRANSCRIPT STATEMENT ...",
			example: "gateway escrow install --dealer 0123456789abcdef transcript.txt attest-1-*.deg1",
			run:     runEscrowInstall,
		},
		{
			name: "rewrap", summary: "take what a station sealed anew to the key in force, in a case that re-wraps; goes on where it was ended",
			usage:   "[--config FILE] [--json] CASE FILE",
			example: "gateway escrow rewrap 0f5cm4nq6v2k1s0s7v3t8e2g9c rewrap.drw1",
			run:     runEscrowRewrap,
		},
		{
			name: "list", summary: "list the keys that the gateway seals to, or did, with their officers",
			usage:   "[--config FILE] [--json]",
			example: "gateway escrow list",
			run:     runEscrowList,
		},
	},
}

// An officerRow is an officer, as shown.
type officerRow struct {
	Index       uint16 `json:"index"`
	Person      string `json:"person"`
	Fingerprint string `json:"fingerprint"`
	Attested    *bool  `json:"attested,omitempty"`
}

func officerRows(list []escrow.Officer) []officerRow {
	rows := make([]officerRow, len(list))
	for i, o := range list {
		rows[i] = officerRow{Index: o.Index, Person: o.Person, Fingerprint: o.Fingerprint()}
	}
	return rows
}

// A keyRow is a key with an epoch, as shown.
type escrowRow struct {
	Organisation string       `json:"organisation"`
	Purpose      string       `json:"purpose"`
	Suite        string       `json:"suite"`
	KeyID        string       `json:"key_id"`
	Created      time.Time    `json:"created"`
	Epoch        uint32       `json:"epoch"`
	EpochDigest  string       `json:"epoch_digest"`
	Quorum       int          `json:"quorum"`
	Officers     []officerRow `json:"officers"`
	Dealer       string       `json:"dealer_fingerprint,omitempty"`
	Files        []string     `json:"files,omitempty"`
	InForce      *bool        `json:"every_officer_attested,omitempty"`
	Used         *bool        `json:"in_force,omitempty"` // on this gateway
	Wraps        *int64       `json:"wraps,omitempty"`    // that are sealed to it there
}

func hexDigest(d vault.Digest) string { return hex.EncodeToString(d[:]) }

func rowOf(k *escrow.Key, e *escrow.Epoch) escrowRow {
	return escrowRow{Organisation: k.Organisation, Purpose: k.Purpose.String(), Suite: k.Suite().String(), KeyID: hexDigest(k.ID()), Created: k.Created,
		Epoch: e.Number, EpochDigest: hexDigest(e.Digest()), Quorum: e.Quorum, Officers: officerRows(e.Officers)}
}

func (r escrowRow) print(w io.Writer) {
	fmt.Fprintf(w, "%s key of %s, %s\n", r.Purpose, r.Organisation, r.Suite)
	fmt.Fprintf(w, "  key id        %s\n  made          %s\n  epoch         %d\n  epoch digest  %s\n  quorum        %d of %d\n",
		r.KeyID, r.Created.Format(time.RFC3339), r.Epoch, r.EpochDigest, r.Quorum, len(r.Officers))
	for _, o := range r.Officers {
		state := ""
		if o.Attested != nil && *o.Attested {
			state = "  attested"
		} else if o.Attested != nil {
			state = "  not attested"
		}
		fmt.Fprintf(w, "  officer %-5d %s  %s%s\n", o.Index, o.Fingerprint, printable(o.Person), state)
	}
	if r.Dealer != "" {
		fmt.Fprintf(w, "  dealer        %s\n", r.Dealer)
	}
}

// A ceremonyOrder is what the flags of escrow init ask for.
type ceremonyOrder struct {
	org, purpose, discovery, out string
	officers                     list
	quorum, continuity           int
	network                      bool
}

func runEscrowInit(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var o ceremonyOrder
	fs.StringVar(&o.org, "org", "", "the organisation's `DOMAIN`")
	fs.Var(&o.officers, "officers", "officer `FILES`, in the order of their indexes")
	fs.IntVar(&o.quorum, "quorum", 0, "how many officers open: `M`")
	fs.StringVar(&o.purpose, "purpose", "", "discovery or continuity; both when not given")
	fs.IntVar(&o.continuity, "continuity-quorum", 0, "`M` of the continuity key; one more than discovery's when not given")
	fs.StringVar(&o.discovery, "discovery", "", "with --purpose continuity: `TRANSCRIPT` of the discovery key")
	fs.StringVar(&o.out, "out", "escrow", "`FOLDER` for what is made; a folder inside it for each key")
	fs.BoolVar(&o.network, "with-network", false, "go on although this machine has a network: for trials")
	asJSON := fs.Bool("json", false, "print JSON, an object a key")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("escrow init: takes no operand")
	}
	ceremonies, err := o.ceremonies(std)
	if err != nil {
		return err
	}
	if n := networks(); n != "" && !o.network {
		return refusedError{fmt.Errorf("this machine has a network (%s): the ceremony's machine has none. For a trial give --with-network", n)}
	}
	harden()
	for _, c := range ceremonies {
		row, err := o.hold(c)
		if err != nil {
			return err
		}
		if *asJSON {
			if err := json.NewEncoder(std.out).Encode(row); err != nil {
				return err
			}
			continue
		}
		row.print(std.out)
		for _, f := range row.Files {
			fmt.Fprintf(std.out, "  wrote         %s\n", f)
		}
	}
	if !*asJSON {
		fmt.Fprint(std.out, ceremonyEnd)
	}
	return nil
}

const ceremonyEnd = `
Every officer now writes down his fingerprint and the dealer's, takes his share file and the transcript, and runs
"gateway officer attest" on his own machine. Switch this machine off when the files are copied: it held the private key.
`

// ceremonies are the one or two that are asked for, checked before anything is made.
func (o *ceremonyOrder) ceremonies(std stdio) ([]escrow.Ceremony, error) {
	c := escrow.Ceremony{Suite: escrow.R255, Organisation: strings.ToLower(o.org), Quorum: o.quorum, Now: time.Now()}
	if o.org == "" || len(o.officers) == 0 || o.quorum == 0 {
		return nil, usagef("escrow init: give --org, --officers and --quorum")
	}
	for _, name := range o.officers {
		b, err := readFile(std, name)
		if err != nil {
			return nil, err
		}
		who, err := escrow.ParseOfficer(b)
		if err != nil {
			return nil, usagef("%s: %w", name, err)
		}
		c.Officers = append(c.Officers, who)
	}
	if o.quorum < 2 || o.quorum > len(c.Officers) || len(c.Officers) > escrow.MaxOfficers {
		return nil, usagef("escrow init: a quorum is at least 2 and at most the officers, who are 64 at most")
	}
	discovery, continuity := c, c
	discovery.Purpose, continuity.Purpose = escrow.Discovery, escrow.Continuity
	switch o.purpose {
	case "discovery":
		return []escrow.Ceremony{discovery}, nil
	case "continuity":
		return o.onlyContinuity(std, continuity)
	case "":
		continuity.Quorum = o.quorum + 1
		if o.continuity != 0 {
			continuity.Quorum = o.continuity
		}
		if continuity.Quorum <= o.quorum || continuity.Quorum > len(c.Officers) {
			return nil, usagef("escrow init: the continuity key needs a quorum above %d, and there are %d officers: take more officers, or --purpose discovery", o.quorum, len(c.Officers))
		}
		return []escrow.Ceremony{discovery, continuity}, nil
	}
	return nil, usagef("escrow init: --purpose is discovery or continuity")
}

// onlyContinuity checks the quorum against that of the discovery key, which was made before.
func (o *ceremonyOrder) onlyContinuity(std stdio, c escrow.Ceremony) ([]escrow.Ceremony, error) {
	if o.discovery == "" {
		return nil, usagef("escrow init: give --discovery TRANSCRIPT: continuity's quorum must be above discovery's")
	}
	b, err := readFile(std, o.discovery)
	if err != nil {
		return nil, err
	}
	t, err := escrow.ParseTranscript(b)
	if err != nil {
		return nil, usagef("%s: %w", o.discovery, err)
	}
	if t.Key.Organisation != c.Organisation || t.Key.Purpose != escrow.Discovery {
		return nil, usagef("%s: is not of the discovery key of %s", o.discovery, c.Organisation)
	}
	if c.Quorum <= t.Epoch.Quorum {
		return nil, usagef("escrow init: continuity's quorum must be above discovery's, which is %d", t.Epoch.Quorum)
	}
	return []escrow.Ceremony{c}, nil
}

// hold deals, seals the shares and writes everything; the transcript last.
func (o *ceremonyOrder) hold(c escrow.Ceremony) (escrowRow, error) {
	d, err := c.Deal()
	if err != nil {
		return escrowRow{}, usageError{err} // of what was given: nothing was made
	}
	defer d.Destroy()
	dir := filepath.Join(o.out, c.Purpose.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return escrowRow{}, err
	}
	row := rowOf(d.Key, d.Epoch)
	write := func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		row.Files = append(row.Files, path)
		return safefile.Create(path, data)
	}
	if err := sealShares(d, write); err != nil {
		return escrowRow{}, err
	}
	if err := write("key.dek1", d.Key.Octets()); err != nil {
		return escrowRow{}, err
	}
	if err := write("epoch-1.dee1", d.Epoch.Octets()); err != nil {
		return escrowRow{}, err
	}
	t, err := o.transcript(d, c.Now)
	if err != nil {
		return escrowRow{}, err
	}
	row.Dealer = t.DealerFingerprint()
	return row, write("transcript.txt", []byte(t.Text()))
}

func sealShares(d *escrow.Dealt, write func(string, []byte) error) error {
	for i, s := range d.Shares {
		who := d.Epoch.Officers[i]
		to, err := officer.Recipients{}.Parse(who.Recipient)
		if err != nil {
			to, err = officer.Recipients{UI: pluginUI(stdio{err: os.Stderr})}.Parse(who.Recipient)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", who.Person, err)
		}
		b := s.Octets()
		file, err := escrow.SealFile(to, b)
		clear(b)
		if err != nil {
			return fmt.Errorf("%s: %w", who.Person, err)
		}
		if err := write(fmt.Sprintf("share-%d.age", who.Index), file); err != nil {
			return err
		}
	}
	return nil
}

// transcript signs with a key that is made for it and forgotten.
func (o *ceremonyOrder) transcript(d *escrow.Dealt, now time.Time) (*escrow.Transcript, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	rand.Read(seed)
	dealer, err := escrow.NewSigningKey(seed)
	if err != nil {
		return nil, err
	}
	defer dealer.Destroy()
	software := "dimegate " + builtVersion()
	if n := networks(); n != "" {
		software += ", on a machine with a network"
	}
	return escrow.NewTranscript(software, now, d.Key, d.Epoch, dealer)
}

// builtVersion is the version of this program.
func builtVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}

// networks names the interfaces that are up and no loopback.
func networks() string {
	all, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var up []string
	for _, i := range all {
		if addresses, err := i.Addrs(); i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 && (err != nil || len(addresses) > 0) {
			up = append(up, i.Name)
		}
	}
	return strings.Join(up, ", ")
}

func runEscrowVerify(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	dealer := fs.String("dealer", "", "the `FINGERPRINT` that was written down at the ceremony")
	var epochs list
	fs.Var(&epochs, "epoch", "epoch record `FILE` after the first, in order; may be repeated")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return usagef("escrow verify: name a transcript")
	}
	t, err := readTranscript(std, rest[0], *dealer)
	if err != nil {
		return err
	}
	chain, err := readChain(std, t, epochs)
	if err != nil {
		return err
	}
	e := chain[len(chain)-1]
	statements, err := readStatements(std, rest[1:])
	if err != nil {
		return err
	}
	row := rowOf(t.Key, e)
	row.Dealer = t.DealerFingerprint()
	inForce, err := attestedRow(&row, e, statements)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(row)
	} else {
		row.print(std.out)
		fmt.Fprintf(std.out, "  transcript    holds: signature, records, commitments\n  every officer attested: %v\n", inForce)
	}
	if err == nil && len(statements) > 0 && !inForce {
		return errReported
	}
	return err
}

func readTranscript(std stdio, name, dealer string) (*escrow.Transcript, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	t, err := escrow.ParseTranscript(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if dealer != "" && strings.ToLower(dealer) != t.DealerFingerprint() {
		return nil, fmt.Errorf("%s: signed by dealer %s, not by the one that was written down", name, t.DealerFingerprint())
	}
	return t, nil
}

func readChain(std stdio, t *escrow.Transcript, names []string) ([]*escrow.Epoch, error) {
	chain := []*escrow.Epoch{t.Epoch}
	for _, name := range names {
		e, err := readEpoch(std, name)
		if err != nil {
			return nil, err
		}
		chain = append(chain, e)
	}
	return chain, escrow.CheckChain(t.Key, chain)
}

func readEpoch(std stdio, name string) (*escrow.Epoch, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	e, err := escrow.ParseEpoch(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

func readStatements(std stdio, names []string) ([]*escrow.Statement, error) {
	var all []*escrow.Statement
	for _, name := range names {
		b, err := readFile(std, name)
		if err != nil {
			return nil, err
		}
		s, err := escrow.ParseStatement(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// attestedRow marks who has attested; a statement that does not hold is an error.
func attestedRow(row *escrowRow, e *escrow.Epoch, statements []*escrow.Statement) (bool, error) {
	for _, s := range statements {
		if err := s.VerifyOfficer(e, escrow.AttestShare, e.Digest(), vault.Digest{}); err != nil {
			return false, err
		}
	}
	inForce := escrow.Attested(e, statements) == nil
	row.InForce = &inForce
	for i := range row.Officers {
		done := false
		for _, s := range statements {
			done = done || s.Index == row.Officers[i].Index
		}
		row.Officers[i].Attested = &done
	}
	return inForce, nil
}

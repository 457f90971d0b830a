package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
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

var officerReshare = command{
	name:    "reshare",
	summary: "change the officers of a key: add, remove, refresh; the key stays",
	sub: []command{
		{
			name: "plan", summary: "write down who deals and who shall hold shares; any officer can",
			usage:   "--dealers ADDRESS,... [--add FILE ...] [--remove ADDRESS ...] [--quorum M] [--key KEYID] [--on EPOCH] [--dir FOLDER] [--out FILE] [--json]",
			example: "gateway officer reshare plan --remove ben@example.org --add dan.pub --dealers anna@example.org,cleo@example.org",
			run:     runResharePlan,
		},
		{
			name: "deal", summary: "show a plan, ask, and deal your share out to its officers: to deal is to approve",
			usage:   "[--out FOLDER] [--dir FOLDER] [--yes] [--passphrase-file FILE] [--json] PLAN",
			example: "gateway officer reshare deal --out deals plan.deq1",
			run:     runReshareDeal,
		},
		{
			name: "accept", summary: "check all deals, make your new share, keep it, and sign that it is right",
			usage:   "--deals FOLDER [--key-record FILE --epoch FILE ... --log KEY --witness KEY ...] [--out FOLDER] [--dir FOLDER] [--yes] [--passphrase-file FILE] [--json] PLAN",
			example: "gateway officer reshare accept --deals deals plan.deq1",
			run:     runReshareAccept,
		},
		{
			name: "erase", summary: "when every new officer has attested: destroy your old share, and sign that you did",
			usage:   "--epoch FILE [--out FILE] [--dir FOLDER] [--yes] [--passphrase-file FILE] [--json] STATEMENT ...",
			example: "gateway officer reshare erase --epoch epoch-2.dee1 attest-2-*.deg1",
			run:     runReshareErase,
		},
	},
}

// A changeRow is a change of officers, as shown.
type changeRow struct {
	Organisation string       `json:"organisation"`
	Purpose      string       `json:"purpose"`
	KeyID        string       `json:"key_id"`
	PlanDigest   string       `json:"plan_digest"`
	OldEpoch     string       `json:"old_epoch_digest"`
	Number       uint32       `json:"new_epoch"`
	Created      time.Time    `json:"created"`
	OldQuorum    int          `json:"old_quorum"`
	Quorum       int          `json:"quorum"`
	Leaves       []officerRow `json:"leaves"`
	Comes        []officerRow `json:"comes"`
	Stays        []officerRow `json:"stays"`
	Dealers      []uint16     `json:"dealers"`
	File         string       `json:"file,omitempty"`
}

func rowOfChange(c *officer.Change) changeRow {
	return changeRow{Organisation: c.Key.Organisation, Purpose: c.Key.Purpose.String(), KeyID: hexDigest(c.Key.ID()), PlanDigest: hexDigest(c.Plan.Digest()),
		OldEpoch: hexDigest(c.Old.Digest()), Number: c.Plan.Number, Created: c.Plan.Created, OldQuorum: c.Old.Quorum, Quorum: c.Plan.Quorum,
		Leaves: officerRows(c.Leaves), Comes: officerRows(c.Comes), Stays: officerRows(c.Stays), Dealers: c.Plan.Dealers}
}

func (r changeRow) print(w io.Writer) {
	fmt.Fprintf(w, "change of officers of the %s key of %s\n  plan digest   %s\n  key id        %s\n  old epoch     %s\n  new epoch     number %d, planned %s\n  quorum        %d of %d (was %d)\n",
		r.Purpose, r.Organisation, r.PlanDigest, r.KeyID, r.OldEpoch, r.Number, r.Created.Format(time.RFC3339), r.Quorum, len(r.Comes)+len(r.Stays), r.OldQuorum)
	for _, l := range []struct {
		what string
		rows []officerRow
	}{{"leaves", r.Leaves}, {"comes", r.Comes}, {"stays", r.Stays}} {
		for _, o := range l.rows {
			fmt.Fprintf(w, "  %-13s officer %d  %s  %s\n", l.what, o.Index, o.Fingerprint, printable(o.Person))
		}
	}
	fmt.Fprintf(w, "  dealers       %s\n", strings.Trim(fmt.Sprint(r.Dealers), "[]"))
}

func runResharePlan(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var dealers, add, remove list
	fs.Var(&dealers, "dealers", "the officers who deal, by `ADDRESS`: exactly a quorum")
	fs.Var(&add, "add", "officer `FILE` of who comes, or who has new keys; may be repeated")
	fs.Var(&remove, "remove", "`ADDRESS` of an officer who leaves; may be repeated")
	quorum := fs.Int("quorum", 0, "`M` of the new epoch; as before when not given")
	key := fs.String("key", "", "`KEYID`, or its beginning, when you hold shares of several keys")
	on := fs.Uint("on", 0, "number of the `EPOCH` that is in force; the last that you know when not given")
	out := fs.String("out", "plan.deq1", "`FILE` for the plan; must not exist")
	f := newOfficerFlags(fs, false)
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || len(dealers) == 0 {
		return usagef("officer reshare plan: give --dealers, and no operand")
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	known, err := pickKey(d, *key)
	if err != nil {
		return err
	}
	old := uint32(*on)
	if old == 0 {
		old = uint32(len(known.Epochs))
	}
	if int(old) > len(known.Epochs) {
		return usagef("officer reshare plan: epoch %d is not known here", old)
	}
	if *quorum == 0 {
		*quorum = known.Epochs[old-1].Quorum
	}
	var comes []escrow.Officer
	for _, name := range add {
		b, err := readFile(std, name)
		if err != nil {
			return err
		}
		o, err := escrow.ParseOfficer(b)
		if err != nil {
			return usagef("%s: %w", name, err)
		}
		comes = append(comes, o)
	}
	c, err := d.NewPlan(known.Key.ID(), old, comes, remove, dealers, *quorum, time.Now())
	if err != nil {
		return policy(err)
	}
	if err := safefile.Create(*out, c.Plan.Octets()); err != nil {
		return err
	}
	row := rowOfChange(c)
	row.File = *out
	if *f.json {
		return json.NewEncoder(std.out).Encode(row)
	}
	row.print(std.out)
	_, err = fmt.Fprintf(std.out, "wrote %s\n", *out)
	return err
}

// pickKey finds the one key that is meant.
func pickKey(d *officer.Desk, prefix string) (officer.KnownKey, error) {
	var found []officer.KnownKey
	for _, k := range d.Keys() {
		id := k.Key.ID()
		if strings.HasPrefix(hex.EncodeToString(id[:]), strings.ToLower(prefix)) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return officer.KnownKey{}, usagef("no such key here: attest to your share first")
	}
	var names []string
	for _, k := range found {
		names = append(names, fmt.Sprintf("%s %s of %s", hexDigest(k.Key.ID())[:16], k.Key.Purpose, k.Key.Organisation))
	}
	return officer.KnownKey{}, usagef("several keys: give --key with one of %s", strings.Join(names, "; "))
}

func readPlan(std stdio, name string) (*escrow.Plan, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	p, err := escrow.ParsePlan(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func runReshareDeal(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	f := newOfficerFlags(fs, true)
	name, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	p, err := readPlan(std, name)
	if err != nil {
		return err
	}
	c, err := d.Change(p, officer.KnownKey{})
	if err != nil {
		return policy(err)
	}
	if !*f.json {
		rowOfChange(c).print(std.out)
	}
	harden()
	keys, err := unlock(std, d, *f.passphrase)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	if err := confirm(std, *f.yes, "You deal your share out to these officers."); err != nil {
		return err
	}
	dealt, err := d.Deal(keys, c, officer.Recipients{UI: pluginUI(std)}, time.Now())
	if err != nil {
		return policy(err)
	}
	dir := outName(*f.out, "deals")
	if err := writeDeal(dir, dealt); err != nil {
		return err
	}
	return f.said(std, dir, dealt.Statement, rowOfChange(c))
}

// writeDeal writes what a dealer gives out, the deal last.
func writeDeal(dir string, dealt *officer.Dealt) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	i := dealt.Deal.Dealer
	for to, file := range dealt.Sealed {
		if err := safefile.Create(filepath.Join(dir, fmt.Sprintf("subshare-%d-%d.age", i, to)), file); err != nil {
			return err
		}
	}
	if err := safefile.Create(filepath.Join(dir, fmt.Sprintf("deal-%d.deg1", i)), dealt.Statement.Octets()); err != nil {
		return err
	}
	return safefile.Create(filepath.Join(dir, fmt.Sprintf("deal-%d.der1", i)), dealt.Deal.Octets())
}

// readDeals reads the dealers' files for the officer whose place in the plan is index.
func readDeals(std stdio, dir string, p *escrow.Plan, index uint16) (officer.Receipt, error) {
	var r officer.Receipt
	for _, i := range p.Dealers {
		b, err := readFile(std, filepath.Join(dir, fmt.Sprintf("deal-%d.der1", i)))
		if err != nil {
			return r, err
		}
		deal, err := escrow.ParseDeal(b)
		if err != nil {
			return r, fmt.Errorf("dealer %d: %w", i, err)
		}
		st, err := readStatements(std, []string{filepath.Join(dir, fmt.Sprintf("deal-%d.deg1", i))})
		if err != nil {
			return r, err
		}
		sealed, err := readFile(std, filepath.Join(dir, fmt.Sprintf("subshare-%d-%d.age", i, index)))
		if err != nil {
			return r, err
		}
		r.Deals, r.Statements, r.Sealed = append(r.Deals, deal), append(r.Statements, st...), append(r.Sealed, sealed)
	}
	return r, nil
}

func runReshareAccept(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	deals := fs.String("deals", "deals", "`FOLDER` with the dealers' files")
	keyRecord := fs.String("key-record", "", "who is new: the key record, `FILE`")
	var epochs list
	fs.Var(&epochs, "epoch", "who is new: the epoch records from the first on, `FILE`; may be repeated")
	var t escrow.Trust
	fs.StringVar(&t.Log, "log", "", "who is new: verifier `KEY` of the gateway's log")
	fs.Var((*list)(&t.Witnesses), "witness", "who is new: verifier `KEY` of a witness that you trust; may be repeated")
	f := newOfficerFlags(fs, true)
	name, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	p, err := readPlan(std, name)
	if err != nil {
		return err
	}
	known, err := newcomer(std, *keyRecord, epochs, t)
	if err != nil {
		return err
	}
	c, err := d.Change(p, known)
	if err != nil {
		return policy(err)
	}
	me, ok := placeIn(p, d.Officer())
	if !ok {
		return refusedError{errors.New("the plan has no place for you with these keys")}
	}
	receipt, err := readDeals(std, *deals, p, me)
	if err != nil {
		return err
	}
	if !*f.json {
		rowOfChange(c).print(std.out)
	}
	harden()
	keys, err := unlock(std, d, *f.passphrase)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	question := "You take a share in this."
	if known.Key != nil {
		question = "Have two of the old officers read you the same plan digest and old epoch? You take a share in this."
	}
	if err := confirm(std, *f.yes, question); err != nil {
		return err
	}
	e, st, err := d.Accept(keys, c, receipt, t, officer.Recipients{UI: pluginUI(std)}, time.Now())
	return f.accepted(std, c, e, st, err)
}

func placeIn(p *escrow.Plan, who escrow.Officer) (uint16, bool) {
	for _, o := range p.Officers {
		if o.Person == who.Person {
			return o.Index, true
		}
	}
	return 0, false
}

// newcomer reads what an officer who is new needs of a key; nothing when no flag asks for it.
func newcomer(std stdio, keyRecord string, epochs []string, t escrow.Trust) (officer.KnownKey, error) {
	if keyRecord == "" {
		return officer.KnownKey{}, nil
	}
	if len(epochs) == 0 || t.Log == "" || len(t.Witnesses) == 0 {
		return officer.KnownKey{}, usagef("officer reshare accept: with --key-record give --epoch, --log and --witness")
	}
	if err := t.Check(); err != nil {
		return officer.KnownKey{}, usageError{err}
	}
	b, err := readFile(std, keyRecord)
	if err != nil {
		return officer.KnownKey{}, err
	}
	var known officer.KnownKey
	if known.Key, err = escrow.ParseKey(b); err != nil {
		return known, fmt.Errorf("%s: %w", keyRecord, err)
	}
	for _, name := range epochs {
		e, err := readEpoch(std, name)
		if err != nil {
			return known, err
		}
		known.Epochs = append(known.Epochs, e)
	}
	return known, nil
}

// accepted writes the new epoch and the attestation, or the complaint about a deal.
func (f officerFlags) accepted(std stdio, c *officer.Change, e *escrow.Epoch, st *escrow.Statement, err error) error {
	dir := outName(*f.out, ".")
	if merr := os.MkdirAll(dir, 0o700); merr != nil {
		return merr
	}
	if fault, ok := errors.AsType[*escrow.DealFault](err); ok && st != nil {
		name := filepath.Join(dir, fmt.Sprintf("complaint-%d-%d.deg1", fault.Dealer, st.Index))
		if werr := safefile.Create(name, st.Octets()); werr != nil {
			return werr
		}
		return fmt.Errorf("dealer %d: %w; your complaint is %s", fault.Dealer, err, name)
	}
	if err != nil {
		return policy(err)
	}
	record := filepath.Join(dir, fmt.Sprintf("epoch-%d.dee1", e.Number))
	if err := sameOrNew(record, e.Octets()); err != nil {
		return err
	}
	if !*f.json {
		fmt.Fprintf(std.out, "  epoch digest  %s\nwrote %s\n", hexDigest(e.Digest()), record)
	}
	return f.wrote(std, filepath.Join(dir, fmt.Sprintf("attest-%d-%d.deg1", e.Number, st.Index)), st, rowOf(c.Key, e))
}

// sameOrNew writes a file that others may have written before: then it must be the same.
func sameOrNew(path string, data []byte) error {
	err := safefile.Create(path, data)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	there, rerr := safefile.Read(path, len(data)+1)
	if rerr != nil {
		return rerr
	}
	if string(there) != string(data) {
		return fmt.Errorf("%s: another epoch record is there: were other deals used?", path)
	}
	return nil
}

func runReshareErase(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	epoch := fs.String("epoch", "", "record of the new epoch, `FILE`")
	f := newOfficerFlags(fs, true)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if *epoch == "" || len(rest) == 0 {
		return usagef("officer reshare erase: give --epoch, and the new officers' statements")
	}
	d, err := f.desk()
	if err != nil {
		return err
	}
	e, err := readEpoch(std, *epoch)
	if err != nil {
		return err
	}
	statements, err := readStatements(std, rest)
	if err != nil {
		return err
	}
	known, err := pickKey(d, hexDigest(e.Key))
	if err != nil {
		return err
	}
	row := rowOf(known.Key, e)
	if _, err := attestedRow(&row, e, statements); err != nil {
		return err
	}
	if !*f.json {
		row.print(std.out)
	}
	harden()
	keys, err := unlock(std, d, *f.passphrase)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	if err := confirm(std, *f.yes, "Your share of the epoch before is destroyed here. Have you destroyed every other copy of it?"); err != nil {
		return err
	}
	st, err := d.Erase(keys, e, statements, time.Now())
	if err != nil {
		return policy(err)
	}
	name := outName(*f.out, fmt.Sprintf("erased-%d-%d.deg1", e.Number-1, st.Index))
	return f.wrote(std, name, st, row)
}

// policy gives errors that are refusals by rule the exit code of such.
func policy(err error) error {
	for _, c := range []escrow.Class{escrow.ErrManifest, escrow.ErrQuorum, escrow.ErrSet} {
		if errors.Is(err, c) {
			return refusedError{err}
		}
	}
	return err
}

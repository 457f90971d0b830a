package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
)

var signetCommand = command{
	name:    "signet",
	summary: "look at signets: what they say, whether they hold, their fingerprints",
	sub: []command{
		{
			name: "show", summary: "print what a signet says, without checking its signatures",
			usage:   "[--json] FILE",
			example: "gateway signet show example.com.signet",
			run:     runSignetShow,
		},
		{
			name: "verify", summary: "check every signature of a signet or signing request",
			usage:   "[--json] [--pok KEY|FILE]... [--org FILE] [--previous FILE] [--name NAME] [--fingerprint F] FILE",
			example: "gateway signet verify --pok _dx.txt --org example.com.signet --name alice@example.com alice-example.com.signet",
			run:     runSignetVerify,
		},
		{
			name: "fingerprint", summary: "print the fingerprints of a signet",
			usage:   "[--json] [--form ssr|crypto|full|id] FILE",
			example: "gateway signet fingerprint --form crypto alice-example.com.signet",
			run:     runSignetFingerprint,
		},
		{
			name: "split", summary: "cut a signet to a lower form, whose signatures still hold",
			usage:   "[--json] [--form crypto|full] [--out FILE] FILE",
			example: "gateway signet split --form crypto --out alice.core.signet alice-example.com.signet",
			run:     runSignetSplit,
		},
		signetFetchCommand,
		signetRequestCommand,
	},
}

// oneOperand parses flags and returns the one file that a command is about.
func oneOperand(fs *flag.FlagSet, args []string) (string, error) {
	rest, err := parse(fs, args)
	if err != nil {
		return "", err
	}
	name := strings.TrimPrefix(fs.Name(), "gateway ")
	if len(rest) != 1 {
		return "", usagef("%s: give one file (- for standard input): see %q", name, fs.Name()+" --help")
	}
	return rest[0], nil
}

// A fault is an error in JSON: its class, and the line for people.
type fault struct {
	Class  string `json:"class,omitempty"`
	Reason string `json:"reason"`
}

func faultOf(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Reason: err.Error()}
	if c, ok := errors.AsType[key.Class](err); ok {
		f.Class = string(c)
	}
	return f
}

// printJSON writes v indented, as people read it too.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// failJSON prints the error of a file that cannot be read where JSON was asked for, and returns it.
func failJSON(std stdio, asJSON bool, file string, err error) error {
	if _, wrongUse := errors.AsType[usageError](err); asJSON && !wrongUse {
		return errors.Join(err, printJSON(std.out, struct {
			File  string `json:"file"`
			Valid bool   `json:"valid"`
			Error *fault `json:"error"`
		}{file, false, faultOf(err)}))
	}
	return err
}

// A fieldView is one field as show prints it.
type fieldView struct {
	ID     byte   `json:"id"`
	Title  string `json:"title"`
	Name   string `json:"name,omitempty"`
	Octets int    `json:"octets"`
	Text   string `json:"text,omitempty"`
	Data   string `json:"data"` // base64
	Signed bool   `json:"signed"`
}

// A signetView is what show prints.
type signetView struct {
	File         string            `json:"file"`
	Kind         string            `json:"kind"`
	Dialect      string            `json:"dialect"`
	Form         string            `json:"form"`
	Name         string            `json:"name,omitempty"`
	Octets       int               `json:"octets"`
	SigningKey   string            `json:"signing_key"`
	Encryption   string            `json:"encryption_key"`
	Secondary    []secondaryView   `json:"secondary_keys,omitempty"`
	Alternate    []string          `json:"alternate_keys,omitempty"`
	Custody      bool              `json:"custody"`
	Fields       []fieldView       `json:"fields"`
	Fingerprints map[string]string `json:"fingerprints"`
}

type secondaryView struct {
	Permissions []string `json:"permissions"`
	Key         string   `json:"key"`
}

func describeSignet(file string, s *signet.Signet) signetView {
	_, custody := s.Custody()
	v := signetView{
		File: file, Kind: s.Kind().String(), Dialect: s.Dialect().String(), Form: s.Form().String(), Name: s.Name(), Octets: s.Size(),
		SigningKey: s.SigningKey().String(), Encryption: encryptionText(s.EncryptionKey()), Custody: custody, Fingerprints: fingerprints(s),
	}
	for _, k := range s.SecondaryKeys() {
		v.Secondary = append(v.Secondary, secondaryView{permissionNames(k.Permissions), k.Key.String()})
	}
	for _, k := range s.AlternateKeys() {
		v.Alternate = append(v.Alternate, encryptionText(k))
	}
	for _, f := range s.Fields() {
		v.Fields = append(v.Fields, describeField(s.Kind(), f, true))
	}
	for _, f := range s.Unsigned() {
		v.Fields = append(v.Fields, describeField(s.Kind(), f, false))
	}
	return v
}

func encryptionText(k key.EncryptionPublic) string {
	b := k.Bytes()
	return base64.RawStdEncoding.EncodeToString(b[:])
}

func permissionNames(p signet.Permission) []string {
	names := []string{}
	for bit, name := range []string{"signets", "messages", "certificates", "software"} {
		if p&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func describeField(k signet.Kind, f signet.Field, signed bool) fieldView {
	v := fieldView{ID: f.ID, Title: signet.FieldTitle(k, f.ID), Name: f.Name, Octets: len(f.Value), Signed: signed,
		Data: base64.StdEncoding.EncodeToString(f.Value)}
	switch {
	case f.ID < signet.FieldName, f.ID == signet.FieldPhoto, f.ID == signet.FieldFullSignature, f.ID == signet.FieldFinalSignature:
	case utf8.Valid(f.Value):
		v.Text = string(f.Value)
	}
	return v
}

// fingerprints are those of every form of the signet's kind, as the reference gives them; form says which are signed.
func fingerprints(s *signet.Signet) map[string]string {
	all := make(map[string]string)
	for f := signet.Request; f <= signet.ID; f++ {
		if fp, err := s.Fingerprint(f); err == nil {
			all[f.String()] = fp.String()
		}
	}
	return all
}

func runSignetShow(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	s, err := readSignet(std, file)
	if err != nil {
		return failJSON(std, *asJSON, file, err)
	}
	v := describeSignet(file, s)
	if *asJSON {
		return printJSON(std.out, v)
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\tdialect %s, signed to the %s form, %d octets; signatures not checked\n", v.Kind, v.Dialect, v.Form, v.Octets)
	for _, f := range v.Fields {
		fmt.Fprintf(tw, "%3d %s\t%s%s\n", f.ID, f.Title, fieldText(f), map[bool]string{false: "  (no signature covers this)"}[f.Signed])
	}
	for f := signet.Request; f <= s.Form(); f++ {
		if fp, ok := v.Fingerprints[f.String()]; ok {
			fmt.Fprintf(tw, "fingerprint, %v\t%s\n", f, fp)
		}
	}
	return tw.Flush()
}

// fieldText is a field's value on one line, safe to print whatever it holds.
func fieldText(f fieldView) string {
	value := fmt.Sprintf("%d octets", f.Octets)
	switch {
	case f.Text != "":
		value = fmt.Sprintf("%q", f.Text)
	case f.Octets <= 2*key.SigningSize+1 && f.Octets > 0:
		value = f.Data
	}
	if f.Name != "" {
		return fmt.Sprintf("%q = %s", f.Name, value)
	}
	return value
}

// A verdict is what verify found.
type verdict struct {
	File     string `json:"file"`
	Kind     string `json:"kind"`
	Dialect  string `json:"dialect"`
	Form     string `json:"form"`
	Name     string `json:"name,omitempty"`
	Valid    bool   `json:"valid"`
	Anchored bool   `json:"anchored"` // the organization's key was compared with the management record's
	Custody  string `json:"custody"`  // none, unchecked, valid, broken
	Error    *fault `json:"error"`
}

// verifyFlags are the things that a signet can be held against.
type verifyFlags struct {
	poks                             list
	org, previous, name, fingerprint string
}

func runSignetVerify(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var f verifyFlags
	asJSON := fs.Bool("json", false, "print JSON")
	fs.Var(&f.poks, "pok", "the organization's primary `KEY` in base64, or a file with the management record or the key; may be repeated")
	fs.StringVar(&f.org, "org", "", "organizational signet `FILE`: needed for a user signet")
	fs.StringVar(&f.previous, "previous", "", "user signet `FILE` that this one must follow in the chain of custody")
	fs.StringVar(&f.name, "name", "", "domain or address that the signet must name")
	fs.StringVar(&f.fingerprint, "fingerprint", "", "fingerprint that one of the signet's forms must have")
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	s, err := readSignet(std, file)
	if err != nil {
		return failJSON(std, *asJSON, file, err)
	}
	v := verdict{File: file, Kind: s.Kind().String(), Dialect: s.Dialect().String(), Form: s.Form().String(), Name: s.Name(), Custody: "none"}
	if _, ok := s.Custody(); ok {
		v.Custody = "unchecked"
	}
	err = f.verify(std, s, &v)
	if _, wrongUse := errors.AsType[usageError](err); wrongUse {
		return err
	}
	v.Valid, v.Error = err == nil, faultOf(err)
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	if *asJSON {
		return errors.Join(err, printJSON(std.out, v))
	}
	if err == nil {
		v.print(std.out)
	}
	return err
}

func (v verdict) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s of dialect %s: every signature up to the %s form holds\n", v.File, v.Kind, v.Dialect, v.Form)
	if v.Name != "" {
		fmt.Fprintf(w, "it names %s\n", v.Name)
	}
	if v.Kind != signet.SSR.String() && !v.Anchored {
		fmt.Fprintln(w, "not anchored: the organization's key was compared with no management record: give --pok")
	}
	if v.Custody != "none" {
		fmt.Fprintf(w, "chain of custody: %s%s\n", v.Custody, map[string]string{"unchecked": ": give --previous"}[v.Custody])
	}
}

// verify holds s against everything that was given and fills the verdict.
func (f verifyFlags) verify(std stdio, s *signet.Signet, v *verdict) error {
	poks, err := f.keys(std)
	if err != nil {
		return err
	}
	switch s.Kind() {
	case signet.Org:
		if f.org != "" || f.previous != "" {
			return usagef("signet verify: --org and --previous are for user signets; %s is an organization's", v.File)
		}
		err = verifyOrg(s, poks)
	case signet.User:
		err = f.verifyUser(std, s, poks)
	default:
		err = s.VerifyRequest()
	}
	if err != nil {
		return err
	}
	v.Anchored = s.Kind() != signet.SSR && len(poks) > 0
	if f.previous != "" {
		previous, err := helperSignet(std, "previous", f.previous, signet.User)
		if err != nil {
			return err
		}
		v.Custody = "broken"
		if err := s.VerifyCustody(previous); err != nil {
			return err
		}
		v.Custody = "valid"
	}
	return f.compare(s)
}

func (f verifyFlags) keys(std stdio) (poks []key.SigningPublic, err error) {
	for _, what := range f.poks {
		more, err := readPOKs(std, what)
		if err != nil {
			return nil, err
		}
		poks = append(poks, more...)
	}
	return poks, nil
}

// verifyOrg checks an organizational signet under the keys given, or under its own when there are none.
func verifyOrg(s *signet.Signet, poks []key.SigningPublic) error {
	if len(poks) == 0 {
		poks = []key.SigningPublic{s.SigningKey()}
	}
	return s.VerifyOrg(poks)
}

func (f verifyFlags) verifyUser(std stdio, s *signet.Signet, poks []key.SigningPublic) error {
	if f.org == "" {
		return usagef("signet verify: a user signet is checked under its organization's: give --org FILE")
	}
	org, err := helperSignet(std, "org", f.org, signet.Org)
	if err != nil {
		return err
	}
	if err := verifyOrg(org, poks); err != nil {
		return fmt.Errorf("--org %s: %w", f.org, err)
	}
	return s.VerifyUser(org)
}

// compare holds the signet against the name and the fingerprint that were asked for.
func (f verifyFlags) compare(s *signet.Signet) error {
	if f.name != "" {
		if err := s.VerifyName(f.name); err != nil {
			return err
		}
	}
	if f.fingerprint == "" {
		return nil
	}
	want, err := signet.ParseFingerprint(strings.Trim(f.fingerprint, "[]"))
	if err != nil {
		return usagef("--fingerprint: %w", err)
	}
	for form := signet.Request; form <= s.Form(); form++ {
		if fp, err := s.Fingerprint(form); err == nil && fp.Equal(want) {
			return nil
		}
	}
	return errors.New("none of its forms has this fingerprint: it is another signet, or another version")
}

// formByName reads --form; the zero form for an empty name.
func formByName(name string) (signet.Form, error) {
	if name == "" {
		return 0, nil
	}
	for f := signet.Request; f <= signet.ID; f++ {
		if f.String() == name {
			return f, nil
		}
	}
	return 0, usagef("--form: not one of ssr, crypto, full, id")
}

func runSignetFingerprint(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	formName := fs.String("form", "", "print that of one `FORM` alone: ssr, crypto, full, id")
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	form, err := formByName(*formName)
	if err != nil {
		return err
	}
	s, err := readSignet(std, file)
	if err != nil {
		return failJSON(std, *asJSON, file, err)
	}
	all := fingerprints(s)
	if form != 0 {
		fp, ok := all[form.String()]
		if !ok {
			return usagef("%s: a %s has no %v form", file, s.Kind(), form)
		}
		all = map[string]string{form.String(): fp}
	}
	if *asJSON {
		return printJSON(std.out, struct {
			File         string            `json:"file"`
			Kind         string            `json:"kind"`
			Form         string            `json:"form"`
			Fingerprints map[string]string `json:"fingerprints"`
		}{file, s.Kind().String(), s.Form().String(), all})
	}
	if form != 0 {
		fmt.Fprintln(std.out, all[form.String()])
		return nil
	}
	for f := signet.Request; f <= s.Form(); f++ {
		if fp, ok := all[f.String()]; ok {
			fmt.Fprintf(std.out, "%-6v  %s\n", f, fp)
		}
	}
	return nil
}

// A piece is a signet cut to one form.
type piece struct {
	Form        string `json:"form"`
	Octets      int    `json:"octets"`
	Fingerprint string `json:"fingerprint"`
	Signet      string `json:"signet"` // base64 of the binary form
	cut         *signet.Signet
}

func runSignetSplit(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	formName := fs.String("form", "", "cut to this `FORM`, crypto or full; all lower forms when it is left out")
	out := fs.String("out", "", "write to `FILE` instead of standard output")
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	form, err := formByName(*formName)
	if err != nil {
		return err
	}
	if form == 0 && *out != "" {
		return usagef("signet split: --out takes one form: give --form too")
	}
	s, err := readSignet(std, file)
	if err != nil {
		return failJSON(std, *asJSON, file, err)
	}
	pieces, err := cutForms(s, form)
	if err != nil {
		return failJSON(std, *asJSON, file, fmt.Errorf("%s: %w", file, err))
	}
	if *out != "" {
		if err := safefile.Write(*out, pieces[0].cut.Armored()); err != nil {
			return usagef("--out: %w", err)
		}
	}
	if *asJSON {
		return printJSON(std.out, struct {
			File   string  `json:"file"`
			Splits []piece `json:"splits"`
		}{file, pieces})
	}
	if *out != "" {
		return nil
	}
	var text bytes.Buffer
	for _, p := range pieces {
		text.Write(p.cut.Armored())
	}
	_, err = text.WriteTo(std.out)
	return err
}

// cutForms cuts to one form, or to all below the signet's own.
func cutForms(s *signet.Signet, form signet.Form) ([]piece, error) {
	forms := []signet.Form{form}
	if form == 0 {
		forms = forms[:0]
		for f := signet.Crypto; f < s.Form(); f++ {
			forms = append(forms, f)
		}
		if len(forms) == 0 {
			return nil, fmt.Errorf("no lower form: this %s is signed to its %v form alone", s.Kind(), s.Form())
		}
	}
	var pieces []piece
	for _, f := range forms {
		cut, err := s.Cut(f)
		if err != nil {
			return nil, err
		}
		fp, err := cut.Fingerprint(f)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, piece{f.String(), cut.Size(), fp.String(), cut.Base64(), cut})
	}
	return pieces, nil
}

package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

var recordCommand = command{
	name:    "record",
	summary: "check and make management records, the TXT record at _dx.<domain>",
	sub: []command{
		{
			name: "parse", summary: "check a record and print what it says",
			usage:   "[--json] [--quoted] [--certificate FILE] TEXT|FILE",
			example: "dig +short TXT _dx.example.com | gateway record parse --quoted -",
			run:     runRecordParse,
		},
		{
			name: "make", summary: "make a record, ready to paste into a zone",
			usage: "[--json] --pok FILE|KEY... [--tls FILE]... [--dx HOST]... [--policy P] [--sub S] [--expiry DAYS] [--domain NAME]",
			example: "gateway record make --domain example.com --pok example.com.key --tls /etc/dimegate/dx.crt --dx dx.example.com " +
				"--policy mixed",
			run: runRecordMake,
		},
	},
}

// A recordView is a record in JSON.
type recordView struct {
	Valid       bool     `json:"valid"`
	Version     int      `json:"version,omitempty"`
	POK         []string `json:"pok,omitempty"`
	TLS         []string `json:"tls,omitempty"`
	Policy      string   `json:"policy,omitempty"`
	Subdomain   string   `json:"subdomain,omitempty"`
	DX          []string `json:"dx,omitempty"`
	Expiry      int      `json:"expiry,omitempty"` // days; left out when the record does not say
	Syndicates  string   `json:"syndicates,omitempty"`
	Text        string   `json:"text,omitempty"`
	Strings     []string `json:"strings,omitempty"`
	Zone        string   `json:"zone,omitempty"`
	Certificate *bool    `json:"certificate_matches,omitempty"`
	Error       *fault   `json:"error"`
}

func describeRecord(r *record.Record) recordView {
	v := recordView{
		Valid: true, Version: 1, Policy: r.Policy.String(), Subdomain: r.Subdomain.String(), DX: r.DX, Expiry: r.Expiry,
		Syndicates: r.Syndicates, Text: r.Text(), Strings: record.Strings(r.Text()),
	}
	for _, k := range r.POKs {
		v.POK = append(v.POK, k.String())
	}
	for _, sig := range r.TLS {
		v.TLS = append(v.TLS, base64.RawStdEncoding.EncodeToString(sig[:]))
	}
	return v
}

func runRecordParse(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	quoted := fs.Bool("quoted", false, "the text is in quoted strings, as dig and zone files write it: join them")
	certificate := fs.String("certificate", "", "mail exchange certificate `FILE`, PEM or DER, that a tls field must match")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	text, from, err := recordText(std, rest, *quoted)
	if err != nil {
		return err
	}
	r, err := record.Parse(text)
	if err != nil {
		if strings.HasPrefix(text, `"`) {
			err = fmt.Errorf("%w: for quoted strings give --quoted", err)
		}
		return recordFault(std, *asJSON, recordView{}, fmt.Errorf("%sno management record: %w", from, err))
	}
	v := describeRecord(r)
	if *certificate != "" {
		der, err := readCertificate(std, *certificate)
		if err != nil {
			return err
		}
		match := r.MatchesCertificate(der)
		v.Certificate = &match
		if !match {
			return recordFault(std, *asJSON, v, fmt.Errorf("%s: no tls field of the record is a primary key's signature of this certificate", *certificate))
		}
	}
	if *asJSON {
		return printJSON(std.out, v)
	}
	return v.print(std)
}

// recordFault prints JSON where it was asked for, and returns the error for the exit code.
func recordFault(std stdio, asJSON bool, v recordView, err error) error {
	if !asJSON {
		return err
	}
	v.Valid, v.Error = false, faultOf(err)
	if c, ok := errors.AsType[record.Class](err); ok {
		v.Error.Class = string(c)
	}
	return errors.Join(err, printJSON(std.out, v))
}

func (v recordView) print(std stdio) error {
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, k := range v.POK {
		fmt.Fprintf(tw, "primary key\t%s\n", k)
	}
	for _, s := range v.TLS {
		fmt.Fprintf(tw, "certificate signature\t%s\n", s)
	}
	fmt.Fprintf(tw, "policy\t%s\nsubdomains\t%s\n", v.Policy, v.Subdomain)
	for _, h := range v.DX {
		fmt.Fprintf(tw, "mail exchange\t%s\n", h)
	}
	if v.Expiry != 0 {
		fmt.Fprintf(tw, "copies may be used\t%d days\n", v.Expiry)
	} else {
		fmt.Fprintf(tw, "copies may be used\t%d days (not said: the default)\n", record.DefaultExpiry)
	}
	if v.Syndicates != "" {
		fmt.Fprintf(tw, "syndicates\t%q\n", v.Syndicates)
	}
	if v.Certificate != nil {
		fmt.Fprintf(tw, "certificate\tmatches\n")
	}
	return tw.Flush()
}

// recordText is the text of a record and, for messages, where it is from: the operands themselves, or the first line with
// anything on it of a file or of standard input. Quoted texts are those of a whole file: one a line, of which one is a record, or
// one in brackets.
func recordText(std stdio, operands []string, quoted bool) (text, from string, err error) {
	if len(operands) == 0 {
		return "", "", usagef("record parse: give the record's text or a file (- for standard input): see %q", "gateway record parse --help")
	}
	text = strings.Join(operands, " ")
	if _, err := os.Stat(text); err == nil || !strings.Contains(text, "=") && len(operands) == 1 {
		b, err := readFile(std, text)
		if err != nil {
			return "", "", err
		}
		from, text = text+": ", string(b)
	}
	if quoted {
		text, err = selectQuoted(text)
		if err != nil {
			return "", "", fmt.Errorf("%s%w", from, err)
		}
		return text, from, nil
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			return line, from, nil
		}
	}
	return "", "", usagef("%snothing in it: give the record's text", from)
}

func selectQuoted(text string) (string, error) {
	if before, _, ok := strings.Cut(text, "("); ok && strings.Count(before, `"`)%2 == 0 {
		return unquote(text), nil
	}
	var texts []string
	for line := range strings.Lines(text) {
		texts = append(texts, unquote(line))
	}
	return record.Select(texts)
}

// unquote joins the quoted strings of a text, as they stand in zone files; a text without quotes stays as it is.
func unquote(text string) string {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, `"`) {
		return text
	}
	var out strings.Builder
	inside := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inside = !inside
		case c == '\\' && inside && i+1 < len(text):
			i++
			out.WriteByte(text[i])
		case inside:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// quote writes strings as a zone file does.
func quote(strs []string) string {
	var out []string
	for _, s := range strs {
		out = append(out, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)+`"`)
	}
	return strings.Join(out, " ")
}

// readCertificate returns the DER of the first certificate in a PEM or DER file.
func readCertificate(std stdio, name string) ([]byte, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	der := b
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			der = block.Bytes
			break
		}
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return nil, usagef("%s: no certificate: give the mail exchange's own, in PEM (first in the file) or DER", name)
	}
	return der, nil
}

// recordFlags are what a record is made of.
type recordFlags struct {
	poks, certificates, dx          list
	policy, sub, syndicates, domain string
	expiry                          int
}

func runRecordMake(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var f recordFlags
	asJSON := fs.Bool("json", false, "print JSON")
	fs.Var(&f.poks, "pok", "primary key: a private key `FILE`, or a public key in base64; may be repeated, the one that signs first")
	fs.Var(&f.certificates, "tls", "sign this mail exchange certificate `FILE`, PEM or DER, with the first --pok; may be repeated")
	fs.Var(&f.dx, "dx", "mail exchange `HOST`; may be repeated, in the order in which to try them")
	fs.StringVar(&f.policy, "policy", "experimental", "what is wanted of senders: experimental, mixed or strict")
	fs.StringVar(&f.sub, "sub", "strict", "what holds for subdomains: strict, relaxed or explicit")
	fs.IntVar(&f.expiry, "expiry", 0, "`DAYS` that a copy may be used, 1 to 3650; 0 leaves it out, which means 30")
	fs.StringVar(&f.syndicates, "syndicates", "", "opaque `TEXT`")
	fs.StringVar(&f.domain, "domain", "", "`DOMAIN` of the record, for the zone file line")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("record make: takes no operand: see %q", "gateway record make --help")
	}
	r, err := f.record(std)
	if err != nil {
		return err
	}
	if _, err := r.Make(); err != nil {
		return usagef("record make: %w", err)
	}
	v := describeRecord(r)
	owner := record.Label
	if f.domain != "" {
		owner += "." + strings.TrimSuffix(f.domain, ".") + "."
	}
	v.Zone = fmt.Sprintf("%s 3600 IN TXT ( %s )", owner, quote(v.Strings))
	if *asJSON {
		return printJSON(std.out, v)
	}
	fmt.Fprintf(std.out, "%s\n\n%s\n", v.Text, v.Zone)
	return nil
}

// record fills a record from the flags and signs the certificates.
func (f recordFlags) record(std stdio) (*record.Record, error) {
	if len(f.poks) == 0 {
		return nil, usagef("record make: give at least one --pok")
	}
	if f.domain != "" && !signet.ValidDomain(strings.TrimSuffix(f.domain, ".")) {
		return nil, usagef("--domain: not a domain name (write others than ASCII as xn--)")
	}
	r := &record.Record{DX: f.dx, Expiry: f.expiry, Syndicates: f.syndicates}
	for _, what := range f.poks {
		keys, err := readPOKs(std, what)
		if err != nil {
			return nil, err
		}
		r.POKs = append(r.POKs, keys...)
	}
	var err error
	if r.Policy, err = record.ParsePolicy(f.policy); err != nil {
		return nil, usagef("--policy: %w", err)
	}
	if r.Subdomain, err = record.ParseSubdomain(f.sub); err != nil {
		return nil, usagef("--sub: %w", err)
	}
	if len(f.certificates) > 0 {
		r.TLS, err = signCertificates(std, f.poks[0], f.certificates)
	}
	return r, err
}

func signCertificates(std stdio, keyFile string, certificates []string) (signatures [][key.SignatureSize]byte, err error) {
	pok, err := readSigning(std, keyFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--tls needs the private key in the first --pok: %w", err)}
	}
	defer pok.Destroy()
	for _, file := range certificates {
		der, err := readCertificate(std, file)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, record.SignCertificate(pok, der))
	}
	return signatures, nil
}

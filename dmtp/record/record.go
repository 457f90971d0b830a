// Package record reads, checks and makes DIME management records: the text at _dx.<domain> that says which keys speak for
// a domain, where its mail exchange is and what it wants of senders. Octets in, octets out; the look-up is elsewhere. The
// record itself is signed by nobody: DNSSEC alone protects it.
package record

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dimegate/dmtp/key"
)

// Label is what stands before the domain in the name of its record.
const Label = "_dx"

// Limits of what is read and written.
const (
	MaxText   = 4096 // octets of a record, its strings joined
	MaxPOKs   = 8
	MaxTLS    = 32
	MaxDX     = 16
	MaxExpiry = 3650 // days
)

// DefaultExpiry is how many days a record may be used that says nothing of it.
const DefaultExpiry = 30

// A Class is the kind of fault in a record; it is an error, so that errors.Is finds it.
type Class string

func (c Class) Error() string { return "management record: " + string(c) }

const (
	ErrMalformed Class = "malformed"
	ErrBadChar   Class = "bad-char" // an octet outside printable ASCII
	ErrVersion   Class = "unsupported-version"
	ErrMissing   Class = "missing-mandatory" // no pok
	ErrLength    Class = "bad-length"
	ErrBase64    Class = "bad-base64"
	ErrKey       Class = "bad-key"
	ErrValue     Class = "bad-value"
	ErrDuplicate Class = "duplicate-field"
	ErrTooMany   Class = "too-many"
	ErrTooLarge  Class = "too-large"
	ErrAmbiguous Class = "ambiguous-record" // several candidates at one name
	ErrNone      Class = "no-record"        // none
)

// A SyntaxError says which field of a record is wrong. It does not quote values.
type SyntaxError struct {
	Class  Class
	Field  string // its short name, or nothing
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", string(e.Class), e.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", string(e.Class), e.Field, e.Reason)
}

func (e *SyntaxError) Unwrap() error { return e.Class }

func syntaxf(c Class, field, format string, a ...any) error {
	return &SyntaxError{Class: c, Field: field, Reason: fmt.Sprintf(format, a...)}
}

// A Policy is what a domain wants of those who write to it (pol).
type Policy uint8

const (
	Experimental Policy = iota // DIME where it works, else ordinary mail: the default
	Mixed                      // DIME for who has a signet, ordinary mail for who has none for sure
	Strict                     // DIME alone
)

var policies = []string{"experimental", "mixed", "strict"}

func (p Policy) String() string { return nameOf(policies, int(p)) }

// ParsePolicy reads what String writes, in any letter case.
func ParsePolicy(name string) (Policy, error) {
	i, err := find(policies, "pol", name)
	return Policy(i), err
}

// A Subdomain is what a record says of the domains below its own (sub). The reference never acts on it, nor do we: a record
// speaks for its own name.
type Subdomain uint8

const (
	SubStrict   Subdomain = iota // the record speaks for all below: the default
	SubRelaxed                   // for those below that have none
	SubExplicit                  // for its own name alone
)

var subdomains = []string{"strict", "relaxed", "explicit"}

func (s Subdomain) String() string { return nameOf(subdomains, int(s)) }

// ParseSubdomain reads what String writes, in any letter case.
func ParseSubdomain(name string) (Subdomain, error) {
	i, err := find(subdomains, "sub", name)
	return Subdomain(i), err
}

func nameOf(names []string, i int) string {
	if i >= len(names) {
		return "?"
	}
	return names[i]
}

func find(names []string, field, name string) (int, error) {
	i := slices.IndexFunc(names, func(n string) bool { return equalFold(n, name) })
	if i < 0 {
		return 0, syntaxf(ErrValue, field, "not one of %s", strings.Join(names, ", "))
	}
	return i, nil
}

// A Record is one management record, version 1.
type Record struct {
	POKs       []key.SigningPublic // at least one; the one that signs now is the first
	TLS        [][64]byte          // signatures of mail exchange certificates, see SignCertificate; libdime looks at the first alone
	Policy     Policy
	Subdomain  Subdomain
	DX         []string // mail exchanges, in the order in which to try them
	Expiry     int      // days that a copy may be used; 0 is not said: DefaultExpiry
	Syndicates string   // opaque; its syntax was never defined
}

// ExpiryDays is Expiry, or the default where it is not said.
func (r *Record) ExpiryDays() int {
	if r.Expiry == 0 {
		return DefaultExpiry
	}
	return r.Expiry
}

// A field is one row of the record's grammar.
type field struct {
	name, alias string
	many        bool
	set         func(r *Record, value string) error
	values      func(r *Record) []string // as written; none leaves the field out
}

// fields is the grammar, in the order in which the reference's generator writes.
var fields = []field{
	{"ver", "version", false, setVersion, func(*Record) []string { return []string{"1"} }},
	{"pok", "primary", true, addPOK, func(r *Record) []string { return each(r.POKs, key.SigningPublic.String) }},
	{"tls", "", true, addTLS, func(r *Record) []string { return each(r.TLS, encodeSignature) }},
	{"pol", "policy", false, setPolicy, func(r *Record) []string { return []string{r.Policy.String()} }},
	{"syn", "syndicates", false, setSyndicates, func(r *Record) []string { return optional(r.Syndicates) }},
	{"dx", "deliver", true, addDX, func(r *Record) []string { return r.DX }},
	{"exp", "expiry", false, setExpiry, func(r *Record) []string {
		if r.Expiry == 0 {
			return nil
		}
		return []string{strconv.Itoa(r.Expiry)}
	}},
	{"sub", "subdomain", false, setSubdomain, func(r *Record) []string { return []string{r.Subdomain.String()} }},
}

func each[T any](list []T, text func(T) string) []string {
	var out []string
	for _, v := range list {
		out = append(out, text(v))
	}
	return out
}

func optional(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func encodeSignature(sig [64]byte) string { return base64.RawStdEncoding.EncodeToString(sig[:]) }

// Parse reads the text of a record, its strings joined with nothing between. Fields stand in any order and letter case,
// apart by blanks or semicolons; those with unknown names are ignored. What libdime reads by accident is refused: a field
// twice, a token without "=", a version that only begins with 1, keys that are no keys. Errors are SyntaxErrors.
func Parse(text string) (*Record, error) {
	if len(text) > MaxText {
		return nil, syntaxf(ErrTooLarge, "", "%d octets, of at most %d", len(text), MaxText)
	}
	if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
		return nil, syntaxf(ErrBadChar, "", "octet %d is not printable ASCII", i)
	}
	tokens := strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ';' })
	if len(tokens) == 0 {
		return nil, syntaxf(ErrMalformed, "", "an empty record")
	}
	r := &Record{}
	seen := make(map[string]bool)
	for _, token := range tokens {
		f, value, err := parseToken(token)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue
		}
		if seen[f.name] && !f.many {
			return nil, syntaxf(ErrDuplicate, f.name, "given twice")
		}
		seen[f.name] = true
		if err := f.set(r, value); err != nil {
			return nil, err
		}
	}
	if len(r.POKs) == 0 {
		return nil, syntaxf(ErrMissing, "pok", "a record needs a primary key")
	}
	return r, nil
}

// parseToken splits a token; f is nil when its name is unknown.
func parseToken(token string) (f *field, value string, err error) {
	name, value, ok := strings.Cut(token, "=")
	if !ok || name == "" || value == "" {
		return nil, "", syntaxf(ErrMalformed, "", "a token that is not name=value")
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) {
			return nil, "", syntaxf(ErrMalformed, "", "a name that is not letters and digits")
		}
	}
	i := slices.IndexFunc(fields, func(f field) bool {
		return equalFold(f.name, name) || f.alias != "" && equalFold(f.alias, name)
	})
	if i >= 0 {
		f = &fields[i]
	}
	if strings.Contains(value, "=") {
		if f != nil && (f.name == "pok" || f.name == "tls") && !strings.Contains(strings.TrimRight(value, "="), "=") {
			return nil, "", syntaxf(ErrBase64, f.name, "written with padding")
		}
		return nil, "", syntaxf(ErrMalformed, "", "a token with two equals signs")
	}
	return f, value, nil
}

func setVersion(_ *Record, v string) error {
	if v != "1" {
		return syntaxf(ErrVersion, "ver", "not 1")
	}
	return nil
}

func addPOK(r *Record, v string) error {
	b, err := decode("pok", v, key.SigningSize)
	if err != nil {
		return err
	}
	pok, err := key.ParseSigningPublic(b)
	switch {
	case err != nil:
		return syntaxf(ErrKey, "pok", "not an Ed25519 key to trust")
	case slices.Contains(r.POKs, pok):
		return syntaxf(ErrDuplicate, "pok", "the same key twice")
	case len(r.POKs) == MaxPOKs:
		return syntaxf(ErrTooMany, "pok", "more than %d", MaxPOKs)
	}
	r.POKs = append(r.POKs, pok)
	return nil
}

func addTLS(r *Record, v string) error {
	b, err := decode("tls", v, key.SignatureSize)
	switch {
	case err != nil:
		return err
	case slices.Contains(r.TLS, [64]byte(b)):
		return syntaxf(ErrDuplicate, "tls", "the same signature twice")
	case len(r.TLS) == MaxTLS:
		return syntaxf(ErrTooMany, "tls", "more than %d", MaxTLS)
	}
	r.TLS = append(r.TLS, [64]byte(b))
	return nil
}

// decode reads base64 without padding of exactly n octets.
func decode(field, v string, n int) ([]byte, error) {
	if len(v) != base64.RawStdEncoding.EncodedLen(n) {
		return nil, syntaxf(ErrLength, field, "%d characters, not %d", len(v), base64.RawStdEncoding.EncodedLen(n))
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(v)
	if err != nil || len(b) != n {
		return nil, syntaxf(ErrBase64, field, "not base64 of %d octets", n)
	}
	return b, nil
}

func setPolicy(r *Record, v string) (err error) {
	r.Policy, err = ParsePolicy(v)
	return err
}

func setSubdomain(r *Record, v string) (err error) {
	r.Subdomain, err = ParseSubdomain(v)
	return err
}

func setSyndicates(r *Record, v string) error {
	r.Syndicates = v
	return nil
}

func addDX(r *Record, v string) error {
	switch {
	case !ValidHost(v):
		return syntaxf(ErrValue, "dx", "not a host name")
	case slices.ContainsFunc(r.DX, func(h string) bool { return equalFold(h, v) }):
		return syntaxf(ErrDuplicate, "dx", "the same host twice")
	case len(r.DX) == MaxDX:
		return syntaxf(ErrTooMany, "dx", "more than %d", MaxDX)
	}
	r.DX = append(r.DX, v)
	return nil
}

func setExpiry(r *Record, v string) error {
	n := 0
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' || i >= 4 {
			return syntaxf(ErrValue, "exp", "not one to four digits")
		}
		n = 10*n + int(v[i]-'0')
	}
	if n < 1 || n > MaxExpiry {
		return syntaxf(ErrValue, "exp", "not 1 to %d days", MaxExpiry)
	}
	r.Expiry = n
	return nil
}

// ValidHost reports whether name is a host name: labels of letters, digits and inner hyphens, no port, no final dot, and no
// IP address.
func ValidHost(name string) bool {
	if len(name) > 253 {
		return false
	}
	digits := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		digits = true
		for i := range len(label) {
			if c := label[i]; !alphanumeric(c) && c != '-' {
				return false
			}
			digits = digits && label[i] >= '0' && label[i] <= '9'
		}
	}
	return !digits // the last label of a host name is not a number (RFC 1123 §2.1)
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// equalFold compares ASCII without regard to case, and nothing else: no letter of another alphabet equals an ASCII one.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || !alphanumeric(x) || !alphanumeric(y)) {
			return false
		}
	}
	return true
}

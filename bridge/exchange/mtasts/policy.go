// Package mtasts is the sender's side of SMTP MTA Strict Transport Security (RFC 8461): the record that says that a domain
// has a policy, the policy, and the cache that keeps a policy in force when an attacker hides it.
package mtasts

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"dimegate/dmtp"
)

// Bounds of RFC 8461 §3.2 and §3.3, and ours.
const (
	maxPolicy = 64 << 10
	maxAge    = 31557600 * time.Second
	maxHosts  = 1000
)

// A Mode is what a policy asks of a sender.
type Mode string

const (
	Enforce Mode = "enforce" // only to hosts that the policy names, with certificates that hold
	Testing Mode = "testing" // the same is only reported
	None    Mode = "none"    // the domain has no policy any more
)

// A Policy is what a domain publishes at https://mta-sts.DOMAIN/.well-known/mta-sts.txt.
type Policy struct {
	Mode   Mode
	MaxAge time.Duration
	Hosts  []string // patterns, lower case: a name, or "*." and a name for one label more
	Lines  []string // as published, for reports
}

// ErrPolicy says that a policy cannot be read.
var ErrPolicy = errors.New("mtasts: the policy is not one of RFC 8461")

// ParsePolicy reads a policy (RFC 8461 §3.2). Of a field that may stand once the first counts, unknown ones are passed over.
func ParsePolicy(text string) (*Policy, error) {
	if len(text) > maxPolicy || !utf8.ValidString(text) {
		return nil, ErrPolicy
	}
	p := &Policy{}
	first := map[string]string{}
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if line = strings.TrimRight(line, " \t"); line == "" {
			continue // editors leave them, and a policy that we do not read protects nobody
		}
		key, value, ok := strings.Cut(line, ":")
		value = strings.TrimLeft(value, " \t")
		if !ok || !isKey(key) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, ErrPolicy
		}
		p.Lines = append(p.Lines, line)
		if key == "mx" {
			host, ok := pattern(value)
			if !ok || len(p.Hosts) == maxHosts {
				return nil, ErrPolicy
			}
			p.Hosts = append(p.Hosts, host)
		} else if _, again := first[key]; !again {
			first[key] = value
		}
	}
	if first["version"] != "STSv1" || len(first["max_age"]) > 10 {
		return nil, ErrPolicy
	}
	seconds, err := strconv.ParseUint(first["max_age"], 10, 63)
	if err != nil {
		return nil, ErrPolicy
	}
	p.MaxAge = min(time.Duration(min(seconds, uint64(maxAge/time.Second)))*time.Second, maxAge)
	switch p.Mode = Mode(first["mode"]); p.Mode {
	case None:
	case Enforce, Testing:
		if len(p.Hosts) == 0 {
			return nil, ErrPolicy
		}
	default:
		return nil, ErrPolicy
	}
	return p, nil
}

// isKey is the name of a field of a policy or of a record.
func isKey(s string) bool {
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

func pattern(s string) (string, bool) {
	name, wild := strings.CutPrefix(s, "*.")
	name, err := dmtp.Domain(name)
	if err != nil {
		return "", false
	}
	if wild {
		name = "*." + name
	}
	return name, true
}

// Names tells whether the policy names a host (RFC 8461 §4.1): a "*" stands for one whole label.
func (p *Policy) Names(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, above, _ := strings.Cut(host, ".")
	for _, h := range p.Hosts {
		if h == host || above != "" && h == "*."+above {
			return true
		}
	}
	return false
}

// parseRecord reads the TXT records at _mta-sts.DOMAIN and returns the id of the one that says so (RFC 8461 §3.1). Those that
// are of something else are passed over; two, or one that cannot be read, are as good as none.
func parseRecord(texts []string) (id string, ok bool) {
	n := 0
	for _, t := range texts {
		rest, ours := strings.CutPrefix(t, "v=STSv1")
		rest = strings.TrimLeft(rest, " \t")
		if !ours || rest != "" && rest[0] != ';' {
			continue
		}
		n++
		id, ok = recordID(rest)
	}
	return id, ok && n == 1
}

// recordID reads the fields behind the version.
func recordID(rest string) (id string, ok bool) {
	fields := strings.Split(rest, ";")[1:]
	for i, f := range fields {
		f = strings.Trim(f, " \t")
		if f == "" && i == len(fields)-1 && i > 0 {
			break
		}
		key, value, eq := strings.Cut(f, "=")
		if !eq || !isKey(key) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' }) {
			return "", false
		}
		if key == "id" && id == "" {
			if len(value) > 32 || strings.ContainsAny(value, "_-.") || !isKey(value) {
				return "", false
			}
			id = value
		}
	}
	return id, id != ""
}

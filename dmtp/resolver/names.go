package resolver

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"dimegate/dmtp"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// ErrBadName is a domain or an address that cannot be looked up.
var ErrBadName = errors.New("not a domain name or address that can be looked up")

// NormalDomain returns a mail domain as it is looked up and compared: ASCII lower case, A-labels, no dot at the end.
func NormalDomain(domain string) (string, error) {
	d := strings.TrimSuffix(domain, ".")
	if len(d) > 1024 || !utf8.ValidString(d) {
		return "", ErrBadName
	}
	if !isASCII(d) {
		a, err := idna.Lookup.ToASCII(d)
		if err != nil {
			return "", ErrBadName
		}
		d = a
	}
	d, err := dmtp.Domain(d)
	if err != nil || len(d) > 253-len(recordPrefix) {
		return "", ErrBadName
	}
	return d, nil
}

// NormalAddress returns an address as signets name it, both parts in ASCII lower case, and its domain.
func NormalAddress(address string) (normal, domain string, err error) {
	local, dom, ok := strings.Cut(address, "@")
	if !ok {
		return "", "", ErrBadName
	}
	if domain, err = NormalDomain(dom); err != nil {
		return "", "", err
	}
	if normal, err = dmtp.Address(local + "@" + domain); err != nil {
		return "", "", ErrBadName
	}
	return normal, domain, nil
}

// lower is ASCII lower case: what lies outside ASCII stays.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// wireLabels returns the labels of a canonical name, the rightmost first and without the root, in their wire octets.
func wireLabels(name string) [][]byte {
	var buf [256]byte
	end, err := dns.PackDomainName(dns.CanonicalName(name), buf[:], 0, nil, false)
	if err != nil {
		return nil
	}
	var labels [][]byte
	for off := 0; off < end && buf[off] != 0; off += 1 + int(buf[off]) {
		l := buf[off+1 : off+1+int(buf[off])]
		labels = append(labels, bytes.ToLower(l)) // \DDD forms of upper case are escapes to CanonicalName
	}
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return labels
}

// compareNames orders names canonically (RFC 4034 §6.1).
func compareNames(a, b string) int {
	la, lb := wireLabels(a), wireLabels(b)
	for i := range min(len(la), len(lb)) {
		if c := bytes.Compare(la[i], lb[i]); c != 0 {
			return c
		}
	}
	return len(la) - len(lb)
}

// lastLabels returns the n rightmost labels of name; the root for none.
func lastLabels(name string, n int) string {
	idx := dns.Split(name)
	if n <= 0 || len(idx) == 0 {
		return "."
	}
	if n >= len(idx) {
		return name
	}
	return name[idx[len(idx)-n]:]
}

// parent returns name without its first label.
func parent(name string) string { return lastLabels(name, dns.CountLabel(name)-1) }

// wildcardOf returns the wildcard name right under name.
func wildcardOf(name string) string {
	if name == "." {
		return "*."
	}
	return "*." + name
}

package signet

import "strings"

// validName reports whether an identifier is a domain (organizational signets) or an address (user signets).
func validName(k Kind, name string) bool {
	if k == Org {
		return ValidDomain(name)
	}
	return ValidAddress(name)
}

// ValidDomain reports whether name is a domain that DIME can name: labels of letters, digits and inner hyphens, A-labels
// for all else, no final dot, at most 253 octets.
func ValidDomain(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// ValidAddress reports whether name is an address that DIME can name: a local part of dotted atoms (RFC 5321 §4.1.2), at
// most 64 octets, and a domain. Quoted local parts, address literals and UTF-8 have no form in DMTP.
func ValidAddress(name string) bool {
	local, domain, ok := strings.Cut(name, "@")
	if !ok || len(local) > 64 || !ValidDomain(domain) {
		return false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if c := atom[i]; !alphanumeric(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 {
				return false
			}
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// SameName compares domains or addresses as DIME does: without regard to ASCII case, in the local part too.
func SameName(a, b string) bool { return lower(a) == lower(b) }

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

package dmtp

import (
	"errors"
	"strings"
)

// Limits of names, RFC 1035 §2.3.4 and RFC 5321 §4.5.3.1.
const (
	maxDomain = 253
	maxLabel  = 63
	maxLocal  = 64
)

// ErrName says that a domain or an address is outside what DMTP can carry.
var ErrName = errors.New("dmtp: not a domain or address")

// Domain checks a domain and returns it in lower case, the form in which names are compared. Labels are letters, digits and
// hyphens; other scripts come as A-labels. A trailing dot is refused.
func Domain(s string) (string, error) {
	if len(s) == 0 || len(s) > maxDomain {
		return "", ErrName
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > maxLabel || strings.ContainsFunc(label, notLDH) {
			return "", ErrName
		}
	}
	return lower(s), nil
}

// Address checks an address, local@domain with an unquoted ASCII local part, and returns it in lower case: domain and
// local part alike.
func Address(s string) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(local) == 0 || len(local) > maxLocal {
		return "", ErrName
	}
	for atom := range strings.SplitSeq(local, ".") {
		if len(atom) == 0 || strings.ContainsFunc(atom, notAtext) {
			return "", ErrName
		}
	}
	if _, err := Domain(domain); err != nil {
		return "", err
	}
	return lower(s), nil
}

// Name checks what SGNT, HIST and VRFY ask about, a domain or an address, and returns it in lower case.
func Name(s string) (string, error) {
	if IsAddress(s) {
		return Address(s)
	}
	return Domain(s)
}

// IsAddress tells addresses from domains among names that Name passed.
func IsAddress(name string) bool { return strings.Contains(name, "@") }

// DomainOf returns the domain of a name that Name passed: its part after the @, or all of it.
func DomainOf(name string) string {
	if _, domain, ok := strings.Cut(name, "@"); ok {
		return domain
	}
	return name
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func notLDH(r rune) bool { return !isAlnum(r) && r != '-' }

func notAtext(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r) }

// lower is ASCII lower case: what passed the checks has no other letters.
func lower(s string) string { return strings.ToLower(s) }

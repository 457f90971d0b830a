package smtpwire

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// RFC 5321 §4.5.3.1; for UTF-8 in octets all the same.
const (
	maxLocal  = 64
	maxDomain = 255
)

// Why an address is refused.
var (
	ErrNoDomain  = errors.New("smtpwire: an address needs a domain")
	ErrNeedsUTF8 = errors.New("smtpwire: an internationalized address needs SMTPUTF8")
	ErrAddress   = errors.New("smtpwire: bad address")
)

// Canonical writes a mailbox that go-smtp has parsed, and unquoted, as RFC 5321 §4.1.2 writes it: the local part quoted only
// where it must be, the domain in lower case. utf8OK tells that SMTPUTF8 was asked for.
func Canonical(s string, utf8OK bool) (address, domain string, err error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "", "", ErrNoDomain
	}
	local, domain := s[:at], strings.ToLower(s[at+1:])
	switch {
	case !utf8.ValidString(s):
		return "", "", ErrAddress
	case !utf8OK && !ascii(s):
		return "", "", ErrNeedsUTF8
	case local == "", len(local) > maxLocal, !validDomain(domain):
		return "", "", ErrAddress
	}
	quoted, ok := quoteLocal(local)
	if !ok {
		return "", "", ErrAddress
	}
	return quoted + "@" + domain, domain, nil
}

func quoteLocal(local string) (string, bool) {
	plain := !strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".") && !strings.Contains(local, "..")
	for _, r := range local {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return "", false
		}
		plain = plain && (r >= 0xa0 || isAtext(byte(r)) || r == '.')
	}
	if plain {
		return local, true
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`, true
}

func isAtext(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// validDomain takes host names, with underscores and UTF-8 labels, and address literals.
func validDomain(d string) bool {
	if d == "" || len(d) > maxDomain {
		return false
	}
	if inner, ok := strings.CutPrefix(d, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		_, err := netip.ParseAddr(strings.TrimPrefix(inner, "ipv6:"))
		return ok && err == nil && !strings.Contains(inner, "%")
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r < 0xa0 && !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return false
			}
		}
	}
	return true
}

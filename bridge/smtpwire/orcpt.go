package smtpwire

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

var orcpt = regexp.MustCompile(`(?i) ORCPT=rfc822;`)

// originalRecipient makes an ORCPT of the type rfc822 that is not ASCII one of the type utf-8 (RFC 6533 §3). Postfix writes the
// former for every UTF-8 recipient, and go-smtp refuses it. Any other command line stays as it is.
func originalRecipient(line string) string {
	at := orcpt.FindStringIndex(line)
	if at == nil {
		return line
	}
	value, rest, more := strings.Cut(line[at[1]:], " ")
	address, ok := fromXtext(value)
	if !ok || ascii(address) || !utf8.ValidString(address) {
		return line
	}
	if more {
		rest = " " + rest
	}
	return line[:at[0]] + " ORCPT=utf-8;" + Unitext(address) + rest
}

// Unitext is RFC 6533 §3's form of an address that servers without SMTPUTF8 take, too: \x{HEX} for what is not ASCII and what
// means something in xtext.
func Unitext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > '~' || r <= ' ' || strings.ContainsRune(`\+=`, r) {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

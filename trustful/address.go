package trustful

import (
	"errors"
	"strings"
)

// ErrAddress is returned for what is no mail address that a signet can carry.
var ErrAddress = errors.New("trustful: not an address that a signet can carry")

// maxAddress is RFC 5321's limit of a path without its brackets; a signet's identifier holds 255.
const (
	maxAddress   = 254
	maxLocalPart = 64
)

// Normal returns the form of an address under which keys are made, looked up and compared: ASCII, lower case
// (dmtp.md OC-17), in the characters that the reference reads in an envelope (dmime.md §11 rule 5). A quoted local part
// or an address with other characters is refused with ErrAddress: it has no signet.
func Normal(address string) (string, error) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || len(local) > maxLocalPart || len(address) > maxAddress || !isDomain(domain) {
		return "", ErrAddress
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`<>[]"(),;:\@`, c) >= 0 {
			return "", ErrAddress
		}
	}
	return lower(address), nil
}

// Postmaster is the role that authors mail with a null reverse-path: notifications that a domain itself sends.
func Postmaster(domain string) string { return "postmaster@" + lower(domain) }

// domainOf is what follows the "@" of a normal address.
func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// lower changes A to Z alone: local parts and domains beyond ASCII do not get here.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// isDomain is RFC 1123 §2.1 in ASCII, in any case, with two labels or more unless it is a host of a closed network.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

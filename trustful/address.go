package trustful

import (
	"errors"
	"strings"

	"dimegate/dmtp"
)

// ErrAddress is returned for what is no mail address that a signet can carry.
var ErrAddress = errors.New("trustful: not an address that a signet can carry")

// maxAddress is RFC 5321's limit of a path without its brackets; a signet's identifier holds 255 octets.
const maxAddress = 254

// Normal returns the form of an address under which keys are made, looked up and compared: what DMTP can ask for, in lower
// case (dmtp.md OC-17). A quoted local part or one beyond ASCII has no signet: ErrAddress.
func Normal(address string) (string, error) {
	normal, err := dmtp.Address(address)
	if err != nil || len(normal) > maxAddress {
		return "", ErrAddress
	}
	return normal, nil
}

// Postmaster is the role that authors mail with a null reverse-path: notifications that a domain itself sends.
func Postmaster(domain string) string { return "postmaster@" + lower(domain) }

// domainOf is what follows the "@" of a normal address.
func domainOf(address string) string { return dmtp.DomainOf(address) }

// lower is for domains of ours and of signets, which are ASCII.
func lower(s string) string { return strings.ToLower(s) }

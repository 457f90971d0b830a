// Package redact shows addresses in logs without showing them: the domain, and of the local part a mark by which lines about
// the same address can be found again.
package redact

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Addr is an address as logs show it, "~5be0c1f2@example.org": the first four octets of the SHA-256 of the whole address in
// lower case, and its domain. It hides the name from who reads along, not from who tries names. What has no domain is all mark.
func Addr(address string) string {
	lower := strings.ToLower(address)
	sum := sha256.Sum256([]byte(lower))
	mark := "~" + hex.EncodeToString(sum[:4])
	if at := strings.LastIndexByte(lower, '@'); at >= 0 {
		return mark + lower[at:]
	}
	return mark
}

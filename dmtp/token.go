package dmtp

import (
	"crypto/sha512"
	"encoding/base64"
	"strings"
)

// TokenLen is the length of a fingerprint or commit value in base64 without padding.
const TokenLen = 86

// A Token is what stands between square brackets: a fingerprint, a commit value, or a placeholder, since libdime sends the
// word "fingerprint" where MAIL, RCPT and DATA want one. An empty Token was not given.
type Token string

// TokenOf writes 64 octets as a token.
func TokenOf(b [64]byte) Token { return Token(base64.RawStdEncoding.EncodeToString(b[:])) }

// WellFormed tells a fingerprint or commit value from a placeholder: 86 characters of base64.
func (t Token) WellFormed() bool {
	return len(t) == TokenLen && !strings.ContainsFunc(string(t), func(r rune) bool { return !isAlnum(r) && r != '+' && r != '/' })
}

// Octets returns the 64 octets of a well-formed token. It is false for everything else, and for tokens whose last character
// has spare bits set: those are well-formed but equal to nothing.
func (t Token) Octets() (b [64]byte, ok bool) {
	if !t.WellFormed() {
		return b, false
	}
	n, err := base64.RawStdEncoding.Strict().Decode(b[:], []byte(t))
	return b, err == nil && n == len(b)
}

// Commit is the commit value of a message on one hop: SHA-512 over exactly the octets transferred.
func Commit(message []byte) Token { return TokenOf(sha512.Sum512(message)) }

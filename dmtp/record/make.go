package record

import (
	"crypto/sha512"
	"slices"
	"strings"

	"dimegate/dmtp/key"
)

// Text is the record as we publish it: the fields in the order of the reference's generator, apart by one blank. It says
// nothing of whether the record is right: see Make.
func (r *Record) Text() string {
	var out strings.Builder
	for _, f := range fields {
		for _, v := range f.values(r) {
			if out.Len() > 0 {
				out.WriteByte(' ')
			}
			out.WriteString(f.name + "=" + v)
		}
	}
	return out.String()
}

// Make is Text, after the record was read back: what comes out is a record that others accept.
func (r *Record) Make() (string, error) {
	text := r.Text()
	again, err := Parse(text)
	if err != nil {
		return "", err
	}
	for _, f := range fields {
		if !slices.Equal(f.values(r), f.values(again)) {
			return "", syntaxf(ErrValue, f.name, "a value that reads back as something else")
		}
	}
	return text, nil
}

// maxString is the longest character-string of a TXT record (RFC 1035 §3.3).
const maxString = 255

// Strings cuts a record into the strings of its one TXT record, which readers join with nothing between. It cuts behind a
// blank where it can, so that no base64 is torn for those who read zone files.
func Strings(text string) []string {
	var out []string
	for len(text) > maxString {
		n := strings.LastIndexByte(text[:maxString], ' ') + 1
		if n == 0 {
			n = maxString
		}
		out = append(out, text[:n])
		text = text[n:]
	}
	return append(out, text)
}

// Select picks the management record among the TXT records of a name, each joined: those that hold no primary key are
// something else's. ErrNone when there is none, ErrAmbiguous when there are several.
func Select(texts []string) (string, error) {
	found, n := "", 0
	for _, text := range texts {
		if candidate(text) {
			found = text
			n++
		}
	}
	switch n {
	case 0:
		return "", syntaxf(ErrNone, "", "no TXT record with a primary key")
	case 1:
		return found, nil
	}
	return "", syntaxf(ErrAmbiguous, "", "%d records at one name", n)
}

// candidate reports whether a text has a token named pok or primary.
func candidate(text string) bool {
	for token := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == ' ' || c == ';' }) {
		if name, _, ok := strings.Cut(token, "="); ok && (equalFold(name, "pok") || equalFold(name, "primary")) {
			return true
		}
	}
	return false
}

// SignCertificate makes the value of a tls field: the POK's signature of the SHA-512 of a mail exchange's whole end-entity
// certificate, in DER. It names neither domain nor host nor date: it holds as long as the record lists the key.
func SignCertificate(pok key.Signing, der []byte) [64]byte {
	digest := sha512.Sum512(der)
	return [64]byte(pok.Sign(digest[:]))
}

// MatchesCertificate reports whether any tls field is the signature of this certificate by any of the POKs. libdime tries
// all keys on the first signature alone.
func (r *Record) MatchesCertificate(der []byte) bool {
	digest := sha512.Sum512(der)
	for _, sig := range r.TLS {
		for _, pok := range r.POKs {
			if pok.Verify(digest[:], sig[:]) {
				return true
			}
		}
	}
	return false
}

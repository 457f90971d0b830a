package message

import (
	"bytes"
	"strings"

	"dimegate/dmtp/signet"
)

// An OriginChunk is chunk 4: what the origin may know. Author, origin and recipient can open it.
type OriginChunk struct {
	Author            string
	AuthorSignet      signet.Fingerprint
	Destination       string
	DestinationSignet signet.Fingerprint
}

// A DestinationChunk is chunk 5: what the destination may know. Author, destination and recipient can open it.
type DestinationChunk struct {
	Recipient       string
	RecipientSignet signet.Fingerprint
	Origin          string
	OriginSignet    signet.Fingerprint
}

// A line is one of the four of chunk 4 or 5, without its value. Addresses and domains stand in angle brackets, fingerprints
// in square ones. Source: libdime dmessage/parser.c prsr_envelope_format.
type line struct{ name, open, shut string }

var (
	originLines = [4]line{
		{"Author", ": <", ">\r\n"},
		{"Author-Signet", ": [", "]\r\n"},
		{"Destination", ": <", ">\r\n"},
		{"Destination-Signet", ": [", "]\r\n"},
	}
	destinationLines = [4]line{
		{"Recipient", ": <", ">\r\n"},
		{"Recipient-Signet", ": [", "]\r\n"},
		{"Origin", ": <", ">\r\n"},
		{"Origin-Signet", ": [", "]\r\n"},
	}
)

func (c *OriginChunk) encode() []byte {
	return encodeEnvelope(&originLines, c.Author, c.AuthorSignet, c.Destination, c.DestinationSignet)
}

func (c *DestinationChunk) encode() []byte {
	return encodeEnvelope(&destinationLines, c.Recipient, c.RecipientSignet, c.Origin, c.OriginSignet)
}

func encodeEnvelope(lines *[4]line, address string, fp1 signet.Fingerprint, domain string, fp2 signet.Fingerprint) []byte {
	var b bytes.Buffer
	for i, value := range [4]string{address, fp1.String(), domain, fp2.String()} {
		b.WriteString(lines[i].name + lines[i].open + value + lines[i].shut)
	}
	return b.Bytes()
}

func decodeOrigin(data []byte) (OriginChunk, error) {
	v, err := decodeEnvelope(TypeOrigin, &originLines, data)
	return OriginChunk{v.address, v.first, v.domain, v.second}, err
}

func decodeDestination(data []byte) (DestinationChunk, error) {
	v, err := decodeEnvelope(TypeDestination, &destinationLines, data)
	return DestinationChunk{v.address, v.first, v.domain, v.second}, err
}

// fingerprintText is a fingerprint without padding, which alone is canonical.
const fingerprintText = 86

type envelopeValues struct {
	address, domain string
	first, second   signet.Fingerprint
}

// decodeEnvelope reads exactly four lines: libdime allows anything behind them, spaces in an address, and any fingerprint.
func decodeEnvelope(t Type, lines *[4]line, data []byte) (v envelopeValues, err error) {
	var values [4]string
	for i, l := range lines {
		rest, ok := bytes.CutPrefix(data, []byte(l.name+l.open))
		value, after, found := bytes.Cut(rest, []byte(l.shut))
		if !ok || !found {
			return envelopeValues{}, fail(BadEnvelope, t, "the %s line is not at its place", l.name)
		}
		values[i], data = string(value), after
	}
	if len(data) > 0 {
		return envelopeValues{}, fail(BadEnvelope, t, "something behind the fourth line")
	}
	v.address, v.domain = values[0], values[2]
	if !validAddress(v.address) || !validDomain(v.domain) {
		return envelopeValues{}, fail(BadEnvelope, t, "no address or domain as the rules have it")
	}
	var err1, err2 error
	v.first, err1 = signet.ParseFingerprint(values[1])
	v.second, err2 = signet.ParseFingerprint(values[3])
	if err1 != nil || err2 != nil || len(values[1]) != fingerprintText || len(values[3]) != fingerprintText {
		return envelopeValues{}, fail(BadEnvelope, t, "a fingerprint is not 86 canonical characters")
	}
	return v, nil
}

// validDomain holds for up to 253 characters of printable ASCII without those of dmime.md §11 rule 5, and without "@". Signets
// are stricter: what is no name there finds no signet here.
func validDomain(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`@<>[]"(),;:\`, r)
	})
}

// validAddress holds for local@domain, both of the same characters.
func validAddress(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && validDomain(local) && validDomain(domain)
}

// domainOf is the part behind the "@".
func domainOf(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	return domain
}

package key

import (
	"bytes"
	"encoding/base64"
	"slices"
)

// The types of armor: what stands between BEGIN and the dashes. Source: libdime signet/common.h, magma prime/prime.h.
const (
	ArmorOrgSignet        = "ORGANIZATIONAL SIGNET" // libdime puts it on signing requests too
	ArmorUserSignet       = "USER SIGNET"
	ArmorRequest          = "SIGNET SIGNING REQUEST" // PRIME's, for requests
	ArmorOrgKey           = "ORGANIZATIONAL KEY"
	ArmorUserKey          = "USER KEY"
	ArmorEncryptedOrgKey  = "ENCRYPTED ORGANIZATIONAL KEY"
	ArmorEncryptedUserKey = "ENCRYPTED USER KEY"
	ArmorMessage          = "ENCRYPTED MESSAGE"
	ArmorSigningKey       = "ED25519 PRIVATE KEY" // a seed alone; the reference's record generator reads it
)

const (
	armorWidth    = 64 // base64 characters a line, as written
	maxArmorWidth = 76 // and as read
)

// Armor writes b as text: BEGIN and END lines, base64 in lines of 64 characters, and the CRC-24 of b before the END line.
func Armor(kind string, b []byte) []byte {
	text := base64.StdEncoding.AppendEncode(nil, b)
	defer clear(text) // b may be a secret
	out := make([]byte, 0, len(text)+len(text)/armorWidth+2*len(kind)+64)
	out = append(out, "-----BEGIN "+kind+"-----\n"...)
	for line := range slices.Chunk(text, armorWidth) {
		out = append(append(out, line...), '\n')
	}
	out = append(append(out, '='), base64.StdEncoding.EncodeToString(crcOctets(b))...)
	return append(out, "\n-----END "+kind+"-----\n"...)
}

// A Block is what an armor holds.
type Block struct {
	Type  string
	Bytes []byte // the caller's, to clear if it is a secret
}

// Dearmor reads the first block of one of the wanted types. Blanks and empty lines within a block and text outside it are
// skipped, as the reference does. Its checksum must be there and right; all else is refused: other characters, lines over
// 76 characters, missing padding, data behind the checksum, an END that names another type. Errors: ErrArmor and ErrCRC,
// which name the line. Memory: not above that of text.
func Dearmor(text []byte, types ...string) (Block, error) {
	var block *armorReader
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.Trim(line, " \t\r\n")
		if block == nil {
			if kind := begins(line, types); kind != "" {
				block = &armorReader{kind: kind, text: make([]byte, 0, len(text))}
				defer block.clear()
			}
			continue
		}
		if string(line) == "-----END "+block.kind+"-----" {
			return block.end(n)
		}
		if err := block.line(line, n); err != nil {
			return Block{}, err
		}
	}
	if block == nil {
		return Block{}, syntaxf(ErrArmor, 0, "no BEGIN line of the wanted kind")
	}
	return Block{}, syntaxf(ErrArmor, 0, "the END line is missing (line %d)", n)
}

// begins returns the wanted type that line begins a block of, or nothing.
func begins(line []byte, types []string) string {
	for _, t := range types {
		if string(line) == "-----BEGIN "+t+"-----" {
			return t
		}
	}
	return ""
}

// An armorReader gathers the base64 of one block.
type armorReader struct {
	kind string
	text []byte // base64, without blanks; never above its first capacity
	crc  []byte // three octets, once its line was seen
}

func (r *armorReader) clear() { clear(r.text[:cap(r.text)]) }

// line takes the n-th line of the text, without the blanks at its ends.
func (r *armorReader) line(line []byte, n int) error {
	from := len(r.text)
	for _, c := range line {
		if c != ' ' && c != '\t' && c != '\r' {
			r.text = append(r.text, c)
		}
	}
	line = r.text[from:]
	switch {
	case len(line) == 0:
		return nil
	case r.crc != nil:
		return syntaxf(ErrArmor, 0, "data behind the checksum (line %d)", n)
	case line[0] == '=':
		r.text = r.text[:from]
		return r.checksum(line[1:], n)
	case len(line) > maxArmorWidth:
		return syntaxf(ErrArmor, 0, "line %d is longer than %d characters", n, maxArmorWidth)
	}
	return nil
}

func (r *armorReader) checksum(line []byte, n int) error {
	if len(line) != 4 {
		return syntaxf(ErrArmor, 0, "the checksum is not four characters (line %d)", n)
	}
	crc, err := base64.StdEncoding.AppendDecode(nil, line)
	if err != nil || len(crc) != 3 {
		return syntaxf(ErrArmor, 0, "the checksum is no base64 (line %d)", n)
	}
	r.crc = crc
	return nil
}

// end decodes the block at its END line.
func (r *armorReader) end(n int) (Block, error) {
	if len(r.text) == 0 {
		return Block{}, syntaxf(ErrArmor, 0, "nothing between BEGIN and END (line %d)", n)
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, r.text)
	switch {
	case err != nil:
		clear(b)
		return Block{}, syntaxf(ErrArmor, 0, "no base64 with its padding before line %d", n)
	case r.crc == nil:
		clear(b)
		return Block{}, syntaxf(ErrCRC, 0, "the checksum line is missing (line %d)", n)
	case !bytes.Equal(r.crc, crcOctets(b)):
		clear(b)
		return Block{}, syntaxf(ErrCRC, 0, "the checksum before line %d is wrong", n)
	}
	return Block{Type: r.kind, Bytes: b}, nil
}

// CRC24 is the checksum of OpenPGP (RFC 9580 §6.1.1), over a whole object with its header.
func CRC24(b []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, c := range b {
		crc = crc<<8&0xffffff ^ crc24Table[byte(crc>>16)^c]
	}
	return crc
}

func crcOctets(b []byte) []byte {
	crc := CRC24(b)
	return []byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}
}

var crc24Table = func() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
		table[i] = crc
	}
	return table
}()

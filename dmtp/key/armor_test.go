package key_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"dimegate/dmtp/key"

	"pgregory.net/rapid"
)

func TestCRC24(t *testing.T) {
	for in, want := range map[string]uint32{"": 0xb704ce, "123456789": 0x21cf02} {
		if got := key.CRC24([]byte(in)); got != want {
			t.Errorf("%q: %06x, want %06x", in, got, want)
		}
	}
}

// The specification's own files, of both dialects.
const (
	userKeyA = "-----BEGIN USER KEY-----\n" +
		"B90AAEUBIEBBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fAgAgYGFiY2Rl\n" +
		"ZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=\n=+VTO\n-----END USER KEY-----\n"
	orgKeyA = "-----BEGIN ORGANIZATIONAL KEY-----\n" +
		"B6AAAEUBIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAwAgICEiIyQl\n" +
		"JicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n=xBoH\n-----END ORGANIZATIONAL KEY-----\n"
	orgKeyC = "07a00000440120000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f032020212223242526" +
		"2728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	userKeyC = "07dd0000440120404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f022060616263646566" +
		"6768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
)

func TestKeyFiles(t *testing.T) {
	for name, c := range map[string]struct {
		in      []byte
		kind    key.FileKind
		dialect key.Dialect
		seed    byte
	}{
		"user, A": {[]byte(userKeyA), key.UserKeys, key.A, 0x40},
		"org, A":  {[]byte(orgKeyA), key.OrgKeys, key.A, 0x00},
		"user, C": {unhex(t, userKeyC), key.UserKeys, key.B, 0x40},
		"org, C":  {unhex(t, orgKeyC), key.OrgKeys, key.B, 0x00},
	} {
		f, err := key.ParseFile(c.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.Kind != c.kind || f.Dialect != c.dialect {
			t.Errorf("%s: kind %d, dialect %v", name, f.Kind, f.Dialect)
		}
		if !f.Pair.Signing.Equal(signing(t, ascending(c.seed))) || !f.Pair.Encryption.Equal(encryption(t, ascending(c.seed+0x20))) {
			t.Errorf("%s: other keys", name)
		}
		if !bytes.Equal(f.Bytes(), c.in) && !bytes.Equal(f.Armored(), c.in) {
			t.Errorf("%s: is written differently", name)
		}
	}
	if b := (&key.File{Kind: key.OrgKeys}).Armored(); b != nil {
		t.Errorf("a file without keys is written: %d octets", len(b))
	}
}

func TestParseFileRefuses(t *testing.T) {
	org := unhex(t, orgKeyC)
	change := func(at int, to byte) []byte { b := bytes.Clone(org); b[at] = to; return b }
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"empty":                {nil, key.ErrArmor},
		"header cut":           {org[:4], key.ErrShort},
		"header alone":         {org[:5], key.ErrLength},
		"header, no body":      {[]byte{0x07, 0xa0, 0, 0, 0}, key.ErrKeyFormat},
		"cut by one":           {org[:len(org)-1], key.ErrLength},
		"one more":             {append(bytes.Clone(org), 0), key.ErrLength},
		"encrypted":            {change(1, 0x9b), key.ErrType},
		"a user's":             {append([]byte{0x07, 0xdd}, org[2:]...), key.ErrKeyFormat},
		"signing key id":       {change(5, 2), key.ErrKeyFormat},
		"signing key length":   {change(6, 31), key.ErrKeyFormat},
		"encryption key id":    {change(39, 2), key.ErrKeyFormat},
		"encryption length":    {change(40, 31), key.ErrKeyFormat},
		"length of dialect A":  {change(40, 0), key.ErrKeyFormat},
		"a signet":             {[]byte("-----BEGIN USER SIGNET-----\nAAAA\n=AAAA\n-----END USER SIGNET-----\n"), key.ErrArmor},
		"user armor, org keys": {key.Armor(key.ArmorUserKey, org), key.ErrArmor},
		"words":                {[]byte("not a key file\n"), key.ErrArmor},
	} {
		if _, err := key.ParseFile(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for n := range len(org) { // a cut body under a right length
		b := bytes.Clone(org[:n])
		if n >= 5 {
			b[4] = byte(n - 5)
		}
		if _, err := key.ParseFile(b); err == nil {
			t.Errorf("the first %d octets are a key file", n)
		}
	}
}

func TestSigningFile(t *testing.T) {
	k := signing(t, ascending(0))
	if again, err := key.ParseSigning(k.Armored()); err != nil || !again.Equal(k) {
		t.Errorf("round trip: %v", err)
	}
	if _, err := key.ParseSigning(key.Armor(key.ArmorSigningKey, make([]byte, 31))); !errors.Is(err, key.ErrKeyFormat) {
		t.Errorf("31 octets: %v", err)
	}
	if _, err := key.ParseSigning([]byte(orgKeyA)); !errors.Is(err, key.ErrArmor) {
		t.Errorf("an organisation's file: %v", err)
	}
}

func TestDearmor(t *testing.T) {
	const begin, end = "-----BEGIN USER SIGNET-----\n", "-----END USER SIGNET-----\n"
	data := bytes.Repeat([]byte("0123456789ab"), 4) // 64 characters: one full line
	good := string(key.Armor(key.ArmorUserSignet, data))
	lines := strings.SplitAfter(good, "\n")
	body, crc := lines[1], lines[2]
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"as written":                {good, nil},
		"blank line before the CRC": {begin + body + "\n" + crc + end, nil}, // the reference writes it after a full last line
		"CRLF":                      {strings.ReplaceAll(good, "\n", "\r\n"), nil},
		"no last line end":          {strings.TrimSuffix(good, "\n"), nil},
		"text around":               {"Dear sir,\n\n" + good + "Yours\n-----BEGIN USER SIGNET-----\n", nil},
		"another block before":      {string(key.Armor(key.ArmorUserKey, []byte("other"))) + good, nil},
		"blanks within":             {begin + "  " + body[:9] + " \t" + body[9:] + crc + end, nil},
		"12 lines of one group":     {begin + strings.Repeat(body[:4]+"\n", 1) + body[4:] + crc + end, nil},
		"empty":                     {"", key.ErrArmor},
		"no BEGIN":                  {body + crc + end, key.ErrArmor},
		"no END":                    {begin + body + crc, key.ErrArmor},
		"END of another kind":       {begin + body + crc + "-----END USER KEY-----\n", key.ErrArmor},
		"nothing but a checksum":    {begin + "=twTO\n" + end, key.ErrArmor},
		"nothing":                   {begin + end, key.ErrArmor},
		"no checksum":               {begin + body + end, key.ErrCRC},
		"wrong checksum":            {begin + body + "=AAAA\n" + end, key.ErrCRC},
		"data after the checksum":   {begin + body + crc + body + end, key.ErrArmor},
		"two checksums":             {begin + body + crc + crc + end, key.ErrArmor},
		"short checksum":            {begin + body + "=AAA\n" + end, key.ErrArmor},
		"checksum with padding":     {begin + body + "=AAA=\n" + end, key.ErrArmor},
		"header line":               {begin + "Comment: x\n" + body + crc + end, key.ErrArmor},
		"foreign character":         {begin + "*" + body + crc + end, key.ErrArmor},
		"77 characters":             {begin + strings.Repeat("A", 77) + "\n" + crc + end, key.ErrArmor},
		"missing padding":           {begin + "AAA\n" + crc + end, key.ErrArmor},
		"bits behind the end":       {begin + "AAB=\n" + crc + end, key.ErrArmor},
		"padding within":            {begin + "AA==AAAA\n" + crc + end, key.ErrArmor},
	} {
		block, err := key.Dearmor([]byte(c.text), key.ArmorUserSignet)
		switch {
		case !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", name, err, c.want)
		case c.want == nil && !bytes.Equal(block.Bytes, data):
			t.Errorf("%s: other octets", name)
		}
	}
}

// Any octets survive, in the reference's line width; no text with one character changed is read as anything else.
func TestArmorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "octets")
		text := key.Armor(key.ArmorOrgSignet, b)
		for line := range bytes.Lines(text) {
			if len(line) > 65 {
				t.Fatalf("a line of %d octets", len(line))
			}
		}
		block, err := key.Dearmor(text, key.ArmorUserSignet, key.ArmorOrgSignet)
		if err != nil || !bytes.Equal(block.Bytes, b) || block.Type != key.ArmorOrgSignet {
			t.Fatalf("%v", err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		text[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		if block, err := key.Dearmor(text, key.ArmorOrgSignet); err == nil && !bytes.Equal(block.Bytes, b) {
			t.Fatalf("changed at %d and read as other octets", at)
		}
	})
}

func FuzzArmor(f *testing.F) {
	f.Add([]byte(userKeyA))
	f.Add([]byte(orgKeyA))
	f.Add(unhex(f, orgKeyC))
	f.Add(unhex(f, encryptedUserKey))
	f.Add([]byte("x\n-----BEGIN USER SIGNET-----\r\n AAAA\n\n=AAAA\n-----END USER SIGNET-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, kind := range []string{key.ArmorUserKey, key.ArmorUserSignet} {
			block, err := key.Dearmor(text, kind)
			if err != nil {
				continue
			}
			again, err := key.Dearmor(key.Armor(block.Type, block.Bytes), kind)
			if err != nil || !bytes.Equal(again.Bytes, block.Bytes) {
				t.Errorf("written and read again: %v", err)
			}
		}
		if file, err := key.OpenFile(text, realm()); err == nil && file.Pair.Signing.IsZero() {
			t.Error("an encrypted file without keys opens")
		}
		if file, err := key.ParseFile(text); err == nil {
			if again, err := key.ParseFile(file.Bytes()); err != nil || !again.Pair.Equal(file.Pair) {
				t.Errorf("key file written and read again: %v", err)
			}
		}
	})
}

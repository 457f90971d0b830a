package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// shapes are the messages that are too large to keep as files, or whose octets no file should have. The largest has so many
// octets.
func shapes(largest int) []letterOut {
	return []letterOut{
		{"parts-10000", manyParts(10000), true},
		{"levels-100", nested(100, "multipart/mixed"), true},
		{"levels-100-alternating", nested(100, "multipart/alternative", "multipart/related", "multipart/mixed"), true},
		{"messages-in-messages-100", []byte(strings.Repeat(shapeHeader+"Content-Type: message/rfc822\r\n\r\n", 100) + shapeHeader + "\r\nthe innermost\r\n"), true},
		{"header-line-1MB", []byte(shapeHeader + "X-Long: " + strings.Repeat("x", 1e6) + "\r\n\r\nbody\r\n"), true},
		{"header-folded-90KB", []byte(shapeHeader + "X-Long:" + strings.Repeat(" "+strings.Repeat("y", 88)+"\r\n", 1000) + "\r\nbody\r\n"), true},
		{"header-5000-fields", []byte(shapeHeader + numbered("X-Field-%d: value\r\n", 5000) + "\r\nbody\r\n"), true},
		{"header-every-octet", []byte(shapeHeader + "X-Octets: " + everyOctet() + "\r\nSubject: " + everyOctet() + "\r\n\r\nbody\r\n"), true},
		{"header-latin1-names", []byte("From: J\xf6rg <alice@alpha.test>\r\nTo: \xe4\xf6\xfc <bob@bravo.test>\r\nSubject: Gr\xfc\xdfe\r\n\r\nGr\xfc\xdfe\r\n"), true},
		{"smtputf8-addresses", []byte("From: 丽丽 <丽丽@alpha.test>\r\nTo: Jörg <jörg@bravo.test>\r\nSubject: 你好\r\n\r\n你好\r\n"), true},
		{"body-every-octet", []byte(shapeHeader + "\r\n" + strings.Repeat(everyOctet()+"\r\n", 256)), true},
		{"body-nul", []byte(shapeHeader + "\r\n\x00\r\n\x00\x00\r\nA\x00B\r\n"), true},
		{"body-line-1MB", []byte(shapeHeader + "\r\n" + strings.Repeat("z", 1e6) + "\r\n"), true},
		{"body-dots", []byte(shapeHeader + "\r\n" + strings.Repeat(".\r\n..\r\n...\r\n. \r\n.x\r\n", 5000)), true},
		{"body-empty", []byte(shapeHeader + "\r\n"), true},
		{"body-empty-lines", []byte(shapeHeader + "\r\n" + strings.Repeat("\r\n", 10000)), true},
		{"no-empty-line", []byte(shapeHeader), true},
		{"ends-lf", []byte(shapeHeader + "\r\nbare\nLF\n\r\n"), true},
		{"ends-cr", []byte(shapeHeader + "\r\nbare\rCR\r\r\n"), true},
		{"ends-mixed", []byte(strings.ReplaceAll(shapeHeader, "\r\n", "\n") + "\n\rmixed\r\rends\n\nand\r.\rmore\r\n"), true},
		{"attachment", attachment(largest), false}, // once is enough
	}
}

const shapeHeader = "From: Alice <alice@alpha.test>\r\nTo: Bob <bob@bravo.test>\r\nSubject: shape\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n" +
	"Message-ID: <shape@alpha.test>\r\nMIME-Version: 1.0\r\n"

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// everyOctet has each that is no line end and does not begin a line to end it.
func everyOctet() string {
	b := []byte{'x'}
	for c := range 256 {
		if c != '\r' && c != '\n' {
			b = append(b, byte(c))
		}
	}
	return string(b)
}

func manyParts(n int) []byte {
	var b bytes.Buffer
	b.WriteString(shapeHeader + "Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for i := range n {
		fmt.Fprintf(&b, "--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=%d.txt\r\n\r\npart %d\r\n", i, i)
	}
	b.WriteString("--b--\r\n")
	return b.Bytes()
}

func nested(levels int, types ...string) []byte {
	var b bytes.Buffer
	b.WriteString(shapeHeader)
	for i := range levels {
		fmt.Fprintf(&b, "Content-Type: %s; boundary=\"level %d\"\r\n\r\n--level %d\r\nContent-Type: text/plain\r\n\r\nat %d\r\n--level %d\r\n", types[i%len(types)], i, i, i, i)
	}
	b.WriteString("Content-Type: text/plain\r\n\r\nthe innermost\r\n")
	for i := range levels {
		fmt.Fprintf(&b, "--level %d--\r\n", levels-1-i)
	}
	return b.Bytes()
}

// attachment is a message of so many octets, nearly all of them one attachment that does not compress.
func attachment(octets int) []byte {
	var b bytes.Buffer
	b.Grow(octets + 100)
	b.WriteString(shapeHeader + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nIt is attached.\r\n--b\r\n" +
		"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=large.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	const end = "--b--\r\n"
	raw := make([]byte, (octets-b.Len()-len(end))/78*57)
	_, _ = rand.Read(raw) // never fails
	for line := range slices.Chunk(raw, 57) {
		b.Write(base64.StdEncoding.AppendEncode(b.AvailableBuffer(), line))
		b.WriteString("\r\n")
	}
	b.WriteString(end)
	return b.Bytes()
}

package main

import (
	"bytes"
	"slices"
	"strings"
)

// afterPostfix is what stock Postfix makes of a message that it takes from a client which is not local: the baseline, in
// our own words. cleanup(8) does all of it:
//
//   - message_drop_headers: Bcc, Content-Length, Resent-Bcc and Return-Path are taken out of the header;
//   - a first line "From ..." of an mbox file becomes the field X-Mailbox-Line, ">From" likewise;
//   - blanks between a field's name and its colon are taken out;
//   - where the header ends in a line that is no field, an empty line is put before it.
func afterPostfix(sent []byte) []byte {
	var out []byte
	first, drop := true, false
	for len(sent) > 0 {
		n := bytes.Index(sent, []byte("\r\n")) + 2
		line := sent[:n]
		switch {
		case n == 2: // the end of the header
			return append(out, sent...)
		case !first && (line[0] == ' ' || line[0] == '\t'): // continues a field
		case first && (bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))):
			out = append(out, "X-Mailbox-Line: "...)
			drop = false
		default:
			name, ok := fieldName(line)
			if !ok {
				return append(append(out, "\r\n"...), sent...)
			}
			drop = slices.Contains(dropped, strings.ToLower(name))
			line = append([]byte(name), line[bytes.IndexByte(line, ':'):]...)
		}
		if !drop {
			out = append(out, line...)
		}
		first, sent = false, sent[n:]
	}
	return out
}

var dropped = []string{"bcc", "content-length", "resent-bcc", "return-path"}

// fieldName is the name of a header field if the line begins one: printable US-ASCII up to a colon, blanks before it
// allowed as in RFC 822.
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return string(name), true
}

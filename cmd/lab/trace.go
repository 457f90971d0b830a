package main

import (
	"bytes"
	"net/textproto"
	"slices"
	"strings"
)

// split takes off what the hosts of the lab put on top of a message and returns it and the message below.
//
// What counts as put on top, and nothing else: the Return-Path that is the very first field and a Delivered-To for one of
// our addresses (Dovecot's delivery, RFC 5321 §4.4), the Received of one of our own hosts, which its "by" tells, and the
// X-DIME and X-DIME-Loop of the second gateway. Date and Message-ID count where a trace field of ours stands below them: the first gateway
// put them there. A message that came with such fields of its own keeps all of them: taking off ends at the first field
// that is not ours.
func split(arrived []byte) (top []Field, message []byte) {
	var maybe []Field // Date and Message-ID, as long as nobody knows whose they are
	message = arrived
	for {
		f, rest, ok := cutField(arrived)
		switch name := textproto.CanonicalMIMEHeaderKey(f.Name); {
		case ok && ours(f, len(top)+len(maybe) == 0):
			top, maybe, message = append(append(top, maybe...), f), nil, rest
		case ok && len(maybe) < 2 && (name == "Date" || name == "Message-Id"):
			maybe = append(maybe, f)
		default:
			return top, message
		}
		arrived = rest
	}
}

// ours says whether a host of the lab wrote a field.
func ours(f Field, first bool) bool {
	switch strings.ToLower(f.Name) {
	case "return-path":
		return first
	case "x-dime", "x-dime-loop":
		return true
	case "delivered-to":
		return ourName(f.Value)
	case "received":
		words := strings.Fields(f.Value)
		by := slices.Index(words, "by")
		return by >= 0 && by+1 < len(words) && ourName(words[by+1])
	}
	return false
}

// ourName says whether a host or an address is under one of the lab's domains.
func ourName(s string) bool {
	return slices.ContainsFunc([]string{"alpha.test", "bravo.test"}, func(d string) bool {
		rest, ok := strings.CutSuffix(strings.TrimRight(s, ";>"), d)
		return ok && (strings.HasSuffix(rest, ".") || strings.HasSuffix(rest, "@"))
	})
}

// A Field is one header field, unfolded but otherwise as it came.
type Field struct{ Name, Value string }

// cutField takes the first field of a message with its continuation lines.
func cutField(b []byte) (f Field, rest []byte, ok bool) {
	end := 0
	for {
		n := bytes.Index(b[end:], []byte("\r\n"))
		if n < 0 {
			return Field{}, b, false
		}
		end += n + 2
		if end >= len(b) || b[end] != ' ' && b[end] != '\t' {
			break
		}
	}
	name, value, ok := strings.Cut(strings.ReplaceAll(string(b[:end]), "\r\n", ""), ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return Field{}, b, false
	}
	return Field{name, strings.TrimSpace(value)}, b[end:], true
}

// number is the one that a host gave a message, from its trace field.
func number(top []Field, host string) string {
	for _, f := range top {
		words := strings.Fields(f.Value)
		if by, id := slices.Index(words, "by"), slices.Index(words, "id"); strings.EqualFold(f.Name, "Received") &&
			by >= 0 && id >= 0 && id+1 < len(words) && words[by+1] == host {
			return strings.TrimSuffix(words[id+1], ";")
		}
	}
	return ""
}

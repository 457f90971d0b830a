package queue

import (
	"bytes"
	"unicode/utf8"
)

// maxLine is RFC 5322's limit of a line, without its CRLF.
const maxLine = 998

// returned is the third part: all of the original where it was asked for and goes through octet for octet, else its header.
// A message must not be encoded (RFC 2046 §5.2.1); a header may (RFC 6522 §4, RFC 6533 §5).
func (r *report) returned(f form) part {
	if m := r.Message; m != nil && mailable(m) {
		return part{kind: choose(ascii(string(r.Header)), "message/rfc822", "message/global"), octets: m}
	}
	header, eight := presentable(r.Header)
	return part{kind: choose(eight, "message/global-headers", "text/rfc822-headers"), octets: header, quoted: eight && !f.eight}
}

// mailable reports whether a message can be a part that is not encoded: lines with CRLF, none too long, no NUL, and a header
// that is ASCII or UTF-8.
func mailable(m []byte) bool {
	if bytes.IndexByte(m, 0) >= 0 || bytes.Count(m, []byte("\r")) != bytes.Count(m, []byte("\n")) {
		return false
	}
	header, _, _ := bytes.Cut(m, []byte("\r\n\r\n"))
	for line := range bytes.SplitAfterSeq(m, []byte("\n")) {
		if text, ended := bytes.CutSuffix(line, []byte("\r\n")); len(text) > maxLine || !ended && bytes.IndexByte(line, '\n') >= 0 {
			return false
		}
	}
	return utf8.Valid(header)
}

// presentable makes a header fit: CRLF line ends, no NUL, no bare CR, long lines cut; and says whether it has octets over
// 127. They are UTF-8 then.
func presentable(h []byte) (b []byte, eight bool) {
	h = bytes.ReplaceAll(h, []byte("\r\n"), []byte("\n"))
	n := 0
	for _, c := range h {
		if c == '\n' {
			b, n = append(b, '\r', '\n'), 0
			continue
		}
		if n++; n > maxLine {
			continue
		}
		if c == 0 || c == '\r' {
			c = '?'
		}
		b = append(b, c)
		eight = eight || c >= 0x80
	}
	if eight && !utf8.Valid(b) { // then it is no global header either: show the octets as question marks
		for i, c := range b {
			if c >= 0x80 {
				b[i] = '?'
			}
		}
		eight = false
	}
	return b, eight
}

package translate

import (
	"bytes"
	"iter"
	"mime"
	"strings"
	"unicode/utf8"
)

const (
	maxContentType = 8 << 10  // octets of a Content-Type field that is looked at
	maxPartHeader  = 16 << 10 // octets of a part's header that are looked at
	maxName        = 255      // octets of a file name in a hint
	maxBoundary    = 70       // RFC 2046 §5.1.1
)

// A mixed is a multipart/mixed body that may be cut.
type mixed struct {
	body []byte
	open []byte // CRLF "--" boundary
}

// A delimiter is one delimiter line: at is the offset of the CRLF that belongs to it (-2 where the body begins with it), end
// the offset behind the line.
type delimiter struct {
	at, end int
	closed  bool
}

// cuts yields the extents of the attachments of a body that is to be cut (dmime.md §12.3), each from the CRLF that belongs to
// its delimiter line; the last one ends where its part ends, which is not always the end of the body. What stands before the
// first is display. None, when the message is not to be cut at all: only multipart/mixed is, with at least two parts, the first
// of them text, an alternative or a related set. So what is signed, encrypted, a report or a calendar stays whole.
func cuts(m Message) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		boundary := mixedBoundary(m.Header)
		if boundary == "" {
			return
		}
		p := mixed{body: m.Body, open: []byte("\r\n--" + boundary)}
		d, ok := p.next(0)
		if !ok || d.closed || !displayable(firstPart(m.Body[d.end:])) {
			return
		}
		for d, ok = p.next(d.at + 1); ok && !d.closed; {
			n, more := p.next(d.at + 1)
			if !more {
				n.at = len(m.Body)
			}
			if !yield(d.at, n.at) {
				return
			}
			d, ok = n, more
		}
	}
}

// next finds the first delimiter line at or behind an offset.
func (p mixed) next(from int) (delimiter, bool) {
	if from == 0 && bytes.HasPrefix(p.body, p.open[2:]) {
		if end, closed, ok := p.lineEnd(len(p.open) - 2); ok {
			return delimiter{-2, end, closed}, true
		}
	}
	for from = max(from, 0); ; {
		i := bytes.Index(p.body[from:], p.open)
		if i < 0 {
			return delimiter{}, false
		}
		at := from + i
		if end, closed, ok := p.lineEnd(at + len(p.open)); ok {
			return delimiter{at, end, closed}, true
		}
		from = at + 2
	}
}

// lineEnd reads on behind "--boundary": an optional "--", white space, then a line end or the end of the body.
func (p mixed) lineEnd(i int) (end int, closed, ok bool) {
	if bytes.HasPrefix(p.body[i:], []byte("--")) {
		closed = true
		i += 2
	}
	for i < len(p.body) && (p.body[i] == ' ' || p.body[i] == '\t') {
		i++
	}
	if bytes.HasPrefix(p.body[i:], crlf) {
		return i + 2, closed, true
	}
	return i, closed, i == len(p.body)
}

func mixedBoundary(header []byte) string {
	typ, params := contentType(header)
	b := params["boundary"]
	if typ != "multipart/mixed" || b == "" || len(b) > maxBoundary || strings.ContainsAny(b, "\r\n\x00") {
		return ""
	}
	return b
}

// contentType reads the first Content-Type field. An unreadable one is "", an absent one is text/plain (RFC 2045 §5.2).
func contentType(header []byte) (string, map[string]string) {
	for f := range Fields(header) {
		if f.Is("Content-Type") {
			if len(f.Body) > maxContentType {
				return "", nil
			}
			typ, params, err := mime.ParseMediaType(string(unfold(f.Body)))
			if err != nil {
				return "", nil
			}
			return typ, params
		}
	}
	return "text/plain", nil
}

// firstPart is the header block of the part that begins here, as far as it is looked at.
func firstPart(part []byte) []byte {
	return Split(part[:min(len(part), maxPartHeader)]).Header
}

func displayable(partHeader []byte) bool {
	typ, _ := contentType(partHeader)
	return strings.HasPrefix(typ, "text/") || typ == "multipart/alternative" || typ == "multipart/related"
}

// describe makes the hint for the n-th attachment, which begins with the CRLF of its delimiter line.
func describe(n int, slice []byte) hint {
	i := bytes.Index(slice[2:], crlf)
	if i < 0 {
		return hint{n: n, typ: "text/plain"}
	}
	part := slice[2+i+2:]
	header := firstPart(part)
	h := hint{n: n, size: max(0, len(part)-len(header)-2)}
	typ, params := contentType(header)
	if h.typ = typ; !plainToken(typ) {
		h.typ = "application/octet-stream"
	}
	if h.name = cleanName(dispositionName(header)); h.name == "" {
		h.name = cleanName(params["name"])
	}
	return h
}

func dispositionName(header []byte) string {
	for f := range Fields(header) {
		if f.Is("Content-Disposition") && len(f.Body) <= maxContentType {
			if _, params, err := mime.ParseMediaType(string(unfold(f.Body))); err == nil {
				return params["filename"]
			}
			return ""
		}
	}
	return ""
}

// cleanName decodes RFC 2047 words, which do not belong there and stand there anyway. A name that is not UTF-8 is none.
func cleanName(name string) string {
	if decoded, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
		name = decoded
	}
	if len(name) > maxName || !utf8.ValidString(name) {
		return ""
	}
	return name
}

func plainToken(typ string) bool {
	for i := range len(typ) {
		if c := typ[i]; c <= ' ' || c >= 0x7f || c == ';' {
			return false
		}
	}
	return typ != "" && len(typ) <= 127
}

package imapserver

import (
	"bytes"
	"strings"

	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"
)

// Bounds of the tree of a message; beyond them a part is one opaque leaf, so a hostile message costs no more than a large one.
const (
	maxDepth = 100
	maxParts = 10_000
)

// A part is a message or a part of one, as places in the octets of the whole: what is given out is cut from these, never written
// anew. Source: RFC 9051 §6.4.5, RFC 2046 §5.1.
type part struct {
	head, body, end int // header with its empty line is head..body, content is body..end
	header          gomessage.Header
	media           string // type/subtype in lower case
	params          map[string]string
	children        []*part // of a multipart
	message         *part   // of message/rfc822
}

// parse never fails: what is not MIME is text.
func parse(octets []byte) *part {
	p := &parser{octets: octets, left: maxParts}
	return p.part(0, len(octets), 0, "")
}

type parser struct {
	octets []byte
	left   int
}

func (p *parser) part(head, end, depth int, within string) *part {
	p.left--
	t := &part{head: head, end: end}
	t.body, t.header = readHeader(p.octets, head, end)
	t.media, t.params = mediaType(t.header, within)
	opaque := depth >= maxDepth || p.left <= 0
	switch {
	case strings.HasPrefix(t.media, "multipart/"):
		if !opaque {
			t.children = p.split(t, depth)
		}
		if len(t.children) == 0 { // the grammar of BODYSTRUCTURE knows no multipart without parts
			t.media, t.params = "application/octet-stream", nil
		}
	case t.media == "message/rfc822" || t.media == "message/global":
		if opaque {
			t.media, t.params = "application/octet-stream", nil
		} else {
			t.message = p.part(t.body, end, depth+1, "")
		}
	}
	return t
}

func mediaType(h gomessage.Header, within string) (string, map[string]string) {
	if !h.Has("Content-Type") && within == "multipart/digest" {
		return "message/rfc822", nil
	}
	media, params, err := h.ContentType()
	primary, sub, _ := strings.Cut(media, "/")
	if err != nil || primary == "" || sub == "" {
		return "text/plain", nil
	}
	return media, params
}

// split finds the parts between the delimiters of a multipart. The line end before a delimiter is the delimiter's.
func (p *parser) split(t *part, depth int) []*part {
	delimiter := []byte("--" + t.params["boundary"])
	if len(delimiter) == 2 {
		return nil
	}
	var children []*part
	start := -1 // of the part that is open
	add := func(end int) {
		if start >= 0 {
			children = append(children, p.part(start, max(start, end), depth+1, t.media))
		}
	}
	for at := t.body; at < t.end; {
		next := lineEnd(p.octets, at, t.end)
		closing, is := isDelimiter(p.octets[at:next], delimiter)
		if is {
			add(beforeLineEnd(p.octets, t.body, at))
			start = next
			if closing {
				return children
			}
			if p.left <= 0 {
				break // the rest is one part
			}
		}
		at = next
	}
	add(t.end)
	return children
}

func isDelimiter(line, delimiter []byte) (closing, is bool) {
	rest, is := bytes.CutPrefix(line, delimiter)
	if !is {
		return false, false
	}
	rest, closing = bytes.CutPrefix(rest, []byte("--"))
	return closing, len(bytes.Trim(rest, " \t\r\n")) == 0
}

// lineEnd is the place after the next LF, or end.
func lineEnd(b []byte, at, end int) int {
	if i := bytes.IndexByte(b[at:end], '\n'); i >= 0 {
		return at + i + 1
	}
	return end
}

// beforeLineEnd steps back over one line end that stands before at, not further than start.
func beforeLineEnd(b []byte, start, at int) int {
	if at > start && b[at-1] == '\n' {
		at--
		if at > start && b[at-1] == '\r' {
			at--
		}
	}
	return at
}

// readHeader gives the place where the content begins, and the fields that can be read. A line that is no field is left out of
// them and stands in the octets.
func readHeader(b []byte, head, end int) (body int, h gomessage.Header) {
	var fields [][]byte
	body = head
	for body < end {
		next := lineEnd(b, body, end)
		line := b[body:next]
		body = next
		if isEmpty(line) {
			break
		}
		if n := len(fields); isFolded(line) && n > 0 {
			fields[n-1] = fields[n-1][:len(fields[n-1])+len(line)] // they follow one another in b
		} else {
			fields = append(fields, line)
		}
	}
	var text textproto.Header
	for i := len(fields) - 1; i >= 0; i-- { // AddRaw puts a field on top
		if bytes.IndexByte(fields[i], ':') > 0 {
			text.AddRaw(fields[i])
		}
	}
	return body, gomessage.Header{Header: text}
}

func isEmpty(line []byte) bool  { return len(bytes.TrimRight(line, "\r\n")) == 0 }
func isFolded(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

// find is the part with the number path; nil when there is none.
func (t *part) find(path []int) *part {
	at := t
	for i, n := range path {
		if i > 0 && at.message != nil {
			at = at.message
		} else if i > 0 && len(at.children) == 0 {
			return nil
		}
		switch {
		case len(at.children) == 0:
			if n != 1 {
				return nil
			}
		case n < 1 || n > len(at.children):
			return nil
		default:
			at = at.children[n-1]
		}
	}
	return at
}

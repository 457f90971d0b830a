package translate

import (
	"bytes"
	"iter"
)

// A Field is one header field as it stands, or a line that is none.
type Field struct {
	Raw  []byte // all of it, continuation lines and final CRLF included
	Name []byte // as written; nil when these lines are no field
	Body []byte // behind the colon, folded as it stands, without the final CRLF
}

// Is reports whether f is a field of that name, in any case.
func (f Field) Is(name string) bool { return f.Name != nil && bytes.EqualFold(f.Name, []byte(name)) }

// HasPrefix reports whether f begins so, in any case, be it a field or not.
func (f Field) HasPrefix(prefix string) bool {
	return len(f.Raw) >= len(prefix) && bytes.EqualFold(f.Raw[:len(prefix)], []byte(prefix))
}

// Value is the field's body on one line: unfolded, white space around it gone, nothing decoded.
func (f Field) Value() string { return string(unfold(f.Body)) }

// Fields yields a header block's fields in order. Joined, their Raw is the block: what is no field comes without a Name.
// Lines end with CRLF; those that begin with a blank or a tab continue the field above. White space before the colon is
// allowed, as in RFC 5322 §4.5.
func Fields(block []byte) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for len(block) > 0 {
			n := fieldEnd(block)
			if !yield(parseField(block[:n:n])) {
				return
			}
			block = block[n:]
		}
	}
}

// fieldEnd is the length of the first field of block with its continuation lines.
func fieldEnd(block []byte) int {
	for n := 0; ; {
		i := bytes.Index(block[n:], crlf)
		if i < 0 {
			return len(block)
		}
		n += i + 2
		if n == len(block) || block[n] != ' ' && block[n] != '\t' {
			return n
		}
	}
}

func parseField(raw []byte) Field {
	f := Field{Raw: raw}
	n := 0
	for n < len(raw) && raw[n] > ' ' && raw[n] < 0x7f && raw[n] != ':' {
		n++
	}
	colon := n
	for colon < len(raw) && (raw[colon] == ' ' || raw[colon] == '\t' || bytes.HasPrefix(raw[colon:], crlf)) {
		if raw[colon] == '\r' {
			colon++ // a fold: whoever unfolds first finds a field here
		}
		colon++
	}
	if n == 0 || colon == len(raw) || raw[colon] != ':' {
		return f
	}
	f.Name, f.Body = raw[:n:n], bytes.TrimSuffix(raw[colon+1:], crlf)
	return f
}

// unfold is a field's body on one line: the CRLF before white space goes, every other CR, LF and NUL becomes a blank, white
// space around it all goes (dmime.md §12.2). It decodes nothing.
func unfold(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '\r' && i+2 < len(body) && body[i+1] == '\n' && (body[i+2] == ' ' || body[i+2] == '\t'):
			i++
		case c == '\r', c == '\n', c == 0:
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	if out = bytes.Trim(out, " \t"); out == nil {
		out = []byte{} // a field that is there and empty, not an absent one
	}
	return out
}

// Hops counts the hosts that a message has passed, by their Received fields.
func Hops(m Message) int {
	n := 0
	for f := range Fields(m.Header) {
		if f.Is("Received") {
			n++
		}
	}
	return n
}

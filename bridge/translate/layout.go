package translate

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"dimegate/dmtp/message"
)

// The layout block stands at the start of chunk 34: CRLF lines, an empty one at the end (dmime.md §12.2).
//
//	DIME-Layout: 1 hdr=full body=concat
//	DIME-Return: <alice@alpha.example>
//	DIME-Part: n=1; type=image/png; name*=UTF-8''photo.png; size=120344
const (
	layoutLabel = "DIME-Layout: "
	returnLabel = "DIME-Return: "
	partLabel   = "DIME-Part: "

	layoutPrefix = layoutLabel + "1 " // what is not ours does not begin so
	maxLayout    = 64                 // lines, the empty one not counted (dmime.md §15.3)
	maxHints     = maxLayout - 4
	maxPath      = 1024 // octets of a reverse-path: RFC 5321 asks for 256, UTF-8 grows
)

// NullPath is the null reverse-path of RFC 5321 §4.5.5 in Envelope.Return and Export.Return.
const NullPath = "<>"

type layout struct {
	extra bool   // hdr=extra: the rest has the fields only that chunk 33 has not
	body  bool   // body=concat: an empty line, then the parts; otherwise the message ends behind its header block
	path  string // DIME-Return: "" none, NullPath, or an address
}

// A hint says what an attachment is, for clients that show a list without parsing. Nothing depends on it.
type hint struct {
	n    int    // counts body parts; the first attachment is 1
	typ  string // media type, lower case
	name string // file name
	size int    // octets of the part's body as it stands, encoded
}

func (l layout) append(dst []byte, hints []hint) []byte {
	dst = append(dst, layoutPrefix+"hdr=full body="...)
	if l.body {
		dst = append(dst, "concat\r\n"...)
	} else {
		dst = append(dst, "none\r\n"...)
	}
	switch l.path {
	case "":
	case NullPath:
		dst = append(dst, returnLabel+"<>\r\n"...)
	default:
		dst = append(dst, returnLabel+"<"+l.path+">\r\n"...)
	}
	for _, h := range hints {
		dst = h.append(dst)
	}
	return append(dst, "\r\n"...)
}

func (h hint) append(dst []byte) []byte {
	dst = append(dst, partLabel+"n="...)
	dst = strconv.AppendInt(dst, int64(h.n), 10)
	dst = append(dst, "; type="+h.typ...)
	if h.name != "" {
		dst = append(dst, "; name*=UTF-8''"...)
		for i := range len(h.name) {
			dst = appendAttrChar(dst, h.name[i])
		}
	}
	dst = append(dst, "; size="...)
	dst = strconv.AppendInt(dst, int64(h.size), 10)
	return append(dst, "\r\n"...)
}

// appendAttrChar writes one octet of an RFC 8187 ext-value.
func appendAttrChar(dst []byte, c byte) []byte {
	switch {
	case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', strings.IndexByte("!#$&+-.^_`|~", c) >= 0:
		return append(dst, c)
	}
	const hex = "0123456789ABCDEF"
	return append(dst, '%', hex[c>>4], hex[c&15])
}

// hasLayout tells our messages, of this version or a later one, from those of libdime's writers.
func hasLayout(other []byte) bool { return bytes.HasPrefix(other, []byte(layoutLabel)) }

// parseLayout reads the block and returns the octets behind it. Unknown tokens and further DIME- lines are ignored, unknown
// versions and values are not.
func parseLayout(other []byte) (layout, []byte, error) {
	var l layout
	for n := 0; ; n++ {
		line, rest, ended := bytes.Cut(other, crlf)
		switch {
		case !ended || n > maxLayout || bytes.ContainsAny(line, "\r\n\x00"):
			return layout{}, nil, badLayout("no end within its bounds")
		case len(line) == 0 && n == 0:
			return layout{}, nil, badLayout("empty")
		case len(line) == 0:
			return l, rest, nil
		}
		if err := l.line(n, string(line)); err != nil {
			return layout{}, nil, err
		}
		other = rest
	}
}

func (l *layout) line(n int, line string) error {
	if n == 0 {
		return l.first(line)
	}
	if !strings.HasPrefix(line, "DIME-") {
		return badLayout("a line that is not DIME-…")
	}
	path, ok := strings.CutPrefix(line, returnLabel)
	if !ok {
		return nil
	}
	if l.path != "" {
		return badLayout("a second reverse-path")
	}
	if path != NullPath {
		path = strings.TrimSuffix(strings.TrimPrefix(path, "<"), ">")
		if !validPath(path) {
			return badLayout("a reverse-path that is none")
		}
	}
	l.path = path
	return nil
}

func (l *layout) first(line string) error {
	tokens, ok := strings.CutPrefix(line, layoutPrefix)
	if !ok {
		return badLayout("an unknown version")
	}
	var hdr, body string
	for token := range strings.FieldsSeq(tokens) {
		if v, ok := strings.CutPrefix(token, "hdr="); ok {
			hdr += v
		} else if v, ok := strings.CutPrefix(token, "body="); ok {
			body += v
		}
	}
	if hdr != "full" && hdr != "extra" || body != "concat" && body != "none" {
		return badLayout("an unknown hdr or body")
	}
	l.extra, l.body = hdr == "extra", body == "concat"
	return nil
}

func badLayout(reason string) error {
	return fail(message.BadLayout, message.TypeOther, "layout block: "+reason)
}

// validPath is what may stand in the layout block as an address. It bounds and keeps lines apart: who may use which
// address is decided elsewhere.
func validPath(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 || len(s) > maxPath || !utf8.ValidString(s) {
		return false
	}
	quoted := s[0] == '"' && at >= 2 && s[at-1] == '"'
	for _, r := range s {
		if r < ' ' || r == ' ' && !quoted || r == '<' && !quoted || r == '>' && !quoted || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

package translate

import (
	"bytes"
	"crypto/sha512"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"dimegate/dmtp/message"
)

// maxLine is the longest line, without CRLF, of text that is passed on as it is (RFC 5322 §2.1.1).
const maxLine = 998

// legacyOrder is the order of chunk 33's values in a message made from a libdime peer's chunks, by index of commonFields
// (dmime.md §12.5).
var legacyOrder = [...]int{0, 3, 1, 2, 5, 4} // Date, From, To, Cc, Subject, Organization

// lines writes the six values as header fields.
func (c *common) lines() []byte {
	var out []byte
	for _, i := range legacyOrder {
		if c[i] != nil {
			out = append(out, commonFields[i].field+": "...)
			out = append(appendFolded(out, c[i]), "\r\n"...)
		}
	}
	return out
}

// appendFolded folds a value that is too long for a line before white space, where it has any.
func appendFolded(dst, value []byte) []byte {
	for len(value) > maxLine-32 {
		i := bytes.LastIndexAny(value[1:maxLine-32], " \t") + 1
		if i < 1 {
			break
		}
		dst = append(append(dst, value[:i]...), "\r\n"...)
		value = value[i:]
	}
	return append(dst, value...)
}

// legacy makes a message from the chunks of a peer that writes no layout block (dmime.md §12.5). Such peers store lines that
// are no fields in chunk 34, and anything in the parts.
func legacy(head common, c *message.Content, id [64]byte) *Exported {
	block := append(head.lines(), messageID(id, c.Other)...)
	extra, fields := c.Other, allFields(c.Other)
	if !fields {
		extra = nil
	} else if len(extra) > 0 && !bytes.HasSuffix(extra, crlf) {
		extra = append(bytes.Clone(extra), "\r\n"...)
	}
	if fields && has(extra, "Content-Type") && wholeBody(extra, c) {
		e := &Exported{Form: Legacy, pieces: octets{{data: append(block, extra...)}, {data: crlf}}}
		for _, p := range append(c.Display[:len(c.Display):len(c.Display)], c.Attach...) {
			e.pieces = append(e.pieces, piece{data: p.Data})
		}
		return e
	}
	b := builder{id: id}
	for _, p := range objects(c.Display) {
		b.text(p)
	}
	if !fields && len(c.Other) > 0 {
		b.file("other-headers.txt", c.Other)
	}
	for i, p := range objects(c.Attach) {
		b.file(fmt.Sprintf("attachment-%d.bin", i+1), p)
	}
	return &Exported{Form: Legacy, pieces: b.message(append(block, withoutMIME(extra)...))}
}

// raw keeps everything of a message whose layout block is of another version or broken: nothing of it is read as header or
// body, all of it is attached.
func raw(head common, c *message.Content, id [64]byte) *Exported {
	b := builder{id: id}
	b.text([]byte("The sender's gateway laid this message out in a way that this one does not know.\r\nIts parts are attached as they came.\r\n"))
	b.file("other-headers.txt", c.Other)
	for i, p := range objects(c.Display) {
		b.file(fmt.Sprintf("display-%d.bin", i+1), p)
	}
	for i, p := range objects(c.Attach) {
		b.file(fmt.Sprintf("attachment-%d.bin", i+1), p)
	}
	return &Exported{Form: Raw, pieces: b.message(append(head.lines(), messageID(id, nil)...))}
}

// wholeBody tells whether the parts, one behind the other, are the body that chunk 34's Content-Type speaks of: a single
// part is, and so is a multipart whose delimiters are all there.
func wholeBody(header []byte, c *message.Content) bool {
	if len(c.Display)+len(c.Attach) == 1 {
		return len(c.Display) == 1
	}
	typ, params := contentType(header)
	b := params["boundary"]
	if !strings.HasPrefix(typ, "multipart/") || b == "" || len(c.Display) == 0 {
		return false
	}
	last := c.Display[len(c.Display)-1].Data
	if len(c.Attach) > 0 {
		last = c.Attach[len(c.Attach)-1].Data
	}
	return bytes.Contains(c.Display[0].Data, []byte("--"+b)) && bytes.Contains(last, []byte("--"+b+"--"))
}

// objects joins the pieces that flag 128 holds together. Only those are copied.
func objects(parts []message.Part) [][]byte {
	var out [][]byte
	joined := false
	for _, p := range parts {
		if joined {
			last := len(out) - 1
			out[last] = append(out[last][:len(out[last]):len(out[last])], p.Data...)
		} else {
			out = append(out, p.Data)
		}
		joined = p.Flags&message.FlagContinues != 0
	}
	return out
}

func allFields(block []byte) bool {
	if bytes.IndexByte(block, 0) >= 0 || loneEnds(block) {
		return false
	}
	for f := range Fields(block) {
		if f.Name == nil {
			return false
		}
	}
	return true
}

func has(block []byte, name string) bool {
	for f := range Fields(block) {
		if f.Is(name) {
			return true
		}
	}
	return false
}

// withoutMIME drops the fields that the message is about to get anew.
func withoutMIME(block []byte) []byte {
	var out []byte
	for f := range Fields(block) {
		if !f.Is("MIME-Version") && !f.HasPrefix("Content-") {
			out = append(out, f.Raw...)
		}
	}
	return out
}

// messageID is a Message-ID field made from the D/MIME message's id (dmime.md §15.5), or nothing when there is one.
func messageID(id [64]byte, other []byte) []byte {
	if has(other, "Message-ID") {
		return nil
	}
	name := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:20])
	return []byte("Message-ID: <" + strings.ToLower(name) + "@dime.invalid>\r\n")
}

// LoneEnds reports a CR or LF that is not part of a CRLF.
func LoneEnds(b []byte) bool { return loneEnds(b) }

func loneEnds(b []byte) bool {
	pairs := bytes.Count(b, crlf)
	return bytes.Count(b, crlf[:1]) != pairs || bytes.Count(b, crlf[1:]) != pairs
}

// A builder puts a message together from texts and files.
type builder struct {
	id    [64]byte
	parts []built
}

type built struct {
	header string
	body   piece
}

// text adds a display part: as it is where a mail line can carry it, otherwise in base64.
func (b *builder) text(data []byte) {
	charset := "utf-8"
	if !utf8.Valid(data) {
		charset = "unknown-8bit"
	}
	if loneEnds(data) {
		data = normalize(data)
	}
	p := built{header: "Content-Type: text/plain; charset=" + charset + "\r\n"}
	if p.body = (piece{data: data, b64: !mailLines(data)}); p.body.b64 {
		p.header += "Content-Transfer-Encoding: base64\r\n"
	} else {
		p.header += "Content-Transfer-Encoding: 8bit\r\n"
	}
	b.parts = append(b.parts, p)
}

func (b *builder) file(name string, data []byte) {
	b.parts = append(b.parts, built{
		header: "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"" + name + "\"\r\n" +
			"Content-Transfer-Encoding: base64\r\n",
		body: piece{data: data, b64: true},
	})
}

// message ends the header block with the MIME fields and lays the parts behind it.
func (b *builder) message(block []byte) octets {
	block = append(block, "MIME-Version: 1.0\r\n"...)
	switch len(b.parts) {
	case 0:
		return octets{{data: block}, {data: crlf}}
	case 1:
		return octets{{data: append(block, b.parts[0].header...)}, {data: crlf}, b.parts[0].body}
	}
	boundary := b.boundary()
	out := octets{{data: append(block, "Content-Type: multipart/mixed; boundary=\""+boundary+"\"\r\n"...)}}
	for _, p := range b.parts {
		out = append(out, piece{data: []byte("\r\n--" + boundary + "\r\n" + p.header + "\r\n")}, p.body)
	}
	return append(out, piece{data: []byte("\r\n--" + boundary + "--\r\n")})
}

// boundary is a string that no part holds, the same one for the same message.
func (b *builder) boundary() string {
	seed := sha512.Sum512(b.id[:])
	for {
		s := "=_dime_" + hex.EncodeToString(seed[:12])
		in := func() bool {
			for _, p := range b.parts {
				if !p.body.b64 && bytes.Contains(p.body.data, []byte(s)) {
					return true
				}
			}
			return false
		}
		if !in() {
			return s
		}
		seed = sha512.Sum512(seed[:])
	}
}

// mailLines tells whether data can stand in a mail body as it is: CRLF at line ends only, no NUL, no line too long.
func mailLines(data []byte) bool {
	if bytes.IndexByte(data, 0) >= 0 {
		return false
	}
	for len(data) > 0 {
		i := bytes.Index(data, crlf)
		if i < 0 {
			return len(data) <= maxLine
		}
		if i > maxLine {
			return false
		}
		data = data[i+2:]
	}
	return true
}

// normalize makes every line end CRLF.
func normalize(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/32)
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '\r' && i+1 < len(data) && data[i+1] == '\n':
			i++
			out = append(out, "\r\n"...)
		case c == '\r', c == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	return out
}

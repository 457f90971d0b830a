package imapserver

import (
	"bytes"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	gomessage "github.com/emersion/go-message"

	"dimegate/vault/discovery"
)

// cut gives the octets of a section as they stand in the message; none when it has no such section. Source: RFC 9051 §6.4.5.1.
func cut(m *message, b *imap.FetchItemBodySection) []byte {
	p := m.root.find(b.Part)
	if p == nil {
		return nil
	}
	nested := len(b.Part) > 0
	switch b.Specifier {
	case imap.PartSpecifierNone:
		if nested {
			return m.octets[p.body:p.end]
		}
		return m.octets[p.head:p.end]
	case imap.PartSpecifierMIME:
		if nested {
			return m.octets[p.head:p.body]
		}
		return nil
	}
	if nested { // HEADER and TEXT of a part are those of the message in it
		if p = p.message; p == nil {
			return nil
		}
	}
	if b.Specifier == imap.PartSpecifierText {
		return m.octets[p.body:p.end]
	}
	header := m.octets[p.head:p.body]
	switch {
	case len(b.HeaderFields) > 0:
		return fields(header, b.HeaderFields, true)
	case len(b.HeaderFieldsNot) > 0:
		return fields(header, b.HeaderFieldsNot, false)
	}
	return header
}

// fields gives the named fields of a header, or all others, as they stand, and the empty line.
func fields(header []byte, names []string, named bool) []byte {
	var out []byte
	take := false
	for at := 0; at < len(header); {
		next := lineEnd(header, at, len(header))
		line := header[at:next]
		at = next
		if isEmpty(line) {
			break
		}
		if !isFolded(line) {
			name, _, _ := bytes.Cut(line, []byte(":"))
			take = isOneOf(strings.TrimSpace(string(name)), names) == named
		}
		if take {
			out = append(out, line...)
		}
	}
	return append(out, "\r\n"...)
}

func isOneOf(name string, names []string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func partial(b []byte, p *imap.SectionPartial) []byte {
	if p == nil {
		return b
	}
	from := min(p.Offset, int64(len(b)))
	return b[from : from+min(p.Size, int64(len(b))-from)]
}

// received is the internal date: of the first envelope, the time the gateway took it.
func received(i discovery.Item) time.Time {
	if len(i.Envelopes) == 0 {
		return time.Unix(0, 0).UTC()
	}
	return i.Envelopes[0].Received.UTC()
}

func envelope(h gomessage.Header) *imap.Envelope { return imapserver.ExtractEnvelope(h.Header) }

// structure is the tree as BODY and BODYSTRUCTURE tell it.
func structure(octets []byte, p *part) imap.BodyStructure {
	primary, sub, _ := strings.Cut(p.media, "/")
	if len(p.children) > 0 {
		m := &imap.BodyStructureMultiPart{Subtype: sub, Extended: &imap.BodyStructureMultiPartExt{
			Params: p.params, Disposition: disposition(p.header), Language: language(p.header), Location: p.header.Get("Content-Location"),
		}}
		for _, c := range p.children {
			m.Children = append(m.Children, structure(octets, c))
		}
		return m
	}
	content := octets[p.body:p.end]
	lines := int64(bytes.Count(content, []byte("\n")))
	s := &imap.BodyStructureSinglePart{
		Type: primary, Subtype: sub, Params: p.params, ID: p.header.Get("Content-Id"), Description: p.header.Get("Content-Description"),
		Encoding: p.header.Get("Content-Transfer-Encoding"), Size: uint32(len(content)),
		Extended: &imap.BodyStructureSinglePartExt{
			Disposition: disposition(p.header), Language: language(p.header), Location: p.header.Get("Content-Location"),
		},
	}
	if p.message != nil {
		s.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope: envelope(p.message.header), BodyStructure: structure(octets, p.message), NumLines: lines,
		}
	}
	if primary == "text" {
		s.Text = &imap.BodyStructureText{NumLines: lines}
	}
	return s
}

func disposition(h gomessage.Header) *imap.BodyStructureDisposition {
	value, params, err := h.ContentDisposition()
	if err != nil || value == "" {
		return nil
	}
	return &imap.BodyStructureDisposition{Value: value, Params: params}
}

func language(h gomessage.Header) []string {
	var all []string
	for l := range strings.SplitSeq(h.Get("Content-Language"), ",") {
		if l = strings.TrimSpace(l); l != "" {
			all = append(all, l)
		}
	}
	return all
}

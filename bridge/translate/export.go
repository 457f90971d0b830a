package translate

import (
	"bytes"
	"io"

	"dimegate/dmtp/message"
)

// A Form says how exactly an exported message is what its author wrote.
type Form uint8

const (
	Exact  Form = iota // the same octets
	Legacy             // made from a libdime peer's chunks (dmime.md §12.5): the same fields and parts
	Raw                // the layout block is of an unknown kind: every chunk is an attachment as it came
)

func (f Form) String() string { return [...]string{"exact", "legacy", "raw"}[f] }

// An Exported is one RFC 5322 message in its CRLF wire form, in pieces that are slices of the content it was made from.
type Exported struct {
	Form      Form
	Return    string // reverse-path as the author's side gave it: "" none, NullPath, or an address (not checked against any domain)
	HasReturn bool

	pieces octets
}

// Len is the number of octets on the wire.
func (e *Exported) Len() int64 { return e.pieces.len() }

// Reader reads the message from its first octet; each call gives a new reader. It is an io.WriterTo, too, which copies nothing.
func (e *Exported) Reader() io.Reader { return e.pieces.reader() }

// WriteTo writes the message.
func (e *Exported) WriteTo(w io.Writer) (int64, error) { return e.pieces.reader().WriteTo(w) }

// Bytes is the message in one piece, a copy.
func (e *Exported) Bytes() []byte { return e.pieces.join() }

// Parts is the exported message with its header block apart, a Message without a body, and what stands behind that, in the pieces
// that it came in.
func (e *Exported) Parts() (head Message, body Body) {
	if e.Form != Exact {
		m := Split(e.Bytes())
		return Message{Header: m.Header, Separator: m.Separator}, Body{{data: m.Body}}
	}
	return Message{Header: e.pieces[0].data, Separator: len(e.pieces) > 1}, Body(e.pieces[min(2, len(e.pieces)):])
}

// A Body is a message body in pieces.
type Body octets

// Len is the number of octets on the wire.
func (b Body) Len() int64 { return octets(b).len() }

// Reader reads the body from its first octet; each call gives a new reader, an io.WriterTo, too, which copies nothing.
func (b Body) Reader() io.Reader { return octets(b).reader() }

// Export makes the RFC 5322 message of an opened D/MIME message: the octets that Import was given, when a Dimegate made it;
// otherwise a message of the same fields and parts. id is the D/MIME message's, and makes the Message-ID of those that have
// none. Errors: *message.Error of class HeaderMismatch when chunk 33 is not what the header block says, BadHeaders, BadSpan
// and BadFlags. A layout block that we do not know is no error: the form is Raw then, so that nothing is lost.
func Export(c *message.Content, id [64]byte) (*Exported, error) {
	if err := checkParts(c.Display, message.TypeDisplay); err != nil {
		return nil, err
	}
	if err := checkParts(c.Attach, message.TypeAttachment); err != nil {
		return nil, err
	}
	head, err := parseCommon(c.Common)
	if err != nil {
		return nil, err
	}
	if !hasLayout(c.Other) {
		return legacy(head, c, id), nil
	}
	l, block, err := parseLayout(c.Other)
	if err != nil || !l.body && len(c.Display)+len(c.Attach) > 0 {
		return raw(head, c, id), nil
	}
	if !headerBlock(block, l.body) {
		return nil, fail(message.BadLayout, message.TypeOther, "the header block does not end where its layout says")
	}
	e := &Exported{Return: l.path, HasReturn: l.path != ""}
	if l.extra {
		block, e.Form = append(head.lines(), block...), Legacy
	} else if err := head.check(block); err != nil {
		return nil, err
	}
	e.pieces = octets{{data: block}}
	if l.body {
		e.pieces = append(e.pieces, piece{data: crlf})
		for _, p := range c.Display {
			e.pieces = append(e.pieces, piece{data: p.Data})
		}
		for _, p := range c.Attach {
			e.pieces = append(e.pieces, piece{data: p.Data})
		}
	}
	return e, nil
}

// headerBlock tells whether a reader of the message finds the end of its header where the layout block has it. Otherwise the
// start of the body could be read as fields that nobody has looked at.
func headerBlock(block []byte, separator bool) bool {
	if bytes.HasPrefix(block, crlf) || bytes.Contains(block, []byte("\r\n\r\n")) {
		return false
	}
	return !separator || len(block) == 0 || bytes.HasSuffix(block, crlf)
}

// checkParts holds the pieces of objects to their grammar: flag 128 on every piece but the last, and no flag that says the
// data is not what it is.
func checkParts(parts []message.Part, t message.Type) error {
	for i, p := range parts {
		if p.Flags&^message.FlagContinues != 0 {
			return fail(message.BadFlags, t, "data that is not plain")
		}
		if p.Flags&message.FlagContinues != 0 && i == len(parts)-1 {
			return fail(message.BadSpan, t, "the last piece says that there is another")
		}
	}
	return nil
}

// Package translate turns an RFC 5322 message into the content of a D/MIME message and back, octet for octet.
//
// The original octets are carried verbatim and the parts are slices of them (dmime.md §12.2): the header block is chunk
// 34 behind a small layout block, the body is chunks 67 and 131 in order, and chunk 33 is derived from the header block and
// only checked on the way back. So Export(Import(m)) is m for every m, whatever its structure; where the body is cut
// matters for display alone. Octets in, octets out: nothing here knows a file, a connection or the clock.
package translate

import (
	"bytes"
	"errors"
	"io"
)

// A Message is one RFC 5322 message in its CRLF wire form, in two parts that share the memory of what they were split from.
type Message struct {
	Header []byte // the header block, with the CRLF of its last field, without the empty line behind it
	Body   []byte // what stands behind the empty line
	// Separator tells whether there is an empty line. Without one all of the message is Header and Body is empty.
	Separator bool
}

var crlf = []byte("\r\n")

// Split finds the empty line that ends the header block: the first CRLF that stands at the start of a line. Lines end with
// CRLF and nothing else. Nothing is copied.
func Split(raw []byte) Message {
	if bytes.HasPrefix(raw, crlf) {
		return Message{Header: raw[:0:0], Body: raw[2:], Separator: true}
	}
	i := bytes.Index(raw, []byte("\r\n\r\n"))
	if i < 0 {
		return Message{Header: raw}
	}
	return Message{Header: raw[: i+2 : i+2], Body: raw[i+4:], Separator: true}
}

// Len is the number of octets on the wire.
func (m Message) Len() int64 {
	n := int64(len(m.Header)) + int64(len(m.Body))
	if m.Separator {
		n += 2
	}
	return n
}

// Reader reads the message from its first octet. It copies nothing; each call gives a new reader.
func (m Message) Reader() io.Reader { return m.octets().reader() }

// Bytes is the message in one piece, a copy.
func (m Message) Bytes() []byte { return m.octets().join() }

func (m Message) octets() octets {
	if m.Separator {
		return octets{{data: m.Header}, {data: crlf}, {data: m.Body}}
	}
	return octets{{data: m.Header}}
}

// ErrHeader means that a header block is larger than it may be.
var ErrHeader = errors.New("translate: header block too large")

// ReadHead reads as much of a message as has its header block, and what came with that. A message without the empty line is all
// header.
func ReadHead(r io.Reader, limit int) (Message, error) {
	buf := make([]byte, 0, 8<<10)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), limit+4)])
		from := max(0, len(buf)-3)
		buf = buf[:len(buf)+n]
		switch {
		case bytes.Contains(buf[from:], []byte("\r\n\r\n")), bytes.HasPrefix(buf, []byte("\r\n")), err == io.EOF:
			return Split(buf), nil
		case err != nil:
			return Message{}, err
		case len(buf) >= limit:
			return Message{}, ErrHeader
		}
	}
}

package smtpwire

import (
	"bytes"
	"io"
)

// A Message is octets that can be read more than once: to see what they need, to send them, and to send them again when a
// kept connection turns out to be dead.
type Message interface {
	Len() int64
	Reader() io.Reader // from the first octet
}

// Octets is a Message in memory.
type Octets []byte

func (o Octets) Len() int64        { return int64(len(o)) }
func (o Octets) Reader() io.Reader { return bytes.NewReader(o) }

// OnTop is m with octets before it.
func OnTop(top []byte, m Message) Message {
	if len(top) == 0 {
		return m
	}
	return &onTop{top, m}
}

type onTop struct {
	top []byte
	m   Message
}

func (o *onTop) Len() int64        { return int64(len(o.top)) + o.m.Len() }
func (o *onTop) Reader() io.Reader { return &onTopReader{bytes.NewReader(o.top), o.m.Reader()} }

// onTopReader is io.MultiReader for two, without its buffer.
type onTopReader struct {
	top  *bytes.Reader
	rest io.Reader
}

func (r *onTopReader) Read(p []byte) (int, error) {
	if r.top.Len() > 0 {
		return r.top.Read(p)
	}
	return r.rest.Read(p)
}

func (r *onTopReader) WriteTo(w io.Writer) (int64, error) {
	n, err := r.top.WriteTo(w)
	if err != nil {
		return n, err
	}
	k, err := io.Copy(w, r.rest)
	return n + k, err
}

// Facts are what a message asks of an SMTP server.
type Facts struct {
	Octets   int64
	EightBit bool // an octet above 127 anywhere
	BareEnds bool // CR or LF that is no line end
	NUL      bool
	FinalEnd bool // the last line ends with CRLF
	Longest  int  // the longest line, with its CRLF
}

// Examine reads a message to its end.
func Examine(r io.Reader) (Facts, error) {
	var e examiner
	if _, err := io.Copy(&e, r); err != nil {
		return Facts{}, err
	}
	e.BareEnds = e.BareEnds || e.cr
	e.Longest = max(e.Longest, e.line)
	return e.Facts, nil
}

// An examiner looks at octets as they pass.
type examiner struct {
	Facts
	cr   bool // the last octet was CR
	line int  // octets of the line
}

func (e *examiner) Write(p []byte) (int, error) {
	e.Octets += int64(len(p))
	for _, c := range p {
		e.line++
		if e.cr != (c == '\n') {
			e.BareEnds = true
		}
		e.FinalEnd = false
		if c == '\n' {
			e.FinalEnd = e.cr
			e.Longest = max(e.Longest, e.line)
			e.line = 0
		}
		e.cr = c == '\r'
		e.EightBit = e.EightBit || c > 0x7f
		e.NUL = e.NUL || c == 0
	}
	return len(p), nil
}

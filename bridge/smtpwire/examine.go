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
func OnTop(top []byte, m Message) Message { return &onTop{top, m} }

type onTop struct {
	top []byte
	m   Message
}

func (o *onTop) Len() int64 { return int64(len(o.top)) + o.m.Len() }
func (o *onTop) Reader() io.Reader {
	return io.MultiReader(bytes.NewReader(o.top), o.m.Reader())
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
	var f Facts
	var cr bool
	line := 0
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		f.Octets += int64(n)
		for _, c := range buf[:n] {
			line++
			if cr != (c == '\n') {
				f.BareEnds = true
			}
			f.FinalEnd = false
			if c == '\n' {
				f.FinalEnd = cr
				f.Longest = max(f.Longest, line)
				line = 0
			}
			cr = c == '\r'
			f.EightBit = f.EightBit || c > 0x7f
			f.NUL = f.NUL || c == 0
		}
		if err == io.EOF {
			f.BareEnds = f.BareEnds || cr
			f.Longest = max(f.Longest, line)
			return f, nil
		}
		if err != nil {
			return Facts{}, err
		}
	}
}

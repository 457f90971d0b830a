package export

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"dimegate/vault/discovery"
)

// An mbox is mboxrd: of each message a line "From SENDER DATE" LF, the message's exact octets, in which each line of any number
// of '>' and "From " has one '>' more, and one LF, which is not the message's. Taking one '>' from each such line and the last LF
// away gives the octets.

// newMboxMessage writes the separator line of an item and returns the writer of its octets; Close ends it.
func newMboxMessage(w io.Writer, item discovery.Item) (*mboxMessage, error) {
	from, received := "MAILER-DAEMON", time.Unix(0, 0).UTC()
	if len(item.Envelopes) > 0 {
		e := item.Envelopes[0]
		received = e.Received.UTC()
		if e.From != "" {
			from = strings.Map(func(r rune) rune {
				if r <= ' ' || r == 0x7f {
					return '_'
				}
				return r
			}, e.From)
		}
	}
	_, err := fmt.Fprintf(w, "From %s %s\n", from, received.Format(time.ANSIC))
	return &mboxMessage{w: w}, err
}

// An mboxMessage quotes the octets of one message.
type mboxMessage struct {
	w    io.Writer
	deep bool   // within a line, behind what could be "From "
	held []byte // the beginning of "From ", not written yet
}

var fromLine = []byte("From ")

func (m *mboxMessage) Write(p []byte) (int, error) {
	n := len(p)
	var out bytes.Buffer
	for len(p) > 0 {
		if m.deep {
			i := bytes.IndexByte(p, '\n') + 1
			if m.deep = i == 0; m.deep {
				i = len(p)
			}
			out.Write(p[:i])
			p = p[i:]
			continue
		}
		c := p[0]
		p = p[1:]
		switch {
		case c == '>' && len(m.held) == 0: // one of many; where among them one more stands is all the same
			out.WriteByte(c)
		case c == fromLine[len(m.held)]:
			if m.held = append(m.held, c); len(m.held) == len(fromLine) {
				out.WriteByte('>')
				m.release(&out)
			}
		default:
			m.release(&out)
			out.WriteByte(c)
			m.deep = c != '\n'
		}
	}
	_, err := m.w.Write(out.Bytes())
	return n, err
}

func (m *mboxMessage) release(out *bytes.Buffer) {
	out.Write(m.held)
	m.held, m.deep = m.held[:0], true
}

// Close ends the message.
func (m *mboxMessage) Close() error {
	_, err := m.w.Write(append(m.held, '\n'))
	m.held = nil
	return err
}

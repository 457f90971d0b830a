// Package smtpwire is SMTP octet for octet: a guard that go-smtp's server reads through, and a client of our own.
//
// go-smtp parses commands and speaks the extensions; what it leaves open at its edges is closed here. Its server hands bare
// CR, bare LF and NUL on, loses two octets of CRLF "." CR x, takes a chunk that ends with the connection for a whole one,
// and goes on reading a chunk as commands when it does not like the BDAT before it. Its client rewrites line ends, sends
// neither BDAT nor several commands at once, and says EHLO localhost before STARTTLS.
package smtpwire

import (
	"bytes"
	"errors"
	"io"
)

// Why a body is refused.
var (
	ErrBareEnd  = errors.New("smtpwire: CR or LF that is no line end (RFC 5321 §2.3.8)")
	ErrLongLine = errors.New("smtpwire: a line over the limit")
	ErrTooLarge = errors.New("smtpwire: a message over the limit")
)

// MaxLine is the longest line, without its CRLF, that passes. RFC 5321 §4.5.3.1.6 asks for 998; printers and old programs
// write longer ones, and losing their mail helps nobody.
const MaxLine = 1 << 20

// A LineReader passes on a message whose lines end with CRLF, and nothing else: CR and LF apart are refused, or made CRLF. It
// also holds the message to its size. After an error nothing more is read from the reader under it.
type LineReader struct {
	r         io.Reader
	normalize bool
	left      int64  // octets that may still come out
	line      int    // octets of the current line
	cr        bool   // the last octet read was CR
	in, out   []byte // where lines are mended
	err       error
}

// NewLineReader reads r, of which at most limit octets may come out. normalize makes CRLF of every CR or LF that stands alone.
func NewLineReader(r io.Reader, limit int64, normalize bool) *LineReader {
	return &LineReader{r: r, left: limit, normalize: normalize}
}

// Err is what ended reading: nil before the end, io.EOF after a whole message.
func (l *LineReader) Err() error { return l.err }

func (l *LineReader) Read(p []byte) (int, error) {
	switch {
	case l.err != nil:
		return 0, l.err
	case len(p) == 0:
		return 0, nil
	case l.normalize:
		return l.mend(p)
	}
	n, err := l.r.Read(p)
	if cerr := l.check(p[:n]); cerr != nil {
		l.err = cerr
		return 0, cerr
	}
	if err == io.EOF && l.cr {
		err = ErrBareEnd
	}
	l.err = err
	return n, err
}

// check holds b to line ends, line length and size.
func (l *LineReader) check(b []byte) error {
	if l.left -= int64(len(b)); l.left < 0 {
		return ErrTooLarge
	}
	for len(b) > 0 {
		if l.cr != (b[0] == '\n') { // a CR without its LF, or a LF without its CR
			return ErrBareEnd
		}
		if l.cr {
			l.cr, l.line, b = false, 0, b[1:]
			continue
		}
		n := bytes.IndexByte(b, '\n')
		if n < 0 {
			n = len(b)
		}
		// Before the LF, or the end of what is here, a CR may stand as the very last octet.
		i := bytes.IndexByte(b[:n], '\r')
		if i >= 0 && i != n-1 || i < 0 && n < len(b) {
			return ErrBareEnd
		}
		l.cr = i >= 0
		if l.line += n; l.line > MaxLine+1 || l.line > MaxLine && !l.cr {
			return ErrLongLine
		}
		b = b[n:]
	}
	return nil
}

// mend fills p with lines that end with CRLF.
func (l *LineReader) mend(p []byte) (int, error) {
	for len(l.out) == 0 {
		if l.in == nil {
			l.in = make([]byte, 16<<10)
		}
		n, err := l.r.Read(l.in)
		if l.out, l.err = l.append(l.out[:0], l.in[:n]), err; len(l.out) == 0 && err != nil {
			return 0, err
		}
		l.err = nil // the reader under it tells again
		if l.left -= int64(len(l.out)); l.left < 0 {
			l.err = ErrTooLarge
		} else if l.line > MaxLine {
			l.err = ErrLongLine
		}
		if l.err != nil {
			return 0, l.err
		}
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

func (l *LineReader) append(out, b []byte) []byte {
	for _, c := range b {
		switch {
		case c == '\n' && l.cr: // its CR has been written as CRLF
			l.cr = false
			continue
		case c == '\r', c == '\n':
			out = append(out, "\r\n"...)
			l.cr = c == '\r'
			if l.line <= MaxLine {
				l.line = 0
			}
			continue
		}
		out = append(out, c)
		l.cr = false
		l.line++
	}
	return out
}

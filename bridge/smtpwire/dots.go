package smtpwire

import (
	"bufio"
	"bytes"
	"io"
)

// A dotReader is one DATA body: octets up to CRLF "." CRLF, and nothing else ends it. It takes one "." from the start of each
// line that has one, as RFC 5321 §4.5.2 says; lines end with CRLF only. Every other octet passes as it is.
type dotReader struct {
	in   *bufio.Reader
	bol  bool // at the start of a line
	cr   bool // the last octet was CR
	done bool
}

func newDotReader(in *bufio.Reader) *dotReader { return &dotReader{in: in, bol: true} }

func (d *dotReader) Read(p []byte) (n int, err error) {
	for n < len(p) && (n == 0 || d.in.Buffered() > 0) {
		if d.done {
			return n, io.EOF
		}
		if d.bol {
			switch ended, err := d.dot(); {
			case err != nil:
				return n, err
			case ended:
				d.done = true
				return n, io.EOF
			}
		}
		if _, err := d.in.Peek(1); err != nil {
			return n, cutShort(err)
		}
		b, _ := d.in.Peek(min(d.in.Buffered(), len(p)-n)) // at least that one
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[:i+1]
		}
		k := len(b)
		d.bol = b[k-1] == '\n' && (k > 1 && b[k-2] == '\r' || k == 1 && d.cr)
		d.cr = b[k-1] == '\r'
		n += copy(p[n:], b)
		d.in.Discard(k)
	}
	return n, nil
}

// dot looks at the start of a line: is it the end, or has it a dot to lose?
func (d *dotReader) dot() (ended bool, err error) {
	b, err := d.in.Peek(1)
	if err != nil {
		return false, cutShort(err)
	}
	if b[0] != '.' {
		return false, nil
	}
	if b, err = d.in.Peek(3); err != nil {
		return false, cutShort(err)
	}
	d.bol, d.cr = false, false
	if b[1] == '\r' && b[2] == '\n' {
		d.in.Discard(3)
		return true, nil
	}
	d.in.Discard(1)
	return false, nil
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A dotWriter writes a DATA body: a "." before each line that begins with one, and the end. It changes nothing else, so that
// what is written must have CRLF line ends only. Close ends the body with CRLF if it has no line end of its own, which DATA
// cannot carry otherwise.
type dotWriter struct {
	w    io.Writer
	prev [2]byte // the last two octets; CRLF at the start
}

func newDotWriter(w io.Writer) *dotWriter { return &dotWriter{w: w, prev: [2]byte{'\r', '\n'}} }

func (d *dotWriter) Write(p []byte) (int, error) {
	total := len(p)
	if len(p) > 0 && p[0] == '.' && d.prev == [2]byte{'\r', '\n'} {
		if _, err := io.WriteString(d.w, "."); err != nil {
			return 0, err
		}
	}
	for q := p; ; { // a dot behind CRLF within p, or behind an LF whose CR came before
		i := bytes.Index(q, []byte("\n."))
		if i < 0 {
			break
		}
		cr := d.prev[1]
		if at := len(p) - len(q) + i; at > 0 {
			cr = p[at-1]
		}
		if cr != '\r' {
			q = q[i+1:]
			continue
		}
		cut := len(p) - len(q) + i + 1
		if _, err := d.w.Write(p[:cut]); err != nil {
			return total - len(p), err
		}
		if _, err := io.WriteString(d.w, "."); err != nil {
			return total - len(p) + cut, err
		}
		d.remember(p[:cut])
		p = p[cut:]
		q = p[1:] // past the dot
	}
	n, err := d.w.Write(p)
	d.remember(p)
	return total - len(p) + n, err
}

func (d *dotWriter) remember(p []byte) {
	switch n := len(p); {
	case n >= 2:
		d.prev = [2]byte{p[n-2], p[n-1]}
	case n == 1:
		d.prev = [2]byte{d.prev[1], p[0]}
	}
}

func (d *dotWriter) Close() error {
	end := ".\r\n"
	if d.prev != [2]byte{'\r', '\n'} {
		end = "\r\n.\r\n"
	}
	_, err := io.WriteString(d.w, end)
	return err
}

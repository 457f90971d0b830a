package translate

import (
	"bytes"
	"encoding/base64"
	"io"
)

// octets is a message in pieces, most of them slices of somebody else's memory.
type octets []piece

// A piece is data as it stands, or in base64 in lines of 76.
type piece struct {
	data []byte
	b64  bool
}

const (
	b64Line   = 57             // octets in a line of 76 characters
	b64Stride = b64Line * 1024 // octets encoded at one time
)

func (p piece) len() int64 {
	if !p.b64 {
		return int64(len(p.data))
	}
	lines := (len(p.data) + b64Line - 1) / b64Line
	return int64(base64.StdEncoding.EncodedLen(len(p.data)) + 2*lines)
}

func (o octets) len() int64 {
	var n int64
	for _, p := range o {
		n += p.len()
	}
	return n
}

func (o octets) join() []byte {
	b := bytes.NewBuffer(make([]byte, 0, o.len()))
	if _, err := o.reader().WriteTo(b); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

func (o octets) reader() *reader { return &reader{rest: o} }

// A reader reads octets piece by piece. Memory: one stride of base64.
type reader struct {
	rest octets
	now  []byte // what is left of the piece, or of its encoded stride
}

func (r *reader) fill() bool {
	for len(r.now) == 0 {
		if len(r.rest) == 0 {
			return false
		}
		p := &r.rest[0]
		if !p.b64 {
			r.now, r.rest = p.data, r.rest[1:]
			continue
		}
		n := min(len(p.data), b64Stride)
		r.now = encodeLines(p.data[:n])
		if next := (piece{p.data[n:], true}); len(next.data) == 0 {
			r.rest = r.rest[1:]
		} else {
			r.rest = append(octets{next}, r.rest[1:]...) // the caller's pieces stay as they are
		}
	}
	return true
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !r.fill() {
		return 0, io.EOF
	}
	n := copy(p, r.now)
	r.now = r.now[n:]
	return n, nil
}

// WriteTo hands the pieces on as they are, without a buffer between.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for r.fill() {
		n, err := w.Write(r.now)
		total += int64(n)
		r.now = r.now[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func encodeLines(data []byte) []byte {
	out := make([]byte, 0, piece{data, true}.len())
	for len(data) > 0 {
		n := min(len(data), b64Line)
		out = base64.StdEncoding.AppendEncode(out, data[:n])
		out = append(out, "\r\n"...)
		data = data[n:]
	}
	return out
}

package dmtp

import (
	"bufio"
	"errors"
	"io"
)

// Line limits, line end included.
const (
	MaxCommandSent = 512      // what a client sends at most
	MaxCommandLine = 1024     // what a server reads
	MaxReplySent   = 4095     // beyond it libdime loses the line
	MaxReplyLine   = 64 << 10 // what a client reads
	MaxReplyLines  = 4096
	MaxReplyOctets = 8 << 20
	maxDiscarded   = 1 << 20 // octets of one overlong line that are read on, to find its end
	DefaultMaxData = 64 << 20
	HardMaxData    = 1<<32 - 1 // by the message's own length field
	MaxHistory     = 64        // signets in one reply to HIST
)

var (
	// ErrLineTooLong says that a line was longer than the limit and has been read to its end.
	ErrLineTooLong = errors.New("dmtp: line too long")
	// ErrLineEndless says that a line was so long that its end was not looked for.
	ErrLineEndless = errors.New("dmtp: line without end")
	// ErrLineOctets says that a line holds an octet that has no place in it: NUL, another control, a CR that is not before LF.
	ErrLineOctets = errors.New("dmtp: octet not allowed in a line")
)

// ReadLine reads one line of at most limit octets, line end included, and returns it without its end, CRLF or LF. The line is
// valid until the next read of r, whose buffer must hold limit octets or more. Controls other than HTAB are ErrLineOctets;
// octets over 126 are too, unless loose is set. After ErrLineTooLong and ErrLineOctets the next line can be read. An end of
// input within a line is io.ErrUnexpectedEOF.
func ReadLine(r *bufio.Reader, limit int, loose bool) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, discardLine(r, len(line))
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if len(line) > limit {
		return nil, ErrLineTooLong
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f || c > 0x7f && !loose {
			return nil, ErrLineOctets
		}
	}
	return line, nil
}

func discardLine(r *bufio.Reader, n int) error {
	for n < maxDiscarded {
		part, err := r.ReadSlice('\n')
		if err == nil {
			return ErrLineTooLong
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		n += len(part)
	}
	return ErrLineEndless
}

package dmtp

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLine(t *testing.T) {
	tests := map[string]struct {
		in   string
		want []string // "!" and the error's name for errors
	}{
		"crlf and lf":        {"a\r\nb\nc\r\n", []string{"a", "b", "c", "!EOF"}},
		"empty":              {"\r\n\n", []string{"", "", "!EOF"}},
		"unfinished":         {"a\r\nQUIT", []string{"a", "!unexpected"}},
		"at the limit":       {strings.Repeat("a", 30) + "\r\n", []string{strings.Repeat("a", 30), "!EOF"}},
		"over the limit":     {strings.Repeat("a", 31) + "\r\nb\n", []string{"!long", "b", "!EOF"}},
		"over the buffer":    {strings.Repeat("a", 500) + "\nb\n", []string{"!long", "b", "!EOF"}},
		"without end":        {strings.Repeat("a", maxDiscarded+100), []string{"!endless"}},
		"bare CR":            {"a\rb\r\nc\n", []string{"!octets", "c", "!EOF"}},
		"two CR":             {"a\r\r\nc\n", []string{"!octets", "c", "!EOF"}},
		"NUL":                {"a\x00\r\nc\n", []string{"!octets", "c", "!EOF"}},
		"DEL":                {"a\x7f\r\nc\n", []string{"!octets", "c", "!EOF"}},
		"tab":                {"a\tb\r\n", []string{"a\tb", "!EOF"}},
		"eight bits":         {"\xe9\r\nc\n", []string{"!octets", "c", "!EOF"}},
		"long then too long": {strings.Repeat("a", 100) + "\n" + strings.Repeat("a", 100) + "\nb\n", []string{"!long", "!long", "b", "!EOF"}},
	}
	names := map[string]error{"!EOF": io.EOF, "!unexpected": io.ErrUnexpectedEOF, "!long": ErrLineTooLong, "!endless": ErrLineEndless, "!octets": ErrLineOctets}
	for name, tt := range tests {
		for kind, wrap := range map[string]func(io.Reader) io.Reader{"": func(r io.Reader) io.Reader { return r }, " octet by octet": iotest.OneByteReader} {
			t.Run(name+kind, func(t *testing.T) {
				r := bufio.NewReaderSize(wrap(strings.NewReader(tt.in)), 64)
				for i, want := range tt.want {
					line, err := ReadLine(r, 32, false)
					if e, isErr := names[want]; isErr {
						if !errors.Is(err, e) {
							t.Fatalf("line %d: %q, %v; want %v", i, line, err, e)
						}
					} else if err != nil || string(line) != want {
						t.Fatalf("line %d: %q, %v; want %q", i, line, err, want)
					}
				}
			})
		}
	}
}

func TestReadReply(t *testing.T) {
	long := "250 " + strings.Repeat("a", MaxReplyLine-6) + "\r\n"
	tests := map[string]struct {
		in   string
		want Reply
		err  error
	}{
		"one line":           {"250 OK\r\n", Reply{250, "OK"}, nil},
		"magma's LF":         {"221 BYE\n", Reply{221, "BYE"}, nil},
		"empty text":         {"250 \r\n", Reply{250, ""}, nil},
		"lines":              {"250-a\r\n250-\r\n250 OK\r\n", Reply{250, "a\n\nOK"}, nil},
		"tab":                {"250\tOK\r\n", Reply{250, "OK"}, nil},
		"eight bits":         {"550 d\xe9j\xe0\r\n", Reply{550, "d\xe9j\xe0"}, nil},
		"longest line":       {long, Reply{250, long[4 : len(long)-2]}, nil},
		"longer line":        {"2" + long, Reply{}, ErrReply},
		"code alone":         {"250\r\n", Reply{}, ErrReply},
		"no code":            {"OK\r\n", Reply{}, ErrReply},
		"empty":              {"\r\n", Reply{}, ErrReply},
		"code of four":       {"2500 OK\r\n", Reply{}, ErrReply},
		"code of nine":       {"950 OK\r\n", Reply{}, ErrReply},
		"code of zero":       {"050 OK\r\n", Reply{}, ErrReply},
		"other code":         {"250-a\r\n251 OK\r\n", Reply{}, ErrReply},
		"NUL":                {"250 O\x00K\r\n", Reply{}, ErrReply},
		"bare CR":            {"250 a\r250 OK\r\n", Reply{}, ErrReply},
		"unfinished":         {"250-a\r\n", Reply{}, io.EOF},
		"unfinished line":    {"250 a", Reply{}, io.ErrUnexpectedEOF},
		"never-ending lines": {strings.Repeat("250-\r\n", MaxReplyLines+1) + "250 OK\r\n", Reply{}, ErrReply},
		"too many octets":    {strings.Repeat("250-"+strings.Repeat("a", 60000)+"\r\n", 150) + "250 OK\r\n", Reply{}, ErrReply},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ReadReply(bufio.NewReaderSize(strings.NewReader(tt.in), MaxReplyLine))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d %.40q, %v; want %d %.40q, %v", got.Code, got.Text, err, tt.want.Code, tt.want.Text, tt.err)
			}
		})
	}
}

func TestReplyLines(t *testing.T) {
	got := strings.Join(Reply{290, "[a]\n[b]\nOK"}.Lines(), "")
	if want := "290-[a]\r\n290-[b]\r\n290 OK\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestToken(t *testing.T) {
	var b [64]byte
	b[0], b[63] = 0xff, 1
	tok := TokenOf(b)
	if got, ok := tok.Octets(); !ok || got != b || len(tok) != TokenLen {
		t.Errorf("%s does not come back", tok)
	}
	for name, bad := range map[string]Token{"placeholder": "fingerprint", "padded": tok + "=", "short": tok[1:], "url alphabet": "-" + tok[1:], "empty": ""} {
		if bad.WellFormed() {
			t.Errorf("%s is well-formed", name)
		}
	}
	spare := tok[:85] + "R" // the same octets with spare bits set
	if _, ok := spare.Octets(); ok || !spare.WellFormed() {
		t.Error("spare bits: well-formed, but equal to nothing")
	}
}

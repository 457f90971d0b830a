package smtpwire

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestExamine(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Facts
	}{
		"empty":         {"", Facts{}},
		"lines":         {"a\r\nbcd\r\n", Facts{Octets: 8, FinalEnd: true, Longest: 5}},
		"no final end":  {"a\r\nbcdefg", Facts{Octets: 9, Longest: 6}},
		"bare LF":       {"a\nb\r\n", Facts{Octets: 5, BareEnds: true, FinalEnd: true, Longest: 3}},
		"ends with LF":  {"a\n", Facts{Octets: 2, BareEnds: true, Longest: 2}},
		"ends with CR":  {"a\r", Facts{Octets: 2, BareEnds: true, Longest: 2}},
		"CR CR LF":      {"\r\r\n", Facts{Octets: 3, BareEnds: true, FinalEnd: true, Longest: 3}},
		"8 bit and NUL": {"\x80\x00\r\n", Facts{Octets: 4, EightBit: true, NUL: true, FinalEnd: true, Longest: 4}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := Examine(strings.NewReader(tt.in)); got != tt.want || err != nil {
				t.Errorf("%+v, %v", got, err)
			}
			if got, err := Examine(iotest.OneByteReader(strings.NewReader(tt.in))); got != tt.want || err != nil {
				t.Errorf("one by one: %+v, %v", got, err)
			}
		})
	}
	if _, err := Examine(iotest.ErrReader(ErrTooLarge)); err != ErrTooLarge {
		t.Errorf("a reader that fails: %v", err)
	}
}

func TestOnTop(t *testing.T) {
	m := OnTop([]byte("top\r\n"), Octets("rest"))
	if m.Len() != 9 {
		t.Errorf("Len is %d", m.Len())
	}
	for range 2 {
		if err := iotest.TestReader(m.Reader(), []byte("top\r\nrest")); err != nil {
			t.Error(err)
		}
		var b strings.Builder
		if n, err := io.Copy(&b, m.Reader()); n != 9 || err != nil || b.String() != "top\r\nrest" {
			t.Errorf("%d, %v, %q", n, err, b.String())
		}
	}
}

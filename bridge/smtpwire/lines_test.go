package smtpwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	tests := map[string]struct {
		in     string
		err    error
		mended string
		merr   error
	}{
		"empty":               {"", nil, "", nil},
		"lines":               {"a\r\n\r\nb\r\n", nil, "a\r\n\r\nb\r\n", nil},
		"no final line end":   {"a\r\nb", nil, "a\r\nb", nil},
		"bare LF":             {"a\nb\r\n", ErrBareEnd, "a\r\nb\r\n", nil},
		"LF first":            {"\na", ErrBareEnd, "\r\na", nil},
		"LF LF":               {"a\r\n\n", ErrBareEnd, "a\r\n\r\n", nil},
		"bare CR":             {"a\rb\r\n", ErrBareEnd, "a\r\nb\r\n", nil},
		"CR CR LF":            {"a\r\r\n", ErrBareEnd, "a\r\n\r\n", nil},
		"CR last":             {"a\r", ErrBareEnd, "a\r\n", nil},
		"dots between LF":     {"a\n.\nb", ErrBareEnd, "a\r\n.\r\nb", nil},
		"NUL and 8 bit":       {"\x00\xff\r\n", nil, "\x00\xff\r\n", nil},
		"longest line":        {long + "\r\n", nil, long + "\r\n", nil},
		"line over the limit": {"a\r\n" + long + "x\r\n", ErrLongLine, "", ErrLongLine},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.HalfReader(strings.NewReader(tt.in)), iotest.DataErrReader(strings.NewReader(tt.in)), iotest.OneByteReader(strings.NewReader(tt.in))} {
				l := NewLineReader(r, 4<<20, false)
				if got, err := io.ReadAll(l); !errors.Is(err, tt.err) || err == nil && string(got) != tt.in {
					t.Errorf("%d octets, %v", len(got), err)
				} else if err == nil && l.Err() != io.EOF {
					t.Errorf("Err is %v", l.Err())
				}
			}
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				if got, err := io.ReadAll(iotest.HalfReader(NewLineReader(r, 4<<20, true))); !errors.Is(err, tt.merr) || err == nil && string(got) != tt.mended {
					t.Errorf("mended: %.40q, %v", got, err)
				}
			}
		})
	}
}

func TestLineReaderLimit(t *testing.T) {
	for _, normalize := range []bool{false, true} {
		if got, err := io.ReadAll(NewLineReader(strings.NewReader("12\r\n"), 4, normalize)); err != nil || len(got) != 4 {
			t.Errorf("at the limit: %q, %v", got, err)
		}
		if _, err := io.ReadAll(NewLineReader(strings.NewReader("123\r\n"), 4, normalize)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("over the limit: %v", err)
		}
	}
	if _, err := io.ReadAll(NewLineReader(strings.NewReader("1\n2\n"), 4, true)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("grown over the limit: %v", err)
	}
}

// Whatever comes in, in whatever pieces, what comes out has no lone CR or LF and the same other octets.
func TestLineReaderMendsAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := []byte(strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", "\r", "\n", ".", "x", "\x00"})).Draw(t, "in"), ""))
		got, err := io.ReadAll(NewLineReader(iotest.OneByteReader(bytes.NewReader(in)), 1<<20, true))
		if err != nil {
			t.Fatal(err)
		}
		if f, err := Examine(bytes.NewReader(got)); err != nil || f.BareEnds {
			t.Fatalf("%q has a lone CR or LF, %v", got, err)
		}
		strip := func(b []byte) string { return strings.NewReplacer("\r", "", "\n", "").Replace(string(b)) }
		if strip(in) != strip(got) {
			t.Fatalf("%q became %q", in, got)
		}
	})
}

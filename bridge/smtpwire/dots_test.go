package smtpwire

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestDotReader(t *testing.T) {
	tests := map[string]struct{ in, body, rest string }{
		"ordinary":            {"a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"},
		"empty":               {".\r\nQUIT\r\n", "", "QUIT\r\n"},
		"empty line":          {"\r\n.\r\nx", "\r\n", "x"},
		"stuffed":             {"..\r\n...\r\n.a\r\n.\r\nx", ".\r\n..\r\na\r\n", "x"},
		"LF . LF":             {"a\n.\nb\r\n.\r\nx", "a\n.\nb\r\n", "x"},
		"LF . CRLF":           {"a\n.\r\nb\r\n.\r\nx", "a\n.\r\nb\r\n", "x"},
		"CRLF . LF":           {"a\r\n.\nb\r\n.\r\nx", "a\r\n\nb\r\n", "x"},
		"CR . CR":             {"a\r.\rb\r\n.\r\nx", "a\r.\rb\r\n", "x"},
		"CRLF . CR x":         {"a\r\n.\rxb\r\n.\r\nx", "a\r\n\rxb\r\n", "x"},
		"CRLF . CR CR LF":     {"a\r\n.\r\r\n.\r\nx", "a\r\n\r\r\n", "x"},
		"CR CR LF . CR LF":    {"a\r\r\n.\r\nx", "a\r\r\n", "x"},
		"CR LF LF . CR LF":    {"a\r\n\n.\r\nb\r\n.\r\nx", "a\r\n\n.\r\nb\r\n", "x"},
		"NUL before the dot":  {"a\r\n\x00.\r\nb\r\n.\r\nx", "a\r\n\x00.\r\nb\r\n", "x"},
		"dot, NUL, line end":  {"a\r\n.\x00\r\nb\r\n.\r\nx", "a\r\n\x00\r\nb\r\n", "x"},
		"dot, blank":          {"a\r\n. \r\n.\r\nx", "a\r\n \r\n", "x"},
		"dot CR dot CR LF":    {"a\r\n.\r.\r\nb\r\n.\r\nx", "a\r\n\r.\r\nb\r\n", "x"},
		"nothing but the dot": {".\r\n", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				in := bufio.NewReaderSize(r, 16)
				body, err := io.ReadAll(newDotReader(in))
				if err != nil || string(body) != tt.body {
					t.Errorf("body %q, %v", body, err)
				}
				if rest, _ := io.ReadAll(in); string(rest) != tt.rest {
					t.Errorf("rest %q", rest)
				}
			}
		})
	}
	for _, in := range []string{"", "a", "a\r\n", "a\r\n.", "a\r\n.\r"} {
		if _, err := io.ReadAll(newDotReader(bufio.NewReader(strings.NewReader(in)))); err != io.ErrUnexpectedEOF {
			t.Errorf("%q cut short: %v", in, err)
		}
	}
}

// What is written, in any pieces, is read again, whatever it is; only a missing final line end is added.
func TestDotsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", "\r", "\n", ".", ".\r\n", "\r\n.", "x", "\n.", "\x00"})).Draw(t, "pieces")
		var wire bytes.Buffer
		w := newDotWriter(&wire)
		for _, p := range pieces {
			if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
				t.Fatalf("wrote %d of %d, %v", n, len(p), err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		want := strings.Join(pieces, "")
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		in := bufio.NewReaderSize(iotest.HalfReader(&wire), 16)
		got, err := io.ReadAll(newDotReader(in))
		if err != nil || string(got) != want {
			t.Fatalf("%q came back as %q, %v", want, got, err)
		}
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Fatalf("%d octets behind the end", len(rest))
		}
	})
}

func BenchmarkDots(b *testing.B) {
	body := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and over it again, and again.\r\n"), 13_000)
	var wire bytes.Buffer
	w := newDotWriter(&wire)
	w.Write(body)
	w.Close()
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			r := NewLineReader(newDotReader(bufio.NewReaderSize(bytes.NewReader(wire.Bytes()), 32<<10)), 1<<30, false)
			if n, err := io.Copy(io.Discard, r); n != int64(len(body)) || err != nil {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			w := newDotWriter(io.Discard)
			w.Write(body)
			w.Close()
		}
	})
	b.Run("examine", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := Examine(bytes.NewReader(body)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

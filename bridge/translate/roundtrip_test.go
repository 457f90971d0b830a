package translate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"dimegate/dmtp/message"
	"dimegate/internal/testmail"
)

var (
	now = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	env = Envelope{Author: "alice@alpha.example", Now: now}
)

// trip imports and exports raw with and without dmime-multi and checks all that must hold for any message.
func trip(t testing.TB, env Envelope, raw []byte) {
	t.Helper()
	for _, multi := range []bool{false, true} {
		env.MultiOK = multi
		c, err := Import(env, raw)
		if err != nil {
			t.Fatalf("import, multi %v: %v", multi, err)
		}
		if err := refSafe(c, multi); err != nil {
			t.Fatalf("multi %v: %v", multi, err)
		}
		e, err := Export(c, [64]byte{})
		if err != nil {
			t.Fatalf("export, multi %v: %v", multi, err)
		}
		if e.Form != Exact || e.Return != env.Return || e.HasReturn != (env.Return != "") {
			t.Errorf("multi %v: form %v, reverse-path %q", multi, e.Form, e.Return)
		}
		if got := e.Bytes(); !bytes.Equal(got, raw) {
			t.Fatalf("multi %v: %d octets in, %d out, not the same", multi, len(raw), len(got))
		}
		if e.Len() != int64(len(raw)) {
			t.Errorf("Len says %d of %d", e.Len(), len(raw))
		}
		if m := joined(t, e); !bytes.Equal(m.Bytes(), raw) {
			t.Error("the parts differ")
		}
	}
}

// joined is an exported message from its parts.
func joined(t testing.TB, e *Exported) Message {
	t.Helper()
	m, body := e.Parts()
	b, err := io.ReadAll(body.Reader())
	if err != nil || int64(len(b)) != body.Len() || m.Len()+body.Len() != e.Len() {
		t.Fatalf("%v: %d octets of body, Len says %d of %d", err, len(b), body.Len(), e.Len())
	}
	m.Body = b
	return m
}

// refSafe holds content to what libdime reads (dmime.md §11).
func refSafe(c *message.Content, multi bool) error {
	head, err := parseCommon(c.Common)
	if err != nil {
		return err
	}
	for i, row := range commonFields {
		if row.required && head[i] == nil {
			return fmt.Errorf("chunk 33 lacks %s", row.field)
		}
	}
	if len(c.Other) == 0 {
		return errors.New("chunk 34 is empty")
	}
	if !multi && (len(c.Display) > 1 || len(c.Attach) > 1) {
		return errors.New("several chunks of a kind without dmime-multi")
	}
	if len(c.Display)+len(c.Attach)+otherChunks > maxChunks {
		return errors.New("too many chunks")
	}
	for _, p := range append(c.Display[:len(c.Display):len(c.Display)], c.Attach...) {
		if len(p.Data) == 0 || len(p.Data) > message.MaxData {
			return fmt.Errorf("a part of %d octets", len(p.Data))
		}
	}
	return nil
}

func TestRoundTripOurs(t *testing.T) {
	all := testmail.Ours(t)
	if len(all) < 50 {
		t.Errorf("only %d messages", len(all))
	}
	for _, m := range all {
		t.Run(m.Name, func(t *testing.T) { trip(t, env, m.Raw) })
	}
}

func TestRoundTripCorpus(t *testing.T) {
	for _, m := range testmail.Corpus(t) {
		t.Run(m.Name, func(t *testing.T) { trip(t, env, m.Raw) })
	}
}

// Any octets are a message, and any message comes out as it went in.
func TestRoundTripAnyOctets(t *testing.T) {
	odd := rapid.SampledFrom([]string{"\r\n", "\r\n\r\n", "\r", "\n", "\x00", " ", "\t", ":", "To: a@b\r\n", "Cc:", "Date:\r\n", "Subject: x\r\n y\r\n",
		"Content-Type: multipart/mixed; boundary=b\r\n", "\r\n--b\r\n", "\r\n--b--", "--b", "DIME-Layout: 1 hdr=full body=none\r\n", "\xff\xfe", ".", "x"})
	rapid.Check(t, func(t *rapid.T) {
		var raw []byte
		if rapid.Bool().Draw(t, "shaped") {
			raw = []byte(strings.Join(rapid.SliceOfN(odd, 0, 60).Draw(t, "pieces"), ""))
		} else {
			raw = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "octets")
		}
		env := env
		env.Return = rapid.SampledFrom([]string{"", NullPath, "bounce@alpha.example", "jörg@alpha.example"}).Draw(t, "return")
		before := bytes.Clone(raw)
		tripRapid(t, env, raw)
		if !bytes.Equal(before, raw) {
			t.Fatal("the input was written to")
		}
	})
}

func tripRapid(t *rapid.T, env Envelope, raw []byte) {
	for _, multi := range []bool{false, true} {
		env.MultiOK = multi
		c, err := Import(env, raw)
		if err == nil {
			err = refSafe(c, multi)
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := Export(c, [64]byte{})
		if err != nil || !bytes.Equal(e.Bytes(), raw) || e.Return != env.Return || e.Form != Exact {
			t.Fatalf("export: %v, same %v", err, err == nil && bytes.Equal(e.Bytes(), raw))
		}
	}
}

func TestRoundTripGenerated(t *testing.T) {
	part := "--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\nx\r\n"
	mixed := "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	tests := map[string]struct {
		raw      string
		attached int // attachment chunks with dmime-multi
	}{
		"two parts":                {mixed + part + part + "--b--\r\n", 1},
		"1000 parts":               {mixed + strings.Repeat(part, 1000) + "--b--\r\n", 999},
		"1024 parts":               {mixed + strings.Repeat(part, 1024) + "--b--\r\n", maxObjects - 1},
		"10,000 parts":             {mixed + strings.Repeat(part, 10000) + "--b--\r\n", maxObjects - 1},
		"10,000 delimiters":        {mixed + strings.Repeat("\r\n--b", 10000), maxObjects - 1},
		"header line of 1 MB":      {"X-Long: " + strings.Repeat("x", 1_000_000) + "\r\n\r\nbody\r\n", 0},
		"subject of 1 MB":          {"Subject: " + strings.Repeat("x", 1_000_000) + "\r\n\r\nbody\r\n", 0},
		"20,000 To fields":         {strings.Repeat("To: bob@bravo.example\r\n", 20000) + "\r\nbody\r\n", 0},
		"many fields":              {strings.Repeat("a:\r\n", 200_000) + "\r\nbody\r\n", 0},
		"body of one 10 MB line":   {"\r\n" + strings.Repeat("x", 10<<20), 0},
		"hints beside a full head": {"X: " + strings.Repeat("x", MaxHeader-250) + "\r\n" + mixed + part + part + part, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			trip(t, env, []byte(tt.raw))
			env := env
			env.MultiOK = true
			c, err := Import(env, []byte(tt.raw))
			if err != nil || len(c.Attach) != tt.attached {
				t.Errorf("%d attachments, want %d, error %v", len(c.Attach), tt.attached, err)
			}
		})
	}
}

// 100 MB need dmime-multi, and no second copy.
func TestRoundTripLarge(t *testing.T) {
	const size = 100 << 20
	head := "Subject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n"
	raw := append(make([]byte, 0, size+len(head)+16), head...)
	for len(raw) < size {
		raw = append(raw, "The quick brown fox jumps over the lazy dog, and over it again, and again.\r\n"...)
	}
	raw = append(raw, "--b--\r\n"...)
	if _, err := Import(env, raw); !errors.Is(err, ErrNeedsMulti) {
		t.Errorf("without dmime-multi: %v", err)
	}
	env := env
	env.MultiOK = true
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			c, err := Import(env, raw)
			if err != nil {
				b.Fatal(err)
			}
			e, err := Export(c, [64]byte{})
			if err != nil {
				b.Fatal(err)
			}
			if n, err := e.WriteTo(io.Discard); n != int64(len(raw)) || err != nil {
				b.Fatalf("%d octets, %v", n, err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 1<<20 {
		t.Errorf("%d octets allocated for a trip of %d", allocated, len(raw))
	}
	c, err := Import(env, raw)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Export(c, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	w := &comparer{want: raw}
	if _, err := io.Copy(w, struct{ io.Reader }{e.Reader()}); err != nil || len(w.want) > 0 {
		t.Errorf("differs: %v, %d octets left", err, len(w.want))
	}
	for i, p := range c.Attach {
		if want := i < len(c.Attach)-1; (p.Flags == message.FlagContinues) != want {
			t.Errorf("piece %d has flags %d", i, p.Flags)
		}
	}
}

type comparer struct{ want []byte }

func (c *comparer) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.want, p) {
		return 0, errors.New("other octets")
	}
	c.want = c.want[len(p):]
	return len(p), nil
}

func TestReaderAnyCut(t *testing.T) {
	o := octets{{data: []byte("abc")}, {}, {data: bytes.Repeat([]byte{0xff}, 3*b64Stride+5), b64: true}, {data: []byte("x"), b64: true}, {b64: true}, {data: []byte("end")}}
	want := o.join()
	if int64(len(want)) != o.len() {
		t.Errorf("len says %d of %d", o.len(), len(want))
	}
	got, err := io.ReadAll(iotest.OneByteReader(o.reader()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("one by one: %v, same %v", err, bytes.Equal(got, want))
	}
	if err := iotest.TestReader(o.reader(), want); err != nil {
		t.Error(err)
	}
	if again := o.join(); !bytes.Equal(again, want) {
		t.Error("reading changed the pieces")
	}
}

func FuzzTranslate(f *testing.F) {
	for _, m := range testmail.Ours(f) {
		f.Add(m.Raw, []byte("DIME-Layout: 1 hdr=full body=concat\r\nDIME-Return: <>\r\n\r\nTo: a\r\n"), []byte("Date: \r\nTo: a\r\nFrom: \r\nSubject: \r\n"), m.Raw)
		f.Add([]byte("\r\n"), m.Raw, []byte("Date: \r\nTo: \r\nFrom: b\r\nSubject: \r\n"), m.Raw)
	}
	f.Fuzz(func(t *testing.T, raw, other, common, part []byte) {
		if len(raw) < MaxHeader/2 {
			trip(t, env, raw)
			prepared, _ := Prepare(preparation, Split(raw))
			trip(t, env, prepared.Bytes())
		}
		// What a peer sends may be anything: no panic, and what is made of it can be split and read.
		c := &message.Content{Other: other, Common: common, Display: []message.Part{{Data: part}}, Attach: []message.Part{{Data: part}}}
		e, err := Export(c, [64]byte{1})
		if err != nil {
			return
		}
		if got := e.Bytes(); int64(len(got)) != e.Len() {
			t.Errorf("%v: Len says %d, is %d", e.Form, e.Len(), len(got))
		}
		if m, split := joined(t, e), Split(e.Bytes()); !bytes.Equal(m.Header, split.Header) || !bytes.Equal(m.Body, split.Body) || m.Separator != split.Separator {
			t.Errorf("%v: Message ends its header elsewhere", e.Form)
		}
		if e.Form != Exact && loneEnds(joined(t, e).Header) {
			t.Errorf("%v: a header block with lone CR or LF", e.Form)
		}
	})
}

func BenchmarkTrip(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		head := "From: alice@alpha.example\r\nTo: bob@bravo.example\r\nSubject: x\r\nDate: Thu, 26 Nov 2026 10:00:00 +0100\r\nMessage-ID: <x@alpha.example>\r\n\r\n"
		raw := []byte(head + strings.Repeat("x", size-len(head)))
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				c, err := Import(env, raw)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Export(c, [64]byte{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

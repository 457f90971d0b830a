package vault_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"dimegate/vault"
)

// seal seals plain, written in the pieces given (the rest at once).
func seal(t rapid.TB, key vault.Secret, plain []byte, pieces ...int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := vault.NewStreamWriter(&b, key, vault.PartBody, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range append(pieces, len(plain)) {
		n = min(n, len(plain))
		if k, err := w.Write(plain[:n]); k != n || err != nil {
			t.Fatalf("Write: %d, %v", k, err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("wrote after Close")
	}
	return b.Bytes()
}

func open(r io.Reader, key vault.Secret, part vault.Part, context string) ([]byte, error) {
	s, err := vault.NewStreamReader(r, key, part, []byte(context))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

const segment = 64 << 10

// streamLengths are those around which a segmented format goes wrong.
var streamLengths = []int{0, 1, 15, 16, 100, segment - 16, segment - 1, segment, segment + 1, 2*segment - 1, 2 * segment, 2*segment + 1, 3*segment + 7}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestStreamRoundTrip(t *testing.T) {
	key := vault.NewSecret()
	for _, n := range streamLengths {
		plain := pattern(n)
		sealed := seal(t, key, plain)
		if got := int64(len(sealed)); got != vault.SealedSize(int64(n)) {
			t.Errorf("%d octets are sealed in %d, SealedSize says %d", n, got, vault.SealedSize(int64(n)))
		}
		got, err := open(bytes.NewReader(sealed), key, vault.PartBody, "")
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d octets: %d back, %v", n, len(got), err)
		}
	}
	sealed := seal(t, key, pattern(segment+9), 1, segment-2, 3)
	got, err := open(iotest.OneByteReader(iotest.DataErrReader(bytes.NewReader(sealed))), key, vault.PartBody, "")
	if err != nil || !bytes.Equal(got, pattern(segment+9)) {
		t.Errorf("octet by octet: %d back, %v", len(got), err)
	}
}

// TestStreamIsWhole cuts, extends, flips, drops, doubles and swaps.
func TestStreamIsWhole(t *testing.T) {
	key := vault.NewSecret()
	const header = 70
	seg := segment + 16
	whole := seal(t, key, pattern(2*segment+9))
	other := seal(t, key, pattern(2*segment+9))
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := map[string]struct {
		sealed []byte
		want   error
	}{
		"empty":                {nil, vault.ErrTruncated},
		"header cut":           {whole[:header-1], vault.ErrTruncated},
		"header alone":         {whole[:header], vault.ErrTruncated},
		"cut in a segment":     {whole[:header+100], vault.ErrCorrupt},
		"cut after a segment":  {whole[:header+seg], vault.ErrTruncated},
		"cut after two":        {whole[:header+2*seg], vault.ErrTruncated},
		"last octet gone":      {whole[:len(whole)-1], vault.ErrCorrupt},
		"one octet more":       {cat(whole, []byte{0}), vault.ErrCorrupt},
		"twice":                {cat(whole, whole), vault.ErrCorrupt},
		"segment dropped":      {cat(whole[:header], whole[header+seg:]), vault.ErrCorrupt},
		"segments swapped":     {cat(whole[:header], whole[header+seg:header+2*seg], whole[header:header+seg], whole[header+2*seg:]), vault.ErrCorrupt},
		"segment of another":   {cat(whole[:header], other[header:header+seg], whole[header+seg:]), vault.ErrCorrupt},
		"header of another":    {cat(other[:header], whole[header:]), vault.ErrCorrupt},
		"other magic":          {cat([]byte("DSR2"), whole[4:]), vault.ErrCorrupt},
		"other suite":          {cat(whole[:4], []byte{2}, whole[5:]), vault.ErrCorrupt},
		"other salt":           {cat(whole[:6], []byte{^whole[6]}, whole[7:]), vault.ErrWrongKey},
		"other commitment":     {cat(whole[:69], []byte{^whole[69]}, whole[70:]), vault.ErrWrongKey},
		"part of another kind": {vault.SealOctets(key, vault.PartEnvelope, nil, []byte("x")), vault.ErrCorrupt},
		"other context":        {vault.SealOctets(key, vault.PartBody, []byte("row"), []byte("x")), vault.ErrWrongKey},
		"other key":            {seal(t, vault.NewSecret(), []byte("x")), vault.ErrWrongKey},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := open(bytes.NewReader(tt.sealed), key, vault.PartBody, "")
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if !bytes.HasPrefix(pattern(2*segment+9), got) {
				t.Error("gave out octets that were not sealed")
			}
		})
	}
}

// TestStreamProperty: any flip of any octet is refused, any cut too, whatever the pieces in which it was written, and
// nothing is given out that was not sealed there.
func TestStreamProperty(t *testing.T) {
	key := vault.NewSecret()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 300), rapid.SampledFrom(streamLengths)).Draw(t, "length")
		pieces := rapid.SliceOfN(rapid.IntRange(0, segment+2), 0, 5).Draw(t, "pieces")
		plain := pattern(n)
		sealed := seal(t, key, plain, pieces...)
		got, err := open(bytes.NewReader(sealed), key, vault.PartBody, "")
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("round trip: %d of %d octets, %v", len(got), n, err)
		}
		bad := bytes.Clone(sealed)
		bad[rapid.IntRange(0, len(bad)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if got, err := open(bytes.NewReader(bad), key, vault.PartBody, ""); err == nil || !bytes.HasPrefix(plain, got) {
			t.Fatalf("a flipped octet passed: %v", err)
		}
		cut := rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")
		if got, err := open(bytes.NewReader(sealed[:cut]), key, vault.PartBody, ""); err == nil || !bytes.HasPrefix(plain, got) {
			t.Fatalf("a cut passed: %v", err)
		}
	})
}

// TestStreamEveryBit flips each bit of a short stream.
func TestStreamEveryBit(t *testing.T) {
	key := vault.NewSecret()
	sealed := seal(t, key, []byte("the merger closes on Friday"))
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := open(bytes.NewReader(bad), key, vault.PartBody, ""); err == nil || len(got) != 0 {
			t.Fatalf("bit %d: gave %d octets, %v", i, len(got), err)
		}
	}
}

func FuzzStreamReader(f *testing.F) {
	key, err := vault.SecretOf(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(vault.SealOctets(key, vault.PartBody, nil, nil))
	f.Add(vault.SealOctets(key, vault.PartBody, nil, []byte("seed")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := open(bytes.NewReader(b), key, vault.PartBody, ""); err == nil && int64(len(b)) != vault.SealedSize(int64(len(got))) {
			t.Errorf("%d octets opened to %d", len(b), len(got))
		}
	})
}

func BenchmarkStream(b *testing.B) {
	key, plain := vault.NewSecret(), pattern(1<<20)
	sealed := vault.SealOctets(key, vault.PartBody, nil, plain)
	b.Run("seal/1MiB", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			w, err := vault.NewStreamWriter(io.Discard, key, vault.PartBody, nil)
			if err != nil {
				b.Fatal(err)
			}
			w.Write(plain)
			w.Close()
		}
	})
	b.Run("open/1MiB", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			r, err := vault.NewStreamReader(bytes.NewReader(sealed), key, vault.PartBody, nil)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("seal/100B", func(b *testing.B) {
		for b.Loop() {
			vault.SealOctets(key, vault.PartRecipient, nil, plain[:100])
		}
	})
}

package message

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

// appendixVector is appendix A of dmime.md.
type appendixVector struct {
	Actors map[string]struct {
		Enc, Sign, X vectors.Hex
		KEKIV        vectors.Hex `json:"kek_iv"`
		KEKKey       vectors.Hex `json:"kek_key"`
		Fingerprint  string
		Signet       []byte
	}
	Ephemeral vectors.Hex
	IV67      vectors.Hex `json:"chunk67_iv"`
	Key67     vectors.Hex `json:"chunk67_key"`
	TreeInput vectors.Hex `json:"tree_input_sha512"`
	ID        vectors.Hex
	Message   []byte
	Naked     []byte `json:"prime_naked"`
}

func appendix(t testing.TB) (v appendixVector) {
	t.Helper()
	b, err := os.ReadFile("testdata/appendix.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v appendixVector) cast(t *testing.T) *cast {
	t.Helper()
	c := new(cast)
	for i, name := range actorNames {
		a := v.Actors[name]
		s, err := signet.Parse(a.Signet)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		*c.party(Actor(i)) = Party{Signet: s}
		signing, err1 := key.NewSigning(a.Sign)
		encryption, err2 := key.NewEncryption(a.Enc)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.pairs[i] = key.Pair{Signing: signing, Encryption: encryption}
	}
	return c
}

func TestAppendix(t *testing.T) {
	v := appendix(t)
	c := v.cast(t)
	m, err := Parse(v.Message, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if p := m.point.Bytes(); !bytes.Equal(p[:], v.Ephemeral) {
		t.Errorf("ephemeral key %x", p)
	}
	for i, name := range actorNames {
		a := v.Actors[name]
		if x := c.pairs[i].Encryption.ECDH(m.point); !bytes.Equal(x[:], a.X) {
			t.Errorf("%s: x %x", name, x)
		}
		if !(kekVector{a.KEKIV, a.KEKKey}).equal(agree(c.pairs[i].Encryption, m.point)) {
			t.Errorf("%s: another kek", name)
		}
		fp, err := c.party(Actor(i)).Signet.Fingerprint(signet.Crypto)
		if err != nil || fp.String() != a.Fingerprint {
			t.Errorf("%s: fingerprint %v, %v", name, fp, err)
		}
	}
	if input := m.tree(false); len(input) != 448 {
		t.Errorf("tree input of %d octets", len(input))
	} else if h := sha512.Sum512(input); !bytes.Equal(h[:], v.TreeInput) {
		t.Errorf("tree input %x", h)
	}
	if id := m.ID(); !bytes.Equal(id[:], v.ID) {
		t.Errorf("id %x", id)
	}
	for a := range actorNames {
		o, content, err := read(v.Message, Actor(a), c.pairs[a].Encryption, c.Parties)
		if err != nil {
			t.Fatalf("%v: %v", Actor(a), err)
		}
		if content != nil {
			compareAppendix(t, o, v, content)
		}
	}
	o, _, err := read(v.Message, Origin, c.pairs[Origin].Encryption, c.Parties)
	if err != nil {
		t.Fatal(err)
	}
	if signed, err := o.SignOrigin(c.pairs[Origin].Signing); err != nil || !bytes.Equal(signed.Bytes(), v.Message) {
		t.Errorf("signed again, it is another message: %v", err)
	}
}

func compareAppendix(t *testing.T, o *Opened, v appendixVector, content *Content) {
	t.Helper()
	for i, want := range []struct {
		typ                      Type
		payload, data, pad, size int
	}{
		{2, 33, 0, 0, 37}, {4, 368, 283, 16, 564}, {5, 400, 277, 54, 596}, {33, 272, 158, 45, 404}, {34, 272, 33, 170, 404},
		{67, 256, 38, 149, 388}, {131, 304, 26, 209, 436}, {225, 64, 0, 0, 260}, {226, 64, 0, 0, 260},
		{248, 64, 0, 0, 324}, {249, 64, 0, 0, 324}, {255, 64, 0, 0, 324},
	} {
		c := o.m.chunks[i]
		if c.typ != want.typ || c.payload != want.payload || c.end()-c.start != want.size {
			t.Errorf("chunk %d is %+v", i, c)
		}
		if kinds[c.typ].form != standard {
			continue
		}
		p, err := o.standard(c)
		if err != nil || len(p.data) != want.data || p.flags != 0 || int(p.payload[signatureSize+4]) != want.pad {
			t.Errorf("chunk %d: %v, %d octets of data", c.typ, err, len(p.data))
		}
	}
	c, _ := o.m.find(TypeDisplay)
	if k := o.kek.unwrap(o.m.slot(c, o.actor)); !bytes.Equal(k.iv[:], v.IV67) || !bytes.Equal(k.key[:], v.Key67) {
		t.Errorf("chunk 67: %x", k)
	}
	want := Content{
		Common: []byte("Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nTo: Bob <bob@destination.example>\r\n" +
			"From: Alice <alice@origin.example>\r\nOrganization: Example Org\r\nSubject: Vector one\r\n"),
		Other:   []byte("Message-ID: <v1@origin.example>\r\n"),
		Display: []Part{{Data: []byte("Hello Bob.\r\nThis is the display part.\r")}}, // 38 octets, as the appendix's table has it; its text shows an LF more
		Attach:  []Part{{Data: []byte("attachment octets \x00\x01\xff end\x00")}},
	}
	if !bytes.Equal(content.Common, want.Common) || !bytes.Equal(content.Other, want.Other) || len(content.Display) != 1 ||
		!bytes.Equal(content.Display[0].Data, want.Display[0].Data) || len(content.Attach) != 1 || !bytes.Equal(content.Attach[0].Data, want.Attach[0].Data) {
		t.Errorf("content %q", content)
	}
}

// TestPRIME: its messages are refused as what they are.
func TestPRIME(t *testing.T) {
	v := appendix(t)
	if _, err := Parse(v.Naked, Limits{}); !errors.Is(err, UnsupportedVariant) {
		t.Errorf("naked message: %v", err)
	}
	renumbered := bytes.Clone(v.Naked)
	renumbered[0], renumbered[1] = messageNumber>>8, messageNumber&0xff
	if _, err := Parse(renumbered, Limits{}); !errors.Is(err, UnsupportedVariant) || !errors.Is(err, Malformed) {
		t.Errorf("its chunks under our number: %v", err)
	}
	renumbered[9] = 70 // neither of the two lengths that PRIME's first chunk has
	if _, err := Parse(renumbered, Limits{}); !errors.Is(err, BadChunkType) {
		t.Errorf("any chunk of type 1: %v", err)
	}
}

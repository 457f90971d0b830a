package message

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzLayer: whatever lies in a wrapped chunk, nothing panics, what is read of header, boxes and rest are the same octets again,
// and nobody gets content beside an error.
func FuzzLayer(f *testing.F) {
	var keys []LayerKey
	for _, id := range Suites() {
		k, err := GenerateLayerKey(id)
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, k)
		c := layerContext{suite: k.suite, secret: make([]byte, layerSecret)}
		header, err := c.boxes(nil, k.private().PublicKey())
		if err != nil {
			f.Fatal(err)
		}
		whole, err := c.seal(nil, header, &typedPart{TypeCommon, Part{flagAltLayer, []byte("Subject: one\r\n")}}, 0, 64)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(TypeCommon), whole)
		f.Add(byte(TypeDisplay), append([]byte{1, byte(id >> 8), byte(id), 1, 33}, whole[len(header):]...))
	}
	f.Fuzz(func(t *testing.T, typ byte, b []byte) {
		before := bytes.Clone(b)
		h, err := parseLayer(Type(typ), b)
		if err == nil {
			if !bytes.Equal(append(bytes.Clone(h.header), h.sealed...), b) {
				t.Error("header and rest are not the input")
			}
			size := layerHeader
			for _, x := range h.boxes {
				size += boxHeader + len(x.sealed)
			}
			if size != len(h.header) {
				t.Error("header and boxes do not fit together")
			}
		} else if !errors.Is(err, AltUnknown) && !errors.Is(err, AltAuth) {
			t.Errorf("%v is no error of the layer", err)
		}
		o := &Opened{m: new(Message), actor: Recipient, layerKeys: keys}
		o.UseLayer(keys...)
		if c, err := o.layered(TypeCommon, standardPayload{flags: flagAltLayer, data: bytes.Clone(b)}, 0); (c == nil) == (err == nil) {
			t.Errorf("content of %d octets beside %v", len(c), err)
		}
		if !bytes.Equal(b, before) {
			t.Error("the chunk was written to")
		}
	})
}

package trustful_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dimegate/dmtp/message"
)

// TestSealOpenProperty: whatever the content's shape, the recipient gets what the author gave.
func TestSealOpenProperty(t *testing.T) {
	alpha, bravo := newSides(t)
	bob := enrol(t, bravo, "bob@bravo.example")
	parts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) message.Part {
		return message.Part{Data: rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(t, "data")}
	}), 0, 4)
	rapid.Check(t, func(r *rapid.T) {
		c := letter("x")
		c.Display, c.Attach = parts.Draw(r, "display"), parts.Draw(r, "attach")
		c.Other = append(c.Other, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "other")...)
		got, err := bravo.keeper.Open(t.Context(), carry(t, alpha, to("alice@alpha.example", bravo, bob), c))
		if err != nil {
			r.Fatal(err)
		}
		same := func(a, b message.Part) bool { return a.Flags == b.Flags && bytes.Equal(a.Data, b.Data) }
		if !bytes.Equal(got.Content.Common, c.Common) || !bytes.Equal(got.Content.Other, c.Other) ||
			!slices.EqualFunc(got.Content.Display, c.Display, same) || !slices.EqualFunc(got.Content.Attach, c.Attach, same) {
			r.Error("another content came out")
		}
	})
}

package message_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

// FuzzMessage: whatever the octets, nothing panics, what parses is the same octets again, and nobody gets content beside an
// error. The keys are those of the vectors' first message, so that mutations of it reach beyond the first decryption.
func FuzzMessage(f *testing.F) {
	set := vectors.Open(f)
	w := vectorWorld(f, set)
	for _, part := range []string{"messages", "negative_messages"} {
		for _, raw := range vectors.Part[[]json.RawMessage](f, set, part) {
			f.Add(set.File(f, loose[struct{ File string }](f, raw).File))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := message.Parse(b, message.Limits{})
		if err != nil {
			return
		}
		if !bytes.Equal(m.Bytes(), b) || len(m.Tracing())+len(m.Body()) > len(b) {
			t.Error("other octets")
		}
		var joined []byte
		for _, c := range m.Chunks() {
			joined = append(joined, c.Octets...)
		}
		if !bytes.Equal(joined, m.Body()[6:]) {
			t.Error("the chunks are not the body")
		}
		a := actors[len(b)%len(actors)] // one is dear enough: see FuzzPlain for what lies inside
		if o, err := m.Open(a, w.keys[a].Encryption); err == nil {
			err = o.Verify(w.seen(a))
			content, cerr := o.Content()
			if err != nil && (cerr == nil || content != nil) {
				t.Error("content of a message that does not verify")
			}
		}
		if !bytes.Equal(b, before) {
			t.Error("the message was written to")
		}
	})
}

// loose decodes what is wanted of an entry that other tests read whole.
func loose[T any](tb testing.TB, raw json.RawMessage) (v T) {
	tb.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

// vectorWorld is the four of the first message of the vectors: the same keys in every process.
func vectorWorld(tb testing.TB, set *vectors.Set) *world {
	tb.Helper()
	type actor struct{ Address, Keys, Signet string }
	first := loose[struct{ Actors map[string]actor }](tb, vectors.Part[[]json.RawMessage](tb, set, "messages")[0]).Actors
	files := vectors.Part[map[string]json.RawMessage](tb, set, "keys")
	w := new(world)
	for i, p := range []*message.Party{&w.Author, &w.Origin, &w.Destination, &w.Recipient} {
		v := first[message.Actor(i).String()]
		f, err := key.ParseFile(set.File(tb, loose[struct{ File string }](tb, files[v.Keys]).File))
		if err != nil {
			tb.Fatal(err)
		}
		s, err := signet.Decode(set.File(tb, v.Signet))
		if err != nil {
			tb.Fatal(err)
		}
		*p, w.keys[i] = message.Party{Name: v.Address, Signet: s}, f.Pair
	}
	return w
}

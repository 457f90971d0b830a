package message_test

import (
	"crypto/rand"
	"errors"
	"runtime"
	"strings"
	"testing"

	"dimegate/dmtp/message"
	"dimegate/internal/vectors"
)

// TestVectorsLargeMessages writes the sizes that the reference writes and refuses those that it refuses. Two differences, both
// by the profile of dmime.md §11: several attachments need signets that advertise dmime-multi, for libdime's own reader fails
// over them; and where those do, what is larger than a chunk is cut instead of refused.
func TestVectorsLargeMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 110 MB of messages")
	}
	type checks struct {
		Tree       bool `json:"author_tree"`
		TreeProper bool `json:"author_tree_with_one_slot_per_chunk"`
		Full       bool `json:"author_full"`
		Meta       bool `json:"origin_meta_bounce"`
		Display    bool `json:"origin_display_bounce"`
		OriginFull bool `json:"origin_full"`
	}
	type item struct {
		What      string
		Sizes     []int
		Authoring string
		Size      int     `json:"message_size"`
		Payloads  []int   `json:"attachment_payload_sizes"`
		Checks    checks  `json:"independent_signature_check"`
		Seconds   float64 `json:"seconds_to_author_and_sign"`
		Libdime   string  `json:"libdime_recipient"`
		Fixed     string  `json:"libdime_recipient_section_parser_fixed"`
	}
	type part struct {
		Note  string
		Items []item
	}
	list := vectors.Part[part](t, vectors.Open(t), "large_messages").Items
	plain, multi := plainWorld(t), newWorld(t, "alice@origin.example", "bob@destination.example", "dmime-multi")
	vectors.Each(t, list, func(v item) string { return v.What }, func(t *testing.T, v item) {
		c := contentOf([]byte("see attachment"))
		for _, n := range v.Sizes {
			c.Attach = append(c.Attach, message.Part{Data: make([]byte, n)})
		}
		written := v.Authoring == "ok"
		_, err := message.Compose(rand.Reader, plain.Parties, c, plain.keys[message.Author].Signing)
		if single := len(v.Sizes) == 1; (err == nil) != (written && single) || err != nil && !errors.Is(err, message.TooLarge) {
			t.Errorf("by the default profile: %v, libdime: %s", err, v.Authoring)
		}
		m := multi.compose(t, c)
		payloads := attachmentPayloads(m)
		if !written {
			if len(payloads) != 2 || !strings.Contains(v.Authoring, "too large") {
				t.Errorf("%d chunks where libdime refuses: %s", len(payloads), v.Authoring)
			}
		} else if len(payloads) != len(v.Payloads) {
			t.Errorf("%d chunks, want %d", len(payloads), len(v.Payloads))
		} else {
			for i, n := range payloads { // both chose their padding at random, 1 to 256 octets
				if n%16 != 0 || n-v.Payloads[i] > 240 || v.Payloads[i]-n > 240 {
					t.Errorf("payload of %d octets, want about %d", n, v.Payloads[i])
				}
			}
		}
		for _, a := range actors {
			o, content, err := multi.read(m.Bytes(), a)
			if err != nil {
				t.Fatalf("%v: %v", a, err)
			}
			r, valid := o.Report(), func(v message.Verdict) bool { return v == message.Valid }
			got := checks{valid(r.AuthorTree), r.CorrectedTree, valid(r.AuthorFull), valid(r.MetadataBounce), valid(r.DisplayBounce), valid(r.OriginFull)}
			if a == message.Destination {
				got.Tree, got.Full = true, true // not its to see
			}
			if written && got != v.Checks || got.TreeProper {
				t.Errorf("%v: signatures %+v, want %+v", a, got, v.Checks)
			}
			if content == nil {
				continue
			}
			total, want := 0, 0
			for _, p := range content.Attach {
				total += len(p.Data)
			}
			for _, n := range v.Sizes {
				want += n
			}
			if total != want {
				t.Errorf("%v: %d octets attached, want %d", a, total, want)
			}
		}
	})
}

func attachmentPayloads(m *message.Message) (list []int) {
	for _, c := range m.Chunks() {
		if c.Type == message.TypeAttachment {
			list = append(list, c.Payload)
		}
	}
	return list
}

// TestMemory: of a large message the author makes one buffer, the origin one, a reader one, and who does not read the content
// none. Bounds are in octets allocated, in all, per octet of the message.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a message of 60 MB")
	}
	w := newWorld(t, "alice@origin.example", "bob@destination.example", "dmime-multi")
	c := contentOf([]byte("see attachment"))
	c.Attach = []message.Part{{Data: make([]byte, 60<<20)}}
	var b []byte
	var o *message.Opened
	steps := []struct {
		name string
		most float64
		do   func() error
	}{
		{"author", 1.01, func() error {
			m, err := message.Compose(rand.Reader, w.Parties, c, w.keys[message.Author].Signing)
			if err == nil {
				b = m.Bytes()
			}
			return err
		}},
		{"origin opens", 0.01, func() (err error) { o, _, err = w.read(b, message.Origin); return err }},
		{"origin signs", 1.01, func() error {
			m, err := o.SignOrigin(w.keys[message.Origin].Signing)
			if err == nil {
				b = m.Bytes()
			}
			return err
		}},
		{"destination", 0.01, func() error { _, _, err := w.read(b, message.Destination); return err }},
		{"recipient", 1.01, func() error { _, _, err := w.read(b, message.Recipient); return err }},
	}
	for _, s := range steps {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		runtime.ReadMemStats(&after)
		if per := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(b)); per > s.most {
			t.Errorf("%s: %.3f octets allocated per octet, at most %.2f", s.name, per, s.most)
		}
	}
}

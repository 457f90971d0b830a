package message_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"

	"pgregory.net/rapid"
)

// TestRoundTrip: what we author, the independent reading opens as all four actors, and so do we.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		domain := rapid.StringMatching(`[a-z][a-z0-9]{0,30}(\.[a-z][a-z0-9-]{0,10}[a-z]){1,3}`)
		local := rapid.StringMatching(`[A-Za-z0-9!#$%&'*+/=?^_{|}~-]{1,40}`)
		multi := rapid.Bool().Draw(rt, "multi")
		extensions := ""
		if multi {
			extensions = rapid.SampledFrom([]string{"dmime-multi", "x; dmime-multi ;y", "dmime-gzip;dmime-multi"}).Draw(rt, "extensions")
		}
		w := newWorld(t, local.Draw(rt, "author")+"@"+domain.Draw(rt, "origin"), local.Draw(rt, "recipient")+"@"+domain.Draw(rt, "destination"), extensions)
		c := drawContent(rt, multi)
		checkRoundTrip(rt, t, w, c)
	})
}

func drawContent(rt *rapid.T, multi bool) *message.Content {
	line := func(label string) string {
		v := rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 40).Draw(rt, label)
		return label + ": " + strings.NewReplacer("\r", "", "\n", "").Replace(string(v)) + "\r\n"
	}
	octets := rapid.SliceOfN(rapid.Byte(), 1, 700)
	var lines []string
	for _, l := range []string{"Date", "To", "CC", "From", "Organization", "Subject"} {
		if required := l != "CC" && l != "Organization"; required || rapid.Bool().Draw(rt, "with "+l) {
			lines = append(lines, line(l))
		}
	}
	c := &message.Content{Common: []byte(strings.Join(rapid.Permutation(lines).Draw(rt, "order"), "")), Other: octets.Draw(rt, "other")}
	most := 1
	if multi {
		most = 4
	}
	for _, list := range []*[]message.Part{&c.Display, &c.Attach} {
		for n := rapid.IntRange(0, most).Draw(rt, "parts"); n > 0; n-- {
			p := message.Part{Data: octets.Draw(rt, "part")}
			if n > 1 && rapid.Bool().Draw(rt, "continues") {
				p.Flags = message.FlagContinues
			}
			*list = append(*list, p)
		}
	}
	return c
}

func checkRoundTrip(rt *rapid.T, t *testing.T, w *world, c *message.Content) {
	m := w.compose(t, c)
	b := bytes.Clone(m.Bytes())
	want := map[byte][]string{4: {envelope4(w)}, 5: {envelope5(w)}, 33: {string(c.Common)}, 34: {string(c.Other)}}
	for _, p := range c.Display {
		want[67] = append(want[67], fmt.Sprint(p.Flags)+string(p.Data))
	}
	for _, p := range c.Attach {
		want[131] = append(want[131], fmt.Sprint(p.Flags)+string(p.Data))
	}
	for i, name := range []string{"A", "O", "D", "R"} {
		a := message.Actor(i)
		author, origin := w.keys[message.Author].Signing.Public(), w.keys[message.Origin].Signing.Public()
		known := author[:]
		if a == message.Destination {
			known = nil
		}
		chunks, err := plainOpen(b, name, w.keys[a].Encryption.Scalar(), known, origin[:])
		if err != nil {
			rt.Fatalf("the independent reading, as %s: %v", name, err)
		}
		got := map[byte][]string{}
		for _, c := range chunks {
			if !c.standard {
				continue
			}
			text := string(c.data)
			if c.t == 67 || c.t == 131 {
				text = fmt.Sprint(c.flags) + text
			}
			got[c.t] = append(got[c.t], text)
		}
		for t := range want {
			sees := strings.Contains(plainSlots[t], name)
			if sees && strings.Join(got[t], "\x00") != strings.Join(want[t], "\x00") || !sees && got[t] != nil {
				rt.Fatalf("the independent reading, as %s: chunk %d differs", name, t)
			}
		}
		o, content, err := w.read(b, a)
		if err != nil {
			rt.Fatalf("as %v: %v", a, err)
		}
		if content != nil && fmt.Sprint(*content) != fmt.Sprint(*c) {
			rt.Fatalf("as %v: other content", a)
		}
		if o.Message().ID() != m.ID() || !bytes.Equal(o.Message().Bytes(), b) {
			rt.Fatalf("as %v: another message", a)
		}
	}
}

func envelope4(w *world) string {
	return fmt.Sprintf("Author: <%s>\r\nAuthor-Signet: [%v]\r\nDestination: <%s>\r\nDestination-Signet: [%v]\r\n",
		w.Author.Name, fingerprint(w.Author), w.Destination.Name, fingerprint(w.Destination))
}

func envelope5(w *world) string {
	return fmt.Sprintf("Recipient: <%s>\r\nRecipient-Signet: [%v]\r\nOrigin: <%s>\r\nOrigin-Signet: [%v]\r\n",
		w.Recipient.Name, fingerprint(w.Recipient), w.Origin.Name, fingerprint(w.Origin))
}

// An area is a range of octets of a message, and who must notice when one of them changes.
type area struct {
	from, to int
	notices  string // letters of plainSlots
	what     string
}

// areas cuts a message into what different actors notice (dmime.md §7, §11): every octet belongs to one area.
func areas(tb testing.TB, b []byte) (list []area) {
	tb.Helper()
	list = []area{{0, 6, "AODR", "header"}}
	chunks, err := plainParse(b)
	if err != nil {
		tb.Fatal(err)
	}
	p := 6
	for _, c := range chunks {
		head, payload := "AODR", "AODR"
		if c.t == 248 || c.t == 249 || c.t == 255 {
			payload = "DR" // author and origin do not look at origin signatures
		}
		list = append(list, area{p, p + 4, head, fmt.Sprintf("chunk %d, header", c.t)},
			area{p + 4, p + 4 + len(c.payload), payload, fmt.Sprintf("chunk %d, payload", c.t)})
		p += 4 + len(c.payload)
		for _, actor := range plainSlots[c.t] {
			notices := "AODR" // covered by 226 (for A, O, R) and by 255 (for D)
			switch {
			case c.t == 226:
				notices = "DR" + strings.Trim(string(actor), "DR") // 255 covers it; A and O see their own slot only
			case c.t == 248 || c.t == 249:
				notices = "DR"
			case c.t == 255:
				notices = strings.Trim(string(actor), "AO") // nothing covers it: each sees its own
			}
			list = append(list, area{p, p + 64, notices, fmt.Sprintf("chunk %d, slot %c", c.t, actor)})
			p += 64
		}
	}
	return list
}

// checkFlip flips one bit and asks some of the four.
func checkFlip(tb interface{ Errorf(string, ...any) }, w *world, b []byte, at int, bit uint, in area, who ...message.Actor) {
	b[at] ^= 1 << bit
	defer func() { b[at] ^= 1 << bit }()
	for _, a := range who {
		_, content, err := w.read(b, a)
		if (err != nil) != strings.Contains(in.notices, "AODR"[a:a+1]) || err != nil && content != nil {
			tb.Errorf("bit %d of octet %d (%s), as %v: %v", bit, at, in.what, a, err)
		}
	}
}

// TestFlipEveryOctet flips a bit of each octet of a small message: whoever must notice does, and nobody else. The recipient
// looks at every octet, the others in turn.
func TestFlipEveryOctet(t *testing.T) {
	w := plainWorld(t)
	whole := w.compose(t, contentOf()).Bytes()
	stride := 1
	if testing.Short() {
		stride = 13
	}
	for part, list := range splitAreas(areas(t, whole)) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			b := bytes.Clone(whole)
			for _, in := range list {
				for at := in.from; at < in.to; at += stride {
					checkFlip(t, w, b, at, uint(at*5%8), in, message.Recipient, actors[at%3])
				}
			}
		})
	}
}

// splitAreas halves the work.
func splitAreas(list []area) [][]area {
	return [][]area{list[:len(list)/2], list[len(list)/2:]}
}

// TestFlipAny samples flips in messages of all layouts.
func TestFlipAny(t *testing.T) {
	w := newWorld(t, "alice@origin.example", "bob@destination.example", "dmime-multi")
	rapid.Check(t, func(rt *rapid.T) {
		b := bytes.Clone(w.compose(t, drawContent(rt, true)).Bytes())
		list := areas(t, b)
		for range 8 {
			in := rapid.SampledFrom(list).Draw(rt, "area")
			at := rapid.IntRange(in.from, in.to-1).Draw(rt, "octet")
			checkFlip(rt, w, b, at, uint(rapid.IntRange(0, 7).Draw(rt, "bit")), in, actors...)
		}
	})
}

// TestCuts: no prefix of a message is one, nor is a message with an octet more.
func TestCuts(t *testing.T) {
	w := plainWorld(t)
	b := w.compose(t, contentOf([]byte("x"))).Bytes()
	for n := range b {
		if _, err := message.Parse(b[:n], message.Limits{}); err == nil {
			t.Fatalf("the first %d octets are a message", n)
		}
	}
	if _, err := message.Parse(append(bytes.Clone(b), 0), message.Limits{}); err == nil {
		t.Error("a message with an octet more is one")
	}
}

func fingerprint(p message.Party) signet.Fingerprint {
	f, err := p.Signet.Fingerprint(signet.Crypto)
	if err != nil {
		panic(err) // a signet of this test
	}
	return f
}

package handoff

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"dimegate/bridge/translate"
)

// LoopField is the field of our loop marker. It goes on top of what is handed over, and off again before mail leaves over DMTP.
const LoopField = "X-DIME-Loop"

// MaxHops is how many Received fields a message may have (RFC 5321 §6.3). It ends loops that leave no marker, such as those
// between two gateways.
const MaxHops = 100

// ErrLoop means that a message goes round.
var ErrLoop = errors.New("a loop")

// A LoopGuard knows again what this site has handed over, and to whom: a message that comes back for a recipient who has
// already got it goes round. Its marker is keyed, so that nobody can make one that stops another's mail, and it names nobody.
// The value of a field is base64 of eight tags of eight octets. The first is this site's for the message; the others are for a
// recipient each, filled up with random ones: readers of the message cannot count the hidden recipients. A tag is the start of
// HMAC-SHA-256 over Message-ID, Date and recipient. A nil guard marks and knows nothing.
type LoopGuard struct{ key func() []byte } // a func: fmt cannot look inside

// NewLoopGuard takes the site's key, the same for all gateways of the site. It keeps a copy.
func NewLoopGuard(key [sha256.Size]byte) *LoopGuard {
	return &LoopGuard{func() []byte { return key[:] }}
}

const (
	tagSize    = 8
	tagsAField = 8
)

type tag [tagSize]byte

// Mark is the marker for some recipients of a message: a header field with its CRLF, or several.
func (g *LoopGuard) Mark(m translate.Message, to ...string) []byte {
	if g == nil {
		return nil
	}
	id := identify(m)
	own := g.tag(id, "")
	var out []byte
	for len(to) > 0 {
		n := min(len(to), tagsAField-1)
		var value [tagsAField * tagSize]byte
		rand.Read(value[:])
		copy(value[:], own[:])
		for i, address := range to[:n] {
			t := g.tag(id, address)
			copy(value[(i+1)*tagSize:], t[:])
		}
		out = fmt.Appendf(out, "%s: %s\r\n", LoopField, base64.RawStdEncoding.EncodeToString(value[:]))
		to = to[n:]
	}
	return out
}

// Check returns an ErrLoop, and why, for a message that has been handed over to all of these recipients before, or has passed
// too many hosts. Markers that are not ours, or of another message, count for nothing.
func (g *LoopGuard) Check(m translate.Message, to ...string) error {
	if translate.Hops(m) > MaxHops {
		return fmt.Errorf("%w: more than %d Received fields", ErrLoop, MaxHops)
	}
	got := g.recipients(m)
	if len(got) == 0 {
		return nil
	}
	id := identify(m)
	for _, address := range to {
		if !got[g.tag(id, address)] {
			return nil
		}
	}
	return fmt.Errorf("%w: the recipient's mail server has sent back what this gateway handed over to it", ErrLoop)
}

// Own tells of the values of LoopField in a message whether this site made them.
func (g *LoopGuard) Own(m translate.Message) func(value []byte) bool {
	if g == nil {
		return nil
	}
	own := g.tag(identify(m), "")
	return func(value []byte) bool {
		tags := parseTags(string(value))
		return tags != nil && hmac.Equal(tags[0][:], own[:])
	}
}

// recipients are the tags of whoever got the message from this site before.
func (g *LoopGuard) recipients(m translate.Message) map[tag]bool {
	var got map[tag]bool
	var own func([]byte) bool
	for f := range translate.Fields(m.Header) {
		if g == nil || !f.Is(LoopField) {
			continue
		}
		if own == nil {
			own, got = g.Own(m), map[tag]bool{}
		}
		if value := f.Value(); own([]byte(value)) {
			for _, t := range parseTags(value)[1:] {
				got[t] = true
			}
		}
	}
	return got
}

// parseTags is nil for what is no marker.
func parseTags(value string) []tag {
	if len(value) != base64.RawStdEncoding.EncodedLen(tagsAField*tagSize) {
		return nil
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(value)
	if err != nil || len(b) != tagsAField*tagSize {
		return nil
	}
	tags := make([]tag, tagsAField)
	for i := range tags {
		tags[i] = tag(b[i*tagSize:])
	}
	return tags
}

// tag is the start of a MAC over what a message is and an address; "" stands for the site.
func (g *LoopGuard) tag(id []string, address string) tag {
	mac := hmac.New(sha256.New, g.key())
	for _, s := range append(id[:len(id):len(id)], strings.ToLower(address)) {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		mac.Write([]byte(s))
	}
	return tag(mac.Sum(nil))
}

// identify is what tells a message from others and stays the same on its way: its first Message-ID and Date.
func identify(m translate.Message) []string {
	id := []string{"", ""}
	for f := range translate.Fields(m.Header) {
		for i, name := range []string{"Message-ID", "Date"} {
			if id[i] == "" && f.Is(name) {
				id[i] = f.Value()
			}
		}
	}
	return id
}

package imapserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
)

// A message is an item's octets, taken apart.
type message struct {
	number int
	octets []byte
	root   *part
}

func (m *message) clear() {
	clear(m.octets)
	*m = message{}
}

// load opens an item and takes it apart; the last one is kept, as clients fetch a message piece by piece.
func (s *session) load(i discovery.Item) (*message, error) {
	if s.cached.octets != nil && s.cached.number == i.Number {
		return &s.cached, nil
	}
	s.cached.clear()
	if i.Octets > maxOctets {
		return nil, errTooLarge
	}
	octets := make([]byte, i.Octets)
	if err := s.copyOut(s.ctx, i, func(r io.Reader) error { _, err := io.ReadFull(r, octets); return err }); err != nil {
		clear(octets)
		return nil, err
	}
	s.cached = message{number: i.Number, octets: octets, root: parse(octets)}
	return &s.cached, nil
}

func (s *session) copyOut(ctx context.Context, i discovery.Item, read func(io.Reader) error) error {
	r, err := s.Items.Open(ctx, i.Number)
	if err == nil {
		err = read(r)
		r.Close()
	}
	if err != nil {
		s.Log.Error("an item cannot be opened", slog.Int("item", i.Number), slogErr(err))
		return errUnavailable
	}
	return nil
}

// Fetch gives items out, after the record of it is written. Nothing is marked as seen.
func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	if s.over() {
		return errOver
	}
	if len(o.BinarySection) > 0 || len(o.BinarySectionSize) > 0 {
		return errNoBinary
	}
	shown, withheld := map[int]bool{}, false
	for _, i := range s.visible() {
		shown[i.Number] = true
	}
	var wanted []place
	for n, i := range s.view {
		p := place{sequence: uint32(n + 1), item: i}
		switch {
		case !s.in(set, p):
		case !shown[i.Number]:
			withheld = true
		default:
			wanted = append(wanted, p)
		}
	}
	parts := contents(o)
	for len(wanted) > 0 {
		some := wanted[:min(batch, len(wanted))]
		wanted = wanted[len(some):]
		if parts != "" {
			if err := s.record(fetched(some, parts)...); err != nil {
				return err
			}
		}
		for _, p := range some {
			if err := s.give(w, p, o); err != nil {
				return err
			}
		}
	}
	if withheld {
		return errWithheld
	}
	return nil
}

// A place is an item of a selected mailbox.
type place struct {
	sequence uint32
	item     discovery.Item
}

func (p place) uid() imap.UID { return imap.UID(p.item.Number) }

// in tells whether a client's set holds a message; "*" is the last one.
func (s *session) in(set imap.NumSet, p place) bool {
	last := p.sequence == uint32(len(s.view))
	switch set := set.(type) {
	case imap.SeqSet:
		return set.Contains(p.sequence) || last && set.Dynamic()
	case imap.UIDSet:
		return set.Contains(p.uid()) || last && set.Dynamic()
	}
	return false
}

func fetched(some []place, parts string) []access.Entry {
	entries := make([]access.Entry, 0, len(some))
	for _, p := range some {
		entries = append(entries, access.Entry{What: access.Fetch, Item: p.item.Number, Record: p.item.Record.String(), Parts: parts})
	}
	return entries
}

// maxPartsText bounds what the record keeps of one command's list.
const maxPartsText = 200

// contents says what of a message's content a command asks for; empty when it is sizes, dates and numbers alone.
func contents(o *imap.FetchOptions) string {
	var all []string
	if o.Envelope {
		all = append(all, "ENVELOPE")
	}
	if o.BodyStructure != nil {
		all = append(all, "BODYSTRUCTURE")
	}
	for _, b := range o.BodySection {
		all = append(all, "BODY["+sectionName(b)+"]")
	}
	text := strings.Join(all, " ")
	if len(text) > maxPartsText {
		text = text[:maxPartsText] + "..."
	}
	return text
}

func sectionName(b *imap.FetchItemBodySection) string {
	var name []string
	for _, n := range b.Part {
		name = append(name, fmt.Sprint(n))
	}
	if b.Specifier != imap.PartSpecifierNone {
		name = append(name, string(b.Specifier))
	}
	return strings.Join(name, ".")
}

// give answers for one message. What must be opened is opened before the answer begins, but for a message asked for whole, which
// is streamed: when that fails in the middle the connection ends, since a literal cannot be taken back.
func (s *session) give(w *imapserver.FetchWriter, p place, o *imap.FetchOptions) error {
	var m *message
	if o.Envelope || o.BodyStructure != nil || len(o.BodySection) > 0 && !isWhole(o) {
		var err error
		if m, err = s.load(p.item); err != nil {
			return err
		}
	}
	a := w.CreateMessage(p.sequence)
	if o.UID {
		a.WriteUID(p.uid())
	}
	if o.Flags {
		a.WriteFlags(nil)
	}
	if o.InternalDate {
		a.WriteInternalDate(received(p.item))
	}
	if o.RFC822Size {
		a.WriteRFC822Size(p.item.Octets)
	}
	if o.Envelope {
		a.WriteEnvelope(envelope(m.root.header))
	}
	if o.BodyStructure != nil {
		a.WriteBodyStructure(structure(m.octets, m.root))
	}
	for _, b := range o.BodySection {
		if err := s.section(a, p.item, m, b); err != nil {
			s.conn.Close()
			a.Close()
			return err
		}
	}
	return a.Close()
}

// isWhole tells whether the one section asked for is all of the message.
func isWhole(o *imap.FetchOptions) bool {
	b := o.BodySection[0]
	return len(o.BodySection) == 1 && len(b.Part) == 0 && b.Specifier == imap.PartSpecifierNone && b.Partial == nil
}

func (s *session) section(a *imapserver.FetchResponseWriter, i discovery.Item, m *message, b *imap.FetchItemBodySection) error {
	if m == nil {
		lit := a.WriteBodySection(b, i.Octets)
		err := s.copyOut(s.ctx, i, func(r io.Reader) error { _, err := io.CopyN(lit, r, i.Octets); return err })
		if err != nil {
			return err
		}
		return lit.Close()
	}
	octets := partial(cut(m, b), b.Partial)
	lit := a.WriteBodySection(b, int64(len(octets)))
	if _, err := lit.Write(octets); err != nil {
		return err
	}
	return lit.Close()
}

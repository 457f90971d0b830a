package imapserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	gomessage "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // registers the charsets of old mail: what cannot be read cannot be found
	"github.com/emersion/go-message/mail"

	"dimegate/vault/discovery/access"
)

// maxCriteria bounds what one search may ask of each message.
const maxCriteria = 200

// Search finds messages by numbers, dates, sizes, header fields and text, of which the letter's case does not count. Words are looked
// for in what a reader sees: transfer encodings, charsets and encoded words are undone. The record is told the kinds of the
// keys and how many were found; the words are the case's own and are not in it.
func (s *session) Search(kind imapserver.NumKind, c *imap.SearchCriteria, o *imap.SearchOptions) (*imap.SearchData, error) {
	if s.over() {
		return nil, errOver
	}
	if weight(c) > maxCriteria {
		return nil, no(imap.ResponseCodeLimit, fmt.Sprintf("A search may have %d keys at most", maxCriteria))
	}
	ctx, cancel := context.WithTimeout(s.ctx, maxSearch)
	defer cancel()
	keys := keyNames(c)
	lower(c)
	shown := map[int]bool{}
	for _, i := range s.visible() {
		shown[i.Number] = true
	}
	var found []place
	for n, i := range s.view {
		switch {
		case ctx.Err() != nil || s.over():
			return nil, errSlow
		case !shown[i.Number]:
			continue
		}
		p := place{sequence: uint32(n + 1), item: i}
		ok, err := s.meets(p, c)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, p)
		}
	}
	if err := s.record(access.Entry{What: access.Search, Parts: keys, Found: len(found)}); err != nil {
		return nil, err
	}
	return result(kind, found), nil
}

// result gives numbers of one kind. All is never nil: the engine writes half an answer for nil.
func result(kind imapserver.NumKind, found []place) *imap.SearchData {
	d := &imap.SearchData{Count: uint32(len(found))}
	numbers := make([]uint32, 0, len(found))
	for _, p := range found {
		if kind == imapserver.NumKindUID {
			numbers = append(numbers, uint32(p.uid()))
		} else {
			numbers = append(numbers, p.sequence)
		}
	}
	if len(numbers) > 0 {
		d.Min, d.Max = slices.Min(numbers), slices.Max(numbers)
	}
	if kind == imapserver.NumKindUID {
		set := imap.UIDSet{}
		for _, n := range numbers {
			set.AddNum(imap.UID(n))
		}
		d.All = set
	} else {
		set := imap.SeqSet{}
		set.AddNum(numbers...)
		d.All = set
	}
	return d
}

// meets asks what costs nothing first, and opens the message only when that holds.
func (s *session) meets(p place, c *imap.SearchCriteria) (bool, error) {
	if !s.meetsNumbers(p, c) {
		return false, nil
	}
	for _, not := range c.Not {
		if ok, err := s.meets(p, &not); ok || err != nil {
			return false, err
		}
	}
	for _, or := range c.Or {
		ok, err := s.meets(p, &or[0])
		if !ok && err == nil {
			ok, err = s.meets(p, &or[1])
		}
		if !ok || err != nil {
			return false, err
		}
	}
	if len(c.Header)+len(c.Body)+len(c.Text) == 0 && c.SentSince.IsZero() && c.SentBefore.IsZero() {
		return true, nil
	}
	m, err := s.load(p.item)
	if err != nil {
		return false, err
	}
	return meetsContent(m, c), nil
}

func (s *session) meetsNumbers(p place, c *imap.SearchCriteria) bool {
	for _, set := range c.SeqNum {
		if !s.in(set, p) {
			return false
		}
	}
	for _, set := range c.UID {
		if !s.in(set, p) {
			return false
		}
	}
	return len(c.Flag) == 0 && // no message has one
		within(received(p.item), c.Since, c.Before) &&
		(c.Larger == 0 || p.item.Octets > c.Larger) && (c.Smaller == 0 || p.item.Octets < c.Smaller)
}

// within compares days, without zones (RFC 9051 §6.4.4).
func within(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}

func meetsContent(m *message, c *imap.SearchCriteria) bool {
	h := mail.Header{Header: m.root.header}
	if !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
		if sent, err := h.Date(); err != nil || sent.IsZero() || !within(sent, c.SentSince, c.SentBefore) {
			return false
		}
	}
	for _, f := range c.Header {
		if !inFields(h.FieldsByKey(f.Key), f.Value) {
			return false
		}
	}
	for _, word := range c.Body {
		if !inContent(m.octets, m.root, word) {
			return false
		}
	}
	for _, word := range c.Text {
		if !inFields(h.Fields(), word) && !inContent(m.octets, m.root, word) {
			return false
		}
	}
	return true
}

func inFields(f gomessage.HeaderFields, word string) bool {
	for f.Next() {
		text, _ := f.Text() // the raw value where it cannot be decoded
		if strings.Contains(strings.ToLower(text), word) {
			return true
		}
	}
	return false
}

// inContent looks into every text of a message and of the messages in it, and into their headers.
func inContent(octets []byte, p *part, word string) bool {
	switch {
	case word == "":
		return true
	case p.message != nil:
		return inFields(p.message.header.Fields(), word) || inContent(octets, p.message, word)
	case len(p.children) > 0:
		return slices.ContainsFunc(p.children, func(c *part) bool { return inContent(octets, c, word) })
	case !strings.HasPrefix(p.media, "text/"):
		return false
	}
	e, _ := gomessage.New(p.header, bytes.NewReader(octets[p.body:p.end])) // readable also when its charset is unknown
	text, _ := io.ReadAll(io.LimitReader(e.Body, maxOctets))
	defer clear(text)
	return bytes.Contains(bytes.ToLower(text), []byte(word))
}

// lower makes the words of a search small once, not for every message.
func lower(c *imap.SearchCriteria) {
	for i := range c.Header {
		c.Header[i].Value = strings.ToLower(c.Header[i].Value)
	}
	for _, words := range [][]string{c.Body, c.Text} {
		for i := range words {
			words[i] = strings.ToLower(words[i])
		}
	}
	for i := range c.Not {
		lower(&c.Not[i])
	}
	for i := range c.Or {
		lower(&c.Or[i][0])
		lower(&c.Or[i][1])
	}
}

// weight counts the keys of a search.
func weight(c *imap.SearchCriteria) int {
	n := 1 + len(c.SeqNum) + len(c.UID) + len(c.Header) + len(c.Body) + len(c.Text)
	for i := range c.Not {
		n += weight(&c.Not[i])
	}
	for i := range c.Or {
		n += weight(&c.Or[i][0]) + weight(&c.Or[i][1])
	}
	return n
}

// keyNames lists the kinds of content that a search looks into.
func keyNames(c *imap.SearchCriteria) string {
	var names []string
	var walk func(*imap.SearchCriteria)
	walk = func(c *imap.SearchCriteria) {
		for name, used := range map[string]bool{
			"HEADER": len(c.Header) > 0, "BODY": len(c.Body) > 0, "TEXT": len(c.Text) > 0,
			"DATE": !c.Since.IsZero() || !c.Before.IsZero() || !c.SentSince.IsZero() || !c.SentBefore.IsZero(),
			"SIZE": c.Larger != 0 || c.Smaller != 0,
		} {
			if used && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		for i := range c.Not {
			walk(&c.Not[i])
		}
		for i := range c.Or {
			walk(&c.Or[i][0])
			walk(&c.Or[i][1])
		}
	}
	walk(c)
	slices.Sort(names)
	return strings.Join(names, " ")
}

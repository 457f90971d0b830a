package translate

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// Preparation is what the DMTP leg takes from a message and adds to it before Import: DESIGN's named exceptions to
// byte-exactness, and no others.
type Preparation struct {
	Now       time.Time // for an absent Date
	MessageID string    // for an absent Message-ID, without angle brackets: the same in all recipients' copies
	// OwnHosts are the names in the "by" clause of Received fields that our submission listener and the inner servers added:
	// their "for" clauses go, since they can tell one recipient of another. Lower case. The server that submitted the message
	// counts, too: under the name that our own field on top says it gave.
	OwnHosts []string
	// LoopField names the field of our loop marker; OwnLoop tells whether one is ours. nil: none is.
	LoopField string
	OwnLoop   func(value []byte) bool
}

// A Change is one field that differs from the message as submitted.
type Change struct {
	Name   string
	Signed bool // a DKIM or ARC signature of the message covers fields of this name: it no longer verifies
}

// A Report says what Prepare changed.
type Report struct {
	Removed []Change // the whole field
	Edited  []Change // a Received field that lost its "for" clause
	Added   []Change // on top of the header block
}

// Changed tells whether anything did.
func (r Report) Changed() bool { return len(r.Removed)+len(r.Edited)+len(r.Added) > 0 }

// RequireField asks for DIME or nothing, when its value is "yes"; it never leaves the gateway.
const RequireField = "X-DIME-Require"

// Requires tells whether the sender asked for DIME or nothing.
func Requires(m Message) bool {
	for f := range Fields(m.Header) {
		if f.Is(RequireField) && strings.EqualFold(string(unfold(f.Body)), "yes") {
			return true
		}
	}
	return false
}

// Prepare removes Bcc, X-DIME-Require, our own loop marker and "for" clauses that can reveal Bcc recipients, and adds Date
// and Message-ID where they are missing, on top. The body is not touched and not copied; nor is the header block when nothing
// changes.
func Prepare(p Preparation, m Message) (Message, Report) {
	p.OwnHosts = append(p.OwnHosts[:len(p.OwnHosts):len(p.OwnHosts)], submitter(m.Header, p.OwnHosts)...)
	s := preparer{Preparation: p, signed: signedNames(m.Header)}
	var kept []byte
	clean := 0 // octets of m.Header that need no copy
	for f := range Fields(m.Header) {
		raw := s.field(f)
		if kept == nil && len(raw) == len(f.Raw) {
			clean += len(raw)
			continue
		}
		if kept == nil {
			kept = append(make([]byte, 0, len(m.Header)), m.Header[:clean]...)
		}
		kept = append(kept, raw...)
	}
	if kept == nil {
		kept = m.Header
	}
	if added := s.missing(m.Header); len(added) > 0 {
		kept = append(added, kept...)
	}
	m.Header = kept
	return m, s.report
}

// Without removes the fields, and lines that are none, that drop says, and tells which. The body is not touched and not copied; nor is the header block
// when nothing is removed.
func Without(m Message, drop func(Field) bool) (Message, []Change) {
	var gone []Change
	var signed map[string]bool
	kept := m.Header[:0:0]
	for f := range Fields(m.Header) {
		if !drop(f) {
			kept = append(kept, f.Raw...)
			continue
		}
		if gone == nil {
			signed = signedNames(m.Header)
		}
		name := "(no field)"
		if f.Name != nil {
			name = string(f.Name[:min(len(f.Name), maxName)])
		}
		gone = append(gone, Change{Name: name, Signed: signed[strings.ToLower(name)]})
	}
	if gone != nil {
		m.Header = kept
	}
	return m, gone
}

type preparer struct {
	Preparation
	signed  map[string]bool // names in lower case
	report  Report
	hasDate bool
	hasID   bool
}

// field is what stays of one field.
func (s *preparer) field(f Field) []byte {
	switch {
	case f.Is("Bcc"), f.Is(RequireField), s.LoopField != "" && f.Is(s.LoopField) && s.OwnLoop != nil && s.OwnLoop(unfold(f.Body)):
		s.report.Removed = append(s.report.Removed, s.change(string(f.Name)))
		return nil
	case f.Is("Received"):
		if raw, ok := s.withoutFor(f); ok {
			s.report.Edited = append(s.report.Edited, s.change("Received"))
			return raw
		}
	case f.Is("Date"):
		s.hasDate = true
	case f.Is("Message-ID"):
		s.hasID = true
	}
	return f.Raw
}

// missing is what goes on top. A block that begins with white space gets nothing: it would continue what is added.
func (s *preparer) missing(header []byte) []byte {
	if len(header) > 0 && (header[0] == ' ' || header[0] == '\t') {
		return nil
	}
	var out []byte
	if !s.hasDate && !s.Now.IsZero() {
		s.report.Added = append(s.report.Added, s.change("Date"))
		out = append(out, "Date: "+s.Now.Format(time.RFC1123Z)+"\r\n"...)
	}
	if !s.hasID && s.MessageID != "" {
		s.report.Added = append(s.report.Added, s.change("Message-ID"))
		out = append(out, "Message-ID: <"+s.MessageID+">\r\n"...)
	}
	return out
}

func (s *preparer) change(name string) Change {
	for _, known := range []string{"Bcc", RequireField, s.LoopField} {
		if strings.EqualFold(name, known) {
			name = known
		}
	}
	return Change{Name: name, Signed: s.signed[strings.ToLower(name)]}
}

// withoutFor cuts the "for" clause out of a Received field that one of our hosts added.
func (s *preparer) withoutFor(f Field) ([]byte, bool) {
	from, to, ok := forClause(f.Body, s.OwnHosts)
	if !ok {
		return nil, false
	}
	head := len(f.Raw) - len(f.Body)
	if bytes.HasSuffix(f.Raw, crlf) {
		head -= 2
	}
	return slices.Concat(f.Raw[:head+from], f.Raw[head+to:]), true
}

// forClause finds the extent of the "for" clause in the body of a Received field whose "by" clause names one of hosts
// (RFC 5321 §4.4): from the white space before the word to that before the next clause, or to the semicolon before the date.
// Comments within go with it.
func forClause(body []byte, hosts []string) (from, to int, found bool) {
	ours, clause := false, ""
	from, to = -1, -1
	for start, end := range words(body) {
		word := strings.ToLower(string(body[start:end]))
		switch {
		case word == ";":
			if from >= 0 && to < 0 {
				to = start
			}
			return from, to, ours && from >= 0
		case clause != "": // its value, whatever it is
			ours = ours || clause == "by" && slices.Contains(hosts, strings.TrimSuffix(word, "."))
			clause = ""
		case isClause(word):
			clause = word
			at := len(bytes.TrimRight(body[:start], " \t\r\n"))
			switch {
			case word == "for" && from < 0:
				from = at
			case from >= 0 && to < 0:
				to = at
			}
		}
	}
	if to < 0 {
		to = len(body)
	}
	return from, to, ours && from >= 0
}

// submitter is the name that a Received field of one of hosts gives to who brought the message, if it stands on top.
func submitter(header []byte, hosts []string) []string {
	for f := range Fields(header) {
		if !f.Is("Received") {
			break
		}
		clause, from := "", ""
		for start, end := range words(f.Body) {
			word := strings.TrimSuffix(strings.ToLower(string(f.Body[start:end])), ".")
			switch {
			case clause == "from":
				from = word
			case clause == "by" && slices.Contains(hosts, word):
				return []string{from}
			}
			if clause = ""; isClause(word) {
				clause = word
			}
		}
		break
	}
	return nil
}

func isClause(word string) bool {
	switch word {
	case "from", "by", "via", "with", "id", "for":
		return true
	}
	return false
}

// words yields the extents of the words of a structured field: no comments, quoted strings and <…> in one piece, a
// semicolon by itself.
func words(b []byte) func(func(int, int) bool) {
	return func(yield func(int, int) bool) {
		for i := 0; i < len(b); {
			start := i
			switch c := b[i]; {
			case c == ' ' || c == '\t' || c == '\r' || c == '\n':
				i++
				continue
			case c == '(':
				i = skipComment(b, i)
				continue
			case c == ';':
				i++
			default:
				i = wordEnd(b, i)
			}
			if !yield(start, i) {
				return
			}
		}
	}
}

func skipComment(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}

func wordEnd(b []byte, i int) int {
	for quoted, angle := false, false; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';' || c == '(':
			if !angle || c == '\r' || c == '\n' {
				return i
			}
		}
	}
	return min(i, len(b))
}

// signedNames collects what the message's DKIM and ARC signatures cover (h=), in lower case.
func signedNames(header []byte) map[string]bool {
	var names map[string]bool
	for f := range Fields(header) {
		if !f.Is("DKIM-Signature") && !f.Is("ARC-Message-Signature") {
			continue
		}
		for tag := range strings.SplitSeq(string(unfold(f.Body)), ";") {
			name, list, ok := strings.Cut(tag, "=")
			if !ok || strings.TrimSpace(name) != "h" {
				continue
			}
			for h := range strings.SplitSeq(list, ":") {
				if names == nil {
					names = make(map[string]bool)
				}
				names[strings.ToLower(strings.TrimSpace(h))] = true
			}
		}
	}
	return names
}

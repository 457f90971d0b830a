package station

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Query is what a full text search looks for: words and "phrases" that must all be in a message, OR between two for either, a minus
// before one that must not be there. A word that ends in * is the beginning of one. subject:, from:, to: and file: look at the subject,
// the author's fields, the recipients' fields and names of attachments alone. Case, and how white space is folded, make no difference.
type Query struct {
	all [][]term // every list must have one that is found
	not []term
}

type term struct {
	field  string // "": anywhere
	text   string // folded
	prefix bool
}

// MaxQuery bounds the words of a query, in octets.
const MaxQuery = 4096

var fieldsOfQuery = map[string]bool{"subject": true, "from": true, "to": true, "file": true}

// ParseQuery reads a query.
func ParseQuery(text string) (*Query, error) {
	if len(text) > MaxQuery {
		return nil, fmt.Errorf("station: a query has at most %d octets", MaxQuery)
	}
	q := &Query{}
	either := false
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		word, quoted, after, err := nextWord(rest)
		if err != nil {
			return nil, err
		}
		rest = after
		if word == "OR" && !quoted {
			if either || len(q.all) == 0 {
				return nil, errors.New("station: OR stands between two words or phrases")
			}
			either = true
			continue
		}
		t, not, err := makeTerm(word, quoted)
		if err != nil {
			return nil, err
		}
		switch {
		case not && either:
			return nil, errors.New("station: no OR before a minus")
		case not:
			q.not = append(q.not, t)
		case either:
			last := len(q.all) - 1
			q.all[last] = append(q.all[last], t)
		default:
			q.all = append(q.all, []term{t})
		}
		either = false
	}
	switch {
	case either:
		return nil, errors.New("station: OR stands between two words or phrases")
	case len(q.all) == 0:
		return nil, errors.New("station: a query needs a word or phrase that is to be found")
	}
	return q, nil
}

// nextWord takes a word off, with the phrase behind its field or minus.
func nextWord(s string) (word string, quoted bool, rest string, err error) {
	at := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '"' })
	if at < 0 {
		return s, false, "", nil
	}
	if s[at] != '"' {
		return s[:at], false, s[at:], nil
	}
	end := strings.IndexByte(s[at+1:], '"')
	if end < 0 {
		return "", false, "", errors.New("station: a phrase without its second quotation mark")
	}
	return s[:at] + s[at+1:][:end], true, s[at+1+end+1:], nil
}

func makeTerm(word string, quoted bool) (term, bool, error) {
	word, not := strings.CutPrefix(word, "-")
	var t term
	if field, value, ok := strings.Cut(word, ":"); ok && fieldsOfQuery[strings.ToLower(field)] {
		t.field, word = strings.ToLower(field), value
	}
	if !quoted {
		word, t.prefix = strings.CutSuffix(word, "*")
	}
	if t.text = strings.TrimSpace(fold(word)); t.text == "" {
		return term{}, false, errors.New("station: an empty word in the query")
	}
	return t, not, nil
}

// fold makes texts comparable: lower case, one space for any white space.
func fold(s string) string { return strings.Join(strings.Fields(strings.ToLower(s)), " ") }

// A match is what of a query was found in one message so far.
type match struct {
	q   *Query
	all [][]bool
	not bool
}

func (q *Query) begin() *match {
	m := &match{q: q, all: make([][]bool, len(q.all))}
	for i := range q.all {
		m.all[i] = make([]bool, len(q.all[i]))
	}
	return m
}

// look looks at a folded text of a field.
func (m *match) look(field, text string) {
	for i, list := range m.q.all {
		for j, t := range list {
			m.all[i][j] = m.all[i][j] || t.in(field, text)
		}
	}
	for _, t := range m.q.not {
		m.not = m.not || t.in(field, text)
	}
}

func (m *match) found() bool {
	for _, list := range m.all {
		any := false
		for _, ok := range list {
			any = any || ok
		}
		if !any {
			return false
		}
	}
	return !m.not
}

func (t term) in(field, text string) bool {
	if t.field != "" && t.field != field {
		return false
	}
	for from := 0; ; {
		at := strings.Index(text[from:], t.text)
		if at < 0 {
			return false
		}
		at += from
		end := at + len(t.text)
		if !joined(lastRune(text[:at]), firstRune(t.text)) && (t.prefix || !joined(lastRune(t.text), firstRune(text[end:]))) {
			return true
		}
		from = at + 1
	}
}

// joined tells whether two neighbours are of one word. Scripts that are written without spaces have no words to respect.
func joined(a, b rune) bool { return wordRune(a) && wordRune(b) }

func wordRune(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r)) && !unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

func lastRune(s string) rune {
	r, _ := utf8.DecodeLastRuneInString(s)
	return r
}

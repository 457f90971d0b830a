// Package journal reads journal reports: what Exchange and Microsoft 365 send to a journaling mailbox of each message, with its
// envelope in a text part and the message as it was attached (MS-XJRNL; the reports of Exchange 2003 likewise). Octets in, a
// report out.
package journal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"

	"github.com/emersion/go-message/charset"

	"dimegate/bridge/translate"
)

// A Report is one journal report. Of one message there may be several, each with some of the recipients: forks.
type Report struct {
	Sender     string // reverse-path; "" is the null one
	OnBehalfOf string // for whom the sender acted; "" for himself
	MessageID  string // of the message, as the report has it
	Mailbox    string // owner of the mailbox that was journaled, where the report says so
	Label      string
	Recipients []Recipient
	Messages   []Message // one; of rights-protected mail its open twin too
	// Frame is what of the report is no message, cut where one stands: Frame[0], a message, Frame[1], … Joined they are the
	// report. Messages whose octets do not stand in the report as they are, since it encodes them, are in the frame, too.
	Frame [][]byte
}

// A Recipient is one of the envelope's, as the report tells of him.
type Recipient struct {
	Kind      string `json:"kind"`                // "To", "Cc", "Bcc", or "Recipient" where Exchange could not know
	Address   string `json:"address"`             // whom the message went to
	Expanded  string `json:"expanded,omitempty"`  // the group that he is a member of
	Forwarded string `json:"forwarded,omitempty"` // whose mail he gets
}

// A Message is one that the report is about.
type Message struct {
	Octets  []byte // part of the report, unless Encoded
	Encoded bool
}

// ErrReport is returned for what is no journal report that can be read. Its octets must be kept whole.
var ErrReport = errors.New("journal: no journal report that can be read")

// Bounds of a report.
const (
	maxParts      = 64
	maxText       = 16 << 20 // of the envelope's part
	maxRecipients = 100_000
	maxFrame      = 16 << 20
)

// Parse reads a report. It keeps parts of b. Every error is ErrReport.
func Parse(b []byte) (*Report, error) {
	m := translate.Split(b)
	parts, err := split(m)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	envelope := false
	cut := 0 // how far the frame goes
	for _, p := range parts {
		switch kind, params := p.mediaType(); {
		case !envelope && (kind == "text/plain" || kind == ""):
			text, err := p.text(params["charset"])
			if err != nil || r.read(text) != nil {
				return nil, ErrReport
			}
			envelope = true
		case kind == "message/rfc822" || kind == "message/global":
			octets, same := p.decode()
			if len(octets) == 0 {
				return nil, ErrReport
			}
			r.Messages = append(r.Messages, Message{octets, !same})
			if same {
				start := p.at
				r.Frame = append(r.Frame, b[cut:start])
				cut = start + len(octets)
			}
		}
	}
	r.Frame = append(r.Frame, b[cut:])
	if !envelope || len(r.Messages) == 0 || len(r.Recipients) == 0 || r.frameOctets() > maxFrame {
		return nil, ErrReport
	}
	return r, nil
}

func (r *Report) frameOctets() (n int) {
	for _, f := range r.Frame {
		n += len(f)
	}
	return n
}

// A part is one of a multipart.
type part struct {
	header translate.Message
	at     int // where its body begins in the report
}

// split finds the parts of a multipart, exactly: the line end before a delimiter is the delimiter's (RFC 2046 §5.1.1).
func split(m translate.Message) ([]part, error) {
	kind, params, err := mime.ParseMediaType(value(m.Header, "Content-Type"))
	boundary := params["boundary"]
	if err != nil || !strings.HasPrefix(kind, "multipart/") || boundary == "" || len(boundary) > 70 {
		return nil, ErrReport
	}
	delimiter := []byte("--" + boundary)
	base := int(m.Len()) - len(m.Body)
	var parts []part
	begin, closed := -1, false
	for at := 0; at < len(m.Body) && !closed; {
		end := bytes.IndexByte(m.Body[at:], '\n') + 1
		if end == 0 {
			end = len(m.Body) - at
		}
		line := bytes.TrimRight(m.Body[at:at+end], " \t\r\n")
		rest, ok := bytes.CutPrefix(line, delimiter)
		if closed = ok && string(rest) == "--"; ok && (len(rest) == 0 || closed) {
			if begin >= 0 {
				if len(parts) == maxParts {
					return nil, ErrReport
				}
				stop := max(begin, at-1)
				if stop > begin && m.Body[stop-1] == '\r' {
					stop--
				}
				h := translate.Split(m.Body[begin:stop])
				parts = append(parts, part{h, base + stop - len(h.Body)})
			}
			begin = at + end
		}
		at += end
	}
	if !closed { // cut short: what was in it is not known to be whole
		return nil, ErrReport
	}
	return parts, nil
}

// value is the value of the first field of a name.
func value(header []byte, name string) string {
	for f := range translate.Fields(header) {
		if f.Is(name) {
			return f.Value()
		}
	}
	return ""
}

func (p part) mediaType() (string, map[string]string) {
	v := value(p.header.Header, "Content-Type")
	if v == "" {
		return "", nil
	}
	kind, params, err := mime.ParseMediaType(v)
	if err != nil && kind == "" {
		return "?", nil
	}
	return kind, params
}

// decode takes the transfer encoding off. Same: there was none. Nil for an encoding that is not known or broken.
func (p part) decode() (octets []byte, same bool) {
	var r io.Reader
	switch strings.ToLower(value(p.header.Header, "Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
		return p.header.Body, true
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(p.header.Body))
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(p.header.Body))
	default:
		return nil, false
	}
	octets, err := io.ReadAll(r)
	if err != nil {
		return nil, false
	}
	return octets, false
}

// text is a part as UTF-8.
func (p part) text(set string) (string, error) {
	b, _ := p.decode()
	if b == nil || len(b) > maxText {
		return "", ErrReport
	}
	if set == "" || strings.EqualFold(set, "us-ascii") || strings.EqualFold(set, "utf-8") {
		return string(b), nil
	}
	r, err := charset.Reader(set, bytes.NewReader(b))
	if err != nil {
		return "", ErrReport
	}
	t, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil || len(t) > maxText {
		return "", ErrReport
	}
	return string(t), nil
}

// read reads the envelope's lines: MS-XJRNL §2.1. Fields that it does not know are passed over: later servers may have more.
func (r *Report) read(text string) error {
	sender, list := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, v, ok := strings.Cut(line, ":")
		if list && line != "" && (!ok || strings.ContainsAny(name, "@<\" ")) { // Exchange 2003: behind "Recipients:", an address a line
			if !r.addAll(line) {
				return ErrReport
			}
			continue
		}
		v = strings.TrimSpace(v)
		list = false
		switch strings.ToLower(name) {
		case "sender":
			if sender {
				return ErrReport
			}
			r.Sender, sender = bare(v), true
		case "on-behalf-of":
			r.OnBehalfOf = bare(v)
		case "message-id":
			r.MessageID = v
		case "mailbox":
			r.Mailbox = bare(v)
		case "label":
			r.Label = v
		case "to", "cc", "bcc", "recipient":
			if !r.add(kinds[strings.ToLower(name)], v) {
				return ErrReport
			}
		case "recipients":
			if list = true; v != "" && !r.addAll(v) {
				return ErrReport
			}
		}
	}
	if !sender {
		return ErrReport
	}
	return nil
}

var kinds = map[string]string{"to": "To", "cc": "Cc", "bcc": "Bcc", "recipient": "Recipient"}

// add takes one recipient: an address, and from where it was redirected.
func (r *Report) add(kind, v string) bool {
	to := Recipient{Kind: kind}
	for _, redirected := range []struct {
		word string
		into *string
	}{{"Expanded:", &to.Expanded}, {"Forwarded:", &to.Forwarded}} {
		if i := strings.LastIndex(v, redirected.word); i > 0 {
			before := strings.TrimRight(v[:i], " \t")
			if address, ok := strings.CutSuffix(before, ","); ok {
				*redirected.into, v = bare(v[i+len(redirected.word):]), address
			}
		}
	}
	to.Address = bare(v)
	if to.Address == "" || len(r.Recipients) == maxRecipients {
		return false
	}
	r.Recipients = append(r.Recipients, to)
	return true
}

// addAll takes several, with commas or semicolons between them.
func (r *Report) addAll(v string) bool {
	for one := range strings.FieldsFuncSeq(v, func(c rune) bool { return c == ',' || c == ';' }) {
		if one = strings.TrimSpace(one); one != "" && !r.add("Recipient", one) {
			return false
		}
	}
	return true
}

// bare is an address without a name and angle brackets.
func bare(v string) string {
	v = strings.TrimSpace(v)
	if i := strings.LastIndexByte(v, '<'); i >= 0 && strings.HasSuffix(v, ">") {
		return strings.TrimSpace(v[i+1 : len(v)-1])
	}
	return v
}

// Addresses are all whom the message concerns, each once: author, for whom he acted, recipients, the groups and persons that they stand for.
func (r *Report) Addresses() (authors, recipients []string) {
	seen := map[string]bool{"": true}
	take := func(list *[]string, address string) {
		if key := strings.ToLower(address); !seen[key] {
			seen[key] = true
			*list = append(*list, address)
		}
	}
	take(&authors, r.Sender)
	take(&authors, r.OnBehalfOf)
	clear(seen) // an author may be a recipient, too
	seen[""] = true
	for _, to := range r.Recipients {
		take(&recipients, to.Address)
		take(&recipients, to.Expanded)
		take(&recipients, to.Forwarded)
	}
	take(&recipients, r.Mailbox)
	return authors, recipients
}

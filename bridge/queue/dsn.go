package queue

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"
)

// A report is one delivery status notification (RFC 3464) about one recipient.
type report struct {
	Kind       string // failed, delayed, relayed
	ID         string // of the entry
	Postmaster string
	Hostname   string
	Now        time.Time
	Envelope   Envelope
	Recipient  Recipient
	Arrived    time.Time
	Last       time.Time // try; zero: none
	Until      time.Time // delayed: when we give up
	Status     string
	Host       string
	Protocol   string
	Diagnostic string
	Reason     string // ours, where the other side has not said any
	Header     []byte // the original's, to be returned
	Message    []byte // all of it, where that is asked for; nil: the header
}

// words are what people read, by kind.
var words = map[string]struct{ subject, text string }{
	noticeFailed: {"Undelivered mail",
		"Your message could not be delivered to the recipient below. It will not be tried again."},
	noticeDelayed: {"Delayed mail",
		"Your message has not reached the recipient below yet. You need not send it again: it will be tried further."},
	noticeRelayed: {"Relayed mail",
		"Your message was handed over to the mail system of the recipient below, which sends no notices of delivery. This is the last that you hear of it."},
}

// A form is what a notice may be made of: 7-bit always.
type form struct {
	eight bool // octets over 127: for a server that offers 8BITMIME
	utf   bool // addresses that are not ASCII, as they are (RFC 6533): for one that offers SMTPUTF8
}

// mail writes the notice in its best form, and in the one that every server takes where the sender's address allows it.
func (r *report) mail() Mail {
	best := form{eight: true, utf: !ascii(r.Envelope.ReversePath + r.Recipient.Address + r.Recipient.Original)}
	m := Mail{To: r.Envelope.ReversePath, SMTPUTF8: best.utf, Octets: r.compose(best)}
	if ascii(r.Envelope.ReversePath) && (r.Message != nil || best.utf || !ascii(string(m.Octets))) {
		small := *r
		small.Message = nil
		m.Fallback = small.compose(form{})
	}
	return m
}

// compose writes the notice (RFC 6522): a text, the status fields, and what is returned of the original.
func (r *report) compose(f form) []byte {
	w := words[r.Kind]
	boundary := token()
	text, status, returned := r.text(w.text, f), r.status(f), r.returned(f)
	eight := text.eight() || status.eight() || returned.eight()
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <%s>", r.Postmaster)
	line("To: <%s>", r.Envelope.ReversePath)
	line("Subject: %s", w.subject)
	line("Date: %s", r.Now.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", token(), r.Hostname)
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"", boundary)
	line("Content-Transfer-Encoding: %s", choose(eight, "8bit", "7bit"))
	line("")
	for _, p := range []part{text, status, returned} {
		line("--%s", boundary)
		line("Content-Type: %s", p.kind)
		line("Content-Transfer-Encoding: %s", p.encoding())
		line("")
		b.Write(p.wire())
		line("")
	}
	line("--%s--", boundary)
	return b.Bytes()
}

// A part is one of a notice's three.
type part struct {
	kind   string // its media type
	octets []byte // lines with CRLF, each within RFC 5322's limit
	quoted bool   // goes as quoted-printable
}

func (p part) eight() bool { return !p.quoted && !ascii(string(p.octets)) }

func (p part) encoding() string {
	switch {
	case p.quoted:
		return "quoted-printable"
	case p.eight():
		return "8bit"
	}
	return "7bit"
}

func (p part) wire() []byte {
	if !p.quoted {
		return p.octets
	}
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write(p.octets) // to memory
	w.Close()
	return b.Bytes()
}

// text is the part for people, in lines of at most 78 characters where words allow it.
func (r *report) text(intro string, f form) part {
	b := new(bytes.Buffer)
	fold(b, intro)
	b.WriteString("\r\n")
	fold(b, "    "+r.Recipient.Address)
	b.WriteString("\r\n")
	if r.Diagnostic != "" {
		from := "The other side"
		if r.Host != "" {
			from = show(r.Host)
		}
		fold(b, from+" said: "+plain(r.Diagnostic))
		b.WriteString("\r\n")
	} else if r.Reason != "" {
		fold(b, "The reason: "+plain(r.Reason)+".")
		b.WriteString("\r\n")
	}
	if !r.Until.IsZero() {
		fold(b, "It is given up at "+r.Until.UTC().Format(time.RFC1123Z)+".")
		b.WriteString("\r\n")
	}
	fold(b, "Number of this entry in the queue of "+r.Hostname+": "+r.ID)
	eight := !ascii(b.String())
	return part{kind: "text/plain; charset=" + choose(eight, "utf-8", "us-ascii"), octets: b.Bytes(), quoted: eight && !f.eight}
}

// fold writes s as lines.
func fold(b *bytes.Buffer, s string) {
	n := 0
	for i, word := range strings.Split(s, " ") {
		switch {
		case i == 0:
		case n+1+len(word) > 78:
			b.WriteString("\r\n")
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len(word)
	}
	b.WriteString("\r\n")
}

// status is RFC 3464 §2: the fields of the message, then those of the recipient.
func (r *report) status(f form) part {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	if r.Envelope.EnvelopeID != "" {
		line("Original-Envelope-Id: %s", show(r.Envelope.EnvelopeID))
	}
	line("Reporting-MTA: dns; %s", r.Hostname)
	line("Arrival-Date: %s", r.Arrived.Format(time.RFC1123Z))
	line("")
	if r.Recipient.Original != "" {
		kind, address, _ := strings.Cut(r.Recipient.Original, ";")
		line("Original-Recipient: %s; %s", show(kind), f.address(show(address)))
	}
	line("Final-Recipient: %s; %s", choose(ascii(r.Recipient.Address), "rfc822", "utf-8"), f.address(r.Recipient.Address))
	line("Action: %s", r.Kind)
	line("Status: %s", r.Status)
	if r.Host != "" {
		line("Remote-MTA: dns; %s", show(r.Host))
	}
	if r.Diagnostic != "" {
		line("Diagnostic-Code: %s; %s", choose(r.Protocol == "dmtp", "x-dmtp", "smtp"), plain(r.Diagnostic))
	}
	if !r.Last.IsZero() {
		line("Last-Attempt-Date: %s", r.Last.Format(time.RFC1123Z))
	}
	if r.Kind == noticeDelayed && !r.Until.IsZero() {
		line("Will-Retry-Until: %s", r.Until.Format(time.RFC1123Z))
	}
	return part{kind: choose(f.utf, "message/global-delivery-status", "message/delivery-status"), octets: b.Bytes()}
}

// address is one as the form takes it: where it may not go as it is, in the ASCII of RFC 6533 §3.
func (f form) address(s string) string {
	if f.utf || ascii(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r >= 0x80 || strings.ContainsRune(`\+=`, r) {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plain makes words of a peer fit for a header line: printable ASCII, at most 400 characters.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), 400)])
}

// show makes a value of an envelope fit for a header line.
func show(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s))
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

func choose[T any](b bool, yes, no T) T {
	if b {
		return yes
	}
	return no
}

// token is 26 random characters that are safe in a boundary and a message id.
func token() string {
	var b [16]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

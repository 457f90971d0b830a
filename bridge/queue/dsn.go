package queue

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
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
	Header     []byte // the original's, returned
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

// mail writes the notice: multipart/report with a text, the status fields, and the original's header. With an address that
// is not ASCII it is that of RFC 6533.
func (r *report) mail() Mail {
	utf := !ascii(r.Envelope.ReversePath + r.Recipient.Address + r.Recipient.Original)
	w := words[r.Kind]
	boundary := token()
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
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=%s", choose(utf, "utf-8", "us-ascii"))
	line("Content-Transfer-Encoding: %s", choose(utf, "8bit", "7bit"))
	line("")
	r.text(&b, w.text)
	line("")
	line("--%s", boundary)
	line("Content-Type: %s", choose(utf, "message/global-delivery-status", "message/delivery-status"))
	if utf {
		line("Content-Transfer-Encoding: 8bit")
	}
	line("")
	r.status(&b, utf)
	line("")
	line("--%s", boundary)
	header, eight := returned(r.Header)
	line("Content-Type: %s", choose(eight, "message/global-headers", "text/rfc822-headers"))
	line("Content-Transfer-Encoding: %s", choose(eight, "8bit", "7bit"))
	line("")
	b.Write(header)
	line("")
	line("--%s--", boundary)
	return Mail{To: r.Envelope.ReversePath, SMTPUTF8: utf, Octets: b.Bytes()}
}

// text is the part for people, in lines of at most 78 characters where words allow it.
func (r *report) text(b *bytes.Buffer, intro string) {
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
func (r *report) status(b *bytes.Buffer, utf bool) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\r\n", args...) }
	if r.Envelope.EnvelopeID != "" {
		line("Original-Envelope-Id: %s", show(r.Envelope.EnvelopeID))
	}
	line("Reporting-MTA: dns; %s", r.Hostname)
	line("Arrival-Date: %s", r.Arrived.Format(time.RFC1123Z))
	line("")
	if r.Recipient.Original != "" {
		kind, address, _ := strings.Cut(r.Recipient.Original, ";")
		line("Original-Recipient: %s; %s", show(kind), show(address))
	}
	line("Final-Recipient: %s; %s", choose(utf, "utf-8", "rfc822"), r.Recipient.Address)
	line("Action: %s", r.Kind)
	status := r.Status
	if r.Kind == noticeDelayed && (status == "" || status[0] != '4') {
		status = "4.4.7" // what a wait may end in is not what it is
	}
	line("Status: %s", status)
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
}

// maxLine is RFC 5322's limit of a line, without its CRLF.
const maxLine = 998

// returned makes the original's header fit: CRLF line ends, no NUL, no bare CR, long lines cut; and says whether it has
// octets over 127.
func returned(h []byte) (b []byte, eight bool) {
	h = bytes.ReplaceAll(h, []byte("\r\n"), []byte("\n"))
	n := 0
	for _, c := range h {
		if c == '\n' {
			b, n = append(b, '\r', '\n'), 0
			continue
		}
		if n++; n > maxLine {
			continue
		}
		if c == 0 || c == '\r' {
			c = '?'
		}
		b = append(b, c)
		eight = eight || c >= 0x80
	}
	if eight && !utf8.Valid(b) { // then it is no global header either: show the octets as question marks
		for i, c := range b {
			if c >= 0x80 {
				b[i] = '?'
			}
		}
		eight = false
	}
	return b, eight
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

package journal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// crlf gives a text the line ends of mail.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const original = "From: Alice <alice@corp.example>\r\nTo: team@corp.example\r\nSubject: plan\r\nMessage-ID: <1@corp.example>\r\n\r\nbody\r\n--other--\r\nFrom here\r\n"

// report is one as Exchange makes it: a text part of these lines, and messages.
func report(lines string, messages ...string) string {
	var b strings.Builder
	b.WriteString(crlf("Received: from x by y; Tue, 1 Dec 2026 02:00:00 +0000\nFrom: Microsoft Outlook <MicrosoftExchange329e@corp.example>\nTo: journal@archive.example\nSubject: plan\nX-MS-Journal-Report:\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"_0_b\"\n\n"))
	b.WriteString(crlf("--_0_b\nContent-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: 8bit\n\n" + lines))
	for _, m := range messages {
		b.WriteString(crlf("\n--_0_b\nContent-Type: message/rfc822\n\n") + m)
	}
	b.WriteString(crlf("\n--_0_b--\n"))
	return b.String()
}

const head = "Sender: alice@corp.example\nSubject: plan: a=b\nMessage-ID: <1@corp.example>\n"

// The documented forms: MS-XJRNL §2.1 and §3, "Understanding Journal Reports" of Exchange 2007 to Exchange Online.
func TestForms(t *testing.T) {
	to := func(list ...Recipient) []Recipient { return list }
	for name, c := range map[string]struct {
		lines string
		want  Report
	}{
		"to, cc, bcc": {head + "To: bob@corp.example\nCc: carol@corp.example\nBcc: boss@corp.example\n",
			Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"}, Recipient{Kind: "Cc", Address: "carol@corp.example"}, Recipient{Kind: "Bcc", Address: "boss@corp.example"})}},
		"recipient": {head + "Recipient: bob@corp.example\n", Report{Recipients: to(Recipient{Kind: "Recipient", Address: "bob@corp.example"})}},
		"expanded":  {head + "To: bob@corp.example, Expanded: team@corp.example\n", Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example", Expanded: "team@corp.example"})}},
		"expanded, blind": {head + "Bcc: bob@corp.example, Expanded: team@corp.example\n",
			Report{Recipients: to(Recipient{Kind: "Bcc", Address: "bob@corp.example", Expanded: "team@corp.example"})}},
		"forwarded": {head + "Cc: fwd@corp.example, Forwarded: user@corp.example\n", Report{Recipients: to(Recipient{Kind: "Cc", Address: "fwd@corp.example", Forwarded: "user@corp.example"})}},
		"behalf": {"Sender: sec@corp.example\nOn-Behalf-Of: alice@corp.example\nSubject: plan\nMessage-Id: <1@corp.example>\nTo: bob@corp.example\n",
			Report{Sender: "sec@corp.example", OnBehalfOf: "alice@corp.example", Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"id before subject": {"Sender: alice@corp.example\nMessage-ID: <1@corp.example>\nSubject: Café\nTo: bob@corp.example\n", Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"label, mailbox, times": {head + "Label: Seven years\nMailbox: bob@corp.example\nSentUtc: 12/1/2026 2:00:00 AM\nReceivedUtc: 12/1/2026 2:00:01 AM\nTo: bob@corp.example\n",
			Report{Label: "Seven years", Mailbox: "bob@corp.example", Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"null sender":    {"Sender: <>\nSubject:\nMessage-ID: <1@corp.example>\nTo: bob@corp.example\n", Report{Sender: "<>", Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"empty sender":   {"Sender: \nSubject: x\nMessage-ID: <1@corp.example>\nTo: bob@corp.example\n", Report{Sender: "<>", Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"angle brackets": {head + "To: <bob@corp.example>\n", Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"later fields":   {head + "To: bob@corp.example\nFuture-Field: yes\n", Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"subject that looks like a field": {"Sender: alice@corp.example\nSubject: To: eve@evil.example\nMessage-ID: <1@corp.example>\nTo: bob@corp.example\n",
			Report{Recipients: to(Recipient{Kind: "To", Address: "bob@corp.example"})}},
		"2003": {"Sender: \"Alice\" <alice@corp.example>\nMessage-ID: <1@corp.example>\nRecipients:\n\"Bob\" <bob@corp.example>\ncarol@corp.example\n",
			Report{Recipients: to(Recipient{Kind: "Recipient", Address: "bob@corp.example"}, Recipient{Kind: "Recipient", Address: "carol@corp.example"})}},
		"2003, one line": {"Sender: alice@corp.example\nMessage-ID: <1@corp.example>\nRecipients: bob@corp.example; carol@corp.example\n",
			Report{Recipients: to(Recipient{Kind: "Recipient", Address: "bob@corp.example"}, Recipient{Kind: "Recipient", Address: "carol@corp.example"})}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := []byte(report(c.lines, original))
			r, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			switch c.want.Sender {
			case "":
				c.want.Sender = "alice@corp.example"
			case "<>":
				c.want.Sender = ""
			}
			c.want.MessageID = "<1@corp.example>"
			if len(r.Messages) != 1 || string(r.Messages[0].Octets) != original || r.Messages[0].Encoded {
				t.Errorf("the message is %v", r.Messages)
			}
			if !bytes.Equal(bytes.Join(r.Frame, r.Messages[0].Octets), raw) {
				t.Error("frame and message are not the report")
			}
			r.Messages, r.Frame = nil, nil
			if !reflect.DeepEqual(*r, c.want) {
				t.Errorf("got  %+v\nwant %+v", *r, c.want)
			}
		})
	}
}

// TestTwins: rights-protected mail comes as it was and opened, in one report.
func TestTwins(t *testing.T) {
	second := "Subject: sealed\r\n\r\nrpmsg\r\n"
	raw := []byte(report(head+"To: bob@corp.example\n", original, second))
	r, err := Parse(raw)
	if err != nil || len(r.Messages) != 2 || len(r.Frame) != 3 {
		t.Fatal(r, err)
	}
	whole := append(append(append(append(bytes.Clone(r.Frame[0]), r.Messages[0].Octets...), r.Frame[1]...), r.Messages[1].Octets...), r.Frame[2]...)
	if !bytes.Equal(whole, raw) {
		t.Error("frame and messages are not the report")
	}
}

// TestEncoded: encodings of the text part, its charset, and of a message, which RFC 2046 forbids and some relays do.
func TestEncoded(t *testing.T) {
	lines := crlf("Sender: alice@corp.example\nSubject: Caf\xe9\nMessage-ID: <1@corp.example>\nTo: b=40corp.example\n")
	raw := strings.Replace(report("", original), crlf("charset=\"utf-8\"\nContent-Transfer-Encoding: 8bit\n\n"), crlf("charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n")+strings.ReplaceAll(lines, "Caf\xe9", "Caf=E9"), 1)
	r, err := Parse([]byte(raw))
	if err != nil || r.Recipients[0].Address != "b@corp.example" {
		t.Fatal(r, err)
	}
	raw = strings.Replace(report(head+"To: bob@corp.example\n", base64.StdEncoding.EncodeToString([]byte(original))), "message/rfc822\r\n", "message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", 1)
	r, err = Parse([]byte(raw))
	if err != nil || string(r.Messages[0].Octets) != original || !r.Messages[0].Encoded || len(r.Frame) != 1 || string(r.Frame[0]) != raw {
		t.Fatal(r, err)
	}
}

func TestNoReport(t *testing.T) {
	whole := report(head+"To: bob@corp.example\n", original)
	for name, raw := range map[string]string{
		"plain mail":    original,
		"nothing":       "",
		"no message":    report(head + "To: bob@corp.example\n"),
		"no recipient":  report(head, original),
		"no sender":     report("Subject: x\nTo: bob@corp.example\n", original),
		"two senders":   report("Sender: x@y.example\n"+head+"To: bob@corp.example\n", original),
		"empty address": report(head+"To: \n", original),
		"empty message": report(head+"To: bob@corp.example\n", ""),
		"cut short":     whole[:len(whole)-12],
		"encoding":      strings.Replace(whole, "8bit", "x-uu", 1),
		"charset":       strings.Replace(whole, "utf-8", "klingon", 1),
	} {
		if r, err := Parse([]byte(raw)); !errors.Is(err, ErrReport) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	r, err := Parse([]byte(report("Sender: sec@corp.example\nOn-Behalf-Of: alice@corp.example\nSubject: x\nMessage-ID: <1>\nTo: Bob@corp.example, Expanded: team@corp.example\nBcc: bob@corp.example\nCc: sec@corp.example\n", original)))
	if err != nil {
		t.Fatal(err)
	}
	authors, recipients := r.Addresses()
	if strings.Join(authors, " ") != "sec@corp.example alice@corp.example" || strings.Join(recipients, " ") != "Bob@corp.example team@corp.example sec@corp.example" {
		t.Error(authors, recipients)
	}
}

// FuzzParse: no octets make it panic; what is read is bounded, and frame and messages are the report.
func FuzzParse(f *testing.F) {
	f.Add([]byte(report(head+"To: bob@corp.example, Expanded: x@y\n", original, original)))
	f.Add([]byte(report("Sender: a\nRecipients:\nb@c\n", original)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrReport) {
				t.Fatal(err)
			}
			return
		}
		var whole []byte
		frame := r.Frame
		for _, m := range r.Messages {
			if !m.Encoded {
				whole = append(append(whole, frame[0]...), m.Octets...)
				frame = frame[1:]
			}
		}
		if len(frame) != 1 || !bytes.Equal(append(whole, frame[0]...), raw) {
			t.Error("frame and messages are not the report")
		}
		r.Addresses()
	})
}

// TestStored: the envelope comes back as it was stored, and nothing else is taken for one.
func TestStored(t *testing.T) {
	r, err := Parse([]byte(report(head+"To: bob@corp.example, Expanded: team@corp.example\n", original)))
	if err != nil {
		t.Fatal(err)
	}
	s := Stored{Report: "id", From: "x@y.example", To: "journal@archive.example"}.Of(r, 0)
	b, err := s.Octets()
	if err != nil {
		t.Fatal(err)
	}
	s.Format = StoredFormat
	if got, err := ParseStored(b); err != nil || !reflect.DeepEqual(*got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, raw := range []string{"", "{}", `{"format":"dimegate-journal-v2"}`, `{"format":"dimegate-journal-v1","more":1}`} {
		if _, err := ParseStored([]byte(raw)); err == nil {
			t.Errorf("%q is an envelope", raw)
		}
	}
}

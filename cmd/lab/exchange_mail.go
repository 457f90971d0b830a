package main

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
)

// An exchangeMessage is one as Exchange writes it.
type exchangeMessage struct {
	name   string
	from   string // reverse-path
	octets []byte
}

// believed are the fields that an Exchange takes for its own, of a header or of a message within. They are looked for with our own
// words, not the firewall's.
var believed = regexp.MustCompile(`(?mi)^x-ms-exchange-(organization|crosspremises|forest)-[^:\n]*:.*\n(?:[ \t].*\n)*`)

// left is what must be left of it: the header without those fields, the body as it is.
func (m exchangeMessage) left() []byte {
	head, body, _ := strings.Cut(string(m.octets), "\r\n\r\n")
	return []byte(believed.ReplaceAllString(head+"\r\n", "") + "\r\n" + body)
}

func (m exchangeMessage) taken() int { return len(believed.FindAll(m.octets, -1)) }

// exchangeMail is one message of each kind.
func exchangeMail() []exchangeMessage {
	const (
		from = "alice@alpha.test"
		head = "From: Alice <alice@alpha.test>\r\nTo: Bob <bob@bravo.test>\r\nDate: Tue, 1 Dec 2026 00:00:00 +0000\r\nMessage-ID: <ex%s@EX01.alpha.test>\r\nSubject: %[1]s\r\nMIME-Version: 1.0\r\n"
	)
	h := func(name string) string { return fmt.Sprintf(head, name) }
	tnef := strings.Join(lines76(base64.StdEncoding.EncodeToString(append([]byte("\x78\x9f\x3e\x22\x01\x00\x01"), everyOctet()...))), "\r\n")
	return []exchangeMessage{
		{"fields of its own", from, []byte("Received: from EX02.alpha.test (2001:db8::2) by EX01.alpha.test\r\n (2001:db8::1) with Microsoft SMTP Server (version=TLS1_2) id 15.2.1544.4;\r\n Tue, 1 Dec 2026 00:00:00 +0000\r\n" +
			"X-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthMechanism: 04\r\nX-MS-Exchange-Organization-AuthSource:\r\n\tEX02.alpha.test\r\n" +
			"x-ms-exchange-organization-scl: -1\r\nX-MS-EXCHANGE-ORGANIZATION-BYPASSFOCUSEDINBOX: true\r\nX-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-MS-Exchange-CrossPremises-TransportTrafficType:\r\n Email\r\n" +
			"X-MS-Exchange-Forest-RulesExecuted: EX01\r\nX-MS-Exchange-Transport-CrossTenantHeadersStamped: EX02\r\nX-MS-Exchange-Transport-Loop: EX02\r\nX-MS-Exchange-ForwardingLoop: bob@bravo.test;1\r\n" +
			"X-MS-Exchange-Inbox-Rules-Loop: bob@bravo.test\r\nX-EOPAttributedMessage: 0\r\nX-MS-Has-Attach:\r\nX-MS-TNEF-Correlator:\r\nThread-Topic: t\r\nThread-Index: AdxAAAAA\r\n" +
			h("fields") + "\r\nX-MS-Body: x\r\n")},
		{"large header", from, []byte(strings.Repeat("Received: from EX02.alpha.test (192.0.2.2) by EX01.alpha.test (192.0.2.1)\r\n with Microsoft SMTP Server id 15.2.1544.4; Tue, 1 Dec 2026 00:00:00 +0000\r\n", 40) +
			"X-MS-Exchange-Organization-Recipients:" + strings.Repeat("\r\n someone.with.a.long.name@alpha.test,", 500) + "\r\n" + h("large") +
			"References:" + strings.Repeat("\r\n <0123456789abcdef0123456789abcdef@EX01.alpha.test>", 2000) + "\r\n\r\nbody\r\n")},
		{"winmail.dat", from, []byte("X-MS-Has-Attach: yes\r\nX-MS-TNEF-Correlator: <extnef@EX01.alpha.test>\r\n" + h("tnef") +
			"Content-Type: multipart/mixed; boundary=\"_000_tnef_\"\r\n\r\n--_000_tnef_\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nsee =\r\nattached\r\n\r\n" +
			"--_000_tnef_\r\nContent-Disposition: attachment; filename=\"winmail.dat\"\r\nContent-Transfer-Encoding: base64\r\nContent-Type: application/ms-tnef; name=\"winmail.dat\"\r\n\r\n" + tnef + "\r\n\r\n--_000_tnef_--\r\n")},
		{"journal report", "", []byte("X-MS-Journal-Report:\r\n" + h("journal") + "Content-Type: multipart/mixed; boundary=\"_001_j_\"\r\n\r\n--_001_j_\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\r\n" +
			"Sender: alice@alpha.test\r\nSubject: hello\r\nMessage-Id: <inner@EX01.alpha.test>\r\nTo: bob@bravo.test\r\nBcc: carol@alpha.test\r\n\r\n--_001_j_\r\nContent-Type: message/rfc822\r\n\r\n" +
			"From: Alice <alice@alpha.test>\r\nTo: bob@bravo.test\r\nBcc: carol@alpha.test\r\nSubject: hello\r\nMessage-ID: <inner@EX01.alpha.test>\r\n\r\nthe original\r\n--_001_j_--\r\n")},
		{"meeting request", from, []byte(h("calendar") + "Content-Class: urn:content-classes:calendarmessage\r\nContent-Type: multipart/alternative; boundary=\"_002_c_\"\r\n\r\n--_002_c_\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n\r\nLunch\r\n" +
			"--_002_c_\r\nContent-Type: text/calendar; charset=\"utf-8\"; method=REQUEST\r\nContent-Transfer-Encoding: 8bit\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Mittag für alle\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n--_002_c_--\r\n")},
		{"no last line end", from, []byte(h("cut") + "\r\nthe last line has no end")},
	}
}

func lines76(text string) (lines []string) {
	for len(text) > 76 {
		lines, text = append(lines, text[:76]), text[76:]
	}
	return append(lines, text)
}

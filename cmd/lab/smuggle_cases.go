package main

import (
	"fmt"
	"strconv"
	"strings"
)

// What is hidden in messages: a transaction of its own. As DATA carries it, a client doubles its last dot.
const (
	hidden  = "MAIL FROM:<from>\r\nRCPT TO:<victim>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n"
	stuffed = "MAIL FROM:<from>\r\nRCPT TO:<victim>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n..\r\n"
	goodbye = "NOOP\r\nQUIT\r\n"
)

// ends are octets that some server somewhere takes for the end of a message.
var ends = []struct{ name, octets string }{
	{"LF . LF", "\n.\n"}, {"LF . CRLF", "\n.\r\n"}, {"LF .. CRLF", "\n..\r\n"}, {"CRLF . LF", "\r\n.\n"}, {"CRLF . CR", "\r\n.\r"},
	{"CR . CR", "\r.\r"}, {"CR . LF", "\r.\n"}, {"CR . CRLF", "\r.\r\n"}, {"CRLF . CR x", "\r\n.\rx\r\n"}, {"CRLF . CR CR LF", "\r\n.\r\r\n"},
	{"CR CR LF . CR CR LF", "\r\r\n.\r\r\n"}, {"LF LF . LF LF", "\n\n.\n\n"}, {"LF CR . LF CR", "\n\r.\n\r"},
	{"CRLF NUL . CRLF", "\r\n\x00.\r\n"}, {"CRLF . NUL CRLF", "\r\n.\x00\r\n"}, {"CRLF . blank CRLF", "\r\n. \r\n"}, {"CRLF . FF CRLF", "\r\n.\xff\r\n"},
	{"CRLF LS . LS", "\r\n\u2028.\u2028"}, {"NEL . NEL", "\u0085.\u0085"}, {"VT FF", "\v.\f"},
}

var (
	envelopeSteps = []smuggleStep{{send: "MAIL FROM:<from>\r\n", replies: 1, want: "250"}, {send: "RCPT TO:<to>\r\n", replies: 1, want: "250"}}
	dataStep      = smuggleStep{send: "DATA\r\n", replies: 1, want: "354"}
)

func steps(list ...[]smuggleStep) (all []smuggleStep) {
	for _, l := range list {
		all = append(all, l...)
	}
	return all
}

// chunk is a BDAT with what belongs to it.
func chunk(octets, more string) string {
	return "BDAT " + strconv.Itoa(sizeOf(octets)) + more + "\r\n" + octets
}

// sizeOf is the size of text when its names have been filled in: at every door they are as long as these.
func sizeOf(text string) int { return len(sampleNames.Replace(text)) }

var sampleNames = names("alice@alpha.test", "m000000@bravo.test", "m000000@bravo.test", "bravo.test")

// smtpCases are tried at every port where SMTP is spoken.
func smtpCases() []smuggleCase {
	var all []smuggleCase
	for _, e := range ends {
		body := "Subject: carrier\r\n\r\nhello" + e.octets
		all = append(all, smuggleCase{name: "DATA: " + e.name, steps: steps(envelopeSteps,
			[]smuggleStep{dataStep, {send: body + stuffed + ".\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
			smuggleCase{name: "BDAT: " + e.name, steps: steps(envelopeSteps,
				[]smuggleStep{{send: chunk(body, ""), replies: 1}, {send: chunk(hidden, " LAST"), replies: 1, message: true}, {send: goodbye, replies: 2}})})
	}
	return append(append(append(all, lineCases...), tlsCases...), chunkCases()...)
}

var long = strings.Repeat("x", 1<<20)

// lineCases are about lines, and what comes before its time.
var lineCases = []smuggleCase{
	{name: "an honest message", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "Subject: honest\r\n\r\n" + stuffed + ".\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
	{name: "a line of 1 MiB", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "Subject: x\r\n\r\n" + long + "\r\n" + stuffed + ".\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
	{name: "a line over 1 MiB", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "Subject: x\r\n\r\n" + long + "x\r\n" + stuffed + ".\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
	{name: "DMTP's STARTTLS in a body", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "STARTTLS <destination>\r\nEHLO <origin>\r\n.\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
	{name: "DATA and body at once, no recipient", steps: []smuggleStep{{send: "MAIL FROM:<from>\r\nDATA\r\n" + hidden + goodbye, replies: 5}}},
	{name: "DATA and body at once, no MAIL", steps: []smuggleStep{{send: "DATA\r\n" + hidden + goodbye, replies: 4}}},
	{name: "command: ends with LF", steps: []smuggleStep{{send: "NOOP\nMAIL FROM:<from>\nRCPT TO:<victim>\nDATA\n", replies: 0}, {send: "\r\n" + goodbye, replies: 3}}},
	{name: "command: ends with CR", steps: []smuggleStep{{send: "NOOP\rMAIL FROM:<from>\rRCPT TO:<victim>\rDATA\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "command: NUL", steps: []smuggleStep{{send: "NOOP\x00\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "command: NUL, then another", steps: []smuggleStep{{send: "NOOP \x00MAIL FROM:<from>\x00RCPT TO:<victim>\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "command: 5000 octets", steps: []smuggleStep{{send: "NOOP " + strings.Repeat("x", 5000) + "\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "command: 1 MiB", steps: []smuggleStep{{send: "NOOP " + long + "\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "command: 1 MiB of commands, no line end", steps: []smuggleStep{{send: strings.Repeat("MAIL FROM:<from> ", 60000), replies: 1}}},
	{name: "command: an address with a line end", steps: []smuggleStep{{send: "MAIL FROM:<a\rRCPT TO:<b>@alpha.test>\r\n", replies: 1}, {send: goodbye, replies: 2}}},
	{name: "commands before the banner", early: true, bare: true, steps: []smuggleStep{{send: "EHLO client.test\r\nMAIL FROM:<from>\r\nRCPT TO:<victim>\r\nRSET\r\nQUIT\r\n", replies: 5}}},
	{name: "a message before the banner", early: true, bare: true, steps: []smuggleStep{{send: "EHLO client.test\r\nMAIL FROM:<from>\r\nDATA\r\n" + hidden + "QUIT\r\n", replies: 4}}},
	{name: "an HTTP request", bare: true, steps: []smuggleStep{{send: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", replies: 4}, {send: "EHLO client.test\r\n" + hidden, replies: 0}}},
	{name: "a body that is cut short", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "Subject: x\r\n\r\nhalf of it\r\n", replies: 1, message: true}})},
}

// tlsCases are about what comes with STARTTLS in clear.
var tlsCases = []smuggleCase{
	{name: "STARTTLS and commands at once", steps: []smuggleStep{{send: "STARTTLS\r\nMAIL FROM:<from>\r\nRCPT TO:<victim>\r\n", replies: 1, want: "220", tls: true},
		{send: "EHLO client.test\r\nQUIT\r\n", replies: 2}}},
	{name: "STARTTLS and a message at once", steps: []smuggleStep{{send: "STARTTLS\r\nEHLO client.test\r\n" + hidden, replies: 1, want: "220", tls: true},
		{send: "EHLO client.test\r\nQUIT\r\n", replies: 2}}},
	{name: "STARTTLS in a group", bare: true, steps: []smuggleStep{{send: "EHLO client.test\r\nSTARTTLS\r\nEHLO client.test\r\nMAIL FROM:<from>\r\n", replies: 2, want: "220", tls: true},
		{send: "EHLO client.test\r\nQUIT\r\n", replies: 2}}},
	{name: "a transaction across STARTTLS", steps: []smuggleStep{{send: "MAIL FROM:<from>\r\n", replies: 1, want: "250"}, {send: "RCPT TO:<victim>\r\n", replies: 1, want: "250"},
		{send: "STARTTLS\r\n", replies: 1, want: "220", tls: true}, {send: "DATA\r\n", replies: 1}, {send: "EHLO client.test\r\nDATA\r\n", replies: 2}}},
	{name: "an answer to STARTTLS that is no TLS", steps: []smuggleStep{{send: "STARTTLS\r\n", replies: 1, want: "220"}, {send: "EHLO client.test\r\n" + hidden, replies: 0}}},
}

// chunkCases are about BDAT that is refused, before or half-way.
func chunkCases() []smuggleCase {
	bdat := func(name string, before []smuggleStep, bdat string) smuggleCase {
		size := strconv.Itoa(sizeOf(hidden))
		return smuggleCase{name: "BDAT " + name, steps: steps(before, []smuggleStep{{send: strings.Replace(bdat, "%", size, 1) + "\r\n" + hidden, replies: 1, message: true}, {send: goodbye, replies: 2}})}
	}
	first := smuggleStep{send: chunk("Subject: x\r\n\r\n", ""), replies: 1}
	open := steps(envelopeSteps, []smuggleStep{first})
	after := func(name string, more ...smuggleStep) smuggleCase {
		return smuggleCase{name: "BDAT " + name, steps: steps(open, more, []smuggleStep{{send: goodbye, replies: 2}})}
	}
	return []smuggleCase{
		bdat("without MAIL", nil, "BDAT % LAST"),
		bdat("without a recipient", []smuggleStep{{send: "MAIL FROM:<from>\r\n", replies: 1}}, "BDAT % LAST"),
		bdat("after a recipient that was refused", []smuggleStep{{send: "MAIL FROM:<from>\r\nRCPT TO:<nobody>\r\nRCPT TO:<>\r\n", replies: 3}}, "BDAT % LAST"),
		bdat("after a MAIL that was refused", []smuggleStep{{send: "MAIL FROM:<from> SIZE=99999999999\r\nRCPT TO:<to>\r\n", replies: 2}}, "BDAT % LAST"),
		bdat("with an unknown word", envelopeSteps, "BDAT % FIRST"),
		bdat("with a word too many", envelopeSteps, "BDAT % LAST LAST"),
		bdat("without a size", envelopeSteps, "BDAT"),
		bdat("of a negative size", envelopeSteps, "BDAT -% LAST"),
		bdat("of a signed size", envelopeSteps, "BDAT +% LAST"),
		bdat("of a hexadecimal size", envelopeSteps, "BDAT 0x% LAST"),
		bdat("of an octal size", envelopeSteps, "BDAT 0%X LAST"),
		bdat("beyond 32 bits", envelopeSteps, "BDAT 4294967297 LAST"),
		bdat("beyond 64 bits", envelopeSteps, "BDAT 18446744073709551617 LAST"),
		bdat("beyond the limit", envelopeSteps, "BDAT 1000000000 LAST"),
		bdat("half-way beyond the limit", open, "BDAT 1000000000"),
		bdat("half-way with an unknown word", open, "BDAT % FIRST"),
		bdat("half-way without a size", open, "BDAT"),
		after("and RSET", smuggleStep{send: "RSET\r\n" + chunk(hidden, " LAST"), replies: 2, message: true}),
		after("and MAIL", smuggleStep{send: "MAIL FROM:<from>\r\n" + chunk(hidden, " LAST"), replies: 2, message: true}),
		after("and EHLO", smuggleStep{send: "EHLO client.test\r\n" + chunk(hidden, " LAST"), replies: 2, message: true}),
		after("and DATA", smuggleStep{send: "DATA\r\n", replies: 1}, smuggleStep{send: chunk(hidden, " LAST"), replies: 1, message: true}),
		after("and a line that is none", smuggleStep{send: "XYZZY\r\n" + chunk(hidden, " LAST"), replies: 2, message: true}),
		after("and an empty LAST", smuggleStep{send: chunk(hidden, ""), replies: 1}, smuggleStep{send: chunk("", " LAST"), replies: 1, message: true}),
		after("and LAST twice", smuggleStep{send: chunk("body\r\n", " LAST"), replies: 1, message: true}, smuggleStep{send: chunk(hidden, " LAST"), replies: 1}),
		after("and DATA behind LAST", smuggleStep{send: chunk("body\r\n", " LAST"), replies: 1, message: true}, smuggleStep{send: "DATA\r\n" + hidden, replies: 2}),
		{name: "DATA, then BDAT", steps: steps(envelopeSteps, []smuggleStep{dataStep, {send: "Subject: x\r\n\r\n" + chunk(stuffed, " LAST") + ".\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
		{name: "BDAT that is cut short", steps: steps(envelopeSteps, []smuggleStep{{send: "BDAT 100000 LAST\r\n" + hidden, replies: 1, message: true}})},
	}
}

// dmtpCases are the same for DMTP, whose messages have a size: what is hidden are DMTP's commands.
func dmtpCases() []smuggleCase {
	const (
		inner = "MAIL FROM: <origin> [x] SIZE=5\r\nRCPT TO: <destination> [x]\r\nDATA\r\nhello"
		rcpt  = "RCPT TO: <destination> [x]\r\n"
	)
	n := sizeOf(inner)
	message := func(says int, more string) string { // the header of a message, which says so many octets behind it
		return string([]byte{0x07, 0x37, byte(says >> 24), byte(says >> 16), byte(says >> 8), byte(says)}) + more
	}
	body := func(name, size, octets string, lines ...string) smuggleCase {
		return smuggleCase{name: name, steps: []smuggleStep{
			{send: "MAIL FROM=<origin> FINGERPRINT=[x]" + size + "\r\n", replies: 1, want: "250"}, {send: rcpt, replies: 1, want: "250"}, dataStep,
			{send: octets, replies: 1, message: true}, {send: strings.Join(lines, "") + goodbye, replies: len(lines) + 2}}}
	}
	size := func(n int) string { return fmt.Sprintf(" SIZE=%d", n) }
	return []smuggleCase{
		body("commands for a message", size(n), inner),
		body("commands for a message, no SIZE", "", inner),
		body("commands in a message", size(n+6), message(n, inner)),
		body("commands in a message, no SIZE", "", message(n, inner)),
		body("commands in a traced message", size(n+10), "\x07\x2d\x00\x00"+message(n, inner)),
		body("SIZE too small", size(10), message(n, inner)),
		body("SIZE too large", size(n+1000), message(n, inner)),
		body("SIZE of nothing", size(0), message(n, inner)),
		body("the header says less than SIZE", size(n+6), message(5, inner)),
		body("the header says more than SIZE", size(n+6), message(1<<20, inner)),
		body("the header says 4 GiB", "", message(-1, inner)),
		body("as SMTP ends a message, and an honest line more", size(n+6), message(n, inner)+"\r\n", ".\r\n"),
		{name: "SIZE over the limit, and the message all the same", steps: []smuggleStep{{send: "MAIL FROM: <origin> [x] SIZE=4000000000\r\n" + rcpt + "DATA\r\n" + message(n, inner), replies: 3}, {send: goodbye, replies: 2}}},
		{name: "a message without RCPT", steps: []smuggleStep{{send: "MAIL FROM=<origin> FINGERPRINT=[x]\r\nDATA\r\n" + inner, replies: 2}, {send: goodbye, replies: 2}}},
		{name: "a message without MAIL", steps: []smuggleStep{{send: "DATA\r\n" + inner, replies: 1}, {send: goodbye, replies: 2}}},
		{name: "a message without EHLO", bare: true, steps: []smuggleStep{{send: "DATA\r\n" + inner, replies: 1}, {send: goodbye, replies: 2}}},
		{name: "a message that did not wait", steps: []smuggleStep{{send: "MAIL FROM: <origin> [x]" + size(n+6) + "\r\n" + rcpt + "DATA\r\n" + message(n, inner), replies: 4}, {send: goodbye, replies: 2}}},
		{name: "a message that is cut short", steps: []smuggleStep{{send: "MAIL FROM: <origin> [x] SIZE=100000\r\n" + rcpt + "DATA\r\n" + message(99994, inner), replies: 4}}},
		{name: "BDAT", steps: []smuggleStep{{send: "MAIL FROM=<origin> FINGERPRINT=[x]\r\n" + rcpt + "BDAT " + strconv.Itoa(n) + " LAST\r\n" + inner, replies: 3}, {send: goodbye, replies: 2}}},
		{name: "command: ends with CR", steps: []smuggleStep{{send: "NOOP\rMAIL FROM: <origin> [x]\r" + rcpt, replies: 1}, {send: goodbye, replies: 2}}},
		{name: "command: NUL", steps: []smuggleStep{{send: "NOOP\x00\r\nNOOP \x00MAIL FROM: <origin> [x]\r\n", replies: 2}, {send: goodbye, replies: 2}}},
		{name: "command: 5000 octets", steps: []smuggleStep{{send: "NOOP " + strings.Repeat("x", 5000) + "\r\n", replies: 1}, {send: goodbye, replies: 2}}},
		{name: "command: 1 MiB", steps: []smuggleStep{{send: "NOOP " + long + "\r\n", replies: 1}, {send: goodbye, replies: 2}}},
		{name: "command: 1 MiB of commands, no line end", steps: []smuggleStep{{send: strings.Repeat("MAIL FROM: <origin> ", 50000), replies: 1}}},
		{name: "commands before the banner", early: true, bare: true, steps: []smuggleStep{{send: "EHLO <origin>\r\nMAIL FROM: <origin> [x]\r\nRSET\r\nQUIT\r\n", replies: 4}}},
		{name: "STARTTLS within TLS", steps: []smuggleStep{{send: "STARTTLS <destination>\r\n", replies: 1}, {send: goodbye, replies: 2}}},
		{name: "SMTP's commands", steps: []smuggleStep{{send: "MAIL FROM:<a@alpha.test>\r\nRCPT TO:<b@bravo.test>\r\nDATA\r\n" + hidden, replies: 4}, {send: goodbye, replies: 2}}},
	}
}

// injectedCases are tried in clear on the port that DMTP shares with SMTP: what comes with its STARTTLS is dropped.
var injectedCases = []smuggleCase{
	{name: "STARTTLS and commands at once", bare: true, steps: []smuggleStep{
		{send: "STARTTLS <destination>\r\nEHLO <origin>\r\nMAIL FROM: <origin> [x]\r\nRCPT TO: <destination> [x]\r\n", replies: 1, want: "220", tls: true}, {send: "DATA\r\nNOOP\r\nQUIT\r\n", replies: 4}}},
	{name: "STARTTLS to SMTP and commands at once", bare: true, steps: []smuggleStep{
		{send: "STARTTLS <destination> MODE=SMTP\r\nEHLO client.test\r\nMAIL FROM:<from>\r\nRCPT TO:<victim>\r\n", replies: 1, want: "220", tls: true}, {send: "EHLO client.test\r\nQUIT\r\n", replies: 3}}},
	{name: "DMTP's STARTTLS amid a transaction of SMTP", bare: true, steps: []smuggleStep{
		{send: "EHLO client.test\r\nMAIL FROM:<from>\r\nSTARTTLS <destination>\r\n", replies: 3, want: "220", tls: true}, {send: "RCPT TO: <destination> [x]\r\nDATA\r\nQUIT\r\n", replies: 4}}},
	{name: "DMTP's STARTTLS in a chunk", bare: true, steps: steps([]smuggleStep{{send: "EHLO client.test\r\n", replies: 1, want: "250"}}, envelopeSteps,
		[]smuggleStep{{send: chunk("STARTTLS <destination>\r\n", " LAST"), replies: 1, message: true}, {send: goodbye, replies: 2}})},
	{name: "DMTP's STARTTLS in a body", bare: true, steps: steps([]smuggleStep{{send: "EHLO client.test\r\n", replies: 1, want: "250"}}, envelopeSteps,
		[]smuggleStep{dataStep, {send: "STARTTLS <destination>\r\n.\r\n", replies: 1, message: true}, {send: goodbye, replies: 2}})},
}

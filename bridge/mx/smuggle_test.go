package mx

import (
	"strconv"
	"strings"
	"testing"
)

// The canary is a transaction that a body carries. It must never happen, neither here nor at the inner server.
const canary = "MAIL FROM:<eve@example.net>\r\nRCPT TO:<victim@alpha.example>\r\nDATA\r\nsmuggled\r\n.\r\n"

// Octets that some server somewhere takes for the end of a message: one message arrives, or none.
var smuggling = map[string]struct {
	end  string // between "hello" and the canary
	code string
}{
	"LF . LF":             {"\n.\n", "554 5.6.0"},
	"LF . CRLF":           {"\n.\r\n", "554 5.6.0"},
	"LF .. CRLF":          {"\n..\r\n", "554 5.6.0"},
	"CRLF . LF":           {"\r\n.\n", "554 5.6.0"},
	"CRLF . CR":           {"\r\n.\r", "554 5.6.0"},
	"CR . CR":             {"\r.\r", "554 5.6.0"},
	"CR . CRLF":           {"\r.\r\n", "554 5.6.0"},
	"CR . LF":             {"\r.\n", "554 5.6.0"},
	"CRLF . CR x":         {"\r\n.\rx\r\n", "554 5.6.0"},
	"CRLF . CR CR LF":     {"\r\n.\r\r\n", "554 5.6.0"},
	"CR CR LF . CR CR LF": {"\r\r\n.\r\r\n", "554 5.6.0"},
	"LF LF . LF LF":       {"\n\n.\n\n", "554 5.6.0"},
	"CRLF NUL . CRLF":     {"\r\n\x00.\r\n", "250 2.0.0"},
	"CRLF . NUL CRLF":     {"\r\n.\x00\r\n", "250 2.0.0"},
	"CRLF . blank CRLF":   {"\r\n. \r\n", "250 2.0.0"},
	"CRLF . FF CRLF":      {"\r\n.\xff\r\n", "250 2.0.0"},
}

func TestSmuggling(t *testing.T) {
	for name, tt := range smuggling {
		for _, chunked := range []bool{false, true} {
			t.Run(name+"/chunked "+strconv.FormatBool(chunked), func(t *testing.T) {
				inner := &innerServer{ext: []string{"8BITMIME"}}
				p := dial(t, start(t, inner, nil)).hello().envelope()
				message := "Subject: x\r\n\r\nhello" + tt.end + canary
				want := message
				if chunked {
					p.send("BDAT " + strconv.Itoa(len(message)) + " LAST\r\n" + message + "NOOP\r\nQUIT\r\n")
				} else {
					message = strings.ReplaceAll(message, canary, strings.TrimSuffix(canary, ".\r\n")+"..\r\n") // its own end would be the end
					want = strings.ReplaceAll(want, "\r\n.\x00", "\r\n\x00")
					want = strings.ReplaceAll(want, "\r\n. ", "\r\n ")
					want = strings.ReplaceAll(want, "\r\n.\xff", "\r\n\xff")
					p.cmd("DATA", "354")
					p.send(message + ".\r\nNOOP\r\nQUIT\r\n")
				}
				p.want(tt.code, "250 2.0.0 I have", "221")
				if r := p.rest(); len(r) > 0 {
					t.Errorf("further replies: %q", r)
				}
				inner.mu.Lock()
				defer inner.mu.Unlock()
				if len(inner.mails) != 1 {
					t.Errorf("the inner server was told of %q", inner.mails)
				}
				if tt.code[0] == '2' && (len(inner.got) != 1 || !strings.HasSuffix(inner.got[0], want)) || tt.code[0] != '2' && len(inner.got) != 0 {
					t.Errorf("arrived as %.300q", inner.got)
				}
			})
		}
	}
}

// A body that comes with its DATA, or with a DATA that is refused, is not read as commands.
func TestImpatience(t *testing.T) {
	for name, tt := range map[string]struct {
		said    string
		replies []string
	}{
		"DATA and body":     {"MAIL FROM:<>\r\nRCPT TO:<bob@alpha.example>\r\nDATA\r\n" + canary, []string{"250", "250", "503 5.5.0"}},
		"no recipient":      {"MAIL FROM:<>\r\nRCPT TO:<bob@bravo.example>\r\nDATA\r\n" + canary, []string{"250", "550 5.7.1", "503 5.5.0"}},
		"chunk, no MAIL":    {"BDAT " + strconv.Itoa(len(canary)) + " LAST\r\n" + canary + "QUIT\r\n", []string{"502", "221"}},
		"chunk, wrong word": {"MAIL FROM:<>\r\nRCPT TO:<bob@alpha.example>\r\nBDAT " + strconv.Itoa(len(canary)) + " FIRST\r\n" + canary + "QUIT\r\n", []string{"250", "250", "501", "221"}},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &innerServer{}
			p := dial(t, start(t, inner, nil)).hello()
			p.send(tt.said)
			p.want(tt.replies...)
			if r := p.rest(); len(r) > 0 {
				t.Errorf("further replies: %q", r)
			}
			if n := len(inner.messages()); n > 0 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

// Exchange's own verbs and parameters are not offered. Who uses them all the same hears so, in words by which Exchange goes on
// without them, and neither session nor message suffers. What follows XEXCH50 unasked is never read as commands.
func TestExchangeVerbs(t *testing.T) {
	inner := &innerServer{}
	addr := start(t, inner, nil)
	p := dial(t, addr)
	p.send("EHLO mail.example.net\r\n")
	offers := p.want("220", "250")
	for _, word := range []string{"XEXCH50", "X-ANONYMOUSTLS", "X-EXPS", "XSHADOW", "XOORG", "XRDST", "XLONGADDR", "XPROXY", "XSYSPROBE"} {
		if strings.Contains(offers, word) {
			t.Errorf("offers %s: %q", word, offers)
		}
	}
	p.cmd("X-ANONYMOUSTLS", "502 5.5.1")
	p.cmd("X-EXPS GSSAPI", "502 5.5.1")
	p.cmd("XSHADOW 0f", "502 5.5.1")
	p.cmd("MAIL FROM:<carol@example.net> XOORG=example.net", "555 5.5.4")
	p.cmd("MAIL FROM:<carol@example.net> XSHADOW=1@x SIZE=20", "555 5.5.4")
	p.cmd("MAIL FROM:<carol@example.net> SIZE=20", "250")
	p.cmd("RCPT TO:<bob@alpha.example> XRDST=x", "555 5.5.4")
	p.cmd("RCPT TO:<bob@alpha.example>", "250")
	p.cmd("XEXCH50 1096 2", "502 5.5.1")
	p.cmd("DATA", "354")
	p.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	p.want("250 2.0.0")
	if n := len(inner.messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}

	p = dial(t, addr).hello().envelope()
	p.send("XEXCH50 16 2\r\nQUIT\r\nDATA\r\nx\r\n\x00\x01")
	p.want("503 5.5.0")
	if r := p.rest(); len(r) > 0 {
		t.Errorf("further replies: %q", r)
	}
	if n := len(inner.messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

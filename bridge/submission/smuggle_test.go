package submission

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/smtpwire"
)

// The canary is a transaction that a body carries. It must never happen.
const canary = "MAIL FROM:<eve@alpha.example>\r\nRCPT TO:<victim@bravo.example>\r\nDATA\r\nsmuggled\r\n.\r\n"

// Octets that some server somewhere takes for the end of a message. What is between "hello" and the true end must arrive as
// one message, or be refused; in no case may one of its octets be read as a command. Each is sent to the real socket.
var smuggling = map[string]struct {
	body   string
	code   string // of the reply to the message
	mended string // what a listed source's message becomes
}{
	"LF . LF":                    {"hello\n.\n" + canary, "554 5.6.0", "hello\r\n.\r\n" + canary},
	"LF . CRLF":                  {"hello\n.\r\n" + canary, "554 5.6.0", "hello\r\n.\r\n" + canary},
	"LF . CR LF, stuffed":        {"hello\n..\r\n" + canary, "554 5.6.0", "hello\r\n..\r\n" + canary},
	"CRLF . LF":                  {"hello\r\n.\n" + canary, "554 5.6.0", "hello\r\n\r\n" + canary},
	"CRLF . CR":                  {"hello\r\n.\r" + canary, "554 5.6.0", "hello\r\n\r\n" + canary},
	"CR . CR":                    {"hello\r.\r" + canary, "554 5.6.0", "hello\r\n.\r\n" + canary},
	"CR . CRLF":                  {"hello\r.\r\n" + canary, "554 5.6.0", "hello\r\n.\r\n" + canary},
	"CR . LF":                    {"hello\r.\n" + canary, "554 5.6.0", "hello\r\n.\r\n" + canary},
	"CRLF . CR x":                {"hello\r\n.\rx\r\n" + canary, "554 5.6.0", "hello\r\n\r\nx\r\n" + canary},
	"CRLF . CR CR LF":            {"hello\r\n.\r\r\n" + canary, "554 5.6.0", "hello\r\n\r\n\r\n" + canary},
	"CR CR LF . CR LF":           {"hello\r\r\n.\r\r\n" + canary, "554 5.6.0", "hello\r\n\r\n\r\n\r\n" + canary},
	"CRLF NUL . CRLF":            {"hello\r\n\x00.\r\n" + canary, "250 2.0.0", "hello\r\n\x00.\r\n" + canary},
	"CRLF . NUL CRLF":            {"hello\r\n.\x00\r\n" + canary, "250 2.0.0", "hello\r\n\x00\r\n" + canary},
	"CRLF . blank CRLF":          {"hello\r\n. \r\n" + canary, "250 2.0.0", "hello\r\n \r\n" + canary},
	"CRLF . FF CRLF":             {"hello\r\n.\xff\r\n" + canary, "250 2.0.0", "hello\r\n\xff\r\n" + canary},
	"LF LF . LF LF":              {"hello\n\n.\n\n" + canary, "554 5.6.0", "hello\r\n\r\n.\r\n\r\n" + canary},
	"bare LF alone":              {"hello\nworld\r\n", "554 5.6.0", "hello\r\nworld\r\n"},
	"bare CR alone":              {"hello\rworld\r\n", "554 5.6.0", "hello\r\nworld\r\n"},
	"bare CR in the header":      {"Subject: x\rX-Evil: y\r\n\r\nhello\r\n", "554 5.6.0", "Subject: x\r\nX-Evil: y\r\n\r\nhello\r\n"},
	"NUL":                        {"hel\x00lo\r\n", "250 2.0.0", "hel\x00lo\r\n"},
	"line of 1 MiB":              {strings.Repeat("x", 1<<20) + "\r\n", "250 2.0.0", strings.Repeat("x", 1<<20) + "\r\n"},
	"line over 1 MiB":            {strings.Repeat("x", 1<<20+1) + "\r\n" + canary, "554 5.6.0", ""},
	"commands in an honest body": {"hello\r\n" + strings.ReplaceAll(canary, "\r\n.\r\n", "\r\n..\r\n"), "250 2.0.0", "hello\r\n" + canary},
}

func TestSmugglingByDATA(t *testing.T) {
	for name, tt := range smuggling {
		for _, mend := range []bool{false, true} {
			t.Run(name+"/mend "+strconv.FormatBool(mend), func(t *testing.T) {
				in := &inbox{}
				addr := start(t, func(c *Config) {
					if mend {
						c.Mend = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
					}
				}, in)
				// The canary as DATA carries it: its own end would be the end.
				body := strings.ReplaceAll(tt.body, canary, strings.TrimSuffix(canary, ".\r\n")+"..\r\n")
				p := dial(t, addr).hello().envelope()
				p.cmd("DATA", "354")
				p.send(body + ".\r\nNOOP\r\nQUIT\r\n")
				code, want := tt.code, tt.body
				if mend {
					code, want = "250 2.0.0", tt.mended
					if want == "" {
						code = tt.code
					}
				}
				p.want(code, "250 2.0.0 I have", "221")
				if r := p.rest(); len(r) > 0 {
					t.Errorf("further replies: %q", r)
				}
				checkOne(t, in, code == "250 2.0.0", dotless(want, mend, tt.mended))
			})
		}
	}
}

// dotless is the message as it arrives when it arrives unmended: without its stuffing.
func dotless(want string, mend bool, mended string) string {
	if mend {
		return want
	}
	return mended // the cases that pass unmended are those that mending leaves alone
}

func checkOne(t *testing.T, in *inbox, accepted bool, want string) {
	t.Helper()
	got := in.all()
	if !accepted {
		if len(got) != 0 {
			t.Errorf("%d messages arrived", len(got))
		}
		return
	}
	if len(got) != 1 {
		t.Fatalf("%d messages arrived", len(got))
	}
	if got[0].message() != want {
		t.Errorf("arrived as %.200q", got[0].message())
	}
}

func TestSmugglingByBDAT(t *testing.T) {
	for name, tt := range smuggling {
		t.Run(name, func(t *testing.T) {
			in := &inbox{}
			p := dial(t, start(t, nil, in)).hello().envelope()
			half := len(tt.body) / 2
			p.send("BDAT " + strconv.Itoa(half) + "\r\n" + tt.body[:half] + "BDAT " + strconv.Itoa(len(tt.body)-half) + " LAST\r\n" + tt.body[half:] + "NOOP\r\nQUIT\r\n")
			p.want("250", tt.code, "250 2.0.0 I have", "221")
			if r := p.rest(); len(r) > 0 {
				t.Errorf("further replies: %q", r)
			}
			checkOne(t, in, tt.code == "250 2.0.0", tt.body)
		})
	}
}

// Chunks that are refused, and bodies that nobody asked for. The chunk holds a transaction; after it stands NOOP. Either the
// session goes on with NOOP, or it is over.
var refusedChunks = map[string]struct {
	before  string // sent before the chunk, all in one piece
	replies []string
	bdat    string // "%" is the size of the chunk
	code    string
	over    bool
}{
	"no MAIL":             {"", nil, "BDAT % LAST", "502", false},
	"no RCPT":             {"MAIL FROM:<alice@alpha.example>\r\n", []string{"250"}, "BDAT % LAST", "502", false},
	"MAIL refused":        {"MAIL FROM:<eve@evil.example>\r\nRCPT TO:<bob@bravo.example>\r\n", []string{"550 5.7.1", "502"}, "BDAT % LAST", "502", false},
	"unknown word":        {"MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\n", []string{"250", "250"}, "BDAT % FIRST", "501", false},
	"too many words":      {"MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\n", []string{"250", "250"}, "BDAT % LAST LAST", "501", false},
	"other case":          {"", nil, "bdat   %   last", "502", false},
	"leading zeros":       {"", nil, "BDAT 0000% LAST", "502", false},
	"no size":             {"", nil, "BDAT", "501", true},
	"no size, blank":      {"", nil, "BDAT ", "501", true},
	"negative":            {"", nil, "BDAT -% LAST", "501", true},
	"signed":              {"", nil, "BDAT +% LAST", "501", true},
	"hexadecimal":         {"", nil, "BDAT 0x% LAST", "501", true},
	"beyond 32 bits":      {"MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\n", []string{"250", "250"}, "BDAT 4294967297 LAST", "552", true},
	"beyond 64 bits":      {"", nil, "BDAT 99999999999999999999 LAST", "501", true},
	"second of a refused": {"BDAT 2 FIRST\r\nxx", []string{"501"}, "BDAT %", "502", false},
}

func TestRefusedChunks(t *testing.T) {
	for name, tt := range refusedChunks {
		t.Run(name, func(t *testing.T) {
			in := &inbox{}
			p := dial(t, start(t, nil, in)).hello()
			p.send(tt.before + strings.Replace(tt.bdat, "%", strconv.Itoa(len(canary)), 1) + "\r\n" + canary + "NOOP\r\nQUIT\r\n")
			p.want(tt.replies...)
			p.want(tt.code)
			if !tt.over {
				p.want("250 2.0.0 I have", "221")
			}
			if r := p.rest(); len(r) > 0 {
				t.Errorf("further replies: %q", r)
			}
			if n := len(in.all()); n > 0 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

// Without the guard the same chunks are read as commands: the reason for the guard (emersion/go-smtp#315 and its kin).
func TestWithoutTheGuard(t *testing.T) {
	desync := 0
	for name, tt := range refusedChunks {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		bare := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return bareSession{}, nil }))
		bare.ErrorLog = smtpwire.EngineLog{Log: slog.New(slog.DiscardHandler)}
		go bare.Serve(ln)
		p := dial(t, ln.Addr().String()).hello()
		p.send(tt.before + strings.Replace(tt.bdat, "%", strconv.Itoa(len(canary)), 1) + "\r\n" + canary + "NOOP\r\nQUIT\r\n")
		replies := p.rest()
		for _, r := range replies {
			if strings.HasPrefix(r, "354") {
				desync++
				t.Logf("%s: the chunk was read as commands: %q", name, replies)
			}
		}
		bare.Close()
	}
	if desync == 0 {
		t.Error("go-smtp has no desync any more: the guard's reason is gone")
	}
}

type bareSession struct{}

func (bareSession) Reset()                               {}
func (bareSession) Logout() error                        { return nil }
func (bareSession) Mail(string, *smtp.MailOptions) error { return nil }
func (bareSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (bareSession) Data(r io.Reader) error               { _, err := io.Copy(io.Discard, r); return err }

// A connection that ends within a chunk or a body leaves no message, however it ends.
func TestCutShort(t *testing.T) {
	for name, wire := range map[string]string{
		"in a last chunk":    "BDAT 1000 LAST\r\nhalf of it\r\n",
		"before the chunk":   "BDAT 1000 LAST\r\n",
		"between two chunks": "BDAT 6\r\nhalf\r\n",
		"in DATA":            "DATA\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			addr := start(t, nil, &inbox{take: func(_ Envelope, body io.Reader) error {
				_, err := io.Copy(io.Discard, body)
				ended <- err
				return err
			}})
			p := dial(t, addr).hello().envelope()
			p.send(wire)
			if name == "in DATA" {
				p.want("354")
				p.send("half of it\r\n")
			}
			p.conn.(*net.TCPConn).CloseWrite()
			if r := p.rest(); len(r) > 0 && strings.HasPrefix(r[len(r)-1], "250") && name != "between two chunks" {
				t.Errorf("replies %q", r)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the acceptor saw a whole message")
				}
			case <-time.After(2 * time.Second):
				if name != "before the chunk" { // there go-smtp may give up before it asks the session
					t.Error("the acceptor was left waiting")
				}
			}
		})
	}
}

// RSET within a message leaves none, and what comes behind is a message of its own.
func TestResetWithinChunks(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, nil, in)).hello()
	for range 20 {
		p.send("MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\nBDAT 5\r\nhelloRSET\r\n" +
			"MAIL FROM:<carol@alpha.example>\r\nRCPT TO:<dave@bravo.example>\r\nDATA\r\n")
		p.want("250", "250", "250", "250", "250", "250", "354")
		p.send("second\r\n.\r\n")
		p.want("250 2.0.0 OK")
	}
	got := in.all()
	if len(got) != 20 {
		t.Fatalf("%d messages", len(got))
	}
	for _, m := range got {
		if m.env.From != "carol@alpha.example" || len(m.env.To) != 1 || m.env.To[0].Address != "dave@bravo.example" || m.message() != "second\r\n" {
			t.Errorf("%+v %q", m.env, m.message())
		}
	}
}

func TestCommandsAtTheEdge(t *testing.T) {
	secure := func(c *Config) { c.TLS = serverTLS(t) }
	tests := map[string]struct {
		edit    func(*Config)
		send    string // after the banner, all in one piece
		replies []string
	}{
		"before the banner":             {nil, "EHLO a\r\nQUIT\r\n", []string{"250", "221"}},
		"line ends with LF":             {nil, "EHLO a\nQUIT\r\n", []string{"500 5.5.2"}},
		"LF from a listed source":       {func(c *Config) { c.Mend = c.Networks }, "EHLO a\nQUIT\n", []string{"250", "221"}},
		"bare CR":                       {nil, "EHLO a\rMAIL FROM:<>\r\nQUIT\r\n", []string{"500 5.5.2"}},
		"NUL":                           {nil, "EHLO a\x00\r\nQUIT\r\n", []string{"500 5.5.2"}},
		"line too long":                 {nil, "NOOP " + strings.Repeat("x", 5000) + "\r\nQUIT\r\n", []string{"500 5.5.2", "221"}},
		"line without end":              {nil, strings.Repeat("x", 40000), []string{"500 5.5.2"}},
		"body before 354":               {nil, "EHLO a\r\nMAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\nDATA\r\nhello\r\n.\r\n", []string{"250", "250", "250", "503 5.5.0"}},
		"body after a DATA to refuse":   {nil, "EHLO a\r\nDATA\r\n" + canary, []string{"250", "503 5.5.0"}},
		"injected behind STARTTLS":      {secure, "EHLO a\r\nSTARTTLS\r\nMAIL FROM:<eve@alpha.example>\r\n", []string{"250", "503 5.5.0"}},
		"STARTTLS with a parameter":     {secure, "EHLO a\r\nSTARTTLS x\r\nQUIT\r\n", []string{"250", "501", "221"}},
		"STARTTLS where there is none":  {nil, "EHLO a\r\nSTARTTLS\r\nQUIT\r\n", []string{"250", "502", "221"}},
		"STARTTLS glued":                {secure, "EHLO a\r\nSTARTTLSX\r\nQUIT\r\n", []string{"250", "50", "221"}},
		"no name":                       {nil, "EHLO\r\nEHLO \r\nEHLO a(b)\r\nEHLO [IPv6:::1]\r\nQUIT\r\n", []string{"501", "501", "501", "250", "221"}},
		"verbs nobody has":              {nil, "EHLO a\r\nXPROXY x\r\nX-EXPS NTLM\r\nXSHADOW x\r\nXRDST x\r\nHELP\r\nEXPN x\r\nVRFY x\r\nQUIT\r\n", []string{"250", "502", "502", "502", "502", "502", "502", "252", "221"}},
		"a browser":                     {nil, "POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO a\r\nMAIL FROM:<alice@alpha.example>\r\n", []string{"500 5.5.1"}},
		"too many commands":             {nil, strings.Repeat("NOOP\r\n", 1001), append(repeat("250", 1000), "421 4.7.0")},
		"AUTH without TLS":              {func(c *Config) { c.Users = users(t) }, "EHLO a\r\nAUTH PLAIN AGEAYg==\r\nQUIT\r\n", []string{"250", "538 5.7.11", "221"}},
		"commands pipelined in a group": {nil, "EHLO a\r\nMAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\nRSET\r\nNOOP\r\nQUIT\r\n", []string{"250", "250", "250", "250", "250", "221"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := &inbox{}
			p := dial(t, start(t, tt.edit, in))
			p.send(tt.send)
			p.want("220")
			p.want(tt.replies...)
			if r := p.rest(); len(r) > 0 {
				t.Errorf("further replies: %q", r)
			}
			if n := len(in.all()); n > 0 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

func repeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// After STARTTLS the session begins anew.
func TestStartTLSForgets(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, func(c *Config) { c.TLS = serverTLS(t) }, in)).hello().envelope()
	p.secure()
	p.cmd("RCPT TO:<bob@bravo.example>", "503 5.5.1")
	p.cmd("DATA", "503 5.5.1")
	p.send("BDAT 5 LAST\r\nhelloNOOP\r\n")
	p.want("503 5.5.1", "250")
	if caps := p.cmd("EHLO mail.alpha.example", "250"); strings.Contains(caps, "STARTTLS") {
		t.Error("STARTTLS is offered over TLS")
	}
	p.cmd("STARTTLS", "503 5.5.1")
	p.cmd("DATA", "502")
	p.envelope()
	p.cmd("DATA", "354")
	p.send("hello\r\n.\r\n")
	p.want("250")
	if got := in.all(); len(got) != 1 || got[0].env.TLS == 0 || !strings.Contains(got[0].trace(), "with ESMTPS id") {
		t.Errorf("got %+v", got)
	}
}

// A handshake that fails ends the connection: what follows is not read as commands.
func TestFailedHandshake(t *testing.T) {
	p := dial(t, start(t, func(c *Config) { c.TLS = serverTLS(t) }, &inbox{})).hello()
	p.cmd("STARTTLS", "220")
	p.send("EHLO a\r\nMAIL FROM:<alice@alpha.example>\r\n")
	b, _ := io.ReadAll(p.in)
	if strings.Contains(string(b), "250") {
		t.Errorf("the session went on: %q", b)
	}
}

// What may stand between the chunks of a message, and what takes it back.
func TestBetweenChunks(t *testing.T) {
	tests := map[string]struct {
		send    string // behind the first chunk
		replies []string
		want    string // the message, "" for none
	}{
		"nothing":           {"BDAT 6 LAST\r\nworld\n", []string{"554 5.6.0"}, ""},
		"the last":          {"BDAT 7 LAST\r\nworld\r\n", []string{"250 2.0.0 OK"}, "hello world\r\n"},
		"an empty last":     {"BDAT 7\r\nworld\r\nBDAT 0 LAST\r\n", []string{"250", "250 2.0.0 OK"}, "hello world\r\n"},
		"CR, then LF":       {"BDAT 6\r\nworld\rBDAT 1 LAST\r\n\n", []string{"250", "250 2.0.0 OK"}, "hello world\r\n"},
		"NOOP":              {"NOOP\r\nnoop x\r\nBDAT 7 LAST\r\nworld\r\n", []string{"250", "250", "250 2.0.0 OK"}, "hello world\r\n"},
		"a long NOOP":       {"NOOP " + strings.Repeat("x", 5000) + "\r\nBDAT 7 LAST\r\nworld\r\n", []string{"500 5.5.2", "250 2.0.0 OK"}, "hello world\r\n"},
		"RSET":              {"RSET\r\nBDAT 7 LAST\r\nworld\r\n", []string{"250", "502"}, ""},
		"DATA":              {"DATA\r\n", []string{"502"}, ""},
		"MAIL":              {"MAIL FROM:<carol@alpha.example>\r\nRCPT TO:<dave@bravo.example>\r\nBDAT 7 LAST\r\nworld\r\n", []string{"250", "250", "250 2.0.0 OK"}, "world\r\n"},
		"EHLO":              {"EHLO b\r\nBDAT 7 LAST\r\nworld\r\n", []string{"250", "502"}, ""},
		"a BDAT to refuse":  {"BDAT 7 FIRST\r\nworld\r\nBDAT 7 LAST\r\nworld\r\n", []string{"501", "502"}, ""},
		"3000 more":         {strings.Repeat("BDAT 3\r\nx\r\n", 3000) + "BDAT 2 LAST\r\n\r\n", append(repeat("250", 3000), "250 2.0.0 OK"), "hello " + strings.Repeat("x\r\n", 3000) + "\r\n"},
		"an unknown verb":   {"XYZZY\r\nBDAT 7 LAST\r\nworld\r\n", []string{"502", "502"}, ""},
		"a verb nobody has": {"YXZZY\r\nBDAT 7 LAST\r\nworld\r\n", []string{"501", "502"}, ""},
		"a line of LF":      {"BDAT 7 LAST\nworld\r\n", []string{"500 5.5.2"}, ""},
		"a size that is no": {"BDAT x\r\n", []string{"501"}, ""},
		"1001 empty chunks": {strings.Repeat("BDAT 0\r\n", 1001) + "QUIT\r\n", append(repeat("250", 996), "421 4.7.0"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := &inbox{}
			p := dial(t, start(t, nil, in)).hello().envelope()
			p.send("BDAT 6\r\nhello " + tt.send)
			p.want("250")
			p.want(tt.replies...)
			if over := strings.HasPrefix(tt.replies[0], "500 5.5.2") && tt.want == "" || strings.HasSuffix(tt.send, "BDAT x\r\n") || strings.HasSuffix(tt.send, "QUIT\r\n"); !over {
				p.cmd("QUIT", "221")
			}
			if r := p.rest(); len(r) > 0 {
				t.Errorf("further replies: %q", r)
			}
			checkOne(t, in, tt.want != "", tt.want)
		})
	}
}

// Exchange's own verbs and parameters are not offered. Who uses them all the same hears so, in words by which Exchange goes on
// without them, and neither session nor message suffers. What follows XEXCH50 unasked is never read as commands.
func TestExchangeVerbs(t *testing.T) {
	in := &inbox{}
	addr := start(t, nil, in)
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
	p.cmd("MAIL FROM:<alice@alpha.example> XOORG=example.net", "555 5.5.4")
	p.cmd("MAIL FROM:<alice@alpha.example> XSHADOW=1@x SIZE=20", "555 5.5.4")
	p.cmd("MAIL FROM:<alice@alpha.example> SIZE=20", "250")
	p.cmd("RCPT TO:<bob@bravo.example> XRDST=x", "555 5.5.4")
	p.cmd("RCPT TO:<bob@bravo.example>", "250")
	p.cmd("XEXCH50 1096 2", "502 5.5.1")
	p.cmd("DATA", "354")
	p.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	p.want("250 2.0.0")
	if n := len(in.all()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}

	p = dial(t, addr).hello().envelope()
	p.send("XEXCH50 16 2\r\nQUIT\r\nDATA\r\nx\r\n\x00\x01")
	p.want("503 5.5.0")
	if r := p.rest(); len(r) > 0 {
		t.Errorf("further replies: %q", r)
	}
	if n := len(in.all()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

package mx

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/bridge/smtpwire"
	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestRecipients(t *testing.T) {
	inner := startInner(t, &innerServer{ext: []string{"8BITMIME"}, rcpt: func(a string) string {
		switch local, _, _ := strings.Cut(a, "@"); local {
		case "nobody":
			return "550 5.1.1 no such user"
		case "plainly-nobody":
			return "550 unknown"
		case "full":
			return "452 4.2.2 over quota"
		case "grey":
			return "450 4.7.1 greylisted"
		case "policy":
			return "550 5.7.1 not from you"
		case "closing":
			return "421 4.3.2 going down"
		case "password":
			return "530 5.7.0 authenticate"
		}
		return "250 2.1.5 Ok"
	}})
	for name, tt := range map[string]struct {
		path   string
		exempt bool
		want   string
	}{
		"known":                    {"<bob@alpha.example>", false, "250 2.0.0"},
		"domain in capitals":       {"<bob@Alpha.EXAMPLE>", false, "250 2.0.0"},
		"unknown":                  {"<nobody@alpha.example>", false, "550 5.1.1 no such user"},
		"unknown without a status": {"<plainly-nobody@alpha.example>", false, "550 5.1.1 unknown"},
		"quota":                    {"<full@alpha.example>", false, "452 4.2.2 over quota"},
		"greylisted":               {"<grey@alpha.example>", false, "450 4.7.1 greylisted"},
		"refused by policy":        {"<policy@alpha.example>", false, "550 5.7.1 not from you"},
		"inner is closing":         {"<closing@alpha.example>", false, "451 4.3.2 going down"},
		"inner wants a password":   {"<password@alpha.example>", false, "451 4.4.1"},
		"not ours":                 {"<bob@bravo.example>", false, "550 5.7.1 relaying denied"},
		"not ours, though exempt":  {"<bob@bravo.example>", true, "550 5.7.1 relaying denied"},
		"percent hack":             {"<bob%bravo.example@alpha.example>", false, "250 2.0.0"}, // the inner server's to judge
		"below ours":               {"<bob@sub.alpha.example>", false, "550 5.7.1"},
		"strict":                   {"<bob@strict.example>", false, "550 5.7.10"},
		"strict, unknown":          {"<nobody@strict.example>", false, "550 5.7.10"},
		"strict, from an exempt":   {"<bob@strict.example>", true, "250 2.0.0"},
		"postmaster":               {"<postmaster>", false, "250 2.0.0"},
		"postmaster in capitals":   {"<PostMaster>", false, "250 2.0.0"},
		"no domain":                {"<bob>", false, "501 5.5.2"},
		"not ASCII":                {"<bäb@alpha.example>", false, "553 5.6.7"},
		"source route":             {"<@x.example,@y.example:bob@alpha.example>", false, "250 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, start(t, inner, func(c *Config) {
				if tt.exempt {
					c.Exempt = loopback
				}
			})).hello()
			p.cmd("MAIL FROM:<>", "250")
			p.cmd("RCPT TO:"+tt.path, tt.want)
			p.cmd("NOOP", "250")
		})
	}
}

const mail = "Received: from a by b; Wed, 25 Nov 2026 09:00:00 +0000\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n"

func TestMessage(t *testing.T) {
	inner := &innerServer{ext: []string{"8BITMIME"}}
	p := dial(t, start(t, inner, nil)).hello()
	p.send("MAIL FROM:<Carol@Example.NET> SIZE=1000\r\nRCPT TO:<bob@alpha.example>\r\n")
	p.want("250", "250")
	p.cmd("DATA", "354")
	p.send("X-DIME: yes; author=eve\r\nX-Dime-Require: yes\r\nAuthentication-Results: mx.alpha.example; dkim=pass\r\nAuthentication-Results: other.example; dkim=pass\r\n" +
		strings.ReplaceAll(mail, "\r\n.", "\r\n..") + ".\r\n")
	p.want("250 2.0.0 Ok: queued as 4F1")
	got := inner.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	top, found := strings.CutSuffix(got[0], "Authentication-Results: other.example; dkim=pass\r\n"+mail)
	if !found || !strings.HasPrefix(top, "X-DIME: no\r\nReceived: from out.example.net ([127.0.0.1])\r\n\tby mx.alpha.example with ESMTP id ") || strings.Count(top, "\r\n") != 4 {
		t.Errorf("arrived as\n%s", got[0])
	}
	if want := "MAIL FROM:<Carol@example.net> SIZE=1000 BODY=8BITMIME"; inner.mails[0] != want {
		t.Errorf("%s, want %s", inner.mails[0], want)
	}
}

// What the inner server says of the message is what its sender hears, and the session goes on.
func TestVerdicts(t *testing.T) {
	for name, tt := range map[string]struct{ said, want string }{
		"taken":               {"250 2.0.0 Ok: queued as 4F1", "250 2.0.0 Ok: queued as 4F1"},
		"taken, several":      {"250-2.6.0 it\r\n250 2.6.0 is there", "250 2.6.0 it is there"},
		"spam":                {"550 5.7.1 spam, see https://example.org/42", "550 5.7.1 spam, see https://example.org/42"},
		"later":               {"451 4.7.1 scanner is down", "451 4.7.1 scanner is down"},
		"full":                {"452 4.3.1 no room", "452 4.3.1 no room"},
		"without a status":    {"554 no", "554 5.0.0 no"},
		"class of another":    {"554 4.7.1 no", "554 5.0.0 4.7.1 no"},
		"closing":             {"421 4.3.2 going down", "451 4.3.2 going down"},
		"nothing but a code":  {"554", "554 5.0.0 refused"},
		"control characters":  {"554 5.6.0 a\x1bb\u00e4", "554 5.6.0 a?b??"},
		"a line of 600":       {"554 5.6.0 " + strings.Repeat("x", 600), "554 5.6.0 " + strings.Repeat("x", 480) + "\r\n"},
		"no SMTP":             {"hello", "451 4.4.2"},
		"an intermediate one": {"354 go on", "451 4.3.0"},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &innerServer{said: tt.said}
			p := dial(t, start(t, inner, nil)).hello().envelope()
			p.cmd("DATA", "354")
			p.send(mail + ".\r\n")
			p.want(tt.want)
			inner.mu.Lock()
			inner.said = ""
			inner.mu.Unlock()
			p.envelope()
			p.cmd("DATA", "354")
			p.send(mail + ".\r\n")
			p.want("250")
		})
	}
}

// Several recipients of one message: each has his own answer, and the message goes once, for those that were accepted.
func TestSeveralRecipients(t *testing.T) {
	inner := &innerServer{rcpt: func(a string) string {
		return map[byte]string{'b': "250 2.1.5 Ok", 'n': "550 5.1.1 no such user", 'f': "452 4.2.2 full"}[a[0]]
	}}
	p := dial(t, start(t, inner, nil)).hello()
	p.send("MAIL FROM:<carol@example.net>\r\nRCPT TO:<nobody@alpha.example>\r\nRCPT TO:<b1@alpha.example>\r\nRCPT TO:<full@alpha.example>\r\nRCPT TO:<b2@alpha.example>\r\nRCPT TO:<b1@alpha.example>\r\nDATA\r\n")
	p.want("250", "550 5.1.1", "250", "452 4.2.2", "250", "250", "354")
	p.send(mail + ".\r\n")
	p.want("250 2.0.0 Ok: queued")
	if len(inner.got) != 1 || len(inner.mails) != 1 || strings.Join(inner.rcpts, " ") != "b1@alpha.example b2@alpha.example" {
		t.Errorf("%d messages in %q for %q", len(inner.got), inner.mails, inner.rcpts)
	}
	p.send("MAIL FROM:<carol@example.net>\r\nRCPT TO:<nobody@alpha.example>\r\n")
	p.want("250", "550 5.1.1")
	p.cmd("DATA", "502")
	if len(inner.got) != 1 {
		t.Error("a message without recipients arrived")
	}
}

// A recipient of another inner server, or a second one where the inner server speaks LMTP, gets a transaction of his own.
func TestOneInnerServer(t *testing.T) {
	first, second := &innerServer{}, startInner(t, &innerServer{})
	other := handoff.New(handoff.Config{Address: second.addr, Name: "mx"})
	t.Cleanup(func() { other.Close() })
	addr := start(t, first, func(c *Config) {
		ours := c.Domains
		c.Domains = func(d string) (Domain, bool) {
			if d == "bravo.example" {
				return Domain{Inner: other}, true
			}
			return ours(d)
		}
	})
	p := dial(t, addr).hello().envelope()
	p.cmd("RCPT TO:<bob@bravo.example>", "452 4.5.3")
	p.cmd("DATA", "354")
	p.send(mail + ".\r\n")
	p.want("250")
	p.send("MAIL FROM:<carol@example.net>\r\nRCPT TO:<bob@bravo.example>\r\n")
	p.want("250", "250")
	p.cmd("DATA", "354")
	p.send(mail + ".\r\n")
	p.want("250")
	if len(first.got) != 1 || len(second.got) != 1 || second.rcpts[0] != "bob@bravo.example" {
		t.Errorf("%d and %d messages", len(first.got), len(second.got))
	}
}

func TestRefusedMessages(t *testing.T) {
	for name, tt := range map[string]struct {
		message string
		want    string
	}{
		"header over 1 MiB":   {strings.Repeat("X: "+strings.Repeat("x", 900)+"\r\n", 1200) + "\r\n", "552 5.3.4 the header"},
		"over the limit":      {"X: y\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2200), "552 5.3.4 message too large"},
		"NUL in the header":   {"X: \x00y\r\n\r\n", "554 5.6.0"},
		"bare LF in the body": {"X: y\r\n\r\na\nb\r\n", "554 5.6.0"},
		"bare CR at the end":  {"X: y\r\n\r\n" + strings.Repeat("a\r\n", 90000) + "a\rb\r\n", "554 5.6.0"},
		"loop":                {strings.Repeat("Received: x\r\n", 101) + "\r\n", "554 5.4.6"},
		"8-bit":               {"X: y\r\n\r\n\xe4\r\n", "554 5.6.3"},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &innerServer{}
			p := dial(t, start(t, inner, func(c *Config) { c.MaxOctets = 2 << 20 })).hello().envelope()
			p.cmd("DATA", "354")
			p.send(tt.message + ".\r\nNOOP\r\n")
			p.want(tt.want, "250 2.0.0 I have")
			p.envelope()
			p.cmd("DATA", "354")
			p.send(mail + ".\r\n")
			p.want("250")
			if n := len(inner.messages()); n != 1 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
	p := dial(t, start(t, &innerServer{}, func(c *Config) { c.MaxOctets = 2 << 20 })).hello()
	p.cmd("MAIL FROM:<carol@example.net> SIZE=3000000", "552 5.3.4")
	p.cmd("MAIL FROM:<cäröl@example.net> SMTPUTF8", "250")
	p.cmd("RCPT TO:<bob@alpha.example>", "553 5.6.7")
}

// Every way for the inner server to fail: the sender keeps the message.
func TestInnerFails(t *testing.T) {
	t.Run("down", func(t *testing.T) {
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		ln.Close()
		p := dial(t, start(t, &innerServer{addr: ln.Addr().String()}, nil)).hello()
		p.cmd("MAIL FROM:<>", "250")
		p.cmd("RCPT TO:<bob@alpha.example>", "451 4.4.1")
	})
	for hangUp, want := range map[string]string{"data": "451 4.4.2", "verdict": "451 4.4.2"} {
		t.Run("hangs up: "+hangUp, func(t *testing.T) {
			inner := &innerServer{hangUp: hangUp}
			p := dial(t, start(t, inner, nil)).hello().envelope()
			p.cmd("DATA", "354")
			p.send(mail + ".\r\n")
			p.want(want)
			p.cmd("NOOP", "250")
		})
	}
	t.Run("kept session died", func(t *testing.T) {
		inner := &innerServer{hangUp: "verdict"}
		addr := start(t, inner, nil)
		p := dial(t, addr).hello().envelope()
		p.cmd("RSET", "250")
		p.envelope() // the same session
		p.cmd("DATA", "354")
		p.send(mail + ".\r\n")
		p.want("451")
		p.envelope()
		if inner.conns != 2 {
			t.Errorf("%d connections", inner.conns)
		}
	})
}

// A sender who goes away in the middle leaves nothing at the inner server, however the message was sent.
func TestCutShort(t *testing.T) {
	for name, body := range map[string]string{
		"in the header":       "DATA\r\n" + mail[:20],
		"in the body":         "DATA\r\n" + mail,
		"before the last dot": "DATA\r\n" + mail + ".",
		"at a bare dot":       "DATA\r\n" + mail + ".\r",
		"large":               "DATA\r\n" + mail + strings.Repeat("x\r\n", 1<<20),
		"in a chunk":          "BDAT 1000 LAST\r\n" + mail,
		"between chunks":      "BDAT " + strconv.Itoa(len(mail)) + "\r\n" + mail,
		"taken back":          "BDAT " + strconv.Itoa(len(mail)) + "\r\n" + mail + "RSET\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inner := &innerServer{}
			p := dial(t, start(t, inner, nil)).hello().envelope()
			if command, rest, _ := strings.Cut(body, "\r\n"); command == "DATA" {
				p.cmd(command, "354")
				p.send(rest)
			} else {
				p.send(body)
			}
			if name == "taken back" {
				p.want("250", "250")
				p.cmd("NOOP", "250")
			}
			p.conn.Close()
			if err := testpeer.Until(t.Context(), func() bool { inner.mu.Lock(); defer inner.mu.Unlock(); return inner.ended == 1 || inner.resets == 1 }); err != nil {
				t.Fatal(err)
			}
			if n := len(inner.messages()); n != 0 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

func TestSTARTTLS(t *testing.T) {
	inner := &innerServer{}
	addr := start(t, inner, nil)
	p := dial(t, addr)
	p.want("220")
	if r := p.cmd("EHLO out.example.net", "250"); !strings.Contains(r, "STARTTLS") || !strings.Contains(r, "SIZE 104857600") || !strings.Contains(r, "SMTPUTF8") ||
		!strings.Contains(r, "8BITMIME") || !strings.Contains(r, "PIPELINING") || strings.Contains(r, "AUTH") || strings.Contains(r, "DSN") {
		t.Errorf("offered:\n%s", r)
	}
	p.envelope()
	p.cmd("STARTTLS", "220")
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	q := &peer{t, c, p.in}
	q.in.Reset(c)
	q.cmd("MAIL FROM:<>", "503")
	q.cmd("EHLO out.example.net", "250")
	q.cmd("RCPT TO:<bob@alpha.example>", "502") // of what was said in clear nothing is left
	q.envelope()
	q.cmd("DATA", "354")
	q.send(mail + ".\r\n")
	q.want("250")
	if got := inner.messages(); len(got) != 1 || !strings.Contains(got[0], "(using TLS 1.3 with cipher TLS_") || !strings.Contains(got[0], "with ESMTPS id") {
		t.Errorf("arrived as %q", got)
	}
	injected := dial(t, addr).hello()
	injected.send("STARTTLS\r\nMAIL FROM:<eve@example.net>\r\n")
	injected.want("503 5.5.0")
	if r := injected.rest(); len(r) > 0 {
		t.Errorf("further replies: %q", r)
	}
}

// A client that tries addresses is sent away: after some in one session, and then for the hour.
func TestHarvesting(t *testing.T) {
	asked := 0
	inner := &innerServer{rcpt: func(a string) string {
		asked++
		if a == "bob@alpha.example" {
			return "250 2.1.5 Ok"
		}
		return "550 5.1.1 no such user"
	}}
	now := time.Unix(1_800_000_000, 0)
	addr := start(t, inner, func(c *Config) { c.Now = func() time.Time { return now } })
	for session := range 5 {
		p := dial(t, addr).hello()
		p.cmd("MAIL FROM:<>", "250")
		for n := range maxUnknown - 1 {
			p.cmd(fmt.Sprintf("RCPT TO:<x%d-%d@alpha.example>", session, n), "550 5.1.1")
		}
		p.cmd("RCPT TO:<y@alpha.example>", "421 4.7.0")
		if r := p.rest(); len(r) > 0 {
			t.Errorf("the session goes on: %q", r)
		}
	}
	p := dial(t, addr).hello()
	p.cmd("MAIL FROM:<>", "250")
	before := asked
	p.cmd("RCPT TO:<z@alpha.example>", "450 4.7.1")
	p.cmd("RCPT TO:<bob@alpha.example>", "450 4.7.1")
	if asked != before {
		t.Error("the inner server was asked")
	}
	now = now.Add(time.Hour)
	p.cmd("RCPT TO:<bob@alpha.example>", "250")
}

func TestSessionsOfOneClient(t *testing.T) {
	addr := start(t, &innerServer{}, func(c *Config) { c.MaxSessions, c.MaxPerClient = 5, 2 })
	first := dial(t, addr).hello()
	dial(t, addr).hello()
	dial(t, addr).want("421 4.7.0")
	first.cmd("QUIT", "221")
	if r := first.rest(); len(r) > 0 {
		t.Error(r)
	}
	exempt := start(t, &innerServer{}, func(c *Config) { c.MaxSessions, c.MaxPerClient, c.Exempt = 5, 2, loopback })
	for range 5 {
		dial(t, exempt).hello()
	}
	dial(t, exempt).want("421 4.7.0")
	for in, want := range map[string]string{"192.0.2.9": "192.0.2.9/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		if got := clientOf(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s counts as %v", in, got)
		}
	}
}

// Every message of ours and of the corpus passes octet for octet, or is refused; by DATA and by BDAT.
func TestEveryMessage(t *testing.T) {
	inner := &innerServer{ext: []string{"8BITMIME"}}
	addr := start(t, inner, func(c *Config) { c.Firewall = handoff.Firewall{} })
	p := dial(t, addr).hello()
	passed := 0
	for _, m := range append(testmail.Corpus(t), testmail.Ours(t)...) {
		facts, err := smtpwire.Examine(bytes.NewReader(m.Raw))
		if err != nil {
			t.Fatal(err)
		}
		p.envelope()
		p.send("BDAT " + strconv.Itoa(len(m.Raw)) + " LAST\r\n" + string(m.Raw))
		r := p.reply()
		header, _, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n"))
		if facts.BareEnds || bytes.IndexByte(header, 0) >= 0 || facts.Octets > 100<<20 {
			if !strings.HasPrefix(r, "554 5.6.0") {
				t.Errorf("%s: %s", m.Name, r)
			}
			continue
		}
		if !strings.HasPrefix(r, "250") {
			t.Errorf("%s: %s", m.Name, r)
			continue
		}
		passed++
		all := inner.messages()
		want := string(m.Raw)
		if !facts.FinalEnd && len(m.Raw) > 0 {
			want += "\r\n"
		}
		if got := all[len(all)-1]; !strings.HasSuffix(got, want) && !strings.Contains(strings.ToUpper(want), "X-DIME") && !strings.Contains(want, "X-MS-Exchange-") {
			t.Errorf("%s: differs:\n%.400q", m.Name, got)
		}
	}
	if passed < 100 {
		t.Errorf("only %d passed", passed)
	}
}

// A large message passes without lying in memory.
func TestLarge(t *testing.T) {
	p := dial(t, start(t, &innerServer{forget: true}, nil)).hello().envelope()
	p.cmd("DATA", "354")
	block := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 1000))
	p.send("Subject: x\r\n\r\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 40 << 20 / len(block) {
		if _, err := p.conn.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	p.send(".\r\n")
	p.want("250")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d octets allocated", grown)
	}
}

package submission

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/testmail"
)

func TestCapabilities(t *testing.T) {
	p := dial(t, start(t, func(c *Config) { c.TLS, c.MaxOctets, c.Users = serverTLS(t), 12345, users(t) }, &inbox{}))
	if banner := p.want("220"); !strings.HasPrefix(banner, "220 gw.alpha.example ESMTP") {
		t.Errorf("banner %q", banner)
	}
	caps := p.cmd("EHLO a", "250")
	for _, want := range []string{"STARTTLS", "SIZE 12345", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "LIMITS RCPTMAX=1000"} {
		if !strings.Contains(caps, "-"+want+"\r\n") && !strings.Contains(caps, " "+want+"\r\n") {
			t.Errorf("no %s in %q", want, caps)
		}
	}
	if strings.Contains(caps, "AUTH") || strings.Contains(caps, "REQUIRETLS") || strings.Contains(caps, "BINARYMIME") {
		t.Errorf("offers too much: %q", caps)
	}
	p.secure()
	if caps = p.cmd("EHLO a", "250"); !strings.Contains(caps, "AUTH PLAIN LOGIN\r\n") || !strings.Contains(caps, "250-REQUIRETLS\r\n") {
		t.Errorf("over TLS: %q", caps)
	}
	p.cmd("HELO a", "250 2.0.0 Hello a")
}

// Who may send what: RFC 5321 and our rules.
func TestAdmission(t *testing.T) {
	foreign := func(c *Config) { c.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	tests := map[string]struct {
		edit     func(*Config)
		commands []string // command, reply, …
	}{
		"ours":                         {nil, []string{"MAIL FROM:<alice@alpha.example>", "250", "RCPT TO:<bob@bravo.example>", "250"}},
		"our domain in capitals":       {nil, []string{"MAIL FROM:<Alice@ALPHA.example>", "250"}},
		"null":                         {nil, []string{"MAIL FROM:<>", "250"}},
		"another domain":               {nil, []string{"MAIL FROM:<alice@bravo.example>", "550 5.7.1"}},
		"a subdomain":                  {nil, []string{"MAIL FROM:<alice@sub.alpha.example>", "550 5.7.1"}},
		"quoted to look like ours":     {nil, []string{`MAIL FROM:<"a@alpha.example"@evil.example>`, "550 5.7.1"}},
		"address literal":              {nil, []string{"MAIL FROM:<alice@[127.0.0.1]>", "550 5.7.1"}},
		"forwarding":                   {func(c *Config) { c.Forwarding = true }, []string{"MAIL FROM:<alice@bravo.example>", "250"}},
		"unlisted network":             {foreign, []string{"MAIL FROM:<alice@alpha.example>", "550 5.7.1"}},
		"unlisted network, null":       {foreign, []string{"MAIL FROM:<>", "550 5.7.1"}},
		"unlisted network, AUTH":       {func(c *Config) { foreign(c); c.Users = users(t) }, []string{"MAIL FROM:<alice@alpha.example>", "530 5.7.0"}},
		"TLS required":                 {func(c *Config) { c.TLS, c.RequireTLS = serverTLS(t), true }, []string{"MAIL FROM:<alice@alpha.example>", "530 5.7.0"}},
		"RCPT first":                   {nil, []string{"RCPT TO:<bob@bravo.example>", "502"}},
		"no such domain name":          {nil, []string{"MAIL FROM:<alice@alpha..example>", "501 5.1.3", "MAIL FROM:<alice@-x>", "501 5.1.3", "MAIL FROM:<alice>", "501"}},
		"local part too long":          {nil, []string{"MAIL FROM:<" + strings.Repeat("a", 65) + "@alpha.example>", "501 5.1.3"}},
		"bad recipient":                {nil, []string{"MAIL FROM:<alice@alpha.example>", "250", "RCPT TO:<bob@>", "501", "RCPT TO:<bob@exa mple>", "501", "RCPT TO:<>", "501", "RCPT TO:<bob@a/b>", "501 5.1.3"}},
		"UTF-8 without SMTPUTF8":       {nil, []string{"MAIL FROM:<jörg@alpha.example>", "553 5.6.7", "MAIL FROM:<alice@alpha.example>", "250", "RCPT TO:<bob@bücher.example>", "553 5.6.7"}},
		"UTF-8 with SMTPUTF8":          {nil, []string{"MAIL FROM:<jörg@alpha.example> SMTPUTF8 BODY=8BITMIME", "250", "RCPT TO:<bob@bücher.example>", "250"}},
		"not UTF-8":                    {nil, []string{"MAIL FROM:<\xff@alpha.example> SMTPUTF8", "501 5.1.3"}},
		"too large by SIZE":            {func(c *Config) { c.MaxOctets = 1000 }, []string{"MAIL FROM:<alice@alpha.example> SIZE=1001", "552 5.3.4", "MAIL FROM:<alice@alpha.example> SIZE=1000", "250"}},
		"REQUIRETLS in the clear":      {nil, []string{"MAIL FROM:<alice@alpha.example> REQUIRETLS", "530 5.7.0"}},
		"unknown parameter":            {nil, []string{"MAIL FROM:<alice@alpha.example> X=1", "555 5.5.4", "MAIL FROM:<alice@alpha.example> BODY=BINARYMIME", "504"}},
		"too many recipients":          {func(c *Config) { c.MaxRecipients = 2 }, []string{"MAIL FROM:<alice@alpha.example>", "250", "RCPT TO:<a@b>", "250", "RCPT TO:<c@d>", "250", "RCPT TO:<e@f>", "452 4.5.3"}},
		"MAIL twice, the second rules": {nil, []string{"MAIL FROM:<alice@alpha.example>", "250", "MAIL FROM:<eve@evil.example>", "550 5.7.1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := dial(t, start(t, tt.edit, &inbox{})).hello()
			for i := 0; i < len(tt.commands); i += 2 {
				p.cmd(tt.commands[i], tt.commands[i+1])
			}
		})
	}
}

// REQUIRETLS (RFC 8689) is heard where it may be asked for.
func TestRequireTLS(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, func(c *Config) { c.TLS = serverTLS(t) }, in)).hello()
	p.secure()
	p.cmd("EHLO a", "250")
	for _, param := range []string{" REQUIRETLS", ""} {
		p.cmd("MAIL FROM:<alice@alpha.example>"+param, "250")
		p.cmd("RCPT TO:<bob@bravo.example>", "250")
		p.cmd("DATA", "354")
		p.send("hello\r\n.\r\n")
		p.want("250")
	}
	if got := in.all(); len(got) != 2 || !got[0].env.Require || got[1].env.Require {
		t.Errorf("%+v", got)
	}
}

func TestEnvelope(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, nil, in)).hello()
	p.cmd("MAIL FROM:<Alice.Liddell@ALPHA.example> SIZE=7 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb", "250")
	p.cmd(`RCPT TO:<"b ob\""@Bravo.Example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+40x@bravo.example`, "250")
	p.cmd("RCPT TO:<田中@例え.example>", "250")
	p.cmd(`RCPT TO:<"b ob\""@bravo.example>`, "250") // the same again
	p.cmd("RCPT TO:<Bob@bravo.example> NOTIFY=NEVER", "250")
	p.cmd("DATA", "354")
	p.send("hello\r\n.\r\n")
	answer := p.want("250 2.0.0 OK: queued as ")
	got := in.all()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	m := got[0]
	if m.message() != "hello\r\n" {
		t.Errorf("message %q", m.message())
	}
	id := m.env.ID
	if !strings.HasSuffix(answer, id+"\r\n") || len(id) != 20 {
		t.Errorf("id %q, answer %q", id, answer)
	}
	if want := "Received: from mail.alpha.example ([127.0.0.1])\r\n\tby gw.alpha.example with UTF8SMTP id " + id + ";\r\n\t" + m.env.Received.Format(time.RFC1123Z); m.trace() != want {
		t.Errorf("trace %q\nwant  %q", m.trace(), want)
	}
	if !m.env.Client.Addr().IsLoopback() || time.Since(m.env.Received) > time.Minute {
		t.Errorf("client %v, received %v", m.env.Client, m.env.Received)
	}
	m.env.ID, m.env.Client, m.env.Received, m.env.Trace = "", netip.AddrPort{}, time.Time{}, 0
	want := Envelope{From: "Alice.Liddell@alpha.example", UTF8: true, Body: "8BITMIME", Size: 7, Ret: "HDRS", EnvID: "a+b", Hello: "mail.alpha.example",
		To: []Recipient{
			{Address: `"b ob\""@bravo.example`, Notify: []string{"SUCCESS", "FAILURE"}, Orcpt: "rfc822;bob@x@bravo.example"},
			{Address: "田中@例え.example"},
			{Address: "Bob@bravo.example", Notify: []string{"NEVER"}},
		}}
	if !reflect.DeepEqual(m.env, want) {
		t.Errorf("got  %+v\nwant %+v", m.env, want)
	}
	p.cmd("MAIL FROM:<>", "250")
	p.cmd("RCPT TO:<bob@bravo.example>", "250")
	p.send("BDAT 0 LAST\r\n")
	p.want("250")
	if got := in.all(); len(got) != 2 || got[1].env.From != "" || got[1].env.Ret != "" || got[1].message() != "" {
		t.Errorf("the second: %+v", got)
	}
}

// What the Acceptor says becomes the reply, and the session goes on.
func TestReplies(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string
	}{
		"full, wrapped": {fmt.Errorf("queue: %w", ErrFull), "452 4.3.1 insufficient system storage"},
		"unknown":       {errors.New("open spool/7f: permission denied"), "451 4.3.0 local error, try again later"},
		"policy":        {ErrPolicy, "550 5.7.1 refused by policy"},
		"too large":     {ErrTooLarge, "552 5.3.4 "},
		"busy":          {ErrBusy, "451 4.3.2 "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := dial(t, start(t, nil, &inbox{err: tt.err})).hello()
			p.envelope()
			p.cmd("DATA", "354")
			p.send("hello\r\n.\r\n")
			p.want(tt.want)
			p.envelope()
			p.send("BDAT 7 LAST\r\nhello\r\n")
			p.want(tt.want)
			p.cmd("QUIT", "221")
		})
	}
	for _, r := range replies {
		if s := replyFor(r.err); s.Code/100 != s.EnhancedCode[0] {
			t.Errorf("%v: %d and %v", r.err, s.Code, s.EnhancedCode)
		}
	}
}

// An Acceptor that fails before it has read everything, or that says yes without reading.
func TestAcceptorThatDoesNotRead(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		code string
	}{"fails at once": {ErrFull, "452"}, "accepts unread": {nil, "451 4.3.0"}} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, start(t, nil, &inbox{take: func(Envelope, io.Reader) error { return tt.err }})).hello()
			body := strings.Repeat(canary[:len(canary)-3], 10_000)
			p.envelope()
			p.cmd("DATA", "354")
			p.send(body + ".\r\nNOOP\r\n")
			p.want(tt.code, "250")
			p.envelope()
			p.send(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%sNOOP\r\n", len(body), body, len(body), body))
			p.want("250", tt.code, "250")
		})
	}
}

func TestTooLarge(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, func(c *Config) { c.MaxOctets = 1000 }, in)).hello()
	body := strings.Repeat("12345678\r\n", 100)
	for _, over := range []string{"", "x\r\n"} {
		code := "250"
		if over != "" {
			code = "552 5.3.4"
		}
		p.envelope()
		p.cmd("DATA", "354")
		p.send(body + over + ".\r\n")
		p.want(code)
		p.envelope()
		p.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(body+over), body+over))
		p.want(code)
	}
	if n := len(in.all()); n != 2 {
		t.Errorf("%d messages", n)
	}
	p.cmd("QUIT", "221")
}

const argonFor = "$argon2id$v=19$m=64,t=1,p=1$"

func users(t testing.TB) *Users {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte("secret one"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	sum := argon2.IDKey([]byte("secret two"), []byte("saltsalt"), 1, 64, 1, 32)
	file := "# users\n\nexchange:" + string(b) + "\nprinter:" + argonFor + base64.RawStdEncoding.EncodeToString([]byte("saltsalt")) + "$" + base64.RawStdEncoding.EncodeToString(sum) + "\n"
	u, err := ParseUsers([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAuth(t *testing.T) {
	in := &inbox{}
	addr := start(t, func(c *Config) { c.TLS, c.Users, c.Networks = serverTLS(t), users(t), nil }, in)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := map[string]struct {
		lines []string
		user  string
	}{
		"plain":                 {[]string{"AUTH PLAIN " + b64("\x00exchange\x00secret one"), "235"}, "exchange"},
		"plain, asked":          {[]string{"AUTH PLAIN", "334", b64("printer\x00printer\x00secret two"), "235"}, "printer"},
		"login":                 {[]string{"AUTH LOGIN", "334 VXNlcm5hbWU6", b64("exchange"), "334 UGFzc3dvcmQ6", b64("secret one"), "235"}, "exchange"},
		"login, name at once":   {[]string{"AUTH LOGIN " + b64("printer"), "334 UGFzc3dvcmQ6", b64("secret two"), "235"}, "printer"},
		"wrong password":        {[]string{"AUTH PLAIN " + b64("\x00exchange\x00secret two"), "535 5.7.8"}, ""},
		"unknown name":          {[]string{"AUTH PLAIN " + b64("\x00nobody\x00secret two"), "535 5.7.8"}, ""},
		"for somebody else":     {[]string{"AUTH PLAIN " + b64("admin\x00exchange\x00secret one"), "535 5.7.8"}, ""},
		"no password":           {[]string{"AUTH PLAIN " + b64("\x00exchange\x00"), "535 5.7.8"}, ""},
		"not base64":            {[]string{"AUTH PLAIN ???", "454"}, ""},
		"broken off":            {[]string{"AUTH LOGIN", "334", "*", "501"}, ""},
		"unknown mechanism":     {[]string{"AUTH CRAM-MD5", "504 5.5.4"}, ""},
		"three failures":        {[]string{"AUTH PLAIN " + b64("\x00a\x00b"), "535", "AUTH PLAIN " + b64("\x00a\x00b"), "535", "AUTH PLAIN " + b64("\x00a\x00b"), "421 4.7.0"}, "-"},
		"a command as password": {[]string{"AUTH LOGIN", "334", "MAIL FROM:<alice@alpha.example>", "454"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := dial(t, addr).hello()
			p.secure()
			p.cmd("EHLO mail.alpha.example", "250")
			for i := 0; i < len(tt.lines); i += 2 {
				p.cmd(tt.lines[i], tt.lines[i+1])
			}
			switch tt.user {
			case "-":
				if r := p.reply(); r != "" {
					t.Errorf("the session went on: %q", r)
				}
			case "":
				p.cmd("MAIL FROM:<alice@alpha.example>", "530 5.7.0")
			default:
				p.envelope()
				p.cmd("DATA", "354")
				p.send("hello\r\n.\r\n")
				p.want("250")
				got := in.all()
				if m := got[len(got)-1]; m.env.User != tt.user || !strings.Contains(m.trace(), "with ESMTPSA id") {
					t.Errorf("%+v\n%s", m.env, m.trace())
				}
				p.cmd("AUTH PLAIN "+b64("\x00exchange\x00secret one"), "503")
			}
		})
	}
}

func TestParseUsers(t *testing.T) {
	sum := base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	for name, file := range map[string]string{
		"empty":               "# nobody\n",
		"no hash":             "alice\n",
		"no name":             ":" + argonFor + "c2FsdHNhbHQ$" + sum,
		"plain text":          "alice:secret\n",
		"twice":               strings.Repeat("alice:"+argonFor+"c2FsdHNhbHQ$"+sum+"\n", 2),
		"bcrypt too dear":     "alice:$2a$20$abcdefghijklmnopqrstuuCa1VbKuRgUJ0cG8Ncx9uZ4vJmWm7eUa\n",
		"argon2 too large":    "alice:$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$" + sum,
		"argon2 too slow":     "alice:$argon2id$v=19$m=64,t=1000,p=1$c2FsdHNhbHQ$" + sum,
		"argon2 with a tail":  "alice:$argon2id$v=19$m=64,t=1,p=1x$c2FsdHNhbHQ$" + sum,
		"argon2 without salt": "alice:$argon2id$v=19$m=64,t=1,p=1$$" + sum,
		"argon2i":             "alice:$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$" + sum,
	} {
		if _, err := ParseUsers([]byte(file)); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "$") && !strings.Contains(err.Error(), "=…") {
			t.Errorf("%s: the error tells too much: %v", name, err)
		}
	}
}

func TestSessionLimits(t *testing.T) {
	addr := start(t, func(c *Config) { c.MaxSessions, c.MaxPerClient = 3, 2 }, &inbox{})
	a, b := dial(t, addr), dial(t, addr)
	a.want("220")
	b.want("220")
	c := dial(t, addr)
	c.want("421 4.7.0")
	if c.reply() != "" {
		t.Error("the third session was not closed")
	}
	a.cmd("QUIT", "221")
	a.rest()
	for deadline := time.Now().Add(5 * time.Second); ; {
		d := dial(t, addr)
		if r := d.reply(); strings.HasPrefix(r, "220") {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("after one left: %q", r)
		}
		d.conn.Close()
		runtime.Gosched()
	}
}

// At the end sessions that wait hear 421, those in a message finish it, and Serve comes back.
func TestStop(t *testing.T) {
	in := &inbox{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := New(Config{Name: "gw", Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Domains: func(string) bool { return true }}, in, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	idle := dial(t, ln.Addr().String()).hello()
	busy := dial(t, ln.Addr().String()).hello().envelope()
	busy.cmd("DATA", "354")
	busy.send("half\r\n")
	cancel()
	idle.want("421 4.3.2")
	if _, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second); err == nil {
		t.Error("still listening")
	}
	select {
	case err := <-done:
		t.Fatalf("Serve came back before the message was in: %v", err)
	default:
	}
	busy.send("and half\r\n.\r\n")
	busy.want("250", "421 4.3.2")
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if got := in.all(); len(got) != 1 || got[0].message() != "half\r\nand half\r\n" {
		t.Errorf("got %v", got)
	}
}

// Sessions that do not finish in their time are cut.
func TestStopWithoutGrace(t *testing.T) {
	in := &inbox{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := New(Config{Name: "gw", Grace: time.Millisecond, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Domains: func(string) bool { return true }}, in, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	busy := dial(t, ln.Addr().String()).hello().envelope()
	busy.cmd("DATA", "354")
	chunked := dial(t, ln.Addr().String()).hello().envelope()
	chunked.send("BDAT 5\r\nhello")
	chunked.want("250")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not come back")
	}
	if len(in.all()) > 0 {
		t.Error("half a message arrived")
	}
}

func TestSilence(t *testing.T) {
	addr := start(t, func(c *Config) { c.Timeout = 50 * time.Millisecond }, &inbox{})
	p := dial(t, addr).hello()
	p.want("421 4.4.2")
	p = dial(t, addr).hello().envelope()
	p.cmd("DATA", "354")
	p.send("half\r\n")
	begin := time.Now()
	p.rest()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a body that stopped was waited for %v", took)
	}
}

// Everything that the wire can carry arrives as it was sent.
func TestMessagesArriveWhole(t *testing.T) {
	in := &inbox{}
	p := dial(t, start(t, nil, in)).hello()
	n := 0
	for _, m := range testmail.Ours(t) {
		facts, err := smtpwire.Examine(strings.NewReader(string(m.Raw)))
		if err != nil {
			t.Fatal(err)
		}
		p.envelope()
		p.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(m.Raw), m.Raw))
		if facts.BareEnds {
			p.want("554 5.6.0")
			continue
		}
		p.want("250")
		got := in.all()
		if n++; len(got) != n || got[n-1].message() != string(m.Raw) {
			t.Fatalf("%s: differs", m.Name)
		}
	}
	if n < 40 {
		t.Errorf("only %d messages passed", n)
	}
}

// 50 MB go through with a buffer's worth of memory.
func TestLargeStreams(t *testing.T) {
	const size = 50 << 20
	var octets int64
	addr := start(t, nil, &inbox{take: func(_ Envelope, body io.Reader) error {
		n, err := io.Copy(io.Discard, body)
		octets = n
		return err
	}})
	p := dial(t, addr).hello()
	line := strings.Repeat("x", 76) + "\r\n"
	block := []byte(strings.Repeat(line, 1000))
	var before, after runtime.MemStats
	for _, chunked := range []bool{false, true} {
		p.envelope()
		runtime.ReadMemStats(&before)
		if chunked {
			p.send(fmt.Sprintf("BDAT %d LAST\r\n", size/len(block)*len(block)))
		} else {
			p.cmd("DATA", "354")
		}
		for range size / len(block) {
			if _, err := p.conn.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		if !chunked {
			p.send(".\r\n")
		}
		p.want("250")
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
			t.Errorf("chunked %v: %d octets allocated for a message of %d", chunked, grown, size)
		}
		if want := int64(size / len(block) * len(block)); octets < want || octets > want+500 {
			t.Errorf("%d octets arrived", octets)
		}
	}
}

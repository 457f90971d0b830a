package handoff

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/testcert"
	"dimegate/internal/testmail"
)

const (
	alice = "alice@alpha.example"
	bob   = "bob@bravo.example"
	hello = "Subject: x\r\n\r\nhello\r\n"
)

func delivery(body string) Delivery {
	return Delivery{From: alice, To: bob, Message: smtpwire.Octets(body)}
}

// refusal is what a test wants of an error: the server's or our own verdict.
func refusal(err error) string {
	e, ok := errors.AsType[*smtpwire.Error](err)
	if !ok {
		return fmt.Sprint(err)
	}
	local := ""
	if e.Local {
		local = "local "
	}
	return fmt.Sprintf("%s%s %d %d.%d.%d", local, e.Stage, e.Code, e.Enhanced[0], e.Enhanced[1], e.Enhanced[2])
}

// By what the server offers: which commands go out, and what arrives.
func TestDeliver(t *testing.T) {
	all := []string{"PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME"}
	without := func(name string) []string {
		var out []string
		for _, o := range all {
			if o != name {
				out = append(out, o)
			}
		}
		return out
	}
	dsn := smtpwire.DSN{Ret: "HDRS", EnvID: "a+2Bb", Notify: "FAILURE", Orcpt: "rfc822;bob"}
	tests := map[string]struct {
		offer    []string
		d        Delivery
		from, to string // lines
		want     string // octets, "" for those of the message
		refused  string
	}{
		"plain":                     {all, delivery(hello), "MAIL FROM:<alice@alpha.example> SIZE=21", "RCPT TO:<bob@bravo.example>", "", ""},
		"nothing offered":           {nil, delivery(hello), "MAIL FROM:<alice@alpha.example>", "RCPT TO:<bob@bravo.example>", "", ""},
		"null reverse-path":         {nil, Delivery{To: bob, Message: smtpwire.Octets(hello)}, "MAIL FROM:<>", "RCPT TO:<bob@bravo.example>", "", ""},
		"fields on top":             {nil, Delivery{From: alice, To: bob, Top: []byte("X: y\r\n"), Message: smtpwire.Octets(hello)}, "MAIL FROM:<alice@alpha.example>", "RCPT TO:<bob@bravo.example>", "X: y\r\n" + hello, ""},
		"DSN":                       {all, Delivery{From: alice, To: bob, Message: smtpwire.Octets(hello), DSN: dsn}, "MAIL FROM:<alice@alpha.example> SIZE=21 RET=HDRS ENVID=a+2Bb", "RCPT TO:<bob@bravo.example> NOTIFY=FAILURE ORCPT=rfc822;bob", "", ""},
		"DSN not offered":           {without("DSN"), Delivery{From: alice, To: bob, Message: smtpwire.Octets(hello), DSN: dsn}, "MAIL FROM:<alice@alpha.example> SIZE=21", "RCPT TO:<bob@bravo.example>", "", ""},
		"8 bit":                     {all, delivery("\r\nschön\r\n"), "MAIL FROM:<alice@alpha.example> SIZE=10 BODY=8BITMIME", "RCPT TO:<bob@bravo.example>", "", ""},
		"8 bit not offered":         {without("8BITMIME"), delivery("\r\nschön\r\n"), "", "", "", "local mail 554 5.6.3"},
		"UTF-8 recipient":           {all, Delivery{From: alice, To: "jörg@bravo.example", Message: smtpwire.Octets(hello)}, "MAIL FROM:<alice@alpha.example> SIZE=21 SMTPUTF8", "RCPT TO:<jörg@bravo.example>", "", ""},
		"UTF-8 sender, not offered": {without("SMTPUTF8"), Delivery{From: "jörg@alpha.example", To: bob, Message: smtpwire.Octets(hello)}, "", "", "", "local mail 553 5.6.7"},
		"UTF-8 asked for":           {all, Delivery{From: alice, To: bob, UTF8: true, Message: smtpwire.Octets(hello)}, "MAIL FROM:<alice@alpha.example> SIZE=21 SMTPUTF8", "RCPT TO:<bob@bravo.example>", "", ""},
		"too large":                 {all, delivery(strings.Repeat("12345678\r\n", 101)), "", "", "", "local mail 552 5.3.4"},
		"size without a limit":      {[]string{"SIZE"}, delivery(strings.Repeat("12345678\r\n", 101)), "MAIL FROM:<alice@alpha.example> SIZE=1010", "RCPT TO:<bob@bravo.example>", "", ""},
		"dots":                      {all, delivery(".\r\n..\r\n.x\r\n\r\n.\r\n"), "MAIL FROM:<alice@alpha.example> SIZE=16", "RCPT TO:<bob@bravo.example>", "", ""},
		"empty":                     {all, delivery(""), "MAIL FROM:<alice@alpha.example>", "RCPT TO:<bob@bravo.example>", "", ""},
		"no final line end":         {all, delivery("hello"), "MAIL FROM:<alice@alpha.example> SIZE=5", "RCPT TO:<bob@bravo.example>", "", ""},
		"no final line end by DATA": {without("CHUNKING"), delivery("hello"), "MAIL FROM:<alice@alpha.example> SIZE=5", "RCPT TO:<bob@bravo.example>", "hello\r\n", ""},
		"bare LF by BDAT":           {all, delivery("a\nb\r\n.\rc\r\n.\n.\r\n"), "MAIL FROM:<alice@alpha.example> SIZE=15 BODY=BINARYMIME", "RCPT TO:<bob@bravo.example>", "", ""},
		"bare LF, no BINARYMIME":    {without("BINARYMIME"), delivery("a\nb\r\n"), "", "", "", "local mail 554 5.6.0"},
		"bare LF, no CHUNKING":      {without("CHUNKING"), delivery("a\nb\r\n"), "", "", "", "local mail 554 5.6.0"},
		"bare CR at the end":        {without("BINARYMIME"), delivery("a\r"), "", "", "", "local mail 554 5.6.0"},
		"an address with an end":    {all, Delivery{From: alice, To: "bob>\r\nDATA\r\n", Message: smtpwire.Octets(hello)}, "", "", "", "local mail 553 5.1.3"},
		"an address with a bracket": {all, Delivery{From: "a> SIZE=1", To: bob, Message: smtpwire.Octets(hello)}, "", "", "", "local mail 553 5.1.3"},
		"a quoted address":          {all, Delivery{From: `"a> b"@alpha.example`, To: bob, Message: smtpwire.Octets(hello)}, `MAIL FROM:<"a> b"@alpha.example> SIZE=21`, "RCPT TO:<bob@bravo.example>", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(s *mailServer) { s.offer = tt.offer })
			err := inner(t, s, nil).Deliver(within(t), tt.d)
			got := s.taken()
			if tt.refused != "" {
				if refusal(err) != tt.refused || len(got) > 0 || s.heard("MAIL") > 0 {
					t.Errorf("%s, %d messages", refusal(err), len(got))
				}
				return
			}
			if err != nil || len(got) != 1 {
				t.Fatalf("%v, %d messages", err, len(got))
			}
			want := tt.want
			if want == "" {
				want = string(tt.d.Message.(smtpwire.Octets))
			}
			if got[0].from != tt.from || got[0].to != tt.to || string(got[0].octets) != want {
				t.Errorf("%q\n%q\n%.200q", got[0].from, got[0].to, got[0].octets)
			}
		})
	}
}

// Every message that DATA can carry arrives octet for octet.
func TestDeliverOurs(t *testing.T) {
	s := serve(t, nil)
	h := inner(t, s, nil)
	n := 0
	for _, m := range testmail.Ours(t) {
		d := delivery(string(m.Raw))
		facts, err := smtpwire.Examine(bytes.NewReader(m.Raw))
		if err != nil {
			t.Fatal(err)
		}
		err = h.Deliver(within(t), d)
		if facts.BareEnds {
			if refusal(err) != "local mail 554 5.6.0" {
				t.Errorf("%s: %v", m.Name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		want := m.Raw
		if !facts.FinalEnd && len(want) > 0 {
			want = append(bytes.Clone(want), "\r\n"...)
		}
		got := s.taken()
		if n++; len(got) != n || !bytes.Equal(got[n-1].octets, want) {
			t.Fatalf("%s: differs", m.Name)
		}
	}
	if n < 40 || s.sessions != 1 {
		t.Errorf("%d messages in %d sessions", n, s.sessions)
	}
}

// What the server says, at each step.
func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		line, reply string // the reply to the first line that begins so; "message" is the verdict
		want        string
		sessions    int // used by this and one more message
		unknown     bool
	}{
		"MAIL":                    {"MAIL", "451 4.7.1 later", "mail 451 4.7.1", 1, false},
		"RCPT unknown":            {"RCPT", "550 5.1.1 no such user", "rcpt 550 5.1.1", 1, true},
		"RCPT unknown, old style": {"RCPT", "550 No such user", "rcpt 550 0.0.0", 1, true},
		"RCPT by policy":          {"RCPT", "550 5.7.1 go away", "rcpt 550 5.7.1", 1, false},
		"RCPT greylisted":         {"RCPT", "450 4.2.0 later", "rcpt 450 4.2.0", 1, false},
		"RCPT, full":              {"RCPT", "452 4.2.2 full", "rcpt 452 4.2.2", 1, false},
		"RCPT, several lines":     {"RCPT", "550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user", "rcpt 550 5.1.1", 1, true},
		"RCPT, codes that differ": {"RCPT", "550-5.1.1 no\r\n550 5.2.1 user", "rcpt 550 5.1.1", 1, true},
		"RCPT, another class":     {"RCPT", "550 4.1.1 user", "rcpt 550 0.0.0", 1, true},
		"RCPT, bad sender":        {"RCPT", "550 5.1.8 bad sender's system", "rcpt 550 5.1.8", 1, false},
		"DATA":                    {"DATA", "554 5.5.1 no", "data 554 5.5.1", 1, false},
		"message":                 {"message", "554 5.7.1 spam", "body 554 5.7.1", 1, false},
		"message, later":          {"message", "451 4.3.0 later", "body 451 4.3.0", 1, false},
		"closing":                 {"RCPT", "421 4.3.2 going down", "rcpt 421 4.3.2", 2, false},
		"wants a password":        {"MAIL", "530 5.7.0 authenticate", "unavailable", 2, false},
		"no service":              {"banner", "554 no service", "unavailable", 2, false},
		"EHLO refused":            {"EHLO", "550 who are you", "unavailable", 2, false},
		"not SMTP":                {"RCPT", "hello", "unavailable", 2, false},
		"no code in the second":   {"RCPT", "250-a\r\n550 b", "unavailable", 2, false},
		"closed at MAIL":          {"MAIL", "!", "unavailable", 2, false},
		"closed at the verdict":   {"message", "!", "uncertain", 2, false},
	}
	for name, tt := range tests {
		for _, pipelining := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/pipelining %v", name, pipelining), func(t *testing.T) {
				var once sync.Once
				s := serve(t, func(s *mailServer) {
					if !pipelining {
						s.offer = s.offer[1:]
					}
					s.answer = func(_ int, line string) (r string) {
						if line == "" && tt.line == "message" || line != "" && strings.HasPrefix(line, tt.line) {
							once.Do(func() { r = tt.reply })
						}
						return r
					}
				})
				h := inner(t, s, nil)
				err := h.Deliver(within(t), delivery(hello))
				got := refusal(err)
				if errors.Is(err, ErrUnavailable) {
					got = "unavailable"
				} else if errors.Is(err, smtpwire.ErrUncertain) {
					got = "uncertain"
				}
				if got != tt.want {
					t.Errorf("got %s (%v)", got, err)
				}
				if e, ok := errors.AsType[*smtpwire.Error](err); ok && e.UnknownRecipient() != tt.unknown {
					t.Errorf("unknown recipient: %v", e.UnknownRecipient())
				}
				if len(s.taken()) > 0 {
					t.Error("a message arrived")
				}
				if err := h.Deliver(within(t), delivery(hello)); err != nil {
					t.Errorf("the next: %v", err)
				}
				if got := s.taken(); len(got) != 1 || string(got[0].octets) != hello || s.sessions != tt.sessions {
					t.Errorf("%d messages in %d sessions, want 1 in %d", len(got), s.sessions, tt.sessions)
				}
			})
		}
	}
}

// RFC 2920 §3.1: no recipient, and the server opens DATA all the same.
func TestDataWithoutRecipient(t *testing.T) {
	s := serve(t, func(s *mailServer) {
		s.answer = func(_ int, line string) string {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<bob@"):
				return "550 5.1.1 no"
			case line == "DATA":
				return "354 go"
			case line == "": // the empty message
				return "554 5.5.1 no valid recipients"
			}
			return ""
		}
	})
	err := inner(t, s, nil).Deliver(within(t), delivery(hello))
	if refusal(err) != "rcpt 550 5.1.1" {
		t.Errorf("got %v", err)
	}
	if s.heard("hello") > 0 {
		t.Error("the message was sent")
	}
}

// The peer's words are safe to log.
func TestPeersWords(t *testing.T) {
	s := serve(t, func(s *mailServer) {
		s.answer = func(_ int, line string) string {
			if strings.HasPrefix(line, "RCPT") {
				return "550 5.1.1 \x1b[31mred\x07 \xff " + strings.Repeat("x", 3000)
			}
			return ""
		}
	})
	err := inner(t, s, nil).Deliver(within(t), delivery(hello))
	e, ok := errors.AsType[*smtpwire.Error](err)
	if !ok || !strings.HasPrefix(e.Text, "?[31mred? ? x") || len(e.Text) > 500 {
		t.Errorf("%v", err)
	}
}

// A kept session may be dead when it is used again, in each of the ways that servers have.
func TestStaleSessions(t *testing.T) {
	for name, dead := range map[string]string{"421 to MAIL": "421 4.4.2 idle", "closed at MAIL": "!"} {
		t.Run(name, func(t *testing.T) {
			n := 0
			s := serve(t, func(s *mailServer) {
				s.answer = func(session int, line string) string {
					if strings.HasPrefix(line, "MAIL") {
						if n++; n == 2 {
							return dead
						}
					}
					return ""
				}
			})
			h := inner(t, s, nil)
			for range 3 {
				if err := h.Deliver(within(t), delivery(hello)); err != nil {
					t.Fatal(err)
				}
			}
			if s.sessions != 2 || len(s.taken()) != 3 {
				t.Errorf("%d messages in %d sessions", len(s.taken()), s.sessions)
			}
		})
	}
}

func TestSessionsAreKept(t *testing.T) {
	s := serve(t, nil)
	h := inner(t, s, func(c *Config) { c.MaxMessages, c.MaxSessions = 3, 2 })
	for range 7 {
		if err := h.Deliver(within(t), delivery(hello)); err != nil {
			t.Fatal(err)
		}
	}
	if s.sessions != 3 || s.heard("QUIT") != 2 {
		t.Errorf("%d sessions, %d goodbyes", s.sessions, s.heard("QUIT"))
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := h.Deliver(within(t), delivery(hello)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Deliver(within(t), delivery(hello)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if n := len(s.taken()); n != 17 || s.heard("QUIT") != s.sessions {
		t.Errorf("%d messages, %d sessions, %d goodbyes", n, s.sessions, s.heard("QUIT"))
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	s := serve(t, nil)
	h := inner(t, s, func(c *Config) { c.Idle = 10 * time.Millisecond })
	if err := h.Deliver(within(t), delivery(hello)); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); s.heard("QUIT") == 0; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("the session is kept for ever")
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.idle) > 0 {
		t.Error("and remembered")
	}
}

func TestTLS(t *testing.T) {
	cert := testcert.ECDSA(t, "127.0.0.1")
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	offered := &tls.Config{Certificates: []tls.Certificate{cert}}
	tests := map[string]struct {
		server *tls.Config
		policy TLSPolicy
		roots  *x509.CertPool
		reply  string // to STARTTLS
		ok     bool
		starts int
	}{
		"opportunistic":              {offered, TLSOpportunistic, nil, "", true, 1},
		"opportunistic, not offered": {nil, TLSOpportunistic, nil, "", true, 0},
		"off":                        {offered, TLSOff, nil, "", true, 0},
		"required":                   {offered, TLSRequired, pool, "", true, 1},
		"required, not offered":      {nil, TLSRequired, pool, "", false, 0},
		"required, unknown issuer":   {offered, TLSRequired, x509.NewCertPool(), "", false, 1},
		"refused":                    {offered, TLSOpportunistic, nil, "454 4.7.0 not now", false, 1},
		"octets behind the reply":    {offered, TLSOpportunistic, nil, "220 go\r\n250 injected", false, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(s *mailServer) {
				s.tls = tt.server
				s.answer = func(_ int, line string) string {
					if line == "STARTTLS" {
						return tt.reply
					}
					return ""
				}
			})
			h := inner(t, s, func(c *Config) { c.TLS, c.TLSConfig = tt.policy, &tls.Config{RootCAs: tt.roots} })
			err := h.Deliver(within(t), delivery(hello))
			if (err == nil) != tt.ok || !tt.ok && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if s.heard("STARTTLS") != tt.starts || (len(s.taken()) == 1) != tt.ok {
				t.Errorf("%d STARTTLS, %d messages", s.heard("STARTTLS"), len(s.taken()))
			}
			if tt.ok && tt.starts == 1 && s.heard("EHLO gw.bravo.example") != 2 {
				t.Errorf("%d EHLO", s.heard("EHLO"))
			}
		})
	}
}

func TestAuthNeedsTLS(t *testing.T) {
	s := serve(t, nil)
	h := inner(t, s, func(c *Config) { c.Auth = func() sasl.Client { return sasl.NewPlainClient("", "gw", "secret") } })
	if err := h.Deliver(within(t), delivery(hello)); !errors.Is(err, ErrUnavailable) || s.heard("AUTH") > 0 {
		t.Errorf("%v, %d AUTH", err, s.heard("AUTH"))
	}
	s = serve(t, func(s *mailServer) {
		s.tls = &tls.Config{Certificates: []tls.Certificate{testcert.ECDSA(t, "127.0.0.1")}}
		s.answer = func(_ int, line string) string {
			if strings.HasPrefix(line, "AUTH") {
				return "235 2.7.0 ok"
			}
			return ""
		}
	})
	h = inner(t, s, func(c *Config) { c.Auth = func() sasl.Client { return sasl.NewPlainClient("", "gw", "secret") } })
	if err := h.Deliver(within(t), delivery(hello)); err != nil || s.heard("AUTH PLAIN AGd3AHNlY3JldA==") != 1 {
		t.Errorf("%v", err)
	}
}

func TestLMTP(t *testing.T) {
	s := serve(t, func(s *mailServer) { s.lmtp = true })
	if err := inner(t, s, nil).Deliver(within(t), delivery(hello)); err != nil || len(s.taken()) != 1 || s.heard("LHLO") != 1 || s.heard("EHLO") != 0 {
		t.Errorf("%v, %d messages", err, len(s.taken()))
	}
}

func TestHELO(t *testing.T) {
	s := serve(t, func(s *mailServer) {
		s.answer = func(_ int, line string) string {
			switch {
			case strings.HasPrefix(line, "EHLO"):
				return "502 5.5.1 what"
			case strings.HasPrefix(line, "HELO"):
				return "250 hello"
			}
			return ""
		}
	})
	if err := inner(t, s, nil).Deliver(within(t), delivery(hello)); err != nil || len(s.taken()) != 1 {
		t.Errorf("%v", err)
	}
}

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	h := New(Config{Address: ln.Addr().String(), Name: "gw"})
	if err := h.Deliver(within(t), delivery(hello)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := h.Confirm(within(t), bob); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// An administrator reads once that the mail server is away, and once that it is back.
func TestAwayIsTold(t *testing.T) {
	var log strings.Builder
	away := true
	s := serve(t, nil)
	h := New(Config{Address: s.addr, Name: "gw", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if away {
				return nil, errors.New("refused")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	t.Cleanup(func() { h.Close() })
	for _, a := range []bool{true, true, false, false, true} {
		away = a
		if err := h.Deliver(within(t), delivery(hello)); (err != nil) != a {
			t.Errorf("away %v: %v", a, err)
		}
		if err := h.Close(); err != nil { // or the next message would go over the kept session
			t.Fatal(err)
		}
		h.closed = false
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || strings.Count(log.String(), "is back") != 1 || strings.Count(log.String(), s.addr) != 3 {
		t.Errorf("told:\n%s", log.String())
	}
}

// When the context ends, so does the wait, and it stays known that the message was out.
func TestContextEnds(t *testing.T) {
	for name, stage := range map[string]string{"before the banner": "banner", "at MAIL": "MAIL", "at the verdict": "message"} {
		t.Run(name, func(t *testing.T) {
			reached, release := make(chan struct{}), make(chan struct{})
			s := serve(t, func(s *mailServer) {
				s.answer = func(_ int, line string) string {
					if line == "" && stage == "message" || line != "" && strings.HasPrefix(line, stage) {
						close(reached)
						<-release
					}
					return ""
				}
			})
			defer close(release)
			ctx, cancel := context.WithCancel(context.Background())
			go func() { <-reached; cancel() }()
			err := inner(t, s, nil).Deliver(ctx, delivery(hello))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if errors.Is(err, smtpwire.ErrUncertain) != (stage == "message") {
				t.Errorf("uncertain: %v", err)
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(s *mailServer) {
		s.answer = func(_ int, line string) string {
			if line == "" {
				<-release
			}
			return ""
		}
	})
	defer close(release)
	h := inner(t, s, func(c *Config) { c.Timeouts.Verdict = 20 * time.Millisecond })
	if err := h.Deliver(within(t), delivery(hello)); !errors.Is(err, smtpwire.ErrUncertain) {
		t.Errorf("%v", err)
	}
}

// A message that ends before its time never looks whole to the server.
func TestMessageFails(t *testing.T) {
	for _, chunking := range []bool{false, true} {
		s := serve(t, func(s *mailServer) { s.offer = append(s.offer, "CHUNKING", "BINARYMIME") })
		d := delivery("")
		body := "hello\r\n"
		if chunking {
			body = "hello\n"
		}
		d.Message = &broken{body: body}
		err := inner(t, s, nil).Deliver(within(t), d)
		if err == nil || len(s.taken()) > 0 {
			t.Errorf("chunking %v: %v, %d messages", chunking, err, len(s.taken()))
		}
	}
}

// broken reads well once, and then stops short.
type broken struct {
	body  string
	reads int
}

func (b *broken) Len() int64 { return int64(len(b.body)) }
func (b *broken) Reader() io.Reader {
	if b.reads++; b.reads > 1 {
		return io.MultiReader(strings.NewReader(b.body[:3]), errReader{})
	}
	return strings.NewReader(b.body)
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestLargeStreams(t *testing.T) {
	line := strings.Repeat("x", 76) + "\r\n"
	const size = 50 << 20
	body := smtpwire.Octets(strings.Repeat(line, size/len(line)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go swallow(ln)
	h := New(Config{Address: ln.Addr().String(), Name: "gw"})
	defer h.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := h.Deliver(within(t), Delivery{From: alice, To: bob, Message: body}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d octets allocated for a message of %d", grown, len(body))
	}
}

// swallow takes one message without keeping it.
func swallow(ln net.Listener) {
	c, err := ln.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, "220 x\r\n")
	buf := make([]byte, 64<<10)
	say := func(s string) { c.Read(buf); io.WriteString(c, s+"\r\n") }
	say("250 x")
	say("250 x")
	say("250 x")
	say("354 x")
	for tail := ""; !strings.HasSuffix(tail, "\r\n.\r\n"); {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		tail = tail[max(0, len(tail)-5):] + string(buf[max(0, n-5):n])
	}
	io.WriteString(c, "250 x\r\n")
	c.Read(buf)
}

func TestConfirm(t *testing.T) {
	known := map[string]string{"bob@bravo.example": "250 2.1.5 ok", "old@bravo.example": "550 No such user", "gone@bravo.example": "550 5.1.1 gone", "grey@bravo.example": "450 4.2.0 later", "barred@bravo.example": "550 5.7.1 no"}
	rcpt := func(probe string) func(int, string) string {
		return func(_ int, line string) string {
			address, ok := strings.CutPrefix(line, "RCPT TO:<")
			if !ok {
				return ""
			}
			if r := known[strings.TrimSuffix(address, ">")]; r != "" {
				return r
			}
			return probe
		}
	}
	tests := map[string]struct {
		probe, rcpt string
		want        Answer
		refused     string
		again       int // RCPT commands after the same question twice
	}{
		"known":                         {"550 5.1.1 who", "bob@bravo.example", Answer{Known: true}, "", 2},
		"known, of a server for all":    {"250 sure", "bob@bravo.example", Answer{Known: true, AcceptsAll: true}, "", 2},
		"unknown":                       {"250 sure", "gone@bravo.example", Answer{}, "", 1},
		"unknown, old style":            {"250 sure", "old@bravo.example", Answer{}, "", 1},
		"greylisted":                    {"250 sure", "grey@bravo.example", Answer{}, "rcpt 450 4.2.0", 2},
		"barred":                        {"250 sure", "barred@bravo.example", Answer{}, "rcpt 550 5.7.1", 2},
		"known, the probe greylisted":   {"450 4.2.0 later", "bob@bravo.example", Answer{Known: true}, "", 3},
		"known, the probe barred":       {"554 5.7.1 no", "bob@bravo.example", Answer{Known: true}, "", 2},
		"no address":                    {"250 sure", "bob", Answer{}, "", 0},
		"an address that ends the line": {"250 sure", "bob\r\nRCPT TO:<x>@bravo.example", Answer{}, "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(s *mailServer) { s.answer = rcpt(tt.probe) })
			h := inner(t, s, nil)
			for range 2 {
				got, err := h.Confirm(within(t), tt.rcpt)
				if got != tt.want || tt.refused != "" && refusal(err) != tt.refused || tt.refused == "" && err != nil {
					t.Errorf("%+v, %v", got, err)
				}
			}
			if n := s.heard("RCPT"); n != tt.again {
				t.Errorf("%d RCPT, want %d", n, tt.again)
			}
			if s.heard("DATA") > 0 || s.heard("MAIL FROM:<>") != s.heard("MAIL") {
				t.Error("more than a question")
			}
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var a answers
	now := time.Now()
	for i := range 3 * maxAnswers {
		a.put(fmt.Sprintf("u%d@x", i), true, now.Add(time.Hour))
		if len(a.m) > maxAnswers {
			t.Fatalf("%d answers", len(a.m))
		}
	}
	if known, ok := a.get(fmt.Sprintf("u%d@x", 3*maxAnswers-1), now); !known || !ok {
		t.Error("the newest is gone")
	}
	a.put("old@x", true, now)
	if _, ok := a.get("old@x", now); ok {
		t.Error("an answer outlives its time")
	}
}

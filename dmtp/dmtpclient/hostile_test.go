package dmtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp"
)

const banner = "220 dx.example DMTPv1 test\r\n"

// TestHostileLookup lets servers answer SGNT as no server should. The client must come back, soon, with an error of the class,
// and the session must be of no more use where it is out of step.
func TestHostileLookup(t *testing.T) {
	tests := map[string]struct {
		answer func(l *link)
		class  Class
		is     error
		usable bool
	}{
		"never-ending lines":         {func(l *link) { flood(l, "250-OK\r\n") }, Protocol, dmtp.ErrReply, false},
		"never-ending line":          {func(l *link) { flood(l, strings.Repeat("a", 1000)) }, Protocol, dmtp.ErrReply, false},
		"eight MiB in long lines":    {func(l *link) { flood(l, "250-"+strings.Repeat("a", 60000)+"\r\n") }, Protocol, dmtp.ErrReply, false},
		"slow drip":                  {drip, Network, nil, false},
		"silence":                    {func(l *link) { l.deaf() }, Network, nil, false},
		"closed":                     {func(l *link) { l.Close() }, Network, nil, false},
		"closed within a line":       {func(l *link) { l.say("250 O"); l.Close() }, Network, nil, false},
		"NUL":                        {func(l *link) { l.say("250 OK [AAAA]\x00\r\n") }, Protocol, dmtp.ErrReply, false},
		"no code":                    {func(l *link) { l.say("OK [AAAA]\r\n") }, Protocol, dmtp.ErrReply, false},
		"code without text":          {func(l *link) { l.say("250\r\n") }, Protocol, dmtp.ErrReply, false},
		"codes that differ":          {func(l *link) { l.say("250-OK\r\n576 OK\r\n") }, Protocol, dmtp.ErrReply, false},
		"several lines":              {func(l *link) { l.say("250-OK [AAAA]\r\n250 OK [AAAA]\r\n") }, Protocol, nil, false},
		"a 354":                      {func(l *link) { l.say("354 CONTINUE [x]\r\n") }, Protocol, nil, false},
		"not base64":                 {func(l *link) { l.say("270 OK [A*AA]\r\n") }, Protocol, nil, false},
		"empty bracket":              {func(l *link) { l.say("270 OK []\r\n") }, Protocol, nil, false},
		"something after the signet": {func(l *link) { l.say("270 OK [AAAA] \r\n") }, Protocol, nil, false},
		"421":                        {func(l *link) { l.say("421 ENOUGH\r\n") }, Network, nil, false},
		"450":                        {func(l *link) { l.say("450 ACCESS DENIED\r\n") }, Remote, nil, true},
		"476":                        {func(l *link) { l.say("476 LATER\r\n") }, Remote, nil, true},
		"501":                        {func(l *link) { l.say("501 WHAT\r\n") }, Protocol, nil, false},
		"550":                        {func(l *link) { l.say("550 NO\r\n") }, Permanent, nil, true},
		"576":                        {func(l *link) { l.say("576 SIGNET NOT FOUND\r\n") }, Permanent, ErrNoSignet, true},
		"450 of the prototype":       {func(l *link) { l.say("450 SIGNET NOT FOUND.\r\n") }, Permanent, ErrNoSignet, true},
		"unknown 4xx":                {func(l *link) { l.say("499 HM\r\n") }, Remote, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, func(l *link) {
				if l.tls() {
					l.say(banner)
					l.hear()
					tt.answer(l)
					l.deaf()
				}
			})
			wait := 10 * time.Second
			if tt.class == Network {
				wait = 500 * time.Millisecond
			}
			conn := p.connect(t, func(o *Options) { o.Timeouts.Command, o.Timeouts.Quit = wait, 10*time.Millisecond })
			began := time.Now()
			octets, err := conn.Signet(t.Context(), "b.example")
			e, ok := errors.AsType[*Error](err)
			if !ok || octets != nil {
				t.Fatalf("got %d octets, %v", len(octets), err)
			}
			if e.Class != tt.class || tt.is != nil && !errors.Is(err, tt.is) || errors.Is(err, ErrNoSignet) != (tt.is == ErrNoSignet) {
				t.Errorf("%v, %v; want class %v, %v", e.Class, err, tt.class, tt.is)
			}
			if conn.Usable() != tt.usable {
				t.Errorf("usable: %v", conn.Usable())
			}
			if took := time.Since(began); took > wait+3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// flood sends s until the client has gone.
func flood(l *link, s string) {
	for {
		if _, err := l.Write([]byte(s)); err != nil {
			return
		}
	}
}

// drip sends an octet now and then, so that no single read waits for long.
func drip(l *link) {
	for {
		if _, err := l.Write([]byte("2")); err != nil {
			return
		}
		select {
		case <-l.t.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestHostileConnect is about what happens before the first command: every one is a matter of this host, and of no decision.
func TestHostileConnect(t *testing.T) {
	tests := map[string]struct {
		script func(l *link)
		dual   bool
		is     error
	}{
		"magma's stub":           {inTLS("220 b.example DSMTP Magma\n"), false, ErrNotDMTP},
		"banner with 554":        {inTLS("554 dx.example DMTPv1\r\n"), false, ErrNotDMTP},
		"the token as the host":  {inTLS("220 DMTPv1\r\n"), false, ErrNotDMTP},
		"the token in lower":     {inTLS("220 dx dmtpv1\r\n"), false, ErrNotDMTP},
		"banner of two lines":    {inTLS("220-dx DMTPv1\r\n220 dx DMTPv1\r\n"), false, ErrNotDMTP},
		"silence instead of TLS": {func(l *link) { l.deaf() }, false, nil},
		"clear text on 26":       {func(l *link) { l.say("220 dx DMTPv1\r\n"); l.deaf() }, false, nil},
		"silence after TLS":      {func(l *link) { l.tls(); l.deaf() }, false, nil},
		"plain SMTP on 25":       {func(l *link) { l.say("220 mx.example ESMTP\r\n"); l.deaf() }, true, ErrNotDMTP},
		"STARTTLS refused":       {func(l *link) { l.say("220 mx ESMTP DMTPv1\r\n"); l.hear(); l.say("554 NO\r\n"); l.deaf() }, true, nil},
		"injected before TLS": {func(l *link) {
			l.say("220 mx ESMTP DMTPv1\r\n")
			l.hear()
			l.say("220 READY\r\n250 OK DMTPv1\r\n270 OK [AAAA]\r\n")
			l.tls()
			l.deaf()
		}, true, ErrInjected},
		"injected a little later": {func(l *link) {
			l.say("220 mx ESMTP DMTPv1\r\n")
			l.hear()
			l.say("220 READY\r\n")
			time.Sleep(50 * time.Millisecond)
			l.say("250 OK DMTPv1\r\n")
			l.tls()
			l.deaf()
		}, true, nil},
		"another mode":        {dual("250 OK SMTP\r\n"), true, ErrNotDMTP},
		"no mode":             {dual("250 OK\r\n"), true, ErrNotDMTP},
		"silence for a mode":  {dual(""), true, nil},
		"failure as the mode": {dual("454 OK DMTPv1\r\n"), true, ErrNotDMTP},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, tt.script)
			c := client(t, func(o *Options) {
				o.Port, o.DualPort = p.port, p.port
				if tt.dual {
					o.Port = closedPort(t)
				}
				o.Timeouts.Command, o.Timeouts.Handshake = 400*time.Millisecond, 400*time.Millisecond
			})
			conn, err := c.Connect(t.Context(), p.target(tt.dual))
			if err == nil {
				conn.Close()
				t.Fatal("connected")
			}
			if ClassOf(err) != Network || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v: %v", ClassOf(err), err)
			}
		})
	}
}

func inTLS(banner string) func(l *link) {
	return func(l *link) {
		if l.tls() {
			l.say(banner)
			l.deaf()
		}
	}
}

func dual(mode string) func(l *link) {
	return func(l *link) {
		l.say("220 mx.example ESMTP DMTPv1\r\n")
		l.hear()
		l.say("220-SENDING CERTIFICATE FOR DOMAIN <dx.example>\r\n220 READY\r\n")
		if l.tls() {
			l.say(mode)
			l.deaf()
		}
	}
}

func TestConnectOrder(t *testing.T) {
	good := start(t, func(l *link) {
		if l.tls() {
			l.say(banner)
			l.replies(nil)
		}
	})
	shared := start(t, func(l *link) { dual("250 OK dmtpv1\r\n")(l) })
	t.Run("a host whose certificate is refused, then another", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port = good.port })
		var asked []string
		target := Target{Domain: "b.example", Hosts: []Host{{Name: "one.example"}, {Name: "two.example"}}, Verify: func(_ context.Context, host string, s tls.ConnectionState) error {
			asked = append(asked, host)
			if len(s.PeerCertificates) != 1 {
				t.Error("no certificate to judge")
			}
			if host == "one.example" {
				return errJudge
			}
			return nil
		}}
		conn, err := c.Connect(t.Context(), target)
		if err != nil || conn.Host() != "two.example" || fmt.Sprint(asked) != "[one.example two.example]" {
			t.Fatalf("%v, asked %v", err, asked)
		}
		conn.Close()
	})
	t.Run("all refused", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port = good.port })
		target := good.target(false)
		target.Verify = refuse
		if _, err := c.Connect(t.Context(), target); ClassOf(err) != Trust || !errors.Is(err, ErrCertificate) || !errors.Is(err, errJudge) {
			t.Errorf("%v: %v", ClassOf(err), err)
		}
	})
	t.Run("no judge", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port = good.port })
		target := good.target(false)
		target.Verify = nil
		if _, err := c.Connect(t.Context(), target); ClassOf(err) != Trust {
			t.Error(err)
		}
	})
	t.Run("the shared port only by MX", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port, o.DualPort = closedPort(t), shared.port })
		if _, err := c.Connect(t.Context(), shared.target(false)); ClassOf(err) != Network {
			t.Error(err)
		}
		conn, err := c.Connect(t.Context(), shared.target(true))
		if err != nil {
			t.Fatal(err)
		}
		conn.drop()
		if got := shared.got.all(); len(got) != 1 || got[0] != "STARTTLS <dx.example> MODE=DMTPv1\r\n" {
			t.Errorf("said in clear: %q", got)
		}
	})
	t.Run("the auxiliary port when nothing listens on 25", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port, o.DualPort, o.AuxPort = closedPort(t), closedPort(t), shared.port })
		conn, err := c.Connect(t.Context(), shared.target(true))
		if err != nil {
			t.Fatal(err)
		}
		conn.drop()
		smtp := start(t, func(l *link) { l.say("220 mx ESMTP\r\n"); l.deaf() })
		c = client(t, func(o *Options) { o.Port, o.DualPort, o.AuxPort = closedPort(t), smtp.port, shared.port })
		if conn, err := c.Connect(t.Context(), shared.target(true)); err == nil {
			conn.drop()
			t.Error("and also when 25 answers without DMTP")
		}
	})
	t.Run("a forbidden address", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port, o.Permit = good.port, nil })
		if _, err := c.Connect(t.Context(), good.target(false)); !errors.Is(err, ErrForbidden) {
			t.Error(err)
		}
	})
	t.Run("a host that failed is passed over", func(t *testing.T) {
		tries := map[string]int{}
		c := client(t, func(o *Options) {
			o.Port, o.NegativeTTL = good.port, time.Hour
			o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
				if tries[host]++; host == "dead.example" {
					return nil, errors.New("no address")
				}
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
		})
		both := Target{Domain: "b.example", Hosts: []Host{{Name: "dead.example"}, {Name: "dx.example"}}, Verify: accept}
		for range 3 {
			conn, err := c.Connect(t.Context(), both)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		dead := Target{Domain: "b.example", Hosts: both.Hosts[:1], Verify: accept}
		if _, err := c.Connect(t.Context(), dead); !errors.Is(err, ErrRecent) {
			t.Error(err)
		}
		if tries["dead.example"] != 1 || tries["dx.example"] != 3 {
			t.Errorf("looked up %v", tries)
		}
		c.Retry(time.Now().Add(-time.Hour)) // it failed after that
		c.Connect(t.Context(), dead)
		c.Retry(time.Now())
		c.Connect(t.Context(), dead)
		if tries["dead.example"] != 2 {
			t.Errorf("an administrator asked once, tried %d times", tries["dead.example"]-1)
		}
	})
}

func TestPublicOnly(t *testing.T) {
	for addr, public := range map[string]bool{
		"192.0.2.1": true, "8.8.8.8": true, "2001:db8::1": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.1.1": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "::ffff:10.0.0.1": false, "64:ff9b::a00:1": false,
	} {
		if err := PublicOnly(netip.MustParseAddr(addr)); (err == nil) != public {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestCancel(t *testing.T) {
	p := start(t, inTLS(banner))
	conn := p.connect(t, func(o *Options) { o.Timeouts.Quit = 10 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := conn.Signet(ctx, "b.example")
	if !errors.Is(err, context.DeadlineExceeded) || conn.Usable() || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestErrorText(t *testing.T) {
	e := &Error{Class: Permanent, Host: "dx.example", Step: "RCPT", Code: 551, Text: "\x1b[2Jsecret\r\n"}
	if got, want := e.Error(), "dmtpclient: dx.example: RCPT: 551, not a domain of this server"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, verb := range []string{"%v", "%s", "%q", "%x", "%d", "%#v"} {
		if got := fmt.Sprintf(verb, e.Text); got != `\x1b[2Jsecret\r\n` {
			t.Errorf("%s shows %q", verb, got)
		}
	}
	if got := Words(strings.Repeat("a", 1000)).String(); len(got) != 200 {
		t.Errorf("shows %d characters", len(got))
	}
}

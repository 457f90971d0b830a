package appliance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"dimegate/appliance/config"
	"dimegate/internal/testpeer"
)

const plainMail = "Subject: x\r\nX-DIME: yes; author=eve\r\n\r\nhello\r\n"

// port25 is a gateway with a strict domain beside its first.
func port25(t *testing.T) *site {
	t.Helper()
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		strict := c.Organizations[0]
		strict.Domains, strict.Policy = []string{"strict.example"}, "strict"
		c.Organizations = append(c.Organizations, strict)
	})
	s.inner.only("bob@alpha.example", "bob@strict.example", "postmaster@alpha.example")
	s.run(Options{})
	return s
}

func (c *talk) envelope() *talk {
	c.t.Helper()
	c.send("MAIL FROM:<carol@example.net>\r\nRCPT TO:<bob@alpha.example>\r\n")
	c.want("250", "250")
	return c
}

// Both protocols and both forms of STARTTLS on one port.
func TestPort25(t *testing.T) {
	s := port25(t)
	// pass sends a message and sees it arrive.
	pass := func(c *talk, with string) {
		c.t.Helper()
		before := len(s.inner.messages())
		c.envelope()
		c.cmd("DATA", "354")
		c.send(plainMail + ".\r\n")
		c.want("250 2.0.0")
		got := s.inner.messages()[before:]
		if len(got) != 1 || !strings.HasPrefix(got[0], "X-DIME: no\r\nX-DIME-Loop: ") || !strings.Contains(got[0], "\r\nAuthentication-Results: dx.alpha.example;\r\n\tspf=none smtp.mailfrom=carol@example.net;\r\n\tdkim=none;\r\n\tdmarc=permerror\r\nReceived: from ") || !strings.Contains(got[0], " with "+with+" id ") || strings.Contains(got[0], "eve") {
			c.t.Errorf("arrived: %q", got)
		}
	}
	for name, f := range map[string]func(t *testing.T, c *talk){
		"SMTP in clear": func(t *testing.T, c *talk) {
			if r := c.cmd("EHLO out.example.net", "250"); !strings.Contains(r, "STARTTLS") {
				t.Errorf("offers %q", r)
			}
			pass(c, "ESMTP")
		},
		"SMTP, STARTTLS": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.cmd("STARTTLS", "220")
			c.secure(&tls.Config{})
			if r := c.cmd("EHLO out.example.net", "250"); strings.Contains(r, "STARTTLS") {
				t.Errorf("offers %q", r)
			}
			pass(c, "ESMTPS")
			c.cmd("STARTTLS <dx.alpha.example> MODE=DMTPv1", "501") // inside SMTP's TLS
		},
		"STARTTLS to SMTP": func(t *testing.T, c *talk) {
			c.cmd("STARTTLS <dx.alpha.example> MODE=SMTP", "220")
			c.secure(&tls.Config{})
			c.want("250 OK SMTP")
			if r := c.cmd("EHLO out.example.net", "250"); strings.Contains(r, "STARTTLS") {
				t.Errorf("offers %q", r)
			}
			pass(c, "ESMTPS")
		},
		"STARTTLS to DMTP": func(t *testing.T, c *talk) {
			c.cmd("STARTTLS <dx.alpha.example> MODE=DMTPv1", "220-SENDING")
			c.secure(&tls.Config{})
			c.want("250 OK DMTPv1")
			c.cmd("SGNT <bob@alpha.example>", "280 OK [")
		},
		"DMTP after SMTP has begun": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.cmd("NOOP", "250")
			c.cmd("STARTTLS <dx.alpha.example> MODE=DMTPv1", "220-SENDING")
			c.secure(&tls.Config{})
			c.want("250 OK DMTPv1")
			c.cmd("SGNT <alpha.example>", "270 OK [")
		},
		"DMTP in a transaction": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.envelope()
			c.cmd("STARTTLS <dx.alpha.example> MODE=DMTPv1", "503")
			c.cmd("RSET", "250")
			c.cmd("STARTTLS <dx.alpha.example>", "220-SENDING")
		},
		"strict domain": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.cmd("MAIL FROM:<>", "250")
			c.cmd("RCPT TO:<bob@strict.example>", "550 5.7.10")
			c.cmd("RCPT TO:<bob@alpha.example>", "250")
			c.cmd("RCPT TO:<carol@alpha.example>", "550 5.1.1")
			c.cmd("RCPT TO:<carol@bravo.example>", "550 5.7.1")
			c.cmd("RCPT TO:<postmaster>", "250")
		},
		"body with DATA": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.envelope()
			c.send("DATA\r\nMAIL FROM:<eve@example.net>\r\n.\r\n")
			c.want("503 5.5.0")
			if r := c.reply(); r != "" {
				t.Errorf("goes on: %q", r)
			}
		},
		"body with a refused DATA": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.send("DATA\r\nMAIL FROM:<eve@example.net>\r\n.\r\n")
			c.want("503 5.5.0")
			if r := c.reply(); r != "" {
				t.Errorf("goes on: %q", r)
			}
		},
		"commands with STARTTLS": func(t *testing.T, c *talk) {
			c.cmd("EHLO out.example.net", "250")
			c.send("STARTTLS\r\nMAIL FROM:<eve@example.net>\r\n")
			c.want("503 5.5.0")
			if r := c.reply(); r != "" {
				t.Errorf("goes on: %q", r)
			}
		},
		"pipelined": func(t *testing.T, c *talk) {
			c.send("EHLO out.example.net\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@alpha.example>\r\nRSET\r\nQUIT\r\n")
			c.want("250", "250", "550 5.1.1", "250", "221")
		},
		"HELO": func(t *testing.T, c *talk) {
			c.cmd("HELO out.example.net", "250")
			c.cmd("QUIT", "221")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := call(t, s.dual(), "")
			c.want("220 dx.alpha.example ESMTP DMTPv1 ")
			f(t, c)
		})
	}
}

// When the gateway stops, a message that comes in or that the inner server is looking at gets its verdict, and who waits for a
// command is sent away.
func TestPort25Stops(t *testing.T) {
	s := port25(t)
	looking, looked := make(chan struct{}), make(chan struct{})
	look := sync.OnceFunc(func() { close(looked) })
	defer look()
	var once sync.Once
	s.inner.hold = func() { once.Do(func() { close(looking); <-looked }) }
	begin := func() *talk {
		c := call(t, s.dual(), "")
		c.want("220")
		c.cmd("EHLO out.example.net", "250")
		return c
	}
	idle, coming, there := begin(), begin().envelope(), begin().envelope()
	coming.cmd("DATA", "354")
	coming.send("Subject: slow\r\n\r\n")
	there.cmd("DATA", "354")
	there.send(plainMail + ".\r\n")
	<-looking
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.stop() }()
	idle.want("421 4.3.2")
	look()
	there.want("250 2.0.0", "421 4.3.2")
	coming.send("hello\r\n.\r\n")
	coming.want("250 2.0.0", "421 4.3.2")
	<-stopped
	if n := len(s.inner.messages()); n != 2 {
		t.Errorf("%d messages arrived", n)
	}
}

// swaks and openssl as clients.
func TestPort25Tools(t *testing.T) {
	testpeer.Require(t, "swaks")
	s := port25(t)
	run := func(want string, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdin = strings.NewReader("QUIT\r\n")
		out, err := cmd.CombinedOutput()
		if want == "" && err != nil || want != "" && !strings.Contains(string(out), want) {
			t.Errorf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	common := []string{"--server", s.dual(), "--from", "carol@example.net", "--to", "bob@alpha.example"}
	run("", "swaks", common...)
	run("", "swaks", append(common, "--tls")...)
	run("", "swaks", append(common, "--pipeline", "--tls")...)
	run("550 5.1.1", "swaks", append(common, "--to", "nobody@alpha.example")...)
	run("550 5.7.10", "swaks", append(common, "--to", "bob@strict.example")...)
	run("550 5.7.1 ", "swaks", append(common, "--to", "bob@bravo.example")...)
	run("Verification error: self-signed certificate", "openssl", "s_client", "-starttls", "smtp", "-connect", s.dual(), "-crlf")
	run("Cipher is ECDHE-RSA-AES256-GCM-SHA384", "openssl", "s_client", "-starttls", "smtp", "-connect", s.dual(), "-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384")
	if n := len(s.inner.messages()); n != 3 {
		t.Errorf("%d messages arrived", n)
	}
}

// signedMail is a message of example.net that is too large to be held in memory, and the line of the zone for its key.
func signedMail(t *testing.T) (message []byte, record string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var b bytes.Buffer
	text := "From: carol@example.net\r\nTo: bob@alpha.example\r\n" + plainMail[:len(plainMail)-len("hello\r\n")] + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 10_000) + "hello\r\n"
	check(t, dkim.Sign(&b, strings.NewReader(text), &dkim.SignOptions{Domain: "example.net", Selector: "s", Signer: key, HeaderKeys: []string{"From", "To", "Subject"}}))
	return b.Bytes(), `s._domainkey TXT "v=DKIM1; k=ed25519; p=` + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) + `"`
}

// Postfix in the world, and Postfix as the inner server, which learns by XCLIENT whom it came from. SPF, DKIM and DMARC hold, and
// are noted.
func TestPort25Postfix(t *testing.T) {
	testpeer.Require(t, "postfix", "dovecot")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := testpeer.New(t)
	hosts := make([]string, 2)
	for i := range hosts {
		var err error
		hosts[i], err = b.Address()
		check(t, err)
	}
	store, err := b.Dovecot(ctx, "store", hosts[0])
	check(t, err)
	inner, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: hosts[0] + ":25", Hostname: "mail.alpha.example", Domain: "alpha.example",
		Users: "^(bob|dora)@", Transport: []string{"alpha.example lmtp:inet:" + store.LMTP}, Main: []string{"smtpd_authorized_xclient_hosts = 127.0.0.1"}})
	check(t, err)
	w := newWorld(t, "alpha.example", "example.net")
	s := w.sites[0]
	message, key := signedMail(t)
	w.sites[1].publish(`@ TXT "v=spf1 ip4:127.0.0.0/8 -all"`, `_dmarc TXT "v=DMARC1; p=reject"`, key)
	s.make(nil, func(c *config.Config) { c.Organizations[0].Inner = inner.Addr })
	s.run(Options{})
	ip, port, _ := strings.Cut(s.dual(), ":")
	out, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "out", Listen: hosts[1] + ":25", Hostname: "out.example.net", Domain: "example.net",
		Relayhost: "[" + ip + "]:" + port, Main: []string{"smtp_tls_security_level = encrypt", "smtp_tls_loglevel = 1", "smtp_bind_address = " + hosts[1]}})
	check(t, err)
	c, err := testpeer.DialSMTP(ctx, out.Addr)
	check(t, err)
	check(t, c.Send("carol@example.net", []string{"bob@alpha.example", "nobody@alpha.example", "dora@alpha.example"}, message))
	check(t, c.Close())
	for _, who := range []string{"bob@alpha.example", "dora@alpha.example"} {
		check(t, store.Wait(ctx, who, 1))
		got, err := store.Inbox(ctx, who)
		check(t, err)
		if text := string(got[0]); !strings.HasSuffix(text, " boy.\r\nhello\r\n") || !strings.Contains(text, "\r\nAuthentication-Results: dx.alpha.example;\r\n\tspf=pass smtp.mailfrom=carol@example.net;\r\n\tdkim=pass header.d=example.net;\r\n\tdmarc=pass header.from=example.net\r\n") || !strings.Contains(text, "X-DIME: no\r\n") || strings.Contains(text, "eve") ||
			!strings.Contains(text, "by dx.alpha.example with ESMTPS id ") || !strings.Contains(text, "Received: from out.example.net (unknown ["+hosts[1]+"])\r\n\tby mail.alpha.example (Postfix)") {
			t.Errorf("%s: arrived as\n%.2000s", who, text)
		}
	}
	log := ""
	check(t, testpeer.Until(ctx, func() bool {
		b, _ := os.ReadFile(out.LogFile())
		log = string(b)
		return strings.Contains(log, "to=<nobody@alpha.example>")
	}))
	if !strings.Contains(log, "dsn=5.1.1, status=bounced") || !strings.Contains(log, "TLS connection established to 127.0.0.1") || strings.Count(log, "status=sent (250 2.0.0 Ok: queued as ") != 2 {
		t.Errorf("the sender's log:\n%s", log)
	}
}

// Many connections of one network at one time are nothing to refuse SMTP for; DMTP is refused when it asks for TLS.
func TestPort25ManyConnections(t *testing.T) {
	s := port25(t)
	var all []*talk
	for range 15 { // of twenty; ten may be DMTP
		c := call(t, s.dual(), "")
		c.want("220")
		all = append(all, c)
	}
	all[14].cmd("STARTTLS <dx.alpha.example>", "421")
	for _, c := range all[:14] {
		c.cmd("EHLO out.example.net", "250")
		c.cmd("QUIT", "221")
	}
	c := call(t, s.dual(), "")
	c.want("220")
	c.cmd("STARTTLS <dx.alpha.example>", "220-SENDING")
}

// An address has the name that leads back to it.
func TestNameOfAddress(t *testing.T) {
	w := newWorld(t, "alpha.example", "2.0.192.in-addr.arpa")
	s := w.sites[0]
	s.make(nil, nil)
	s.records = append(s.records, "mail A 192.0.2.7", "liar A 192.0.2.9")
	s.publish()
	check(t, w.tree.Set("2.0.192.in-addr.arpa", "7 PTR other.alpha.example.", "7 PTR Mail.alpha.example.", "8 PTR liar.alpha.example."))
	s.run(Options{})
	for addr, want := range map[string]string{"192.0.2.7": "mail.alpha.example", "192.0.2.8": "", "192.0.2.10": "", "2001:db8::7": ""} {
		if name, later := s.gateway.nameOf(t.Context(), netip.MustParseAddr(addr)); name != want || later {
			t.Errorf("%s: %q, %v", addr, name, later)
		}
	}
}

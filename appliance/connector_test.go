package appliance

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/connector"
	"dimegate/internal/testpeer"
)

// What "gateway connector print" prints is put into a real server, and mail goes both ways through it and two gateways, over TLS
// to the gateway. Strangers are greylisted where the server can, and mail from the gateway is not.
func TestConnectorsInRealServers(t *testing.T) {
	for name, start := range map[string]func(ctx context.Context, t *testing.T, b *testpeer.Bench, host, store, text, certificate string){
		"postfix": startPostfixWith, "exim": startEximWith, "opensmtpd": startOpenSMTPDWith,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testpeer.Require(t, name, "dovecot")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := testpeer.New(t)
			host, err := b.Address()
			check(t, err)
			store, err := b.Dovecot(ctx, "store", host)
			check(t, err)
			w := newWorld(t, "alpha.example", "bravo.example")
			alpha, bravo := w.sites[0], w.sites[1]
			alpha.make(nil, func(c *config.Config) {
				c.Organizations[0].Inner = host + ":25"
				c.Submission.RequireTLS = true
			})
			bravo.make(nil, nil)
			bravo.inner.only("bob@bravo.example")
			alpha.run(Options{})
			bravo.run(Options{})

			c := *alpha.config
			submission, _ := alpha.gateway.Addresses()
			c.Submission.Listen = []string{submission}
			k, err := connector.For(&c, "", "")
			check(t, err)
			text, err := k.Print(name)
			check(t, err)
			start(ctx, t, b, host, store.LMTP, text, c.Submission.CertificateFile)

			mail := "From: <alice@alpha.example>\r\nSubject: " + name + "\r\nMessage-ID: <1@alpha.example>\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n\r\n" +
				strings.Repeat("x", 2000) + "\r\n"
			send(ctx, t, host+":25", "alice@alpha.example", "bob@bravo.example", mail)
			until(t, func() bool { return len(bravo.inner.messages()) == 1 })
			if got := bravo.inner.messages()[0]; !strings.HasPrefix(got, "X-DIME: yes; author=alice@alpha.example; origin=alpha.example\r\n") || !strings.HasSuffix(got, mail) ||
				!strings.Contains(got, "with ESMTPS id ") {
				t.Errorf("arrived at bravo:\n%.1500s", got)
			}
			// Both ways, and strangers for whom there is nobody.
			submission, _ = bravo.gateway.Addresses()
			send(ctx, t, submission, "bob@bravo.example", "alice@alpha.example", mail)
			send(ctx, t, submission, "bob@bravo.example", "nobody@alpha.example", mail)
			check(t, store.Wait(ctx, "alice@alpha.example", 1))
			inbox, err := store.Inbox(ctx, "alice@alpha.example")
			check(t, err)
			if got := string(inbox[0]); !strings.Contains(got, "\nX-DIME: yes; author=bob@bravo.example") || !strings.HasSuffix(got, mail) {
				t.Errorf("arrived at alpha:\n%.1500s", got)
			}
			until(t, func() bool { return len(bravo.inner.messages()) == 2 })
			if got := bravo.inner.messages()[1]; !strings.Contains(got, "Final-Recipient: rfc822; nobody@alpha.example\r\n") {
				t.Errorf("the notice to bob:\n%.1500s", got)
			}
			if store.Count("nobody@alpha.example") != 0 {
				t.Error("nobody got mail")
			}
		})
	}
}

func send(ctx context.Context, t *testing.T, server, from, to, mail string) {
	t.Helper()
	c, err := testpeer.DialSMTP(ctx, server)
	check(t, err)
	check(t, c.Send(from, []string{to}, []byte(mail)))
	check(t, c.Close())
}

// startPostfixWith runs a Postfix whose own rule for recipients refuses everyone for now who is not let in before.
func startPostfixWith(ctx context.Context, t *testing.T, b *testpeer.Bench, host, store, text, _ string) {
	t.Helper()
	advice := regexp.MustCompile(`(?m)^#(smtpd_recipient_restrictions = .*), and here what you have$`).FindStringSubmatch(text)
	if advice == nil {
		t.Fatalf("no advice about greylisting in\n%s", text)
	}
	_, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: host + ":25", Hostname: "mail.alpha.example", Domain: "alpha.example", Users: "^alice@",
		Transport: []string{"alpha.example lmtp:inet:" + store}, Main: []string{text, advice[1] + ", reject_unlisted_recipient, check_client_access inline:{ { 127.0.0.1 = permit } }, defer"}})
	check(t, err)
}

// pieces cuts a text at the lines that say where each piece belongs.
func pieces(t *testing.T, text string, n int) []string {
	t.Helper()
	all := regexp.MustCompile(`(?m)^# ---- .* ----$`).Split(text, -1)[1:]
	if len(all) != n {
		t.Fatalf("%d pieces, want %d:\n%s", len(all), n, text)
	}
	return all
}

func startEximWith(ctx context.Context, t *testing.T, b *testpeer.Bench, host, store, text, certificate string) {
	t.Helper()
	pinned := filepath.Join(b.Dir, "dimegate.crt")
	octets, err := os.ReadFile(certificate)
	check(t, err)
	check(t, os.WriteFile(pinned, octets, 0o644))
	p := pieces(t, strings.ReplaceAll(text, "/etc/exim4/dimegate.crt", pinned), 4)
	_, err = b.Exim(ctx, testpeer.EximConfig{Name: "inner", Listen: host + ":25", Hostname: "mail.alpha.example", Domain: "alpha.example", LMTP: store, Users: "^alice@",
		Main: p[0], Routers: p[1], Transports: p[2], ACL: p[3]})
	check(t, err)
}

func startOpenSMTPDWith(ctx context.Context, t *testing.T, b *testpeer.Bench, host, store, text, _ string) {
	t.Helper()
	p := pieces(t, text, 2)
	_, err := b.OpenSMTPD(ctx, testpeer.OpenSMTPDConfig{Name: "inner", Listen: host + ":25", Hostname: "mail.alpha.example", LMTP: store, Users: []string{"alice@alpha.example"}, Before: p[0], After: p[1]})
	check(t, err)
}

package appliance

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/internal/testpeer"
)

// A mail server that sends back what is handed over to it: every message ends at its second time here, and what is told about
// it as well.
func TestLoopOfTheMailServer(t *testing.T) {
	testpeer.Require(t, "postfix", "dovecot")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b := testpeer.New(t)
	host, err := b.Address()
	check(t, err)
	store, err := b.Dovecot(ctx, "store", host)
	check(t, err)
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Organizations[0].Inner = host + ":25"
		c.Queue.Schedule = []time.Duration{time.Second}
	})
	s.run(Options{})
	smartHost, _ := s.gateway.Addresses()
	ip, port, _ := strings.Cut(smartHost, ":")
	postfix, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: host + ":25", Hostname: "mail.alpha.example", Domain: "alpha.example",
		Users: "^(alice|bob|carol)@", Relayhost: "[" + ip + "]:" + port, Transport: []string{"alice@alpha.example lmtp:inet:" + store.LMTP}})
	check(t, err)

	mail := "Subject: round\r\nMessage-ID: <1@alpha.example>\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n\r\nhello\r\n"
	messages := 0 // that Postfix has taken
	send := func(server, from, to string, takes int) {
		t.Helper()
		c, err := testpeer.DialSMTP(ctx, server)
		check(t, err)
		check(t, c.Send(from, []string{to}, []byte(mail)))
		check(t, c.Close())
		messages += takes
		check(t, testpeer.Until(ctx, func() bool { return taken(t, postfix) >= messages && idle(ctx, s, postfix) }))
		if n := taken(t, postfix); n != messages {
			t.Fatalf("Postfix has taken %d messages, want %d", n, messages)
		}
	}
	send(postfix.Addr, "alice@alpha.example", "bob@alpha.example", 3) // alice's, the one that was handed over, the notice
	send(postfix.Addr, "bob@alpha.example", "carol@alpha.example", 3) // of which the notice comes back, too
	send(s.dual(), "", "bob@alpha.example", 1)                        // from outside
	check(t, store.Wait(ctx, "alice@alpha.example", 1))
	inbox, err := store.Inbox(ctx, "alice@alpha.example")
	check(t, err)
	if len(inbox) != 1 || !strings.Contains(string(inbox[0]), "Status: 5.4.6\r\n") || !strings.Contains(string(inbox[0]), "The reason: a loop: ") {
		t.Errorf("alice got %q", inbox)
	}
}

// taken is how many messages a Postfix has taken by SMTP.
func taken(t *testing.T, p *testpeer.Postfix) int {
	t.Helper()
	log, err := os.ReadFile(p.LogFile())
	check(t, err)
	return strings.Count(string(log), ": message-id=<")
}

// idle says whether nothing waits, at the gateway or in Postfix.
func idle(ctx context.Context, s *site, p *testpeer.Postfix) bool {
	waiting, err := p.Queue(ctx)
	if err != nil || waiting != "" {
		return false
	}
	rows, err := s.gateway.tenants[0].queue.List(ctx, "", "", 10)
	return err == nil && len(rows) == 0
}

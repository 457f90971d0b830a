package appliance

import (
	"context"
	"errors"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/internal/testpeer"
)

// Dovecot behind the gateway by LMTP, which answers for each recipient: each has a message of his own, plain and by DMTP, and
// who is not there is refused by Dovecot's word.
func TestLMTPToDovecot(t *testing.T) {
	testpeer.Require(t, "dovecot")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b := testpeer.New(t)
	host, err := b.Address()
	check(t, err)
	store, err := b.Dovecot(ctx, "store", host, "bob@alpha.example", "dora@alpha.example")
	check(t, err)
	w := newWorld(t, "alpha.example", "bravo.example")
	alpha, bravo := w.sites[0], w.sites[1]
	alpha.make(nil, func(c *config.Config) {
		c.Organizations[0].Inner, c.Handoff.LMTP = store.LMTP, true
		c.Inbound.AuthResults = false
	})
	bravo.make(nil, nil)
	bravo.inner.only("carol@bravo.example")
	alpha.run(Options{})
	bravo.run(Options{})

	// Several recipients: the second and the third each in a transaction of their own.
	c, err := testpeer.DialSMTP(ctx, alpha.dual())
	check(t, err)
	command := func(want int, line, status string) {
		t.Helper()
		text, err := c.Command(want, line)
		if reply, ok := errors.AsType[*textproto.Error](err); ok {
			t.Fatalf("%s: %d %s, want %d", line, reply.Code, reply.Msg, want)
		}
		check(t, err)
		if !strings.HasPrefix(text, status) {
			t.Errorf("%s: %s, want %s", line, text, status)
		}
	}
	command(250, "MAIL FROM:<eve@example.net>", "2.0.0")
	command(550, "RCPT TO:<nobody@alpha.example>", "5.1.1")
	command(250, "RCPT TO:<bob@alpha.example>", "2.0.0")
	command(452, "RCPT TO:<dora@alpha.example>", "4.5.3")
	command(250, "RSET", "2.0.0")
	check(t, c.Send("eve@example.net", []string{"bob@alpha.example"}, []byte(plainMail)))
	check(t, c.Send("eve@example.net", []string{"dora@alpha.example"}, []byte(plainMail)))
	check(t, c.Close())

	submission, _ := bravo.gateway.Addresses()
	c, err = testpeer.DialSMTP(ctx, submission)
	check(t, err)
	check(t, c.Send("carol@bravo.example", []string{"bob@alpha.example", "dora@alpha.example"}, []byte("From: <carol@bravo.example>\r\n"+plainMail)))
	check(t, c.Close())
	for _, who := range []string{"bob@alpha.example", "dora@alpha.example"} {
		check(t, store.Wait(ctx, who, 2))
		inbox, err := store.Inbox(ctx, who)
		check(t, err)
		for i, mark := range []string{"X-DIME: no\r\n", "X-DIME: yes; author=carol@bravo.example; origin=bravo.example\r\n"} {
			if got := string(inbox[i]); !strings.Contains(got, mark) || !strings.HasSuffix(got, "\r\n\r\nhello\r\n") {
				t.Errorf("%s has\n%s", who, got)
			}
		}
	}
}

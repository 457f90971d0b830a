package appliance

import (
	"strings"
	"testing"

	"dimegate/appliance/config"
)

// Mail of a stranger that a user forwards on: refused, or where that is on, authored by the postmaster; its failure is told to the
// stranger, as sealed as any mail.
func TestForwarding(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example", "carol.example")
	alpha, bravo, carol := w.sites[0], w.sites[1], w.sites[2]
	alpha.make(nil, func(c *config.Config) { c.Submission.Forwarding = true })
	bravo.make(nil, nil)
	carol.make(nil, nil)
	bravo.inner.only("bob@bravo.example")
	carol.inner.only("carol@carol.example")
	for _, s := range w.sites {
		s.run(Options{})
	}
	forward := func(to string) {
		addr, _ := alpha.gateway.Addresses()
		c := call(t, addr, "")
		c.want("220")
		c.cmd("EHLO inner.alpha.example", "250")
		c.send("MAIL FROM:<carol@carol.example> BODY=8BITMIME\r\nRCPT TO:<" + to + ">\r\n")
		c.want("250", "250")
		c.cmd("DATA", "354")
		c.send("From: carol@carol.example\r\nSubject: x\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@carol.example>\r\n\r\nhello\r\n.\r\n")
		c.want("250")
	}
	forward("bob@bravo.example")
	until(t, func() bool { return len(bravo.inner.messages()) == 1 })
	if got := bravo.inner.messages()[0]; !strings.Contains(got, "X-DIME: yes; author=postmaster@alpha.example; origin=alpha.example\r\n") || !strings.HasSuffix(got, "From: carol@carol.example\r\nSubject: x\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@carol.example>\r\n\r\nhello\r\n") {
		t.Errorf("arrived: %q", got)
	}
	forward("nobody@bravo.example")
	until(t, func() bool { return len(carol.inner.messages()) == 1 })
	got := carol.inner.messages()[0]
	for _, want := range []string{"X-DIME: yes; author=postmaster@alpha.example; origin=alpha.example\r\n", "To: <carol@carol.example>\r\n", "Final-Recipient: rfc822;nobody@bravo.example\r\n", "Status: 5."} {
		if !strings.Contains(strings.ReplaceAll(got, "rfc822; ", "rfc822;"), want) {
			t.Errorf("the notice lacks %q:\n%s", want, got)
		}
	}
	addr, _ := bravo.gateway.Addresses() // where it is off
	c := call(t, addr, "")
	c.want("220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<carol@carol.example>", "550 5.7.1")
}

package appliance

import (
	"fmt"
	"testing"

	"dimegate/appliance/config"
)

// Keys of [submission] that nothing else would miss.
func TestSubmissionKeys(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Submission.Mend, c.Submission.MaxPerClient = []string{"127.0.7.7"}, 1
		c.Submission.MessagesHourly, c.Submission.RecipientsHourly = 2, 3
	})
	s.run(Options{})
	addr, _ := s.gateway.Addresses()
	from := func(client string) *talk {
		c := call(t, addr, client)
		c.want("220")
		c.cmd("EHLO x", "250")
		return c
	}
	send := func(c *talk, path, end, want string) {
		t.Helper()
		c.cmd("MAIL FROM:<"+path+">", "250")
		c.cmd("RCPT TO:<bob@bravo.example>", "250")
		c.cmd("DATA", "354")
		c.send("Subject: x\r\n\r\nhello" + end + "there\r\n.\r\n")
		c.want(want)
	}
	inner, other := from("127.0.7.7"), from("127.0.7.8")
	call(t, addr, "127.0.7.7").want("421 4.7.0") // a second session
	send(other, "alice@alpha.example", "\n", "554 5.6.0")
	send(inner, "alice@alpha.example", "\n", "250")
	send(inner, "alice@alpha.example", "\r\n", "250")
	inner.cmd("MAIL FROM:<alice@alpha.example>", "450 4.7.1")
	inner.cmd("MAIL FROM:<carol@alpha.example>", "250")
	for rcpt, want := range []string{"250", "250", "250", "450 4.7.1"} {
		inner.cmd(fmt.Sprintf("RCPT TO:<r%d@bravo.example>", rcpt), want)
	}
}

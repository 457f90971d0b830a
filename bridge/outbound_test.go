package bridge

import (
	"errors"
	"fmt"
	"testing"

	"dimegate/bridge/queue"
	"dimegate/bridge/translate"
	"dimegate/dmtp/message"
)

// Who authors mail with the null reverse-path: a role of a domain of ours, whatever From says.
func TestAuthorOfNullSender(t *testing.T) {
	o := NewOutbound(OutboundOptions{Domains: []string{"alpha.example", "second.example"}})
	for _, c := range []struct{ name, header, want string }{
		{"of a domain of ours", "From: MAILER-DAEMON@second.example\r\n", "postmaster@second.example"},
		{"in capitals", "From: <x@Second.Example>\r\n", "postmaster@second.example"},
		{"of another's", "From: x@bravo.example\r\n", "postmaster@alpha.example"},
		{"none", "Subject: x\r\n", "postmaster@alpha.example"},
		{"unreadable", "From: x@\r\n", "postmaster@alpha.example"},
		{"a group with nobody in it", "From: undisclosed-recipients:;\r\n", "postmaster@alpha.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := o.author("", translate.Message{Header: []byte(c.header)}); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// A message that cannot be authored ends with a notice to its sender, and one that cannot be now waits: neither is a fault
// that keeps it until an administrator looks.
func TestNotAuthored(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		class  queue.Class
		status string
	}{
		{"header not fit", &message.Error{Class: message.BadHeaders}, queue.Permanent, "5.6.0"},
		{"header over the limit", &message.Error{Class: message.TooLarge}, queue.Permanent, "5.3.4"},
		{"needs multi", translate.ErrNeedsMulti, queue.Permanent, "5.3.4"},
		{"sender that cannot be an author", ErrSender, queue.Permanent, "5.1.7"},
		{"recipient's signet cannot serve", &message.Error{Class: message.SignetInvalid}, queue.Trust, "5.7.5"},
		{"recipient's signet is another's", &message.Error{Class: message.EnvelopeMismatch}, queue.Trust, "5.7.5"},
		{"untrusted", ErrUntrusted, queue.Trust, "5.7.5"},
		{"not settled now", ErrUnavailable, queue.Network, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := failed(fmt.Errorf("wrapped: %w", c.err))
			if err != nil || r.Class != c.class || r.Status != c.status {
				t.Errorf("%v %s, %v", r.Class, r.Status, err)
			}
		})
	}
	if _, err := failed(errors.New("disk")); err == nil {
		t.Error("a fault of ours became a result")
	}
}

package bridge

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dimegate/bridge/queue"
	"dimegate/bridge/translate"
	"dimegate/dmtp/message"
	"dimegate/dmtp/record"
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
		{"the alternate layer is not to be had", &message.Error{Class: message.AltPolicy}, queue.Trust, "5.7.10"},
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

// A decision that is not DMTP: how long it waits, and how it ends (dmtp.md §8.10, §8.11, §11.2).
func TestKept(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		route  Route
		class  queue.Class
		status string
		life   time.Duration // 0: the queue's for the class
	}{
		{"unreachable", Route{Situation: Unreachable}, queue.Network, "4.4.7", 0},
		{"untrusted", Route{Situation: Untrusted}, queue.Trust, "5.7.5", 0},
		{"untrusted, with a time of its own", Route{Situation: Untrusted, Life: day}, queue.Trust, "5.7.5", day},
		{"doubtful", Route{Situation: Doubtful}, queue.Trust, "5.7.5", 0},
		{"vanished", Route{Situation: Vanished, Life: 5 * day}, queue.Trust, "5.7.5", 5 * day},
		{"no signet, strict", Route{Situation: NoSignet, Remote: record.Strict}, queue.Permanent, "5.7.10", 0},
		{"no record, but DIME is required", Route{Situation: NoRecord, Terms: Terms{Require: true}}, queue.Permanent, "5.7.10", 0},
		{"no record: a way out that is not there is no matter of trust", Route{Situation: NoRecord}, queue.Remote, "5.4.4", 0},
		{"held by the administrator", Route{Situation: Unreachable, Terms: Terms{Floor: FloorHold}}, queue.Park, "5.7.1", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.class != queue.Park {
				c.route.Terms.Floor = FloorTLS
			}
			r := kept(c.route, Decide(c.route.Situation, c.route.Remote, c.route.Terms))
			if r.Class != c.class || r.Status != c.status || r.Life != c.life {
				t.Errorf("%v %s %v, want %v %s %v", r.Class, r.Status, r.Life, c.class, c.status, c.life)
			}
		})
	}
}

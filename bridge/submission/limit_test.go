package submission

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const limited = "450 4.7.1 too much mail from this sender"

// offer is a message to some recipients: the answers to MAIL, to the last RCPT and to the message, as far as it comes.
func (p *peer) offer(from string, recipients int) string {
	p.t.Helper()
	p.send("MAIL FROM:<" + from + ">\r\n")
	last := p.reply()
	for i := 0; i < recipients && strings.HasPrefix(last, "250"); i++ {
		p.send(fmt.Sprintf("RCPT TO:<r%d@bravo.example>\r\n", i))
		last = p.reply()
	}
	if strings.HasPrefix(last, "250") {
		p.cmd("DATA", "354")
		p.send("Subject: x\r\n\r\nhello\r\n.\r\n")
		last = p.reply()
	}
	p.cmd("RSET", "250")
	return last
}

func TestSenderLimits(t *testing.T) {
	in := &inbox{}
	var clock atomic.Int64
	var log lockedBuffer
	c := Config{Name: "gw.alpha.example", Domains: func(string) bool { return true }, Timeout: 10 * time.Second, MessagesHourly: 3, RecipientsHourly: 6, TLS: serverTLS(t), Users: users(t)}
	c.Networks = loopback
	s := New(c, in, slog.New(slog.NewTextHandler(&log, nil)))
	s.now = func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) }
	addr := serve(t, s)
	p := dial(t, addr).hello()
	for i, step := range []struct {
		from       string
		recipients int
		want       string
		fail       error // the Acceptor's
	}{
		{"a@alpha.example", 2, "250", nil},
		{"a@alpha.example", 1, "452", ErrFull}, // was not sent, so it is not counted
		{"A@Alpha.example", 2, "250", nil},
		{"a@alpha.example", 3, limited, nil}, // the third recipient would be the seventh
		{"b@alpha.example", 6, "250", nil},   // another's mail
		{"b@alpha.example", 1, limited, nil},
		{"a@alpha.example", 1, "250", nil},
		{"a@alpha.example", 1, limited, nil}, // the fourth message
		{"", 20, "250", nil},                 // notices
		{"", 20, "250", nil},
	} {
		in.mu.Lock()
		in.err = step.fail
		in.mu.Unlock()
		if got := p.offer(step.from, step.recipients); !strings.HasPrefix(got, step.want) {
			t.Errorf("step %d: %q", i, got)
		}
	}
	clock.Add(20 * 60)
	if got := p.offer("a@alpha.example", 1); !strings.HasPrefix(got, "250") {
		t.Errorf("after twenty minutes: %q", got)
	}
	if got := p.offer("a@alpha.example", 1); !strings.HasPrefix(got, limited) {
		t.Errorf("the next: %q", got)
	}

	p = dial(t, addr).hello() // a user is one sender, whatever he says that he is
	p.secure()
	p.cmd("EHLO x", "250")
	p.cmd("AUTH PLAIN AHByaW50ZXIAc2VjcmV0IHR3bw==", "235")
	for i, want := range []string{"250", "250", "250", limited, limited} {
		if got := p.offer(fmt.Sprintf("x%d@alpha.example", i), 1); !strings.HasPrefix(got, want) {
			t.Errorf("user's %d: %q", i, got)
		}
	}
	if got := p.offer("", 1); !strings.HasPrefix(got, limited) {
		t.Errorf("user's null path: %q", got)
	}
	text := log.String()
	if n := strings.Count(text, "over his hourly limit"); n != 4 { // a by recipients and by messages, b, the user
		t.Errorf("%d warnings:\n%s", n, text)
	}
	if !strings.Contains(text, "user=printer") || !strings.Contains(text, "@alpha.example") || strings.Contains(text, "sender=a@") {
		t.Errorf("log:\n%s", text)
	}
}

// Sessions at one time get no more than one would.
func TestSenderLimitTogether(t *testing.T) {
	in := &inbox{}
	addr := start(t, func(c *Config) { c.MessagesHourly = 10 }, in)
	var all sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(20)
	for range 20 {
		all.Go(func() {
			p := dial(t, addr).hello().envelope()
			ready.Done()
			ready.Wait()
			p.cmd("DATA", "354")
			p.send("Subject: x\r\n\r\nhello\r\n.\r\n")
			if r := p.reply(); !strings.HasPrefix(r, "250") && !strings.HasPrefix(r, limited) {
				t.Errorf("reply %q", r)
			}
			p.cmd("NOOP", "250")
		})
	}
	all.Wait()
	if n := len(in.all()); n != 10 {
		t.Errorf("%d of 10 were taken", n)
	}
}

// A lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

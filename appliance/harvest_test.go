package appliance

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// asker is a DMTP session from an address of loopback; nil when there is one too many.
func asker(t testing.TB, s *site, from string) *talk {
	c := call(t, s.single(), from).secure(&tls.Config{})
	if !strings.HasPrefix(c.reply(), "220") {
		c.conn.Close()
		return nil
	}
	return c
}

// flood asks for n names that nobody has, from one /24, on ten connections at one time, and counts the answers.
func flood(t *testing.T, s *site, n int) map[string]int {
	var mu sync.Mutex
	asked, answers := 0, map[string]int{}
	ask := func(c *talk) bool {
		mu.Lock()
		asked++
		k := asked
		mu.Unlock()
		if k > n {
			return false
		}
		c.send(fmt.Sprintf("SGNT <nobody%d@%s>\r\n", k, s.domain))
		r := c.reply()
		mu.Lock()
		defer mu.Unlock()
		answers[strings.TrimSpace(r)]++
		return true
	}
	var sessions sync.WaitGroup
	for i := range 10 {
		sessions.Go(func() {
			for more := true; more; {
				c := asker(t, s, fmt.Sprintf("127.0.1.%d", i+1))
				for k := 0; c != nil && more && k < 200; k++ { // what one connection may
					more = ask(c)
				}
				if c != nil {
					c.conn.Close()
				}
			}
		})
	}
	sessions.Wait()
	return answers
}

// Ten thousand look-ups of unknown names from one prefix cost little and make nothing, whether the inner server knows its
// mailboxes or takes just anyone; users are served to others meanwhile.
func TestHarvest(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 look-ups")
	}
	for name, acceptsAll := range map[string]bool{"inner server knows its mailboxes": false, "inner server accepts everyone": true} {
		t.Run(name, func(t *testing.T) {
			s := newWorld(t, "alpha.example").sites[0]
			s.make(nil, nil)
			s.inner.only("bob@alpha.example")
			s.run(Options{})
			bob := "280 OK ["
			if acceptsAll {
				s.inner.rcpt, bob = nil, "576 " // a look-up must not make keys that may be nobody's
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			goroutines, asked := runtime.NumGoroutine(), s.inner.questions()
			began := time.Now()
			done := make(chan map[string]int, 1)
			go func() { done <- flood(t, s, 10_000) }()
			var slowest time.Duration
			var answers map[string]int
			for n := 0; answers == nil; n++ { // others, one after the other as long as the flood goes on, each of a prefix of his own
				start := time.Now()
				c := asker(t, s, fmt.Sprintf("127.1.%d.1", n%250))
				c.cmd("SGNT <bob@alpha.example>", bob)
				c.cmd("SGNT <alpha.example>", "270 OK [")
				c.conn.Close()
				slowest = max(slowest, time.Since(start))
				select {
				case answers = <-done:
				default:
				}
			}
			took := time.Since(began)
			until(t, func() bool { return runtime.NumGoroutine() <= goroutines+20 })
			runtime.GC()
			runtime.ReadMemStats(&after)
			questions := s.inner.questions() - asked
			t.Logf("10,000 look-ups in %v, %d questions to the inner server, heap %+d octets, slowest user %v; answers %v",
				took, questions, int64(after.HeapAlloc)-int64(before.HeapAlloc), slowest, answers)
			missed, denied := 0, 0
			for text, n := range answers {
				switch {
				case strings.HasPrefix(text, "576 "):
					missed += n
				case strings.HasPrefix(text, "450 ACCESS DENIED"):
					denied += n
				default:
					t.Errorf("%d answers %q", n, text)
				}
			}
			if len(answers) != 2 || missed+denied != 10_000 || missed < 10 || missed > 12+int(took/time.Minute+1)*12 {
				t.Errorf("answers %v", answers)
			}
			if questions > missed+10*int(took/time.Minute+1) { // answers about others age meanwhile
				t.Errorf("the inner server was asked %d times", questions)
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
				t.Errorf("the heap has grown by %d octets", grown)
			}
			if slowest > 5*time.Second {
				t.Errorf("a user waited for %v", slowest)
			}
			users, err := s.gateway.tenants[0].vault.Users(t.Context(), "", 100)
			check(t, err)
			if !acceptsAll && (len(users) != 1 || users[0].Address != "bob@alpha.example") || acceptsAll && len(users) != 0 {
				t.Errorf("keys of %d users", len(users))
			}
		})
	}
}

// Where the inner server takes just anyone, who sends gets keys, and who is only asked for does not.
func TestEnrolmentOfSenders(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example")
	for _, s := range w.sites {
		s.make(nil, nil)
		s.run(Options{})
	}
	alpha, bravo := w.sites[0], w.sites[1]
	bravo.inner.only("alice@bravo.example")
	c := asker(t, alpha, "127.0.3.1")
	c.cmd("SGNT <bob@alpha.example>", "576 ")
	out := call(t, alpha.gateway.listeners.submission[0].Addr().String(), "")
	out.want("220")
	out.cmd("EHLO mail.alpha.example", "250")
	out.send("MAIL FROM:<bob@alpha.example>\r\nRCPT TO:<alice@bravo.example>\r\n")
	out.want("250", "250")
	out.cmd("DATA", "354")
	out.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	out.want("250")
	until(t, func() bool { return len(bravo.inner.messages()) == 1 })
	c.cmd("SGNT <bob@alpha.example>", "280 OK [")
	c.cmd("SGNT <carol@alpha.example>", "576 ")
}

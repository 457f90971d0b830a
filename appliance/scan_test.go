package appliance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"dimegate/appliance/config"
	"dimegate/bridge/queue"
	"dimegate/internal/testpeer"
)

const unsigned = "From: alice@alpha.example\r\nTo: bob@bravo.example\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@alpha.example>\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n"

// signed is the same with a DKIM signature that holds.
func signed(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	check(t, dkim.Sign(&b, strings.NewReader(unsigned), &dkim.SignOptions{Domain: "alpha.example", Selector: "s", Signer: scanKey, HeaderKeys: []string{"From", "To", "Subject"}}))
	return b.String()
}

var scanKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// A scanWorld is two organisations whose mail is scanned: alpha's before it leaves, bravo's before it is handed over.
type scanWorld struct {
	*world
	ctx          context.Context
	bench        *testpeer.Bench
	host         string
	alpha, bravo *site
}

func (w *scanWorld) milter() *testpeer.Process {
	w.t.Helper()
	p, err := w.bench.OpenDKIM(w.ctx, "opendkim", w.host+":8891",
		"s._domainkey.alpha.example v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(scanKey.Public().(ed25519.PublicKey)))
	check(w.t, err)
	w.t.Cleanup(p.Kill) // libmilter takes its time
	return p
}

func (w *scanWorld) filter(args ...string) *testpeer.Process {
	w.t.Helper()
	p, err := w.bench.Sink(w.ctx, "filter", w.host+":10025", args...)
	check(w.t, err)
	return p
}

func newScanWorld(t *testing.T, changes string) *scanWorld {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	w := &scanWorld{world: newWorld(t, "alpha.example", "bravo.example"), ctx: ctx, bench: testpeer.New(t)}
	w.alpha, w.bravo = w.sites[0], w.sites[1]
	var err error
	w.host, err = w.bench.Address()
	check(t, err)
	for _, s := range w.sites {
		s.make(nil, func(c *config.Config) {
			c.Scanner.Outbound = []string{"milter://" + w.host + ":8891"}
			c.Scanner.Inbound = []string{"milter://" + w.host + ":8891", "smtp://" + w.host + ":10025"}
			c.Scanner.HeaderChanges = changes
		})
		s.inner.only("alice@"+s.domain, "bob@"+s.domain)
	}
	return w
}

// say sends one message from one to another by SMTP and wants an answer.
func say(t *testing.T, addr, from, to, message, want string) {
	t.Helper()
	c := call(t, addr, "")
	c.want("220")
	c.cmd("EHLO out.example.net", "250")
	c.cmd("MAIL FROM:<"+from+">", "250")
	c.cmd("RCPT TO:<"+to+">", "250")
	c.cmd("DATA", "354")
	c.send(strings.ReplaceAll(message, "\r\n.", "\r\n..") + ".\r\n")
	c.want(want)
	c.cmd("NOOP", "250") // the rest of a refused message is no command
	c.cmd("QUIT", "221")
}

// submit hands in mail of alice for bob; pass sends it to bravo's port 25.
func (w *scanWorld) submit(message, want string) {
	w.t.Helper()
	addr, _ := w.alpha.gateway.Addresses()
	say(w.t, addr, "alice@alpha.example", "bob@bravo.example", message, want)
}

func (w *scanWorld) pass(message, want string) {
	w.t.Helper()
	say(w.t, w.bravo.dual(), "alice@alpha.example", "bob@bravo.example", message, want)
}

// arrives waits for the next message at a mail server, which ends so.
func arrives(t *testing.T, s *site, n int, end string) {
	t.Helper()
	until(t, func() bool { return len(s.inner.messages()) >= n })
	if got := s.inner.messages(); len(got) != n || !strings.HasSuffix(got[n-1], end) {
		t.Fatalf("%d messages at %s, the last\n%s", len(got), s.domain, got[len(got)-1])
	}
}

func (w *scanWorld) queued() []queue.Info {
	w.t.Helper()
	list, err := w.alpha.gateway.tenants[0].queue.List(w.ctx, "", "", 100)
	check(w.t, err)
	return list
}

// OpenDKIM as a milter and smtp-sink as a content filter, in either direction: yes, no, hold, not now, gone and back.
func TestScanners(t *testing.T) {
	testpeer.Require(t, "opendkim", "smtp-sink")
	w := newScanWorld(t, "ignore")
	milter, filter := w.milter(), w.filter()
	w.alpha.run(Options{})
	w.bravo.run(Options{})

	good, n := signed(t), 0
	bad := strings.Replace(good, "hello", "hullo", 1)
	w.submit(good, "250")
	n++
	arrives(t, w.bravo, n, "\r\n"+good) // its wish to add a field was not met: byte for byte
	w.submit(bad, "550 5.7.1 refused by the content scanner")
	w.pass(good, "250")
	n++
	arrives(t, w.bravo, n, "\r\n"+good)
	w.pass(bad, "550 5.7.1 refused by the content scanner")
	if q := w.queued(); len(q) != 0 {
		t.Errorf("queued: %+v", q)
	}

	// Quarantine: held on the way out; on the way in there is no place for it, and its sender hears so.
	w.submit(unsigned, "250")
	held := w.queued()
	if len(held) != 1 || held[0].State != "held" || held[0].Held != heldByScanner || held[0].Due != nil {
		t.Fatalf("queued: %+v", held)
	}
	w.pass(unsigned, "550 5.7.1 refused by the content scanner")
	check(t, w.alpha.gateway.tenants[0].queue.Release(w.ctx, held[0].ID))
	arrives(t, w.alpha, 1, "") // the notice
	if notice := w.alpha.inner.messages()[0]; !strings.Contains(notice, "Action: failed") {
		t.Errorf("told:\n%s", notice)
	}

	// The filter's word.
	for _, f := range []struct{ arg, want string }{{"-f", "550 5.7.1 refused by the content scanner"}, {"-r", "451 4.7.1 the content scanner gives no verdict"}} {
		check(t, filter.Stop())
		filter = w.filter(f.arg, ".")
		w.pass(good, f.want)
	}

	// The filter is gone: mail waits at its origin.
	check(t, filter.Stop())
	w.pass(good, "451 4.7.1")
	w.submit(good, "250")
	until(t, func() bool {
		q := w.queued()
		return len(q) == 1 && q[0].Attempts == 1 && !q[0].Active
	})
	if got := w.bravo.inner.messages(); len(got) != n {
		t.Errorf("%d messages arrived unseen", len(got)-n)
	}
	w.filter()
	check(t, w.alpha.gateway.tenants[0].queue.Retry(w.ctx, w.queued()[0].ID))
	n++
	arrives(t, w.bravo, n, "\r\n"+good)

	// The milter is killed in the middle of a message, and is down: nothing is sealed, nothing handed over.
	addr, _ := w.alpha.gateway.Addresses()
	c := call(t, addr, "")
	c.want("220")
	c.cmd("EHLO out.example.net", "250")
	c.cmd("MAIL FROM:<alice@alpha.example>", "250")
	c.cmd("RCPT TO:<bob@bravo.example>", "250")
	c.cmd("DATA", "354")
	head, body, _ := strings.Cut(good, "\r\n\r\n")
	c.send(head + "\r\n\r\n")
	milter.Kill()
	<-milter.Done()
	c.send(strings.ReplaceAll(body, "\r\n.", "\r\n..") + strings.Repeat("hello\r\n", 100_000) + ".\r\n")
	c.want("451 4.7.1 the content scanner gives no verdict")
	w.submit(good, "451 4.7.1")
	w.pass(good, "451 4.7.1")
	if q := w.queued(); len(q) != 0 {
		t.Errorf("queued: %+v", q)
	}
	w.milter()
	w.submit(good, "250")
	n++
	arrives(t, w.bravo, n, "\r\n"+good)
	if got := w.alpha.inner.messages(); len(got) != 1 {
		t.Errorf("further notices: %q", got[1:])
	}
}

// A milter that wants to change mail gets none by default, and the log says what to do.
func TestScannerWantsChanges(t *testing.T) {
	testpeer.Require(t, "opendkim", "smtp-sink")
	w := newScanWorld(t, "refuse")
	w.milter()
	w.filter()
	var log logbook
	w.alpha.run(Options{Log: log.log()})
	w.submit(signed(t), "451 4.7.1")
	until(t, func() bool {
		text := log.String()
		return strings.Contains(text, "a content scanner cannot be used") && strings.Contains(text, "content scanner gives no verdict") && strings.Contains(text, "scanner.header_changes")
	})
}

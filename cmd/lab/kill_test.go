package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"

	_ "modernc.org/sqlite" // to look into a gateway's queue
)

// TestKilled ends gateways as a power cut does.
func TestKilled(t *testing.T) {
	l := newLab(t)
	alpha, bravo := gateways(t, l)
	t.Run("origin between 250 and delivery", func(t *testing.T) { killedOrigin(t, l, alpha, bravo) })
	t.Run("inner server", func(t *testing.T) { innerServerDown(t, l, alpha, bravo) })
	t.Run("destination between hand-off and reply", func(t *testing.T) { killedDestination(t, l, bravo) })
	t.Run("both at random", func(t *testing.T) { killedAtRandom(t, l, alpha, bravo) })
}

// killedOrigin ends the first gateway between its 250 and the delivery: the message is on its disk and arrives once.
func killedOrigin(t *testing.T, l *Lab, alpha, bravo *Gateway) {
	ctx := limited(t)
	// The other side must be known by then, or nothing could be sealed and taken.
	send(ctx, t, l.Alpha, "alice@alpha.test", []string{"bob@bravo.test"}, plainMessage)
	inbox(ctx, t, l.Bravo, "bob@bravo.test", 1)

	bravo.Kill()
	send(ctx, t, l.Alpha, "alice@alpha.test", []string{"bob@bravo.test"}, plainMessage)
	if err := testpeer.Until(ctx, func() bool { q, err := l.Alpha.Postfix.Queue(ctx); return err == nil && q == "" }); err != nil {
		t.Fatalf("the gateway did not take the message: %v", err)
	}
	alpha.Kill()
	for _, g := range []*Gateway{bravo, alpha} {
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(inbox(ctx, t, l.Bravo, "bob@bravo.test", 2)); n != 2 {
		t.Errorf("bob has %d messages, want 2: the first and the one on disk", n)
	}
}

// innerServerDown: the destination's mail server is away. The origin keeps the message, both say why, and it arrives once
// when the server is back.
func innerServerDown(t *testing.T, l *Lab, alpha, bravo *Gateway) {
	ctx := limited(t)
	if err := l.Bravo.Postfix.Stop(); err != nil {
		t.Fatal(err)
	}
	deferred := strings.Count(logOf(t, alpha), "msg=deferred")
	send(ctx, t, l.Alpha, "alice@alpha.test", []string{"alice@bravo.test"}, plainMessage)
	if err := testpeer.Until(ctx, func() bool { return strings.Count(logOf(t, alpha), "msg=deferred") > deferred }); err != nil {
		t.Fatalf("the origin did not defer it: %v", err)
	}
	if said := logOf(t, bravo); !strings.Contains(said, l.Bravo.Postfix.Addr) {
		t.Errorf("the destination does not name the mail server %s:\n%s", l.Bravo.Postfix.Addr, said)
	}
	if n := l.Bravo.Store.Count("alice@bravo.test"); n != 0 {
		t.Errorf("%d messages arrived without a mail server", n)
	}
	if err := l.startPostfix(ctx, l.Bravo); err != nil {
		t.Fatal(err)
	}
	if all := inbox(ctx, t, l.Bravo, "alice@bravo.test", 1); len(all) != 1 || !bytes.HasSuffix(all[0], []byte(plainMessage)) {
		t.Errorf("arrived as %q", all)
	}
}

// logOf is what a gateway has logged.
func logOf(t *testing.T, g *Gateway) string {
	t.Helper()
	text, err := os.ReadFile(g.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// killedDestination ends the second gateway in the one window that SMTP cannot close: the mail server has taken the
// message, and the gateway has not yet read its answer. It arrives a second time, and is counted.
func killedDestination(t *testing.T, l *Lab, bravo *Gateway) {
	ctx := limited(t)
	addr, err := l.Address()
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := l.Proxy(addr+":25", l.Bravo.Postfix.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := bravo.Stop(); err != nil {
		t.Fatal(err)
	}
	bravo.Inner = proxy.Addr
	if err := bravo.Configure(nil); err != nil {
		t.Fatal(err)
	}
	if err := bravo.Run(ctx); err != nil {
		t.Fatal(err)
	}
	held := proxy.Hold("queued as")
	send(ctx, t, l.Alpha, "alice@alpha.test", []string{"carol@bravo.test"}, plainMessage)
	select {
	case <-held:
	case <-ctx.Done():
		t.Fatal("the message did not come to the mail server")
	}
	bravo.Kill()
	proxy.Release()
	if err := bravo.Run(ctx); err != nil {
		t.Fatal(err)
	}
	all := inbox(ctx, t, l.Bravo, "carol@bravo.test", 2)
	if len(all) != 2 {
		t.Errorf("arrived %d times, want 2", len(all))
	}
	for _, m := range all {
		if !bytes.HasSuffix(m, []byte(plainMessage)) {
			t.Errorf("arrived as %q", m)
		}
	}
	if n := duplicates(t, bravo); n != 1 {
		t.Errorf("%d possible duplicates counted, want 1", n)
	}
}

// duplicates is how many messages the gateway's log calls possible duplicates.
func duplicates(t *testing.T, g *Gateway) int {
	t.Helper()
	return strings.Count(logOf(t, g), "possible duplicate")
}

// killedAtRandom kills both gateways again and again while mail flows: nothing is lost, and what comes twice came through
// one of the two windows that SMTP cannot close. Either the first gateway died between its commit and its 250, and the mail
// server gave it the message again (then the copies bear two numbers of the first gateway); or the second one died between
// hand-off and outcome, and then it has counted the copy.
func killedAtRandom(t *testing.T, l *Lab, alpha, bravo *Gateway) {
	const messages, kills = 40, 4
	ctx := limited(t)
	before := duplicates(t, bravo)
	user := func(i int) string { return fmt.Sprintf("m%d@bravo.test", i) }
	arrived := func() (n int) {
		for i := range messages {
			n += min(1, l.Bravo.Store.Count(user(i)))
		}
		return n
	}
	for i := range messages {
		send(ctx, t, l.Alpha, "alice@alpha.test", []string{user(i)}, plainMessage)
	}
	for k := range kills {
		g := []*Gateway{alpha, bravo}[k%2]
		// Not a time but a state: each kill comes when so many have arrived.
		if err := testpeer.Until(ctx, func() bool { return arrived() >= k*messages/(kills+1) }); err != nil {
			t.Fatal(err)
		}
		g.Kill()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// All of it: what is still on its way could be another copy.
	var flushed time.Time
	done := func() bool {
		// Postfix puts a message off for minutes that it finds still being delivered when the connection is lost.
		if time.Since(flushed) > time.Second {
			flushed = time.Now()
			if err := l.Alpha.Postfix.Flush(ctx); err != nil {
				t.Error(err)
			}
		}
		if arrived() < messages || waiting(t, alpha) > 0 {
			return false
		}
		q, err := l.Alpha.Postfix.Queue(ctx)
		return err == nil && q == ""
	}
	if err := testpeer.Until(ctx, done); err != nil {
		t.Fatalf("%d of %d messages arrived: %v", arrived(), messages, err)
	}
	again, copies := 0, 0
	for i := range messages {
		all := inbox(ctx, t, l.Bravo, user(i), 1)
		numbers := map[string]bool{}
		for _, m := range all {
			top, _ := split(m)
			numbers[number(top, "dx."+l.Alpha.Domain)] = true
		}
		again += len(numbers) - 1
		copies += len(all) - len(numbers)
	}
	counted := duplicates(t, bravo) - before
	t.Logf("%d messages over %d kills: %d given to the first gateway twice, %d handed over twice, %d counted", messages, kills, again, copies, counted)
	if copies > counted {
		t.Errorf("%d copies, and %d were counted", copies, counted)
	}
	if again > messages/2 { // one session at most is in that window when the process dies
		t.Errorf("%d messages were taken twice", again)
	}
}

// waiting is how many rows the queue of a gateway holds.
func waiting(t *testing.T, g *Gateway) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(g.Data, "vault", "vault.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM queue").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

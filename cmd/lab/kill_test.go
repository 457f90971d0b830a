package main

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/internal/testpeer"

	_ "modernc.org/sqlite" // to look into a gateway's queue
)

// TestKilled ends gateways as a power cut does, in moments that other processes bring about; TestCrash does it in their own.
func TestKilled(t *testing.T) {
	l := newLab(t)
	alpha, bravo := gateways(t, l)
	t.Run("origin between 250 and delivery", func(t *testing.T) { killedOrigin(t, l, alpha, bravo) })
	t.Run("inner server", func(t *testing.T) { innerServerDown(t, l, alpha, bravo) })
	t.Run("destination between hand-off and reply", func(t *testing.T) { killedDestination(t, l, bravo) })
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
	return strings.Count(logOf(t, g), possibleDuplicate)
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

package testpeer

import (
	"bytes"
	"strings"
	"testing"
)

// TestMailThroughPeers is the smallest line: a client, two Postfixes, a mailbox read by IMAP.
func TestMailThroughPeers(t *testing.T) {
	Require(t, "postfix", "dovecot")
	b, ctx := New(t), t.Context()
	var addr [3]string
	for i := range addr {
		a, err := b.Address()
		if err != nil {
			t.Fatal(err)
		}
		addr[i] = a
	}
	store, err := b.Dovecot(ctx, "dovecot", addr[0])
	if err != nil {
		t.Fatal(err)
	}
	far, err := b.Postfix(ctx, PostfixConfig{Name: "far", Listen: addr[1] + ":25", Hostname: "mx.bravo.test", Domain: "bravo.test",
		Transport: []string{"bravo.test lmtp:inet:" + store.LMTP}})
	if err != nil {
		t.Fatal(err)
	}
	near, err := b.Postfix(ctx, PostfixConfig{Name: "near", Listen: addr[2] + ":25", Hostname: "mx.alpha.test", Domain: "alpha.test",
		Transport: []string{"bravo.test smtp:[" + addr[1] + "]:25"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := DialSMTP(ctx, near.Addr)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("From: alice@alpha.test\r\nSubject: dots\r\n\r\n.\r\n..x\r\n. \r\n")
	if err := c.Send("alice@alpha.test", []string{"bob@bravo.test"}, body); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Wait(ctx, "bob@bravo.test", 1); err != nil {
		t.Fatal(err)
	}
	got, err := store.Inbox(ctx, "bob@bravo.test")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !bytes.HasSuffix(got[0], body) {
		t.Errorf("arrived as %q, want it to end in %q", got, body)
	}
	if n := strings.Count(string(got[0]), "\r\nReceived: "); n != 3 {
		t.Errorf("%d trace fields, want 3 (two Postfixes and Dovecot):\n%s", n, got[0])
	}
	for _, p := range []*Postfix{near, far} {
		if q, err := p.Queue(ctx); err != nil || q != "" {
			t.Errorf("queue after delivery: %q, %v", q, err)
		}
	}
}

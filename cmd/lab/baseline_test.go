package main

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// newLab starts the two organisations without gateways.
func newLab(t *testing.T) *Lab {
	t.Helper()
	testpeer.Require(t, "postfix", "dovecot", "unbound", "swaks")
	l, err := NewLab(t.Context(), testpeer.New(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// everyMessage is the corpus and our own awkward mail.
func everyMessage(t *testing.T) []testmail.Message {
	t.Helper()
	return append(testmail.Corpus(t), testmail.Ours(t)...)
}

// An arrival is what lies in a mailbox: what the hosts on the way put on top, and the message below.
type arrival struct {
	top     []Field
	message []byte
}

// exchange sends every message from one organisation to the other, each to a mailbox of its own, and reads them there.
// label is "" for the line through the gateways or direct for the one without. The result has the messages' order; one
// that the first mail server refused is nil, as refused says.
func exchange(t *testing.T, l *Lab, from *Org, label string, all []testmail.Message) (got []*arrival, refused map[string]error) {
	t.Helper()
	ctx := limited(t)
	to := l.Other(from)
	mailbox := func(i int) string { return fmt.Sprintf("m%d@%s%s", i, label, to.Domain) }
	c, err := testpeer.DialSMTP(ctx, from.Postfix.Addr)
	if err != nil {
		t.Fatal(err)
	}
	refused = map[string]error{}
	for i, m := range all {
		if err := c.Send("alice@"+from.Domain, []string{mailbox(i)}, testpeer.CRLF(m.Raw), "BODY=8BITMIME"); err != nil {
			refused[m.Name] = err
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	got = make([]*arrival, len(all))
	for i, m := range all {
		if refused[m.Name] != nil {
			continue
		}
		if err := to.Store.Wait(ctx, mailbox(i), 1); err != nil {
			t.Errorf("%s: %v", m.Name, err)
			continue
		}
		inbox, err := to.Store.Inbox(ctx, mailbox(i))
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		if len(inbox) != 1 {
			t.Errorf("%s: arrived %d times", m.Name, len(inbox))
		}
		top, message := split(inbox[0])
		got[i] = &arrival{top, message}
	}
	return got, refused
}

// checkBaseline says what two stock Postfixes and a Dovecot make of every message, with no gateway between. What they
// change is told twice, so that nothing hides in "the baseline does it, too": afterPostfix makes the same changes, and
// changed names every message that has one.
func checkBaseline(t *testing.T, all []testmail.Message, got []*arrival, refused map[string]error) {
	t.Helper()
	for name, err := range refused {
		t.Errorf("%s: refused by the baseline: %v", name, err)
	}
	for i, m := range all {
		if got[i] == nil {
			continue
		}
		sent := testpeer.CRLF(m.Raw)
		model := afterPostfix(sent)
		why, named := changed[m.Name]
		switch {
		case bytes.Equal(model, sent) && named && why.wire == "":
			t.Errorf("%s: named as changed (%s), and is not", m.Name, why)
		case !bytes.Equal(model, sent) && !named:
			t.Errorf("%s: changed by Postfix and not named", m.Name)
		case bytes.Equal(got[i].message, model) != (why.wire == ""):
			t.Errorf("%s: named for %q, arrived as\n%s", m.Name, why, difference(got[i].message, model))
		}
		if n := len(got[i].top); n != 5 { // Return-Path, Delivered-To, and Received of Dovecot, Postfix, Postfix
			t.Errorf("%s: %d fields on top: %q", m.Name, n, got[i].top)
		}
	}
}

// difference shows where two messages part.
func difference(got, want []byte) string {
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	from := max(0, n-20)
	return fmt.Sprintf("at octet %d of %d: got %.80q, want %.80q", n, len(want), got[from:], want[from:])
}

// limited is a context for one exchange.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	t.Cleanup(cancel)
	return ctx
}

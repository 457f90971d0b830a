package handoff

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// To a real Postfix, which hands on to a real Dovecot; and to Dovecot by LMTP. Octets, the null sender, unknown recipients.
func TestToPostfixAndDovecot(t *testing.T) {
	testpeer.Require(t, "postfix", "dovecot")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := testpeer.New(t)
	var host [2]string
	for i := range host {
		var err error
		if host[i], err = b.Address(); err != nil {
			t.Fatal(err)
		}
	}
	store, err := b.Dovecot(ctx, "dovecot", host[0], "bob@bravo.test", "carol@bravo.test")
	if err != nil {
		t.Fatal(err)
	}
	postfix, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: host[1] + ":25", Hostname: "mx.bravo.test", Domain: "bravo.test", Domains: []string{"all.test"},
		Users: "^((bob|carol)@bravo|.*@all)\\.test$$", Transport: []string{"bravo.test lmtp:inet:" + store.LMTP}, Main: []string{"header_size_limit = 2000000", "lmtp_line_length_limit = 0"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user string
		h    *Inner
	}{
		{"bob@bravo.test", New(Config{Address: postfix.Addr, Name: "gw.bravo.test"})},
		{"carol@bravo.test", New(Config{Address: store.LMTP, Name: "gw.bravo.test", LMTP: true})},
	} {
		defer tt.h.Close()
		var sent []testmail.Message
		for _, m := range testmail.Ours(t) {
			facts, _ := smtpwire.Examine(bytes.NewReader(m.Raw))
			if facts.BareEnds || facts.NUL || !bytes.Contains(m.Raw, []byte("\r\n\r\n")) || m.Raw[0] == ' ' || m.Name == "garbage-in-header" {
				continue // what these two mend by themselves
			}
			if !tt.h.LMTP && (m.Name == "bcc" || m.Name == "exchange-headers") {
				continue // Postfix drops Bcc, and takes the blank before a colon away
			}
			top := []byte("Received: from alpha.test by gw.bravo.test with DMTP id " + m.Name + "; Thu, 26 Nov 2026 10:00:00 +0000\r\n")
			if err := tt.h.Deliver(ctx, Delivery{From: "", To: tt.user, Top: top, Message: smtpwire.Octets(m.Raw)}); err != nil {
				t.Fatalf("%s: %v", m.Name, err)
			}
			sent = append(sent, m)
		}
		if err := store.Wait(ctx, tt.user, len(sent)); err != nil {
			t.Fatal(err)
		}
		boxed, err := store.Inbox(ctx, tt.user)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sent {
			i := -1
			for k, got := range boxed {
				if bytes.Contains(got, []byte("with DMTP id "+m.Name+";")) {
					i = k
				}
			}
			if i < 0 {
				t.Errorf("%s: not in the mailbox", m.Name)
				continue
			}
			want := m.Raw
			if !tt.h.LMTP && !bytes.HasSuffix(want, []byte("\r\n")) { // Postfix stores lines, Dovecot takes BDAT's octets
				want = append(bytes.Clone(want), "\r\n"...)
			}
			if !bytes.HasSuffix(boxed[i], want) {
				t.Errorf("%s: differs in %s's mailbox", m.Name, tt.user)
			}
			if !bytes.Contains(boxed[i], []byte("Return-Path: <>\r\n")) {
				t.Errorf("%s: the null sender is gone:\n%.200s", m.Name, boxed[i])
			}
		}
		if len(sent) < 30 {
			t.Errorf("only %d messages", len(sent))
		}
		for rcpt, want := range map[string]Answer{tt.user: {Known: true}, "nobody@bravo.test": {}} {
			if got, err := tt.h.Confirm(ctx, rcpt); got != want || err != nil {
				t.Errorf("%s: %+v, %v", rcpt, got, err)
			}
		}
		err = tt.h.Deliver(ctx, Delivery{From: "alice@alpha.test", To: "nobody@bravo.test", Message: smtpwire.Octets("\r\n")})
		if got := refusal(err); !strings.HasPrefix(got, "rcpt 55") || !strings.HasSuffix(got, "5.1.1") {
			t.Errorf("unknown: %s", got)
		}
	}
	h := New(Config{Address: postfix.Addr, Name: "gw.bravo.test"})
	defer h.Close()
	if got, err := h.Confirm(ctx, "bob@all.test"); !got.AcceptsAll || err != nil {
		t.Errorf("a domain that takes everyone: %+v, %v", got, err)
	}
}

// BenchmarkDeliver hands messages of 10 KB over in one kept session, to smtp-sink where there is one.
func BenchmarkDeliver(b *testing.B) {
	bench := testpeer.New(b)
	testpeer.Require(b, "smtp-sink")
	host, err := bench.Address()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := bench.Sink(b.Context(), "sink", host+":25"); err != nil {
		b.Fatal(err)
	}
	h := New(Config{Address: host + ":25", Name: "gw.bravo.test", MaxMessages: 1 << 30})
	defer h.Close()
	m := smtpwire.Octets(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 128))
	b.SetBytes(m.Len())
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Deliver(b.Context(), Delivery{From: "a@alpha.test", To: "b@bravo.test", Top: []byte("X: y\r\n"), Message: m}); err != nil {
			b.Fatal(err)
		}
	}
}

package handoff

import (
	"bytes"
	"context"
	"net/netip"
	"os"
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
	h := New(Config{Address: store.LMTP, Name: "gw.bravo.test", LMTP: true}) // Dovecot, too, takes XCLIENT
	defer h.Close()
	for _, from := range []string{"192.0.2.7:4711", "[2001:db8::7]:4711"} {
		who := smtpwire.Caller{Addr: netip.MustParseAddrPort(from), Hello: "there.example"}
		tx, err := h.Begin(ctx, smtpwire.Transaction{From: "alice@alpha.test", Caller: who}, smtpwire.Facts{})
		if err != nil {
			t.Fatal(err)
		}
		err = tx.Recipient(ctx, "carol@bravo.test")
		if err == nil {
			_, err = tx.Stream(ctx, strings.NewReader(hello))
		}
		tx.End(ctx)
		if err != nil {
			t.Fatal(err)
		}
		boxed, err := store.Inbox(ctx, "carol@bravo.test")
		if err != nil {
			t.Fatal(err)
		}
		if last := string(boxed[len(boxed)-1]); !strings.Contains(last, "Received: from there.example (["+who.Addr.Addr().String()+"])\r\n") {
			t.Errorf("Dovecot's trace:\n%s", last)
		}
	}
	h = New(Config{Address: postfix.Addr, Name: "gw.bravo.test"})
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

// A real Postfix learns by each of its ways who the client is, and judges him: one that is on its access map is refused, another
// is in its log. No session that was for one client is for the next.
func TestPostfixLearnsTheClient(t *testing.T) {
	testpeer.Require(t, "postfix")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b := testpeer.New(t)
	host, err := b.Address()
	if err != nil {
		t.Fatal(err)
	}
	postfix, err := b.Postfix(ctx, testpeer.PostfixConfig{Name: "inner", Listen: host + ":25", Hostname: "mx.bravo.test", Domain: "bravo.test", Transport: []string{"bravo.test discard:"},
		Main: []string{"inet_protocols = all", "lists = check_client_access inline:{ { 192.0.2.66 = REJECT }, { bad.example = REJECT } }"},
		Master: []string{
			host + ":1 inet n - n - - smtpd -o smtpd_authorized_xclient_hosts=127.0.0.0/8 -o smtpd_client_restrictions=$lists",
			host + ":2 inet n - n - - smtpd -o smtpd_authorized_xforward_hosts=127.0.0.0/8",
			host + ":3 inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_client_restrictions=$lists",
			host + ":4 inet n - n - - smtpd -o smtpd_authorized_xclient_hosts=127.0.0.0/8 -o smtpd_client_restrictions=$lists -o smtpd_delay_reject=no -o inet_protocols=ipv4",
		}})
	if err != nil {
		t.Fatal(err)
	}
	logged := func(text string) bool {
		return testpeer.Until(ctx, func() bool {
			log, err := os.ReadFile(postfix.LogFile())
			return err == nil && bytes.Contains(log, []byte(text))
		}) == nil
	}
	names := func(_ context.Context, a netip.Addr) (string, bool) {
		return map[string]string{"192.0.2.7": "good.example", "192.0.2.67": "bad.example"}[a.String()], a.String() == "192.0.2.8"
	}
	for _, tt := range []struct {
		port   string
		policy ClientPolicy
		from   []string // clients, one after the other
		log    []string // of each; "": refused
	}{
		{"1", ClientAuto, []string{"192.0.2.7", "2001:db8::7", "192.0.2.66", "192.0.2.67", "192.0.2.8", "", "192.0.2.7"},
			[]string{"client=good.example[192.0.2.7]", "client=unknown[2001:db8::7]", "", "", "client=unknown[192.0.2.8]", "client=unknown[unknown]", "client=good.example[192.0.2.7]"}},
		{"2", ClientAuto, []string{"192.0.2.9", "2001:db8::9", "192.0.2.66"}, []string{"orig_client=unknown[192.0.2.9]", "orig_client=unknown[2001:db8::9]", "orig_client=unknown[192.0.2.66]"}},
		{"3", ClientProxy, []string{"192.0.2.10", "192.0.2.66", ""}, []string{"client=unknown[192.0.2.10]", "", "client=localhost[127."}},
		{"4", ClientAuto, []string{"192.0.2.66", "192.0.2.11", "2001:db8::11"}, []string{"", "client=unknown[192.0.2.11]", "client=unknown[unknown]"}},
		{"1", ClientOff, []string{"192.0.2.66"}, []string{"client=localhost[127."}},
	} {
		h := New(Config{Address: host + ":" + tt.port, Name: "gw.bravo.test", Client: tt.policy, Names: names})
		defer h.Close()
		for i, from := range tt.from {
			who := smtpwire.Caller{Hello: "there.example"}
			if from != "" {
				who.Addr = netip.AddrPortFrom(netip.MustParseAddr(from), 4711)
			}
			tx, err := h.Begin(ctx, smtpwire.Transaction{From: "a@alpha.test", Caller: who}, smtpwire.Facts{})
			if err == nil {
				if err = tx.Recipient(ctx, "bob@bravo.test"); err == nil {
					_, err = tx.Stream(ctx, strings.NewReader(hello))
				}
				tx.End(ctx)
			}
			if refused := refusal(err); tt.log[i] == "" {
				if !strings.Contains(refused, " 554 5.7.1") {
					t.Errorf("%s, %q: not refused: %s", tt.port, from, refused)
				}
				continue
			}
			if err != nil || !logged(tt.log[i]) {
				t.Errorf("%s, %q: %v, or its log lacks %q", tt.port, from, err, tt.log[i])
			}
		}
	}
	h := New(Config{Address: host + ":1", Name: "gw.bravo.test"}) // what is delivered is judged already
	defer h.Close()
	who := smtpwire.Caller{Addr: netip.MustParseAddrPort("192.0.2.66:0"), Hello: "alpha.test"}
	if err := h.Deliver(ctx, Delivery{To: "bob@bravo.test", Message: smtpwire.Octets(hello), Caller: who}); err != nil {
		t.Errorf("delivered: %v", err)
	}
}

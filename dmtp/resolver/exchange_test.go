package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	namespace "dimegate/internal/zone"

	"github.com/miekg/dns"
)

// silent is a UDP socket that says what say makes of each question: nothing for none.
func silent(t *testing.T, say func(q *dns.Msg) [][]byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			for _, b := range say(q) {
				_, _ = pc.WriteTo(b, from)
			}
		}
	})
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	return pc.LocalAddr().String()
}

func TestOverTheNetwork(t *testing.T) {
	w := newWorld(t)
	udp, tcp, err := namespace.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.tree.Serve(ctx, udp, tcp) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	real := tcp.Addr().String()
	// A server that sends noise and an answer to another question before the right one.
	noisy := silent(t, func(q *dns.Msg) [][]byte {
		r := &recorder{}
		w.tree.ServeDNS(r, q)
		right, _ := r.m.Pack()
		r.m.Id++
		wrong, _ := r.m.Pack()
		return [][]byte{[]byte("noise"), make([]byte, 12), wrong, right}
	})
	unused := silent(t, nil2)
	for name, servers := range map[string][]string{"one": {real}, "noise before": {noisy, real}, "silence before": {unused, real}} {
		t.Run(name, func(t *testing.T) {
			d, err := NewDNS(DNSConfig{Servers: servers, Anchors: w.dns.anchors})
			if err != nil {
				t.Fatal(err)
			}
			texts, a, err := d.TXT(t.Context(), "big.ed.test.") // 2 KB: over TCP
			if err != nil || a.State != Secure || len(texts) != 1 || len(texts[0]) != 9*250 {
				t.Errorf("%d texts, %v", len(texts), err)
			}
			hosts, a, err := d.MX(t.Context(), "ed.test")
			if err != nil || a.State != Secure || !slices.Equal(hosts, []string{"mx.ed.test"}) {
				t.Errorf("%v, %v", hosts, err)
			}
			addrs, state, err := d.Addresses(t.Context(), "mx.ed.test")
			if err != nil || state != Secure || len(addrs) != 1 || addrs[0].String() != "192.0.2.1" {
				t.Errorf("%v, %v, %v", addrs, state, err)
			}
			if _, _, err := d.Addresses(t.Context(), "_dx.ed.test"); !errors.Is(err, ErrNoAddress) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("the caller goes away", func(t *testing.T) {
		d, err := NewDNS(DNSConfig{Servers: []string{unused}, Anchors: w.dns.anchors})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := d.Lookup(ctx, "_dx.ed.test", dns.TypeTXT); !errors.Is(err, ErrIndeterminate) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to end", took)
		}
	})
}

func nil2(*dns.Msg) [][]byte { return nil }

func TestTrustAD(t *testing.T) {
	w := newWorld(t)
	w.dns.trustAD = true
	w.dns.exchange = func(_ context.Context, _, _ string, q *dns.Msg) (*dns.Msg, error) {
		if q.CheckingDisabled || !q.AuthenticatedData {
			t.Error("asked with CD, or without AD")
		}
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		name := q.Question[0].Name
		m.AuthenticatedData = strings.HasPrefix(name, "ad")
		switch {
		case strings.HasPrefix(name, "bad"):
			m.Rcode = dns.RcodeServerFailure
		case strings.Contains(name, "none"):
			m.Rcode = dns.RcodeNameError
		case strings.Contains(name, "alias"):
			m.Answer = []dns.RR{mustRR(name + " 5 IN CNAME ad.test."), mustRR("ad.test. 5 IN A 192.0.2.1")}
		default:
			m.Answer = []dns.RR{mustRR(name + " 5 IN A 192.0.2.1")}
		}
		return m, nil
	}
	for name, want := range map[string]struct {
		state State
		n     int
	}{"ad.test": {Secure, 1}, "plain.test": {Insecure, 1}, "ad-none.test": {Secure, 0}, "none.test": {Insecure, 0}, "alias.test": {Insecure, 1}, "ad-alias.test": {Secure, 1}} {
		a, err := w.dns.Lookup(t.Context(), name, dns.TypeA)
		if err != nil || a.State != want.state || len(a.Records) != want.n || len(a.Chain) != 0 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if _, err := w.dns.Lookup(t.Context(), "bad.test", dns.TypeA); !errors.Is(err, ErrIndeterminate) {
		t.Errorf("SERVFAIL: %v", err)
	}
}

func TestNewDNS(t *testing.T) {
	tests := map[string]struct {
		c    DNSConfig
		want string
	}{
		"none":        {DNSConfig{}, "0 given"},
		"five":        {DNSConfig{Servers: []string{"a", "b", "c", "d", "e"}}, "5 given"},
		"a name":      {DNSConfig{Servers: []string{"localhost:53"}}, "address:port"},
		"no port":     {DNSConfig{Servers: []string{"127.0.0.1"}}, "address:port"},
		"port 0":      {DNSConfig{Servers: []string{"127.0.0.1:0"}}, "address:port"},
		"AD afar":     {DNSConfig{Servers: []string{"192.0.2.1:53"}, TrustAD: true}, "loopback"},
		"AD near":     {DNSConfig{Servers: []string{"127.0.0.53:53"}, TrustAD: true}, ""},
		"AD near, v6": {DNSConfig{Servers: []string{"[::1]:53"}, TrustAD: true}, ""},
		"fine":        {DNSConfig{Servers: []string{"192.0.2.1:53", "[2001:db8::1]:53"}}, ""},
	}
	for name, tt := range tests {
		d, err := NewDNS(tt.c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
		if err == nil && d.anchors.closest("dx.example.") != "." {
			t.Errorf("%s: the root is not anchored", name)
		}
	}
}

func TestParseAnchors(t *testing.T) {
	ds := ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"
	tests := map[string]struct{ text, want string }{
		"DS":         {"; the root\n" + ds, ""},
		"DNSKEY":     {"test. 3600 IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", ""},
		"both":       {ds + "test. IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", ""},
		"empty":      {"", "none with an algorithm"},
		"SHA-1 only": {". IN DS 20326 8 1 AE1EA5B974D4C858B740BD03E3CED7EBFCBD1724", "none with an algorithm"},
		"another":    {ds + ". IN A 192.0.2.1", "only DS and DNSKEY"},
		"revoked":    {ds + ". IN DNSKEY 385 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", "revoked"},
		"not a zone": {ds + ". IN DNSKEY 0 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", "not a zone key"},
		"garbage":    {"here be dragons", "trust anchors"},
		"include":    {"$INCLUDE /etc/hostname\n", "trust anchors"},
		"a flood":    {strings.Repeat(ds, maxAnchors+1), "more than"},
	}
	for name, tt := range tests {
		_, err := ParseAnchors(strings.NewReader(tt.text))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}

// TestAnchorBelow: trust may begin below the root, and then knows nothing of what is beside it.
func TestAnchorBelow(t *testing.T) {
	w := newWorld(t)
	var err error
	if w.dns.anchors, err = ParseAnchors(strings.NewReader(w.truth("ed.test", dns.TypeDNSKEY).Answer[0].String())); err != nil {
		t.Fatal(err)
	}
	check(t, w, "_dx.ed.test", dns.TypeTXT, Secure, 1, "")
	check(t, w, "_dx.p256.test", dns.TypeTXT, Indeterminate, 0, "no trust anchor")
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a.", 124) + "bb"
	for in, want := range map[string]string{
		"Alpha.TEST": "alpha.test", "alpha.test.": "alpha.test", "bücher.test": "xn--bcher-kva.test", "localhost": "localhost",
		"": "", ".": "", "a..b": "", "a b.test": "", "a_b.test": "", "alpha.test..": "", "*.test": "", "\xff.test": "", long: "", long[2:]: long[2:],
	} {
		if got, err := NormalDomain(in); got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	order := []string{"example.", "a.example.", "yljkjljk.a.example.", "z.a.example.", "zabc.a.example.", "z.example.", `\001.z.example.`, "*.z.example.", `\200.z.example.`}
	for i := range order { // RFC 4034 §6.1
		for j := range order {
			if c := compareNames(order[i], strings.ToUpper(order[j])); (c < 0) != (i < j) || (c == 0) != (i == j) {
				t.Errorf("%s and %s: %d", order[i], order[j], c)
			}
		}
	}
	if got := joinTXT(&dns.TXT{Txt: []string{`a\"b`, `\\c\065`, `\`}}); got != "a\"b\\cA\\" {
		t.Errorf("%q", got)
	}
}

func TestCache(t *testing.T) {
	now := time.Now()
	c := newCache(3, 1000, func(n int) int { return 10 * n })
	for i := range 4 {
		c.put(fmt.Sprint(i), i, now.Add(time.Minute), now)
		c.get("0", now)
	}
	if _, ok := c.get("1", now); ok {
		t.Error("the one unused longest is still there")
	}
	if v, ok := c.get("0", now); !ok || v != 0 || len(c.byKey) != 3 || c.order.Len() != 3 {
		t.Error("one in use is gone")
	}
	if _, ok := c.get("0", now.Add(time.Minute)); ok || len(c.byKey) != 2 {
		t.Error("its time has come")
	}
	c.put("2", 9, now, now)
	if _, ok := c.get("2", now); ok {
		t.Error("kept without a time")
	}
	c.put("a", 60, now.Add(time.Minute), now)
	c.put("b", 50, now.Add(time.Minute), now)
	if _, ok := c.get("a", now); ok || c.held != 501 {
		t.Errorf("%d octets are held", c.held)
	}
	c.put("c", 200, now.Add(time.Minute), now)
	if len(c.byKey) != 0 || c.held != 0 || c.order.Len() != 0 {
		t.Errorf("%d octets are held of one that is too large", c.held)
	}
}

func TestFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flight[int]
		began := 0
		fetch := func(ctx context.Context) (int, error) {
			began++
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(time.Minute):
				return 7, nil
			}
		}
		first, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.do(first, "k", fetch); !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if v, err := f.do(t.Context(), "k", fetch); v != 7 || err != nil {
					t.Errorf("%d, %v", v, err)
				}
			})
		}
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		wg.Go(func() {
			if _, err := f.do(short, "k", fetch); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient: %v", err)
			}
		})
		synctest.Wait()
		stop() // one of those who wait takes over
		wg.Wait()
		if began != 2 && began != 3 { // the impatient one may have taken over, too
			t.Errorf("fetched %d times", began)
		}
		if len(f.going) != 0 {
			t.Error("a flight has not ended")
		}
	})
}

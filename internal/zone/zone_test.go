package zone_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

func serve(t *testing.T, zones ...zone.Zone) (*zone.Tree, string) {
	t.Helper()
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zones...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- tree.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return tree, tcp.Addr().String()
}

func ask(t *testing.T, network, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, true)
	m, _, err := (&dns.Client{Net: network}).Exchange(q, server)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var testZones = []zone.Zone{
	{Name: "alpha.test", Algorithm: dns.ED25519, Records: []string{
		`_dx TXT "ver=1 pok=x" " pol=strict"`, `@ MX 10 mx`, `mx A 127.64.0.1`, `_25._tcp.mx TLSA 3 1 1 ` + strings.Repeat("0a", 32)}},
	{Name: "bravo.test", Algorithm: dns.RSASHA256, Records: []string{`_dx TXT "` + strings.Repeat("x", 250) + `"`, `www CNAME mx`, `mx A 127.64.0.2`}},
	{Name: "plain.test", Records: []string{`_dx TXT "ver=1"`}},
	{Name: "deep.alpha.test", Algorithm: dns.ECDSAP256SHA256, Records: []string{`@ TXT "below"`}},
	{Name: "wild.test", Algorithm: dns.ECDSAP384SHA384, Records: []string{`*.w TXT "any"`, `*.c CNAME mx.bravo.test.`, `a.b TXT "x"`, `d DNAME alpha.test.`}},
	{Name: "hash.test", Algorithm: dns.RSASHA512, NSEC3: &zone.NSEC3{Iterations: 3, Salt: "aabb"}, Records: []string{`*.w TXT "any"`, `a.b TXT "x"`}},
	{Name: "open.test", Algorithm: dns.ED25519, NSEC3: &zone.NSEC3{OptOut: true}, Records: []string{`a TXT "x"`}},
	{Name: "plain.open.test", Records: []string{`a TXT "x"`}},
	{Name: "old.test", Algorithm: dns.ED25519, Inception: time.Now().Add(-72 * time.Hour), Expiration: time.Now().Add(-48 * time.Hour),
		Records: []string{`a TXT "x"`}},
}

// TestJudgedByUnbound asks a validator that we did not write what it thinks of every kind of answer.
func TestJudgedByUnbound(t *testing.T) {
	testpeer.Require(t, "unbound")
	b := testpeer.New(t)
	tree, server := serve(t, testZones...)
	host, err := b.Address()
	if err != nil {
		t.Fatal(err)
	}
	u, err := b.Unbound(t.Context(), "unbound", host, tree.Anchor(), server, tree.Names())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		qtype uint16
		rcode int
		ad    bool
		n     int // answers but for signatures
	}{
		{"_dx.alpha.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"alpha.test.", dns.TypeMX, dns.RcodeSuccess, true, 1},
		{"_25._tcp.mx.alpha.test.", dns.TypeTLSA, dns.RcodeSuccess, true, 1},
		{"_tcp.mx.alpha.test.", dns.TypeA, dns.RcodeSuccess, true, 0}, // an empty non-terminal
		{"mx.alpha.test.", dns.TypeAAAA, dns.RcodeSuccess, true, 0},
		{"_dx.bravo.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"www.bravo.test.", dns.TypeA, dns.RcodeSuccess, true, 2},
		{"aaa.bravo.test.", dns.TypeA, dns.RcodeNameError, true, 0}, // before, between and after the names there are
		{"n.bravo.test.", dns.TypeA, dns.RcodeNameError, true, 0},
		{"zzz.bravo.test.", dns.TypeA, dns.RcodeNameError, true, 0},
		{"a.b.c.mx.bravo.test.", dns.TypeA, dns.RcodeNameError, true, 0},
		{"nowhere.test.", dns.TypeTXT, dns.RcodeNameError, true, 0},
		{"_dx.plain.test.", dns.TypeTXT, dns.RcodeSuccess, false, 1},
		{"x.plain.test.", dns.TypeTXT, dns.RcodeNameError, false, 0},
		{"plain.test.", dns.TypeDS, dns.RcodeSuccess, true, 0}, // proof that it is unsigned
		{"deep.alpha.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"x.y.w.wild.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"x.w.wild.test.", dns.TypeA, dns.RcodeSuccess, true, 0},
		{"x.c.wild.test.", dns.TypeA, dns.RcodeSuccess, true, 2},
		{"mx.d.wild.test.", dns.TypeA, dns.RcodeSuccess, true, 3}, // DNAME, the CNAME made from it, A
		{"b.hash.test.", dns.TypeA, dns.RcodeSuccess, true, 0},
		{"hash.test.", dns.TypeA, dns.RcodeSuccess, true, 0},
		{"x.y.hash.test.", dns.TypeA, dns.RcodeNameError, true, 0},
		{"x.y.w.hash.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"x.w.hash.test.", dns.TypeA, dns.RcodeSuccess, true, 0},
		{"a.open.test.", dns.TypeTXT, dns.RcodeSuccess, true, 1},
		{"a.plain.open.test.", dns.TypeTXT, dns.RcodeSuccess, false, 1},
		{"x.open.test.", dns.TypeTXT, dns.RcodeNameError, false, 0}, // the span is opted out
		{"a.old.test.", dns.TypeTXT, dns.RcodeServerFailure, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name+dns.TypeToString[tt.qtype], func(t *testing.T) {
			m := ask(t, "udp", u.Addr, tt.name, tt.qtype)
			n := 0
			for _, rr := range m.Answer {
				if rr.Header().Rrtype != dns.TypeRRSIG {
					n++
				}
			}
			if m.Rcode != tt.rcode || m.AuthenticatedData != tt.ad || n != tt.n {
				t.Errorf("%s, AD %v, %d answers; want %s, %v, %d\n%v", dns.RcodeToString[m.Rcode], m.AuthenticatedData, n,
					dns.RcodeToString[tt.rcode], tt.ad, tt.n, m)
			}
		})
	}
	if err := tree.Spoil("mx.bravo.test", dns.TypeA); err != nil {
		t.Fatal(err)
	}
	if err := tree.Set("alpha.test", `_dx TXT "changed"`); err != nil { // mends bravo, too
		t.Fatal(err)
	}
	if err := tree.Spoil("_dx.alpha.test", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	fresh, err := b.Unbound(t.Context(), "unbound2", mustAddress(t, b), tree.Anchor(), server, tree.Names())
	if err != nil {
		t.Fatal(err)
	}
	if m := ask(t, "udp", fresh.Addr, "_dx.alpha.test.", dns.TypeTXT); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a spoilt signature: %v", m)
	}
	if m := ask(t, "udp", fresh.Addr, "mx.bravo.test.", dns.TypeA); m.Rcode != dns.RcodeSuccess || !m.AuthenticatedData {
		t.Errorf("a mended signature: %v", m)
	}
}

func mustAddress(t *testing.T, b *testpeer.Bench) string {
	t.Helper()
	a, err := b.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestServe needs no peer: both transports, truncation, and what is refused.
func TestServe(t *testing.T) {
	long := strings.Repeat(` "`+strings.Repeat("y", 200)+`"`, 12)
	tree, server := serve(t, zone.Zone{Name: "alpha.test", Algorithm: dns.ED25519, Records: []string{"_dx TXT" + long}})
	if m := ask(t, "udp", server, "_dx.alpha.test.", dns.TypeTXT); !m.Truncated || len(m.Answer) != 0 {
		t.Errorf("2.4 KB over UDP: truncated %v, %d answers", m.Truncated, len(m.Answer))
	}
	m := ask(t, "tcp", server, "_DX.Alpha.Test.", dns.TypeTXT)
	if m.Truncated || len(m.Answer) != 2 {
		t.Fatalf("over TCP: %v", m)
	}
	key := ask(t, "udp", server, "alpha.test.", dns.TypeDNSKEY).Answer[0].(*dns.DNSKEY)
	if err := m.Answer[1].(*dns.RRSIG).Verify(key, m.Answer[:1]); err != nil {
		t.Errorf("signature: %v", err)
	}
	ds := ask(t, "udp", server, "alpha.test.", dns.TypeDS).Answer[0].(*dns.DS)
	if ds.Digest != key.ToDS(dns.SHA256).Digest {
		t.Error("the parent's DS is not the child's key")
	}
	if err := tree.Set("alpha.test", "x.bravo.test. A 127.0.0.1"); err == nil {
		t.Error("took a record of another zone")
	}
	if m := ask(t, "tcp", server, "_dx.alpha.test.", dns.TypeTXT); len(m.Answer) != 2 {
		t.Error("a refused change left its mark")
	}
	q := new(dns.Msg)
	q.SetNotify("alpha.test.")
	c := new(dns.Client)
	if m, _, err := c.Exchange(q, server); err != nil || m.Rcode != dns.RcodeNotImplemented {
		t.Errorf("NOTIFY: %v %v", m, err)
	}
}

func TestListenBothOnOnePort(t *testing.T) {
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer tcp.Close()
	if udp.LocalAddr().(*net.UDPAddr).Port != tcp.Addr().(*net.TCPAddr).Port {
		t.Error("two ports")
	}
}

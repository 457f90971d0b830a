package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	namespace "dimegate/internal/zone"

	"github.com/miekg/dns"
)

// testZones is one of each kind: algorithms, both ways of denial, wildcards, aliases, unsigned and opted-out children,
// signatures of the wrong time.
func testZones(now time.Time) []namespace.Zone {
	day := 24 * time.Hour
	records := []string{`_dx TXT "v"`, `mx A 192.0.2.1`, `*.w TXT "any"`, `*.c CNAME mx`, `a.b.e TXT "x"`, `al CNAME mx`,
		`out CNAME a.plain.test.`, `dn DNAME rsa256.test.`, `loop CNAME pool`, `pool CNAME loop`, `@ MX 10 mx`, `dangling CNAME nothing`,
		`big TXT ` + strings.Repeat(`"`+strings.Repeat("z", 250)+`" `, 9)}
	signed := func(name string, alg uint8) namespace.Zone {
		return namespace.Zone{Name: name, Algorithm: alg, Records: records}
	}
	hashed := func(name string, c namespace.NSEC3) namespace.Zone {
		return namespace.Zone{Name: name, Algorithm: dns.ECDSAP256SHA256, Records: records, NSEC3: &c}
	}
	old, young := signed("old.test", dns.ED25519), signed("young.test", dns.ED25519)
	old.Inception, old.Expiration = now.Add(-30*day), now.Add(-2*day)
	young.Inception, young.Expiration = now.Add(2*day), now.Add(30*day)
	return []namespace.Zone{
		signed("ed.test", dns.ED25519), signed("rsa256.test", dns.RSASHA256), signed("rsa512.test", dns.RSASHA512),
		signed("p256.test", dns.ECDSAP256SHA256), signed("p384.test", dns.ECDSAP384SHA384),
		hashed("n3.test", namespace.NSEC3{Salt: "ab01"}), hashed("n3many.test", namespace.NSEC3{Iterations: maxIterations + 1}),
		hashed("n3most.test", namespace.NSEC3{Iterations: maxIterations}), hashed("opt.test", namespace.NSEC3{OptOut: true}),
		{Name: "plain.opt.test", Records: records}, signed("signed.opt.test", dns.ED25519),
		{Name: "plain.n3.test", Records: records}, signed("deep.ed.test", dns.ECDSAP256SHA256),
		{Name: "plain.test", Records: records}, {Name: "island.plain.test", Algorithm: dns.ED25519, Records: records}, old, young,
	}
}

// A world is a name space that a DNS asks, with a place for a liar on the way.
type world struct {
	tree *namespace.Tree
	dns  *DNS
	lie  func(*dns.Msg) // changes an answer; nil: none
	now  time.Time
	asks int
}

// testTree is the tree of testZones, made once: RSA keys take their time. Nobody changes it.
var testTree = sync.OnceValues(func() (*namespace.Tree, error) {
	return namespace.New(netip.MustParseAddr("127.0.0.1"), testZones(time.Now())...)
})

func newWorld(t testing.TB, zones ...namespace.Zone) *world {
	t.Helper()
	w := &world{now: time.Now()}
	var err error
	if len(zones) == 0 {
		w.tree, err = testTree()
	} else {
		w.tree, err = namespace.New(netip.MustParseAddr("127.0.0.1"), zones...)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.fresh(t)
	return w
}

// fresh gives the world a DNS with empty caches.
func (w *world) fresh(t testing.TB) {
	t.Helper()
	anchors, err := ParseAnchors(strings.NewReader(w.tree.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	w.dns, err = NewDNS(DNSConfig{Servers: []string{"192.0.2.53:53"}, Anchors: anchors, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	w.dns.exchange = func(ctx context.Context, network, _ string, q *dns.Msg) (*dns.Msg, error) {
		w.asks++
		if !q.IsEdns0().Do() || !q.CheckingDisabled || !q.RecursionDesired {
			t.Errorf("%v is asked without DO, CD or RD", q.Question)
		}
		r := &recorder{tcp: network == "tcp"}
		w.tree.ServeDNS(r, q)
		wire, err := r.m.Pack() // as on the wire: every caller has records of its own
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			return nil, err
		}
		if w.lie != nil {
			w.lie(m)
		}
		return m, ctx.Err()
	}
}

func TestLookup(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name  string
		typ   uint16
		state State
		n     int
		why   string // part of the reason of a failure
	}{
		{"_dx.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.rsa256.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.rsa512.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.p256.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.p384.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.deep.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"_DX.Ed.TEST", dns.TypeTXT, Secure, 1, ""},
		{"big.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.old.test", dns.TypeTXT, Bogus, 0, "expired"},
		{"_dx.young.test", dns.TypeTXT, Bogus, 0, "not yet valid"},
		{"_dx.plain.test", dns.TypeTXT, Insecure, 1, ""},
		{"_dx.island.plain.test", dns.TypeTXT, Insecure, 1, ""},
		{"nothing.plain.test", dns.TypeTXT, Insecure, 0, ""},
		// absence
		{"nothing.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"mx.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"b.e.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"0.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"zz.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"x.y.z.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"nowhere.test", dns.TypeTXT, Secure, 0, ""},
		{"nowhere", dns.TypeTXT, Secure, 0, ""},
		{"plain.test", dns.TypeDS, Secure, 0, ""},
		{"ed.test", dns.TypeDS, Secure, 1, ""},
		{"ed.test", dns.TypeTXT, Secure, 0, ""},
		{"test", dns.TypeTXT, Secure, 0, ""},
		{".", dns.TypeTXT, Secure, 0, ""},
		{".", dns.TypeDNSKEY, Secure, 1, ""},
		{"ed.test", dns.TypeDNSKEY, Secure, 1, ""},
		// hashed
		{"_dx.n3.test", dns.TypeTXT, Secure, 1, ""},
		{"nothing.n3.test", dns.TypeTXT, Secure, 0, ""},
		{"x.y.z.n3.test", dns.TypeTXT, Secure, 0, ""},
		{"b.e.n3.test", dns.TypeTXT, Secure, 0, ""},
		{"n3.test", dns.TypeTXT, Secure, 0, ""},
		{"mx.n3.test", dns.TypeTXT, Secure, 0, ""},
		{"_dx.plain.n3.test", dns.TypeTXT, Insecure, 1, ""},
		{"nothing.n3many.test", dns.TypeTXT, Insecure, 0, ""},
		{"_dx.n3many.test", dns.TypeTXT, Secure, 1, ""},
		{"nothing.n3most.test", dns.TypeTXT, Secure, 0, ""},
		{"nothing.opt.test", dns.TypeTXT, Insecure, 0, ""},
		{"mx.opt.test", dns.TypeTXT, Secure, 0, ""},
		{"_dx.opt.test", dns.TypeTXT, Secure, 1, ""},
		{"_dx.plain.opt.test", dns.TypeTXT, Insecure, 1, ""},
		{"_dx.signed.opt.test", dns.TypeTXT, Secure, 1, ""},
		// wildcards
		{"x.w.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"x.y.w.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"*.w.ed.test", dns.TypeTXT, Secure, 1, ""},
		{"x.w.ed.test", dns.TypeA, Secure, 0, ""},
		{"x.c.ed.test", dns.TypeA, Secure, 1, ""},
		{"x.w.n3.test", dns.TypeTXT, Secure, 1, ""},
		{"x.y.w.n3.test", dns.TypeTXT, Secure, 1, ""},
		{"x.w.n3.test", dns.TypeA, Secure, 0, ""},
		{"x.w.opt.test", dns.TypeTXT, Insecure, 1, ""},
		{"x.w.n3many.test", dns.TypeTXT, Insecure, 1, ""},
		// aliases
		{"al.ed.test", dns.TypeA, Secure, 1, ""},
		{"al.ed.test", dns.TypeCNAME, Secure, 1, ""},
		{"al.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"dangling.ed.test", dns.TypeTXT, Secure, 0, ""},
		{"out.ed.test", dns.TypeTXT, Insecure, 0, ""},
		{"al.dn.ed.test", dns.TypeA, Secure, 1, ""},
		{"dn.ed.test", dns.TypeA, Secure, 0, ""},
		{"loop.ed.test", dns.TypeA, Indeterminate, 0, "circle"},
		{"al.plain.test", dns.TypeA, Insecure, 1, ""},
		{"al.dn.plain.test", dns.TypeA, Insecure, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+dns.TypeToString[tt.typ], func(t *testing.T) {
			check(t, w, tt.name, tt.typ, tt.state, tt.n, tt.why)
			before := w.asks
			check(t, w, tt.name, tt.typ, tt.state, tt.n, tt.why)
			if w.asks != before {
				t.Errorf("asked %d times more for what is known", w.asks-before)
			}
		})
	}
}

// check looks a name up and compares; n is the number of records, -1 for any.
func check(t *testing.T, w *world, name string, typ uint16, state State, n int, why string) *Answer {
	t.Helper()
	a, err := w.dns.Lookup(t.Context(), name, typ)
	if state == Secure || state == Insecure {
		if err != nil {
			t.Fatalf("%v; want %v", err, state)
		}
		if a.State != state || n >= 0 && len(a.Records) != n {
			t.Errorf("%v (%s), %d records; want %v, %d", a.State, a.Why, len(a.Records), state, n)
		}
		if a.Until.Before(w.now) || len(a.Chain) < 2 || a.Chain[0].What != "anchor" {
			t.Errorf("until %v, chain of %d links", a.Until, len(a.Chain))
		}
		if (a.State == Insecure) != (a.Why != "") {
			t.Errorf("%v because %q", a.State, a.Why)
		}
		return a
	}
	e, ok := errors.AsType[*DNSError](err)
	if !ok || e.State != state || !strings.Contains(err.Error(), why) {
		t.Fatalf("answer %+v, error %v; want %v: %s", a, err, state, why)
	}
	if errors.Is(err, ErrBogus) != (state == Bogus) || errors.Is(err, ErrIndeterminate) != (state == Indeterminate) {
		t.Errorf("%v is not told by its sentinel", err)
	}
	return nil
}

// A recorder is a ResponseWriter that keeps what is written.
type recorder struct {
	dns.ResponseWriter
	m   *dns.Msg
	tcp bool
}

func (r *recorder) WriteMsg(m *dns.Msg) error { r.m = m; return nil }

func (r *recorder) RemoteAddr() net.Addr {
	if r.tcp {
		return &net.TCPAddr{}
	}
	return &net.UDPAddr{}
}

// BenchmarkLookup is one look-up with nothing cached (six queries: keys and delegations of the root, test. and the zone), with
// the zone's keys cached, and with the answer cached.
func BenchmarkLookup(b *testing.B) {
	for _, name := range []string{"_dx.ed.test", "_dx.p256.test", "_dx.rsa256.test", "nothing.n3.test"} {
		b.Run(name+"/cold", func(b *testing.B) {
			w := newWorld(b)
			for b.Loop() {
				w.dns.flush()
				if _, err := w.dns.Lookup(b.Context(), name, dns.TypeTXT); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(w.asks)/float64(b.N), "queries/op")
		})
		b.Run(name+"/keys", func(b *testing.B) {
			w := newWorld(b)
			for b.Loop() {
				w.dns.answers = newCache(maxAnswers, cacheOctets, (*Answer).octets)
				if _, err := w.dns.Lookup(b.Context(), name, dns.TypeTXT); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("cached", func(b *testing.B) {
		w := newWorld(b)
		for b.Loop() {
			if _, err := w.dns.Lookup(b.Context(), "_dx.ed.test", dns.TypeTXT); err != nil {
				b.Fatal(err)
			}
		}
	})
}

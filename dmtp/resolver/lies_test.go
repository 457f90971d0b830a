package resolver

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"

	"github.com/miekg/dns"
)

// A lie is one thing that someone on the way does to answers, and what must come of the question then.
type lie struct {
	name string
	ask  string
	typ  uint16
	do   func(w *world, m *dns.Msg)
	want State
	why  string
	solo bool // says nothing about DNSSEC, so the judge is not asked
}

// on lets f change the answers to one question only.
func on(name string, typ uint16, f func(w *world, m *dns.Msg)) func(*world, *dns.Msg) {
	return func(w *world, m *dns.Msg) {
		if q := m.Question[0]; strings.EqualFold(q.Name, name+".") && q.Qtype == typ {
			f(w, m)
		}
	}
}

// both does two things.
func both(f, g func(*world, *dns.Msg)) func(*world, *dns.Msg) {
	return func(w *world, m *dns.Msg) { f(w, m); g(w, m) }
}

func without(types ...uint16) func(*world, *dns.Msg) {
	return func(_ *world, m *dns.Msg) {
		gone := func(rr dns.RR) bool { return slices.Contains(types, rr.Header().Rrtype) }
		m.Answer, m.Ns = slices.DeleteFunc(m.Answer, gone), slices.DeleteFunc(m.Ns, gone)
	}
}

// absent empties the answer and puts the proof that another question got in its place.
func absent(rcode int, name string, typ uint16) func(*world, *dns.Msg) {
	return func(w *world, m *dns.Msg) {
		m.Answer, m.Ns, m.Rcode = nil, nil, rcode
		if name != "" {
			m.Ns = w.truth(name, typ).Ns
		}
	}
}

// truth is what the tree says to a question.
func (w *world) truth(name string, typ uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), typ)
	q.SetEdns0(65000, true)
	r := &recorder{tcp: true}
	w.tree.ServeDNS(r, q)
	return r.m
}

func spoilText(_ *world, m *dns.Msg) {
	for _, rr := range m.Answer {
		if t, ok := rr.(*dns.TXT); ok {
			t.Txt[0] += "x"
		}
	}
}

// forger has a key of its own and signs with it what it likes.
type forger struct {
	key  *dns.DNSKEY
	priv crypto.Signer
}

func newForger(t testing.TB, zone string) *forger {
	t.Helper()
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 5}, Flags: 257, Protocol: 3, Algorithm: dns.ED25519}
	priv, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return &forger{k, priv.(crypto.Signer)}
}

func (f *forger) sign(rrs ...dns.RR) *dns.RRSIG {
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: 5}, Algorithm: f.key.Algorithm, KeyTag: f.key.KeyTag(), SignerName: f.key.Hdr.Name,
		Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix())}
	if err := sig.Sign(f.priv, rrs); err != nil {
		panic(err)
	}
	return sig
}

func mustRR(s string) dns.RR {
	rr, err := dns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return rr
}

func lies(t testing.TB) []lie {
	ed, n3 := "_dx.ed.test", "_dx.n3.test"
	f := newForger(t, "ed.test.")
	sub := newForger(t, "_dx.ed.test.")
	garbage := func(n int) func(*world, *dns.Msg) {
		return func(_ *world, m *dns.Msg) {
			good := m.Answer[1].(*dns.RRSIG)
			for i := range n {
				bad := dns.Copy(good).(*dns.RRSIG)
				bad.Signature = strings.Repeat(string(rune('A'+i)), 86) + "=="
				m.Answer = slices.Insert(m.Answer, 1, dns.RR(bad))
			}
		}
	}
	return []lie{
		{"the truth", ed, dns.TypeTXT, func(*world, *dns.Msg) {}, Secure, "", false},
		{"text changed", ed, dns.TypeTXT, spoilText, Bogus, "wrong signature", false},
		{"signature stripped", ed, dns.TypeTXT, without(dns.TypeRRSIG), Bogus, "no signature", false},
		{"signature stripped from the answer alone", ed, dns.TypeTXT, on(ed, dns.TypeTXT, without(dns.TypeRRSIG)), Bogus, "no signature", false},
		{"record taken away", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(0, "", 0)), Bogus, "absent without proof", false},
		{"name taken away", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(dns.RcodeNameError, "", 0)), Bogus, "absent without proof", false},
		{"absence proved for another type", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(0, ed, dns.TypeA)), Bogus, "absent without proof", false},
		{"absence proved for another name", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(dns.RcodeNameError, "zz.ed.test", dns.TypeTXT)), Bogus, "absent without proof", false},
		{"absence proved for a hashed name", n3, dns.TypeTXT, on(n3, dns.TypeTXT, absent(dns.RcodeNameError, "zz.n3.test", dns.TypeTXT)), Bogus, "absent without proof", false},
		{"absence proved for a hashed type", n3, dns.TypeTXT, on(n3, dns.TypeTXT, absent(0, n3, dns.TypeA)), Bogus, "absent without proof", false},
		{"absence by the proof of a wildcard", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(0, "x.w.ed.test", dns.TypeA)), Bogus, "absent without proof", false},
		{"the parent's NSEC for a type of the child", "ed.test", dns.TypeMX, on("ed.test", dns.TypeMX, absent(0, "ee.test", dns.TypeTXT)), Bogus, "absent without proof", false},
		{"the parent's NSEC for a name in the child", ed, dns.TypeTXT, on(ed, dns.TypeTXT, absent(dns.RcodeNameError, "ee.test", dns.TypeTXT)), Bogus, "absent without proof", false},
		{"the NSEC of a DNAME for a name below it", "al.dn.ed.test", dns.TypeA, on("al.dn.ed.test", dns.TypeA, absent(dns.RcodeNameError, "dn.ed.test", dns.TypeTXT)), Bogus, "absent without proof", false},
		{"DS taken away", ed, dns.TypeTXT, both(on("ed.test", dns.TypeDS, absent(0, "", 0)), without(dns.TypeRRSIG)), Bogus, "", false},
		{"DS taken away, everything else in order", ed, dns.TypeTXT, on("ed.test", dns.TypeDS, absent(0, "", 0)), Bogus, "neither there nor proved absent", false},
		{"DS taken away, proof for a sibling", ed, dns.TypeTXT, on("ed.test", dns.TypeDS, absent(0, "plain.test", dns.TypeDS)), Bogus, "neither there nor proved absent", false},
		{"DS denied by the child", ed, dns.TypeTXT, on("ed.test", dns.TypeDS, absent(0, "ed.test", dns.TypeTXT)), Bogus, "neither there nor proved absent", false},
		{"DS denied by an opted-out span next door", "_dx.signed.opt.test", dns.TypeTXT, on("signed.opt.test", dns.TypeDS, absent(0, "plain.opt.test", dns.TypeDS)), Bogus, "neither there", false},
		{"keys replaced", ed, dns.TypeTXT, both(
			on("ed.test", dns.TypeDNSKEY, func(_ *world, m *dns.Msg) { m.Answer = []dns.RR{f.key, f.sign(f.key)} }),
			on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
				rr := mustRR(ed + `. 5 IN TXT "forged"`)
				m.Answer = []dns.RR{rr, f.sign(rr)}
			})), Bogus, "no key made its signature", false},
		{"a key added", ed, dns.TypeTXT, on("ed.test", dns.TypeDNSKEY, func(_ *world, m *dns.Msg) { m.Answer = append(m.Answer, f.key, f.sign(f.key)) }), Bogus, "", false},
		{"signed as a zone that is none", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			rr := mustRR(ed + `. 5 IN TXT "forged"`)
			m.Answer = []dns.RR{rr, sub.sign(rr)}
		}), Bogus, "signed by what is no zone", false},
		{"alias without a signature", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			m.Answer = []dns.RR{mustRR(ed + `. 5 IN CNAME _dx.plain.test.`)}
		}), Bogus, "no signature", false},
		{"DNAME without a signature", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			m.Answer = []dns.RR{mustRR(`ed.test. 5 IN DNAME plain.test.`), mustRR(ed + `. 5 IN CNAME _dx.plain.test.`)}
		}), Bogus, "no signature", false},
		{"wildcard without proof", "x.w.ed.test", dns.TypeTXT, on("x.w.ed.test", dns.TypeTXT, func(_ *world, m *dns.Msg) { m.Ns = nil }), Bogus, "made from a wildcard", false},
		{"wildcard with another's proof", "x.w.ed.test", dns.TypeTXT, on("x.w.ed.test", dns.TypeTXT, absentProof("0.ed.test")), Bogus, "made from a wildcard", false},
		{"hashed wildcard without proof", "x.w.n3.test", dns.TypeTXT, on("x.w.n3.test", dns.TypeTXT, func(_ *world, m *dns.Msg) { m.Ns = nil }), Bogus, "made from a wildcard", false},
		{"opt-out switched on", "nothing.n3.test", dns.TypeTXT, func(_ *world, m *dns.Msg) {
			for _, rr := range m.Ns {
				if n, ok := rr.(*dns.NSEC3); ok {
					n.Flags = 1
				}
			}
		}, Bogus, "wrong signature", false},
		{"iterations raised", "nothing.n3.test", dns.TypeTXT, func(_ *world, m *dns.Msg) {
			for _, rr := range m.Ns {
				if n, ok := rr.(*dns.NSEC3); ok {
					n.Iterations = 5000
				}
			}
		}, Bogus, "wrong signature", false},
		{"TTL raised", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			for _, rr := range m.Answer {
				rr.Header().Ttl = 86400
			}
		}), Secure, "", false},
		{"a few wrong signatures before the right one", ed, dns.TypeTXT, on(ed, dns.TypeTXT, garbage(maxSigsPerSet-1)), Secure, "", true},
		{"many wrong signatures before the right one", ed, dns.TypeTXT, on(ed, dns.TypeTXT, garbage(maxSigsPerSet)), Bogus, "wrong signature", true},
		{"a flood of keys", ed, dns.TypeTXT, on("ed.test", dns.TypeDNSKEY, func(_ *world, m *dns.Msg) {
			for i := range maxKeysPerZone {
				k := dns.Copy(f.key).(*dns.DNSKEY)
				k.Flags = 256 + uint16(i)<<1
				m.Answer = append(m.Answer, k)
			}
		}), Indeterminate, "limits", true},
		{"another's answer", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(w *world, m *dns.Msg) { m.Answer = w.truth("_dx.p256.test", dns.TypeTXT).Answer }), Bogus, "absent without proof", true},
		{"another question", ed, dns.TypeTXT, func(_ *world, m *dns.Msg) { m.Question[0].Name = "_dx.p256.test." }, Indeterminate, "does not fit", true},
		{"refused", ed, dns.TypeTXT, func(_ *world, m *dns.Msg) { m.Rcode = dns.RcodeRefused }, Indeterminate, "REFUSED", true},
		{"a failure with its code", ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			m.Rcode = dns.RcodeServerFailure
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 22, ExtraText: "secret words"}}
		}, Indeterminate, "SERVFAIL (EDE 22)", true},
		{"a server that does not recurse", ed, dns.TypeTXT, func(_ *world, m *dns.Msg) { m.RecursionAvailable = false }, Indeterminate, "does not recurse", true},
		{"too many records", ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			for range maxRecords {
				m.Ns = append(m.Ns, mustRR("ed.test. 5 IN NS ns."))
			}
		}, Indeterminate, "limits", true},
		{"a thousand texts", ed, dns.TypeTXT, on(ed, dns.TypeTXT, func(_ *world, m *dns.Msg) {
			for range maxSetRecords {
				m.Answer = append(m.Answer, mustRR(ed+`. 5 IN TXT "v"`))
			}
		}), Indeterminate, "limits", true},
		{"an unsigned zone made up", "_dx.plain.test", dns.TypeTXT, spoilText, Insecure, "", false},
	}
}

// absentProof puts the proof that another name is absent in place of the answer's.
func absentProof(name string) func(*world, *dns.Msg) {
	return func(w *world, m *dns.Msg) { m.Ns = w.truth(name, dns.TypeTXT).Ns }
}

func TestLies(t *testing.T) {
	w := newWorld(t)
	for _, l := range lies(t) {
		t.Run(l.name, func(t *testing.T) {
			w.fresh(t)
			w.lie = func(m *dns.Msg) { l.do(w, m) }
			if l.want == Secure || l.want == Insecure {
				check(t, w, l.ask, l.typ, l.want, 1, "")
				return
			}
			check(t, w, l.ask, l.typ, l.want, 0, l.why)
			w.lie = nil
			w.now = w.now.Add(failureTTL)
			check(t, w, l.ask, l.typ, Secure, -1, "") // no lie stays in a cache
		})
	}
}

// TestLiesJudgedByUnbound tells the same lies to Unbound.
func TestLiesJudgedByUnbound(t *testing.T) {
	testpeer.Require(t, "unbound")
	w := newWorld(t)
	b := testpeer.New(t)
	for i, l := range lies(t) {
		if l.solo {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for Unbound to start
			server := serveLies(t, w, l.do)
			u, err := b.Unbound(t.Context(), fmt.Sprintf("unbound-%d", i), address(t, b), w.tree.Anchor(), server, w.tree.Names())
			if err != nil {
				t.Fatal(err)
			}
			defer u.Stop()
			if judge := unboundSays(t, u.Addr, l.ask, l.typ); judge.state != l.want {
				t.Errorf("Unbound says %v; we want %v", judge, l.want)
			}
		})
	}
}

// serveLies answers over UDP and TCP for the tree, with a lie.
func serveLies(t *testing.T, w *world, tell func(*world, *dns.Msg)) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		r := &recorder{tcp: true}
		w.tree.ServeDNS(r, q)
		wire, err := r.m.Pack()
		m := new(dns.Msg)
		if err != nil || m.Unpack(wire) != nil {
			return
		}
		tell(w, m)
		if _, ok := rw.RemoteAddr().(*net.UDPAddr); ok {
			m.Truncate(1232)
		}
		_ = rw.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{Listener: tcp, Handler: h}, {PacketConn: udp, Handler: h}} {
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return tcp.Addr().String()
}

// TestSecondOpinion: what the first resolver serves as bogus, the second serves right.
func TestSecondOpinion(t *testing.T) {
	w := newWorld(t)
	w.dns.servers = []string{"192.0.2.1:53", "192.0.2.2:53"}
	honest := w.dns.exchange
	var asked []string
	w.dns.exchange = func(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
		asked = append(asked, server)
		m, err := honest(ctx, network, server, q)
		if err == nil && server == "192.0.2.1:53" {
			spoilText(w, m)
		}
		return m, err
	}
	check(t, w, "_dx.ed.test", dns.TypeTXT, Secure, 1, "")
	if !slices.Contains(asked, "192.0.2.1:53") || !slices.Contains(asked, "192.0.2.2:53") {
		t.Errorf("asked %v", asked)
	}
}

// TestFailOver: one resolver is dead; the other is asked, and preferred from then on.
func TestFailOver(t *testing.T) {
	w := newWorld(t)
	w.dns.servers = []string{"192.0.2.1:53", "192.0.2.2:53"}
	honest := w.dns.exchange
	dead := 0
	w.dns.exchange = func(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
		if server == "192.0.2.1:53" {
			dead++
			return nil, errors.New("time-out")
		}
		return honest(ctx, network, server, q)
	}
	check(t, w, "_dx.ed.test", dns.TypeTXT, Secure, 1, "")
	if dead != 1 {
		t.Errorf("the dead resolver was asked %d times", dead)
	}
}

// TestBudget holds the KeyTrap bounds: a zone that wants more work gets none of it.
func TestBudget(t *testing.T) {
	f := newForger(t, "ed.test.")
	rr := mustRR(`ed.test. 5 IN TXT "x"`)
	set := &rrset{name: "ed.test.", typ: dns.TypeTXT, rrs: []dns.RR{rr}}
	var keys []zoneKey
	for range 100 { // as if all their tags were one
		keys = append(keys, zoneKey{f.key.KeyTag(), newForger(t, "ed.test.").key})
	}
	for range 100 {
		set.sigs = append(set.sigs, f.sign(rr))
	}
	b := newBudget(time.Now(), 0)
	if _, err := verifySet(b, set, "ed.test.", keys); !isBogus(err) {
		t.Errorf("%v", err)
	}
	if done := maxSignatures - b.signatures; done > maxSigsPerSet*maxKeysPerTag {
		t.Errorf("%d signatures checked for one set", done)
	}
	b.signatures = 3
	if _, err := verifySet(b, set, "ed.test.", keys); !errors.Is(err, errLimit) {
		t.Errorf("beyond the budget: %v", err)
	}
	n := &dns.NSEC3{Hdr: dns.RR_Header{Name: "0123456789abcdefghijklmnopqrstuv.ed.test.", Rrtype: dns.TypeNSEC3, Class: dns.ClassINET}, Hash: 1, Iterations: maxIterations,
		HashLength: 20, NextDomain: "0123456789ABCDEFGHIJKLMNOPQRSTUV"}
	p, _, err := newNSEC3Proof(b, "ed.test.", []*dns.NSEC3{n})
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("a.", 110) + "ed.test."
	p.denies(deep, dns.TypeTXT)
	p.denies("b."+deep, dns.TypeTXT)
	if p.denies("c."+deep, dns.TypeTXT); maxHashes-b.hashes > maxHashes || b.hashes < 0 {
		t.Errorf("%d hashes left", b.hashes)
	}
	b.hashes = 5
	p.hashes = map[string]string{}
	if p.denies(deep, dns.TypeTXT); !errors.Is(p.err, errLimit) || b.hashes != 0 {
		t.Errorf("%v, %d hashes left", p.err, b.hashes)
	}
}

package resolver

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// lieWire has the answers to one question replaced by wire octets. What does not parse is no answer.
func lieWire(w *world, name string, typ uint16, wire func(truth []byte) []byte) {
	lie := on(name, typ, func(_ *world, m *dns.Msg) {
		truth, err := m.Pack()
		if err != nil {
			panic(err)
		}
		forged := new(dns.Msg)
		if forged.Unpack(wire(truth)) != nil {
			forged = &dns.Msg{} // fits no question
		}
		*m = *forged
	})
	w.lie = func(m *dns.Msg) { lie(w, m) }
}

// questions are those whose answers are forged while _dx.ed.test or nothing.n3.test is looked up.
var forgeable = []struct {
	ask, name string
	askType   uint16
	typ       uint16
}{
	{"_dx.ed.test", "_dx.ed.test", dns.TypeTXT, dns.TypeTXT},
	{"_dx.ed.test", "ed.test", dns.TypeTXT, dns.TypeDS},
	{"_dx.ed.test", "ed.test", dns.TypeTXT, dns.TypeDNSKEY},
	{"nothing.n3.test", "nothing.n3.test", dns.TypeTXT, dns.TypeTXT},
	{"nothing.ed.test", "nothing.ed.test", dns.TypeTXT, dns.TypeTXT},
	{"x.w.ed.test", "x.w.ed.test", dns.TypeTXT, dns.TypeTXT},
	{"al.dn.ed.test", "al.dn.ed.test", dns.TypeA, dns.TypeA},
	{"_dx.signed.opt.test", "signed.opt.test", dns.TypeTXT, dns.TypeDS},
}

// believe looks the question up and checks that nothing but the truth is believed.
func believe(t *testing.T, w *world, name string, typ uint16, texts []string) {
	t.Helper()
	began := w.asks
	a, err := w.dns.Lookup(t.Context(), name, typ)
	if n := w.asks - began; n > maxQueries*maxTries*2 {
		t.Errorf("%d queries", n)
	}
	if err != nil {
		if _, ok := errors.AsType[*DNSError](err); !ok {
			t.Errorf("error %T", err)
		}
		return
	}
	if a.State != Secure {
		t.Errorf("%s is %v because %q: it lies in a signed zone", name, a.State, a.Why)
	}
	var got []string
	for _, rr := range a.Records {
		rr = dns.Copy(rr)
		rr.Header().Ttl = 5
		got = append(got, strings.ToLower(rr.String()))
	}
	if slices.Sort(got); !slices.Equal(slices.Compact(got), texts) {
		t.Errorf("believed %q; the truth is %q", got, texts)
	}
}

// textsOf is the truth.
func textsOf(t testing.TB, w *world, name string, typ uint16) []string {
	t.Helper()
	w.fresh(t)
	w.lie = nil
	a, err := w.dns.Lookup(t.Context(), name, typ)
	if err != nil || a.State != Secure {
		t.Fatalf("%s: %+v, %v", name, a, err)
	}
	var out []string
	for _, rr := range a.Records {
		out = append(out, strings.ToLower(rr.String()))
	}
	slices.Sort(out)
	return out
}

// FuzzAnswer replaces one answer of a signed zone by arbitrary octets, or flips some of the real ones: three octets of
// data are a place and what it is changed by.
func FuzzAnswer(f *testing.F) {
	w := newWorld(f)
	var truths [][]string
	for i, q := range forgeable {
		truths = append(truths, textsOf(f, w, q.ask, q.askType))
		wire, err := w.truth(q.name, q.typ).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), false, wire)
		f.Add(uint8(i), true, []byte{0, 3, 1})
		f.Add(uint8(i), true, []byte{0, 60, 255, 0, 100, 1})
	}
	f.Fuzz(func(t *testing.T, which uint8, flip bool, data []byte) {
		i := int(which) % len(forgeable)
		q := forgeable[i]
		w.fresh(t)
		lieWire(w, q.name, q.typ, func(truth []byte) []byte {
			if !flip {
				return data
			}
			return flipped(truth, data)
		})
		believe(t, w, q.ask, q.askType, truths[i])
	})
}

func flipped(truth, data []byte) []byte {
	out := slices.Clone(truth)
	for ; len(data) >= 3; data = data[3:] {
		out[(int(data[0])<<8|int(data[1]))%len(out)] ^= data[2]
	}
	return out
}

// TestFlippedAnswers flips octets of real answers at random: a part of FuzzAnswer that every run has.
func TestFlippedAnswers(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().Unix()/86400)))
	for i, q := range forgeable {
		truth := textsOf(t, w, q.ask, q.askType)
		for range 60 {
			data := make([]byte, 3*(1+rng.IntN(2)))
			for j := range data {
				data[j] = byte(rng.Uint32())
			}
			w.fresh(t)
			lieWire(w, q.name, q.typ, func(wire []byte) []byte { return flipped(wire, data) })
			believe(t, w, q.ask, q.askType, truth)
			if t.Failed() {
				t.Fatalf("question %d, flips %x", i, data)
			}
		}
	}
}

func FuzzStaple(f *testing.F) {
	ca := newCA(f, "Test CA")
	leaf := ca.issue(f, newKey(f), "dx.alpha.test", nil)
	f.Add([]byte{0x30, 3, 0x0a, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := readStaple(leaf, ca.cert, b, time.Now()); r == RevocationGood || r == RevocationRevoked {
			t.Errorf("%v without a signature of the CA", r)
		}
	})
}

func FuzzAnchors(f *testing.F) {
	f.Add(rootAnchors)
	f.Add(". IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=")
	f.Add("; nothing\n")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAnchors(strings.NewReader(s))
		if err == nil && len(a.byZone) == 0 {
			t.Error("no anchor and no error")
		}
	})
}

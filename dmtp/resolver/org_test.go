package resolver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp/signet"

	"github.com/miekg/dns"
)

func TestOrg(t *testing.T) {
	tests := []struct {
		name    string
		domain  string
		arrange func(t *testing.T, n *network, o *org)
		verdict error
		why     string
		alarm   string
		check   func(t *testing.T, n *network, d *Domain)
	}{
		{"signed, self-signed certificate", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			if d.State != Secure || d.FirstUse || d.Evidence.Certificate.TLS != TLSMatches || len(d.Evidence.Chain) != 7 || d.Evidence.OrgSignet == "" {
				t.Errorf("%+v, evidence %+v", d, d.Evidence)
			}
		}},
		{"unsigned, CA-issued certificate", "plain.test", func(t *testing.T, n *network, o *org) {
			o.cert = n.ca.issue(t, o.tlsKey, "dx.plain.test", nil)
			n.publish(t, o, txt("pok="+pok(o.pair)+" dx=dx.plain.test"))
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			if d.State != Insecure || !d.FirstUse || d.Evidence.Certificate.TLS != TLSAbsent {
				t.Errorf("%+v", d)
			}
		}},
		{"unsigned, self-signed certificate", "plain.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.plain.test")))
		}, ErrUntrusted, "self-signed", "certificate", nil},
		{"no record, proved", "alpha.test", func(t *testing.T, n *network, o *org) { n.publish(t, o) }, ErrNotDIME, "proved", "", nil},
		{"no record, unsigned", "plain.test", func(t *testing.T, n *network, o *org) { n.publish(t, o) }, ErrNotDIME, "unsigned", "", nil},
		{"no domain", "nowhere.test", func(t *testing.T, n *network, o *org) {}, ErrNotDIME, "proved", "", nil},
		{"other TXT", "alpha.test", func(t *testing.T, n *network, o *org) { n.publish(t, o, `_dx TXT "v=spf1 -all"`) }, ErrNotDIME, "proved", "", nil},
		{"other TXT beside it", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, `_dx TXT "v=spf1 -all"`, txt(o.record("dx=dx.alpha.test")))
		}, nil, "", "", nil},
		{"alias", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, `_dx CNAME rec`, strings.Replace(txt(o.record("dx=dx.alpha.test")), "_dx", "rec", 1))
		}, nil, "", "", nil},
		{"two records", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")), txt("pok="+pok(o.pair)))
		}, ErrDoubtful, "ambiguous", "record", nil},
		{"unparsable", "alpha.test", func(t *testing.T, n *network, o *org) { n.publish(t, o, txt("ver=2 pok="+pok(o.pair))) }, ErrDoubtful, "unsupported-version", "record", nil},
		{"no DNS", "alpha.test", func(t *testing.T, n *network, o *org) { n.down = true }, ErrDoubtful, "indeterminate", "", nil},
		{"bogus", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")))
			if err := n.tree.Spoil("_dx.alpha.test", dns.TypeTXT); err != nil {
				t.Fatal(err)
			}
		}, ErrDoubtful, "wrong signature", "record", nil},
		{"two hosts, the first is down", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=a.alpha.test dx=dx.alpha.test")))
		}, nil, "", "", nil},
		{"two hosts, the first has a wrong certificate", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=a.alpha.test dx=dx.alpha.test")))
			n.dx["a.alpha.test"] = newOrg(t, "evil.test")
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			if r := d.Evidence.Refused; len(r) != 1 || r[0].Host != "a.alpha.test" || d.Evidence.Certificate.Host != "dx.alpha.test" {
				t.Errorf("evidence %+v", d.Evidence)
			}
		}},
		{"no host answers", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=a.alpha.test")))
		}, ErrTemporary, "no DX", "", nil},
		{"MX", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")), "@ MX 30 d", "@ MX 20 dx", "@ MX 10 a", "@ MX 40 e")
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			want := []Host{{"a.alpha.test", true, "mx"}, {"dx.alpha.test", true, "mx"}, {"d.alpha.test", true, "mx"}, {"alpha.test", false, "domain"}}
			if !slices.Equal(d.Hosts, want) || *d.Evidence.MX != Secure {
				t.Errorf("hosts %v", d.Hosts)
			}
		}},
		{"no MX", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")))
			n.dx["alpha.test"] = o
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			if !slices.Equal(d.Hosts, []Host{{"alpha.test", false, "domain"}}) {
				t.Errorf("hosts %v", d.Hosts)
			}
		}},
		{"null MX", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")), "@ MX 0 .")
			n.dx["alpha.test"] = o
		}, nil, "", "", func(t *testing.T, n *network, d *Domain) {
			if !slices.Equal(d.Hosts, []Host{{"alpha.test", false, "domain"}}) {
				t.Errorf("hosts %v", d.Hosts)
			}
		}},
		{"MX by an alias into an unsigned zone", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("")), "@ MX 10 dx")
			n.world.lie = func(m *dns.Msg) { // no zone may hold such an alias at its top, but an answer may
				if m.Question[0].Qtype == dns.TypeMX && m.Question[0].Name == "alpha.test." {
					m.Answer = nil
				}
			}
		}, ErrDoubtful, "MX", "", nil},
		{"signet of another domain", "alpha.test", func(t *testing.T, n *network, o *org) {
			o.sign("bravo.test")
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
		}, ErrUntrusted, "another's", "substitution", nil},
		{"signet of another key", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			o.raw["alpha.test"] = newOrg(t, "alpha.test").signet.Bytes()
		}, ErrUntrusted, "not in the management record", "substitution", nil},
		{"signet without a name", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			cut, err := o.signet.Cut(signet.Full)
			if err != nil {
				t.Fatal(err)
			}
			o.raw["alpha.test"] = cut.Bytes()
		}, ErrUntrusted, "no name", "substitution", nil},
		{"user signet", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			o.raw["alpha.test"] = o.user("alice@alpha.test", newPair(t), nil).Bytes()
		}, ErrUntrusted, "organizational signet was wanted", "substitution", nil},
		{"noise for a signet", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			o.raw["alpha.test"] = []byte("noise")
		}, ErrGarbled, "", "", nil},
		{"no signet", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			delete(o.served, "alpha.test")
		}, ErrUntrusted, "no org signet", "record", nil},
		{"the DX refuses", "alpha.test", func(t *testing.T, n *network, o *org) {
			n.publish(t, o, txt(o.record("dx=dx.alpha.test")))
			o.fail = errors.New("570 refused")
		}, ErrTemporary, "570", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			tt.arrange(t, n, newOrg(t, tt.domain))
			d, err := n.r.Org(t.Context(), strings.ToUpper(tt.domain)+".")
			e := verdict(t, err, tt.verdict, tt.why)
			n.alarmed(t, tt.alarm)
			if e != nil && e.Evidence == nil {
				t.Error("no evidence")
			}
			if d != nil && (d.Name != tt.domain || d.Signet == nil || d.Evidence.Record == "") {
				t.Errorf("%+v", d)
			}
			if tt.check != nil {
				tt.check(t, n, d)
			}
		})
	}
}

// ready is a network with one organisation that was looked up once.
func ready(t *testing.T, domain, more string) (*network, *org) {
	t.Helper()
	n := newNetwork(t)
	o := newOrg(t, domain)
	if domain == "plain.test" {
		o.cert = n.ca.issue(t, o.tlsKey, "dx.plain.test", nil)
	}
	n.publish(t, o, txt(o.record("dx=dx."+domain+" "+more)))
	if _, err := n.r.Org(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	n.asked, n.connect, n.alarms = nil, nil, nil
	return n, o
}

func TestOrgCache(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	look := func(want error, asked ...string) *Domain {
		t.Helper()
		n.asked = nil
		d, err := n.r.Org(t.Context(), "alpha.test")
		verdict(t, err, want, "")
		if !slices.Equal(n.asked, asked) {
			t.Errorf("asked %q; want %q", n.asked, asked)
		}
		return d
	}
	queries := n.asks
	n.later(5*time.Minute - time.Second)
	look(nil)
	if n.asks != queries {
		t.Error("DNS was asked within the soft time")
	}
	n.later(2 * time.Second)
	look(nil) // the record alone
	if n.asks == queries {
		t.Error("DNS was not asked after the soft time")
	}
	n.later(6 * time.Hour)
	if d := look(nil, "VRFY alpha.test"); !same(d.Signet, o.signet) || d.Evidence.OrgSignet == "" || d.Evidence.Certificate == nil {
		t.Errorf("%+v", d)
	}
	o.sign("alpha.test", signet.Field{ID: signet.FieldName, Value: []byte("Alpha")})
	n.later(6*time.Hour + time.Second)
	if d := look(nil, "VRFY alpha.test", "SGNT alpha.test"); !same(d.Signet, o.signet) || d.Evidence.Continuity == "" {
		t.Error("the new org signet was not taken")
	}
	n.alarmed(t, "")

	n.down = true // nobody answers: what is known serves until its hard time
	n.later(29 * 24 * time.Hour)
	look(nil)
	look(nil)
	n.down = false
	o.fail = errors.New("451")
	n.later(12 * time.Hour)
	look(nil, "VRFY alpha.test", "SGNT alpha.test")
	n.later(time.Hour)
	n.down = true
	n.later(24 * time.Hour)
	look(ErrDoubtful)
	n.down, o.fail = false, nil
	look(ErrDoubtful)                                    // for half a minute
	n.r.Retry("alpha.test", n.r.now().Add(-time.Second)) // who asked for it before it failed has had his try
	look(ErrDoubtful)
	n.later(failureTTL)
	n.r.Retry("bob@alpha.test", n.r.now()) // somebody mended it
	look(nil, "SGNT alpha.test")

	if err := n.tree.Spoil("_dx.alpha.test", dns.TypeTXT); err != nil { // bogus says something against what is known
		t.Fatal(err)
	}
	n.later(6 * time.Minute)
	look(ErrDoubtful)

	n, _ = ready(t, "alpha.test", "exp=2")
	n.later(47 * time.Hour)
	n.down = true
	if _, err := n.r.Org(t.Context(), "alpha.test"); err != nil {
		t.Errorf("within exp: %v", err)
	}
	n.later(time.Hour)
	if _, err := n.r.Org(t.Context(), "alpha.test"); err == nil {
		t.Error("a record was used after its exp")
	}
	n, _ = ready(t, "alpha.test", "")
	n.now = n.now.Add(-time.Hour) // the clock goes back
	if look(nil, "SGNT alpha.test") == nil {
		t.Error("no answer")
	}
}

// TestKeyChange walks through the rows of dmtp chapter 8.10 about organisations, over restarts.
func TestKeyChange(t *testing.T) {
	look := func(t *testing.T, n *network, domain string, want error, why string) *Error {
		t.Helper()
		n.restart(t) // pins survive, caches do not
		_, err := n.r.Org(t.Context(), domain)
		return verdict(t, err, want, why)
	}
	renew := func(t *testing.T, n *network, o *org, more string) *org { // the same DX with a new POK
		next := newOrg(t, o.domain)
		next.cert, next.tlsKey = o.cert, o.tlsKey
		n.publish(t, next, txt(next.record("dx=dx."+o.domain+" "+more)))
		return next
	}
	t.Run("org signet changed, same POK", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=strict")
		o.sign("plain.test", signet.Field{ID: signet.FieldName, Value: []byte("Plain")})
		look(t, n, "plain.test", nil, "")
		n.alarmed(t, "")
		if p, _ := n.store.Pin(t.Context(), "plain.test"); len(p.Orgs) != 2 || p.Orgs[1].How != OrgRotated.String() {
			t.Errorf("pin %+v", p)
		}
	})
	t.Run("POK changed, secure", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "pol=strict")
		renew(t, n, o, "")
		look(t, n, "alpha.test", nil, "")
		n.alarmed(t, "key change")
		n.later(2 * time.Hour)
		look(t, n, "alpha.test", nil, "")
		n.alarmed(t, "")
	})
	t.Run("POK changed, insecure, strict", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=strict")
		renew(t, n, o, "pol=experimental") // the forger's own policy does not count
		e := look(t, n, "plain.test", ErrUntrusted, "POK changed")
		n.alarmed(t, "key change")
		if e.Change == nil || e.Change.Life != 72*time.Hour || e.Change.Enhanced != "5.7.5" {
			t.Errorf("%+v", e.Change)
		}
		n.later(200 * time.Hour)
		look(t, n, "plain.test", ErrUntrusted, "POK changed")
	})
	t.Run("POK changed, insecure, experimental", func(t *testing.T) {
		n, o := ready(t, "plain.test", "")
		renew(t, n, o, "")
		look(t, n, "plain.test", ErrUntrusted, "")
		n.later(4*time.Hour - time.Second)
		look(t, n, "plain.test", ErrUntrusted, "")
		n.later(time.Second)
		look(t, n, "plain.test", nil, "")
		n.alarmed(t, "key change")
	})
	t.Run("POK changed and back: the clock starts anew", func(t *testing.T) {
		n, o := ready(t, "plain.test", "")
		other := renew(t, n, o, "")
		look(t, n, "plain.test", ErrUntrusted, "")
		n.publish(t, o, txt(o.record("dx=dx.plain.test")))
		n.later(3 * time.Hour)
		look(t, n, "plain.test", nil, "")
		n.publish(t, other, txt(other.record("dx=dx.plain.test")))
		n.later(3 * time.Hour)
		look(t, n, "plain.test", ErrUntrusted, "")
	})
	t.Run("listed beside, insecure", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=mixed")
		next := newOrg(t, "plain.test")
		next.cert, next.tlsKey = o.cert, o.tlsKey
		both := "pok=" + pok(o.pair) + " pok=" + pok(next.pair) + " dx=dx.plain.test pol=mixed"
		n.publish(t, o, txt(both))
		look(t, n, "plain.test", nil, "") // still signed by the old one
		n.publish(t, next, txt(both))
		look(t, n, "plain.test", ErrUntrusted, "POK changed") // the two-step forgery: no shorter than the one-step one
		n.later(24 * time.Hour)
		look(t, n, "plain.test", nil, "")
		n.alarmed(t, "key change")
	})
	t.Run("listed beside for long, insecure", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=strict")
		next := newOrg(t, "plain.test")
		next.cert, next.tlsKey = o.cert, o.tlsKey
		both := "pok=" + pok(o.pair) + " pok=" + pok(next.pair) + " dx=dx.plain.test pol=strict"
		n.publish(t, o, txt(both))
		look(t, n, "plain.test", nil, "")
		n.later(72 * time.Hour)
		look(t, n, "plain.test", nil, "")
		n.publish(t, next, txt("pok="+pok(next.pair)+" dx=dx.plain.test pol=strict"))
		look(t, n, "plain.test", nil, "")
		n.alarmed(t, "")
	})
	t.Run("listed beside, secure", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "")
		next := newOrg(t, "alpha.test")
		next.cert, next.tlsKey = o.cert, o.tlsKey
		n.publish(t, o, txt(o.record("dx=dx.alpha.test pok="+pok(next.pair))))
		look(t, n, "alpha.test", nil, "")
		n.publish(t, next, txt(next.record("dx=dx.alpha.test")))
		look(t, n, "alpha.test", nil, "")
		n.alarmed(t, "") // a roll-over as it should be
	})
	t.Run("record vanished, proved", func(t *testing.T) {
		for policy, want := range map[string][3]error{ // at once, after 24 h, after 72 h
			"strict": {ErrVanished, ErrVanished, ErrVanished}, "mixed": {ErrVanished, ErrNotDIME, ErrNotDIME}, "experimental": {ErrNotDIME, ErrNotDIME, ErrNotDIME},
		} {
			n, o := ready(t, "alpha.test", "pol="+policy)
			n.publish(t, o)
			for i, after := range []time.Duration{0, 24 * time.Hour, 48 * time.Hour} {
				n.later(after)
				if e := look(t, n, "alpha.test", want[i], "proved"); e.Change == nil || want[i] == ErrVanished && e.Change.Life != 72*time.Hour {
					t.Errorf("%s: %+v", policy, e.Change)
				}
			}
		}
	})
	t.Run("record vanished, not proved", func(t *testing.T) {
		n, o := ready(t, "plain.test", "exp=10")
		n.publish(t, o)
		for range 2 {
			e := look(t, n, "plain.test", ErrVanished, "not proved")
			n.alarmed(t, "vanished")
			if e.Change.Life != 120*time.Hour {
				t.Errorf("%+v", e.Change)
			}
			n.later(9 * 24 * time.Hour)
		}
		look(t, n, "plain.test", ErrNotDIME, "unsigned") // its memory has ended
	})
	t.Run("record vanished, override", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=strict")
		n.publish(t, o)
		p, _ := n.store.Pin(t.Context(), "plain.test")
		p.Overrides = []*Override{{What: OverrideVanished, Until: n.now.Add(time.Hour), By: "admin"}}
		if err := n.store.SetPin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		look(t, n, "plain.test", ErrNotDIME, "override")
		n.later(time.Hour)
		look(t, n, "plain.test", ErrVanished, "")
	})
	t.Run("record back", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "pol=mixed")
		n.publish(t, o)
		look(t, n, "alpha.test", ErrVanished, "")
		n.publish(t, o, txt(o.record("dx=dx.alpha.test pol=mixed")))
		n.later(23 * time.Hour)
		look(t, n, "alpha.test", nil, "")
		n.publish(t, o)
		n.later(2 * time.Hour)
		look(t, n, "alpha.test", ErrVanished, "") // its time begins anew
	})
	t.Run("secure, then insecure", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "")
		unsign(t, n, o)
		look(t, n, "alpha.test", ErrDoubtful, "not signed now")
		n.alarmed(t, "downgrade")
		n.later(7*24*time.Hour - time.Second)
		look(t, n, "alpha.test", ErrDoubtful, "not signed now")
		n.later(time.Second)
		look(t, n, "alpha.test", nil, "")
	})
	t.Run("secure, then insecure and without a record", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "")
		unsign(t, n, o)
		if err := n.tree.Set("alpha.test"); err != nil {
			t.Fatal(err)
		}
		look(t, n, "alpha.test", ErrDoubtful, "not signed now")
	})
	t.Run("secure, then insecure, override", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "")
		unsign(t, n, o)
		p, _ := n.store.Pin(t.Context(), "alpha.test")
		p.Overrides = []*Override{{What: OverrideUnsigned, Until: n.now.Add(time.Hour)}}
		if err := n.store.SetPin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		look(t, n, "alpha.test", nil, "")
	})
	t.Run("accepted by hand while it is looked at", func(t *testing.T) {
		n, o := ready(t, "plain.test", "pol=strict")
		next := renew(t, n, o, "pol=strict")
		look(t, n, "plain.test", ErrUntrusted, "POK changed")
		n.later(time.Hour)
		n.restart(t)
		accepted := false
		n.rewrite = func(verb, name string) error { // between the reading of the pin and its writing
			if accepted {
				return nil
			}
			accepted = true
			p, _ := n.store.Pin(t.Context(), "plain.test")
			p.pok(next.pair.Signing.Public()).Trusted = true
			return n.store.SetPin(t.Context(), p)
		}
		if _, err := n.r.Org(t.Context(), "plain.test"); err != nil || !accepted {
			t.Errorf("%v", err)
		}
	})
	t.Run("store fails", func(t *testing.T) {
		n, _ := ready(t, "alpha.test", "")
		store := n.r.c.Store
		n.r.c.Store = brokenStore{}
		n.later(time.Hour)
		n.r.domains.forget("alpha.test")
		_, err := n.r.Org(t.Context(), "alpha.test")
		verdict(t, err, ErrTemporary, "pins")
		n.r.c.Store = store // mended: a fault of ours is not held against the domain
		if _, err := n.r.Org(t.Context(), "alpha.test"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a year passes", func(t *testing.T) {
		n, o := ready(t, "plain.test", "")
		n.later(365 * 24 * time.Hour)
		renew(t, n, o, "")
		look(t, n, "plain.test", ErrUntrusted, "POK changed") // pins have no end
		n2, o2 := ready(t, "plain.test", "")
		n2.now = n2.now.Add(-365 * 24 * time.Hour)
		renew(t, n2, o2, "")
		n2.restart(t)
		if _, err := n2.r.Org(t.Context(), "plain.test"); err == nil {
			t.Error("accepted with a clock of last year")
		}
	})
}

// unsign takes the DS and the signatures of an org's zone away, by its parent's hand.
func unsign(t *testing.T, n *network, o *org) {
	t.Helper()
	o.cert = n.ca.issue(t, o.tlsKey, "dx."+o.domain, nil)
	other := newNetworkWithout(t, o.domain)
	if err := other.tree.Set(o.domain, txt(o.record("dx=dx."+o.domain))); err != nil {
		t.Fatal(err)
	}
	n.world.tree = other.tree
	anchors, err := ParseAnchors(strings.NewReader(other.tree.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	n.world.dns.anchors = anchors
}

type brokenStore struct{}

func (brokenStore) Pin(context.Context, string) (*Pin, error) { return nil, errors.New("disk full") }
func (brokenStore) SetPin(context.Context, *Pin) error        { return errors.New("disk full") }

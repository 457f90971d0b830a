package resolver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	namespace "dimegate/internal/zone"

	"github.com/miekg/dns"
)

// mailWorld is domains with every kind of MX and TLSA records, in a signed zone, an unsigned and one of spoilt signatures.
func mailWorld(t *testing.T) *world {
	t.Helper()
	records := []string{
		"@ MX 20 B.mx", "@ MX 10 a.mx", "@ MX 20 c.mx", "@ MX 5 bad_name.mx", "null MX 0 .", "half MX 0 .", "half MX 10 a.mx",
		"away MX 10 mx.plain.test.", "alias CNAME @",
		"_25._tcp.a.mx TLSA 3 1 1 " + strings.Repeat("ab", 32), "_25._tcp.a.mx TLSA 2 0 2 " + strings.Repeat("cd", 64),
		"_25._tcp.b.mx CNAME _25._tcp.a.mx", "_25._tcp.c.mx CNAME _25._tcp.a.mx.plain.test.",
	}
	w := newWorld(t, namespace.Zone{Name: "signed.test", Algorithm: dns.ED25519, Records: records},
		namespace.Zone{Name: "spoilt.test", Algorithm: dns.ED25519, Records: records}, namespace.Zone{Name: "plain.test", Records: records},
		namespace.Zone{Name: "old.test", Algorithm: dns.ED25519, Records: records, Inception: time.Now().Add(-48 * time.Hour), Expiration: time.Now().Add(-24 * time.Hour)})
	for name, typ := range map[string]uint16{"spoilt.test": dns.TypeMX, "_25._tcp.a.mx.spoilt.test": dns.TypeTLSA} {
		if err := w.tree.Spoil(name, typ); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func TestExchangers(t *testing.T) {
	w := mailWorld(t)
	for domain, want := range map[string]string{
		"signed.test":      "secure [10 a.mx.signed.test 20 b.mx.signed.test 20 c.mx.signed.test]",
		"plain.test":       "insecure [10 a.mx.plain.test 20 b.mx.plain.test 20 c.mx.plain.test]",
		"away.signed.test": "secure [10 mx.plain.test]",
		"null.signed.test": "secure [] null",
		"null.plain.test":  "insecure [] null",
		"half.signed.test": "secure [10 a.mx.signed.test]",
		"none.signed.test": "secure []",
		"alias.plain.test": "insecure [10 a.mx.plain.test 20 b.mx.plain.test 20 c.mx.plain.test]",
		"spoilt.test":      "bogus",
		"old.test":         "bogus",
		"null.spoilt.test": "secure [] null",
	} {
		list, null, a, err := w.dns.Exchangers(t.Context(), domain)
		got := ""
		switch {
		case errors.Is(err, ErrBogus):
			got = "bogus"
		case err != nil:
			got = err.Error()
		default:
			got = fmt.Sprintf("%v [%s]", a.State, strings.Trim(strings.ReplaceAll(strings.ReplaceAll(fmt.Sprint(list), "{", ""), "}", ""), "[]"))
			if null {
				got += " null"
			}
		}
		if got != want {
			t.Errorf("%s: %s; want %s", domain, got, want)
		}
	}
}

func TestTLSA(t *testing.T) {
	w := mailWorld(t)
	both := "3 1 1 " + strings.Repeat("ab", 32) + ", 2 0 2 " + strings.Repeat("cd", 64)
	for name, want := range map[string]string{
		"_25._tcp.a.mx.signed.test":   "secure: " + both,
		"_25._tcp.b.mx.signed.test":   "secure: " + both,
		"_25._tcp.c.mx.signed.test":   "insecure: " + both,
		"_25._tcp.a.mx.plain.test":    "insecure: " + both,
		"_587._tcp.a.mx.signed.test":  "secure: ",
		"_25._tcp.none.mx.plain.test": "insecure: ",
		"_25._tcp.a.mx.spoilt.test":   "bogus",
		"_25._tcp.a.mx.old.test":      "bogus",
		"_25._tcp.d.mx.old.test":      "bogus",
	} {
		list, a, err := w.dns.TLSA(t.Context(), name)
		got := "bogus"
		if err == nil {
			var texts []string
			for _, r := range list {
				texts = append(texts, fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data)))
			}
			got = a.State.String() + ": " + strings.Join(texts, ", ")
		} else if !errors.Is(err, ErrBogus) {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
	w.lie = func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeServerFailure, nil }
	w.fresh(t)
	if _, _, err := w.dns.TLSA(t.Context(), "_25._tcp.a.mx.signed.test"); !errors.Is(err, ErrIndeterminate) {
		t.Errorf("SERVFAIL: %v", err)
	}
}

package exchange

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"dimegate/bridge/queue"
	"dimegate/internal/testcert"
)

// floorTable has a row for every kind of server under everything that host and domain may publish: what each floor makes of
// it. A word is the protection under which the message went; a number the status under which it is held.
//
// Servers: clear offers no STARTTLS; self has a certificate of its own making; ca one that a CA issued for the MX; wrong one
// for another host; expired an old one; domain one for the recipient's domain; garbled speaks no TLS behind STARTTLS; refuses
// answers STARTTLS with 454.
const floorTable = `
nothing: an unsigned domain that publishes nothing
          opportunistic  tls        mta-sts    dane
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

signed: a signed domain without TLSA records
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

tlsa: TLSA records of the server's key, all signed
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      dane           dane       dane       dane
ca        dane           dane       dane       dane
wrong     dane           dane       dane       dane
expired   dane           dane       dane       dane
domain    dane           dane       dane       dane
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   4.7.0          4.7.0      4.7.0      4.7.0

tlsa-other: TLSA records of another key, all signed
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      5.7.5          5.7.5      5.7.5      5.7.5
ca        5.7.5          5.7.5      5.7.5      5.7.5
wrong     5.7.5          5.7.5      5.7.5      5.7.5
expired   5.7.5          5.7.5      5.7.5      5.7.5
domain    5.7.5          5.7.5      5.7.5      5.7.5
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   4.7.0          4.7.0      4.7.0      4.7.0

tlsa-unusable: TLSA records that SMTP cannot use, all signed
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

tlsa-bogus: the TLSA records' signature does not hold
clear     5.7.5          5.7.5      5.7.5      5.7.5
self      5.7.5          5.7.5      5.7.5      5.7.5
ca        5.7.5          5.7.5      5.7.5      5.7.5
wrong     5.7.5          5.7.5      5.7.5      5.7.5
expired   5.7.5          5.7.5      5.7.5      5.7.5
domain    5.7.5          5.7.5      5.7.5      5.7.5
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   5.7.5          5.7.5      5.7.5      5.7.5

mx-bogus: the MX records' signature does not hold
clear     5.7.5          5.7.5      5.7.5      5.7.5
self      5.7.5          5.7.5      5.7.5      5.7.5
ca        5.7.5          5.7.5      5.7.5      5.7.5
wrong     5.7.5          5.7.5      5.7.5      5.7.5
expired   5.7.5          5.7.5      5.7.5      5.7.5
domain    5.7.5          5.7.5      5.7.5      5.7.5
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   5.7.5          5.7.5      5.7.5      5.7.5

tlsa-unsigned: TLSA records of the server's key, nothing signed
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

hosted: an unsigned domain whose MX is a signed host with TLSA records
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      tls            tls        5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     tls            tls        5.7.4      5.7.4
expired   tls            tls        5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

sts: an unsigned domain with an MTA-STS policy in mode enforce that names the MX
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      5.7.5          5.7.5      5.7.5      5.7.4
ca        mta-sts        mta-sts    mta-sts    5.7.4
wrong     5.7.5          5.7.5      5.7.5      5.7.4
expired   5.7.5          5.7.5      5.7.5      5.7.4
domain    5.7.5          5.7.5      5.7.5      5.7.4
garbled   5.7.5          5.7.5      5.7.5      5.7.4
refuses   4.7.0          4.7.0      4.7.0      5.7.4

sts-other: a policy in mode enforce that names other hosts
clear     5.7.5          5.7.5      5.7.5      5.7.5
self      5.7.5          5.7.5      5.7.5      5.7.5
ca        5.7.5          5.7.5      5.7.5      5.7.5
wrong     5.7.5          5.7.5      5.7.5      5.7.5
expired   5.7.5          5.7.5      5.7.5      5.7.5
domain    5.7.5          5.7.5      5.7.5      5.7.5
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   5.7.5          5.7.5      5.7.5      5.7.5

sts-testing: a policy in mode testing that names other hosts
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

sts-none: a policy in mode none
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

sts-unfetched: a policy that cannot be had, and none is cached: as if there were none (RFC 8461 §3.3)
clear     clear          5.7.4      5.7.4      5.7.4
self      encrypted      5.7.5      5.7.4      5.7.4
ca        tls            tls        5.7.4      5.7.4
wrong     encrypted      5.7.5      5.7.4      5.7.4
expired   encrypted      5.7.5      5.7.4      5.7.4
domain    tls            tls        5.7.4      5.7.4
garbled   5.7.5          5.7.5      5.7.4      5.7.4
refuses   4.7.0          4.7.0      5.7.4      5.7.4

sts-unknown: DNS does not say whether there is a policy
clear     4.4.3          4.4.3      4.4.3      4.4.3
self      4.4.3          4.4.3      4.4.3      4.4.3
ca        4.4.3          4.4.3      4.4.3      4.4.3
wrong     4.4.3          4.4.3      4.4.3      4.4.3
expired   4.4.3          4.4.3      4.4.3      4.4.3
domain    4.4.3          4.4.3      4.4.3      4.4.3
garbled   4.4.3          4.4.3      4.4.3      4.4.3
refuses   4.4.3          4.4.3      4.4.3      4.4.3

both: TLSA records of the server's key, all signed, and a policy in mode enforce that names other hosts
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      dane           dane       dane       dane
ca        dane           dane       dane       dane
wrong     dane           dane       dane       dane
expired   dane           dane       dane       dane
domain    dane           dane       dane       dane
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   4.7.0          4.7.0      4.7.0      4.7.0

both-other: TLSA records of another key, all signed, and a policy in mode enforce that names the MX
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      5.7.5          5.7.5      5.7.5      5.7.5
ca        5.7.5          5.7.5      5.7.5      5.7.5
wrong     5.7.5          5.7.5      5.7.5      5.7.5
expired   5.7.5          5.7.5      5.7.5      5.7.5
domain    5.7.5          5.7.5      5.7.5      5.7.5
garbled   5.7.5          5.7.5      5.7.5      5.7.5
refuses   4.7.0          4.7.0      4.7.0      4.7.0

hosted-sts: an unsigned domain with a policy in mode enforce, whose MX is a signed host with TLSA records: both hold
clear     5.7.4          5.7.4      5.7.4      5.7.4
self      5.7.5          5.7.5      5.7.5      5.7.4
ca        mta-sts        mta-sts    mta-sts    5.7.4
wrong     5.7.5          5.7.5      5.7.5      5.7.4
expired   5.7.5          5.7.5      5.7.5      5.7.4
domain    5.7.5          5.7.5      5.7.5      5.7.4
garbled   5.7.5          5.7.5      5.7.5      5.7.4
refuses   4.7.0          4.7.0      4.7.0      5.7.4
`

// servers are the rows' kinds, by name, for a domain whose MX is mx.DOMAIN.
func serverOf(t *testing.T, w *world, kind, domain, mx string) *mailServer {
	issue := func(name string, c ...func(*testing.T) tls.Certificate) *mailServer {
		cert := w.ca.Issue(t, []string{name})
		return &mailServer{cert: &cert}
	}
	switch kind {
	case "clear":
		return &mailServer{}
	case "self":
		c := testcert.ECDSA(t, mx)
		return &mailServer{cert: &c}
	case "ca":
		return issue(mx)
	case "wrong":
		return issue("elsewhere.test")
	case "expired":
		c := w.ca.Issue(t, []string{mx}, testcert.Expired)
		return &mailServer{cert: &c}
	case "domain":
		return issue(domain)
	case "garbled":
		s := issue(mx)
		s.garbled = true
		return s
	case "refuses":
		s := issue(mx)
		s.replies = map[string]string{"STARTTLS": "454 4.7.0 not now"}
		return s
	}
	t.Fatalf("no server is called %q", kind)
	return nil
}

// TestFloors walks the table. Each cell has a server of its own; nothing of a message that is held may have reached it.
func TestFloors(t *testing.T) {
	w := newWorld(t, zones()...)
	spki := func(s *mailServer) string { return tlsa("mx", 3, 1, s.cert.Leaf) }
	other := tlsa("mx", 3, 1, testcert.ECDSA(t, "other").Leaf)
	unusable := "_25._tcp.mx TLSA 1 1 1 " + strings.Repeat("ab", 32)
	cells, blocks := 0, 0
	for block := range strings.SplitSeq(strings.TrimSpace(floorTable), "\n\n") {
		title, rows, _ := strings.Cut(block, "\n")
		name, _, _ := strings.Cut(title, ":")
		blocks++
		for row := range strings.Lines(rows) {
			f := strings.Fields(row)
			if f[0] == "opportunistic" {
				continue
			}
			domain, mx := plain, "mx."+plain
			switch name {
			case "signed", "tlsa", "tlsa-other", "tlsa-unusable", "tlsa-bogus", "mx-bogus", "both", "both-other":
				domain, mx = signed, "mx."+signed
			case "hosted", "hosted-sts":
				mx = "mx." + signed
			}
			s := w.serve(t, "192.0.2.1", serverOf(t, w, f[0], domain, mx))
			host := []string{"mx A 192.0.2.1"}
			proof := other
			if s.cert != nil {
				proof = spki(s)
			}
			switch name {
			case "tlsa", "both", "hosted", "hosted-sts", "tlsa-unsigned", "tlsa-bogus":
				host = append(host, proof)
			case "tlsa-other", "both-other":
				host = append(host, other)
			case "tlsa-unusable":
				host = append(host, unusable)
			}
			w.policies = map[string]string{domain: map[string]string{
				"sts": "enforce " + mx, "hosted-sts": "enforce *." + signed, "sts-other": "enforce elsewhere.test", "sts-testing": "testing elsewhere.test",
				"sts-none": "none", "sts-unfetched": "!", "sts-unknown": "?", "both": "enforce elsewhere.test", "both-other": "enforce " + mx,
			}[name]}
			if domain == signed || mx == "mx."+signed {
				set(t, w, signed, append(host, "@ MX 10 mx")...)
				set(t, w, plain, "@ MX 10 "+mx+".")
			} else {
				set(t, w, plain, append(host, "@ MX 10 mx")...)
			}
			if name == "tlsa-bogus" {
				spoil(t, w, "_25._tcp."+mx, 52)
			} else if name == "mx-bogus" {
				spoil(t, w, domain, 15)
			}
			w.fresh(t)
			for i, floor := range []Floor{Opportunistic, TLS, MTASTS, DANE} {
				cells++
				t.Run(fmt.Sprintf("%s/%s/%s", name, f[0], floor), func(t *testing.T) {
					before := len(s.taken())
					w.restart(t)
					got, r := w.send(t, letter(floor, "bob@"+domain))
					found, err := w.x.Check(within(t), letter(floor, "bob@"+domain), 1000)
					if err != nil {
						t.Fatal(err)
					}
					if found.Result != r {
						t.Errorf("explained %+v\nhappened  %+v", found.Result, r)
					}
					want := f[i+1]
					if strings.Contains(want, ".") {
						if _, status, _ := strings.Cut(got, " "); status != want || r.Class == queue.Done || r.Class == queue.Permanent || r.Class == queue.Unset {
							t.Errorf("%s: %s; want %s", got, r.Reason, want)
						}
						if len(s.taken()) > before || s.heard("MAIL") > before {
							t.Error("something of the message went out")
						}
						return
					}
					if got != want || len(s.taken()) != before+1 {
						t.Fatalf("%s: %s; want %s", got, r.Reason, want)
					}
					if m := s.taken()[before]; m.octets != hello || m.tls == (want == "clear") {
						t.Errorf("%+v", m)
					}
				})
			}
		}
	}
	if cells != blocks*8*4 || blocks != 18 {
		t.Errorf("%d cells of %d blocks", cells, blocks)
	}
}

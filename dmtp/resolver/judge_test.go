package resolver

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"

	"github.com/miekg/dns"
)

// A ruling is what a validator says of one name: secure, insecure or bogus, and whether the records, the type or the whole
// name are (not) there.
type ruling struct {
	state  State
	code   string // "NOERROR" or "NXDOMAIN"
	there  bool
	detail string // for the reader of a failure
}

func (r ruling) String() string {
	if r.state == Bogus {
		return "bogus (" + r.detail + ")"
	}
	return fmt.Sprintf("%v, %s, records %v (%s)", r.state, r.code, r.there, r.detail)
}

func (r ruling) same(o ruling) bool {
	return r.state == o.state && (r.state == Bogus || r.code == o.code && r.there == o.there)
}

// unboundSays asks the judge.
func unboundSays(t *testing.T, server, name string, typ uint16) ruling {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), typ)
	q.SetEdns0(1232, true)
	c := &dns.Client{Net: "tcp", Timeout: 20 * time.Second}
	m, _, err := c.Exchange(q, server)
	if err != nil {
		t.Fatal(err)
	}
	r := ruling{state: Insecure, code: dns.RcodeToString[m.Rcode], detail: extended(m)}
	switch {
	case m.Rcode == dns.RcodeServerFailure:
		r.state = Bogus
	case m.AuthenticatedData:
		r.state = Secure
	}
	for _, rr := range m.Answer {
		r.there = r.there || rr.Header().Rrtype == typ
	}
	return r
}

// weSay asks our validator.
func weSay(t *testing.T, d *DNS, name string, typ uint16) ruling {
	t.Helper()
	a, err := d.Lookup(t.Context(), dns.Fqdn(name), typ)
	if err != nil {
		if !errors.Is(err, ErrBogus) {
			t.Errorf("%s: %v", name, err)
		}
		return ruling{state: Bogus, detail: err.Error()}
	}
	r := ruling{state: a.State, code: "NOERROR", there: len(a.Records) > 0, detail: a.Why}
	if a.NoName {
		r.code = "NXDOMAIN"
	}
	return r
}

// keygen and signzone are ldns's; the key's base name comes back.
func keygen(t *testing.T, dir, alg, zone string) string {
	t.Helper()
	args := []string{"-a", alg, "-k"}
	if strings.HasPrefix(alg, "RSA") {
		args = append(args, "-b", "2048")
	}
	cmd := exec.Command("ldns-keygen", append(args, zone)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ldns-keygen %s: %v", alg, err)
	}
	return strings.TrimSpace(string(out))
}

// A zoneFile is one zone of the test: how it is signed and what is done to it.
type zoneFile struct {
	name   string
	alg    string   // ldns's name; "": unsigned
	flags  []string // of ldns-signzone
	from   time.Duration
	to     time.Duration
	after  func(signed string) string // changes the signed file
	parent func(ds string) string     // changes the DS line in the parent
}

var rrsig = regexp.MustCompile(`(?m)^_dx\.\S+\s.*\sRRSIG\s+TXT\s.*\n`)

// zoneFiles are the children of test., by what is special about them.
func zoneFiles(t *testing.T, dir string) []zoneFile {
	day := 24 * time.Hour
	good := zoneFile{from: -day, to: 20 * day, alg: "ECDSAP256SHA256"}
	with := func(name string, change func(*zoneFile)) zoneFile {
		z := good
		z.name = name
		if change != nil {
			change(&z)
		}
		return z
	}
	alg := func(a string, flags ...string) func(*zoneFile) {
		return func(z *zoneFile) { z.alg, z.flags = a, flags }
	}
	after := func(f func(string) string) func(*zoneFile) { return func(z *zoneFile) { z.after = f } }
	return []zoneFile{
		with("p256", nil), with("p384", alg("ECDSAP384SHA384")), with("ed", alg("ED25519")), with("rsa256", alg("RSASHA256")), with("rsa512", alg("RSASHA512")),
		with("n3p256", alg("ECDSAP256SHA256", "-n", "-s", "ab01", "-t", "2")), with("n3p384", alg("ECDSAP384SHA384", "-n")), with("n3ed", alg("ED25519", "-n")),
		with("n3rsa256", alg("RSASHA256", "-n")), with("n3rsa512", alg("RSASHA512", "-n")),
		with("opt", alg("ED25519", "-n", "-p")), with("most", alg("ED25519", "-n", "-t", "150")), with("many", alg("ED25519", "-n", "-t", "151")),
		with("old", func(z *zoneFile) { z.from, z.to = -20*day, -2*day }), with("young", func(z *zoneFile) { z.from, z.to = 2*day, 20*day }),
		with("wrongkey", func(z *zoneFile) {
			z.parent = func(string) string {
				b, err := exec.Command("ldns-key2ds", "-n", "-2", filepath.Join(dir, keygen(t, dir, z.alg, "wrongkey.test."))+".key").Output()
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
		}),
		with("norrsig", after(func(s string) string { return rrsig.ReplaceAllString(s, "") })),
		with("nosigs", after(func(s string) string { return regexp.MustCompile(`(?m)^.*\sRRSIG\s.*\n`).ReplaceAllString(s, "") })),
		with("nodnskey", after(func(s string) string {
			return regexp.MustCompile(`(?m)^.*\s(DNSKEY|RRSIG\s+DNSKEY)\s.*\n`).ReplaceAllString(s, "")
		})),
		with("changed", after(func(s string) string { return strings.Replace(s, `"ver=1 example"`, `"ver=1 exambple"`, 1) })),
		with("moved", after(func(s string) string { return strings.ReplaceAll(s, "192.0.2.1", "192.0.2.9") })),
		with("nods", func(z *zoneFile) { z.parent = func(string) string { return "; the DS\n" } }),
		with("plain", func(z *zoneFile) { z.alg = "" }), with("n3.deep", alg("ED25519", "-n")),
		with("sha1", alg("RSASHA1")),
	}
}

const soaLine = "3600 IN SOA ns.test. root.test. 1 3600 600 86400 60\n"

// children of a zone file: an unsigned and a signed delegation beneath it, for the ways to prove the first.
func (z zoneFile) text() string {
	var b strings.Builder
	origin := z.name + ".test."
	fmt.Fprintf(&b, "%s %s%[1]s 3600 IN NS ns.test.\n", origin, soaLine)
	for _, line := range []string{"_dx %s IN TXT \"ver=1 example\"", "mx %s IN A 192.0.2.1", "*.w %s IN TXT \"any\"", "a.b.e %s IN TXT \"x\"", "al %s IN CNAME mx.ORIGIN",
		"out %s IN CNAME mx.plain.test.", "over %s IN CNAME mx.ed.test.", "lost %s IN CNAME nothing.ORIGIN", "dn %s IN DNAME ed.test.", "*.c %s IN CNAME mx.ORIGIN",
		"bent %s IN CNAME _dx.changed.test."} {
		name, rest, _ := strings.Cut(line, " %s")
		fmt.Fprintf(&b, "%s.%s 3600%s\n", name, origin, strings.ReplaceAll(rest, "ORIGIN", origin))
	}
	fmt.Fprintf(&b, "big.%s 3600 IN TXT %s\n", origin, strings.Repeat(`"`+strings.Repeat("z", 250)+`" `, 9))
	fmt.Fprintf(&b, "open.%s 3600 IN NS ns.test.\n", origin)
	return b.String()
}

// build writes and signs the tree; zones comes back with the anchor.
func build(t *testing.T, dir string) (zones map[string]string, anchor string) {
	t.Helper()
	zones = map[string]string{}
	write := func(name, text string) string {
		file := filepath.Join(dir, strings.Trim(name, ".")+"zone")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	sign := func(name, text string, z zoneFile) (file, ds string) {
		file = write(name, text)
		if z.alg == "" {
			return file, ""
		}
		k := keygen(t, dir, z.alg, name)
		date := func(d time.Duration) string { return time.Now().UTC().Add(d).Format("20060102150405") }
		args := append([]string{"-i", date(z.from), "-e", date(z.to), "-o", name, "-f", file + ".signed"}, z.flags...)
		cmd := exec.Command("ldns-signzone", append(args, file, k)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ldns-signzone %s: %v\n%s", name, err, out)
		}
		if z.after != nil {
			b, err := os.ReadFile(file + ".signed")
			if err != nil {
				t.Fatal(err)
			}
			changed := z.after(string(b))
			if changed == string(b) {
				t.Fatalf("%s: nothing to change in the signed zone", name)
			}
			if err := os.WriteFile(file+".signed", []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd = exec.Command("ldns-key2ds", "-n", "-2", k+".key")
		cmd.Dir = dir
		b, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return file + ".signed", string(b)
	}
	good := zoneFile{alg: "ECDSAP256SHA256", from: -time.Hour, to: 240 * time.Hour}
	test := "test. " + soaLine + "test. 3600 IN NS ns.test.\nns.test. 3600 IN A 127.0.0.1\n"
	stripped := []string{}
	for _, z := range zoneFiles(t, dir) {
		name := z.name + ".test."
		text := z.text()
		if slices.Contains([]string{"p256", "n3p256", "opt", "many", "old", "nods"}, z.name) { // a signed child, too
			file, ds := sign("in."+name, zoneFile{name: "in." + z.name}.text(), good)
			zones["in."+name] = file
			text += "in." + name + " 3600 IN NS ns.test.\n" + ds
		}
		file, err := os.Create(filepath.Join(dir, "open."+name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(file, zoneFile{name: "open." + z.name}.text())
		file.Close()
		zones["open."+name] = file.Name()
		signed, ds := sign(name, text, z)
		zones[name] = signed
		test += name + " 3600 IN NS ns.test.\n"
		switch {
		case z.name == "nods": // there when the parent is signed, and gone when it is served
			test += ds
			stripped = append(stripped, name)
		case z.parent != nil:
			test += z.parent(ds)
		default:
			test += ds
		}
	}
	good.after = func(s string) string {
		for _, name := range stripped {
			s = regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`\s.*\s(DS|RRSIG\s+DS)\s.*\n`).ReplaceAllString(s, "")
		}
		return s
	}
	file, ds := sign("test.", test, good)
	zones["test."] = file
	good.after = nil
	file, anchor = sign(".", ". "+soaLine+". 3600 IN NS ns.test.\nns.test. 3600 IN A 127.0.0.1\ntest. 3600 IN NS ns.test.\n"+ds, good)
	zones["."] = file
	return zones, anchor
}

// judged is what differs from Unbound, by name, with the reason.
var judged = map[string]string{
	"sha1": "we take SHA-1 for no proof, Unbound 1.17 does: insecure for us, secure for it",
}

// TestJudgedByUnbound puts every name of zones signed by ldns and served by NSD before our validator and Unbound, and
// expects one verdict. Our validator asks the same Unbound, with CD, so that both see the same records.
func TestJudgedByUnbound(t *testing.T) {
	testpeer.Require(t, "unbound", "nsd", "ldns")
	b := testpeer.New(t)
	zones, anchor := build(t, b.Dir)
	nsd, err := b.NSD(t.Context(), "nsd", address(t, b), zones)
	if err != nil {
		t.Fatal(err)
	}
	u, err := b.Unbound(t.Context(), "unbound", address(t, b), anchor, nsd.Addr, slices.Collect(maps.Keys(zones)))
	if err != nil {
		t.Fatal(err)
	}
	anchors, err := ParseAnchors(strings.NewReader(anchor))
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDNS(DNSConfig{Servers: []string{u.Addr}, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	questions := []struct {
		name string
		typ  uint16
	}{
		{"_dx", dns.TypeTXT}, {"mx", dns.TypeA}, {"mx", dns.TypeAAAA}, {"big", dns.TypeTXT}, {"@", dns.TypeSOA}, {"@", dns.TypeMX}, {"@", dns.TypeDS}, {"@", dns.TypeDNSKEY},
		{"nothing", dns.TypeTXT}, {"0", dns.TypeTXT}, {"zz", dns.TypeTXT}, {"x.y.nothing", dns.TypeA}, {"b.e", dns.TypeTXT}, {"e", dns.TypeTXT}, {"x.mx", dns.TypeA},
		{"x.w", dns.TypeTXT}, {"x.y.w", dns.TypeTXT}, {"x.w", dns.TypeA}, {"*.w", dns.TypeTXT}, {"w", dns.TypeTXT}, {"x.c", dns.TypeA}, {"x.c", dns.TypeTXT},
		{"al", dns.TypeA}, {"al", dns.TypeTXT}, {"al", dns.TypeCNAME}, {"out", dns.TypeA}, {"over", dns.TypeA}, {"over", dns.TypeTXT}, {"lost", dns.TypeA}, {"bent", dns.TypeTXT},
		{"mx.dn", dns.TypeA}, {"x.y.dn", dns.TypeA}, {"dn", dns.TypeA}, {"out.dn", dns.TypeA},
		{"open", dns.TypeDS}, {"_dx.open", dns.TypeTXT}, {"nothing.open", dns.TypeTXT}, {"in", dns.TypeDS}, {"_dx.in", dns.TypeTXT}, {"nothing.in", dns.TypeTXT}, {"x.w.in", dns.TypeTXT},
	}
	seen := map[State]int{}
	for _, z := range zoneFiles(t, b.Dir) {
		t.Run(z.name, func(t *testing.T) {
			differs := false
			for _, q := range questions {
				name := strings.TrimPrefix(q.name+".", "@.") + z.name + ".test."
				us, judge := weSay(t, d, name, q.typ), unboundSays(t, u.Addr, name, q.typ)
				seen[judge.state]++
				if !us.same(judge) {
					differs = true
					if judged[z.name] == "" {
						t.Errorf("%s %s:\n  we say      %v\n  Unbound says %v", name, dns.TypeToString[q.typ], us, judge)
					}
				}
			}
			if why := judged[z.name]; why != "" && !differs {
				t.Errorf("nothing differs, although %q", why)
			}
		})
	}
	if seen[Secure] < 100 || seen[Insecure] < 100 || seen[Bogus] < 100 {
		t.Errorf("the judge's verdicts: %v: too few of one kind to be a test", seen)
	}
	t.Logf("verdicts: %v", seen)
}

func address(t *testing.T, b *testpeer.Bench) string {
	t.Helper()
	a, err := b.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

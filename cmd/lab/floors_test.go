package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/bridge/queue"
	"dimegate/internal/testcert"
	"dimegate/internal/testpeer"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// A street is one gateway that sends to domains without DIME: Postfix with DANE records in a signed zone, Postfix with an
// MTA-STS policy on a web server, Exim without TLS.
type street struct {
	*testpeer.Bench
	tree    *zone.Tree
	ca      *testcert.Authority
	binary  string
	config  string
	gateway *testpeer.Process
	submit  string // where the gateway takes mail
	store   *testpeer.Dovecot
	at      map[string]string // addresses, by domain
	records map[string][]string
	web     *http.Server
	sent    int
}

const (
	daneDomain = "dane.test"
	stsDomain  = "sts.test"
	bareDomain = "bare.test"
)

var floorNames = []string{"opportunistic", "tls", "mta-sts", "dane", "dime", "hold"}

// address reserves an address or ends the test.
func (s *street) address(t *testing.T) string {
	t.Helper()
	a, err := s.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newStreet(t *testing.T) *street {
	t.Helper()
	testpeer.Require(t, "postfix", "dovecot", "exim")
	s := &street{Bench: testpeer.New(t), ca: testcert.NewAuthority(t, "Lab CA"), at: map[string]string{}, records: map[string][]string{}}
	var err error
	if s.binary, err = buildOnce(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"alpha.test", daneDomain, stsDomain, bareDomain, "web", "names", "store"} {
		s.at[d] = s.address(t)
	}
	if s.store, err = s.Dovecot(t.Context(), "store", s.at["store"]); err != nil {
		t.Fatal(err)
	}
	own := testcert.ECDSA(t, "mx."+daneDomain) // of its own making: DNSSEC is what proves it
	sum := sha256.Sum256(own.Leaf.RawSubjectPublicKeyInfo)
	s.records[daneDomain] = []string{"@ MX 10 mx", "mx A " + s.at[daneDomain], "_25._tcp.mx TLSA 3 1 1 " + hex.EncodeToString(sum[:])}
	s.records[stsDomain] = []string{"@ MX 10 mx", "mx A " + s.at[stsDomain], "mta-sts A " + s.at["web"], `_mta-sts TXT "v=STSv1; id=2026;"`}
	s.records[bareDomain] = []string{"@ MX 10 mx", "mx A " + s.at[bareDomain]}
	s.serveNames(t)
	s.servePolicy(t)
	s.postfix(t, daneDomain, own)
	s.postfix(t, stsDomain, s.ca.Issue(t, []string{"mx." + stsDomain}))
	if _, err := s.Exim(t.Context(), testpeer.EximConfig{Name: "mx." + bareDomain, Listen: s.at[bareDomain] + ":25", Hostname: "mx." + bareDomain, Domain: bareDomain, LMTP: s.store.LMTP}); err != nil {
		t.Fatal(err)
	}
	s.install(t)
	return s
}

func (s *street) serveNames(t *testing.T) {
	t.Helper()
	udp, tcp, err := zone.Listen(s.at["names"] + ":53")
	if err != nil {
		t.Fatal(err)
	}
	s.tree, err = zone.New(netip.MustParseAddr(s.at["names"]), zone.Zone{Name: "alpha.test", Algorithm: dns.ED25519},
		zone.Zone{Name: daneDomain, Algorithm: dns.ECDSAP256SHA256, Records: s.records[daneDomain]},
		zone.Zone{Name: stsDomain, Records: s.records[stsDomain]}, zone.Zone{Name: bareDomain, Records: s.records[bareDomain]})
	if err != nil {
		t.Fatal(err)
	}
	s.Go("names", func(ctx context.Context) error { return s.tree.Serve(ctx, udp, tcp) })
}

// servePolicy is the web server of the domain with an MTA-STS policy.
func (s *street) servePolicy(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", s.at["web"]+":443")
	if err != nil {
		t.Fatal(err)
	}
	s.web = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.ca.Issue(t, []string{"mta-sts." + stsDomain})}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "mta-sts."+stsDomain || r.URL.Path != "/.well-known/mta-sts.txt" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprintf(w, "version: STSv1\r\nmode: enforce\r\nmx: mx.%s\r\nmax_age: 604800\r\n", stsDomain)
		}),
	}
	s.Go("web", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { s.web.Close() })()
		if err := s.web.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func (s *street) postfix(t *testing.T, domain string, cert tls.Certificate) {
	t.Helper()
	crt, key := testcert.Write(t, s.Dir, domain, cert)
	_, err := s.Postfix(t.Context(), testpeer.PostfixConfig{
		Name: "mx." + domain, Listen: s.at[domain] + ":25", Hostname: "mx." + domain, Domain: domain, Transport: []string{domain + " lmtp:inet:" + s.store.LMTP},
		Domains: []string{daneDomain, stsDomain}, // whoever is sent here by a forged name would get the mail
		Main:    []string{"smtpd_tls_security_level = may", "smtpd_tls_cert_file = " + crt, "smtpd_tls_key_file = " + key, "smtpd_tls_received_header = yes"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// install makes a gateway for alpha.test in which the sender's name is the floor, and runs it.
func (s *street) install(t *testing.T) {
	t.Helper()
	ca := filepath.Join(s.Dir, "ca.pem")
	anchor := filepath.Join(s.Dir, "anchor")
	s.config, s.submit = filepath.Join(s.Dir, "gateway.toml"), s.at["alpha.test"]+":2525"
	var floors strings.Builder
	for _, f := range floorNames {
		fmt.Fprintf(&floors, "[policy.sender.\"%[1]s@alpha.test\"]\nfloor = %[1]q\n", f)
	}
	text := fmt.Sprintf(`data_folder = %q
hostname = "gw.alpha.test"
[[organization]]
domains = ["alpha.test"]
inner = "%[2]s:25"
[submission]
listen = ["%[2]s:2525"]
[dmtp]
listen = ["%[2]s:26"]
permit = ["127.0.0.0/8"]
[handoff]
call_ahead = false
[dns]
resolvers = ["%[3]s:53"]
trust_anchor_file = %[4]q
[tls]
ca_file = %[5]q
[policy]
floor = "opportunistic"
%[6]s
[queue]
schedule = ["1h"]
[health]
listen = ""
`, filepath.Join(s.Dir, "gateway"), s.at["alpha.test"], s.at["names"], anchor, ca, floors.String())
	for file, b := range map[string][]byte{
		s.config: []byte(text), anchor: []byte(s.tree.Anchor()), ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate.Raw}),
	} {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.command(t, nil, "init", "--config", s.config)
	s.start(t)
}

func (s *street) start(t *testing.T) {
	t.Helper()
	var err error
	if s.gateway, err = s.Start("gateway", s.binary, "run", "--config", s.config); err != nil {
		t.Fatal(err)
	}
	if err := s.gateway.Up(t.Context(), s.submit); err != nil {
		t.Fatal(err)
	}
}

// publish changes a domain's records and restarts the gateway, which forgets what DNS said and keeps what it must.
func (s *street) publish(t *testing.T, domain string, records ...string) {
	t.Helper()
	if err := s.tree.Set(domain, records...); err != nil {
		t.Fatal(err)
	}
	if err := s.gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	s.start(t)
}

// command runs the gateway's program; what it prints in JSON, an object a line, comes back by into. Exit code 1 is an answer.
func (s *street) command(t *testing.T, into func([]byte), args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.binary, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && (exit.ExitCode() != 1 || len(out) == 0) {
		t.Fatalf("gateway %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
	} else if !ok && err != nil {
		t.Fatal(err)
	}
	if into == nil {
		return
	}
	for line := range bytes.Lines(out) {
		into(line)
	}
}

// explain asks the program.
func (s *street) explain(t *testing.T, from, to string) (e bridge.Explanation) {
	t.Helper()
	s.command(t, func(b []byte) {
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
	}, "policy", "explain", "--config", s.config, "--json", "--from", from, "--to", to, "--size", "1000")
	return e
}

// kept are the domains whose MTA-STS policies lie in the gateway's vault.
func (s *street) kept(t *testing.T) []string {
	t.Helper()
	c, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	v, err := keystore.Open(t.Context(), c.Vault, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	list, err := keystore.Policies{Vault: v.Vault}.Policies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// entries are what waits in the queue.
func (s *street) entries(t *testing.T) (list []queue.Info) {
	t.Helper()
	s.command(t, func(b []byte) {
		var i queue.Info
		if err := json.Unmarshal(b, &i); err != nil {
			t.Fatal(err)
		}
		list = append(list, i)
	}, "queue", "list", "--config", s.config, "--json")
	return list
}

// A fate is what became of one message.
type fate struct {
	leg, rule, status string
	arrived           []byte // in the mailbox
}

// send sends one message and waits until it is delivered or waits itself. What waits is dropped.
func (s *street) send(t *testing.T, from, to string) fate {
	t.Helper()
	s.sent++
	body := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: number %d\r\n\r\n.a line with a dot\r\nnumber %[3]d\r\n", from, to, s.sent)
	c, err := testpeer.DialSMTP(t.Context(), s.submit)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Send(from, []string{to}, []byte(body)), c.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := s.store.Count(to)
	var list []queue.Info
	err = testpeer.Until(ctx, func() bool {
		list = s.entries(t)
		return len(list) == 0 && s.store.Count(to) > before || len(list) == 1 && list[0].Leg != "" && !list[0].Active
	})
	if err != nil {
		t.Fatalf("%s to %s: %v; %+v", from, to, err, list)
	}
	if len(list) == 1 {
		if s.store.Count(to) > before {
			t.Errorf("%s to %s: waits, and is in the mailbox", from, to)
		}
		s.command(t, nil, "queue", "drop", "--config", s.config, list[0].ID)
		return fate{leg: list[0].Leg, rule: list[0].Rule, status: list[0].Status}
	}
	return s.arrived(ctx, t, from, to, body)
}

// arrived finds a message in the mailbox and what the gateway logged of it.
func (s *street) arrived(ctx context.Context, t *testing.T, from, to, body string) fate {
	t.Helper()
	all, err := s.store.Inbox(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(b []byte) bool { return bytes.HasSuffix(b, []byte(body)) })
	if i < 0 {
		t.Fatalf("%s to %s: not octet for octet among %d messages", from, to, len(all))
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, "gateway.log"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, l := range slices.Backward(lines) {
		if _, rule, ok := strings.Cut(l, ` rule="`); ok && strings.Contains(l, `msg="sent by SMTP"`) {
			return fate{leg: "smtp", rule: strings.TrimSuffix(rule, `"`), arrived: all[i]}
		}
	}
	t.Fatal("the gateway has logged no delivery")
	return fate{}
}

// check sends a message after asking what would become of it, and holds all three against each other: what was expected,
// said, and done.
func (s *street) check(t *testing.T, floor, domain, want string) {
	t.Helper()
	from, to := floor+"@alpha.test", strings.ReplaceAll(floor, "-", "")+"@"+domain
	said := s.explain(t, from, to)
	got := s.send(t, from, to)
	if said.Action != got.leg {
		t.Errorf("floor %s to %s: explained %s (%s), happened %s (%s)", floor, domain, said.Action, said.Rule, got.leg, got.rule)
	}
	if got.leg == "smtp" {
		_, over, _ := strings.Cut(got.rule, " over ")
		over, _, _ = strings.Cut(over, " ")
		if over != want || !strings.Contains(said.Rule, got.rule) {
			t.Errorf("floor %s to %s: over %s, want %s; explained %q, happened %q", floor, domain, over, want, said.Rule, got.rule)
		}
		if encrypted := bytes.Contains(got.arrived, []byte("(using TLSv1.3 with cipher ")); encrypted != (want != "clear") {
			t.Errorf("floor %s to %s: over %s, and the server says\n%s", floor, domain, over, got.arrived)
		}
		return
	}
	if happened := got.leg + " " + got.status; happened != want || said.Rule != got.rule || said.Status != got.status {
		t.Errorf("floor %s to %s: %s, want %s\nexplained %s %q\nhappened  %s %q", floor, domain, happened, want, said.Status, said.Rule, got.status, got.rule)
	}
}

// TestFloors is every floor against every peer, and then what an attacker on the way can do to mail that flowed before.
func TestFloors(t *testing.T) {
	s := newStreet(t)
	t.Run("asking keeps nothing", func(t *testing.T) {
		if e := s.explain(t, "opportunistic@alpha.test", "x@"+stsDomain); e.Action != "smtp" {
			t.Errorf("%+v", e)
		}
		if kept := s.kept(t); len(kept) > 0 {
			t.Errorf("policies of %q are kept", kept)
		}
	})
	for _, tt := range []struct {
		domain string
		want   []string // by floor, rising
	}{
		{daneDomain, []string{"dane", "dane", "dane", "dane", "bounce 5.7.10", "hold 5.7.1"}},
		{stsDomain, []string{"mta-sts", "mta-sts", "mta-sts", "hold 5.7.4", "bounce 5.7.10", "hold 5.7.1"}},
		{bareDomain, []string{"clear", "hold 5.7.4", "hold 5.7.4", "hold 5.7.4", "bounce 5.7.10", "hold 5.7.1"}},
	} {
		for i, floor := range floorNames {
			t.Run(tt.domain+"/"+floor, func(t *testing.T) { s.check(t, floor, tt.domain, tt.want[i]) })
		}
	}
	if kept := s.kept(t); !slices.Equal(kept, []string{stsDomain}) {
		t.Errorf("policies of %q are kept", kept)
	}
	to := func(domain, server string) []string { // the domain's records, its MX at another's address
		r := slices.Clone(s.records[domain])
		r[1] = "mx A " + s.at[server]
		return r
	}
	attack := func(name, domain string, records []string, spoil uint16, want string) {
		t.Run("attack/"+name, func(t *testing.T) {
			s.publish(t, domain, records...)
			if spoil != 0 {
				if err := s.tree.Spoil(map[uint16]string{dns.TypeTLSA: "_25._tcp.mx." + domain, dns.TypeMX: domain}[spoil], spoil); err != nil {
					t.Fatal(err)
				}
			}
			s.check(t, "opportunistic", domain, want)
		})
	}
	attack("DANE, STARTTLS stripped", daneDomain, to(daneDomain, bareDomain), 0, "hold 5.7.4")
	attack("DANE, certificate swapped", daneDomain, to(daneDomain, stsDomain), 0, "hold 5.7.5")
	attack("DANE, TLSA bogus", daneDomain, s.records[daneDomain], dns.TypeTLSA, "hold 5.7.5")
	attack("DANE, MX bogus", daneDomain, s.records[daneDomain], dns.TypeMX, "hold 5.7.5")
	attack("DANE, no attack", daneDomain, s.records[daneDomain], 0, "dane")
	if err := s.web.Close(); err != nil { // from now on the policy cannot be fetched: the cache must hold
		t.Fatal(err)
	}
	hidden := func(r []string) []string { return r[:2:2] } // neither _mta-sts nor mta-sts
	attack("MTA-STS, policy hidden", stsDomain, hidden(s.records[stsDomain]), 0, "mta-sts")
	attack("MTA-STS, policy hidden, STARTTLS stripped", stsDomain, hidden(to(stsDomain, bareDomain)), 0, "hold 5.7.4")
	attack("MTA-STS, policy hidden, certificate swapped", stsDomain, hidden(to(stsDomain, daneDomain)), 0, "hold 5.7.5")
	attack("MTA-STS, policy hidden, MX of an attacker's name", stsDomain, []string{"@ MX 10 mx.bare.test."}, 0, "hold 5.7.5")
	attack("MTA-STS, web server down", stsDomain, s.records[stsDomain], 0, "mta-sts")
}

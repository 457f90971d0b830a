package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/setup"
	"dimegate/internal/testpeer"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// The times of TestEdges: a day's worth of waiting in half a minute. The configuration permits no such times, so the gateway
// that sends runs in the test's process and gets them behind its back.
const (
	edgeDelay = 5 * time.Second
	edgeLife  = 20 * time.Second
	edgeSlow  = 12 * time.Second // longer than the peer gateway waits for its mail server, which is ten seconds
)

// An edge is one message into trouble, and what must come of it.
type edge struct {
	name       string
	from, to   string
	mail, rcpt string // parameters
	body       string
	arrives    int // times at the recipient
	notices    []notice
}

// A notice is what a sender must be told. Empty fields of the other side must not be there.
type notice struct {
	action, status string
	remote         string // who said it
	diagnostic     string // how what he said begins
	final          string // recipient; "": the edge's
	original       string
	envelope       string
	types          string // of the third part, with its encoding; "": text/rfc822-headers 7bit
	full           bool   // all of the message comes back
}

// edges is one gateway that sends, a peer gateway with a mail server behind it, and plain mail servers; each way can be cut.
type edges struct {
	*testpeer.Bench
	tree   *zone.Tree
	store  *testpeer.Dovecot
	moods  *moods
	at     map[string]string // addresses
	cables map[string]*testpeer.Cable
	near   *testpeer.Postfix
	far    *testpeer.Postfix
	binary string
	config string
	sends  *Gateway // of it only where its data is
	log    *syncBuffer
}

// A syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// moods is a policy service of Postfix (SMTPD_POLICY_README): it makes a real server refuse, put off, dawdle and hang up, a
// recipient at a time.
type moods struct {
	mu   sync.Mutex
	list map[string][]string // "STATE recipient": what is said in turn; the last word stays
}

// set has what Postfix asks in a state (RCPT, DATA, END-OF-MESSAGE) about a recipient answered with actions in turn. "sleep"
// takes edgeSlow and permits.
func (m *moods) set(state, recipient string, actions ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list[state+" "+recipient] = actions
}

func (m *moods) next(state, recipient string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := state + " " + recipient
	list := m.list[key]
	if len(list) == 0 {
		return "DUNNO"
	}
	if len(list) > 1 {
		m.list[key] = list[1:]
	}
	return list[0]
}

func (m *moods) serve(ctx context.Context, ln net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil
		}
		all.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			m.answer(ctx, c)
		})
	}
}

func (m *moods) answer(ctx context.Context, c net.Conn) {
	ask := map[string]string{}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok {
			ask[k] = v
			continue
		}
		action := m.next(ask["protocol_state"], ask["recipient"])
		if action == "sleep" {
			select {
			case <-ctx.Done():
				return
			case <-time.After(edgeSlow):
				action = "DUNNO"
			}
		}
		fmt.Fprintf(c, "action=%s\n\n", action)
		clear(ask)
	}
}

func newEdges(t *testing.T) *edges {
	t.Helper()
	testpeer.Require(t, "postfix", "dovecot", "python3")
	e := &edges{Bench: testpeer.New(t), moods: &moods{list: map[string][]string{}}, at: map[string]string{}, cables: map[string]*testpeer.Cable{}, log: new(syncBuffer)}
	var err error
	if e.binary, err = buildOnce(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"names", "store", "near", "seven", "gateway", "far", "peer", "charlie", "dark", "cuts", "gone", "inner"} {
		if e.at[name], err = e.Address(); err != nil {
			t.Fatal(err)
		}
	}
	for name, way := range map[string][2]string{"inner": {":25", e.at["far"] + ":25"}, "cuts": {":25", e.at["far"] + ":25"}, "charlie": {":26", e.at["peer"] + ":26"}, "dark": {":26", e.at["peer"] + ":26"}} {
		e.cables[name] = e.Cable(e.at[name]+way[0], way[1])
		if name != "dark" {
			e.must(t, e.cables[name].Plug())
		}
	}
	e.serveNames(t)
	if e.store, err = e.Dovecot(t.Context(), "store", e.at["store"]); err != nil {
		t.Fatal(err)
	}
	e.servers(t)
	e.peer(t)
	e.sender(t)
	return e
}

func (e *edges) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (e *edges) serveNames(t *testing.T) {
	t.Helper()
	udp, tcp, err := zone.Listen(e.at["names"] + ":53")
	e.must(t, err)
	mx := func(name string) []string { return []string{"@ MX 10 mx", "mx A " + e.at[name]} }
	e.tree, err = zone.New(netip.MustParseAddr(e.at["names"]),
		zone.Zone{Name: "alpha.test", Algorithm: dns.ED25519}, zone.Zone{Name: "seven.test", Algorithm: dns.ED25519},
		zone.Zone{Name: "bravo.test", Algorithm: dns.ED25519}, zone.Zone{Name: "charlie.test", Algorithm: dns.ED25519}, zone.Zone{Name: "dark.test", Algorithm: dns.ED25519}, zone.Zone{Name: "dead.test", Algorithm: dns.ED25519},
		zone.Zone{Name: "plain.test", Records: mx("far")}, zone.Zone{Name: "cuts.test", Records: mx("cuts")}, zone.Zone{Name: "gone.test", Records: mx("gone")}, zone.Zone{Name: "away.test", Records: mx("gone")})
	e.must(t, err)
	e.Go("names", func(ctx context.Context) error { return e.tree.Serve(ctx, udp, tcp) })
}

// servers are two Postfixes: the sender's, with a second port that offers neither 8BITMIME nor SMTPUTF8, and the one that
// is moody: behind the peer gateway, and for plain SMTP.
func (e *edges) servers(t *testing.T) {
	t.Helper()
	policy, err := net.Listen("tcp", e.at["far"]+":10031")
	e.must(t, err)
	e.Go("moods", func(ctx context.Context) error { return e.moods.serve(ctx, policy) })
	ask := "check_policy_service { inet:" + policy.Addr().String() + ", timeout=60s }"
	to := func(domains ...string) (list []string) {
		for _, d := range domains {
			list = append(list, d+" lmtp:inet:"+e.store.LMTP)
		}
		return list
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() {
		e.near, errs[0] = e.Postfix(t.Context(), testpeer.PostfixConfig{
			Name: "near", Listen: e.at["near"] + ":25", Hostname: "mx.alpha.test", Domain: "alpha.test", Domains: []string{"seven.test"}, Users: "^(a[0-9]+|s[0-9]+|postmaster)@",
			Transport: to("alpha.test", "seven.test"), Relayhost: "[" + e.at["gateway"] + "]:2525",
			Master: []string{e.at["seven"] + ":25 inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8"},
		})
	})
	wg.Go(func() {
		e.far, errs[1] = e.Postfix(t.Context(), testpeer.PostfixConfig{
			Name: "far", Listen: e.at["far"] + ":25", Hostname: "mx.far.test", Domain: "bravo.test", Domains: []string{"charlie.test", "dark.test", "plain.test", "cuts.test", "away.test"}, Users: "^(m[0-9]+|b.+b)@",
			Transport: to("bravo.test", "charlie.test", "dark.test", "plain.test", "cuts.test", "away.test"),
			Main: []string{
				"smtpd_recipient_restrictions = " + ask, "smtpd_data_restrictions = " + ask, "smtpd_end_of_data_restrictions = " + ask,
				"smtpd_discard_ehlo_keywords = dsn", // what was asked of notices is the gateway's to keep
				"smtpd_client_connection_count_limit = 0",
			},
		})
	})
	wg.Wait()
	e.must(t, errors.Join(errs...))
}

// install makes a gateway of a configuration and publishes its records.
func (e *edges) install(t *testing.T, name, text string, publish map[string][]string) *config.Config {
	t.Helper()
	anchor := filepath.Join(e.Dir, "anchor")
	file := filepath.Join(e.Dir, name+".toml")
	text = fmt.Sprintf("data_folder = %q\n%s\n[dns]\nresolvers = [%q]\ntrust_anchor_file = %q\n[health]\nlisten = \"\"\n", filepath.Join(e.Dir, name), text, e.at["names"]+":53", anchor)
	e.must(t, errors.Join(os.WriteFile(anchor, []byte(e.tree.Anchor()), 0o644), os.WriteFile(file, []byte(text), 0o644)))
	c, err := config.Load(file)
	e.must(t, err)
	made, err := setup.Make(t.Context(), c, time.Now())
	e.must(t, err)
	for _, d := range made.Domains {
		e.must(t, e.tree.Set(d.Name, append(publish[d.Name], d.RecordLine)...))
	}
	return c
}

// peer is the gateway of the other side, a process of its own.
func (e *edges) peer(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf(`hostname = "dx.bravo.test"
[[organization]]
domains = ["bravo.test"]
dx = ["dx.bravo.test"]
policy = "strict"
inner = "%[1]s:25"
[[organization]]
domains = ["dark.test"]
dx = ["dx.dark.test"]
inner = "%[1]s:25"
[[organization]]
domains = ["dead.test"]
dx = ["dx.dead.test"]
inner = "%[1]s:25"
[[organization]]
domains = ["charlie.test"]
dx = ["dx.charlie.test"]
inner = "%[3]s:25"
[submission]
listen = ["%[2]s:2525"]
[dmtp]
listen = ["%[2]s:26"]
permit = ["127.0.0.0/8"]
[handoff]
timeout = "10s"`, e.at["far"], e.at["peer"], e.at["inner"])
	e.install(t, "peer", text, map[string][]string{"bravo.test": {"dx A " + e.at["peer"]}, "charlie.test": {"dx A " + e.at["charlie"]}, "dark.test": {"dx A " + e.at["dark"]}, "dead.test": {"dx A " + e.at["gone"]}})
	p, err := e.Start("peer", e.binary, "run", "--config", filepath.Join(e.Dir, "peer.toml"))
	e.must(t, err)
	e.must(t, p.Up(t.Context(), e.at["peer"]+":26"))
}

// sender is the gateway whose queue and notices this is about.
func (e *edges) sender(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf(`hostname = "gw.alpha.test"
[[organization]]
domains = ["alpha.test"]
dx = ["gw.alpha.test"]
inner = "%[1]s:25"
[[organization]]
domains = ["seven.test"]
dx = ["gw.alpha.test"]
inner = "%[2]s:25"
[submission]
listen = ["%[3]s:2525"]
[dmtp]
listen = ["%[3]s:26"]
permit = ["127.0.0.0/8"]
[policy]
floor = "opportunistic"
[queue]
schedule = ["1s"]`, e.at["near"], e.at["seven"], e.at["gateway"])
	e.config, e.sends = filepath.Join(e.Dir, "sender.toml"), &Gateway{Data: filepath.Join(e.Dir, "sender")}
	c := e.install(t, "sender", text, map[string][]string{"alpha.test": {"gw A " + e.at["gateway"]}})
	c.Queue.Life, c.Queue.TrustLife, c.Queue.DelayNotice = edgeLife, edgeLife, edgeDelay
	a, err := appliance.Open(t.Context(), c, appliance.Options{Log: slog.New(slog.NewTextHandler(io.MultiWriter(e.log, t.Output()), nil))})
	e.must(t, err)
	e.Go("sender", func(ctx context.Context) error { return errors.Join(a.Run(ctx), a.Close()) })
}

// send gives a message to the sender's mail server, or to the gateway itself when another offers too little for it.
func (e *edges) send(t *testing.T, x edge) {
	t.Helper()
	addr := e.at["near"] + ":25"
	if strings.HasSuffix(x.from, "@seven.test") {
		addr = e.at["gateway"] + ":2525"
	}
	c, err := testpeer.DialSMTP(t.Context(), addr)
	e.must(t, err)
	for _, step := range []struct {
		want int
		line string
	}{{250, "MAIL FROM:<" + x.from + "> " + x.mail}, {250, "RCPT TO:<" + x.to + "> " + x.rcpt}, {354, "DATA"}, {250, x.text() + "."}} {
		if _, err := c.Command(step.want, strings.TrimSpace(step.line)); err != nil {
			t.Fatalf("%s: %.40q: %v", x.name, step.line, err)
		}
	}
	e.must(t, c.Close())
}

// text is the message.
func (x edge) text() string {
	if x.body != "" {
		return x.body
	}
	return "From: <" + x.from + ">\r\nTo: <someone>\r\nSubject: " + x.name + "\r\n\r\nof " + x.name + "\r\n"
}

// queue runs a subcommand of the gateway beside the one that runs.
func (e *edges) queue(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), e.binary, append([]string{"queue", args[0], "--config", e.config}, args[1:]...)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("queue %v: %v: %s", args, err, exit.Stderr)
	}
	return string(out)
}

// until waits for something, at most a minute.
func (e *edges) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := testpeer.Until(ctx, ok); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, e.queue(t, "list"))
	}
}

// deferred counts how often mail for a domain was put off.
func (e *edges) deferred(domain string) int {
	n := 0
	for line := range strings.Lines(e.log.String()) {
		if strings.Contains(line, "msg=deferred") && strings.Contains(line, "domain="+domain) {
			n++
		}
	}
	return n
}

// byPeer and byPlain are how notices name who spoke: the peer gateway, whose words are DMTP's, and the plain mail server.
func byPeer(action, status, said string) notice {
	return notice{action: action, status: status, remote: "dns; dx.bravo.test", diagnostic: "x-dmtp; " + said}
}

func byPlain(action, status, said string) notice {
	return notice{action: action, status: status, remote: "dns; mx.plain.test", diagnostic: "smtp; " + said}
}

// lasting are the messages for which their life is waited, in vain.
func (e *edges) lasting() []edge {
	expired := notice{action: "failed", status: "4.4.7"}
	waits := notice{action: "delayed", status: "4.4.1"}
	return []edge{
		{name: "dime, full for good", to: "m54@bravo.test", notices: []notice{byPeer("delayed", "4.3.0", "451 "), byPeer("failed", "4.4.7", "451 ")}},
		{name: "plain, full for good", to: "m63@plain.test", notices: []notice{byPlain("delayed", "4.2.2", "452 "), byPlain("failed", "4.4.7", "452 ")}},
		{name: "dime, peer down", to: "m86@dead.test", notices: []notice{waits, expired}},
		{name: "plain, down", to: "m80@gone.test", notices: []notice{waits, expired}},
		{name: "plain, down, failure asked", to: "m81@gone.test", rcpt: "NOTIFY=FAILURE", notices: []notice{expired}},
		{name: "plain, down, delay asked", to: "m82@gone.test", rcpt: "NOTIFY=DELAY", notices: []notice{waits}},
		{name: "plain, down, never", to: "m83@gone.test", rcpt: "NOTIFY=NEVER"},
		{name: "plain, down, null sender", from: "-", to: "m84@gone.test"},
		{name: "plain, down, all of it asked", to: "m85@gone.test", mail: "RET=FULL", notices: []notice{waits, {action: "failed", status: "4.4.7", types: "message/rfc822 7bit", full: true}}},
	}
}

// cut and unplugged are sent into ways that are cut in the message, or pulled out: of the peer's mail server, of the peer, of the
// plain mail server, in this order.
func (e *edges) cut() []edge {
	body := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1500)
	return []edge{
		{name: "dime, mail server cuts in the message", to: "m70@charlie.test", body: body, arrives: 1},
		{name: "dime, peer cuts in the message", to: "m71@charlie.test", body: body, arrives: 1},
		{name: "plain, cuts in the message", to: "m72@cuts.test", body: body, arrives: 1},
	}
}

func (e *edges) unplugged() []edge {
	return []edge{
		{name: "dime, mail server down for a while", to: "m73@charlie.test", arrives: 1},
		{name: "dime, peer down for a while", to: "m74@charlie.test", arrives: 1},
		{name: "plain, down for a while", to: "m75@cuts.test", arrives: 1},
	}
}

// quick are the others, half of which need a moment.
func (e *edges) quick() []edge {
	const eight = "Subject: 8-bit\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe\r\n"
	const utf = "Subject: Gr\u00fc\u00dfe\r\n\r\nhello\r\n"
	asked := func(n notice) notice {
		n.envelope, n.original = "QQ+314", "rfc822; Bob=1@old.test"
		return n
	}
	with := func(n notice, types string, full bool) notice {
		n.types, n.full = types, full
		return n
	}
	naming := func(n notice, final string) notice {
		n.final = final
		return n
	}
	return []edge{
		{name: "dime, unknown", to: "m50@bravo.test", notices: []notice{{action: "failed", status: "5.7.10"}}},
		{name: "dime, refused", to: "m51@bravo.test", mail: "ENVID=QQ+2B314", rcpt: "ORCPT=rfc822;Bob+3D1@old.test", notices: []notice{asked(byPeer("failed", "5.1.1", "510 "))}},
		{name: "dime, slow", to: "m52@bravo.test", arrives: 1},
		{name: "dime, greylisted", to: "m53@bravo.test", arrives: 1},
		{name: "dime, hangs up at DATA", to: "m55@bravo.test", arrives: 1},
		{name: "dime, success asked", to: "m56@bravo.test", mail: "ENVID=QQ+2B314", rcpt: "NOTIFY=SUCCESS ORCPT=rfc822;Bob+3D1@old.test", arrives: 1, notices: []notice{asked(byPeer("relayed", "2.0.0", "25"))}},
		{name: "dime, refused, never", to: "m57@bravo.test", rcpt: "NOTIFY=NEVER"},
		{name: "dime, refused, null sender", from: "-", to: "m58@bravo.test"},
		{name: "plain, refused", to: "m60@plain.test", mail: "ENVID=QQ+2B314 RET=HDRS", rcpt: "ORCPT=rfc822;Bob+3D1@old.test", notices: []notice{asked(byPlain("failed", "5.1.1", "550 "))}},
		{name: "plain, slow", to: "m61@plain.test", arrives: 1},
		{name: "plain, greylisted", to: "m62@plain.test", arrives: 1},
		{name: "plain, hangs up at DATA", to: "m64@plain.test", arrives: 1},
		{name: "plain, success asked", to: "m65@plain.test", mail: "ENVID=QQ+2B314 RET=FULL", rcpt: "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+3D1@old.test", arrives: 1, notices: []notice{asked(byPlain("relayed", "2.0.0", "250"))}},
		{name: "plain, refused, never", to: "m66@plain.test", rcpt: "NOTIFY=NEVER"},
		{name: "plain, refused, null sender", from: "-", to: "m67@plain.test"},
		{name: "plain, refused, success asked", to: "m66@plain.test", rcpt: "NOTIFY=SUCCESS,DELAY"},
		{name: "plain, message refused", to: "m68@plain.test", mail: "RET=FULL", notices: []notice{with(byPlain("failed", "5.6.0", "554 "), "message/rfc822 7bit", true)}},
		{name: "plain, 8-bit message refused", to: "m68@plain.test", mail: "RET=FULL BODY=8BITMIME", body: eight, notices: []notice{with(byPlain("failed", "5.6.0", "554 "), "message/rfc822 8bit", true)}},
		{name: "plain, UTF-8 recipient refused", to: "b\u00f8b@plain.test", mail: "SMTPUTF8", notices: []notice{with(naming(byPlain("failed", "5.1.1", "550 "), "utf-8; b\u00f8b@plain.test"), "message/global-headers 8bit", false)}},
		{name: "plain, UTF-8 message refused", to: "m68@plain.test", mail: "SMTPUTF8 BODY=8BITMIME", body: utf, notices: []notice{with(byPlain("failed", "5.6.0", "554 "), "message/global-headers 8bit", false)}},
		{name: "7-bit server, 8-bit message refused", from: "s1@seven.test", to: "m68@plain.test", mail: "RET=FULL BODY=8BITMIME", body: eight, notices: []notice{byPlain("failed", "5.6.0", "554 ")}},
		{name: "7-bit server, UTF-8 recipient refused", from: "s2@seven.test", to: "b\u00f8b@plain.test", mail: "SMTPUTF8", notices: []notice{naming(byPlain("failed", "5.1.1", "550 "), `utf-8; b\x{F8}b@plain.test`)}},
		{name: "7-bit server, UTF-8 message refused", from: "s3@seven.test", to: "m68@plain.test", mail: "SMTPUTF8 BODY=8BITMIME", body: utf, notices: []notice{with(byPlain("failed", "5.6.0", "554 "), "message/global-headers quoted-printable", false)}},
	}
}

// sour makes the servers moody, after the peer's has once taken mail for each of its recipients.
func (e *edges) sour() {
	const gone, grey = "550 5.1.1 no such user", "451 4.7.1 greylisted, come back"
	for _, to := range []string{"m51@bravo.test", "m57@bravo.test", "m58@bravo.test", "m60@plain.test", "m66@plain.test", "m67@plain.test", "b\u00f8b@plain.test"} {
		e.moods.set("RCPT", to, gone)
	}
	for _, domain := range []string{"bravo.test", "plain.test"} {
		e.moods.set("END-OF-MESSAGE", map[string]string{"bravo.test": "m52@", "plain.test": "m61@"}[domain]+domain, "sleep", "DUNNO")
		e.moods.set("RCPT", map[string]string{"bravo.test": "m53@", "plain.test": "m62@"}[domain]+domain, grey, "DUNNO")
		e.moods.set("RCPT", map[string]string{"bravo.test": "m54@", "plain.test": "m63@"}[domain]+domain, "452 4.2.2 mailbox full")
		e.moods.set("DATA", map[string]string{"bravo.test": "m55@", "plain.test": "m64@"}[domain]+domain, "421 4.3.2 good bye", "DUNNO")
	}
	e.moods.set("END-OF-MESSAGE", "m68@plain.test", "554 5.6.0 not this one")
}

// known tells who has had a message before the servers became moody, so that his signet exists.
func (x edge) known() bool {
	return strings.HasSuffix(x.to, "@charlie.test") || strings.HasSuffix(x.to, "@bravo.test") && x.name != "dime, unknown"
}

// TestEdges is what the other side does wrong: its mail server, its gateway, a plain mail server. Each message arrives as often
// as it must, and its sender is told what RFC 5321, 3461 and 3464 ask, and nothing else.
func TestEdges(t *testing.T) {
	e := newEdges(t)
	lasting, cut, unplugged, quick := e.lasting(), e.cut(), e.unplugged(), e.quick()
	asked := []edge{{name: "dime, peer down until an administrator looks again", to: "m90@dark.test", arrives: 1},
		{name: "plain, down, by another host", to: "m91@away.test", arrives: 1}}
	groups := [][]edge{lasting, cut, unplugged, quick, asked}
	n := 0
	for _, g := range groups {
		for i := range g {
			if n++; g[i].from == "" {
				g[i].from = fmt.Sprintf("a%d@alpha.test", n)
			}
			g[i].from = strings.Trim(g[i].from, "-")
		}
	}
	e.moods.set("RCPT", "m50@bravo.test", "550 5.1.1 no such user")
	e.send(t, asked[0])
	for _, g := range groups {
		for _, x := range g {
			if x.known() {
				e.send(t, edge{name: "known", from: "a0@alpha.test", to: x.to})
			}
		}
	}
	for _, g := range groups {
		for _, x := range g {
			if x.known() {
				e.until(t, x.to+" is known", func() bool { return e.store.Count(x.to) == 1 })
			}
		}
	}
	e.sour()
	for _, x := range append(lasting, asked[1]) {
		e.send(t, x)
	}
	for _, x := range quick {
		e.send(t, x)
	}
	e.cutAll(t, cut)
	e.unplugAll(t, unplugged)
	e.lookAgain(t, asked[0])
	e.byAnother(t, asked[1])
	e.until(t, "the end of all", func() bool { return waiting(t, e.sends) == 0 })
	for _, p := range []*testpeer.Postfix{e.near, e.far} {
		e.until(t, "Postfix", func() bool { q, err := p.Queue(t.Context()); return err == nil && q == "" })
	}
	if n := e.store.Count("postmaster@alpha.test"); n != 0 {
		t.Errorf("the postmaster has %d messages", n)
	}
	if strings.Contains(e.log.String(), `msg="notice lost"`) {
		t.Error("a notice was lost")
	}
	for _, g := range groups {
		for _, x := range g {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				e.check(t, x)
			})
		}
	}
}

// lookAgain: that a peer could not be reached is remembered for longer than this test waits, but not against an administrator.
func (e *edges) lookAgain(t *testing.T, x edge) {
	t.Helper()
	e.until(t, x.name, func() bool { return e.deferred("dark.test") > 1 })
	e.must(t, e.cables["dark"].Plug())
	if e.store.Count(x.to) != 0 {
		t.Errorf("%s: arrived without a way", x.name)
	}
	e.queue(t, "retry", "--domain", "dark.test")
	e.until(t, x.name, func() bool { return e.store.Count(x.to) == 1 })
}

// byAnother: mail for a host that is gone leaves by one that an administrator names.
func (e *edges) byAnother(t *testing.T, x edge) {
	t.Helper()
	e.until(t, x.name, func() bool { // not while it is tried
		out, err := exec.CommandContext(t.Context(), e.binary, "queue", "route", "--config", e.config, "--to", e.far.Addr, "--domain", "away.test").Output()
		return err == nil && len(out) > 0
	})
	e.until(t, x.name, func() bool { return e.store.Count(x.to) == 1 })
}

// ways are the cables of the edges of cut and unplugged.
var ways = []string{"inner", "charlie", "cuts"}

func (e *edges) cutAll(t *testing.T, list []edge) {
	t.Helper()
	for i, x := range list {
		done := e.cables[ways[i]].Cut(40_000)
		e.send(t, x)
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing goes that way", x.name)
		}
	}
}

func (e *edges) unplugAll(t *testing.T, list []edge) {
	t.Helper()
	for _, x := range e.cut() {
		e.until(t, x.name, func() bool { return e.store.Count(x.to) >= e.copies(x) })
	}
	for i, x := range list {
		e.cables[ways[i]].Unplug()
		domain := x.to[strings.IndexByte(x.to, '@')+1:]
		before := e.deferred(domain)
		e.send(t, x)
		e.until(t, x.name, func() bool { return e.deferred(domain) > before })
		e.must(t, e.cables[ways[i]].Plug())
		if ways[i] == "inner" { // before the next way to it is closed
			e.until(t, x.name, func() bool { return e.store.Count(x.to) >= e.copies(x) })
		}
	}
}

// copies is how many messages the recipient has in the end.
func (e *edges) copies(x edge) int {
	if x.known() {
		return x.arrives + 1
	}
	return x.arrives
}

// check holds what happened against what must.
func (e *edges) check(t *testing.T, x edge) {
	if got, want := e.store.Count(x.to), e.copies(x); got != want {
		t.Errorf("%s has %d messages, want %d", x.to, got, want)
	}
	if x.from == "" {
		return
	}
	var all [][]byte
	if e.store.Count(x.from) > 0 {
		var err error
		if all, err = e.store.Inbox(t.Context(), x.from); err != nil {
			t.Fatal(err)
		}
	}
	var told []*testpeer.Notice
	for _, octets := range all {
		n, err := testpeer.ReadNotice(t.Context(), octets)
		if err != nil {
			t.Errorf("%v:\n%s", err, octets)
			continue
		}
		if n.Recipient["action"] == "delayed" && x.arrives > 0 {
			continue // on a slow machine
		}
		told = append(told, n)
	}
	if len(told) != len(x.notices) {
		t.Errorf("%s has %d notices, want %d", x.from, len(told), len(x.notices))
	}
	for i := range min(len(told), len(x.notices)) {
		x.checkNotice(t, told[i], x.notices[i])
		if t.Failed() {
			t.Logf("%s", all[i])
		}
	}
}

// checkNotice is RFC 3464, field by field.
func (x edge) checkNotice(t *testing.T, got *testpeer.Notice, want notice) {
	t.Helper()
	seven := strings.HasSuffix(x.from, "@seven.test")
	if want.final == "" {
		want.final = "rfc822; " + x.to
	}
	if want.original == "" && !seven {
		want.original = want.final // Postfix says so where nobody did
	}
	if want.types == "" {
		want.types = "text/rfc822-headers 7bit"
	}
	status := "message/delivery-status"
	if !seven && strings.HasPrefix(want.final, "utf-8;") {
		status = "message/global-delivery-status"
	}
	for what, pair := range map[string][2]string{
		"defects": {strings.Join(got.Defects, ", "), ""}, "return path": {got.ReturnPath, "<>"}, "from": {got.From, "postmaster@alpha.test"},
		"to": {got.To, x.from}, "auto-submitted": {got.AutoSubmitted, "auto-replied"}, "report type": {got.ReportType, "delivery-status"},
		"parts": {strings.Join(got.Types[:2], " "), "text/plain " + status}, "third part": {got.Types[2] + " " + got.Encodings[2], want.types},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	if seven && !got.ASCII {
		t.Error("not in ASCII")
	}
	fields := map[string]string{"reporting-mta": "dns; gw.alpha.test", "original-envelope-id": want.envelope}
	same(t, got.Message, fields, "arrival-date")
	dates := []string{"last-attempt-date"}
	if want.action == "delayed" {
		dates = append(dates, "will-retry-until")
	}
	fields = map[string]string{"original-recipient": want.original, "final-recipient": want.final, "action": want.action, "status": want.status, "remote-mta": want.remote}
	if said := got.Recipient["diagnostic-code"]; want.diagnostic != "" && strings.HasPrefix(said, want.diagnostic) {
		fields["diagnostic-code"] = said
	} else {
		fields["diagnostic-code"] = want.diagnostic
	}
	same(t, got.Recipient, fields, dates...)
	arrived := got.Dates["arrival-date"]
	if since := got.Date.Sub(arrived); since < 0 || since > time.Minute {
		t.Errorf("arrived %v, told %v", arrived, got.Date)
	}
	if until := got.Dates["will-retry-until"]; want.action == "delayed" && until.Sub(arrived).Round(2*time.Second) != edgeLife {
		t.Errorf("arrived %v, tried until %v", arrived, until)
	}
	text := strings.ReplaceAll(x.text(), "\r\n", "\n")
	header, body, _ := strings.Cut(text, "\n\n")
	if !bytes.Contains(got.Returned, []byte(header)) || bytes.Contains(got.Returned, []byte(body)) != want.full {
		t.Errorf("returned %q", got.Returned)
	}
	if !strings.Contains(got.Text, strings.TrimPrefix(want.final, "rfc822; ")) && !strings.Contains(got.Text, x.to) {
		t.Errorf("the text does not name %s:\n%s", x.to, got.Text)
	}
}

// same wants these fields, those with a value, and dates, and no others.
func same(t *testing.T, got, want map[string]string, dates ...string) {
	t.Helper()
	have := map[string]string{}
	for k, v := range got {
		have[k] = v
	}
	for _, d := range dates {
		if have[d] == "" {
			t.Errorf("no %s", d)
		}
		delete(have, d)
	}
	for k, v := range want {
		if v == "" {
			delete(want, k)
		}
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("fields\n got %v\nwant %v", have, want)
	}
}

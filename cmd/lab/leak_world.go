package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"dimegate/internal/testpeer"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// A leakWorld is where one case happens: two organisations with gateways of their own, what lies between them, and an
// attacker who holds some of it. alpha sends, bravo receives; plain.test is a third domain, without DIME.
//
// On the wire are dx.alpha.test, dx.bravo.test (the front, which the attacker holds, and behind it the gateway), the trap
// at mx.bravo.test and mx.plain.test, and the resolver. Inside are the two mail servers and the gateways' port 2525.
type leakWorld struct {
	*leakRun
	*Lab
	c      leakCase
	canary string

	front          string // the host that bravo's names lead to
	trap           string
	dns            *dnsFront
	dx, dual       *gate // the front's ports 26 and 25
	alpha, bravo   *Gateway
	alphaIn, inner *mailServer // the organisations' mail servers
	trapped        *mailServer
	stripped       *mailServer // see mailAtFront
	foreign        *foreign    // in place of bravo's gateway, or beside it: an attacker
	clock          string      // the file that sets alpha's clock
}

// newLeakWorld makes all of it; only bravo's gateway is started.
func newLeakWorld(ctx context.Context, run *leakRun, c leakCase) (_ *leakWorld, err error) {
	b, err := testpeer.NewBench()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 10)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	w := &leakWorld{leakRun: run, c: c, canary: canaryMark + hex.EncodeToString(random),
		Lab: &Lab{Bench: b, Alpha: &Org{Name: "alpha", Domain: "alpha.test"}, Bravo: &Org{Name: "bravo", Domain: "bravo.test"}}}
	for _, step := range []func(context.Context) error{w.addresses, w.names, w.servers, w.gateways, w.between} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// addresses takes a loopback address for every host, and tells the capture which of them are inside.
func (w *leakWorld) addresses(context.Context) error {
	var alphaMX, bravoMX, ns string
	for _, addr := range []*string{&alphaMX, &bravoMX, &w.Alpha.DX, &w.Bravo.DX, &w.front, &w.trap, &ns} {
		a, err := w.Address()
		if err != nil {
			return err
		}
		*addr = a
		w.capture.watch(a)
	}
	for org, mx := range map[*Org]string{w.Alpha: alphaMX, w.Bravo: bravoMX} {
		org.Postfix = &testpeer.Postfix{Addr: mx + ":25"} // a mail server of our own: see servers
		org.MX = w.trap
		w.capture.within(mx, 0)
		w.capture.within(org.DX, 2525)
	}
	w.Resolver = &testpeer.Unbound{Addr: ns + ":53"} // the tree itself: see names
	w.clock = filepath.Join(w.Dir, "clock")
	return nil
}

// names serves the tree through the attacker's hands.
func (w *leakWorld) names(context.Context) (err error) {
	host, _, _ := strings.Cut(w.Resolver.Addr, ":")
	long := time.Now().AddDate(1, 0, 0) // the clock of a case goes ahead
	zones := []zone.Zone{
		{Name: ".", Algorithm: dns.ECDSAP256SHA256}, {Name: "test", Algorithm: dns.ECDSAP256SHA256},
		{Name: w.Alpha.Domain, Algorithm: dns.ED25519, Records: w.Alpha.zone()},
		{Name: w.Bravo.Domain, Algorithm: dns.ECDSAP256SHA256},
		{Name: "plain.test", Algorithm: dns.ECDSAP256SHA256, Records: []string{"@ MX 10 mx", "mx A " + w.trap}},
	}
	if w.c.unsigned {
		zones[3].Algorithm = 0
	}
	for i := range zones {
		zones[i].Inception, zones[i].Expiration = time.Now().Add(-time.Hour), long
	}
	if w.Tree, err = zone.New(netip.MustParseAddr(host), zones...); err != nil {
		return err
	}
	w.dns = &dnsFront{tree: w.Tree}
	udp, tcp, err := zone.Listen(w.Resolver.Addr)
	if err != nil {
		return err
	}
	w.Go("names", func(ctx context.Context) error { return w.dns.serve(ctx, udp, tcp) })
	return os.WriteFile(w.anchorFile(), []byte(w.Tree.Anchor()), 0o644)
}

// servers starts the mail servers inside, and the trap.
func (w *leakWorld) servers(ctx context.Context) error {
	w.alphaIn, w.inner = &mailServer{greeting: "mx.alpha.test"}, &mailServer{greeting: "mx.bravo.test"}
	w.trapped = &mailServer{greeting: "mx.bravo.test", all: true}
	for m, addr := range map[*mailServer]string{w.alphaIn: w.Alpha.Postfix.Addr, w.inner: w.Bravo.Postfix.Addr, w.trapped: w.trap + ":25"} {
		if _, err := openGate(w.Bench, addr, served(w.Bench, "mail server "+addr, m.serve)); err != nil {
			return err
		}
	}
	return nil
}

// gateways makes both installations. Alpha's policy is the weakest that there is: nothing but the tables protects it.
func (w *leakWorld) gateways(ctx context.Context) (err error) {
	caFile, err := w.ca.write(w.Dir)
	if err != nil {
		return err
	}
	for _, o := range w.Orgs() {
		cert, err := w.ca.issue("dx."+o.Domain, "mx."+o.Domain, o.Domain)
		if err != nil {
			return err
		}
		crt, key, err := writeCertificate(w.Dir, "tls."+o.Domain, cert)
		if err != nil {
			return err
		}
		g := &Gateway{Inner: o.Postfix.Addr, lab: w.Lab, org: o, binary: w.gateway,
			Data: filepath.Join(w.Dir, "dx."+o.Domain), Config: filepath.Join(w.Dir, "dx."+o.Domain+".toml")}
		if err := g.Configure(func(text string) string {
			text += fmt.Sprintf("[[dmtp.certificate]]\ncertificate_file = %q\nkey_file = %q\n[log]\nformat = \"json\"\n[tls]\nca_file = %q\n", crt, key, caFile)
			if o == w.Alpha {
				return strings.Replace(text, `floor = "dime"`, fmt.Sprintf("floor = %q", w.floor), 1)
			}
			text = strings.Replace(text, "[[organization]]", "[[organization]]\npolicy = \""+w.c.policy+"\"", 1)
			if w.c.mx {
				text = strings.Replace(text, `dx = ["dx.bravo.test"]`, "", 1)
				text = strings.Replace(text, `hostname = "dx.bravo.test"`, `hostname = "mx.bravo.test"`, 1)
			}
			return text
		}); err != nil {
			return err
		}
		out, err := g.Command(ctx, "init", "--config", g.Config, "--json")
		if err != nil {
			return err
		}
		var made struct {
			Domains []struct {
				RecordLine string `json:"record_line"`
			}
		}
		if err := json.Unmarshal([]byte(out), &made); err != nil || len(made.Domains) != 1 {
			return fmt.Errorf("gateway init: %d domains, %w", len(made.Domains), err)
		}
		o.records = []string{made.Domains[0].RecordLine}
		if o == w.Alpha {
			w.alpha = g
		} else {
			w.bravo = g
		}
	}
	return nil
}

// between publishes the records, opens the front, and starts what is behind it: bravo's gateway or the foreign.
func (w *leakWorld) between(ctx context.Context) (err error) {
	ask, closeAsker, err := newAsker(w.Resolver.Addr, w.anchorFile(), filepath.Join(w.Dir, "ca.pem"))
	if err != nil {
		return err
	}
	w.Go("resolver of the foreign", func(ctx context.Context) error {
		<-ctx.Done()
		return closeAsker()
	})
	cert, err := w.ca.issue("dx.bravo.test")
	if err != nil {
		return err
	}
	if w.foreign, err = newForeign(w.Bravo.Domain, cert, ask); err != nil {
		return err
	}
	if w.dx, err = openGate(w.Bench, w.front+":26", relay(w.Bravo.DX+":26", nil)); err != nil {
		return err
	}
	if w.dual, err = openGate(w.Bench, w.front+":25", relay(w.Bravo.DX+":25", nil)); err != nil {
		return err
	}
	if w.c.mx {
		w.dx.set(hangUp)
	}
	if w.c.foreign {
		w.Bravo.records = []string{txt(w.foreign.record(w.c.policy, "dx.bravo.test"))}
		if err := w.foreignAtFront(); err != nil {
			return err
		}
	} else if err := w.bravo.Run(ctx); err != nil {
		return err
	}
	if err := w.Tree.Set(w.Alpha.Domain, w.Alpha.zone()...); err != nil {
		return err
	}
	return w.publish(w.Bravo.records...)
}

// publish makes the front and the trap, and these records, all that bravo's zone holds.
func (w *leakWorld) publish(records ...string) error {
	mx := w.trap
	if w.c.mx {
		mx = w.front
	}
	return w.Tree.Set(w.Bravo.Domain, append([]string{"@ MX 10 mx", "mx A " + mx, "dx A " + w.front}, records...)...)
}

// foreignAtFront makes whoever connects to bravo's port 26 talk to the foreign.
func (w *leakWorld) foreignAtFront() error {
	serve, err := w.foreign.server("dx.bravo.test")
	if err == nil {
		w.dx.set(served(w.Bench, "foreign", serve))
	}
	return err
}

// mailAtFront makes whoever connects to bravo's port 25 talk to a mail server that takes everything in clear.
func (w *leakWorld) mailAtFront(greeting string) {
	w.stripped = &mailServer{greeting: greeting, all: true}
	w.dual.set(served(w.Bench, "stripped", w.stripped.serve))
}

// txt is a management record as a line of the zone.
func txt(text string) string { return `_dx TXT ` + quoted(text) }

// startAlpha starts alpha's gateway. With a clock it runs under a lab's main function, in which the time can be set; all
// else is the same.
func (w *leakWorld) startAlpha(ctx context.Context, clock bool) error {
	if !clock {
		return w.alpha.Run(ctx)
	}
	p, err := w.Start("dx."+w.Alpha.Domain, w.self, "gateway-at", w.clock, w.alpha.Config)
	if err != nil {
		return err
	}
	w.alpha.Process = p
	return p.Up(ctx, w.Alpha.DX+":26", w.Alpha.DX+":2525")
}

// setClock puts alpha's clock ahead.
func (w *leakWorld) setClock(ahead time.Duration) error {
	next := w.clock + ".next"
	return errors.Join(os.WriteFile(next, []byte(ahead.String()), 0o644), os.Rename(next, w.clock))
}

// Addresses of the world. Their local parts are canaries, too.
func (w *leakWorld) sender() string    { return "a." + w.canary + "@alpha.test" }
func (w *leakWorld) recipient() string { return "b." + w.canary + "@bravo.test" }
func (w *leakWorld) outsider() string  { return "c." + w.canary + "@plain.test" }

// message is mail that is full of the canary.
func (w *leakWorld) message(to string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%s@alpha.test>\r\n\r\n", w.sender(), to, w.canary, w.canary)
	for i := range 2000 {
		fmt.Fprintf(&b, "%s line %d\r\n", w.canary, i)
	}
	return b.Bytes()
}

// submit gives a gateway a message, as its mail server would.
func submit(ctx context.Context, o *Org, from, to string, message []byte) error {
	return sendTo(ctx, o.DX+":2525", from, to, message)
}

func sendTo(ctx context.Context, addr, from, to string, message []byte) error {
	c, err := testpeer.DialSMTP(ctx, addr)
	if err != nil {
		return err
	}
	return errors.Join(c.Send(from, []string{to}, message), c.Close())
}

// An event is a line of a gateway's log that tells what became of a queue entry.
type event struct {
	Message string `json:"msg"`
	Entry   string `json:"entry"`
	Domain  string `json:"domain"`
	Class   string `json:"class"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Kind    string `json:"kind"`
}

// outcomes is what the queue's words mean.
var outcomes = map[string]string{"deferred": "held", "held": "held", "quarantined": "held", "failed": "bounced", "delivered": "delivered"}

// events reads what a gateway has logged behind an offset.
func events(g *Gateway, from int) (list []event, err error) {
	text, err := os.ReadFile(g.LogFile())
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text[min(from, len(text)):]) {
		var e event
		if json.Unmarshal(line, &e) == nil { // a half line is read the next time
			list = append(list, e)
		}
	}
	return list, nil
}

func logSize(g *Gateway) int {
	st, err := os.Stat(g.LogFile())
	if err != nil {
		return 0
	}
	return int(st.Size())
}

// decided waits until the queue says what became of an entry for a domain, in one of the given ways if there are any.
func decided(ctx context.Context, g *Gateway, from int, domain string, ways ...string) (found event, err error) {
	err = testpeer.Until(ctx, func() bool {
		list, rerr := events(g, from)
		for _, e := range list {
			if o := outcomes[e.Message]; rerr == nil && e.Entry != "" && e.Domain == domain && o != "" && (len(ways) == 0 || slices.Contains(ways, o)) {
				found = e
				return true
			}
		}
		return false
	})
	return found, err
}

// statusField is the status in a DSN (RFC 3464 §2.3.4).
var statusField = regexp.MustCompile(`(?m)^Status: (\d\.\d+\.\d+)\r?$`)

// bounce waits for a DSN in a mail server and returns its status.
func bounce(ctx context.Context, m *mailServer) (status string, err error) {
	err = testpeer.Until(ctx, func() bool {
		for _, l := range m.letters() {
			if s := statusField.FindSubmatch(l.octets); l.reversePath == "" && s != nil {
				status = string(s[1])
				return true
			}
		}
		return false
	})
	return status, err
}

// arrived waits until a mail server has n messages that are not DSNs.
func arrived(ctx context.Context, m *mailServer, n int) error {
	return testpeer.Until(ctx, func() bool {
		got := 0
		for _, l := range m.letters() {
			if l.reversePath != "" {
				got++
			}
		}
		return got >= n
	})
}

func quoted(text string) string {
	var parts []string
	for len(text) > 255 {
		parts, text = append(parts, `"`+text[:255]+`"`), text[255:]
	}
	return strings.Join(append(parts, `"`+text+`"`), " ")
}

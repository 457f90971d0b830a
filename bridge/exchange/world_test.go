package exchange

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp/resolver"
	"dimegate/internal/testcert"
	"dimegate/internal/zone"
)

const (
	alice = "alice@alpha.test"
	bob   = "bob@bravo.test"
	hello = "Subject: x\r\n\r\nhello\r\n"
)

// A mailServer is an SMTP server that does as it is told, and keeps what it got.
type mailServer struct {
	offer   []string          // beside STARTTLS
	cert    *tls.Certificate  // nil: no STARTTLS
	late    []string          // offered under TLS only
	replies map[string]string // by verb, "" for the banner, "." for the message; nothing: it agrees
	once    map[string]string // the same, the first time
	garbled bool              // after STARTTLS it speaks no TLS
	direct  bool              // TLS from the first octet
	max     uint16            // version of TLS
	hangUp  string            // at this verb, without a word

	addr  string
	mu    sync.Mutex
	lines []string // as heard
	mails []mail
	conns int
	wg    sync.WaitGroup
}

type mail struct {
	from, to string // whole lines
	octets   string
	tls      bool
}

func (s *mailServer) start(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() { cancel(); ln.Close(); s.wg.Wait() })
}

func (s *mailServer) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*s.cert}, MinVersion: tls.VersionTLS10, MaxVersion: s.max}
}

func (s *mailServer) serve(c net.Conn) {
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	secure := false
	if s.direct {
		c, secure = tls.Server(c, s.config()), true
	}
	in := bufio.NewReader(c)
	say := func(format string, a ...any) { fmt.Fprintf(c, format+"\r\n", a...) }
	say("%s", s.reply("", "220 mx.bravo.test ESMTP"))
	var m mail
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb := strings.ToUpper(strings.Fields(line + " ?")[0])
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		if verb == s.hangUp {
			return
		}
		switch r := s.reply(verb, ""); {
		case r != "":
			say("%s", r)
		case verb == "EHLO":
			s.hello(say, secure)
		case verb == "STARTTLS":
			say("220 go ahead")
			if s.garbled {
				in.Peek(1) // not before the client began
				io.WriteString(c, "this is no TLS\r\n")
				return
			}
			c, secure = tls.Server(c, s.config()), true
			in = bufio.NewReader(c)
		case verb == "MAIL":
			m = mail{from: line, tls: secure}
			say("250 ok")
		case verb == "RCPT":
			m.to = line
			say("250 ok")
		case verb == "AUTH":
			say("235 ok")
		case verb == "DATA":
			say("354 go on")
			m.octets = data(in)
			if r := s.reply(".", ""); r != "" {
				if r != "hang up" {
					say("%s", r)
					continue
				}
				return
			}
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 2.0.0 taken")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *mailServer) reply(verb, def string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.once[verb]; ok {
		delete(s.once, verb)
		return r
	}
	if r, ok := s.replies[verb]; ok {
		return r
	}
	return def
}

func (s *mailServer) hello(say func(string, ...any), secure bool) {
	offer := append([]string{"mx.bravo.test"}, s.offer...)
	if secure {
		offer = append(offer, s.late...)
	} else if s.cert != nil {
		offer = append(offer, "STARTTLS")
	}
	for i, o := range offer {
		sep := "-"
		if i == len(offer)-1 {
			sep = " "
		}
		say("250%s%s", sep, o)
	}
}

// data reads a message up to its dot.
func data(in *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

// heard counts the lines that begin so.
func (s *mailServer) heard(verb string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.HasPrefix(strings.ToUpper(l), verb) {
			n++
		}
	}
	return n
}

func (s *mailServer) taken() []mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

// A world is a name space with mail servers in it, and an Exchanger that looks at it from outside.
type world struct {
	tree     *zone.Tree
	dns      *resolver.DNS
	config   resolver.DNSConfig
	servers  map[string]*mailServer // by address
	policies map[string]string      // of MTA-STS, by domain: mode and hosts
	ca       *testcert.Authority
	reports  counter
	options  Options
	x        *Exchanger
}

// Zones of a world: signed, and not. Hosts of both can be named in either.
const (
	signed = "bravo.test"
	plain  = "plain.test"
)

// newWorld serves a name space. The zones' own records are relative.
func newWorld(t testing.TB, zones ...zone.Zone) *world {
	t.Helper()
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{servers: map[string]*mailServer{}, policies: map[string]string{}, ca: testcert.NewAuthority(t, "Test CA")}
	if w.tree, err = zone.New(netip.MustParseAddr("127.0.0.1"), zones...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.tree.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	anchors, err := resolver.ParseAnchors(strings.NewReader(w.tree.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	w.config = resolver.DNSConfig{Servers: []string{tcp.Addr().String()}, Anchors: anchors}
	w.options = Options{Name: "gw.alpha.test", Policies: w, Reports: &w.reports, Roots: w.ca.Pool(), Dial: w.dial}
	w.fresh(t)
	return w
}

// restart makes the Exchanger anew, of the options as they are.
func (w *world) restart(t testing.TB) {
	t.Helper()
	if w.x != nil {
		w.x.Close()
	}
	w.x = New(w.options)
	t.Cleanup(func() { w.x.Close() })
}

// serve puts a server at an address.
func (w *world) serve(t testing.TB, address string, s *mailServer) *mailServer {
	t.Helper()
	s.start(t)
	w.servers[address] = s
	return s
}

func (w *world) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	s := w.servers[to.Addr().String()]
	if s == nil || to.Port() != 25 && to.Port() != 587 && to.Port() != implicitTLS {
		return nil, errors.New("connection refused")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
}

// Find is the world's MTA-STS: "enforce mx.bravo.test", "?" when DNS does not answer, "!" for a policy that cannot be had.
func (w *world) Find(_ context.Context, domain string) (mtasts.Finding, error) {
	switch text := w.policies[domain]; text {
	case "":
		return mtasts.Finding{}, nil
	case "?":
		return mtasts.Finding{}, mtasts.ErrUnknown
	case "!":
		return mtasts.Finding{Err: mtasts.ErrFetch}, nil
	case "broken":
		return mtasts.Finding{}, errors.New("disk")
	default:
		mode, hosts, _ := strings.Cut(text, " ")
		return mtasts.Finding{Policy: &mtasts.Policy{Mode: mtasts.Mode(mode), MaxAge: time.Hour, Hosts: strings.Fields(hosts)}}, nil
	}
}

// A counter is a Reports that keeps what it is told, as text.
type counter struct {
	mu    sync.Mutex
	lines []string
}

func (c *counter) Record(s tlsrpt.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	result := string(s.Result)
	if result == "" {
		result = "ok"
	}
	c.lines = append(c.lines, fmt.Sprintf("%s %s %s %s", s.Policy.Domain, s.Policy.Kind, s.Host, result))
}

func (c *counter) taken() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := strings.Join(c.lines, "; ")
	c.lines = nil
	return out
}

// tlsa writes a TLSA record of a certificate's key.
func tlsa(owner string, usage, matching int, c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return fmt.Sprintf("_25._tcp.%s TLSA %d 1 %d %s", owner, usage, matching, hex.EncodeToString(sum[:]))
}

// letter is the mail of most tests.
func letter(f Floor, to string) Mail {
	return Mail{Floor: f, From: alice, To: to, Message: smtpwire.Octets(hello)}
}

// send sends and says in one line what came of it: the rung, or the class and the status.
func (w *world) send(t testing.TB, m Mail) (got string, r queue.Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rule := ""
	r, err := w.x.Send(ctx, m, func(s string, _ Rung) error { rule = s; return nil })
	if err != nil {
		return err.Error(), r
	}
	if r.Class == queue.Done {
		if r.Reason != rule {
			t.Errorf("decided %q, reported %q", rule, r.Reason)
		}
		_, over, _ := strings.Cut(rule, " over ")
		over, _, _ = strings.Cut(over, " ")
		return over, r
	}
	return r.Class.String() + " " + r.Status, r
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// zones are the two kinds of a domain with the same records.
func zones(records ...string) []zone.Zone {
	return []zone.Zone{{Name: signed, Algorithm: dns.ED25519, Records: records}, {Name: plain, Records: records}}
}

func set(t testing.TB, w *world, name string, records ...string) {
	t.Helper()
	if err := w.tree.Set(name, records...); err != nil {
		t.Fatal(err)
	}
}

func spoil(t testing.TB, w *world, name string, typ uint16) {
	t.Helper()
	if err := w.tree.Spoil(name, typ); err != nil {
		t.Fatal(err)
	}
}

// fresh empties the DNS cache.
func (w *world) fresh(t testing.TB) {
	t.Helper()
	var err error
	if w.dns, err = resolver.NewDNS(w.config); err != nil {
		t.Fatal(err)
	}
	w.options.DNS = w.dns
	w.restart(t)
}

// renewDNS gives the Exchanger that is there an empty DNS cache, and keeps its sessions.
func renewDNS(w *world) (err error) {
	w.x.DNS, err = resolver.NewDNS(w.config)
	return err
}

// Package demo runs two organisations on loopback in one process: a signed DNS root of their own, two gateways, two small
// mail stores, and an eavesdropper between them. It sends a message and checks what each of them could read.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/appliance/setup"
	"dimegate/bridge/handoff"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
	"dimegate/dmtp/message"
	"dimegate/internal/zone"
)

// Options of a demonstration.
type Options struct {
	Message []byte // RFC 5322, lines ending with CRLF; nil: a message of our own
	Out     io.Writer
	Log     *slog.Logger // of the gateways
}

// ErrNotAsPromised means that somebody could read what he must not, or not what he must, or that the message changed.
var ErrNotAsPromised = errors.New("not as promised")

// canary is what must be found nowhere but at the two ends.
const canary = "the merger closes on Friday"

const ownMessage = "From: Alice <alice@alpha.example>\r\nTo: Bob <bob@bravo.example>\r\nSubject: Merger terms\r\n" +
	"Date: Wed, 25 Nov 2026 09:00:00 +0000\r\nMessage-ID: <merger-1@alpha.example>\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" +
	"Bob,\r\n\r\n" + canary + ". Until then not a word.\r\n\r\nAlice\r\n--b1\r\nContent-Type: text/csv\r\n" +
	"Content-Disposition: attachment; filename=terms.csv\r\n\r\nparty,share\r\nalpha,51\r\nbravo,49\r\n--b1--\r\n"

// An org is one organisation of the demonstration.
type org struct {
	domain, user string
	algorithm    uint8
	signed       string         // the algorithm's name
	host         string         // its DX, in the hosting company's zone
	dx           netip.AddrPort // as the DNS and the record say
	folder       string
	config       *config.Config
	store        *mailStore
	storeAt      net.Listener
	gateway      *appliance.Appliance
	submission   string
	dmtp         string
	tap          *tap
	tapAt        net.Listener
}

func (o *org) address() string { return o.user + "@" + o.domain }

// A show is everything that runs.
type show struct {
	Options
	alpha, bravo *org
	tree         *zone.Tree
	resolver     string
	sealed       chan []byte // the message as it left alpha
	parts        sync.WaitGroup
}

// Run shows it, prints what was found, and returns ErrNotAsPromised when anything is not as DIME promises.
func Run(ctx context.Context, o Options) error {
	if o.Message == nil {
		o.Message = []byte(ownMessage)
	}
	dir, err := os.MkdirTemp("", "dimegate-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &show{Options: o, sealed: make(chan []byte, 1),
		alpha: &org{domain: "alpha.example", user: "alice", algorithm: dns.ED25519, signed: "Ed25519", host: "dx1.hosting.example", dx: netip.MustParseAddrPort("192.0.2.10:26")},
		bravo: &org{domain: "bravo.example", user: "bob", algorithm: dns.ECDSAP256SHA256, signed: "ECDSA P-256", host: "dx2.hosting.example", dx: netip.MustParseAddrPort("192.0.2.20:26")},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.parts.Wait()
	defer cancel()
	if err := s.start(ctx, dir); err != nil {
		return err
	}
	return s.play(ctx)
}

// start makes both organisations and runs them.
func (s *show) start(ctx context.Context, dir string) error {
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	s.resolver = udp.LocalAddr().String()
	zones := []zone.Zone{{Name: "hosting.example", Algorithm: dns.ECDSAP256SHA256}}
	for _, o := range s.orgs() {
		zones = append(zones, zone.Zone{Name: o.domain, Algorithm: o.algorithm})
		zones[0].Records = append(zones[0].Records, o.host+". 3600 IN A "+o.dx.Addr().String())
	}
	if s.tree, err = zone.New(netip.MustParseAddr("127.0.0.1"), zones...); err != nil {
		return err
	}
	s.parts.Go(func() { s.tree.Serve(ctx, udp, tcp) })
	anchor := filepath.Join(dir, "anchor")
	if err := os.WriteFile(anchor, []byte(s.tree.Anchor()+"\n"), 0o600); err != nil {
		return err
	}
	for _, o := range s.orgs() {
		o.folder = filepath.Join(dir, o.domain)
		if err := s.startOrg(ctx, o, anchor); err != nil {
			return fmt.Errorf("%s: %w", o.domain, err)
		}
	}
	return nil
}

func (s *show) orgs() []*org { return []*org{s.alpha, s.bravo} }

// startOrg makes an installation as "gateway init" does, publishes its record, and runs its gateway and mail store.
func (s *show) startOrg(ctx context.Context, o *org, anchor string) (err error) {
	if o.storeAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	o.store = newMailStore(o.domain, o.address())
	s.parts.Go(func() { o.store.serve(ctx, o.storeAt) })
	o.config = s.configure(o, anchor)
	if err := o.config.Check(); err != nil {
		return err
	}
	made, err := setup.Make(ctx, o.config, time.Now())
	if err != nil {
		return err
	}
	if err := s.tree.Set(o.domain, made.Domains[0].RecordLine); err != nil {
		return err
	}
	if o.tapAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	opts := appliance.Options{Log: s.Log, Dial: s.dial}
	if o == s.alpha {
		opts.Sealed = func(b []byte) {
			select {
			case s.sealed <- bytes.Clone(b):
			default:
			}
		}
	}
	if o.gateway, err = appliance.Open(ctx, o.config, opts); err != nil {
		return err
	}
	o.submission, o.dmtp = o.gateway.Addresses()
	o.tap = &tap{to: o.dmtp}
	s.parts.Go(func() { o.tap.serve(ctx, o.tapAt) })
	s.parts.Go(func() {
		if err := errors.Join(o.gateway.Run(ctx), o.gateway.Close()); err != nil {
			s.Log.Error("gateway ended", "domain", o.domain, "error", err)
		}
	})
	return nil
}

// configure is a gateway.toml of a few lines: everything else is at its default.
func (s *show) configure(o *org, anchor string) *config.Config {
	c := config.Default()
	c.DataFolder = o.folder
	c.Organizations = []config.Organization{{Domains: []string{o.domain}, DX: []string{o.host}, Inner: o.storeAt.Addr().String()}}
	c.Submission.Listen = []string{"127.0.0.1:0"}
	c.DMTP.Listen = []string{"127.0.0.1:0"}
	c.DMTP.Permit = []string{"192.0.2.0/24"}
	c.DNS.Resolvers = []string{s.resolver}
	c.DNS.TrustAnchorFile = anchor
	c.Health.Listen = ""
	c.Resolve(o.folder)
	return c
}

// dial is the network between the gateways: every connection passes the eavesdropper.
func (s *show) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for _, o := range s.orgs() {
		if to == o.dx {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", o.tapAt.Addr().String())
		}
	}
	return nil, fmt.Errorf("demo: nobody is at %v", to)
}

// play sends the message and looks at what became of it.
func (s *show) play(ctx context.Context) error {
	for _, o := range s.orgs() {
		fmt.Fprintf(s.Out, "%-15s gateway %s   mail store %s   _dx record signed, %s\n", o.domain, o.dmtp, o.storeAt.Addr(), o.signed)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	began := time.Now()
	if err := s.submit(ctx); err != nil {
		return fmt.Errorf("the gateway did not take the message: %w", err)
	}
	got, err := s.bravo.store.wait(ctx, 0)
	if err != nil {
		return fmt.Errorf("the message did not arrive: %w", err)
	}
	took := time.Since(began)
	m := translate.Split(s.Message)
	// What DIME takes out of a message at its first leg, and nothing else: see translate.Prepare. Additions are on top.
	sent, report := translate.Prepare(translate.Preparation{}, m)
	exact := bytes.HasSuffix(got.octets, sent.Bytes())
	fmt.Fprintf(s.Out, "%s → %s   %q, %s, handed over by SMTP, delivered in %d ms, %s\n\n", s.alpha.address(), s.bravo.address(),
		subject(m), size(len(s.Message)), took.Milliseconds(), exactness(exact, report))
	fine, err := s.examine(ctx, m)
	if err != nil {
		return err
	}
	if !fine || !exact || got.reversePath != s.alpha.address() {
		return ErrNotAsPromised
	}
	return nil
}

// submit hands the message to alpha's gateway as a mail server does.
func (s *show) submit(ctx context.Context) error {
	h := handoff.New(handoff.Config{Address: s.alpha.submission, Name: "mail." + s.alpha.domain, TLS: handoff.TLSOpportunistic})
	defer h.Close()
	return h.Deliver(ctx, handoff.Delivery{From: s.alpha.address(), To: s.bravo.address(), Message: smtpwire.Octets(s.Message)})
}

// examine prints the views and the search for the canary, and tells whether they are as promised.
func (s *show) examine(ctx context.Context, m translate.Message) (bool, error) {
	sealed := <-s.sealed
	secret := s.secret(m)
	f := facts{rowAuthor: s.alpha.address(), rowOrigin: s.alpha.domain, rowDestination: s.bravo.domain, rowRecipient: s.bravo.address(), rowContent: secret}
	views, layer, err := s.views(ctx, sealed, f)
	if err != nil {
		return false, err
	}
	wire := append(s.alpha.tap.octets(), s.bravo.tap.octets()...)
	seenOnWire := seen(wire, f)
	printTable(s.Out, views, seenOnWire)
	fmt.Fprintf(s.Out, "\nheaders and body under two ciphers: D/MIME's own, and beneath it %v\n", layer)
	fmt.Fprintln(s.Out)
	hits, files, err := rest(secret, s.alpha.folder, s.bravo.folder)
	if err != nil {
		return false, err
	}
	onWire := count(wire, secret)
	fmt.Fprintf(s.Out, "canary %q: %d times in %s octets on the wire, %d times in %d files at rest\n"+
		"(TLS names the host that it connects to, here dx1 and dx2 of a hosting company: a DX named after its domain shows that domain.)\n", secret, onWire, thousands(len(wire)), hits, files)
	fine := layer != 0 && onWire == 0 && hits == 0 && len(wire) > len(sealed) && files > 0 && seenOnWire == view{}
	for a, want := range promised {
		fine = fine && views[a] == want
	}
	return fine, nil
}

// secret is what must not be found: the canary, or the longest line of a message of the user's own.
func (s *show) secret(m translate.Message) string {
	if bytes.Contains(s.Message, []byte(canary)) {
		return canary
	}
	longest := []byte(nil)
	for _, part := range [][]byte{m.Header, m.Body} {
		for line := range bytes.SplitSeq(part, []byte("\r\n")) {
			if len(line) > len(longest) {
				longest = line
			}
		}
	}
	return string(longest[:min(len(longest), 60)])
}

// views opens the sealed message as each of the four, with that one's own keys and nothing else of his neighbours.
func (s *show) views(ctx context.Context, sealed []byte, f facts) (views map[message.Actor]view, layer message.SuiteID, err error) {
	views = map[message.Actor]view{}
	p, err := s.parties(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range []struct {
		actor   message.Actor
		org     *org
		address string // "" for the organisation
		parties message.Parties
	}{
		{message.Author, s.alpha, s.alpha.address(), message.Parties{Author: p.Author}},
		{message.Origin, s.alpha, "", message.Parties{Author: p.Author, Origin: p.Origin}},
		{message.Destination, s.bravo, "", message.Parties{Origin: p.Origin, Destination: p.Destination}},
		{message.Recipient, s.bravo, s.bravo.address(), p},
	} {
		k, err := c.org.gateway.EncryptionKey(ctx, c.org.domain, c.address)
		if err != nil {
			return nil, 0, err
		}
		inner, err := c.org.gateway.LayerKeys(ctx, c.address)
		if err != nil {
			return nil, 0, err
		}
		v, suite, err := read(sealed, c.actor, k, inner, c.parties, f)
		if err != nil {
			return nil, 0, fmt.Errorf("%v: %w", c.actor, err)
		}
		views[c.actor] = v
		layer = max(layer, suite)
	}
	return views, layer, nil
}

func (s *show) parties(ctx context.Context) (p message.Parties, err error) {
	for _, c := range []struct {
		into *message.Party
		org  *org
		name string
	}{
		{&p.Author, s.alpha, s.alpha.address()}, {&p.Origin, s.alpha, s.alpha.domain},
		{&p.Destination, s.bravo, s.bravo.domain}, {&p.Recipient, s.bravo, s.bravo.address()},
	} {
		if c.into.Signet, err = c.org.gateway.Signet(ctx, c.name); err != nil {
			return p, err
		}
		c.into.Name = c.name
	}
	return p, nil
}

func subject(m translate.Message) string {
	for f := range translate.Fields(m.Header) {
		if f.Is("Subject") {
			return strings.TrimSpace(string(f.Body))
		}
	}
	return "(no subject)"
}

func exactness(exact bool, r translate.Report) string {
	if !exact {
		return "CHANGED"
	}
	text := "byte-exact"
	for _, c := range r.Removed {
		text += " without " + c.Name
	}
	return text
}

func size(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d octets", n)
	}
	return fmt.Sprintf("%.1f KB", float64(n)/1024)
}

// thousands writes a number in groups of three.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

package appliance

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/setup"
	"dimegate/internal/testpeer"
	"dimegate/internal/zone"
	"dimegate/vault"
)

// A world is a signed name space and the gateways in it, in this process.
type world struct {
	t        *testing.T
	tree     *zone.Tree
	resolver string
	anchor   string
	sites    []*site
}

// A site is one organisation: its gateway, and the mail server behind it.
type site struct {
	world   *world
	domain  string
	host    string     // of its DX
	dx      netip.Addr // as the DNS has it; nobody is there: see world.dial
	config  *config.Config
	inner   *mailServer
	text    string   // of its management record
	records []string // of its zone, beside the address
	gateway *Appliance
	stop    func()
}

// newWorld makes the names of some domains, with no gateway yet. Each has its DX at dx.<domain>.
func newWorld(t *testing.T, domains ...string) *world {
	t.Helper()
	return newWorldUntil(t, time.Time{}, domains...)
}

// newWorldUntil is a world whose names are signed until then, for clocks that run ahead.
func newWorldUntil(t *testing.T, then time.Time, domains ...string) *world {
	t.Helper()
	w := &world{t: t}
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	check(t, err)
	w.resolver = udp.LocalAddr().String()
	zones := []zone.Zone{{Name: ".", Algorithm: dns.ECDSAP256SHA256, Expiration: then}, {Name: "example", Algorithm: dns.ECDSAP256SHA256, Expiration: then}}
	for i, d := range domains {
		s := &site{world: w, domain: d, host: "dx." + d, dx: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		s.records = []string{"dx A " + s.dx.String()}
		w.sites = append(w.sites, s)
		zones = append(zones, zone.Zone{Name: d, Algorithm: dns.ECDSAP256SHA256, Records: s.records, Expiration: then})
	}
	w.tree, err = zone.New(netip.MustParseAddr("127.0.0.1"), zones...)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { w.tree.Serve(ctx, udp, tcp) })
	t.Cleanup(func() { cancel(); server.Wait() })
	w.anchor = filepath.Join(t.TempDir(), "anchor")
	check(t, os.WriteFile(w.anchor, []byte(w.tree.Anchor()), 0o600))
	return w
}

// make makes the installation of a site: keys brings the organisation's instead of new ones, edit changes the configuration.
func (s *site) make(keys func(*vault.Vault), edit func(*config.Config)) {
	t := s.world.t
	t.Helper()
	s.inner = newMailServer(t)
	c := config.Default()
	c.DataFolder = filepath.Join(t.TempDir(), "data")
	c.Organizations = []config.Organization{{Domains: []string{s.domain}, DX: []string{s.host}, Inner: s.inner.addr}}
	c.Submission.Listen, c.DMTP.Listen, c.DMTP.ListenDual = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	c.DMTP.Permit = []string{"192.0.2.0/24"}
	c.DNS.Resolvers, c.DNS.TrustAnchorFile = []string{s.world.resolver}, s.world.anchor
	c.Health.Listen = ""
	if edit != nil {
		edit(c)
	}
	c.Resolve(c.DataFolder)
	check(t, c.Check())
	s.config = c
	if keys != nil {
		mine := c.Organizations
		c.Organizations = nil
		_, err := setup.Make(t.Context(), c, time.Now())
		check(t, err)
		v, err := keystore.Open(t.Context(), c.Vault, false)
		check(t, err)
		keys(v.Vault)
		check(t, v.Close())
		c.Organizations = mine
	}
	made, err := setup.Make(t.Context(), c, time.Now())
	check(t, err)
	for _, d := range made.Domains {
		for _, o := range s.world.sites { // a gateway may have the domains of others
			if d.Name == o.domain {
				o.text = d.Record
				o.publish(d.RecordLine)
			}
		}
	}
}

// publish makes some lines all that the zone has beside addresses.
func (s *site) publish(lines ...string) {
	s.world.t.Helper()
	check(s.world.t, s.world.tree.Set(s.domain, append(lines, s.records...)...))
}

// run starts the gateway and leaves it running until the test ends, or stop is called.
func (s *site) run(o Options) {
	t := s.world.t
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if o.Dial == nil {
		o.Dial = s.world.dial
	}
	var err error
	s.gateway, err = Open(t.Context(), s.config, o)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	gateway := s.gateway
	go func() { done <- gateway.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, gateway.Close()); err != nil {
			t.Errorf("%s: %v", s.domain, err)
		}
	})
	t.Cleanup(s.stop)
}

// dial is the network between the gateways.
func (w *world) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for _, s := range w.sites {
		if s.dx != to.Addr() || s.gateway == nil {
			continue
		}
		ln := s.gateway.listeners.dmtp
		if to.Port() == 25 {
			ln = s.gateway.listeners.dual
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln[0].Addr().String())
	}
	return nil, fmt.Errorf("nobody is at %v", to)
}

func (s *site) dual() string   { return s.gateway.listeners.dual[0].Addr().String() }
func (s *site) single() string { return s.gateway.listeners.dmtp[0].Addr().String() }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition, at most twenty seconds.
func until(t testing.TB, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check(t, testpeer.Until(ctx, ok))
}

// A mailServer is an inner mail server that keeps what it gets in memory.
type mailServer struct {
	addr  string
	rcpt  func(address string) error // nil: everyone exists
	hold  func()                     // waited for before the verdict on a message; nil: nothing is
	mu    sync.Mutex
	asked int // RCPT commands
	got   []string
}

func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	m := &mailServer{addr: ln.Addr().String()}
	e := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return innerSession{m}, nil }))
	e.Domain, e.EnableSMTPUTF8, e.MaxLineLength, e.ErrorLog = "inner", true, 0, log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() { defer close(done); e.Serve(ln) }()
	t.Cleanup(func() { e.Close(); ln.Close(); <-done }) // ln, too: Serve may not have begun
	return m
}

var errNobody = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}

// only makes these the mailboxes that exist.
func (m *mailServer) only(addresses ...string) {
	m.rcpt = func(a string) error {
		for _, known := range addresses {
			if strings.EqualFold(a, known) {
				return nil
			}
		}
		return errNobody
	}
}

func (m *mailServer) messages() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.got...)
}

func (m *mailServer) questions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

type innerSession struct{ m *mailServer }

func (innerSession) Mail(string, *smtp.MailOptions) error { return nil }
func (innerSession) Reset()                               {}
func (innerSession) Logout() error                        { return nil }

func (s innerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.m.mu.Lock()
	s.m.asked++
	s.m.mu.Unlock()
	if s.m.rcpt != nil {
		return s.m.rcpt(to)
	}
	return nil
}

func (s innerSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.m.hold != nil {
		s.m.hold()
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.got = append(s.m.got, string(b))
	return nil
}

// A talk is the other side of a session of lines.
type talk struct {
	t     testing.TB
	conn  net.Conn
	in    *bufio.Reader
	state tls.ConnectionState
}

// call connects, from an address of loopback if one is given.
func call(t testing.TB, addr, from string) *talk {
	t.Helper()
	var d net.Dialer
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", addr)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return &talk{t: t, conn: c, in: bufio.NewReader(c)}
}

func (c *talk) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.conn, s)
	check(c.t, err)
}

// reply reads one reply, "" at the end of the connection.
func (c *talk) reply() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return ""
		}
		all.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// want reads replies and compares their beginnings.
func (c *talk) want(codes ...string) string {
	c.t.Helper()
	var r string
	for _, code := range codes {
		if r = c.reply(); !strings.HasPrefix(r, code) {
			c.t.Fatalf("reply %q, want %s", r, code)
		}
	}
	return r
}

// cmd sends a line and wants a reply.
func (c *talk) cmd(line, code string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.want(code)
}

// secure is the TLS handshake, as libdime makes it or as we do.
func (c *talk) secure(cfg *tls.Config) *talk {
	c.t.Helper()
	cfg.InsecureSkipVerify = true
	conn := tls.Client(c.conn, cfg)
	check(c.t, conn.Handshake())
	c.conn, c.in, c.state = conn, bufio.NewReader(conn), conn.ConnectionState()
	return c
}

package resolver_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/internal/testcert"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// client is a Fetcher over the real DMTP client.
type client struct{ *dmtpclient.Client }

func (c client) Connect(ctx context.Context, t resolver.Target) (resolver.Session, error) {
	to := dmtpclient.Target{Domain: t.Domain, Verify: t.Verify}
	for _, h := range t.Hosts {
		to.Hosts = append(to.Hosts, dmtpclient.Host{Name: h.Name, Dual: h.Dual})
	}
	conn, err := c.Client.Connect(ctx, to)
	if err != nil {
		return nil, err
	}
	return session{conn}, nil
}

type session struct{ *dmtpclient.Conn }

func known(err error) error {
	if errors.Is(err, dmtpclient.ErrNoSignet) {
		return fmt.Errorf("%w: %w", resolver.ErrNoSignet, err)
	}
	return err
}

func (s session) Signet(ctx context.Context, name string) ([]byte, error) {
	b, err := s.Conn.Signet(ctx, name)
	return b, known(err)
}

func (s session) SignetByFingerprint(ctx context.Context, name string, fp [64]byte) ([]byte, error) {
	b, err := s.Conn.SignetByFingerprint(ctx, name, fp)
	return b, known(err)
}

func (s session) Verify(ctx context.Context, name string, fp [64]byte) (bool, [64]byte, error) {
	current, update, err := s.Conn.Verify(ctx, name, fp)
	return current, update, known(err)
}

func (s session) History(ctx context.Context, name string, start [64]byte, next func([]byte) ([64]byte, error)) ([][]byte, error) {
	list, err := s.Conn.History(ctx, name, start, next)
	return list, known(err)
}

// directory is what a server shows.
type directory struct {
	mu    sync.Mutex
	names map[string][]*signet.Signet
}

func (d *directory) add(name string, s *signet.Signet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name] = append(d.names[name], s)
}

func (d *directory) Chain(_ context.Context, name string) ([]*signet.Signet, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if list := d.names[name]; len(list) > 0 {
		return list, nil
	}
	return nil, dmtpserver.ErrNotFound
}

func (d *directory) Current(ctx context.Context, name string) (*signet.Signet, error) {
	list, err := d.Chain(ctx, name)
	if err != nil {
		return nil, err
	}
	return list[len(list)-1], nil
}

func (*directory) Organization(context.Context, string) (*dmtpserver.Organization, error) {
	return nil, dmtpserver.ErrNotFound
}

func (*directory) OriginSignet(context.Context, string, string, signet.Fingerprint, func() bool) (*signet.Signet, error) {
	return nil, dmtpserver.ErrOriginUnknown
}

func (*directory) Message(context.Context, string, string, [64]byte) (dmtpserver.Outcome, error) {
	return dmtpserver.Outcome{}, nil
}

func (*directory) Accepted(context.Context, string, string, [64]byte) (bool, error) {
	return false, nil
}
func (*directory) Deliver(context.Context, *dmtpserver.Incoming) error { return dmtpserver.ErrRefused }

func pair(t *testing.T) key.Pair {
	t.Helper()
	s, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.GenerateEncryption(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

// run starts f and waits for its end when the test is over.
func run(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestEndToEnd resolves through what is really there: signed DNS over UDP, TLS, our DMTP client and server.
func TestEndToEnd(t *testing.T) {
	alpha := pair(t)
	cert := testcert.RSA(t, "dx.alpha.test")
	sig := record.SignCertificate(alpha.Signing, cert.Certificate[0])
	pok := alpha.Signing.Public()
	text := fmt.Sprintf("ver=1 pok=%s tls=%s pol=mixed dx=dx.alpha.test", base64.RawStdEncoding.EncodeToString(pok[:]), base64.RawStdEncoding.EncodeToString(sig[:]))
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zone.Zone{Name: "alpha.test", Algorithm: dns.ED25519,
		Records: []string{`_dx TXT "` + strings.Join(record.Strings(text), `" "`) + `"`, "dx A 127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return tree.Serve(ctx, udp, tcp) })

	shown := &directory{names: map[string][]*signet.Signet{}}
	org, err := signet.NewOrg(alpha, signet.Details{Name: "alpha.test"})
	if err != nil {
		t.Fatal(err)
	}
	shown.add("alpha.test", org)
	first, second := pair(t), pair(t)
	var signets []*signet.Signet
	for _, u := range []struct {
		pair     key.Pair
		previous *key.Signing
	}{{first, nil}, {second, &first.Signing}} {
		s, err := signet.NewUser(u.pair, signet.RequestDetails{Previous: u.previous}, alpha.Signing, signet.Details{Name: "alice@alpha.test"})
		if err != nil {
			t.Fatal(err)
		}
		shown.add("alice@alpha.test", s)
		signets = append(signets, s)
	}
	certs, err := dmtpserver.NewCertificates(dmtpserver.Host{Names: []string{"dx.alpha.test"}, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := dmtpserver.New(dmtpserver.Config{Host: "dx.alpha.test", Certificates: certs, Directory: shown, Domains: shown, Origins: shown, Outcomes: shown, Deliverer: shown,
		Limits: dmtpserver.Limits{Delay: -1, MissDelay: -1}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })

	anchors, err := resolver.ParseAnchors(strings.NewReader(tree.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	names, err := resolver.NewDNS(resolver.DNSConfig{Servers: []string{tcp.Addr().String()}, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	c := dmtpclient.New(dmtpclient.Options{Permit: dmtpclient.Anywhere, Port: uint16(ln.Addr().(*net.TCPAddr).Port),
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			list, _, err := names.Addresses(ctx, host)
			return list, err
		}})
	defer c.Close()
	r, err := resolver.New(resolver.Config{DNS: names, Fetcher: client{c}, Store: &resolver.MemoryStore{}})
	if err != nil {
		t.Fatal(err)
	}

	ctx := t.Context()
	u, err := r.User(ctx, "alice@alpha.test", true)
	if err != nil {
		t.Fatal(err)
	}
	ev := u.Evidence
	if u.Org.State != resolver.Secure || string(u.Signet.Bytes()) != string(signets[1].Bytes()) || ev.Certificate.TLS != resolver.TLSMatches || ev.Certificate.Host != "dx.alpha.test" {
		t.Errorf("%+v, %+v", u, ev)
	}
	fp, _ := signets[0].Fingerprint(signet.Crypto)
	if past, err := r.UserByFingerprint(ctx, "alice@alpha.test", fp); err != nil || string(past.Signet.Bytes()) != string(signets[0].Bytes()) {
		t.Errorf("past: %v", err)
	}
	full, _ := signets[0].Fingerprint(signet.Full)
	if list, err := r.History(ctx, "alice@alpha.test", full); err != nil || len(list) != 2 {
		t.Errorf("history: %d, %v", len(list), err)
	}
	if current, err := r.Current(ctx, "alice@alpha.test", full); err != nil || current {
		t.Errorf("the past signet is current: %v, %v", current, err)
	}
	ofp, _ := org.Fingerprint(signet.Crypto)
	if s, _, err := r.OrgByFingerprint(ctx, "alpha.test", ofp); err != nil || s.Name() != "alpha.test" {
		t.Errorf("org: %v", err)
	}
	if _, err := r.User(ctx, "nobody@alpha.test", true); !errors.Is(err, resolver.ErrNoSignet) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := r.User(ctx, "alice@bravo.test", true); !errors.Is(err, resolver.ErrNotDIME) {
		t.Errorf("a domain that is not there: %v", err)
	}
}

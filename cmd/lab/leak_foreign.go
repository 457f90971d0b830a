package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
)

// A foreign is an organisation whose DX is not a gateway of ours but speaks DMTP as it should, and says what the test makes
// it say. It takes every message and keeps what it got.
type foreign struct {
	domain string
	pair   key.Pair
	cert   tls.Certificate
	org    *signet.Signet
	origin *resolver.Resolver // finds who sends

	mu    sync.Mutex
	users map[string]*signet.Signet // shown in the place of whatever a name has; a user without one gets one when asked for
	asked map[string]int
	got   [][]byte
}

// newForeign makes an organisation that asks the given resolver about others.
func newForeign(domain string, cert tls.Certificate, ask *resolver.Resolver) (*foreign, error) {
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		return nil, err
	}
	f := &foreign{domain: domain, pair: pair, cert: cert, origin: ask, users: map[string]*signet.Signet{}, asked: map[string]int{}}
	f.org, err = signet.NewOrg(pair, signet.Details{Name: domain})
	return f, err
}

// newAsker makes a resolver as a gateway with this DNS has it.
func newAsker(dns, anchorFile, caFile string) (*resolver.Resolver, func() error, error) {
	c := config.Default()
	c.DNS.Resolvers, c.DNS.TrustAnchorFile, c.TLS.CAFile, c.DMTP.Permit = []string{dns}, anchorFile, caFile, []string{"127.0.0.0/8"}
	return appliance.NewResolver(c, &resolver.MemoryStore{}, appliance.Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
}

// record is the text of its management record.
func (f *foreign) record(policy, dx string) string {
	sig, pok := record.SignCertificate(f.pair.Signing, f.cert.Certificate[0]), f.pair.Signing.Public()
	return fmt.Sprintf("ver=1 pok=%s tls=%s pol=%s dx=%s", base64.RawStdEncoding.EncodeToString(pok[:]),
		base64.RawStdEncoding.EncodeToString(sig[:]), policy, dx)
}

// user makes a signet for an address, with new keys and no custody.
func (f *foreign) user(address string) (*signet.Signet, error) {
	p, err := key.GeneratePair(rand.Reader)
	if err != nil {
		return nil, err
	}
	return signet.NewUser(p, signet.RequestDetails{}, f.pair.Signing, signet.Details{Name: address})
}

// show makes a name answer with a signet from now on and counts anew who asks for it.
func (f *foreign) show(name string, s *signet.Signet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[name], f.asked[name] = s, 0
}

func (f *foreign) askedFor(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[name]
}

// received is every message that came, as octets.
func (f *foreign) received() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]byte(nil), f.got...)
}

// server is its DX under a host name.
func (f *foreign) server(host string) (func(context.Context, net.Listener) error, error) {
	certs, err := dmtpserver.NewCertificates(dmtpserver.Host{Names: []string{host, f.domain}, Certificates: []tls.Certificate{f.cert}})
	if err != nil {
		return nil, err
	}
	s, err := dmtpserver.New(dmtpserver.Config{Host: host, Certificates: certs, Directory: f, Domains: f, Origins: f, Outcomes: f, Deliverer: f,
		Limits: dmtpserver.Limits{Delay: -1, MissDelay: -1, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	if err != nil {
		return nil, err
	}
	return s.Serve, nil
}

func (f *foreign) Current(_ context.Context, name string) (*signet.Signet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[name]++
	if name == f.domain {
		return f.org, nil
	}
	if f.users[name] == nil {
		s, err := f.user(name)
		if err != nil {
			return nil, err
		}
		f.users[name] = s
	}
	return f.users[name], nil
}

func (f *foreign) Chain(ctx context.Context, name string) ([]*signet.Signet, error) {
	s, err := f.Current(ctx, name)
	return []*signet.Signet{s}, err
}

func (f *foreign) Organization(_ context.Context, domain string) (*dmtpserver.Organization, error) {
	if domain != f.domain {
		return nil, dmtpserver.ErrNotFound
	}
	return &dmtpserver.Organization{Keys: []dmtpserver.OrganizationKey{{Signet: f.org, Key: f.pair.Encryption}}}, nil
}

func (f *foreign) OriginSignet(ctx context.Context, _, domain string, crypto signet.Fingerprint, _ func() bool) (*signet.Signet, error) {
	s, _, err := f.origin.OrgByFingerprint(ctx, domain, crypto)
	return s, err
}

func (f *foreign) Message(context.Context, string, string, [64]byte) (dmtpserver.Outcome, error) {
	return dmtpserver.Outcome{}, nil
}

func (f *foreign) Accepted(context.Context, string, string, [64]byte) (bool, error) {
	return false, nil
}

func (f *foreign) Deliver(_ context.Context, in *dmtpserver.Incoming) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, append([]byte(nil), in.Message.Bytes()...))
	return nil
}

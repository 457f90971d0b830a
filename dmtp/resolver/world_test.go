package resolver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
	namespace "dimegate/internal/zone"

	"github.com/miekg/dns"
)

// An org is a foreign organisation: its keys, what it publishes and what its DX answers.
type org struct {
	t      testing.TB
	domain string
	pair   key.Pair
	cert   *x509.Certificate
	tlsKey *ecdsa.PrivateKey
	signet *signet.Signet

	served map[string][]*signet.Signet // by name, the oldest first
	raw    map[string][]byte           // by name: served in place of the current signet
	fail   error                       // of every question
}

func newPair(t testing.TB) key.Pair {
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

func newOrg(t testing.TB, domain string) *org {
	t.Helper()
	o := &org{t: t, domain: domain, pair: newPair(t), tlsKey: newKey(t), served: map[string][]*signet.Signet{}, raw: map[string][]byte{}}
	o.cert = selfIssue(t, o.tlsKey, "dx."+domain)
	o.sign(domain)
	return o
}

// sign makes a new org signet that names domain and serves it.
func (o *org) sign(domain string, fields ...signet.Field) *signet.Signet {
	o.t.Helper()
	s, err := signet.NewOrg(o.pair, signet.Details{Name: domain, Fields: fields})
	if err != nil {
		o.t.Fatal(err)
	}
	o.signet = s
	o.served[o.domain] = append(o.served[o.domain], s)
	return s
}

// user makes a signet for an address and serves it; previous is the signing key that hands over to it, or nil.
func (o *org) user(address string, p key.Pair, previous *key.Signing) *signet.Signet {
	o.t.Helper()
	s, err := signet.NewUser(p, signet.RequestDetails{Previous: previous}, o.pair.Signing, signet.Details{Name: address})
	if err != nil {
		o.t.Fatal(err)
	}
	o.served[address] = append(o.served[address], s)
	return s
}

func pok(p key.Pair) string {
	k := p.Signing.Public()
	return base64.RawStdEncoding.EncodeToString(k[:])
}

// record is the text of the org's record with its certificate signed; more is added.
func (o *org) record(more string) string {
	sig := record.SignCertificate(o.pair.Signing, o.cert.Raw)
	return fmt.Sprintf("ver=1 pok=%s tls=%s %s", pok(o.pair), base64.RawStdEncoding.EncodeToString(sig[:]), more)
}

// txt is a zone line that publishes a record text.
func txt(text string) string {
	var parts []string
	for _, s := range record.Strings(text) {
		parts = append(parts, `"`+s+`"`)
	}
	return "_dx TXT " + strings.Join(parts, " ")
}

// A net is a world with organisations in it and a Resolver that looks from outside.
type network struct {
	*world
	r       *Resolver
	store   *MemoryStore
	ca      *testCA
	dx      map[string]*org // by host
	deaf    map[string]bool // hosts that do not answer
	connect []string        // hosts that were connected to
	asked   []string        // questions, with the verb
	alarms  []Alarm
	down    bool // no DNS answers
	rewrite func(verb, name string) error
}

const forever = 20 * 365 * 24 * time.Hour

// newNetwork has the zones alpha.test (signed) and plain.test (not), without records.
func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{store: &MemoryStore{}, ca: newCA(t, "Test CA"), dx: map[string]*org{}, deaf: map[string]bool{}}
	late := time.Now().Add(forever)
	n.world = newWorld(t,
		namespace.Zone{Name: ".", Algorithm: dns.ED25519, Expiration: late}, namespace.Zone{Name: "test", Algorithm: dns.ED25519, Expiration: late},
		namespace.Zone{Name: "alpha.test", Algorithm: dns.ED25519, Expiration: late}, namespace.Zone{Name: "plain.test"})
	exchange := n.world.dns.exchange
	n.world.dns.exchange = func(ctx context.Context, nw, server string, q *dns.Msg) (*dns.Msg, error) {
		if n.down {
			return nil, errors.New("no route to host")
		}
		return exchange(ctx, nw, server, q)
	}
	n.restart(t)
	return n
}

// restart makes a new Resolver over the same pins; the DNS cache is emptied, too.
func (n *network) restart(t testing.TB) {
	t.Helper()
	d := n.world.dns
	d.flush()
	var err error
	n.r, err = New(Config{DNS: d, Fetcher: n, Store: n.store, Judge: CertificateJudge{Roots: n.ca.pool()}, Now: func() time.Time { return n.now },
		Alarm: func(_ context.Context, a Alarm) { n.alarms = append(n.alarms, a) }})
	if err != nil {
		t.Fatal(err)
	}
}

// publish sets the zone of an org and starts its DX at dx.<domain>.
func (n *network) publish(t testing.TB, o *org, records ...string) {
	t.Helper()
	if err := n.tree.Set(o.domain, records...); err != nil {
		t.Fatal(err)
	}
	n.dx["dx."+o.domain] = o
}

// Connect is the Fetcher.
func (n *network) Connect(ctx context.Context, t Target) (Session, error) {
	err := errors.New("no host")
	for _, h := range t.Hosts {
		o := n.dx[h.Name]
		if o == nil || n.deaf[h.Name] {
			err = errors.New("connection refused")
			continue
		}
		n.connect = append(n.connect, h.Name)
		if err = t.Verify(ctx, h.Name, tls.ConnectionState{PeerCertificates: []*x509.Certificate{o.cert}}); err == nil {
			return &session{n, o}, nil
		}
	}
	return nil, err
}

type session struct {
	n *network
	o *org
}

func (s *session) Close() error { return nil }

func (s *session) ask(verb, name string) error {
	s.n.asked = append(s.n.asked, verb+" "+name)
	if s.n.rewrite != nil {
		if err := s.n.rewrite(verb, name); err != nil {
			return err
		}
	}
	return s.o.fail
}

func (s *session) Signet(_ context.Context, name string) ([]byte, error) {
	if err := s.ask("SGNT", name); err != nil {
		return nil, err
	}
	if raw := s.o.raw[name]; raw != nil {
		return raw, nil
	}
	if list := s.o.served[name]; len(list) > 0 {
		return list[len(list)-1].Bytes(), nil
	}
	return nil, fmt.Errorf("576: %w", ErrNoSignet)
}

func (s *session) SignetByFingerprint(_ context.Context, name string, fp [64]byte) ([]byte, error) {
	if err := s.ask("SGNT-fp", name); err != nil {
		return nil, err
	}
	for _, old := range s.o.served[name] {
		for f := signet.Crypto; f <= old.Form(); f++ {
			if got, _ := old.Fingerprint(f); got == signet.Fingerprint(fp) {
				cut, err := old.Cut(f)
				if err != nil {
					return nil, err
				}
				return cut.Bytes(), nil
			}
		}
	}
	return nil, fmt.Errorf("576: %w", ErrNoSignet)
}

func (s *session) Verify(_ context.Context, name string, fp [64]byte) (bool, [64]byte, error) {
	if err := s.ask("VRFY", name); err != nil {
		return false, [64]byte{}, err
	}
	list := s.o.served[name]
	for i, old := range list {
		if has(old, fp) {
			update, _ := list[len(list)-1].Fingerprint(signet.ID)
			return i == len(list)-1, update, nil
		}
	}
	return false, [64]byte{}, fmt.Errorf("576: %w", ErrNoSignet)
}

func (s *session) History(_ context.Context, name string, start [64]byte, _ func([]byte) ([64]byte, error)) ([][]byte, error) {
	if err := s.ask("HIST", name); err != nil {
		return nil, err
	}
	list := s.o.served[name]
	at := slices.IndexFunc(list, func(old *signet.Signet) bool { return has(old, start) })
	if at < 0 {
		return nil, fmt.Errorf("576: %w", ErrNoSignet)
	}
	var out [][]byte
	for _, old := range list[at:] {
		out = append(out, old.Bytes())
	}
	return out, nil
}

// verdict checks that err is that verdict, and that it says so without the octets it is about.
func verdict(t *testing.T, err, want error, why string) *Error {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Fatalf("error %v; want none", err)
		}
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, want) || !strings.Contains(err.Error(), why) {
		t.Fatalf("error %v; want %v: %s", err, want, why)
	}
	for _, other := range []error{ErrTemporary, ErrNotDIME, ErrNoSignet, ErrDoubtful, ErrVanished, ErrUntrusted, ErrGarbled} {
		if e.Verdict == other && other != want {
			t.Fatalf("verdict %v; want %v", e.Verdict, want)
		}
	}
	return e
}

// alarmed takes the alarms so far and checks that there is one of the kind, or none when kind is "".
func (n *network) alarmed(t *testing.T, kind string) {
	t.Helper()
	defer func() { n.alarms = nil }()
	if kind == "" && len(n.alarms) > 0 {
		t.Errorf("alarms %v; want none", n.alarms)
	}
	if kind != "" && !slices.ContainsFunc(n.alarms, func(a Alarm) bool { return a.Kind == kind && a.Name != "" && a.Text != "" }) {
		t.Errorf("alarms %v; want one of %s", n.alarms, kind)
	}
}

func (n *network) later(d time.Duration) { n.now = n.now.Add(d) }

func same(a, b *signet.Signet) bool { return a != nil && b != nil && bytes.Equal(a.Bytes(), b.Bytes()) }

// newNetworkWithout is a world in which the domain is not signed.
func newNetworkWithout(t testing.TB, domain string) *world {
	t.Helper()
	late := time.Now().Add(forever)
	return newWorld(t, namespace.Zone{Name: ".", Algorithm: dns.ED25519, Expiration: late},
		namespace.Zone{Name: "test", Algorithm: dns.ED25519, Expiration: late}, namespace.Zone{Name: domain})
}

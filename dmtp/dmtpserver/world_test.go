package dmtpserver

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/testcert"
)

// A world is two organisations: alice of a.example writes to bob of b.example, whose DX is dx.b.example.
type world struct {
	a, b                         key.Pair
	aSignet, bSignet, bOldSignet *signet.Signet
	bOld                         key.Pair
	alice                        key.Pair
	aliceSignet                  *signet.Signet
	bob                          []*signet.Signet // oldest first
}

func pair(tb testing.TB) key.Pair {
	tb.Helper()
	s, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	e, err := key.GenerateEncryption(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func newWorld(tb testing.TB, bobs int) *world {
	w := &world{a: pair(tb), b: pair(tb), bOld: pair(tb), alice: pair(tb)}
	ok := must[*signet.Signet](tb)
	w.aSignet = ok(signet.NewOrg(w.a, signet.Details{Name: "a.example"}))
	w.bSignet = ok(signet.NewOrg(w.b, signet.Details{Name: "b.example"}))
	w.bOldSignet = ok(signet.NewOrg(w.bOld, signet.Details{Name: "b.example"}))
	w.aliceSignet = ok(signet.NewUser(w.alice, signet.RequestDetails{}, w.a.Signing, signet.Details{Name: "alice@a.example"}))
	var previous *key.Signing
	for range bobs {
		p := pair(tb)
		w.bob = append(w.bob, ok(signet.NewUser(p, signet.RequestDetails{Previous: previous}, w.b.Signing, signet.Details{Name: "bob@b.example"})))
		previous = &p.Signing
	}
	return w
}

// compose makes a message from alice to bob, signed by its origin.
func (w *world) compose(tb testing.TB, body string, change func(*message.Parties)) *message.Message {
	tb.Helper()
	p := message.Parties{
		Author: message.Party{Name: "alice@a.example", Signet: w.aliceSignet}, Origin: message.Party{Name: "a.example", Signet: w.aSignet},
		Destination: message.Party{Name: "b.example", Signet: w.bSignet}, Recipient: message.Party{Name: "bob@b.example", Signet: w.bob[len(w.bob)-1]},
	}
	if change != nil {
		change(&p)
	}
	content := &message.Content{
		Common:  []byte("Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nTo: bob@b.example\r\nFrom: alice@a.example\r\nSubject: test\r\n"),
		Other:   []byte("X: y\r\n"),
		Display: []message.Part{{Data: []byte(body)}},
	}
	draft, err := message.Compose(rand.Reader, p, content, w.alice.Signing)
	if err != nil {
		tb.Fatal(err)
	}
	return draft
}

// signed is compose with the origin's signatures.
func (w *world) signed(tb testing.TB, body string, change func(*message.Parties)) []byte {
	tb.Helper()
	draft := w.compose(tb, body, change)
	opened, err := draft.Open(message.Origin, w.a.Encryption)
	if err != nil {
		tb.Fatal(err)
	}
	if err := opened.Verify(message.Parties{Author: message.Party{Signet: w.aliceSignet}, Origin: message.Party{Signet: w.aSignet}}); err != nil {
		tb.Fatal(err)
	}
	m, err := opened.SignOrigin(w.a.Signing)
	if err != nil {
		tb.Fatal(err)
	}
	return m.Bytes()
}

// A backend is everything behind the server, in memory.
type backend struct {
	*world
	mu       sync.Mutex
	got      []*Incoming
	bodies   []string
	outcomes map[[64]byte]Outcome
	commits  map[[64]byte]bool
	fail     error // of Deliver
	origin   error // of OriginSignet
	failing  error // of the directory, the domains and the outcomes
	ask      bool  // OriginSignet asks mayAsk
	wait     chan struct{}
	panics   bool
}

func newBackend(w *world) *backend {
	return &backend{world: w, outcomes: make(map[[64]byte]Outcome), commits: make(map[[64]byte]bool)}
}

func (b *backend) Current(ctx context.Context, name string) (*signet.Signet, error) {
	chain, err := b.Chain(ctx, name)
	if err != nil {
		return nil, err
	}
	return chain[len(chain)-1], nil
}

func (b *backend) Chain(_ context.Context, name string) ([]*signet.Signet, error) {
	switch {
	case b.panics:
		panic("the backend fell over a secret")
	case b.failing != nil:
		return nil, b.failing
	case name == "b.example":
		return []*signet.Signet{b.bOldSignet, b.bSignet}, nil
	case name == "bob@b.example":
		return b.bob, nil
	}
	return nil, ErrNotFound
}

func (b *backend) Organization(_ context.Context, domain string) (*Organization, error) {
	switch {
	case domain != "b.example":
		return nil, ErrNotFound
	case b.failing != nil:
		return nil, b.failing
	}
	return &Organization{Keys: []OrganizationKey{{Signet: b.bSignet, Key: b.b.Encryption}, {Signet: b.bOldSignet, Key: b.bOld.Encryption}}}, nil
}

func (b *backend) OriginSignet(_ context.Context, _, domain string, fp signet.Fingerprint, mayAsk func() bool) (*signet.Signet, error) {
	if b.ask && !mayAsk() {
		return nil, ErrOriginUnavailable
	}
	if b.origin != nil {
		return nil, b.origin
	}
	if domain != "a.example" {
		return nil, ErrOriginGone
	}
	return b.aSignet, nil
}

func (b *backend) Message(_ context.Context, _, _ string, id [64]byte) (Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outcomes[id], b.failing
}

func (b *backend) Accepted(_ context.Context, _, origin string, commit [64]byte) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return origin == "a.example" && b.commits[commit], b.failing
}

func (b *backend) Deliver(ctx context.Context, in *Incoming) error {
	if b.wait != nil {
		select {
		case <-b.wait:
		case <-ctx.Done():
			return ErrInFlight
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.got = append(b.got, in)
	b.bodies = append(b.bodies, string(in.Message.Bytes()))
	b.outcomes[in.ID] = Outcome{State: Accepted}
	b.commits[in.Commit] = true
	return nil
}

func (b *backend) messages() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.bodies...)
}

// config is a server's on b, without delays.
func (b *backend) config(tb testing.TB) Config {
	certs, err := NewCertificates(Host{
		Names:        []string{"dx.b.example", "127.0.0.1"},
		Certificates: []tls.Certificate{testcert.ECDSA(tb, "dx.b.example"), testcert.RSA(tb, "dx.b.example")},
	}, Host{Names: []string{"mx.other.example"}, Certificates: []tls.Certificate{testcert.RSA(tb, "mx.other.example")}})
	if err != nil {
		tb.Fatal(err)
	}
	return Config{
		Host: "dx.b.example", Product: "test", Certificates: certs,
		Directory: b, Domains: b, Origins: b, Outcomes: b, Deliverer: b,
		Limits:   Limits{Delay: -1, MissDelay: -1, LookupsMin: 10000, LookupsHour: 100000, PrefixConns: 100},
		Timeouts: Timeouts{Linger: 100 * time.Millisecond},
		Log:      slog.New(slog.DiscardHandler),
	}
}

// A running server, single and dual.
type running struct {
	single, dual string
	stop         func() // ends it and waits
	s            *Server
}

func run(tb testing.TB, c Config) *running {
	tb.Helper()
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{s: s}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for into, serve := range map[*string]func(context.Context, net.Listener) error{&r.single: s.Serve, &r.dual: s.ServeDual} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		*into = ln.Addr().String()
		wg.Go(func() {
			if err := serve(ctx, ln); err != nil {
				tb.Error(err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	tb.Cleanup(r.stop)
	return r
}

// A wire is a client that says what the test tells it to, and times out.
type wire struct {
	tb testing.TB
	net.Conn
	r *bufio.Reader
}

func dialClear(tb testing.TB, addr string) *wire {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &wire{tb, conn, bufio.NewReaderSize(conn, dmtp.MaxReplyLine)}
}

// dialTLS connects as libdime does: TLS 1.2 with its one suite. It reads the banner.
func dialTLS(tb testing.TB, addr string) *wire {
	tb.Helper()
	w := dialClear(tb, addr)
	w.upgrade("dx.b.example")
	w.want("220 dx.b.example DMTPv1 test")
	return w
}

func libdimeTLS(sni string) *tls.Config {
	return &tls.Config{ServerName: sni, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}
}

func (w *wire) upgrade(sni string) tls.ConnectionState {
	w.tb.Helper()
	conn := tls.Client(w.Conn, libdimeTLS(sni))
	if err := conn.Handshake(); err != nil {
		w.tb.Fatal(err)
	}
	w.Conn, w.r = conn, bufio.NewReaderSize(conn, dmtp.MaxReplyLine)
	return conn.ConnectionState()
}

func (w *wire) send(s string) {
	w.tb.Helper()
	if _, err := io.WriteString(w.Conn, s); err != nil {
		w.tb.Fatalf("sending %.60q: %v", s, err)
	}
}

// line reads one line without its CRLF, or "" when the server has gone.
func (w *wire) line() string {
	l, err := w.r.ReadString('\n')
	if err != nil {
		return ""
	}
	if !strings.HasSuffix(l, "\r\n") {
		w.tb.Errorf("a line ends with LF alone: %q", l)
	}
	return strings.TrimRight(l, "\r\n")
}

// want reads one line, which must begin so.
func (w *wire) want(prefix string) string {
	w.tb.Helper()
	l := w.line()
	if !strings.HasPrefix(l, prefix) || prefix == "" {
		w.tb.Fatalf("answered %.100q, want %.100q", l, prefix)
	}
	return l
}

// ask sends a line and wants a reply.
func (w *wire) ask(line, prefix string) string {
	w.tb.Helper()
	w.send(line + "\r\n")
	return w.want(prefix)
}

// gone wants the server to have closed without another word.
func (w *wire) gone() {
	w.tb.Helper()
	if l, err := w.r.ReadString('\n'); err == nil || l != "" {
		w.tb.Errorf("answered %.100q, want the end", l)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		w.tb.Error("still open")
	}
}

package submission

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/internal/testcert"
)

// An inbox is an Acceptor that keeps everything.
type inbox struct {
	mu   sync.Mutex
	got  []received
	err  error                                          // what Accept answers after reading
	take func(env Envelope, body io.Reader) (err error) // instead of reading
}

type received struct {
	env  Envelope
	body []byte
}

func (i *inbox) Accept(ctx context.Context, env Envelope, body io.Reader) error {
	if i.take != nil {
		return i.take(env, body)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("inbox: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return i.err
	}
	i.got = append(i.got, received{env, b})
	return nil
}

func (i *inbox) all() []received {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]received(nil), i.got...)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// start serves on a free port of loopback until the test ends.
func start(t testing.TB, edit func(*Config), a Acceptor) string {
	t.Helper()
	c := Config{
		Name:     "gw.alpha.example",
		Networks: loopback,
		Domains:  func(d string) bool { return d == "alpha.example" },
		Timeout:  10 * time.Second,
	}
	if edit != nil {
		edit(&c)
	}
	return serve(t, New(c, a, slog.New(slog.DiscardHandler)))
}

// serve serves on a free port of loopback until the test ends.
func serve(t testing.TB, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{testcert.ECDSA(t, "gw.alpha.example")}, MinVersion: tls.VersionTLS12}
}

// A peer is the other side of a session, octet for octet.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{t, c, bufio.NewReader(c)}
}

func (p *peer) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// reply reads one reply, "" at the end of the connection.
func (p *peer) reply() string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		if errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "reset") {
			return ""
		}
		if err != nil {
			p.t.Fatalf("reply: %v", err)
		}
		all.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// want reads replies and compares their beginnings.
func (p *peer) want(codes ...string) string {
	p.t.Helper()
	var r string
	for _, code := range codes {
		if r = p.reply(); !strings.HasPrefix(r, code) {
			p.t.Fatalf("reply %q, want %s", r, code)
		}
	}
	return r
}

// cmd sends a line and wants a reply.
func (p *peer) cmd(line, code string) string {
	p.t.Helper()
	p.send(line + "\r\n")
	return p.want(code)
}

// hello brings a new session to the point where a body or chunk can come.
func (p *peer) hello() *peer {
	p.t.Helper()
	p.want("220")
	p.cmd("EHLO mail.alpha.example", "250")
	return p
}

func (p *peer) envelope() *peer {
	p.t.Helper()
	p.send("MAIL FROM:<alice@alpha.example>\r\nRCPT TO:<bob@bravo.example>\r\n")
	p.want("250", "250")
	return p
}

// rest reads all replies to the end of the connection.
func (p *peer) rest() []string {
	p.t.Helper()
	var all []string
	for r := p.reply(); r != ""; r = p.reply() {
		all = append(all, r[:min(9, len(r))])
	}
	return all
}

// secure is STARTTLS from our side.
func (p *peer) secure() {
	p.t.Helper()
	p.cmd("STARTTLS", "220")
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn, p.in = c, bufio.NewReader(c)
}

// message is a body without our trace field.
func (r received) message() string { return string(r.body[r.env.Trace:]) }

func (r received) trace() string { return string(bytes.TrimSpace(r.body[:r.env.Trace])) }

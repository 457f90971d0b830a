package mx

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/internal/testcert"
)

// An innerServer is an inner mail server that does as it is told and keeps the octets that it gets, dots and all.
type innerServer struct {
	ext     []string                    // beside SIZE
	rcpt    func(address string) string // reply to RCPT; nil: 250
	said    string                      // verdict on a message; "": 250
	forget  bool                        // reads messages without keeping them
	client  string                      // reply to XCLIENT; "": 220
	hangUp  string                      // ends the connection: "data" in a message, "verdict" before its verdict
	mu      sync.Mutex
	clients []string // XCLIENT commands
	mails   []string // MAIL commands
	rcpts   []string // addresses that were accepted in a transaction that had a message
	got     []string // messages
	resets  int
	noops   int
	conns   int
	ended   int
	addr    string
}

func startInner(t testing.TB, i *innerServer) *innerServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { i.serve(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); sessions.Wait() })
	i.addr = ln.Addr().String()
	return i
}

func (i *innerServer) serve(c net.Conn) {
	defer func() {
		c.Close()
		i.mu.Lock()
		i.ended++
		i.mu.Unlock()
	}()
	i.mu.Lock()
	i.conns++
	i.mu.Unlock()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	say := func(s string) { io.WriteString(c, s+"\r\n") }
	say("220 inner")
	var to []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO":
			for _, e := range append([]string{"inner", "SIZE 50000000", "PIPELINING"}, i.ext...) {
				say("250-" + e)
			}
			say("250 HELP")
		case "MAIL":
			i.mu.Lock()
			i.mails = append(i.mails, line)
			i.mu.Unlock()
			say("250 2.1.0 Ok")
		case "RCPT":
			address := line[strings.IndexByte(line, '<')+1 : strings.LastIndexByte(line, '>')]
			reply := "250 2.1.5 Ok"
			if i.rcpt != nil {
				reply = i.rcpt(address)
			}
			if reply[0] == '2' {
				to = append(to, address)
			}
			say(reply)
		case "DATA":
			say("354 go on")
			read := message
			if i.forget {
				read = skip
			}
			body, err := read(r)
			if err != nil || i.hangUp == "data" {
				return
			}
			i.mu.Lock()
			i.got, i.rcpts = append(i.got, body), append(i.rcpts, to...)
			i.mu.Unlock()
			if i.hangUp == "verdict" {
				return
			}
			to = nil
			say(or(i.said, "250 2.0.0 Ok: queued as 4F1"))
		case "RSET":
			i.mu.Lock()
			i.resets++
			i.mu.Unlock()
			to = nil
			say("250 2.0.0 Ok")
		case "NOOP":
			i.mu.Lock()
			i.noops++
			i.mu.Unlock()
			say("250 2.0.0 Ok")
		case "XCLI":
			i.mu.Lock()
			i.clients = append(i.clients, line)
			i.mu.Unlock()
			say(or(i.client, "220 inner"))
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		default:
			say("502 5.5.1 what")
		}
	}
}

// message reads to CRLF "." CRLF and nothing else, and takes the dots away.
func message(r *bufio.Reader) (string, error) {
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		start := all.Len() == 0 || strings.HasSuffix(all.String()[max(0, all.Len()-2):], "\r\n")
		if start && line == ".\r\n" {
			return all.String(), nil
		}
		if start {
			line = strings.TrimPrefix(line, ".")
		}
		all.WriteString(line)
	}
}

// skip reads lines of moderate length to the end of a message.
func skip(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil || string(line) == ".\r\n" {
			return "", err
		}
	}
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func (i *innerServer) messages() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.got)
}

// start serves on a free port of loopback until the test ends. alpha.example is at inner; so is strict.example, by DIME only.
func start(t testing.TB, inner *innerServer, edit func(*Config)) string {
	t.Helper()
	if inner.addr == "" {
		startInner(t, inner)
	}
	h := handoff.New(handoff.Config{Address: inner.addr, Name: "mx.alpha.example", MaxSessions: 100})
	c := Config{
		Name: "mx.alpha.example", Timeout: 10 * time.Second, Postmaster: "postmaster@alpha.example", Mark: "X-DIME",
		Firewall: handoff.Firewall{AuthServIDs: []string{"mx.alpha.example"}},
		Domains: func(d string) (Domain, bool) {
			return Domain{Inner: h, Strict: d == "strict.example"}, d == "alpha.example" || d == "strict.example"
		},
		TLS: &tls.Config{Certificates: []tls.Certificate{testcert.ECDSA(t, "mx.alpha.example")}, MinVersion: tls.VersionTLS12},
	}
	if edit != nil {
		edit(&c)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := New(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, h.Close()); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
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

func (p *peer) hello() *peer {
	p.t.Helper()
	p.want("220")
	p.cmd("EHLO out.example.net", "250")
	return p
}

func (p *peer) envelope() *peer {
	p.t.Helper()
	p.send("MAIL FROM:<carol@example.net>\r\nRCPT TO:<bob@alpha.example>\r\n")
	p.want("250", "250")
	return p
}

// rest reads all replies to the end of the connection.
func (p *peer) rest() (all []string) {
	p.t.Helper()
	for r := p.reply(); r != ""; r = p.reply() {
		all = append(all, r[:min(9, len(r))])
	}
	return all
}

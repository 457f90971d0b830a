package dmtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/internal/testcert"
)

// A peer is a scripted server on loopback: it does with each connection what the script says.
type peer struct {
	t    *testing.T
	port uint16
	cert tls.Certificate
	got  *recorder
}

type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// A link is one connection as the script sees it.
type link struct {
	*peer
	net.Conn
	r *bufio.Reader
}

// start listens and runs script for every connection. The test waits for the scripts' end.
func start(t *testing.T, script func(l *link)) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, port: uint16(ln.Addr().(*net.TCPAddr).Port), cert: testcert.RSA(t, "dx.example"), got: new(recorder)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			running.Go(func() {
				defer conn.Close()
				script(&link{p, conn, bufio.NewReader(conn)})
			})
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return p
}

// tls makes the handshake, as a server that libdime could reach.
func (l *link) tls() bool { return l.handshake(&tls.Config{MaxVersion: tls.VersionTLS12}) }

func (l *link) handshake(cfg *tls.Config) bool {
	if len(cfg.Certificates) == 0 {
		cfg.Certificates = []tls.Certificate{l.cert}
	}
	conn := tls.Server(l.Conn, cfg)
	if err := conn.Handshake(); err != nil {
		l.got.add("handshake failed")
		return false
	}
	l.Conn, l.r = conn, bufio.NewReader(conn)
	return true
}

func (l *link) say(s string) { io.WriteString(l.Conn, s) }

// hear reads one line, with its end; "" when there is none.
func (l *link) hear() string {
	line, err := l.r.ReadString('\n')
	if err != nil {
		return ""
	}
	l.got.add(line)
	return line
}

// deaf reads until the client has gone.
func (l *link) deaf() { io.Copy(io.Discard, l.r) }

// replies answers each line that begins with a key with its value, until the client goes.
func (l *link) replies(answers map[string]string) {
	for {
		line := l.hear()
		if line == "" {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		answer, ok := answers[verb]
		if !ok && verb == "QUIT" {
			answer = "221 BYE\r\n"
		} else if !ok {
			answer = "500 INVALID COMMAND\r\n"
		}
		l.say(answer)
	}
}

func accept(context.Context, string, tls.ConnectionState) error { return nil }

var errJudge = errors.New("the judge said no")

func refuse(context.Context, string, tls.ConnectionState) error { return errJudge }

// client makes a Client whose hosts are all on loopback, with short waits.
func client(t *testing.T, change func(*Options)) *Client {
	t.Helper()
	wait := 5 * time.Second
	o := Options{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		Permit:      Anywhere,
		NegativeTTL: -1,
		Timeouts:    Timeouts{Connect: wait, Handshake: wait, Total: 2 * wait, Command: wait, Transaction: wait, Data: wait, Block: wait, Final: wait, Quit: time.Second},
	}
	if change != nil {
		change(&o)
	}
	c := New(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func (p *peer) target(dual bool) Target {
	return Target{Domain: "b.example", Hosts: []Host{{Name: "dx.example", Dual: dual}}, Verify: accept}
}

// connect opens a session with p, which must succeed.
func (p *peer) connect(t *testing.T, change func(*Options)) *Conn {
	t.Helper()
	c := client(t, func(o *Options) {
		o.Port = p.port
		if change != nil {
			change(o)
		}
	})
	conn, err := c.Connect(t.Context(), p.target(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// closedPort is a port on which nothing listens.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dimegate/internal/testpeer"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

// A mailServer takes mail by SMTP in clear and keeps it: the mail server inside an organisation, or a trap outside, which
// takes everything that somebody might send it.
type mailServer struct {
	greeting string // what stands behind 220
	all      bool   // takes mail for everyone, else for the local parts that belong to the leak test

	mu    sync.Mutex
	mails []letter
	heard bytes.Buffer // all that clients have said
}

// A letter is one message with its reverse-path.
type letter struct {
	reversePath string
	to          []string
	octets      []byte
}

// serve answers on ln until ctx ends.
func (m *mailServer) serve(ctx context.Context, ln net.Listener) error {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{server: m}, nil }))
	s.Domain, s.EnableSMTPUTF8, s.MaxLineLength, s.ErrorLog = m.greeting, true, 0, log.New(io.Discard, "", 0)
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(listening{ln, m}); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

// listening keeps what every client says.
type listening struct {
	net.Listener
	to *mailServer
}

func (l listening) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return listened{c, l.to}, nil
}

type listened struct {
	net.Conn
	to *mailServer
}

func (l listened) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.to.mu.Lock()
	l.to.heard.Write(p[:n])
	l.to.mu.Unlock()
	return n, err
}

// said tells whether a client has said these octets.
func (m *mailServer) said(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Contains(m.heard.Bytes(), []byte(text))
}

// letters is a copy of what has come.
func (m *mailServer) letters() []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]letter(nil), m.mails...)
}

type mailSession struct {
	server *mailServer
	letter letter
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	s.letter.reversePath = from
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if !s.server.all && !strings.Contains(to, canaryMark) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	}
	s.letter.to = append(s.letter.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) (err error) {
	if s.letter.octets, err = io.ReadAll(r); err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, s.letter)
	return nil
}

func (s *mailSession) Reset()        { s.letter = letter{} }
func (s *mailSession) Logout() error { return nil }

// A gate is one port of the wire that an attacker holds: what becomes of a connection can be changed at any time.
type gate struct {
	mu     sync.Mutex
	handle func(ctx context.Context, c net.Conn)
	count  int // connections since the last change
}

// openGate listens until the bench closes.
func openGate(b *testpeer.Bench, addr string, handle func(context.Context, net.Conn)) (*gate, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	g := &gate{handle: handle}
	b.Go("gate "+addr, func(ctx context.Context) error {
		var conns sync.WaitGroup
		defer conns.Wait()
		defer context.AfterFunc(ctx, func() { ln.Close() })()
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil // closed: the bench ends
			}
			g.mu.Lock()
			handle := g.handle
			g.count++
			g.mu.Unlock()
			conns.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				handle(ctx, c)
			})
		}
	})
	return g, nil
}

// set changes what becomes of connections and counts them anew.
func (g *gate) set(handle func(context.Context, net.Conn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handle, g.count = handle, 0
}

func (g *gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// hangUp closes every connection at once.
func hangUp(context.Context, net.Conn) {}

// relay passes connections on to another address. cut ends one when the client has sent more than so many octets, and
// counts that; nil never does.
func relay(to string, cut *cutter) func(context.Context, net.Conn) {
	return func(ctx context.Context, in net.Conn) {
		out, err := new(net.Dialer).DialContext(ctx, "tcp", to)
		if err != nil {
			return
		}
		defer out.Close()
		defer context.AfterFunc(ctx, func() { out.Close() })()
		var back sync.WaitGroup
		back.Go(func() {
			_, _ = io.Copy(in, out) // ends with either side
			in.Close()
		})
		defer back.Wait()
		if cut == nil {
			_, _ = io.Copy(out, in)
		} else if n, _ := io.CopyN(out, in, cut.after); n == cut.after {
			cut.cuts.Add(1)
			in.Close()
		}
		out.Close()
	}
}

type cutter struct {
	after int64
	cuts  atomic.Int32
}

// served hands connections to a server that wants a listener. The server ends with the bench.
func served(b *testpeer.Bench, name string, serve func(context.Context, net.Listener) error) func(context.Context, net.Conn) {
	f := &feed{conns: make(chan net.Conn), closed: make(chan struct{})}
	b.Go(name, func(ctx context.Context) error { return serve(ctx, f) })
	return func(ctx context.Context, c net.Conn) {
		ended := make(chan struct{})
		select {
		case f.conns <- &fedConn{Conn: c, ended: ended}:
		case <-f.closed:
			return
		case <-ctx.Done():
			return
		}
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
}

// feed is a listener whose connections come from elsewhere.
type feed struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error   { f.once.Do(func() { close(f.closed) }); return nil }
func (f *feed) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

type fedConn struct {
	net.Conn
	ended chan struct{}
	once  sync.Once
}

func (c *fedConn) Close() error {
	defer c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// A dnsFront is the resolver that the gateways ask: the lab's tree, with an attacker in between who can do something to the
// answers about one name.
type dnsFront struct {
	tree dns.Handler

	mu    sync.Mutex
	name  string
	do    func(*dns.Msg) *dns.Msg // what becomes of an answer; nil for no answer at all
	count int                     // answers that this happened to
}

// attack does something to every answer about a name from now on.
func (f *dnsFront) attack(name string, do func(*dns.Msg) *dns.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.do, f.count = dns.CanonicalName(name), do, 0
}

func (f *dnsFront) attacked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func (f *dnsFront) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	k := &keepAnswer{ResponseWriter: w}
	f.tree.ServeDNS(k, q)
	f.mu.Lock()
	if f.do != nil && len(q.Question) == 1 && dns.CanonicalName(q.Question[0].Name) == f.name {
		f.count++
		k.answer = f.do(k.answer)
	}
	f.mu.Unlock()
	if k.answer != nil {
		_ = w.WriteMsg(k.answer) // the asker has gone, or asks again
	}
}

type keepAnswer struct {
	dns.ResponseWriter
	answer *dns.Msg
}

func (k *keepAnswer) WriteMsg(m *dns.Msg) error {
	k.answer = m
	return nil
}

// serve answers over UDP and TCP until ctx ends.
func (f *dnsFront) serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	defer context.AfterFunc(ctx, func() { udp.Close(); tcp.Close() })()
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i, s := range []*dns.Server{{PacketConn: udp, Handler: f}, {Listener: tcp, Handler: f}} {
		both.Go(func() { errs[i] = s.ActivateAndServe() })
	}
	both.Wait()
	if ctx.Err() != nil {
		return nil // closed by us
	}
	return errors.Join(errs...)
}

// What can be done to an answer.

func drop(*dns.Msg) *dns.Msg   { return nil }
func asIs(m *dns.Msg) *dns.Msg { return m }

func servfail(m *dns.Msg) *dns.Msg {
	m.Rcode, m.Answer, m.Ns = dns.RcodeServerFailure, nil, nil
	return m
}

// vanish denies the name and proves nothing: no answer, no NSEC, no signatures.
func vanish(m *dns.Msg) *dns.Msg {
	m.Rcode, m.Answer, m.Ns = dns.RcodeNameError, nil, nil
	return m
}

// replaceText puts another text in the place of a TXT record's; the signature, if any, stays.
func replaceText(with []string) func(*dns.Msg) *dns.Msg {
	return func(m *dns.Msg) *dns.Msg {
		for _, rr := range m.Answer {
			if txt, ok := rr.(*dns.TXT); ok {
				txt.Txt = with
			}
		}
		return m
	}
}

// An issuer is a CA whose certificates the gateways believe; everyone gets one of it, attackers, too.
type issuer struct {
	certificate *x509.Certificate
	key         *rsa.PrivateKey // one key for all: making them is slow
}

func newIssuer() (*issuer, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ca := &issuer{key: k}
	ca.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	ca.certificate, err = ca.sign(ca.certificate)
	return ca, err
}

func (ca *issuer) sign(t *x509.Certificate) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, ca.certificate, ca.key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// issue makes a certificate for names.
func (ca *issuer) issue(names ...string) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := ca.sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: ca.key, Leaf: leaf}, nil
}

// write puts the CA, or a certificate and its key, into files of a folder.
func (ca *issuer) write(folder string) (string, error) {
	path := filepath.Join(folder, "ca.pem")
	return path, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}), 0o644)
}

func writeCertificate(folder, name string, c tls.Certificate) (certificate, key string, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", "", err
	}
	certificate, key = filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key")
	return certificate, key, errors.Join(
		os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

package certificates

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"dimegate/appliance/config"
	"dimegate/internal/safefile"
)

// An ACME obtains certificates for one host name from a certificate authority (RFC 8555), and writes them into the files that a Watcher
// reads. It proves the name by TLS-ALPN-01 alone (RFC 8737): its listener answers that question and nothing else.
type ACME struct {
	Host      string
	Directory string // URL of the authority
	Email     string // "" for none
	Roots     *x509.CertPool
	Folder    string             // the account's key and what was obtained
	ECDSA     config.Certificate // files to write
	RSA       config.Certificate
	Log       *slog.Logger
}

// How often the authority's certificates are looked at, and after a failure: authorities count those.
const (
	acmeEvery = 12 * time.Hour
	acmeRetry = time.Hour
)

// Run answers on ln and renews until ctx ends. The authority's terms are agreed to: the configuration says so.
func (a *ACME) Run(ctx context.Context, ln net.Listener) error {
	m := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(a.Folder), HostPolicy: autocert.HostWhitelist(a.Host), Email: a.Email,
		Client: &acme.Client{DirectoryURL: a.Directory, HTTPClient: a.client(ctx)},
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { answer(ctx, ln, m) })
	for {
		wait := acmeEvery
		if err := errors.Join(a.obtain(m, a.ECDSA, ecdsaHello), a.obtain(m, a.RSA, rsaHello)); err != nil && ctx.Err() == nil {
			a.Log.Error("no certificate could be obtained: what is shown stays, and it is tried again in an hour", "host", a.Host, "error", err)
			wait = acmeRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// client asks the authority, and no more once ctx has ended: the manager below waits for minutes.
func (a *ACME) client(ctx context.Context) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Roots}
	return &http.Client{Timeout: time.Minute, Transport: until{ctx, t}}
}

// until ends requests with a context of its own. (It is kept here since the manager brings none that ends with us.)
type until struct {
	ctx context.Context
	t   *http.Transport
}

func (u until) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := u.ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(u.ctx, cancel)
	resp, err := u.t.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &body{resp.Body, func() { stop(); cancel() }}
	return resp, nil
}

// Clients of the two kinds, by which the manager tells which certificate is wanted.
var (
	ecdsaHello = tls.ClientHelloInfo{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}
	rsaHello   = tls.ClientHelloInfo{CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}
)

// obtain writes the newest certificate of a kind into its files, unless they have it.
func (a *ACME) obtain(m *autocert.Manager, f config.Certificate, hello tls.ClientHelloInfo) error {
	hello.ServerName = a.Host
	c, err := m.GetCertificate(&hello)
	if err != nil {
		return err
	}
	if text, err := safefile.Read(f.CertificateFile, maxFile); err == nil {
		if leaf := leafOf(text); leaf != nil && bytes.Equal(leaf.Raw, c.Certificate[0]) {
			return nil
		}
	}
	if err := write(f, c); err != nil {
		return err
	}
	a.Log.Info("a certificate was obtained", "host", a.Host, "file", f.CertificateFile)
	return nil
}

// write writes a certificate and its key into a pair's files. Whoever reads between the two sees a key that is not the certificate's, and
// reads again; whom a crash leaves with that, calls Mend.
func write(f config.Certificate, c *tls.Certificate) error {
	private, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	defer clear(private)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	defer clear(key)
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := safefile.Write(f.KeyFile, key); err != nil {
		return err
	}
	return safefile.Write(f.CertificateFile, chain)
}

// Mend puts back what was shown last of each pair whose files do not fit one another, as a crash leaves them; kept is the folder of a
// Watcher. What is not kept stays as it is.
func Mend(kept string, files []config.Certificate, log *slog.Logger) error {
	for _, f := range files {
		text, err := read(f)
		if err != nil {
			continue // not a crash's doing: New says what is wrong
		}
		if _, err := tls.X509KeyPair(text, text); err == nil {
			continue
		}
		last, err := readKept(kept, f)
		if err != nil {
			continue
		}
		if err := write(f, &last); err != nil {
			return err
		}
		log.Warn("a certificate's files did not fit one another: what was shown last is in them again", "file", f.CertificateFile)
	}
	return nil
}

// Bounds of the listener that answers the authority.
const (
	maxAnswers = 20 // at one time
	answerTime = 10 * time.Second
)

// errNotACME is for whoever asks for anything but the proof.
var errNotACME = errors.New("certificates: not the authority's question")

// answer serves TLS-ALPN-01 until ctx ends: a handshake, and no octet behind it.
func answer(ctx context.Context, ln net.Listener, m *autocert.Manager) {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acme.ALPNProto},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
				return nil, errNotACME
			}
			return m.GetCertificate(hello)
		}}
	var sessions sync.WaitGroup
	defer sessions.Wait()
	room := make(chan struct{}, maxAnswers)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(100 * time.Millisecond) // out of descriptors
			continue
		}
		room <- struct{}{}
		sessions.Go(func() {
			defer func() { conn.Close(); <-room }()
			conn.SetDeadline(time.Now().Add(answerTime))
			tls.Server(conn, cfg).HandshakeContext(ctx) // whatever its end
		})
	}
}

// body ends its request's context when it is closed.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

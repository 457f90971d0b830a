package dmtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"dimegate/dmtp"
)

// A way is a host, a port, and whether the port is shared with SMTP.
type way struct {
	host string
	port uint16
	dual bool
}

// Connect opens a session with the first host of t that can be reached, speaks DMTPv1 and whose certificate is accepted. The
// session stands behind the banner; the caller closes it. The error tells of every host; its class is Trust when a certificate
// was refused, otherwise Network.
func (c *Client) Connect(ctx context.Context, t Target) (*Conn, error) { return c.connect(ctx, t, nil) }

func (c *Client) connect(ctx context.Context, t Target, skip map[string]bool) (*Conn, error) {
	if t.Verify == nil {
		return nil, &Error{Class: Trust, Step: "connect", Err: ErrCertificate}
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeouts.Total)
	defer cancel()
	a := attempts{c: c, t: t}
	for _, h := range t.Hosts {
		if skip[h.Name] {
			continue
		}
		if conn := a.host(ctx, h); conn != nil {
			return conn, nil
		}
	}
	for _, w := range a.passed { // better a host that failed a moment ago than none
		if conn := a.try(ctx, w, c.o.NegativeTTL/20); conn != nil {
			return conn, nil
		}
	}
	if len(a.errs) == 0 {
		a.errs = append(a.errs, errNoHosts)
	}
	return nil, &Error{Class: a.class, Step: "connect", Err: errors.Join(a.errs...)}
}

// attempts are the tries of one Connect.
type attempts struct {
	c      *Client
	t      Target
	passed []way // failed lately
	errs   []error
	class  Class
}

// host tries the ports of one host: 26, and where the reference does so the shared 25, then the auxiliary one if nothing
// listens on 25.
func (a *attempts) host(ctx context.Context, h Host) *Conn {
	o := &a.c.o
	if conn := a.first(ctx, way{h.Name, o.Port, false}); conn != nil || !h.Dual {
		return conn
	}
	n := len(a.errs)
	if conn := a.first(ctx, way{h.Name, o.DualPort, true}); conn != nil || o.AuxPort == 0 {
		return conn
	}
	if len(a.errs) > n && a.errs[n].(*Error).Step != "connect" {
		return nil
	}
	return a.first(ctx, way{h.Name, o.AuxPort, true})
}

// first tries w, unless it failed lately.
func (a *attempts) first(ctx context.Context, w way) *Conn {
	if a.c.failedWithin(w, a.c.o.NegativeTTL) {
		a.passed = append(a.passed, w)
		return nil
	}
	return a.try(ctx, w, 0)
}

func (a *attempts) try(ctx context.Context, w way, unless time.Duration) *Conn {
	if ctx.Err() != nil {
		return nil
	}
	if a.c.failedWithin(w, unless) {
		a.errs = append(a.errs, &Error{Class: Network, Host: w.host, Step: "connect", Err: ErrRecent})
		return nil
	}
	conn, err := a.c.open(ctx, a.t, w)
	if err == nil {
		a.c.note(w, false)
		return conn
	}
	a.errs = append(a.errs, err)
	if err.Class == Trust {
		a.class = Trust
	} else if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		a.c.note(w, true)
	}
	a.c.o.Log.LogAttrs(ctx, slog.LevelDebug, "dmtp host failed", slog.String("host", w.host), slog.Int("port", int(w.port)),
		slog.String("step", err.Step), slog.Int("code", err.Code), slog.Any("error", err.Err))
	return nil
}

func (c *Client) failedWithin(w way, d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.failed[w]
	return ok && d > 0 && time.Since(at) < d
}

// Retry forgets the failures of hosts from before t, of all of them: for who has mended something.
func (c *Client) Retry(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.failed, func(_ way, at time.Time) bool { return at.Before(t) })
}

// maxFailed bounds the memory of failures. Beyond it some entry makes room: at worst a dead host is tried again.
const maxFailed = 4096

func (c *Client) note(w way, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !failed {
		delete(c.failed, w)
		return
	}
	for other := range c.failed {
		if len(c.failed) < maxFailed {
			break
		}
		delete(c.failed, other)
	}
	c.failed[w] = time.Now()
}

// open makes a session over w: TCP, TLS, certificate, banner; on a shared port banner, STARTTLS, TLS, certificate, mode.
func (c *Client) open(ctx context.Context, t Target, w way) (*Conn, *Error) {
	raw, err := c.dial(ctx, w)
	if err != nil {
		return nil, &Error{Class: Network, Host: w.host, Step: "connect", Err: err}
	}
	conn := &Conn{host: w.host, port: w.port, o: &c.o, net: raw, opened: time.Now()}
	if ferr := conn.establish(ctx, t, w); ferr != nil {
		raw.Close()
		return nil, ferr
	}
	return conn, nil
}

// dial tries every permitted address of the host, in the order of the answer.
func (c *Client) dial(ctx context.Context, w way) (net.Conn, error) {
	addrs, err := c.addresses(ctx, w.host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		if err := c.o.Permit(a); err != nil {
			errs = append(errs, err)
			continue
		}
		dctx, cancel := context.WithTimeout(ctx, c.o.Timeouts.Connect)
		conn, err := c.o.Dial(dctx, netip.AddrPortFrom(a, w.port))
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *Client) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := c.o.Lookup(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("dmtpclient: the host has no address")
	}
	return addrs, err
}

func (c *Conn) establish(ctx context.Context, t Target, w way) *Error {
	if !w.dual {
		if err := c.handshake(ctx, t); err != nil {
			return err
		}
		return c.banner(ctx)
	}
	c.br = bufio.NewReaderSize(c.net, dmtp.MaxReplyLine)
	if err := c.banner(ctx); err != nil {
		return err
	}
	if err := c.startTLS(ctx); err != nil {
		return err
	}
	if err := c.handshake(ctx, t); err != nil {
		return err
	}
	return c.mode(ctx)
}

// banner wants exactly 220 in one line, a host (whatever it is), and then somewhere the token DMTPv1.
func (c *Conn) banner(ctx context.Context) *Error {
	r, err := c.read(ctx, c.o.Timeouts.Command)
	if err != nil {
		return c.broke("banner", err)
	}
	fields := strings.FieldsFunc(r.Text, func(r rune) bool { return r == ' ' || r == '\t' })
	if r.Code == 220 && !strings.Contains(r.Text, "\n") && len(fields) > 1 {
		for _, f := range fields[1:] {
			if f == "DMTPv1" {
				return nil
			}
		}
	}
	return &Error{Class: Network, Host: c.host, Step: "banner", Code: r.Code, Text: Words(r.Text), Err: ErrNotDMTP}
}

// startTLS asks for DMTP on a shared port. Octets that already follow the reply were not written by the peer that is about to
// prove itself: libdime reads them as its first answers.
func (c *Conn) startTLS(ctx context.Context) *Error {
	r, err := c.ask(ctx, dmtp.StartTLS{Host: c.host}, c.o.Timeouts.Command)
	if err != nil {
		return c.broke("STARTTLS", err)
	}
	if r.Code/100 != 2 {
		return c.refused(dmtp.STARTTLS, r)
	}
	if c.br.Buffered() > 0 {
		return &Error{Class: Network, Host: c.host, Step: "STARTTLS", Err: ErrInjected}
	}
	return nil
}

// mode reads the line that a server sends unasked after STARTTLS.
func (c *Conn) mode(ctx context.Context) *Error {
	r, err := c.read(ctx, c.o.Timeouts.Command)
	if err != nil {
		return c.broke("STARTTLS", err)
	}
	fields := strings.Fields(r.Text)
	if r.Code/100 != 2 || len(fields) < 2 || fields[0] != "OK" || !strings.EqualFold(fields[1], "DMTPv1") {
		return &Error{Class: Network, Host: c.host, Step: "STARTTLS", Code: r.Code, Text: Words(r.Text), Err: ErrNotDMTP}
	}
	return nil
}

// suites are the TLS 1.2 suites of dmtp.md OC-5. TLS 1.3 has its own.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// maxChain bounds the certificates that are looked at; crypto/tls itself limits a handshake message to 64 KiB.
const maxChain = 16

func (c *Conn) handshake(ctx context.Context, t Target) *Error {
	conn := tls.Client(c.net, &tls.Config{
		ServerName:         c.host,
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       suites,
		InsecureSkipVerify: true, // t.Verify decides, by the rules of DIME and not of the web
	})
	hctx, cancel := context.WithTimeout(ctx, c.o.Timeouts.Handshake)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		return &Error{Class: Network, Host: c.host, Step: "tls", Err: err}
	}
	state := conn.ConnectionState()
	if len(state.PeerCertificates) > maxChain {
		return &Error{Class: Trust, Host: c.host, Step: "certificate", Err: ErrCertificate}
	}
	if err := t.Verify(ctx, c.host, state); err != nil {
		return &Error{Class: Trust, Host: c.host, Step: "certificate", Err: errors.Join(ErrCertificate, err)}
	}
	c.state, c.verified = state, map[string]bool{t.Domain: true}
	c.net, c.br = conn, bufio.NewReaderSize(conn, dmtp.MaxReplyLine)
	return nil
}

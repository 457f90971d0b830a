package mx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/bridge/mailauth"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp/resolver"
)

// memory is a Held of at most room octets; 0: as many as come.
type memory struct {
	bytes.Buffer
	room int
}

func (m *memory) Write(p []byte) (int, error) {
	if m.room > 0 && m.Len()+len(p) > m.room {
		return 0, errors.Join(ErrFull, errors.New("disk"))
	}
	return m.Buffer.Write(p)
}

func (m *memory) Reader() (io.Reader, error) { return bytes.NewReader(m.Bytes()), nil }
func (m *memory) Close() error               { return nil }

// noDNS has no answer to anything.
type noDNS struct{}

func (noDNS) Lookup(context.Context, string, uint16) (*resolver.Answer, error) {
	return nil, errors.New("no answer")
}

func (noDNS) TXT(context.Context, string) ([]string, *resolver.Answer, error) {
	return nil, nil, errors.New("no answer")
}

func (noDNS) Addresses(context.Context, string) ([]netip.Addr, resolver.State, error) {
	return nil, 0, errors.New("no answer")
}

func checking(room int) func(*Config) {
	return func(c *Config) {
		c.Auth = &mailauth.Checker{ID: c.Name, DNS: noDNS{}}
		of := c.Domains
		c.Domains = func(domain string) (Domain, bool) {
			d, ours := of(domain)
			d.Hold = func() Held { return &memory{room: room} }
			return d, ours
		}
	}
}

// Without any answer of the DNS a message goes on, with its field; what claims to be that field does not.
func TestAuthentication(t *testing.T) {
	long := strings.Repeat("hello\r\n", 20_000)
	const from = "Authentication-Results: mx.alpha.example; dkim=pass\r\nFrom: carol@example.net\r\n\r\n"
	const field = "Authentication-Results: mx.alpha.example;\r\n\tspf=temperror smtp.mailfrom=carol@example.net;\r\n\tdkim=none;\r\n\tdmarc=temperror header.from=example.net\r\n"
	for name, tt := range map[string]struct {
		edit  func(*Config)
		field string
	}{
		"checked": {checking(0), field},
		"exempt":  {func(c *Config) { checking(0)(c); c.Exempt = loopback }, ""},
		"off":     {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &innerServer{ext: []string{"8BITMIME"}}
			p := dial(t, start(t, inner, tt.edit)).hello().envelope()
			p.cmd("DATA", "354")
			p.send(from + long + ".\r\n")
			p.want("250")
			got := inner.messages()
			if len(got) != 1 || !strings.HasPrefix(got[0], "X-DIME: no\r\n"+tt.field+"Received: ") || !strings.HasSuffix(got[0], "\r\nFrom: carol@example.net\r\n\r\n"+long) || strings.Contains(got[0], "dkim=pass") {
				t.Errorf("arrived as %.600q", got)
			}
		})
	}
}

// A message for which there is no room is refused for now, read to its end, and the session goes on.
func TestNoRoom(t *testing.T) {
	inner := &innerServer{}
	p := dial(t, start(t, inner, checking(30_000))).hello().envelope()
	p.cmd("DATA", "354")
	p.send("Subject: x\r\n\r\n" + strings.Repeat("MAIL FROM:<eve@example.net>\r\n", 20_000) + ".\r\n")
	p.want("452 4.3.1")
	p.cmd("NOOP", "250")
	p.envelope().cmd("DATA", "354")
	p.send("Subject: y\r\n\r\nhello\r\n.\r\n")
	p.want("250")
	if got := inner.messages(); len(got) != 1 || !strings.HasSuffix(got[0], "\r\nSubject: y\r\n\r\nhello\r\n") {
		t.Errorf("arrived as %.300q", got)
	}
}

// While a message is held, the inner server hears of us now and then; when it has gone, the message is not waited for.
func TestInnerIsKept(t *testing.T) {
	inner := startInner(t, &innerServer{})
	h := handoff.New(handoff.Config{Address: inner.addr, Name: "mx.alpha.example"})
	t.Cleanup(func() { h.Close() })
	tx, err := h.Begin(t.Context(), smtpwire.Transaction{From: "carol@example.net"}, smtpwire.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.End(t.Context())
	var held memory
	p := &patient{Writer: &held, s: &session{ctx: t.Context(), tx: tx}, last: time.Now().Add(-2 * noopAfter)}
	for range 3 {
		if _, err := p.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	inner.mu.Lock()
	noops := inner.noops
	inner.mu.Unlock()
	if noops != 1 || held.Len() != 3 {
		t.Errorf("%d NOOPs, %d octets held", noops, held.Len())
	}
}

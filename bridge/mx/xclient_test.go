package mx

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The inner server is told who the client is: as he came, or as a listed server before us says; what it says of him is the answer.
func TestClientIsPassedOn(t *testing.T) {
	inner := startInner(t, &innerServer{ext: []string{"XCLIENT NAME ADDR PORT PROTO HELO"}})
	addr := start(t, inner, func(c *Config) { c.XClient = loopback; c.MaxPerClient = 1 })
	p := dial(t, addr)
	p.want("220")
	if r := p.cmd("EHLO proxy.example.net", "250"); !strings.Contains(r, "250-XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT\r\n") {
		t.Errorf("offers %q", r)
	}
	p.cmd("MAIL FROM:<carol@example.net>", "250")
	p.cmd("RCPT TO:<bob@alpha.example>", "250")
	p.cmd("XCLIENT ADDR=192.0.2.7", "503")
	p.cmd("RSET", "250")
	p.cmd("XCLIENT ADDR=192.0.2.7 LOGIN=bob", "501")
	p.cmd("XCLIENT ADDR=IPV6:2001:db8::7 PORT=4711 NAME=out.example.net", "220")
	p.cmd("HELO out.example.net", "250")
	p.cmd("MAIL FROM:<carol@example.net>", "250")
	p.cmd("RCPT TO:<bob@alpha.example>", "250")
	p.cmd("DATA", "354")
	p.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	p.want("250")
	if got := inner.messages(); len(got) != 1 || !strings.Contains(got[0], "Received: from out.example.net ([IPv6:2001:db8::7])") {
		t.Errorf("arrived: %q", got)
	}
	_, port, _ := strings.Cut(p.conn.LocalAddr().String(), ":")
	if want := []string{
		"XCLIENT NAME=[UNAVAILABLE] ADDR=127.0.0.1 PORT=" + port + " PROTO=ESMTP HELO=proxy.example.net",
		"XCLIENT NAME=out.example.net ADDR=IPV6:2001:db8::7 PORT=4711 PROTO=SMTP HELO=out.example.net",
	}; !slices.Equal(inner.clients, want) {
		t.Errorf("told:\n%s", strings.Join(inner.clients, "\n"))
	}
	dial(t, addr).want("220") // a second session of a server that speaks for many
	for said, want := range map[string]string{"554 5.7.1 Go away": "554 5.7.1 Go away", "421 4.7.0 Too many": "451 4.7.0 Too many", "501 5.5.4 What": "451 4.4.1", "550 5.5.1 Not you": "550 5.5.1 Not you"} {
		inner := startInner(t, &innerServer{ext: []string{"XCLIENT ADDR"}, client: said})
		p := dial(t, start(t, inner, nil))
		p.want("220")
		p.cmd("EHLO x", "250")
		p.cmd("XCLIENT ADDR=192.0.2.7", "5")
		for range 2 {
			p.cmd("MAIL FROM:<carol@example.net>", "250")
			p.cmd("RCPT TO:<bob@alpha.example>", want)
			p.cmd("RSET", "250")
		}
	}
}

// An exemption is for the client that a listed server names, not for the server.
func TestExemptByXClient(t *testing.T) {
	inner := startInner(t, &innerServer{})
	addr := start(t, inner, func(c *Config) {
		c.XClient, c.Exempt = loopback, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.1/32")}
	})
	for who, want := range map[string]string{"ADDR=192.0.2.7": "250", "ADDR=198.51.100.7": "550 5.7.10", "ADDR=[UNAVAILABLE]": "550 5.7.10"} {
		p := dial(t, addr)
		p.want("220")
		p.cmd("XCLIENT "+who, "220")
		p.cmd("EHLO x", "250")
		p.cmd("MAIL FROM:<carol@example.net>", "250")
		p.cmd("RCPT TO:<bob@strict.example>", want)
	}
}

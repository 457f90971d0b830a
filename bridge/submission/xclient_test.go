package submission

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"dimegate/internal/testpeer"
)

// Loopback may speak for others, and 192.0.2.0/24 may relay.
func forOthers(c *Config) {
	c.XClient, c.Networks = c.Networks, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
}

func TestXClient(t *testing.T) {
	in := &inbox{}
	addr := start(t, func(c *Config) { forOthers(c); c.TLS = serverTLS(t) }, in)
	const mail = "MAIL FROM:<alice@alpha.example>"
	tests := map[string]struct {
		talk func(p *peer)
		mail string // the answer to MAIL at the end
	}{
		"for nobody":           {func(p *peer) {}, "550 5.7.1"},
		"for one that may":     {func(p *peer) { p.cmd("XCLIENT ADDR=192.0.2.7 NAME=x", "220 gw."); p.cmd("EHLO x", "250") }, "250"},
		"for one that may not": {func(p *peer) { p.cmd("XCLIENT ADDR=198.51.100.7", "220"); p.cmd("EHLO x", "250") }, "550 5.7.1"},
		"for nobody known":     {func(p *peer) { p.cmd("XCLIENT ADDR=[UNAVAILABLE]", "220"); p.cmd("EHLO x", "250") }, "550 5.7.1"},
		"for a user":           {func(p *peer) { p.cmd("XCLIENT ADDR=198.51.100.7 LOGIN=alice", "220"); p.cmd("EHLO x", "250") }, "250"},
		"in two commands": {func(p *peer) {
			p.cmd("XCLIENT LOGIN=alice", "220")
			p.cmd("XCLIENT ADDR=198.51.100.7", "220")
			p.cmd("EHLO x", "250")
		}, "250"},
		"for another, after a user": {func(p *peer) {
			p.cmd("XCLIENT ADDR=192.0.2.7 LOGIN=alice", "220")
			p.cmd("EHLO x", "250")
			p.cmd("XCLIENT ADDR=198.51.100.7", "220")
			p.cmd("EHLO x", "250")
		}, "550 5.7.1"},
		"without EHLO after it": {func(p *peer) { p.cmd("XCLIENT ADDR=192.0.2.7", "220") }, "503 5.5.1"},
		"in a transaction": {func(p *peer) {
			p.cmd("XCLIENT ADDR=192.0.2.7", "220")
			p.cmd("EHLO x", "250")
			p.cmd(mail, "250")
			p.cmd("XCLIENT ADDR=192.0.2.8", "503 5.5.1")
			p.cmd("RSET", "250")
			p.cmd("XCLIENT ADDR=198.51.100.7", "220")
			p.cmd("EHLO x", "250")
		}, "550 5.7.1"},
		"nonsense": {func(p *peer) {
			p.cmd("XCLIENT", "501 5.5.4")
			p.cmd("XCLIENT ADDR=192.0.2.7 FOO=x", "501 5.5.4")
		}, "550 5.7.1"},
		"forgotten with STARTTLS": {func(p *peer) {
			p.cmd("XCLIENT ADDR=192.0.2.7 LOGIN=alice", "220")
			p.cmd("EHLO x", "250")
			p.secure()
			p.cmd("EHLO x", "250")
		}, "550 5.7.1"},
		"behind STARTTLS": {func(p *peer) {
			p.secure()
			p.cmd("EHLO x", "250")
			p.cmd("XCLIENT ADDR=192.0.2.7", "220")
			p.cmd("EHLO x", "250")
		}, "250"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := dial(t, addr)
			p.want("220")
			if r := p.cmd("EHLO proxy.alpha.example", "250"); !strings.Contains(r, "250-XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT LOGIN\r\n") {
				t.Errorf("offers %q", r)
			}
			p.t = t
			tt.talk(p)
			p.cmd(mail, tt.mail)
		})
	}
	p := dial(t, start(t, nil, in)) // nobody is listed
	p.want("220")
	if r := p.cmd("EHLO x", "250"); strings.Contains(r, "XCLIENT") {
		t.Errorf("offers %q", r)
	}
	p.cmd("XCLIENT ADDR=192.0.2.7", "5")
}

func TestXClientAfterAuth(t *testing.T) {
	p := dial(t, start(t, func(c *Config) { forOthers(c); c.TLS, c.Users = serverTLS(t), users(t) }, &inbox{})).hello()
	p.secure()
	p.cmd("EHLO x", "250")
	p.cmd("AUTH PLAIN AHByaW50ZXIAc2VjcmV0IHR3bw==", "235")
	p.cmd("XCLIENT ADDR=192.0.2.7", "503 5.5.1")
}

// swaks, whose XCLIENT nobody here wrote.
func TestXClientFromSwaks(t *testing.T) {
	testpeer.Require(t, "swaks")
	in := &inbox{}
	addr := start(t, forOthers, in)
	swaks := func(ok bool, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "swaks", append([]string{"--server", addr, "--from", "a@alpha.example", "--to", "b@bravo.example"}, args...)...).CombinedOutput()
		if (err == nil) != ok {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	swaks(true, "--xclient-addr", "192.0.2.7", "--xclient-name", "mail.example.net", "--xclient-port", "4711", "--xclient-proto", "ESMTP", "--xclient-helo", "[there]", "--xclient-destaddr", "192.0.2.1", "--xclient-destport", "25")
	swaks(true, "--xclient-helo", "first", "--xclient-delim", "--xclient-addr", "IPV6:2001:db8::7", "--xclient-login", "al+ice")
	swaks(false, "--xclient-addr", "198.51.100.7")
	got := in.all()
	if len(got) != 2 || got[0].env.Client != netip.MustParseAddrPort("192.0.2.7:4711") || got[0].env.Hello != "[there]" || got[0].env.User != "" ||
		!strings.HasPrefix(got[0].trace(), "Received: from [there] ([192.0.2.7])") {
		t.Errorf("arrived: %+v", got)
	}
	if e := got[len(got)-1].env; e.Client.Addr() != netip.MustParseAddr("2001:db8::7") || e.Hello != "first" || e.User != "al+ice" {
		t.Errorf("arrived: %+v", e)
	}
}

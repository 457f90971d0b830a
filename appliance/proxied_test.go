package appliance

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/internal/testpeer"
)

// Behind a real HAProxy, which is listed: relay permission, traces and the SMTP and DMTP doors go by the client's address in its
// header, version 1 and 2, IPv4 and IPv6; never by the proxy's own.
func TestBehindHAProxy(t *testing.T) {
	testpeer.Require(t, "haproxy")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Submission.Networks = []string{"127.0.0.1", "127.0.7.0/24", "::1"} // HAProxy calls from 127.0.0.1
		c.Submission.ProxyFrom, c.DMTP.ProxyFrom = []string{"127.0.0.1"}, []string{"127.0.0.1"}
	})
	s.run(Options{})
	submission, _ := s.gateway.Addresses()

	b := testpeer.New(t)
	host, err := b.Address()
	check(t, err)
	v6, v6v2 := "[::1]:"+freePort(t, "[::1]:0"), "[::1]:"+freePort(t, "[::1]:0")
	_, err = b.HAProxy(ctx, "haproxy",
		testpeer.HAProxyWay{Listen: host + ":1", Target: submission, Header: "send-proxy"},
		testpeer.HAProxyWay{Listen: host + ":2", Target: submission, Header: "send-proxy-v2"},
		testpeer.HAProxyWay{Listen: v6, Target: submission, Header: "send-proxy"},
		testpeer.HAProxyWay{Listen: v6v2, Target: submission, Header: "send-proxy-v2"},
		testpeer.HAProxyWay{Listen: host + ":3", Target: submission},
		testpeer.HAProxyWay{Listen: host + ":4", Target: s.dual(), Header: "send-proxy-v2"},
		testpeer.HAProxyWay{Listen: host + ":5", Target: s.single(), Header: "send-proxy"})
	check(t, err)

	for name, tt := range map[string]struct{ at, from, mail string }{
		"version 1, listed":     {host + ":1", "127.0.7.7", "250"},
		"version 1, not listed": {host + ":1", "127.0.8.8", "550 5.7.1"},
		"version 2, listed":     {host + ":2", "127.0.7.7", "250"},
		"version 2, not listed": {host + ":2", "127.0.8.8", "550 5.7.1"},
		"version 1, IPv6":       {v6, "::1", "250"},
		"version 2, IPv6":       {v6v2, "::1", "250"},
		"no proxy":              {submission, "127.0.7.7", "250"},
	} {
		c := call(t, tt.at, tt.from)
		c.want("220")
		c.cmd("EHLO inner.alpha.example", "250")
		if r := c.cmd("MAIL FROM:<alice@alpha.example>", ""); !strings.HasPrefix(r, tt.mail) {
			t.Errorf("%s: %q", name, r)
		}
	}
	c := call(t, host+":3", "127.0.7.7") // a listed source without a header
	c.send("EHLO client.example\r\n")
	if r := c.reply(); r != "" {
		t.Errorf("without a header: %q", r)
	}
	c = call(t, submission, "127.0.8.8") // a header from a source that is not listed
	c.want("220")
	c.cmd("PROXY TCP4 127.0.7.7 127.0.0.1 5555 25", "501")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<alice@alpha.example>", "550 5.7.1")
	c = call(t, submission, "127.0.0.1") // a header that tells of no client
	c.send("PROXY UNKNOWN\r\n")
	c.want("220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<alice@alpha.example>", "550 5.7.1")

	c = call(t, host+":4", "127.0.9.9")
	c.want("220")
	c.cmd("EHLO out.example.net", "250")
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	c.want("250 2.0.0")
	if got := s.inner.messages(); len(got) != 1 || !strings.Contains(got[0], "Received: from out.example.net ([127.0.9.9])") {
		t.Errorf("arrived: %q", got)
	}
	c = call(t, host+":5", "127.0.9.9").secure(&tls.Config{})
	c.want("220")
	c.cmd("EHLO <bravo.example>", "250")
	c.cmd("SGNT <alpha.example>", "270 OK [")
	for range 9 { // of one prefix ten may be there, behind one proxy as without it
		call(t, host+":5", "127.0.9.10").secure(&tls.Config{}).want("220")
	}
	if r := call(t, host+":5", "127.0.9.11").secure(&tls.Config{}).reply(); strings.HasPrefix(r, "220") {
		t.Error("an eleventh of one prefix was taken")
	}
	call(t, host+":5", "127.0.10.1").secure(&tls.Config{}).want("220")
	if tls.Client(call(t, s.single(), "127.0.0.1").conn, &tls.Config{InsecureSkipVerify: true}).Handshake() == nil {
		t.Error("DMTP without a header")
	}
}

// freePort is a port that nobody listens on now.
func freePort(t *testing.T, at string) string {
	t.Helper()
	ln, err := net.Listen("tcp", at)
	check(t, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	check(t, err)
	return port
}

package submission

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"dimegate/internal/testcert"
)

// Who may send by a certificate, and for shared relays which messages of theirs.
func TestCertificates(t *testing.T) {
	ca, stranger := testcert.NewAuthority(t, "CA"), testcert.NewAuthority(t, "another CA")
	const relay, guid = "mail.protection.outlook.example", "72f988bf-86f1-41af-91ab-2d7cd011db47"
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	shown := map[string]*tls.Certificate{"": nil}
	for name, c := range map[string]tls.Certificate{
		"ours": ca.Issue(t, []string{"mx.alpha.example"}), "ours, expired": ca.Issue(t, []string{"mx.alpha.example"}, testcert.Expired),
		"another's": ca.Issue(t, []string{"mx.bravo.example"}), "ours, by a stranger": stranger.Issue(t, []string{"mx.alpha.example"}),
		"relay": ca.Issue(t, []string{"other.example", relay}, serverOnly), "relay by wildcard": ca.Issue(t, []string{"*.protection.outlook.example"}),
		"relay, by a stranger": stranger.Issue(t, []string{relay}), "relay, below": ca.Below(t, "issuer").Issue(t, []string{relay}),
	} {
		shown[name] = &c
	}
	config := func(c *Config) {
		c.TLS, c.Roots, c.Networks = serverTLS(t), ca.Pool(), nil
		c.Certificates = []string{"mx.alpha.example"}
		c.Tenants = []Tenant{{relay, "X-OriginatorOrg", "alpha.example"}, {relay, "X-MS-Exchange-CrossTenant-Id", guid}}
	}
	in := &inbox{}
	alone := start(t, config, in)
	listed := start(t, func(c *Config) { config(c); c.Networks = loopback }, in)
	const refused, mine = "550 5.7.1 the message is not of the organization", "X-OriginatorOrg: alpha.example\r\n"
	tests := map[string]struct {
		addr, shows, header string
		mail, message       string // the answers
	}{
		"ours":                        {alone, "ours", "", "250", "250"},
		"ours, expired":               {alone, "ours, expired", "", "550 5.7.1", ""},
		"ours, by a stranger":         {alone, "ours, by a stranger", "", "550 5.7.1", ""},
		"another's":                   {alone, "another's", "", "550 5.7.1", ""},
		"none":                        {alone, "", mine, "550 5.7.1", ""},
		"relay, ours":                 {alone, "relay", "Subject: x\r\nx-originatororg:\r\n Alpha.Example \r\n", "250", "250"},
		"relay, ours by id":           {alone, "relay", "X-MS-Exchange-CrossTenant-Id: " + strings.ToUpper(guid) + "\r\n", "250", "250"},
		"relay by wildcard, ours":     {alone, "relay by wildcard", mine, "250", "250"},
		"relay, below a CA":           {alone, "relay, below", mine, "250", "250"},
		"relay, by a stranger":        {alone, "relay, by a stranger", mine, "550 5.7.1", ""},
		"relay, another's":            {alone, "relay", "X-OriginatorOrg: bravo.example\r\n", "250", refused},
		"relay, ours and another's":   {alone, "relay", mine + "X-OriginatorOrg: bravo.example\r\n", "250", refused},
		"relay, another's and ours":   {alone, "relay", "X-OriginatorOrg: bravo.example\r\nX-OriginatorOrg : alpha.example\r\n", "250", refused},
		"relay, nobody's":             {alone, "relay", "Subject: x\r\n", "250", refused},
		"relay, no header":            {alone, "relay", "", "250", refused},
		"relay, below ours":           {alone, "relay", "X-OriginatorOrg: x.alpha.example\r\n", "250", refused},
		"relay, only in a comment":    {alone, "relay", "X-Originator-Org: alpha.example\r\n", "250", refused},
		"relay, in the body":          {alone, "relay", "Subject: x\r\n\r\n" + mine, "250", refused},
		"relay, a header of 2 MiB":    {alone, "relay", strings.Repeat("A: "+strings.Repeat("b", 997)+"\r\n", 2100), "250", "552 5.3.4"},
		"relay, a bare LF":            {alone, "relay", mine + "A: b\nC: d\r\n", "250", "554 5.6.0"},
		"relay in a listed network":   {listed, "relay", "X-OriginatorOrg: bravo.example\r\n", "250", refused},
		"another's, listed network":   {listed, "another's", "Subject: x\r\n", "250", "250"},
		"a stranger's, listed":        {listed, "relay, by a stranger", "Subject: x\r\n", "250", "250"},
		"no certificate, but listed":  {listed, "", "Subject: x\r\n", "250", "250"},
		"relay, ours, listed network": {listed, "relay", mine, "250", "250"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := dial(t, tt.addr).hello()
			p.present(shown[tt.shows])
			p.cmd("EHLO x", "250")
			p.cmd("MAIL FROM:<alice@alpha.example>", tt.mail)
			if tt.message == "" {
				return
			}
			before := len(in.all())
			p.cmd("RCPT TO:<bob@bravo.example>", "250")
			p.cmd("DATA", "354")
			p.send(tt.header + "\r\nhello\r\n.\r\n")
			p.want(tt.message)
			got := in.all()[before:]
			if tt.message == "250" && (len(got) != 1 || got[0].message() != tt.header+"\r\nhello\r\n") {
				t.Errorf("arrived: %+v", got)
			}
			if tt.message != "250" && len(got) > 0 {
				t.Error("it was taken")
			}
			p.cmd("NOOP", "250")
		})
	}
}

// A user needs no certificate, and one who speaks for others has none of theirs.
func TestCertificatesAndOthers(t *testing.T) {
	ca := testcert.NewAuthority(t, "CA")
	cert := ca.Issue(t, []string{"mx.alpha.example"})
	addr := start(t, func(c *Config) {
		forOthers(c)
		c.TLS, c.Roots, c.Certificates, c.Users = serverTLS(t), ca.Pool(), []string{"mx.alpha.example"}, users(t)
	}, &inbox{})
	for name, tt := range map[string]struct{ say, mail string }{
		"himself": {"NOOP", "250"}, "for another": {"XCLIENT ADDR=198.51.100.7", "530"}, "for nobody known": {"XCLIENT ADDR=[UNAVAILABLE]", "530"}, "for one that may": {"XCLIENT ADDR=192.0.2.7", "250"},
	} {
		p := dial(t, addr).hello()
		p.t = t
		p.present(&cert)
		p.cmd("EHLO x", "250")
		p.cmd(tt.say, "2")
		p.cmd("EHLO x", "250")
		if p.send("MAIL FROM:<alice@alpha.example>\r\n"); !strings.HasPrefix(p.reply(), tt.mail) {
			t.Errorf("%s: not %s", name, tt.mail)
		}
	}
}

// present is STARTTLS, showing a certificate if there is one.
func (p *peer) present(cert *tls.Certificate) {
	p.t.Helper()
	p.cmd("STARTTLS", "220")
	cfg := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	c := tls.Client(p.conn, cfg)
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn, p.in = c, bufio.NewReader(c)
}

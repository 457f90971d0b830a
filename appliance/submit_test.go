package appliance

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/internal/testcert"
	"dimegate/internal/testpeer"
)

// Keys of [submission] that nothing else would miss.
func TestSubmissionKeys(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Submission.Mend, c.Submission.MaxPerClient = []string{"127.0.7.7"}, 1
		c.Submission.MessagesHourly, c.Submission.RecipientsHourly = 2, 3
	})
	s.run(Options{})
	addr, _ := s.gateway.Addresses()
	from := func(client string) *talk {
		c := call(t, addr, client)
		c.want("220")
		c.cmd("EHLO x", "250")
		return c
	}
	send := func(c *talk, path, end, want string) {
		t.Helper()
		c.cmd("MAIL FROM:<"+path+">", "250")
		c.cmd("RCPT TO:<bob@bravo.example>", "250")
		c.cmd("DATA", "354")
		c.send("Subject: x\r\n\r\nhello" + end + "there\r\n.\r\n")
		c.want(want)
	}
	inner, other := from("127.0.7.7"), from("127.0.7.8")
	call(t, addr, "127.0.7.7").want("421 4.7.0") // a second session
	send(other, "alice@alpha.example", "\n", "554 5.6.0")
	send(inner, "alice@alpha.example", "\n", "250")
	send(inner, "alice@alpha.example", "\r\n", "250")
	inner.cmd("MAIL FROM:<alice@alpha.example>", "450 4.7.1")
	inner.cmd("MAIL FROM:<carol@alpha.example>", "250")
	for rcpt, want := range []string{"250", "250", "250", "450 4.7.1"} {
		inner.cmd(fmt.Sprintf("RCPT TO:<r%d@bravo.example>", rcpt), want)
	}
}

// Those who may speak for others, at both doors, and relays by certificate: swaks is the client.
func TestWhoTheClientIs(t *testing.T) {
	testpeer.Require(t, "swaks")
	ca := testcert.NewAuthority(t, "CA")
	dir := t.TempDir()
	const relay = "mail.protection.outlook.example"
	cert, key := testcert.Write(t, dir, "relay", ca.Issue(t, []string{relay}))
	own, ownKey := testcert.Write(t, dir, "own", ca.Issue(t, []string{"mx.alpha.example"}))
	bundle := filepath.Join(dir, "ca.pem")
	check(t, os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw}), 0o600))
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Submission.Networks, c.Submission.XClientFrom, c.Inbound.XClientFrom = []string{"192.0.2.0/24"}, []string{"127.0.0.1"}, []string{"127.0.0.1"}
		c.Submission.CertificateNames = []string{"mx.alpha.example"}
		c.Submission.Tenants = []config.Tenant{{CertificateName: relay, Field: "X-OriginatorOrg", Value: "alpha.example"}}
		c.TLS.CAFile = bundle
	})
	s.run(Options{})
	submission, _ := s.gateway.Addresses()
	swaks := func(name, server, want string, args ...string) {
		t.Helper()
		all := append([]string{"--server", server, "--from", "alice@alpha.example", "--to", "bob@alpha.example", "--hide-informational"}, args...)
		out, err := exec.CommandContext(t.Context(), "swaks", all...).CombinedOutput()
		if (err == nil) != (want == "250") || !strings.Contains(string(out), " "+want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	swaks("for one that may", submission, "250", "--xclient-addr", "192.0.2.7")
	swaks("for one that may not", submission, "550 5.7.1", "--xclient-addr", "198.51.100.7")
	swaks("no certificate", submission, "550 5.7.1", "--tls")
	swaks("our certificate", submission, "250", "--tls", "--tls-cert", own, "--tls-key", ownKey)
	swaks("relay, ours", submission, "250", "--tls", "--tls-cert", cert, "--tls-key", key, "--header", "X-OriginatorOrg: alpha.example")
	swaks("relay, another's", submission, "550 5.7.1", "--tls", "--tls-cert", cert, "--tls-key", key, "--header", "X-OriginatorOrg: bravo.example")
	swaks("port 25", s.dual(), "250", "--from", "carol@example.net", "--xclient-addr", "192.0.2.9", "--xclient-helo", "there.example.net")
	until(t, func() bool {
		return slices.ContainsFunc(s.inner.messages(), func(m string) bool { return strings.Contains(m, "Received: from there.example.net ([192.0.2.9])") })
	})
}

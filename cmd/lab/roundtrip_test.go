package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// buildOnce compiles the gateway once for all tests of the package.
var buildOnce = sync.OnceValues(func() (string, error) { return Build(context.Background(), buildDir) })

// gateways adds both gateways to a lab, running.
func gateways(t *testing.T, l *Lab) (alpha, bravo *Gateway) {
	t.Helper()
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	both, err := l.StartGateways(t.Context(), binary)
	if err != nil {
		t.Fatal(err)
	}
	return both[0], both[1]
}

// newLab starts the two organisations without gateways.
func newLab(t *testing.T) *Lab {
	t.Helper()
	testpeer.Require(t, "postfix", "dovecot", "unbound", "swaks")
	l, err := NewLab(t.Context(), testpeer.New(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestRoundtrip is the product in one test: every message goes both ways, once from Postfix to Postfix and once through the two
// gateways, and lies in the mailbox with the same octets. What the command runs, runs here.
func TestRoundtrip(t *testing.T) {
	l := newLab(t)
	alpha, bravo := gateways(t, l)
	both := [2]*Gateway{alpha, bravo}
	t.Run("from alpha", func(t *testing.T) {
		all := slices.Concat(fromFiles(testmail.Corpus(t), false), fromFiles(testmail.Ours(t), true), shapes(52e6))
		r, base := trip(t, l, both, l.Alpha, all)
		checkBaseline(t, all, base)
		// One of 100 MB takes 230 MB and 110 MB; here there is other mail beside the largest.
		if n := int64(r.Large); n < 51e6 || r.Peak.Origin > 5*n || r.Peak.Destination > 3*n {
			t.Errorf("the largest message had %d octets, the gateways used %d and %d", n, r.Peak.Origin, r.Peak.Destination)
		}
		for _, name := range []string{"bare-cr", "smuggle", "ends-lf", "ends-cr", "ends-mixed"} { // DATA cannot carry them
			if !slices.ContainsFunc(r.Refused, func(x refusal) bool {
				return x.Name == name && x.By == byGateway && strings.Contains(x.Reply, "554 5.6.0")
			}) {
				t.Errorf("%s: the gateway did not refuse it", name)
			}
		}
		for _, d := range r.TakenOut {
			if want := taken[strings.TrimSuffix(d.Name, "+dkim")]; want != d.What {
				t.Errorf("%s: taken out: %s, want %q", d.Name, d.What, want)
			}
		}
	})
	t.Run("from bravo", func(t *testing.T) {
		all := fromFiles(append(testmail.Corpus(t), testmail.Ours(t)...), false)
		_, base := trip(t, l, both, l.Bravo, all)
		checkBaseline(t, all, base)
	})
	t.Run("a client that is not ours", func(t *testing.T) { foreignClient(t, l) })
	t.Run("null sender", func(t *testing.T) { nullSender(t, l) })
	t.Run("several recipients", func(t *testing.T) { severalRecipients(t, l) })
	t.Run("unknown recipient", func(t *testing.T) { unknownRecipient(t, l) })
}

func trip(t *testing.T, l *Lab, both [2]*Gateway, from *Org, all []letterOut) (*roundtripReport, []*arrival) {
	t.Helper()
	r, base, err := roundtrip(t.Context(), l, both, from, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range r.Why {
		t.Error(why)
	}
	if !r.OK || r.ByteExact != r.Total || r.DKIMBefore < r.Signed/2 || r.DKIMAfter != r.DKIMBefore {
		t.Errorf("%d of %d byte-exact, %d of %d signatures", r.ByteExact, r.Total, r.DKIMAfter, r.DKIMBefore)
	}
	t.Logf("%d messages, %d signed, %d signatures verify; peak RssAnon %d MB and %d MB; %.1f s", r.Total, r.Signed, r.DKIMAfter, r.Peak.Origin>>20, r.Peak.Destination>>20, r.Seconds)
	return r, base
}

// checkBaseline says what two stock Postfixes and a Dovecot make of every message, with no gateway between. What they
// change is told twice, so that nothing hides in "the baseline does it, too": afterPostfix makes the same changes, and
// changed names every message that has one.
func checkBaseline(t *testing.T, all []letterOut, got []*arrival) {
	t.Helper()
	for i, m := range all {
		if got[i] == nil {
			t.Errorf("%s: refused by the baseline", m.name)
			continue
		}
		sent := m.wire
		model := afterPostfix(sent)
		why, named := changed[m.name]
		switch {
		case bytes.Equal(model, sent) && named && why.wire == "":
			t.Errorf("%s: named as changed (%s), and is not", m.name, why)
		case !bytes.Equal(model, sent) && !named:
			t.Errorf("%s: changed by Postfix and not named", m.name)
		case bytes.Equal(got[i].message, model) != (why.wire == ""):
			t.Errorf("%s: named for %q, arrived as\n%s", m.name, why, parting(got[i].message, model))
		}
		if n := len(got[i].top); n != 5 { // Return-Path, Delivered-To, and Received of Dovecot, Postfix, Postfix
			t.Errorf("%s: %d fields on top: %q", m.name, n, got[i].top)
		}
	}
}

// limited is a context for one exchange.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	t.Cleanup(cancel)
	return ctx
}

// send gives one message to an organisation's mail server.
func send(ctx context.Context, t *testing.T, o *Org, from string, to []string, body string) {
	t.Helper()
	c, err := testpeer.DialSMTP(ctx, o.Postfix.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(from, to, []byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// inbox waits for n messages and reads them.
func inbox(ctx context.Context, t *testing.T, o *Org, user string, n int) [][]byte {
	t.Helper()
	if err := o.Store.Wait(ctx, user, n); err != nil {
		t.Fatal(err)
	}
	all, err := o.Store.Inbox(ctx, user)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const plainMessage = "From: Alice <alice@alpha.test>\r\nTo: Bob <bob@bravo.test>\r\nSubject: terms\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n" +
	"Message-ID: <1@alpha.test>\r\n\r\nThe merger closes on Friday.\r\n"

// nullSender: a message without a reverse-path, as a report is, must not get one on the way.
func nullSender(t *testing.T, l *Lab) {
	ctx := limited(t)
	send(ctx, t, l.Alpha, "", []string{"alice@bravo.test"}, plainMessage)
	top, _ := split(inbox(ctx, t, l.Bravo, "alice@bravo.test", 1)[0])
	if top[0] != (Field{"Return-Path", "<>"}) {
		t.Errorf("arrived with %v", top[0])
	}
}

// severalRecipients: each gets one copy, here and at the other end, and learns of no other.
func severalRecipients(t *testing.T, l *Lab) {
	ctx := limited(t)
	to := []string{"m1001@bravo.test", "m1002@bravo.test", "m1003@bravo.test", "m1004@alpha.test"}
	send(ctx, t, l.Alpha, "alice@alpha.test", to, plainMessage)
	for _, user := range to {
		o := l.Bravo
		if strings.HasSuffix(user, l.Alpha.Domain) {
			o = l.Alpha
		}
		all := inbox(ctx, t, o, user, 1)
		if len(all) != 1 || !bytes.HasSuffix(all[0], []byte(plainMessage)) {
			t.Errorf("%s: %d messages, %q", user, len(all), all)
		}
		for _, other := range to {
			if other != user && bytes.Contains(all[0], []byte(other)) {
				t.Errorf("%s learns of %s", user, other)
			}
		}
	}
}

// unknownRecipient: the destination's mail server does not know him, so he has no signet there, and with DIME as the floor
// the author gets a report (dmtp.md §11.2).
func unknownRecipient(t *testing.T, l *Lab) {
	ctx := limited(t)
	send(ctx, t, l.Alpha, "carol@alpha.test", []string{"nobody@bravo.test"}, plainMessage)
	top, report := split(inbox(ctx, t, l.Alpha, "carol@alpha.test", 1)[0])
	if top[0] != (Field{"Return-Path", "<>"}) {
		t.Errorf("the report came from %v", top[0])
	}
	for _, want := range []string{"multipart/report", "Final-Recipient: rfc822; nobody@bravo.test", "Action: failed", "Status: 5.7.10"} {
		if !strings.Contains(strings.ToLower(string(report)), strings.ToLower(want)) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

// foreignClient: swaks, which we did not write, speaks to the gateway itself with STARTTLS and in one write.
func foreignClient(t *testing.T, l *Lab) {
	ctx := limited(t)
	for i, flags := range [][]string{{"--tls"}, {"--tls", "--pipeline"}, {"--pipeline"}, {"--protocol", "SMTP"}} {
		user := fmt.Sprintf("m%d@bravo.test", 2000+i)
		args := slices.Concat(flags, []string{"--server", l.Alpha.DX, "--port", "2525", "--from", "alice@alpha.test", "--to", user,
			"--header", "Subject: by swaks", "--body", ".one dot\n..two\n"})
		if out, err := exec.CommandContext(ctx, "swaks", args...).CombinedOutput(); err != nil {
			t.Errorf("swaks %v: %v\n%s", flags, err, out)
			continue
		}
		if m := inbox(ctx, t, l.Bravo, user, 1)[0]; !bytes.Contains(m, []byte("\r\n\r\n.one dot\r\n..two\r\n")) {
			t.Errorf("swaks %v: arrived as %q", flags, m)
		}
	}
}

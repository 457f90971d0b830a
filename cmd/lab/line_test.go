package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/textproto"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestLine is the product in one test: every message goes both ways, once from Postfix to Postfix and once through the
// two gateways, and lies in the mailbox with the same octets.
func TestLine(t *testing.T) {
	all := everyMessage(t)
	l := newLab(t)
	alpha, bravo := gateways(t, l)
	for _, from := range l.Orgs() {
		var base []*arrival
		var refused map[string]error
		t.Run("baseline from "+from.Name, func(t *testing.T) {
			base, refused = exchange(t, l, from, direct, all)
			checkBaseline(t, all, base, refused)
		})
		t.Run("line from "+from.Name, func(t *testing.T) {
			line, refused := exchange(t, l, from, "", all)
			for i, m := range all {
				if err := refused[m.Name]; err != nil {
					t.Errorf("%s: refused: %v", m.Name, err)
				}
				if base[i] == nil || line[i] == nil {
					continue
				}
				want := base[i].message
				if taken, ok := firewalled[m.Name]; ok {
					if want = without(want, taken); bytes.Equal(want, base[i].message) {
						t.Errorf("%s: named for fields that it has not: %q", m.Name, taken)
					}
				}
				if !bytes.Equal(line[i].message, want) {
					t.Errorf("%s: %s", m.Name, difference(line[i].message, want))
				}
				checkAdditions(t, m.Name, line[i], base[i])
			}
		})
	}
	t.Run("a client that is not ours", func(t *testing.T) { foreignClient(t, l) })
	t.Run("null sender", func(t *testing.T) { nullSender(t, l) })
	t.Run("several recipients", func(t *testing.T) { severalRecipients(t, l) })
	t.Run("unknown recipient", func(t *testing.T) { unknownRecipient(t, l) })
	t.Run("50 MB", func(t *testing.T) { largeMessage(t, l, alpha, bravo) })
}

// checkAdditions holds what the gateways put on top against the list of what they may: Date and Message-ID where there
// is none, and their trace fields. The reverse-path must be the one that was given.
func checkAdditions(t *testing.T, name string, line, base *arrival) {
	t.Helper()
	if got, want := line.top[0], base.top[0]; got != want {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
	header := fields(base.message)
	for _, must := range []string{"Date", "Message-Id"} {
		had, added := header[must] != "", slices.ContainsFunc(line.top, func(f Field) bool { return textproto.CanonicalMIMEHeaderKey(f.Name) == must })
		if had == added {
			t.Errorf("%s: had %s: %v, was given one: %v", name, must, had, added)
		}
	}
	for _, f := range line.top {
		words := strings.Fields(f.Value)
		if by := slices.Index(words, "by"); by >= 0 && strings.HasPrefix(words[by+1], "dx.") && slices.Contains(words, "for") {
			t.Errorf("%s: a gateway's trace names a recipient: %q", name, f.Value)
		}
	}
}

// without is a message without the header fields that begin with one of some prefixes.
func without(message []byte, prefixes []string) []byte {
	var out []byte
	for {
		f, rest, ok := cutField(message)
		if !ok {
			return append(out, message...)
		}
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(strings.ToLower(f.Name), strings.ToLower(p)) }) {
			out = append(out, message[:len(message)-len(rest)]...)
		}
		message = rest
	}
}

// fields is a header's fields by canonical name, the last of each.
func fields(message []byte) map[string]string {
	all := map[string]string{}
	for {
		f, rest, ok := cutField(message)
		if !ok {
			return all
		}
		all[textproto.CanonicalMIMEHeaderKey(f.Name)] = f.Value + " "
		message = rest
	}
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

// largeMessage sends 50 MB through both gateways and watches their memory.
func largeMessage(t *testing.T, l *Lab, alpha, bravo *Gateway) {
	const limit = 400 << 20 // octets of RssAnon
	ctx := limited(t)

	raw := make([]byte, 36<<20)
	_, _ = rand.Read(raw) // never fails
	var body strings.Builder
	body.WriteString(plainMessage[:strings.Index(plainMessage, "\r\n\r\n")] + "\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(raw)), 76) {
		body.Write(line)
		body.WriteString("\r\n")
	}
	start := time.Now()
	send(ctx, t, l.Alpha, "alice@alpha.test", []string{"bob@bravo.test"}, body.String())
	peak := map[*Gateway]int64{}
	err := testpeer.Until(ctx, func() bool {
		for _, g := range []*Gateway{alpha, bravo} {
			n, err := g.AnonymousMemory()
			if err != nil {
				t.Error(err)
			}
			peak[g] = max(peak[g], n)
		}
		return l.Bravo.Store.Count("bob@bravo.test") > 0
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB in %v; peak RssAnon: %d MB at the origin, %d MB at the destination", float64(body.Len())/1e6,
		time.Since(start).Round(time.Millisecond), peak[alpha]>>20, peak[bravo]>>20)
	if peak[alpha] > limit || peak[bravo] > limit {
		t.Errorf("a gateway used more than %d MB", limit>>20)
	}
	if got := inbox(ctx, t, l.Bravo, "bob@bravo.test", 1)[0]; !bytes.HasSuffix(got, []byte(body.String())) {
		t.Error("it is not the same message")
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

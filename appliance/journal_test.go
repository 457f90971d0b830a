package appliance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/bridge/journal"
	"dimegate/vault"
	"dimegate/vault/archive"
)

// journalReport is one as Exchange makes it: MS-XJRNL.
func journalReport(lines string, messages ...string) string {
	var b strings.Builder
	b.WriteString("From: Microsoft Outlook <MicrosoftExchange329e@alpha.example>\r\nTo: journal@archive.example\r\nX-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=\"_0_b\"\r\n\r\n--_0_b\r\nContent-Type: text/plain\r\n\r\n")
	b.WriteString("Sender: alice@alpha.example\r\nSubject: plan\r\nMessage-ID: <1@alpha.example>\r\n" + strings.ReplaceAll(lines, "\n", "\r\n"))
	for _, m := range messages {
		b.WriteString("\r\n--_0_b\r\nContent-Type: message/rfc822\r\n\r\n" + m)
	}
	b.WriteString("\r\n--_0_b--\r\n")
	return b.String()
}

// TestJournalIntake: journal reports that a mail server sends to a gateway are archived as the messages that they are about, the Bcc
// and every fork of each in an envelope of its own and all of one content; nothing of it is sent on, and nothing is lost.
func TestJournalIntake(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Archive.Keep, c.Archive.JournalAddress, c.Audit.Witnesses = true, "Journal@archive.example", []string{silentWitness(t)}
	})
	s.run(Options{})
	addr, _ := s.gateway.Addresses()
	give := func(want, text string, to ...string) {
		t.Helper()
		c := call(t, addr, "127.0.0.1")
		c.want("220")
		c.cmd("EHLO exchange.alpha.example", "250")
		c.cmd("MAIL FROM:<>", "250")
		for _, r := range to {
			c.cmd("RCPT TO:<"+r+">", "250")
		}
		c.cmd("DATA", "354")
		c.send(text + ".\r\n")
		c.want(want)
		c.cmd("QUIT", "221")
	}
	const message = "From: alice@alpha.example\r\nTo: team@alpha.example\r\nSubject: plan\r\nMessage-ID: <1@alpha.example>\r\n\r\nthe words\r\n"
	const mailbox = "journal@archive.example"
	first := journalReport("To: bob@alpha.example, Expanded: team@alpha.example\nBcc: boss@alpha.example\n", message)
	give("451 4.3.5", first, mailbox) // no key yet: it waits in Exchange
	o := officersOf(t, s)
	give("250", first, mailbox)
	give("250", journalReport("To: carol@alpha.example, Expanded: team@alpha.example\nRecipient: out@else.example\n", message), "JOURNAL@archive.example")
	give("250", journalReport("To: bob@alpha.example\n", "Subject: opened\r\n\r\nclear\r\n", "Subject: sealed\r\n\r\nrpmsg\r\n"), mailbox) // rights-protected
	broken := "Subject: a question\r\n\r\nis this the archive?\r\n"
	give("250", broken, mailbox)
	give("250", journalReport("To: dan@alpha.example\n", message), mailbox, "someone@bravo.example")
	outsiders := strings.Replace(journalReport("To: b@else.example\n", "Subject: outside\r\n\r\n"), "Sender: alice@alpha.example", "Sender: a@else.example", 1)
	give("250", outsiders, mailbox)

	hits := s.archived(archive.Query{Domains: []string{"alpha.example", "archive.example", "else.example"}, Direction: vault.Internal})
	slices.SortFunc(hits, func(a, b archive.Hit) int { return int(a.Leaf - b.Leaf) }) // those of one report are of one moment
	if len(hits) != 7 {
		t.Fatalf("%d records", len(hits))
	}
	if hits[0].Content != hits[1].Content || hits[0].Content != hits[5].Content || hits[0].Content == hits[2].Content {
		t.Error("the forks of one message are not of one content")
	}
	for address, want := range map[string]int{"alice@alpha.example": 5, "bob@alpha.example": 3, "boss@alpha.example": 1, "carol@alpha.example": 1, "team@alpha.example": 2, mailbox: 2} {
		if got := s.archived(archive.Query{Custodians: []string{address}}); len(got) != want {
			t.Errorf("%s has %d records, not %d", address, len(got), want)
		}
	}
	octets, envelopes := s.open(o, "alice@alpha.example", hits)
	rest, restEnvelopes := s.open(o, mailbox, hits)
	for id, text := range rest {
		octets[id], envelopes[id] = text, restEnvelopes[id]
	}
	for id, e := range envelopes {
		envelopes[id] = e[32:] // behind the salt of its leaf
	}
	reports := map[string][]byte{}
	for n, want := range []struct{ octets, recipients string }{
		{message, "bob@alpha.example boss@alpha.example"}, {message, "carol@alpha.example out@else.example"},
		{"Subject: opened\r\n\r\nclear\r\n", "bob@alpha.example"}, {"Subject: sealed\r\n\r\nrpmsg\r\n", "bob@alpha.example"}, {broken, mailbox}, {message, "dan@alpha.example"},
		{"Subject: outside\r\n\r\n", "b@else.example"},
	} {
		id := hits[n].Record
		if octets[id] != want.octets {
			t.Errorf("record %d is %q", n, octets[id])
		}
		list, err := StoredEnvelopes(hits[n].Direction, []byte(envelopes[id]))
		if err != nil || len(list) != 1 || strings.Join(list[0].Recipients, " ") != want.recipients || list[0].Source != "journal" {
			t.Errorf("record %d: %+v, %v", n, list, err)
		}
		st, err := journal.ParseStored([]byte(envelopes[id]))
		check(t, err)
		if st.Messages == 1 { // message and frame are the report
			reports[fmt.Sprint(n)] = bytes.Join(st.Frame, []byte(octets[id]))
		}
	}
	if string(reports["0"]) != first {
		t.Errorf("the first report is not what came: %q", reports["0"])
	}
	leaves, err := s.vault().LogLeaves(t.Context(), 0, 1000)
	check(t, err)
	queued := 0
	for _, b := range leaves {
		if l, err := vault.ParseLeaf(b); err == nil && l.Type == vault.LeafRecipient {
			queued++
		}
	}
	if queued != 1 { // someone@bravo.example
		t.Errorf("%d recipients entered the queue", queued)
	}
}

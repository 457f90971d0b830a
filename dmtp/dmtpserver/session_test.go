package dmtpserver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dimegate/dmtp"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

func fpOf(tb testing.TB, s *signet.Signet, f signet.Form) string {
	tb.Helper()
	return must[signet.Fingerprint](tb)(s.Fingerprint(f)).String()
}

func TestLookups(t *testing.T) {
	w := newWorld(t, 3)
	b := newBackend(w)
	r := run(t, b.config(t))
	bob, now := w.bob[0], w.bob[2]
	cut := func(s *signet.Signet, f signet.Form) string { return must[*signet.Signet](t)(s.Cut(f)).Base64() }
	nothing := string(dmtp.TokenOf([64]byte{1}))
	tests := map[string]struct{ ask, want string }{
		"org":                          {"SGNT <b.example>", "270 OK [" + w.bSignet.Base64() + "]"},
		"org, upper case":              {"sgnt <B.EXAMPLE>", "270 OK [" + w.bSignet.Base64() + "]"},
		"user":                         {"SGNT <bob@b.example>", "280 OK [" + now.Base64() + "]"},
		"user, upper case":             {"SGNT <Bob@B.example>", "280 OK [" + now.Base64() + "]"},
		"named":                        {"SGNT USER=<bob@b.example>", "280 OK [" + now.Base64() + "]"},
		"placeholder":                  {"SGNT <bob@b.example> [fingerprint]", "280 OK [" + now.Base64() + "]"},
		"by ID":                        {"SGNT <bob@b.example> [" + fpOf(t, now, signet.ID) + "]", "280 OK [" + now.Base64() + "]"},
		"by full":                      {"SGNT <bob@b.example> [" + fpOf(t, now, signet.Full) + "]", "280 OK [" + cut(now, signet.Full) + "]"},
		"by crypto":                    {"SGNT <bob@b.example> [" + fpOf(t, now, signet.Crypto) + "]", "280 OK [" + cut(now, signet.Crypto) + "]"},
		"an old one by crypto":         {"SGNT <bob@b.example> [" + fpOf(t, bob, signet.Crypto) + "]", "280 OK [" + cut(bob, signet.Crypto) + "]"},
		"an old org by ID":             {"SGNT <b.example> [" + fpOf(t, w.bOldSignet, signet.ID) + "]", "270 OK [" + w.bOldSignet.Base64() + "]"},
		"another's fingerprint":        {"SGNT <bob@b.example> [" + fpOf(t, w.aliceSignet, signet.ID) + "]", "576 SIGNET NOT FOUND"},
		"no such fingerprint":          {"SGNT <bob@b.example> [" + nothing + "]", "576 SIGNET NOT FOUND"},
		"no such user":                 {"SGNT <eve@b.example>", "576 SIGNET NOT FOUND"},
		"no domain of ours":            {"SGNT <a.example>", "576 SIGNET NOT FOUND"},
		"current":                      {"VRFY <bob@b.example> [" + fpOf(t, now, signet.Full) + "]", "281 CURRENT"},
		"current by crypto":            {"VRFY <bob@b.example> [" + fpOf(t, now, signet.Crypto) + "]", "281 CURRENT"},
		"current org":                  {"VRFY <b.example> [" + fpOf(t, w.bSignet, signet.ID) + "]", "271 CURRENT"},
		"outdated":                     {"VRFY <bob@b.example> [" + fpOf(t, bob, signet.Full) + "]", "250 UPDATE [" + fpOf(t, now, signet.ID) + "]"},
		"never":                        {"VRFY <bob@b.example> [" + nothing + "]", "576 SIGNET NOT FOUND"},
		"never anybody":                {"VRFY <eve@b.example> [" + nothing + "]", "576 SIGNET NOT FOUND"},
		"verify a placeholder":         {"VRFY <bob@b.example> [fingerprint]", "501 INVALID VRFY PARAMETER"},
		"history":                      {"HIST <bob@b.example> [" + fpOf(t, bob, signet.Full) + "]", "290-[" + bob.Base64() + "]|290-[" + w.bob[1].Base64() + "]|290-[" + now.Base64() + "]|290 OK"},
		"history to an end":            {"HIST <bob@b.example> [" + fpOf(t, bob, signet.ID) + "] [" + fpOf(t, w.bob[1], signet.Crypto) + "]", "290-[" + bob.Base64() + "]|290-[" + w.bob[1].Base64() + "]|290 OK"},
		"history of the current":       {"HIST <bob@b.example> [" + fpOf(t, now, signet.ID) + "]", "290-[" + now.Base64() + "]|290 OK"},
		"history without a start":      {"HIST USER=<bob@b.example> STOP=[" + fpOf(t, bob, signet.ID) + "]", "290-[" + bob.Base64() + "]|290 OK"},
		"history backwards":            {"HIST <bob@b.example> [" + fpOf(t, now, signet.ID) + "] [" + fpOf(t, bob, signet.ID) + "]", "576 SIGNET NOT FOUND"},
		"history of an org":            {"HIST DOMAIN=<b.example>", "290-[" + w.bOldSignet.Base64() + "]|290-[" + w.bSignet.Base64() + "]|290 OK"},
		"history from nothing":         {"HIST <bob@b.example> [" + nothing + "]", "576 SIGNET NOT FOUND"},
		"history to nothing":           {"HIST <bob@b.example> [" + fpOf(t, bob, signet.ID) + "] [" + nothing + "]", "576 SIGNET NOT FOUND"},
		"history of an unknown domain": {"HIST DOMAIN=<a.example>", "576 SIGNET NOT FOUND"},
	}
	c := dialTLS(t, r.single)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c.tb = t
			c.send(tt.ask + "\r\n")
			for want := range strings.SplitSeq(tt.want, "|") {
				if got := c.want(want[:4]); got != want {
					t.Errorf("got %.60q, want %.60q", got, want)
				}
			}
		})
	}
	c.tb = t
	b.failing = errors.New("store is away")
	c.ask("SGNT <b.example>", "476 SIGNET TEMPORARILY UNAVAILABLE")
	c.ask("QUIT", "221 BYE")
	c.gone()
}

// TestHistoryInParts has more signets than one reply holds.
func TestHistoryInParts(t *testing.T) {
	w := newWorld(t, 70)
	c := dialTLS(t, run(t, newBackend(w).config(t)).single)
	c.send("HIST USER=<bob@b.example>\r\n")
	for i := range 64 {
		if got := c.want("290-["); got != "290-["+w.bob[i].Base64()+"]" {
			t.Fatalf("signet %d is another", i)
		}
	}
	c.want("290 OK")
	c.send("HIST <bob@b.example> [" + fpOf(t, w.bob[63], signet.Full) + "]\r\n")
	for range 7 {
		c.want("290-[")
	}
	c.want("290 OK")
}

// TestStates is the table of dmtp.md §6: in each state each command, and the state that follows.
func TestStates(t *testing.T) {
	w := newWorld(t, 1)
	r := run(t, newBackend(w).config(t))
	ehlo, mail, rcpt := "EHLO <a.example>", "MAIL FROM: <a.example> [fingerprint] SIZE=5000", "RCPT TO: <b.example> [fingerprint]"
	states := map[string][]string{"G1": nil, "G2": {ehlo}, "G3": {ehlo, mail}, "G4": {ehlo, mail, rcpt}}
	probe := func(c *wire) string { // finds the state by what DATA says, which is harmless but in G4
		c.send("DATA\r\n")
		switch l := c.want("503"); {
		case strings.Contains(l, "EHLO"):
			return "G1"
		case strings.Contains(l, "MAIL"):
			return "G2"
		}
		return "G3"
	}
	tests := []struct {
		ask        string
		code, next map[string]string // by state; "" for all others
	}{
		{"STARTTLS <dx.b.example>", map[string]string{"": "454"}, nil},
		{"STARTTLS", map[string]string{"": "454"}, nil},
		{"EHLO <c.example>", map[string]string{"": "250"}, map[string]string{"": "G2"}},
		{"HELO HOST=<c.example>", map[string]string{"": "250"}, map[string]string{"": "G2"}},
		{"EHLO c.example", map[string]string{"": "501"}, nil},
		{"MODE", map[string]string{"": "200 OK DMTPv1"}, nil},
		{"NOOP", map[string]string{"": "250 OK"}, nil},
		{"HELP", map[string]string{"": "214"}, nil},
		{"SGNT <b.example>", map[string]string{"": "270"}, nil},
		{"HIST DOMAIN=<b.example>", map[string]string{"": "290"}, nil},
		{"VRFY <b.example> [" + fpOf(t, w.bSignet, signet.ID) + "]", map[string]string{"": "271"}, nil},
		{mail, map[string]string{"G1": "503", "": "250"}, map[string]string{"G1": "G1", "": "G3"}},
		{"MAIL FROM: <a.example> [x] SIZE=99999999999", map[string]string{"G1": "503", "": "552"}, map[string]string{"G1": "G1", "": "G2"}},
		{"MAIL FROM: <a.example> [x] SIZE=" + strings.Repeat("9", 30), map[string]string{"G1": "503", "": "552"}, map[string]string{"G1": "G1", "": "G2"}},
		{"MAIL FROM:<>", map[string]string{"": "501"}, map[string]string{"G1": "G1", "": "G2"}},
		{rcpt, map[string]string{"G3": "250", "": "503"}, map[string]string{"G3": "G4"}},
		{"RCPT TO: <c.example> [x]", map[string]string{"G3": "551", "": "503"}, nil},
		{"RCPT TO: <b.example> [" + string(dmtp.TokenOf([64]byte{1})) + "]", map[string]string{"G3": "576", "": "503"}, nil},
		{"RCPT TO: <b.example> [" + fpOf(t, w.bOldSignet, signet.Crypto) + "]", map[string]string{"G3": "250", "": "503"}, map[string]string{"G3": "G4"}},
		{"RCPT TO:<>", map[string]string{"": "501"}, nil},
		{"DATA x", map[string]string{"": "501"}, map[string]string{"G4": "G2"}},
		{"RSET", map[string]string{"": "250 OK"}, map[string]string{"G1": "G1", "": "G2"}},
		{"STATS", map[string]string{"": "502 COMMAND DISABLED"}, nil},
		{"VERB", map[string]string{"": "502 COMMAND DISABLED"}, nil},
		{"XYZZY", map[string]string{"": "500 INVALID COMMAND"}, nil},
		{"", map[string]string{"": ""}, nil},
	}
	for _, tt := range tests {
		for from, way := range states {
			t.Run(tt.ask+" in "+from, func(t *testing.T) {
				c := dialTLS(t, r.single)
				for _, l := range way {
					c.send(l + "\r\n")
					for !strings.HasPrefix(c.want("250"), "250 ") {
					}
				}
				c.send(tt.ask + "\r\n")
				if tt.ask != "" {
					for strings.HasPrefix(c.want(either(tt.code, from)), either(tt.code, from)[:3]+"-") {
					}
				}
				next := either(tt.next, from)
				if next == "" {
					next = from
				}
				if next == "G4" {
					c.ask("RCPT TO: <b.example> [x]", "503 ONE")
					c.ask("DATA", "354 CONTINUE [")
					return
				}
				if got := probe(c); got != next {
					t.Errorf("then in %s, want %s", got, next)
				}
			})
		}
	}
}

func either(m map[string]string, k string) string {
	if v, ok := m[k]; ok {
		return v
	}
	return m[""]
}

// begin opens a transaction for n octets up to RCPT.
func (w *wire) begin(n int) {
	w.tb.Helper()
	w.send("EHLO <a.example>\r\n")
	for !strings.HasPrefix(w.want("250"), "250 ") {
	}
	w.again(n)
}

func (w *wire) again(n int) {
	w.tb.Helper()
	w.ask(fmt.Sprintf("MAIL FROM: <a.example> [fingerprint] SIZE=%d", n), "250 OK")
	w.ask("RCPT TO: <b.example> [fingerprint]", "250 OK")
}

func TestDelivery(t *testing.T) {
	w := newWorld(t, 1)
	b := newBackend(w)
	r := run(t, b.config(t))
	m := w.signed(t, "hello", nil)
	commit := string(dmtp.Commit(m))
	c := dialTLS(t, r.single)
	c.begin(len(m))
	c.ask("DATA ["+commit+"]", "354 CONTINUE ["+commit+"]")
	c.send(string(m) + "\r\n")
	c.want("254 OK [" + commit + "]")
	// the same again: known before it is sent
	c.again(len(m))
	c.ask("DATA ["+commit+"]", "255 OK ["+commit+"]")
	// and by libdime, which gives no commit value: known when it has been sent
	c.again(len(m))
	if l := c.ask("DATA [fingerprint]", "354 CONTINUE ["); len(l) != len("354 CONTINUE []")+22 {
		t.Errorf("%q: not 22 characters in the bracket", l)
	}
	c.send(string(m) + "\r\n")
	c.want("255 OK [" + commit + "]")
	// named grammar, without SIZE, with commands right behind, and without the CRLF
	m2 := w.signed(t, "hello again", nil)
	c.ask("MAIL FROM=<a.example> FINGERPRINT=[x]", "250 OK")
	c.ask("RCPT TO=<b.example> FINGERPRINT=["+fpOf(t, w.bSignet, signet.Full)+"]", "250 OK")
	c.ask("DATA", "354")
	c.send(string(m2) + "NOOP\r\n")
	c.want("254 OK [" + string(dmtp.Commit(m2)) + "]")
	c.want("250 OK")
	// encrypted to a key that we have retired
	m3 := w.signed(t, "to the old key", func(p *message.Parties) { p.Destination.Signet = w.bOldSignet })
	c.again(len(m3))
	c.ask("DATA COMMIT=["+string(dmtp.Commit(m3))+"]", "354")
	c.send(string(m3) + "\r\n")
	c.want("254")
	if got := b.messages(); len(got) != 3 || got[0] != string(m) || got[1] != string(m2) || got[2] != string(m3) {
		t.Errorf("%d messages arrived, or not as they were sent", len(got))
	}
	in := b.got[0]
	if in.Origin != "a.example" || in.Destination != "b.example" || in.Recipient != "bob@b.example" || in.OriginSignet != w.aSignet ||
		in.DestinationSignet != w.bSignet || b.got[2].DestinationSignet != w.bOldSignet || in.RecipientSignet.String() != fpOf(t, w.bob[0], signet.Crypto) || !in.Peer.IsLoopback() {
		t.Errorf("handed over %+v", in)
	}
	c.ask("QUIT", "221 BYE")
	c.gone()
}

package dmtpserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

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

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// TestChecks is dmtp.md §9.4, a row a check: each failure has its reply, and nothing reaches the Deliverer before check 8.
func TestChecks(t *testing.T) {
	w, other := newWorld(t, 1), newWorld(t, 1)
	m := w.signed(t, "hello", nil)
	chunk5 := chunkAt(t, m, message.TypeDestination)
	tests := map[string]struct {
		octets []byte
		commit []byte // instead of that of octets
		origin string // in MAIL
		size   int    // instead of their number
		change func(b *backend)
		want   string
		closes bool
	}{
		"commit of something else":  {octets: m, commit: []byte("x"), want: "451 DATA CORRUPTED"},
		"commit before message":     {octets: []byte("no message"), commit: []byte("x"), want: "451 DATA CORRUPTED", closes: true},
		"no message":                {octets: []byte("no message"), want: "554 INVALID MESSAGE DATA", closes: true},
		"nothing":                   {octets: nil, want: "554 INVALID MESSAGE DATA", closes: true},
		"one octet":                 {octets: []byte{7}, want: "554 INVALID MESSAGE DATA", closes: true},
		"cut":                       {octets: m[:len(m)-1], want: "554 INVALID MESSAGE DATA", closes: true},
		"more than the header says": {octets: append(bytes.Clone(m), 0), want: "554 INVALID MESSAGE DATA", closes: true},
		"a wrong chunk":             {octets: flip(m, 6), want: "554 INVALID MESSAGE DATA"},
		"in flight":                 {octets: m, change: outcome(m, Outcome{State: InFlight}), want: "451 DELIVERY IN PROGRESS"},
		"refused before as unknown": {octets: m, change: outcome(m, Outcome{Refused, ErrRecipient}), want: "510 INVALID RECIPIENT"},
		"refused before by policy":  {octets: m, change: outcome(m, Outcome{State: Refused}), want: "554 MESSAGE REFUSED BY POLICY"},
		"accepted before":           {octets: m, change: outcome(m, Outcome{State: Accepted}), want: "255 OK ["},
		"for another's key":         {octets: w.signed(t, "x", func(p *message.Parties) { p.Destination.Signet = other.bSignet }), want: "576 INVALID DESTINATION SIGNET"},
		"chunk 5 altered":           {octets: flip(m, chunk5+200), want: "57"},
		"another origin in MAIL":    {octets: m, origin: "c.example", want: "575 INVALID ORIGIN SIGNET"},
		"origin not available now":  {octets: m, change: func(b *backend) { b.origin = errors.New("SERVFAIL") }, want: "470 ORIGIN SIGNET UNAVAILABLE"},
		"origin not available ever": {octets: m, change: func(b *backend) { b.origin = ErrOriginGone }, want: "570 ORIGIN SIGNET UNAVAILABLE"},
		"origin call-backs used up": {octets: m, change: func(b *backend) { b.ask = true }, want: "254"},
		"origin has another signet": {octets: m, change: func(b *backend) {
			b.world = &world{aSignet: other.aSignet, b: w.b, bSignet: w.bSignet, bOld: w.bOld, bOldSignet: w.bOldSignet}
		}, want: "575 INVALID ORIGIN SIGNET"},
		"unsigned by the origin":         {octets: w.compose(t, "x", nil).Bytes(), want: "578 INVALID ORIGIN SIGNATURE"},
		"content altered":                {octets: flip(m, chunkAt(t, m, message.TypeDisplay)+40), want: "578 INVALID ORIGIN SIGNATURE"},
		"no such recipient":              {octets: m, change: fails(ErrRecipient), want: "510 INVALID RECIPIENT"},
		"no signet of the recipient":     {octets: m, change: fails(ErrRecipientSignet), want: "586 INVALID RECIPIENT SIGNET"},
		"quota":                          {octets: m, change: fails(ErrLimits), want: "431 DESTINATION LIMITS EXCEEDED"},
		"author signet not now":          {octets: m, change: fails(fmt.Errorf("x: %w", ErrOriginUnavailable)), want: "470 ORIGIN SIGNET UNAVAILABLE"},
		"author signet never":            {octets: m, change: fails(ErrOriginGone), want: "570 ORIGIN SIGNET UNAVAILABLE"},
		"author signature":               {octets: m, change: fails(ErrAuthorSignature), want: "578 INVALID AUTHOR SIGNATURE"},
		"does not convert":               {octets: m, change: fails(ErrMessage), want: "554 INVALID MESSAGE DATA"},
		"second copy at the same time":   {octets: m, change: fails(ErrInFlight), want: "451 DELIVERY IN PROGRESS"},
		"inner server defers":            {octets: m, change: fails(ErrDeferred), want: "451 DELIVERY DEFERRED"},
		"inner server refuses":           {octets: m, change: fails(ErrRefused), want: "554 MESSAGE REFUSED BY POLICY"},
		"found a duplicate":              {octets: m, change: fails(ErrDuplicate), want: "255 OK ["},
		"anything else is not told":      {octets: m, change: fails(errors.New("open /var/spool/secret: no space")), want: "451 INTERNAL ERROR"},
		"outcomes not available":         {octets: m, change: func(b *backend) { b.failing = errors.New("store is away") }, want: "451 INTERNAL ERROR"},
		"recipient of a foreign domain":  {octets: foreignRecipient(t, w), want: "510 INVALID RECIPIENT"},
		"larger than said, then command": {octets: m, size: len(m) - 20, want: "554 INVALID MESSAGE DATA", closes: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBackend(w)
			r := run(t, b.config(t))
			c := dialTLS(t, r.single)
			c.send("EHLO <a.example>\r\n")
			for !strings.HasPrefix(c.want("250"), "250 ") {
			}
			origin, size := "a.example", len(tt.octets)
			if tt.origin != "" {
				origin = tt.origin
			}
			if tt.size != 0 {
				size = tt.size
			}
			c.ask(fmt.Sprintf("MAIL FROM: <%s> [x] SIZE=%d", origin, size), "250")
			c.ask("RCPT TO: <b.example> [x]", "250")
			if tt.change != nil {
				tt.change(b)
			}
			line := "DATA"
			if tt.commit != nil {
				line += " [" + string(dmtp.Commit(tt.commit)) + "]"
			}
			c.ask(line, "354")
			c.send(string(tt.octets) + "\r\nNOOP\r\n")
			got := c.want(tt.want)
			if strings.Contains(got, "secret") {
				t.Errorf("told %q", got)
			}
			if tt.closes {
				c.gone()
			} else {
				c.want("250 OK")
			}
			if accepted := strings.HasPrefix(got, "254"); len(b.messages()) != map[bool]int{true: 1}[accepted] {
				t.Errorf("%d messages reached the Deliverer", len(b.messages()))
			}
		})
	}
}

func outcome(m []byte, o Outcome) func(*backend) {
	return func(b *backend) {
		parsed, err := message.Parse(m, message.Limits{})
		if err != nil {
			panic(err)
		}
		b.outcomes[parsed.ID()] = o
	}
}

func fails(err error) func(*backend) { return func(b *backend) { b.fail = err } }

func chunkAt(tb testing.TB, m []byte, t message.Type) int {
	tb.Helper()
	parsed, err := message.Parse(m, message.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	for _, c := range parsed.Chunks() {
		if c.Type == t {
			return c.Offset
		}
	}
	tb.Fatal("no such chunk")
	return 0
}

// foreignRecipient is a message for somebody of another domain, encrypted to us.
func foreignRecipient(tb testing.TB, w *world) []byte {
	eve := pair(tb)
	s := must[*signet.Signet](tb)(signet.NewUser(eve, signet.RequestDetails{}, w.b.Signing, signet.Details{Name: "eve@e.example"}))
	return w.signed(tb, "x", func(p *message.Parties) {
		p.Recipient = message.Party{Name: "eve@e.example", Signet: s}
		p.Governs = func(string, string) bool { return true }
	})
}

// TestSmuggling puts commands where a server might take them for commands.
func TestSmuggling(t *testing.T) {
	w := newWorld(t, 1)
	m := w.signed(t, "hello", nil)
	inner := fmt.Sprintf("MAIL FROM: <a.example> [x] SIZE=%d\r\nRCPT TO: <b.example> [x]\r\nDATA\r\n", len(m)) + string(m)
	tests := map[string]struct {
		script func(c *wire)
		bodies int
	}{
		"SIZE too small": {func(c *wire) {
			c.begin(10)
			c.ask("DATA", "354")
			c.send(string(m[:10]) + inner)
			c.want("554")
			c.gone()
		}, 0},
		"header length too small, SIZE true": {func(c *wire) {
			bad := append(bytes.Clone(m[:6]), inner...)
			bad[2], bad[3], bad[4], bad[5] = 0, 0, 0, 0
			c.begin(len(bad))
			c.ask("DATA", "354")
			c.send(string(bad) + "\r\n")
			c.want("554")
			c.gone()
		}, 0},
		"named, no header": {func(c *wire) {
			c.begin(1)
			c.ask("MAIL FROM=<a.example> FINGERPRINT=[x]", "250")
			c.ask("RCPT TO=<b.example> FINGERPRINT=[x]", "250")
			c.ask("DATA", "354")
			c.send("NO MESSAGE\r\n" + inner)
			c.want("554")
			c.gone()
		}, 0},
		"named, header with a huge length": {func(c *wire) {
			c.begin(1)
			c.ask("MAIL FROM=<a.example> FINGERPRINT=[x]", "250")
			c.ask("RCPT TO=<b.example> FINGERPRINT=[x]", "250")
			c.ask("DATA", "354")
			c.send("\x07\x37\xff\xff\xff\xff" + inner)
			c.want("552")
			c.gone()
		}, 0},
		"named, empty tracing": {func(c *wire) {
			c.begin(1)
			c.ask("MAIL FROM=<a.example> FINGERPRINT=[x]", "250")
			c.ask("RCPT TO=<b.example> FINGERPRINT=[x]", "250")
			c.ask("DATA", "354")
			c.send("\x07\x2d\x00\x00" + inner)
			c.want("554")
			c.gone()
		}, 0},
		"message octets right behind a DATA that is refused": {func(c *wire) {
			c.send("EHLO <a.example>\r\n")
			for !strings.HasPrefix(c.want("250"), "250 ") {
			}
			c.send("DATA\r\n" + inner)
			c.want("503")
			c.gone()
		}, 0},
		"message octets right behind a DATA that is misspelt": {func(c *wire) {
			c.begin(len(m))
			c.send("DATA now\r\n" + inner)
			c.want("501")
			c.gone()
		}, 0},
		"message octets right behind a DATA that is accepted": {func(c *wire) {
			c.begin(len(m))
			c.send("DATA\r\n" + string(m) + "\r\nNOOP\r\n")
			c.want("354")
			c.want("254")
			c.want("250 OK")
		}, 1},
		"pipelined up to DATA": {func(c *wire) {
			c.send("EHLO <a.example>\r\n" + inner)
			for !strings.HasPrefix(c.want("250"), "250 ") {
			}
			c.want("250 OK")
			c.want("250 OK")
			c.want("354")
			c.want("254")
		}, 1},
		"bare CR between commands": {func(c *wire) {
			c.send("NOOP\rRSET\r\n")
			c.want("500 INVALID COMMAND")
			c.ask("NOOP", "250 OK")
		}, 0},
		"NUL in a command": {func(c *wire) {
			c.send("NOOP\x00\r\n")
			c.want("500 INVALID COMMAND")
			c.ask("NOOP", "250 OK")
		}, 0},
		"LF alone ends a command": {func(c *wire) {
			c.send("NOOP\nNOOP\r\n")
			c.want("250 OK")
			c.want("250 OK")
		}, 0},
		"three long lines": {func(c *wire) {
			for range 2 {
				c.ask("NOOP "+strings.Repeat("a", 1100), "500 LINE TOO LONG")
				c.ask("NOOP", "250 OK")
			}
			c.ask("NOOP "+strings.Repeat("a", 70000), "500 LINE TOO LONG")
			c.gone()
		}, 0},
		"a line without end": {func(c *wire) {
			go io.Copy(c.Conn, io.LimitReader(endless{}, 2<<20))
			c.gone()
		}, 0},
		"behind QUIT": {func(c *wire) {
			c.send("QUIT\r\nNOOP\r\n")
			c.want("221 BYE")
			c.gone()
		}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBackend(w)
			c := dialTLS(t, run(t, b.config(t)).single)
			tt.script(c)
			if got := len(b.messages()); got != tt.bodies {
				t.Errorf("%d messages", got)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestLimits(t *testing.T) {
	w := newWorld(t, 1)
	m := w.signed(t, "hello", nil)
	tests := map[string]struct {
		change func(*Config)
		script func(c *wire, r *running)
	}{
		"violations": {func(c *Config) { c.Limits.Violations = 3 }, func(c *wire, _ *running) {
			c.ask("X", "500")
			c.ask("EHLO x", "501")
			c.ask("DATA", "421")
			c.gone()
		}},
		"502 is none": {func(c *Config) { c.Limits.Violations = 2 }, func(c *wire, _ *running) {
			for range 5 {
				c.ask("STATS", "502")
			}
		}},
		"empty lines": {func(c *Config) { c.Limits.Violations = 2 }, func(c *wire, _ *running) {
			c.send(strings.Repeat("\r\n", 50))
			c.ask("NOOP", "250")
			c.send("\r\n\r\n")
			c.want("421")
			c.gone()
		}},
		"look-ups of a connection": {func(c *Config) { c.Limits.Lookups = 2 }, func(c *wire, _ *running) {
			c.ask("SGNT <b.example>", "270")
			c.ask("SGNT <b.example>", "270")
			c.ask("SGNT <b.example>", "421")
			c.gone()
		}},
		"look-ups of a prefix": {func(c *Config) { c.Limits.LookupsMin = 10 }, func(c *wire, r *running) {
			for range 10 {
				c.ask("SGNT <b.example>", "270")
			}
			c.ask("SGNT <b.example>", "450 ACCESS DENIED - TRY LATER")
			dialTLS(c.tb, r.single).ask("VRFY <b.example> ["+fpOf(c.tb, w.bSignet, signet.ID)+"]", "450")
		}},
		"unknown names are dear": {func(c *Config) { c.Limits.LookupsMin = 10 }, func(c *wire, _ *running) {
			c.ask("SGNT <x@b.example>", "576")
			c.ask("SGNT <y@b.example>", "576")
			c.ask("SGNT <b.example>", "450")
		}},
		"an exempt prefix": {func(c *Config) {
			c.Limits.LookupsMin, c.Limits.Exempt = 1, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, func(c *wire, _ *running) {
			for range 5 {
				c.ask("SGNT <b.example>", "270")
			}
		}},
		"transactions": {func(c *Config) { c.Limits.Transactions = 2 }, func(c *wire, _ *running) {
			c.begin(1)
			c.again(1)
			c.ask("MAIL FROM: <a.example> [x] SIZE=1", "421")
			c.gone()
		}},
		"connections": {func(c *Config) { c.Limits.PrefixConns = 2 }, func(c *wire, r *running) {
			second := dialTLS(c.tb, r.single)
			third := dialClear(c.tb, r.single)
			third.upgrade("")
			third.want("421 TOO MANY CONNECTIONS")
			third.gone()
			fourth := dialClear(c.tb, r.dual)
			fourth.want("421 TOO MANY CONNECTIONS")
			second.ask("QUIT", "221")
			second.gone()
		}},
		"call-backs": {func(c *Config) { c.Limits.CallBacksMin = 1 }, func(c *wire, _ *running) {
			c.begin(len(m))
			c.ask("DATA", "354")
			c.send(string(m))
			c.want("254")
			m2 := w.signed(c.tb, "second", nil)
			c.again(len(m2))
			c.ask("DATA", "354")
			c.send(string(m2))
			c.want("470 ORIGIN SIGNET UNAVAILABLE")
		}},
		"memory": {func(c *Config) { c.Limits.Memory = 1000 }, func(c *wire, _ *running) {
			c.begin(len(m))
			c.ask("DATA", "354")
			c.send(string(m))
			c.want("431")
			c.gone()
		}},
		"size": {func(c *Config) { c.Limits.Message = 1000 }, func(c *wire, _ *running) {
			c.ask("EHLO <a.example>", "250-dx.b.example")
			for _, l := range []string{"250-PIPELINING", "250-8BITDIME", "250-RETURN", "250-SIZE 1000", "250-COMMIT", "250 OK"} {
				c.want(l)
			}
			c.ask("MAIL FROM: <a.example> [x] SIZE=1000", "250")
			c.ask("MAIL FROM: <a.example> [x] SIZE=1001", "552 MESSAGE SIZE EXCEEDS LIMIT")
		}},
		"idle": {func(c *Config) { c.Timeouts.Hello = 50 * time.Millisecond }, func(c *wire, _ *running) { c.gone() }},
		"idle after EHLO": {func(c *Config) { c.Timeouts.Idle = 50 * time.Millisecond }, func(c *wire, _ *running) {
			c.ask("HELO HOST=<a.example>", "250")
			c.gone()
		}},
		"silence in a message": {func(c *Config) { c.Timeouts.Block = 50 * time.Millisecond }, func(c *wire, _ *running) {
			c.begin(len(m))
			c.ask("DATA", "354")
			c.send(string(m[:100]))
			c.want("421 DATA TIMED OUT")
			c.gone()
		}},
		"a Deliverer that does not come back": {func(c *Config) {
			c.Timeouts.Deliver = 50 * time.Millisecond
			c.Deliverer.(*backend).wait = make(chan struct{})
		}, func(c *wire, _ *running) {
			c.begin(len(m))
			c.ask("DATA", "354")
			c.send(string(m))
			c.want("451 DELIVERY IN PROGRESS")
			c.ask("NOOP", "250")
		}},
		"a panic": {func(c *Config) { c.Directory.(*backend).panics = true }, func(c *wire, r *running) {
			c.send("SGNT <b.example>\r\n")
			c.gone()
			dialTLS(c.tb, r.single).ask("NOOP", "250")
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBackend(w)
			b.ask = true
			c := b.config(t)
			tt.change(&c)
			r := run(t, c)
			tt.script(dialTLS(t, r.single), r)
			r.stop()
			if n := r.s.guard.count(); n != 0 {
				t.Errorf("%d sessions are still counted", n)
			}
		})
	}
}

// TestStop ends a server whose sessions wait: for a command, in a message, and for a Deliverer.
func TestStop(t *testing.T) {
	w := newWorld(t, 1)
	b := newBackend(w)
	b.wait = make(chan struct{})
	r := run(t, b.config(t))
	m := w.signed(t, "hello", nil)
	idle, clear, inData, delivering := dialTLS(t, r.single), dialClear(t, r.dual), dialTLS(t, r.single), dialTLS(t, r.single)
	clear.want("220 dx.b.example ESMTP DMTPv1 test")
	inData.begin(len(m))
	inData.ask("DATA", "354")
	delivering.begin(len(m))
	delivering.ask("DATA", "354")
	delivering.send(string(m))
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	idle.gone()
	clear.gone()
	inData.gone()
	if len(b.messages()) != 0 {
		t.Error("delivered")
	}
}

func TestViolationsSlowDown(t *testing.T) {
	w := newWorld(t, 1)
	cfg := newBackend(w).config(t)
	cfg.Limits.Delay = 20 * time.Millisecond
	c := dialTLS(t, run(t, cfg).single)
	began := time.Now()
	for range 4 {
		c.ask("X", "500")
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("four violations took %v, want 20+40+60+80 ms", took)
	}
}

func TestGuardIsBounded(t *testing.T) {
	l := Limits{Sessions: 10, PrefixConns: 1}
	g := newGuard(&l)
	held := g.enter(netip.MustParseAddr("192.0.2.1"))
	for i := range maxPrefixes + 1000 {
		v := g.enter(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		if v == nil {
			t.Fatal("no room")
		}
		v.leave()
		v = g.enter(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i)}))
		v.leave()
	}
	if len(g.prefixes) > maxPrefixes {
		t.Errorf("%d prefixes remembered", len(g.prefixes))
	}
	if v := g.enter(netip.MustParseAddr("192.0.2.2")); v == nil || !v.over {
		t.Error("a prefix with a connection was forgotten")
	}
	held.leave()
	held.leave()
	if g.sessions != 1 {
		t.Errorf("%d sessions", g.sessions)
	}
}

func TestNew(t *testing.T) {
	b := newBackend(newWorld(t, 1))
	for name, change := range map[string]func(*Config){
		"no directory": func(c *Config) { c.Directory = nil },
		"no host":      func(c *Config) { c.Host = "" },
		"a bad host":   func(c *Config) { c.Host = "a b" },
	} {
		c := b.config(t)
		change(&c)
		if _, err := New(c); err == nil {
			t.Error(name)
		}
	}
}

func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions
}

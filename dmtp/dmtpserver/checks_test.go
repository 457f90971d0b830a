package dmtpserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"dimegate/dmtp"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

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
// TestForeignBodies: what another protocol calls a body is not read as commands.
func TestForeignBodies(t *testing.T) {
	r := run(t, newBackend(newWorld(t, 1)).config(t))
	for _, line := range []string{"BDAT 12 LAST", "bdat 12", "POST / HTTP/1.1", "GET /x HTTP/1.0"} {
		c := dialTLS(t, r.single)
		c.send(line + "\r\nNOOP\r\nNOOP\r\n")
		c.want("500")
		c.gone()
	}
}

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

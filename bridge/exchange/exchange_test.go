package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/internal/testcert"
	"dimegate/internal/zone"
)

// issued is a server with a certificate of the world's CA.
func issued(t testing.TB, w *world, names ...string) *mailServer {
	c := w.ca.Issue(t, names)
	return &mailServer{cert: &c}
}

// Where mail for a domain goes, and when it goes nowhere.
func TestRoutes(t *testing.T) {
	w := newWorld(t, zone.Zone{Name: plain, Records: []string{
		"mx1 A 192.0.2.1", "mx2 A 192.0.2.2", "mx3 A 192.0.2.3", "mx4 A 192.0.2.4", "mx4 AAAA 2001:db8::4", "mx5 AAAA 2001:db8::4", "down A 192.0.2.99", "inside A 10.0.0.1", "gw A 192.0.2.9",
		"one MX 10 mx1", "two MX 20 mx2", "two MX 10 mx1", "fallback MX 10 down", "fallback MX 20 mx2", "both MX 10 mx4", "six MX 10 mx5",
		"null MX 0 .", "lost MX 10 nowhere", "lost2 MX 10 nowhere", "lost2 MX 20 mx2", "implicit A 192.0.2.3", "served MX 10 own", "own A 192.0.2.3", "txt TXT x", "inside2 MX 10 inside", "inside3 MX 10 inside", "inside3 MX 20 mx1",
		"loop MX 10 gw", "loop2 MX 10 mx1", "loop2 MX 20 gw", "loop2 MX 30 mx2", "loop3 MX 10 gw", "loop3 MX 10 mx1", "loop4 MX 10 down", "loop4 MX 20 gw", "loop4 MX 30 mx2",
		"xn--bcher-kva MX 10 mx1", "bad MX 10 a_b", "alias CNAME one", "many MX 10 mx6",
	}}, zone.Zone{Name: "gw.alpha.test", Records: []string{"@ A 192.0.2.1"}})
	for i, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "10.0.0.1", "192.0.2.9", "2001:db8::4"} {
		w.serve(t, a, &mailServer{replies: map[string]string{"": "220 " + string(rune('a'+i)) + ".test"}})
	}
	w.options.Own = []string{"gw.plain.test", "own.plain.test"}
	w.options.Serves = func(domain string) bool { return domain == "served.plain.test" }
	w.options.Permit = func(a netip.Addr) error {
		if a.IsPrivate() {
			return errors.New("private")
		}
		return nil
	}
	w.restart(t)
	tests := map[string]struct {
		domain string
		want   string // what came of it
		at     string // the address that got it
	}{
		"one MX":                            {"one.plain.test", "clear", "192.0.2.1"},
		"the better of two":                 {"two.plain.test", "clear", "192.0.2.1"},
		"the second when the first is down": {"fallback.plain.test", "clear", "192.0.2.2"},
		"IPv6 first":                        {"both.plain.test", "clear", "2001:db8::4"},
		"IPv6 alone":                        {"six.plain.test", "clear", "2001:db8::4"},
		"null MX":                           {"null.plain.test", "permanent 5.1.10", ""},
		"no domain":                         {"nothing.plain.test", "permanent 5.1.2", ""},
		"no domain, no such top":            {"nothing.invalid", "permanent 5.1.2", ""},
		"MX without address":                {"lost.plain.test", "remote 5.4.4", ""},
		"MX without address, then another":  {"lost2.plain.test", "clear", "192.0.2.2"},
		"no MX, an address":                 {"implicit.plain.test", "clear", "192.0.2.3"},
		"neither MX nor address":            {"txt.plain.test", "permanent 5.4.4", ""},
		"MX of no host name":                {"bad.plain.test", "remote 5.4.4", ""},
		"a private address":                 {"inside2.plain.test", "remote 5.4.4", ""},
		"a private address, then another":   {"inside3.plain.test", "clear", "192.0.2.1"},
		"we are the MX":                     {"loop.plain.test", "permanent 5.4.6", ""},
		"we are the second MX":              {"loop2.plain.test", "clear", "192.0.2.1"},
		"we are one of two best":            {"loop3.plain.test", "permanent 5.4.6", ""},
		"we are the second, the first down": {"loop4.plain.test", "network 4.4.1", ""},
		"we are the MX, and take it":        {"served.plain.test", "clear", "192.0.2.3"},
		"our own name":                      {"gw.alpha.test", "permanent 5.4.6", ""},
		"another script":                    {"bücher.plain.test", "clear", "192.0.2.1"},
		"in A-labels":                       {"xn--bcher-kva.plain.test", "clear", "192.0.2.1"},
		"capitals and a dot":                {"ONE.plain.TEST.", "clear", "192.0.2.1"},
		"an alias":                          {"alias.plain.test", "clear", "192.0.2.1"},
		"an address literal":                {"[192.0.2.1]", "permanent 5.1.2", ""},
		"no name":                           {"a b", "permanent 5.1.2", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := map[string]int{}
			for a, s := range w.servers {
				before[a] = len(s.taken())
			}
			m := letter(Opportunistic, "bob@"+tt.domain)
			got, r := w.send(t, m)
			if got != tt.want {
				t.Errorf("%s: %s; want %s", got, r.Reason, tt.want)
			}
			for a, s := range w.servers {
				if n := len(s.taken()) - before[a]; n > 0 && a != tt.at || n != 1 && a == tt.at {
					t.Errorf("%d messages at %s", n, a)
				}
			}
			found, err := w.x.Check(within(t), m, 0)
			if err != nil || found.Result != r {
				t.Errorf("explained %+v %v, happened %+v", found.Result, err, r)
			}
		})
	}
}

// What a server says, and what is made of it. A second host is there, and takes everything.
func TestReplies(t *testing.T) {
	tests := map[string]struct {
		replies map[string]string
		hangUp  string
		want    string // of a domain with this host alone
		second  bool   // whether a second host is asked
	}{
		"taken":                          {nil, "", "clear", false},
		"greylisted":                     {map[string]string{"RCPT": "450 4.2.0 come back"}, "", "remote 4.2.0", true},
		"greylisted, no enhanced code":   {map[string]string{"RCPT": "451 come back"}, "", "remote ", true},
		"no such user":                   {map[string]string{"RCPT": "550 5.1.1 who"}, "", "permanent 5.1.1", false},
		"no such user, no enhanced code": {map[string]string{"RCPT": "550 who"}, "", "permanent 5.1.1", false},
		"mailbox full for good":          {map[string]string{"RCPT": "552 full"}, "", "permanent 5.2.2", false},
		"sender refused":                 {map[string]string{"MAIL": "550 5.7.1 not you"}, "", "permanent 5.7.1", false},
		"sender refused for now":         {map[string]string{"MAIL": "451 4.7.1 not now"}, "", "remote 4.7.1", true},
		"DATA refused":                   {map[string]string{"DATA": "554 no"}, "", "permanent 5.0.0", false},
		"message refused":                {map[string]string{".": "554 5.7.1 spam"}, "", "permanent 5.7.1", false},
		"message refused for now":        {map[string]string{".": "452 4.3.1 full"}, "", "remote 4.3.1", true},
		"no service at all":              {map[string]string{"": "554 5.3.2 no service"}, "", "remote ", true},
		"busy":                           {map[string]string{"": "421 4.3.2 busy"}, "", "network 4.3.2", true},
		"busy at MAIL":                   {map[string]string{"MAIL": "421 4.3.2 busy"}, "", "network 4.3.2", true},
		"EHLO refused":                   {map[string]string{"EHLO": "550 5.7.1 go away"}, "", "remote ", true},
		"EHLO unknown, HELO does":        {map[string]string{"EHLO": "502 what"}, "", "clear", false},
		"not SMTP":                       {map[string]string{"": "SSH-2.0-OpenSSH"}, "", "network 4.5.0", true},
		"not SMTP at MAIL":               {map[string]string{"MAIL": "yes"}, "", "protocol 4.5.0", true},
		"hangs up at once":               {nil, "EHLO", "network 4.4.2", true},
		"hangs up at MAIL":               {nil, "MAIL", "network 4.4.2", true},
		"hangs up at RCPT":               {nil, "RCPT", "network 4.4.2", true},
		"hangs up over the message":      {map[string]string{".": "hang up"}, "", "network 4.4.2", false},
		"an enhanced code that lies":     {map[string]string{"RCPT": "550 2.1.5 fine"}, "", "permanent 5.1.1", false},
	}
	w := newWorld(t, zone.Zone{Name: plain, Records: []string{"mx1 A 192.0.2.1", "mx2 A 192.0.2.2", "one MX 10 mx1", "two MX 10 mx1", "two MX 20 mx2"}})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			first := w.serve(t, "192.0.2.1", &mailServer{replies: tt.replies, hangUp: tt.hangUp})
			second := w.serve(t, "192.0.2.2", &mailServer{})
			w.restart(t)
			got, r := w.send(t, letter(Opportunistic, "bob@one.plain.test"))
			if got != tt.want || r.Host != "mx1.plain.test" || r.Protocol != "smtp" {
				t.Errorf("%s, host %q: %s; want %s", got, r.Host, r.Reason, tt.want)
			}
			if r.Class != queue.Done && strings.Contains(r.Reason, "who") {
				t.Errorf("the server's words are in our reason: %s", r.Reason)
			}
			w.restart(t)
			got, _ = w.send(t, letter(Opportunistic, "bob@two.plain.test"))
			if (len(second.taken()) == 1) != tt.second || tt.second && got != "clear" || !tt.second && got != tt.want {
				t.Errorf("%s with a second host, which got %d", got, len(second.taken()))
			}
			_ = first
		})
	}
}

// A whole destination's failure is what says most about it.
func TestWorst(t *testing.T) {
	f := func(c queue.Class) *failure { return &failure{class: c} }
	for name, tt := range map[string]struct {
		all  []queue.Class
		want queue.Class
	}{
		"one":                          {[]queue.Class{queue.Network}, queue.Network},
		"trust and network":            {[]queue.Class{queue.Trust, queue.Network}, queue.Trust},
		"a server's word":              {[]queue.Class{queue.Trust, queue.Remote, queue.Network}, queue.Remote},
		"permanent and network":        {[]queue.Class{queue.Permanent, queue.Network}, queue.Network},
		"permanent everywhere":         {[]queue.Class{queue.Permanent, queue.Permanent}, queue.Permanent},
		"a failure of TLS and a plain": {[]queue.Class{queue.Permanent, queue.Trust, queue.Protocol}, queue.Trust},
	} {
		var all []*failure
		for _, c := range tt.all {
			all = append(all, f(c))
		}
		if got := worst(all); got.class != tt.want {
			t.Errorf("%s: %v", name, got.class)
		}
	}
}

// What a message needs, and what a server offers.
func TestNeeds(t *testing.T) {
	all := []string{"PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN"}
	bare := []string{"PIPELINING"}
	dsn := smtpwire.DSN{Ret: "HDRS", EnvID: "id", Notify: "SUCCESS", Orcpt: "rfc822;b"}
	tests := map[string]struct {
		offer, late []string
		change      func(*Mail)
		want        string
		from, to    string // lines
		relayed     bool
	}{
		"plain":                           {all, nil, func(*Mail) {}, "tls", "MAIL FROM:<alice@alpha.test> SIZE=21", "RCPT TO:<bob@bravo.test>", true},
		"null reverse-path":               {bare, nil, func(m *Mail) { m.From = "" }, "tls", "MAIL FROM:<>", "RCPT TO:<bob@bravo.test>", false},
		"DSN":                             {all, nil, func(m *Mail) { m.DSN = dsn }, "tls", "MAIL FROM:<alice@alpha.test> SIZE=21 RET=HDRS ENVID=id", "RCPT TO:<bob@bravo.test> NOTIFY=SUCCESS ORCPT=rfc822;b", true},
		"DSN not offered":                 {bare, nil, func(m *Mail) { m.DSN = dsn }, "tls", "MAIL FROM:<alice@alpha.test>", "RCPT TO:<bob@bravo.test>", false},
		"too large":                       {all, nil, func(m *Mail) { m.Message = smtpwire.Octets(strings.Repeat("12345678\r\n", 101)) }, "permanent 5.3.4", "", "", false},
		"8 bit":                           {all, nil, func(m *Mail) { m.Message = smtpwire.Octets("\r\nschön\r\n") }, "tls", "MAIL FROM:<alice@alpha.test> SIZE=10 BODY=8BITMIME", "RCPT TO:<bob@bravo.test>", true},
		"8 bit not offered":               {bare, nil, func(m *Mail) { m.Message = smtpwire.Octets("\r\nschön\r\n") }, "permanent 5.6.3", "", "", false},
		"bare LF":                         {all, nil, func(m *Mail) { m.Message = smtpwire.Octets("\r\na\nb\r\n") }, "permanent 5.6.0", "", "", false},
		"SMTPUTF8 asked for, not needed":  {bare, nil, func(m *Mail) { m.UTF8 = true }, "tls", "MAIL FROM:<alice@alpha.test>", "RCPT TO:<bob@bravo.test>", false},
		"SMTPUTF8 asked for, offered":     {all, nil, func(m *Mail) { m.UTF8 = true }, "tls", "MAIL FROM:<alice@alpha.test> SIZE=21 SMTPUTF8", "RCPT TO:<bob@bravo.test>", true},
		"SMTPUTF8 needed, not offered":    {bare, nil, func(m *Mail) { m.UTF8, m.UTF8Header = true, true }, "permanent 5.6.7", "", "", false},
		"a local part needs it":           {bare, nil, func(m *Mail) { m.UTF8, m.To = true, "jörg@bravo.test" }, "permanent 5.6.7", "", "", false},
		"a sender's local part needs it":  {bare, nil, func(m *Mail) { m.UTF8, m.From = true, "jörg@alpha.test" }, "permanent 5.6.7", "", "", false},
		"a local part and it is offered":  {all, nil, func(m *Mail) { m.UTF8, m.To = true, "jörg@bravo.test" }, "tls", "MAIL FROM:<alice@alpha.test> SIZE=21 SMTPUTF8", "RCPT TO:<jörg@bravo.test>", true},
		"a domain goes as A-labels":       {bare, nil, func(m *Mail) { m.UTF8, m.From = true, "alice@bücher.test" }, "tls", "MAIL FROM:<alice@xn--bcher-kva.test>", "RCPT TO:<bob@bravo.test>", false},
		"an address that ends its line":   {all, nil, func(m *Mail) { m.From = "a>\r\nDATA\r\n@alpha.test" }, "permanent 5.1.3", "", "", false},
		"REQUIRETLS":                      {bare, []string{"REQUIRETLS"}, func(m *Mail) { m.RequireTLS = true }, "tls", "MAIL FROM:<alice@alpha.test> REQUIRETLS", "RCPT TO:<bob@bravo.test>", false},
		"REQUIRETLS not offered":          {all, nil, func(m *Mail) { m.RequireTLS = true }, "permanent 5.7.30", "", "", false},
		"REQUIRETLS offered in the clear": {append([]string{"REQUIRETLS"}, bare...), nil, func(m *Mail) { m.RequireTLS = true }, "tls", "MAIL FROM:<alice@alpha.test> REQUIRETLS", "RCPT TO:<bob@bravo.test>", false},
	}
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := issued(t, w, "mx."+signed)
			s.offer, s.late = tt.offer, tt.late
			w.serve(t, "192.0.2.1", s)
			w.restart(t)
			m := letter(Opportunistic, bob)
			tt.change(&m)
			got, r := w.send(t, m)
			if got != tt.want || r.Class == queue.Done && r.Relayed != tt.relayed {
				t.Fatalf("%s (relayed %v): %s; want %s", got, r.Relayed, r.Reason, tt.want)
			}
			if len(tt.from) == 0 {
				if len(s.taken()) > 0 || s.heard("MAIL") > 0 {
					t.Error("something went out")
				}
				return
			}
			if g := s.taken(); len(g) != 1 || g[0].from != tt.from || g[0].to != tt.to || g[0].octets != string(m.Message.(smtpwire.Octets)) {
				t.Errorf("%+v", g)
			}
		})
	}
}

// REQUIRETLS wants a proof that the host is the domain's, and of the host (RFC 8689 §4.2.1).
func TestRequireTLS(t *testing.T) {
	tests := map[string]struct {
		domain, policy string
		self, tlsa     bool // the certificate is of its own making; TLSA records name it
		want           string
	}{
		"signed, certificate holds":         {signed, "", false, false, "tls"},
		"signed, certificate of its own":    {signed, "", true, false, "trust 5.7.5"},
		"signed, TLSA records":              {signed, "", true, true, "dane"},
		"unsigned, certificate holds":       {plain, "", false, false, "trust 5.7.30"},
		"unsigned, MTA-STS":                 {plain, "enforce mx.plain.test", false, false, "mta-sts"},
		"unsigned, MTA-STS in mode testing": {plain, "testing mx.plain.test", false, false, "trust 5.7.30"},
	}
	w := newWorld(t, zones()...)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := issued(t, w, "mx."+tt.domain)
			if tt.self {
				s = serverOf(t, w, "self", tt.domain, "mx."+tt.domain)
			}
			s.late = []string{"REQUIRETLS"}
			w.serve(t, "192.0.2.1", s)
			records := []string{"@ MX 10 mx", "mx A 192.0.2.1"}
			if tt.tlsa {
				records = append(records, tlsa("mx", 3, 1, s.cert.Leaf))
			}
			set(t, w, tt.domain, records...)
			w.policies = map[string]string{tt.domain: tt.policy}
			w.fresh(t)
			m := letter(Opportunistic, "bob@"+tt.domain)
			m.RequireTLS = true
			if got, r := w.send(t, m); got != tt.want {
				t.Errorf("%s: %s; want %s", got, r.Reason, tt.want)
			}
		})
	}
}

// Nothing is sent when the decision cannot be kept.
func TestDecide(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	s := w.serve(t, "192.0.2.1", &mailServer{})
	full := errors.New("disk full")
	_, err := w.x.Send(within(t), letter(Opportunistic, bob), func(rule string, _ Rung) error {
		if rule != "to mx.bravo.test over clear (floor opportunistic)" {
			t.Errorf("rule %q", rule)
		}
		return full
	})
	if !errors.Is(err, full) || s.heard("MAIL") > 0 {
		t.Errorf("%v, %d MAIL", err, s.heard("MAIL"))
	}
	for _, f := range []Floor{Hold, DIME, 99} {
		if got, r := w.send(t, letter(f, bob)); r.Class != queue.Trust || r.Status != "5.7.1" {
			t.Errorf("floor %v: %s", f, got)
		}
	}
}

// Sessions are kept, but each message is held to its own demand.
func TestSessions(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1", "other MX 10 mx")...)
	t.Run("kept", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", issued(t, w, "mx."+signed))
		w.restart(t)
		for _, to := range []string{bob, "carol@other.bravo.test", bob} {
			if got, r := w.send(t, letter(TLS, to)); got != "tls" {
				t.Errorf("%s: %s", got, r.Reason)
			}
		}
		if s.conns != 1 || len(s.taken()) != 3 {
			t.Errorf("%d connections for %d messages", s.conns, len(s.taken()))
		}
	})
	t.Run("not good enough", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", serverOf(t, w, "self", signed, "mx."+signed))
		w.restart(t)
		if got, _ := w.send(t, letter(Opportunistic, bob)); got != "encrypted" {
			t.Fatal(got)
		}
		if got, _ := w.send(t, letter(TLS, bob)); got != "trust 5.7.5" {
			t.Error(got)
		}
		if got, _ := w.send(t, letter(Opportunistic, bob)); got != "encrypted" || len(s.taken()) != 2 || s.conns != 2 {
			t.Errorf("%s, %d messages, %d connections", got, len(s.taken()), s.conns)
		}
	})
	t.Run("clear is not kept for more", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", &mailServer{})
		w.restart(t)
		w.send(t, letter(Opportunistic, bob))
		set(t, w, signed, "@ MX 10 mx", "mx A 192.0.2.1", tlsa("mx", 3, 1, testcert.ECDSA(t, "x").Leaf))
		old := w.x
		if err := renewDNS(w); err != nil { // the same sessions, and what is published now
			t.Fatal(err)
		}
		if got, _ := w.send(t, letter(Opportunistic, bob)); got != "trust 5.7.4" || len(s.taken()) != 1 || w.x != old {
			t.Errorf("%s, %d messages", got, len(s.taken()))
		}
		set(t, w, signed, "@ MX 10 mx", "mx A 192.0.2.1", "other MX 10 mx")
		w.fresh(t)
	})
	t.Run("dead while kept", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", &mailServer{})
		w.restart(t)
		w.send(t, letter(Opportunistic, bob))
		s.mu.Lock()
		s.once = map[string]string{"MAIL": "421 4.4.2 idle too long"}
		s.mu.Unlock()
		got, _ := w.send(t, letter(Opportunistic, bob))
		if s.conns != 2 || got != "clear" {
			t.Errorf("%s, %d connections", got, s.conns)
		}
	})
	t.Run("a session's messages", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", &mailServer{})
		w.options.MaxMessages = 2
		w.restart(t)
		for range 5 {
			w.send(t, letter(Opportunistic, bob))
		}
		if s.conns != 3 {
			t.Errorf("%d connections", s.conns)
		}
		w.options.MaxMessages = 0
	})
	t.Run("refused, and kept", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", &mailServer{replies: map[string]string{"RCPT": "550 5.1.1 who"}})
		w.restart(t)
		for range 3 {
			w.send(t, letter(Opportunistic, bob))
		}
		if s.conns != 1 || s.heard("RSET") != 3 {
			t.Errorf("%d connections, %d RSET", s.conns, s.heard("RSET"))
		}
	})
	t.Run("at most so many at one time", func(t *testing.T) {
		s := w.serve(t, "192.0.2.1", &mailServer{})
		w.options.PerHost = 2
		var mu sync.Mutex
		open, most := 0, 0
		w.options.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			c, err := w.dial(ctx, to)
			mu.Lock()
			open++
			most = max(most, open)
			mu.Unlock()
			return &counted{Conn: c, done: func() { mu.Lock(); open--; mu.Unlock() }}, err
		}
		w.restart(t)
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() { w.send(t, letter(Opportunistic, bob)) })
		}
		wg.Wait()
		if len(s.taken()) != 12 || most > 2 {
			t.Errorf("%d messages over at most %d connections", len(s.taken()), most)
		}
		w.x.Close()
		if open != 0 || len(w.x.pool.hosts) > 1 {
			t.Errorf("%d connections left, %d hosts", open, len(w.x.pool.hosts))
		}
		w.options.PerHost, w.options.Dial = 0, w.dial
	})
}

type counted struct {
	net.Conn
	once sync.Once
	done func()
}

func (c *counted) Close() error {
	c.once.Do(c.done)
	return c.Conn.Close()
}

// A kept session that dies without a word is replaced.
func TestSilentDeath(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	s := w.serve(t, "192.0.2.1", &mailServer{})
	var last net.Conn
	w.options.Dial = func(ctx context.Context, to netip.AddrPort) (c net.Conn, err error) {
		last, err = w.dial(ctx, to)
		return last, err
	}
	w.restart(t)
	w.send(t, letter(Opportunistic, bob))
	last.Close()
	if got, r := w.send(t, letter(Opportunistic, bob)); got != "clear" || len(s.taken()) != 2 {
		t.Errorf("%s: %s, %d messages", got, r.Reason, len(s.taken()))
	}
}

// Sessions that nobody uses end by themselves.
func TestIdle(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	s := w.serve(t, "192.0.2.1", &mailServer{})
	w.options.Idle = 10 * time.Millisecond
	w.restart(t)
	w.send(t, letter(Opportunistic, bob))
	for end := time.Now().Add(10 * time.Second); s.heard("QUIT") == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.x.Close()
	if s.heard("QUIT") != 1 || len(w.x.pool.hosts) != 0 {
		t.Errorf("%d QUIT, %d hosts", s.heard("QUIT"), len(w.x.pool.hosts))
	}
}

// A context that ends is no verdict on the other side.
func TestEnds(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	w.options.Dial = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w.restart(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if r, err := w.x.Send(ctx, letter(Opportunistic, bob), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v %v", r, err)
	}
}

// RFC 7672 §2.2.2 and §3.2.2: aliases, and for whom a trust anchor speaks.
func TestAliases(t *testing.T) {
	w := newWorld(t, zones()...)
	anchor := func(owner string) string { return tlsa(owner, 2, 1, w.ca.Certificate) }
	cert := w.ca.Issue(t, []string{"mx.bravo.test"})
	key := func(owner string) string { return tlsa(owner, 3, 1, cert.Leaf) }
	stranger := tlsa("mx", 3, 1, testcert.ECDSA(t, "x").Leaf)
	tests := map[string]struct {
		records []string // of the signed zone
		plain   []string // of the unsigned one
		names   []string // of the certificate; nil: the fixed one
		to      string
		want    string
	}{
		"alias, TLSA at its end":                        {[]string{"@ MX 10 mx", "mx CNAME real", "real A 192.0.2.1", key("real")}, nil, nil, bob, "dane"},
		"alias, TLSA at the alias":                      {[]string{"@ MX 10 mx", "mx CNAME real", "real A 192.0.2.1", key("mx")}, nil, nil, bob, "dane"},
		"alias, the end's records decide":               {[]string{"@ MX 10 mx", "mx CNAME real", "real A 192.0.2.1", key("real"), stranger}, nil, nil, bob, "dane"},
		"alias, the end's records decide against":       {[]string{"@ MX 10 mx", "mx CNAME real", "real A 192.0.2.1", key("mx"), strings.Replace(stranger, ".mx ", ".real ", 1)}, nil, nil, bob, "trust 5.7.5"},
		"alias to an unsigned place, TLSA at the alias": {[]string{"@ MX 10 mx", "mx CNAME real.plain.test.", key("mx")}, []string{"real A 192.0.2.1"}, nil, bob, "dane"},
		"alias to an unsigned place, TLSA there":        {[]string{"@ MX 10 mx", "mx CNAME real.plain.test."}, []string{"real A 192.0.2.1", key("real")}, nil, bob, "tls"},
		"unsigned alias to a signed place with TLSA":    {[]string{"real A 192.0.2.1", key("real")}, []string{"@ MX 10 mx", "mx CNAME real.bravo.test."}, []string{"mx.plain.test"}, "bob@plain.test", "tls"},
		"TLSA by an alias":                              {[]string{"@ MX 10 mx", "mx A 192.0.2.1", "_25._tcp.mx CNAME _dane", strings.Replace(key("x"), "_25._tcp.x", "_dane", 1)}, nil, nil, bob, "dane"},
		"TLSA by an alias to an unsigned place":         {[]string{"@ MX 10 mx", "mx A 192.0.2.1", "_25._tcp.mx CNAME _dane.plain.test."}, []string{strings.Replace(stranger, "_25._tcp.mx", "_dane", 1)}, nil, bob, "tls"},
		"no MX: the domain's own TLSA":                  {[]string{"@ A 192.0.2.1", strings.Replace(key("x"), "_25._tcp.x", "_25._tcp", 1)}, nil, nil, bob, "dane"},
		"TLSA of another port":                          {[]string{"@ MX 10 mx", "mx A 192.0.2.1", strings.Replace(key("mx"), "_25.", "_587.", 1)}, nil, nil, bob, "tls"},
		"anchor, the MX's name":                         {[]string{"@ MX 10 mx", "mx A 192.0.2.1", anchor("mx")}, nil, nil, bob, "dane"},
		"anchor, the domain's name":                     {[]string{"@ MX 10 mx", "mx A 192.0.2.1", anchor("mx")}, nil, []string{"bravo.test"}, bob, "dane"},
		"anchor, another name":                          {[]string{"@ MX 10 mx", "mx A 192.0.2.1", anchor("mx")}, nil, []string{"elsewhere.test"}, bob, "trust 5.7.5"},
		"anchor, the alias's end":                       {[]string{"@ MX 10 mx", "mx CNAME real", "real A 192.0.2.1", anchor("real")}, nil, []string{"real.bravo.test"}, bob, "dane"},
		"anchor, the domain's alias":                    {[]string{"d CNAME e", "e MX 10 mx", "mx A 192.0.2.1", anchor("mx")}, nil, []string{"e.bravo.test"}, "bob@d.bravo.test", "dane"},
		"anchor of an unsigned domain, its name":        {[]string{"mx A 192.0.2.1", anchor("mx")}, []string{"@ MX 10 mx.bravo.test."}, []string{"plain.test"}, "bob@plain.test", "trust 5.7.5"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &mailServer{cert: &cert}
			if tt.names != nil {
				s = issued(t, w, tt.names...)
			}
			w.serve(t, "192.0.2.1", s)
			set(t, w, signed, tt.records...)
			set(t, w, plain, tt.plain...)
			w.fresh(t)
			if got, r := w.send(t, letter(Opportunistic, tt.to)); got != tt.want {
				t.Errorf("%s: %s; want %s", got, r.Reason, tt.want)
			}
		})
	}
}

// A smart host is the next hop of everything; floors speak of the way to it.
func TestSmartHost(t *testing.T) {
	w := newWorld(t, zones("relay A 192.0.2.1", "proved A 192.0.2.2")...)
	ca := func(names ...string) *mailServer { return issued(t, w, names...) }
	self := serverOf(t, w, "self", plain, "relay.plain.test")
	password := func() sasl.Client { return sasl.NewPlainClient("", "gw", "secret") }
	tests := map[string]struct {
		smart  SmartHost
		server *mailServer
		want   [4]string // by floor
		to     string
	}{
		"clear":                {SmartHost{"relay.plain.test", 587, nil}, &mailServer{}, [4]string{"clear", "trust 5.7.4", "trust 5.7.4", "trust 5.7.4"}, bob},
		"certificate":          {SmartHost{"relay.plain.test", 587, nil}, ca("relay.plain.test"), [4]string{"tls", "tls", "trust 5.7.4", "trust 5.7.4"}, bob},
		"of its own":           {SmartHost{"relay.plain.test", 587, nil}, self, [4]string{"encrypted", "trust 5.7.5", "trust 5.7.4", "trust 5.7.4"}, bob},
		"of another host":      {SmartHost{"relay.plain.test", 587, nil}, ca("bravo.test"), [4]string{"encrypted", "trust 5.7.5", "trust 5.7.4", "trust 5.7.4"}, bob},
		"an address":           {SmartHost{"192.0.2.1", 587, nil}, ca("192.0.2.1"), [4]string{"tls", "tls", "trust 5.7.4", "trust 5.7.4"}, bob},
		"TLS at once":          {SmartHost{"relay.plain.test", 465, nil}, ca("relay.plain.test"), [4]string{"tls", "tls", "trust 5.7.4", "trust 5.7.4"}, bob},
		"TLS at once, its own": {SmartHost{"relay.plain.test", 465, nil}, self, [4]string{"encrypted", "trust 5.7.5", "trust 5.7.4", "trust 5.7.4"}, bob},
		"password":             {SmartHost{"relay.plain.test", 587, password}, ca("relay.plain.test"), [4]string{"tls", "tls", "trust 5.7.4", "trust 5.7.4"}, bob},
		"password, clear":      {SmartHost{"relay.plain.test", 587, password}, &mailServer{}, [4]string{"trust 5.7.4", "trust 5.7.4", "trust 5.7.4", "trust 5.7.4"}, bob},
		"password, of its own": {SmartHost{"relay.plain.test", 587, password}, self, [4]string{"trust 5.7.5", "trust 5.7.5", "trust 5.7.4", "trust 5.7.4"}, bob},
		"an address literal":   {SmartHost{"relay.plain.test", 587, nil}, ca("relay.plain.test"), [4]string{"tls", "tls", "trust 5.7.4", "trust 5.7.4"}, "bob@[192.0.2.7]"},
		"no such host":         {SmartHost{"nothing.plain.test", 587, nil}, nil, [4]string{"remote 5.4.4", "remote 5.4.4", "remote 5.4.4", "remote 5.4.4"}, bob},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			delete(w.servers, "192.0.2.1")
			if tt.server != nil {
				tt.server.direct = tt.smart.Port == 465
				w.serve(t, "192.0.2.1", tt.server)
			}
			w.policies[signed] = "enforce elsewhere.test" // is not ours to keep
			w.options.SmartHost = func(string) SmartHost { return tt.smart }
			for i, f := range []Floor{Opportunistic, TLS, MTASTS, DANE} {
				w.restart(t)
				got, r := w.send(t, letter(f, tt.to))
				if got != tt.want[i] {
					t.Errorf("floor %v: %s: %s; want %s", f, got, r.Reason, tt.want[i])
				}
			}
			if tt.server != nil && (tt.smart.Auth != nil) != (tt.server.heard("AUTH PLAIN") > 0) && tt.want[0] == "tls" {
				t.Errorf("%d AUTH", tt.server.heard("AUTH"))
			}
			if tt.server != nil && tt.want[0] != "tls" && tt.server.heard("AUTH") > 0 {
				t.Error("the password went out")
			}
		})
	}
	t.Run("for some domains only", func(t *testing.T) {
		relay := w.serve(t, "192.0.2.1", &mailServer{})
		own := w.serve(t, "192.0.2.2", &mailServer{})
		set(t, w, plain, "relay A 192.0.2.1", "direct MX 10 mx", "mx A 192.0.2.2")
		w.options.SmartHost = func(domain string) SmartHost {
			if domain == "direct.plain.test" {
				return SmartHost{}
			}
			return SmartHost{Host: "relay.plain.test", Port: 587}
		}
		w.fresh(t)
		w.send(t, letter(Opportunistic, bob))
		w.send(t, letter(Opportunistic, "bob@direct.plain.test"))
		if len(relay.taken()) != 1 || len(own.taken()) != 1 {
			t.Errorf("%d by the smart host, %d direct", len(relay.taken()), len(own.taken()))
		}
	})
	t.Run("for one message", func(t *testing.T) {
		relay := w.serve(t, "192.0.2.1", &mailServer{})
		own := w.serve(t, "192.0.2.2", &mailServer{})
		set(t, w, plain, "relay A 192.0.2.1", "direct MX 10 mx", "mx A 192.0.2.2")
		w.options.SmartHost = nil
		w.fresh(t)
		m := letter(Opportunistic, "bob@direct.plain.test")
		m.Via = SmartHost{Host: "relay.plain.test", Port: 587}
		w.send(t, m)
		m.Floor = TLS
		if got, r := w.send(t, m); got != "trust 5.7.4" {
			t.Errorf("floor tls: %s: %s", got, r.Reason)
		}
		if len(relay.taken()) != 1 || len(own.taken()) != 0 {
			t.Errorf("%d by the host that was named, %d direct", len(relay.taken()), len(own.taken()))
		}
	})
	t.Run("TLSA records of the smart host", func(t *testing.T) {
		s := w.serve(t, "192.0.2.2", &mailServer{cert: self.cert})
		set(t, w, signed, "proved A 192.0.2.2", strings.Replace(tlsa("proved", 3, 1, s.cert.Leaf), "_25.", "_587.", 1))
		w.options.SmartHost = func(string) SmartHost { return SmartHost{Host: "proved.bravo.test", Port: 587} }
		w.fresh(t)
		for f, want := range map[Floor]string{Opportunistic: "dane", TLS: "dane", DANE: "trust 5.7.4"} {
			if got, r := w.send(t, letter(f, bob)); got != want {
				t.Errorf("floor %v: %s: %s", f, got, r.Reason)
			}
		}
	})
}

// What an attacker on the way can do once mail has flowed: nothing that ends in the clear, or with himself.
func TestDowngrade(t *testing.T) {
	tests := map[string]func(t *testing.T, w *world, good *mailServer){
		"STARTTLS stripped": func(t *testing.T, w *world, good *mailServer) { w.serve(t, "192.0.2.1", &mailServer{}) },
		"certificate swapped for one of a CA": func(t *testing.T, w *world, good *mailServer) {
			w.serve(t, "192.0.2.1", issued(t, w, "elsewhere.test"))
		},
		"certificate swapped for one of his own": func(t *testing.T, w *world, good *mailServer) {
			w.serve(t, "192.0.2.1", serverOf(t, w, "self", signed, "mx.bravo.test"))
		},
		"TLS broken": func(t *testing.T, w *world, good *mailServer) {
			w.serve(t, "192.0.2.1", serverOf(t, w, "garbled", signed, "mx.bravo.test"))
		},
		"STARTTLS refused": func(t *testing.T, w *world, good *mailServer) {
			w.serve(t, "192.0.2.1", serverOf(t, w, "refuses", signed, "mx.bravo.test"))
		},
		"nobody there": func(t *testing.T, w *world, good *mailServer) { delete(w.servers, "192.0.2.1") },
		"answers before STARTTLS": func(t *testing.T, w *world, good *mailServer) {
			w.serve(t, "192.0.2.1", &mailServer{replies: map[string]string{"": "554 5.7.1 no"}})
		},
		"injected behind STARTTLS": func(t *testing.T, w *world, good *mailServer) {
			good.mu.Lock()
			good.replies = map[string]string{"STARTTLS": "220 go\r\n250 injected"}
			good.mu.Unlock()
		},
	}
	for name, attack := range tests {
		for _, by := range []string{"dane", "mta-sts", "tls"} {
			t.Run(by+"/"+name, func(t *testing.T) {
				w := newWorld(t, zones()...)
				good := w.serve(t, "192.0.2.1", issued(t, w, "mx."+signed))
				records, floor := []string{"@ MX 10 mx", "mx A 192.0.2.1"}, Opportunistic
				switch by {
				case "dane":
					records = append(records, tlsa("mx", 3, 1, good.cert.Leaf))
				case "mta-sts":
					w.policies[signed] = "enforce mx.bravo.test"
				case "tls":
					floor = TLS
				}
				set(t, w, signed, records...)
				w.fresh(t)
				if got, r := w.send(t, letter(floor, bob)); got != by {
					t.Fatalf("%s: %s", got, r.Reason)
				}
				attack(t, w, good)
				w.restart(t) // nothing is kept
				got, r := w.send(t, letter(floor, bob))
				if r.Class == queue.Done || r.Class == queue.Permanent || r.Class == queue.Unset || r.Class == queue.Protocol || len(w.servers) > 0 && w.servers["192.0.2.1"].heard("MAIL") > len(good.taken()) {
					t.Errorf("%s: %s", got, r.Reason)
				}
				if s := w.servers["192.0.2.1"]; s != nil && s != good && len(s.taken())+s.heard("MAIL") > 0 {
					t.Error("the attacker got something")
				}
			})
		}
	}
}

// What TLS reports are told.
func TestReports(t *testing.T) {
	w := newWorld(t, zones()...)
	good := issued(t, w, "mx."+signed)
	self := serverOf(t, w, "self", signed, "mx."+signed)
	foreign := issued(t, w, "elsewhere.test")
	old := serverOf(t, w, "expired", signed, "mx."+signed)
	tests := map[string]struct {
		server  *mailServer
		records []string
		policy  string
		floor   Floor
		want    string
	}{
		"clear":                        {&mailServer{}, nil, "", Opportunistic, "bravo.test no-policy-found mx.bravo.test starttls-not-supported"},
		"encrypted":                    {self, nil, "", Opportunistic, "bravo.test no-policy-found mx.bravo.test ok"},
		"floor tls, its own":           {self, nil, "", TLS, "bravo.test no-policy-found mx.bravo.test certificate-not-trusted"},
		"floor tls, another host":      {foreign, nil, "", TLS, "bravo.test no-policy-found mx.bravo.test certificate-host-mismatch"},
		"floor tls, expired":           {old, nil, "", TLS, "bravo.test no-policy-found mx.bravo.test certificate-expired"},
		"floor tls, clear":             {&mailServer{}, nil, "", TLS, "bravo.test no-policy-found mx.bravo.test starttls-not-supported"},
		"floor dane, none published":   {good, nil, "", DANE, "bravo.test no-policy-found mx.bravo.test dane-required"},
		"TLSA holds":                   {good, []string{tlsa("mx", 3, 1, good.cert.Leaf)}, "", Opportunistic, "bravo.test tlsa mx.bravo.test ok"},
		"TLSA does not hold":           {self, []string{tlsa("mx", 3, 1, good.cert.Leaf)}, "", Opportunistic, "bravo.test tlsa mx.bravo.test validation-failure"},
		"TLSA anchor, another host":    {foreign, []string{tlsa("mx", 2, 1, w.ca.Certificate)}, "", Opportunistic, "bravo.test tlsa mx.bravo.test certificate-host-mismatch"},
		"TLSA, clear":                  {&mailServer{}, []string{tlsa("mx", 3, 1, good.cert.Leaf)}, "", Opportunistic, "bravo.test tlsa mx.bravo.test starttls-not-supported"},
		"policy holds":                 {good, nil, "enforce mx.bravo.test", Opportunistic, "bravo.test sts mx.bravo.test ok"},
		"policy does not hold":         {self, nil, "enforce mx.bravo.test", Opportunistic, "bravo.test sts mx.bravo.test certificate-not-trusted"},
		"policy names others":          {good, nil, "enforce elsewhere.test", Opportunistic, "bravo.test sts mx.bravo.test validation-failure"},
		"testing holds":                {good, nil, "testing mx.bravo.test", Opportunistic, "bravo.test sts mx.bravo.test ok"},
		"testing would not, clear":     {&mailServer{}, nil, "testing mx.bravo.test", Opportunistic, "bravo.test sts mx.bravo.test starttls-not-supported"},
		"testing would not, the names": {good, nil, "testing elsewhere.test", Opportunistic, "bravo.test sts mx.bravo.test validation-failure"},
		"testing would not, its own":   {self, nil, "testing mx.bravo.test", Opportunistic, "bravo.test sts mx.bravo.test certificate-not-trusted"},
		"policy cannot be had":         {good, nil, "!", Opportunistic, "bravo.test sts  sts-policy-fetch-error; bravo.test no-policy-found mx.bravo.test ok"},
		"greylisted is no matter":      {&mailServer{cert: good.cert, replies: map[string]string{"RCPT": "450 later"}}, nil, "", Opportunistic, "bravo.test no-policy-found mx.bravo.test ok"},
		"no service is no matter":      {&mailServer{replies: map[string]string{"": "554 no"}}, nil, "", Opportunistic, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w.serve(t, "192.0.2.1", tt.server)
			set(t, w, signed, slices.Concat([]string{"@ MX 10 mx", "mx A 192.0.2.1"}, tt.records)...)
			w.policies = map[string]string{signed: tt.policy}
			w.fresh(t)
			w.reports.taken()
			w.send(t, letter(tt.floor, bob))
			if got := w.reports.taken(); got != tt.want {
				t.Errorf("%s; want %s", got, tt.want)
			}
			if _, err := w.x.Check(within(t), letter(tt.floor, bob), 0); err != nil || w.reports.taken() != "" {
				t.Errorf("a check is reported; %v", err)
			}
		})
	}
	spoil(t, w, signed, 15)
	w.fresh(t)
	w.send(t, letter(Opportunistic, bob))
	if got := w.reports.taken(); got != "bravo.test no-policy-found  dnssec-invalid" {
		t.Errorf("MX bogus: %s", got)
	}
}

// TestCheck shows what an administrator is told of each host.
func TestCheck(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx1", "@ MX 20 mx2", "mx1 A 192.0.2.1", "mx2 A 192.0.2.2")...)
	w.serve(t, "192.0.2.1", &mailServer{})
	second := issued(t, w, "mx2.bravo.test")
	second.offer = []string{"SIZE 1000"}
	w.serve(t, "192.0.2.2", second)
	w.restart(t)
	f, err := w.x.Check(within(t), letter(TLS, bob), 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := []Host{{"mx1.bravo.test", "192.0.2.1", "floor tls", "", "floor tls is not met: mx1.bravo.test does not offer STARTTLS"},
		{"mx2.bravo.test", "192.0.2.2", "floor tls", "tls", "would be offered the message"}}
	if !slices.Equal(f.Hosts, want) || f.Rule != "to mx2.bravo.test over tls (floor tls)" || f.Rung != Authentic || f.Result.Class != queue.Done {
		t.Errorf("%+v", f)
	}
	if f, err = w.x.Check(within(t), letter(TLS, bob), 1001); err != nil || f.Result.Class != queue.Trust && f.Result.Status != "5.3.4" {
		t.Errorf("%+v %v", f, err)
	}
	if second.heard("MAIL")+second.heard("RCPT") > 0 || second.heard("QUIT") != 2 {
		t.Errorf("heard %q", second.lines)
	}
}

func TestFloorNames(t *testing.T) {
	for f := Hold; f <= DIME; f++ {
		if got, ok := ParseFloor(f.String()); !ok || got != f {
			t.Errorf("%v", f)
		}
	}
	if _, ok := ParseFloor("none"); ok || Floor(99).String() != "?" || Rung(99).String() != "?" || Proven.Meets(DIME) || Proven.Meets(Hold) {
		t.Error("a floor of no kind")
	}
}

// An old TLS is no TLS.
func TestOldTLS(t *testing.T) {
	w := newWorld(t, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
	s := issued(t, w, "mx."+signed)
	s.max = tls.VersionTLS11
	w.serve(t, "192.0.2.1", s)
	w.restart(t)
	if got, _ := w.send(t, letter(Opportunistic, bob)); got != "trust 5.7.5" || s.heard("MAIL") > 0 {
		t.Error(got)
	}
}

// BenchmarkSend is one small message over TLS: in a session that is kept, and in one that is made for it.
func BenchmarkSend(b *testing.B) {
	for name, messages := range map[string]int{"kept": 0, "new": 1} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, zones("@ MX 10 mx", "mx A 192.0.2.1")...)
			s := issued(b, w, "mx."+signed)
			set(b, w, signed, "@ MX 10 mx", "mx A 192.0.2.1", tlsa("mx", 3, 1, s.cert.Leaf))
			s.offer = []string{"PIPELINING", "SIZE"}
			w.serve(b, "192.0.2.1", s)
			w.options.MaxMessages = messages
			w.fresh(b)
			for b.Loop() {
				if r, err := w.x.Send(b.Context(), letter(DANE, bob), func(string, Rung) error { return nil }); err != nil || r.Class != queue.Done {
					b.Fatal(r, err)
				}
			}
		})
	}
}

package dmtpserver

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"dimegate/dmtp/signet"
)

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
		"a fingerprint that is right is free": {func(c *Config) { c.Limits.LookupsMin = 10 }, func(c *wire, _ *running) {
			for range 20 {
				c.ask("SGNT <b.example> ["+fpOf(c.tb, w.bSignet, signet.ID)+"]", "270")
			}
			c.ask("SGNT <b.example> ["+fpOf(c.tb, w.bSignet, signet.ID)[1:]+"A]", "576")
			c.ask("SGNT <b.example> ["+fpOf(c.tb, w.bSignet, signet.ID)[1:]+"A]", "576")
			c.ask("SGNT <b.example> ["+fpOf(c.tb, w.bSignet, signet.ID)+"]", "450")
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
		"memory of a prefix": {func(c *Config) { c.Limits.Message, c.Limits.Memory = uint64(len(m))+600, 2*int64(len(m)+600) }, func(c *wire, r *running) {
			c.begin(len(m))
			c.ask("DATA", "354")
			c.send(string(m[:len(m)-1]))
			for !holds(r.s.guard, len(m)-1) {
				time.Sleep(time.Millisecond)
			}
			m2 := w.signed(c.tb, "other", nil)
			second := dialTLS(c.tb, r.single)
			second.begin(len(m2))
			second.ask("DATA", "354")
			second.send(string(m2))
			second.want("431")
			c.send(string(m[len(m)-1:]))
			c.want("254")
			c.ask("NOOP", "250") // by now it has been given back
			second.gone()
			if !holds(r.s.guard, 0) {
				c.tb.Error("memory is still counted")
			}
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
// holds tells whether all prefixes together have n octets of messages in memory.
func holds(g *guard, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := int64(0)
	for _, t := range g.prefixes {
		sum += t.octets
	}
	return sum == int64(n)
}

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

// A moody listener fails in passing, then for good.
type moody struct {
	net.Listener
	errs []error
}

func (m *moody) Accept() (net.Conn, error) {
	if len(m.errs) == 0 {
		return m.Listener.Accept()
	}
	err := m.errs[0]
	m.errs = m.errs[1:]
	return nil, err
}

func TestAcceptFails(t *testing.T) {
	s, err := New(newBackend(newWorld(t, 1)).config(t))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the listener is broken")
	err = s.Serve(t.Context(), &moody{ln, []error{&net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ECONNABORTED, broken}})
	if !errors.Is(err, broken) {
		t.Errorf("ended with %v", err)
	}
}

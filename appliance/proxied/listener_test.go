package proxied

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen serves on loopback until the test ends; 127.0.0.1 is a proxy.
func listen(t *testing.T, log io.Writer) *Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(ln, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { l.Close() })
	return l
}

// call connects from an address of loopback and says something.
func call(t *testing.T, l *Listener, from, say string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	return c
}

const v2 = "\r\n\r\n\x00\r\nQUIT\n" // the signature of version 2

// What is believed of whom. The octets of version 2 are those of the specification's §2.2.
func TestListener(t *testing.T) {
	v4 := "\x21\x11\x00\x0c" + "\xc0\x00\x02\x07" + "\x7f\x00\x00\x01" + "\x15\xb3\x00\x19"
	v6 := "\x21\x21\x00\x24" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" + strings.Repeat("\x00", 15) + "\x01" + "\x15\xb3\x00\x19"
	tests := map[string]struct {
		from, say string
		client    string // as the server sees him
		rest      string // of what was said; "!": the connection is closed
	}{
		"version 1, IPv4":          {"127.0.0.1", "PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\r\nEHLO x\r\n", "192.0.2.7:5555", "EHLO x\r\n"},
		"version 1, IPv6":          {"127.0.0.1", "PROXY TCP6 2001:db8::7 ::1 5555 25\r\n\x16\x03", "[2001:db8::7]:5555", "\x16\x03"},
		"version 1, unknown":       {"127.0.0.1", "PROXY UNKNOWN\r\nEHLO x\r\n", ":0", "EHLO x\r\n"},
		"version 1, unknown, more": {"127.0.0.1", "PROXY UNKNOWN 192.0.2.7 127.0.0.1 5555 25\r\nx", ":0", "x"},
		"version 2, IPv4":          {"127.0.0.1", v2 + v4 + "EHLO x\r\n", "192.0.2.7:5555", "EHLO x\r\n"},
		"version 2, IPv6":          {"127.0.0.1", v2 + v6 + "EHLO x\r\n", "[2001:db8::7]:5555", "EHLO x\r\n"},
		"version 2, local":         {"127.0.0.1", v2 + "\x20\x00\x00\x00x", ":0", "x"},
		"version 2, local, IPv4":   {"127.0.0.1", v2 + "\x20" + v4[1:] + "x", ":0", "x"},
		"version 2, UDP":           {"127.0.0.1", v2 + "\x21\x12" + v4[2:] + "x", ":0", "x"},
		"version 2, with a field":  {"127.0.0.1", v2 + "\x21\x11\x00\x10" + v4[4:] + "\x04\x00\x01yx", "192.0.2.7:5555", "x"},
		"version 2, 4096 octets":   {"127.0.0.1", v2 + "\x21\x11\x10\x00" + v4[4:] + "\x04\x0f\xf1" + strings.Repeat("y", 4081) + "x", "192.0.2.7:5555", "x"},
		"version 2, 4097 octets":   {"127.0.0.1", v2 + "\x21\x11\x10\x01" + v4[4:] + "\x04\x0f\xf2" + strings.Repeat("y", 4082) + "x", "", "!"},
		"version 2, version 3":     {"127.0.0.1", v2 + "\x31" + v4[1:] + "x", "", "!"},
		"version 2, short":         {"127.0.0.1", v2 + "\x21\x11\x00\x0b" + v4[4:], "", "!"},
		"version 1, a long line":   {"127.0.0.1", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "", "!"},
		"version 1, no address":    {"127.0.0.1", "PROXY TCP4 mail 127.0.0.1 5555 25\r\n", "", "!"},
		"version 1, LF alone":      {"127.0.0.1", "PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\n", "", "!"},
		"no header":                {"127.0.0.1", "EHLO x\r\n", "", "!"},
		"no header, PRO":           {"127.0.0.1", "PROBE a server\r\n", "", "!"},
		"not a proxy":              {"127.0.0.2", "EHLO x\r\n", "127.0.0.2", "EHLO x\r\n"},
		"not a proxy, a header":    {"127.0.0.2", "PROXY TCP4 127.0.0.1 127.0.0.1 5555 25\r\n", "127.0.0.2", "PROXY TCP4 127.0.0.1 127.0.0.1 5555 25\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			l := listen(t, &log)
			peer := call(t, l, tt.from, tt.say)
			if tt.rest == "!" {
				var accepted sync.WaitGroup
				accepted.Go(func() {
					if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("accepted: %v", err)
					}
				})
				if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, net.ErrClosed) {
					t.Errorf("not closed: %d, %v", n, err)
				}
				l.Close()
				accepted.Wait()
				if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "127.0.0.1:") {
					t.Errorf("log: %q", log.String())
				}
				return
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.RemoteAddr().String(); !strings.HasPrefix(got, tt.client) {
				t.Errorf("client %s", got)
			}
			got := make([]byte, len(tt.rest))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != tt.rest {
				t.Errorf("rest %q, %v", got, err)
			}
			if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
				t.Error("cannot be closed half")
			}
		})
	}
}

// Proxies that say nothing hold up nobody, not even one another, and end with the listener.
func TestSilentProxies(t *testing.T) {
	l := listen(t, io.Discard)
	var silent []net.Conn
	for i := range 20 {
		silent = append(silent, call(t, l, "127.0.0.1", "PROXY"[:i%5]))
	}
	for _, tt := range []struct{ from, say, client string }{
		{"127.0.0.1", "PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\r\n", "192.0.2.7:5555"}, {"127.0.0.2", "", "127.0.0.2:"},
	} {
		call(t, l, tt.from, tt.say)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.RemoteAddr().String(); !strings.HasPrefix(got, tt.client) {
			t.Errorf("client %s, want %s", got, tt.client)
		}
	}
	l.Close()
	for _, c := range silent {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("not closed")
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepts: %v", err)
	}
}

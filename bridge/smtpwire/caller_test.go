package smtpwire

import (
	"net/netip"
	"strings"
	"testing"
)

func TestXClientAttributes(t *testing.T) {
	at := netip.MustParseAddrPort
	tests := map[string]struct {
		line string
		want *Caller // nil: refused
	}{
		"all":            {"NAME=mail.example.net ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=there LOGIN=alice", &Caller{Addr: at("192.0.2.7:4711"), Name: "mail.example.net", Proto: "ESMTP", Hello: "there", Login: "alice"}},
		"any case":       {"addr=192.0.2.7 pRoTo=smtp helo=[unavailable]", &Caller{Addr: at("192.0.2.7:0"), Proto: "SMTP"}},
		"IPv6":           {"ADDR=IPV6:2001:db8::7", &Caller{Addr: at("[2001:db8::7]:0")}},
		"IPv6, bare":     {"ADDR=2001:db8::7", &Caller{Addr: at("[2001:db8::7]:0")}},
		"IPv4 in IPv6":   {"ADDR=IPv6:::ffff:192.0.2.7", &Caller{Addr: at("192.0.2.7:0")}},
		"port, then not": {"PORT=25 ADDR=[UNAVAILABLE]", &Caller{}},
		"name for later": {"NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE] LOGIN=[UNAVAILABLE]", &Caller{Later: true}},
		"xtext":          {"LOGIN=a+2Bb+3Dc+20d HELO=+5Bx+5D", &Caller{Login: "a+b=c d", Hello: "[x]"}},
		"controls":       {"HELO=a+0D+0Ab", &Caller{Hello: "a??b"}},
		"where to":       {"DESTADDR=192.0.2.1 DESTPORT=25", &Caller{}},
		"no value":       {"ADDR", nil},
		"empty":          {"NAME=", nil},
		"no address":     {"ADDR=mail", nil},
		"IPv4 as IPv6":   {"ADDR=IPV6:192.0.2.7", nil},
		"a zone":         {"ADDR=IPV6:fe80::1%eth0", nil},
		"port too large": {"PORT=65536", nil},
		"no protocol":    {"PROTO=LMTP", nil},
		"unknown":        {"IDENT=x", nil},
		"half a hex":     {"HELO=a+2", nil},
		"no hex":         {"HELO=a+zz", nil},
		"bare =":         {"HELO=a=b", nil},
		"too long":       {"HELO=" + strings.Repeat("a", 256), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got Caller
			ok := true
			for _, a := range strings.Fields(tt.line) {
				ok = ok && got.take(XClientLogin, a)
			}
			if ok != (tt.want != nil) || ok && got != *tt.want {
				t.Errorf("%v %+v", ok, got)
			}
		})
	}
	if (&Caller{}).take(XClientRelay, "LOGIN=alice") {
		t.Error("LOGIN where it is not offered")
	}
}

// What goes out is what XCLIENT_README and XFORWARD_README have, in commands that any server takes.
func TestCallerCommands(t *testing.T) {
	who := Caller{Addr: netip.MustParseAddrPort("[2001:db8::7]:4711"), Name: "mail.example.net", Hello: "a b=c", Proto: "SMTP"}
	for _, tt := range []struct {
		who     Caller
		offered string
		want    string
	}{
		{who, "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", "X NAME=mail.example.net ADDR=IPV6:2001:db8::7 PORT=4711 PROTO=SMTP HELO=a+20b+3Dc LOGIN=[UNAVAILABLE]"},
		{who, "addr unknown ADDR", "X ADDR=IPV6:2001:db8::7"},
		{Caller{}, "NAME ADDR PORT PROTO HELO IDENT SOURCE", "X NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=ESMTP HELO=[UNAVAILABLE] SOURCE=REMOTE"},
		{Caller{Later: true}, "NAME", "X NAME=[TEMPUNAVAIL]"},
		{who, "", ""},
		{Caller{Name: strings.Repeat("n", 255), Hello: strings.Repeat("h", 300)}, "HELO NAME", "X HELO=" + strings.Repeat("h", 255) + "\nX NAME=" + strings.Repeat("n", 255)},
	} {
		if got := strings.Join(commands("X", tt.who.attributes(tt.offered)), "\n"); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.offered, got, tt.want)
		}
	}
}

// No attribute makes trouble, and what is believed survives the way to the next server.
func FuzzXClient(f *testing.F) {
	for _, s := range []string{"NAME=x", "ADDR=IPV6:2001:db8::7", "PORT=1", "HELO=+5Bx+5D", "LOGIN=a+00b", "PROTO=smtp", "NAME=[TEMPUNAVAIL]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, attribute string) {
		var got, again Caller
		if !got.take(XClientLogin, attribute) {
			return
		}
		for _, a := range got.attributes(XClientLogin) {
			if strings.ContainsAny(a, "\r\n \x00") || !again.take(XClientLogin, a) {
				t.Fatalf("%q from %+v", a, got)
			}
		}
		if again.Addr.Addr() != got.Addr.Addr() || again.Hello != got.Hello || again.Login != got.Login {
			t.Errorf("%+v came back as %+v", got, again)
		}
	})
}

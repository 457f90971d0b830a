package smtpwire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Caller is an SMTP client as a server that stands before another describes it to that one, by Postfix's XCLIENT and XFORWARD
// (XCLIENT_README, XFORWARD_README). An empty field is one that is not known.
type Caller struct {
	Addr  netip.AddrPort // a zero port: not known
	Name  string         // by DNS, there and back
	Later bool           // of a name that could not be looked up now
	Proto string         // SMTP or ESMTP
	Hello string         // as it introduced itself; untrusted
	Login string         // who authenticated
}

// XCLIENT's attributes, in the order in which we offer them. Where the last three come from, and where the client wanted to
// go, nobody here asks.
const (
	XClientRelay = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"
	XClientLogin = XClientRelay + " LOGIN" // for servers whose users authenticate
)

const (
	unavailable = "[UNAVAILABLE]"
	temporarily = "[TEMPUNAVAIL]"
	maxValue    = 255 // octets of a value, decoded
)

// take reads one attribute of an XCLIENT command. It is false when that is no attribute that we offer, or makes no sense.
func (c *Caller) take(offered, attribute string) bool {
	name, text, ok := strings.Cut(attribute, "=")
	name = strings.ToUpper(name)
	value, valid := fromXtext(text)
	if !ok || !valid || len(value) > maxValue || !hasWord(offered, name) {
		return false
	}
	missing := strings.EqualFold(value, unavailable) || strings.EqualFold(value, temporarily)
	switch name {
	case "ADDR":
		return c.takeAddr(value, missing)
	case "PORT":
		port, err := strconv.ParseUint(value, 10, 16)
		c.Addr = netip.AddrPortFrom(c.Addr.Addr(), uint16(port))
		return missing || err == nil
	case "NAME":
		c.Name, c.Later = value, strings.EqualFold(value, temporarily)
		if missing {
			c.Name = ""
		}
	case "PROTO":
		c.Proto = strings.ToUpper(value)
		return missing || c.Proto == "SMTP" || c.Proto == "ESMTP"
	case "HELO":
		c.Hello = Printable(value, maxValue)
		if missing {
			c.Hello = ""
		}
	case "LOGIN":
		c.Login = value
		if missing {
			c.Login = ""
		}
	}
	return value != ""
}

func (c *Caller) takeAddr(value string, missing bool) bool {
	if missing {
		c.Addr = netip.AddrPort{}
		return true
	}
	const six = "IPV6:"
	prefixed := len(value) > len(six) && strings.EqualFold(value[:len(six)], six)
	if prefixed {
		value = value[len(six):]
	}
	a, err := netip.ParseAddr(value)
	if err != nil || a.Zone() != "" || prefixed && !a.Is6() {
		return false
	}
	c.Addr = netip.AddrPortFrom(a.Unmap(), c.Addr.Port())
	return true
}

// attributes are those of a Caller that a server offers to take, in its order, as they go into a command.
func (c Caller) attributes(offered string) []string {
	name := unavailable
	if c.Later {
		name = temporarily
	}
	known := map[string]string{"NAME": orText(c.Name, name), "ADDR": unavailable, "PORT": unavailable, "PROTO": orText(c.Proto, "ESMTP"),
		"HELO": orText(c.Hello, unavailable), "LOGIN": orText(c.Login, unavailable), "SOURCE": "REMOTE"}
	if a := c.Addr.Addr(); a.IsValid() {
		known["ADDR"] = a.String()
		if a.Is6() {
			known["ADDR"] = "IPV6:" + a.String()
		}
		if c.Addr.Port() != 0 {
			known["PORT"] = strconv.Itoa(int(c.Addr.Port()))
		}
	}
	var list []string
	for _, word := range strings.Fields(strings.ToUpper(offered)) {
		if value, ok := known[word]; ok {
			delete(known, word)
			list = append(list, word+"="+toXtext(value))
		}
	}
	return list
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func hasWord(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}

// toXtext is RFC 3461 §4 (xtext), cut so that it decodes to maxValue octets at most.
func toXtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s[:min(len(s), maxValue)]) {
		if c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func fromXtext(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b = append(b, byte(n))
			i += 2
		case c < '!' || c > '~' || c == '=':
			return "", false
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

// maxCommandLine is what any server takes (RFC 5321 §4.5.3.1.4); XCLIENT and XFORWARD may be said in several commands.
const maxCommandLine = 512 - len("\r\n")

func commands(verb string, attributes []string) []string {
	var lines []string
	for _, a := range attributes {
		if n := len(lines) - 1; n >= 0 && len(lines[n])+1+len(a) <= maxCommandLine {
			lines[n] += " " + a
		} else {
			lines = append(lines, verb+" "+a)
		}
	}
	return lines
}

// XClient tells a server that offers it who the client is, and introduces us again, by the client's own name where SMTP can
// carry it. The server then judges that client: its refusal is an *Error, after which the session is of no more use.
func (c *Client) XClient(ctx context.Context, who Caller) error {
	offered, _ := c.Offers("XCLIENT")
	return c.during(ctx, func() error {
		for _, line := range commands("XCLIENT", who.attributes(offered)) {
			r, err := c.command(line)
			if err := expect(2, StageClient, r, err); err != nil {
				return err
			}
		}
		return c.hello(who.Says(c.name))
	})
}

// Says is the name by which the client introduced itself, or another if SMTP cannot carry that.
func (c Caller) Says(other string) string {
	if validHello(c.Hello) {
		return c.Hello
	}
	return other
}

// XForward tells a server that offers it who the client is, for its logs. That it does not like it is no error.
func (c *Client) XForward(ctx context.Context, who Caller) error {
	offered, _ := c.Offers("XFORWARD")
	return c.during(ctx, func() error {
		for _, line := range commands("XFORWARD", who.attributes(offered)) {
			if _, err := c.command(line); err != nil {
				return err
			}
		}
		return nil
	})
}

// netAddr is the address as net.Conn tells it.
func (c Caller) netAddr() net.Addr {
	if !c.Addr.IsValid() {
		return &net.TCPAddr{}
	}
	return net.TCPAddrFromAddrPort(c.Addr)
}

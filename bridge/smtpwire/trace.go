package smtpwire

import (
	"net/netip"
	"strings"
	"time"
)

// A Received is our trace field (RFC 5321 §4.4). It never has a "for" clause: that would tell one recipient of another.
type Received struct {
	Hello string     // how the peer introduced itself; untrusted
	Addr  netip.Addr // where it called from; invalid: left out
	By    string     // our host name
	With  string     // the protocol: see Protocol
	ID    string     // ours for the message
	TLS   string     // a comment on the encryption; empty: left out
	Time  time.Time
}

// Append appends the field with its final CRLF.
func (r Received) Append(b []byte) []byte {
	b = append(b, "Received: from "...)
	b = append(b, safeHello(r.Hello)...)
	if r.Addr.IsValid() {
		b = append(b, " (["...)
		if r.Addr.Is6() && !r.Addr.Is4In6() {
			b = append(b, "IPv6:"...)
		}
		b = append(r.Addr.Unmap().WithZone("").AppendTo(b), "])"...)
	}
	if r.TLS != "" {
		b = append(b, "\r\n\t("+r.TLS+")"...)
	}
	b = append(b, "\r\n\tby "+r.By+" with "+r.With+" id "+r.ID+";\r\n\t"...)
	b = r.Time.AppendFormat(b, time.RFC1123Z)
	return append(b, "\r\n"...)
}

func safeHello(s string) string {
	if !validHello(s) {
		return "unknown"
	}
	return s
}

// Protocol is the keyword of a session for the "with" clause (RFC 3848, RFC 6531 §4.3).
func Protocol(hello string, utf8, tls, auth bool) string {
	if strings.EqualFold(hello, "HELO") {
		return "SMTP"
	}
	p := "ESMTP"
	if utf8 {
		p = "UTF8SMTP"
	}
	if tls {
		p += "S"
	}
	if auth {
		p += "A"
	}
	return p
}

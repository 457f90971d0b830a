// Package mailauth finds out what SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489) say of a message that came from outside
// by plain SMTP, and notes it in an Authentication-Results field (RFC 8601). It refuses nothing: the inner server and its
// filters judge.
//
// The methods are go-msgauth's and blitiri.com.ar/go/spf's; look-ups go through our own resolver. What those libraries leave
// open is bounded here: see guard.
package mailauth

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/authres"
	"golang.org/x/net/idna"
)

// Timeout bounds all that is done for one message. What has no answer by then is a temperror.
const Timeout = 30 * time.Second

// A Checker checks messages. Safe for concurrent use.
type Checker struct {
	ID  string // our authentication service identifier, a host name
	DNS DNS
}

// An Arrival is what the SMTP session tells.
type Arrival struct {
	Peer  netip.Addr // of the client; invalid: SPF has no answer
	Hello string     // how it introduced itself
	From  string     // reverse-path, "" for the null one
}

// Field checks a message and returns the whole field, with its CRLF. Header is the message's header block, message all of it
// from the first octet; it is read only when there is a signature. The error is message's.
func (c *Checker) Field(ctx context.Context, a Arrival, header []byte, message io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	dns := lookups{ctx, c.DNS}
	path := checkSPF(ctx, dns, a)
	signatures, err := checkDKIM(dns, header, message)
	if err != nil {
		return nil, err
	}
	results := []authres.Result{path.result()}
	for _, s := range signatures {
		results = append(results, &authres.DKIMResult{Value: s.value, Domain: s.domain})
	}
	results = append(results, checkDMARC(dns, header, path.verdict, signatures))
	// What is shown is host names and dot-atoms, so a "; " stands between two results and nowhere else.
	lines := strings.Split(authres.Format(c.ID, results), "; ")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return []byte("Authentication-Results: " + strings.Join(lines, ";\r\n\t") + "\r\n"), nil
}

// A verdict is the outcome of one method about one identity.
type verdict struct {
	value  authres.ResultValue
	domain string // in lower case; "": none that can be shown
}

// A path is SPF's verdict.
type path struct {
	verdict
	address string // the mailbox of MAIL FROM, or only its domain where it needs quotes; "": the null one
}

// checkSPF checks MAIL FROM; where it is the null one, postmaster at the name of HELO (RFC 7208 §2.4).
func checkSPF(ctx context.Context, dns lookups, a Arrival) path {
	p := path{verdict: verdict{value: authres.ResultNone}}
	sender := a.From
	if sender == "" {
		sender = "postmaster@" + a.Hello
	}
	at := strings.LastIndexByte(sender, '@')
	domain, ok := hostName(sender[at+1:])
	if at < 0 || !ok {
		return p
	}
	p.domain = domain
	if a.From != "" {
		p.address = domain
		if plainLocal(sender[:at]) {
			p.address = sender[:at+1] + domain
		}
	}
	if !a.Peer.IsValid() {
		return p
	}
	// The library splits at the first "@", which a quoted local part may have.
	local := "postmaster"
	if plainLocal(sender[:at]) {
		local = sender[:at]
	}
	result, _ := spf.CheckHostWithSender(net.IP(a.Peer.Unmap().AsSlice()), a.Hello, local+"@"+domain, spf.WithContext(ctx), spf.WithResolver(dns))
	p.value = authres.ResultValue(result) // the same words: RFC 8601 §2.7.2
	return p
}

func (p path) result() authres.Result {
	r := &authres.SPFResult{Value: p.value, From: p.address}
	if p.address == "" {
		r.Helo = p.domain
	}
	return r
}

// plainLocal reports whether a local part is a dot-atom of ASCII. Another one is not shown: the library's quoting does not hold
// against a backslash, and a sender must not write results of his own.
func plainLocal(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!#$%&'*+-/=?^_`{|}~", r)
	}) < 0
}

// hostName is a name as the DNS has it: A-labels, lower case, at least two labels of letters, digits, hyphens and underscores.
func hostName(s string) (string, bool) {
	s, err := idna.Lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil {
		s = strings.ToLower(s) // underscores are no IDNA, and found in what domains sign
	}
	if len(s) > 253 || !strings.Contains(s, ".") {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || strings.IndexFunc(label, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", r) }) >= 0 {
			return "", false
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", false
	}
	return s, true
}

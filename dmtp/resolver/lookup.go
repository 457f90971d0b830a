package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dimegate/dmtp"

	"github.com/miekg/dns"
)

// recordPrefix is the label under which a domain publishes its management record (management-record chapter 2.1).
const recordPrefix = "_dx."

// maxMX is how many mail exchangers are tried (libdime DMTP_MAX_MX_RETRIES).
const maxMX = 3

// TXT returns the texts of the TXT records at name, each joined from its strings (RFC 7208 §3.3 does the same).
func (d *DNS) TXT(ctx context.Context, name string) ([]string, *Answer, error) {
	a, err := d.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, nil, err
	}
	var texts []string
	for _, rr := range a.Records {
		if t, ok := rr.(*dns.TXT); ok {
			texts = append(texts, joinTXT(t))
		}
	}
	return texts, a, nil
}

// joinTXT joins the strings of a record and undoes the escapes of presentation form, in which the library keeps them.
func joinTXT(t *dns.TXT) string {
	var b strings.Builder
	for _, s := range t.Txt {
		for i := 0; i < len(s); i++ {
			if s[i] != '\\' || i+1 == len(s) {
				b.WriteByte(s[i])
				continue
			}
			if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
				b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
				i += 3
				continue
			}
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// MX returns the exchangers of a domain, best first, three at most; none for a null MX (RFC 7505) as for no MX.
func (d *DNS) MX(ctx context.Context, domain string) ([]string, *Answer, error) {
	a, err := d.Lookup(ctx, dns.Fqdn(domain), dns.TypeMX)
	if err != nil {
		return nil, nil, err
	}
	var list []*dns.MX
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			list = append(list, mx)
		}
	}
	slices.SortStableFunc(list, func(x, y *dns.MX) int { return int(x.Preference) - int(y.Preference) })
	var hosts []string
	for _, mx := range list {
		host, err := dmtp.Domain(strings.TrimSuffix(dns.CanonicalName(mx.Mx), "."))
		if err == nil && len(hosts) < maxMX { // "." is no host: a null MX
			hosts = append(hosts, host)
		}
	}
	return hosts, a, nil
}

// Addresses returns the addresses of a host, IPv6 first, and the lesser state of the two look-ups. An error of one is
// an error only when the other has no address.
func (d *DNS) Addresses(ctx context.Context, host string) ([]netip.Addr, State, error) {
	var out []netip.Addr
	var failed error
	state := Secure
	for _, typ := range []uint16{dns.TypeAAAA, dns.TypeA} {
		a, err := d.Lookup(ctx, dns.Fqdn(host), typ)
		if err != nil {
			failed = err
			continue
		}
		state = min(state, a.State)
		for _, rr := range a.Records {
			switch rr := rr.(type) {
			case *dns.AAAA:
				if ip, ok := netip.AddrFromSlice(rr.AAAA); ok && ip.Is6() && !ip.Is4In6() {
					out = append(out, ip)
				}
			case *dns.A:
				if ip, ok := netip.AddrFromSlice(rr.A); ok {
					out = append(out, ip.Unmap())
				}
			}
		}
	}
	if len(out) == 0 && failed != nil {
		return nil, Indeterminate, failed
	}
	if len(out) == 0 {
		return nil, state, fmt.Errorf("%s: %w", host, ErrNoAddress)
	}
	return out, state, nil
}

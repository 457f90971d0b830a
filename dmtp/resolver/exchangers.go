package resolver

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"dimegate/dmtp"

	"github.com/miekg/dns"
)

// An Exchanger is one MX record whose host can be one.
type Exchanger struct {
	Preference uint16
	Host       string // lower case, without the dot at the end
}

// Exchangers returns the MX records of a domain, best first and in the order received within a preference. null tells that
// the domain takes no mail (RFC 7505): its one record names the root. A root beside other hosts is none.
func (d *DNS) Exchangers(ctx context.Context, domain string) (list []Exchanger, null bool, a *Answer, err error) {
	a, err = d.Lookup(ctx, dns.Fqdn(domain), dns.TypeMX)
	if err != nil {
		return nil, false, nil, err
	}
	for _, rr := range a.Records {
		mx, ok := rr.(*dns.MX)
		if !ok {
			continue
		}
		null = mx.Mx == "." && len(a.Records) == 1
		if host, err := dmtp.Domain(strings.TrimSuffix(dns.CanonicalName(mx.Mx), ".")); err == nil {
			list = append(list, Exchanger{mx.Preference, host})
		}
	}
	slices.SortStableFunc(list, func(x, y Exchanger) int { return int(x.Preference) - int(y.Preference) })
	return list, null, a, nil
}

// A TLSA is one record of RFC 6698 §2.1 as it was published. Whether it can be used is for its user to say.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// TLSA returns the TLSA records at a name such as _25._tcp.mx.example.org. They mean something only when the Answer is Secure
// (RFC 6698 §4.1), and so does their absence. Data that is no hexadecimal comes back empty.
func (d *DNS) TLSA(ctx context.Context, name string) ([]TLSA, *Answer, error) {
	a, err := d.Lookup(ctx, name, dns.TypeTLSA)
	if err != nil {
		return nil, nil, err
	}
	var list []TLSA
	for _, rr := range a.Records {
		if t, ok := rr.(*dns.TLSA); ok {
			data, err := hex.DecodeString(t.Certificate)
			if err != nil {
				data = nil
			}
			list = append(list, TLSA{t.Usage, t.Selector, t.MatchingType, data})
		}
	}
	return list, a, nil
}

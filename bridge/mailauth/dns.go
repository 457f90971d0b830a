package mailauth

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"dimegate/dmtp/resolver"
)

// A DNS answers questions: resolver.DNS. What does not validate is an error, and so a temperror here.
type DNS interface {
	Lookup(ctx context.Context, name string, typ uint16) (*resolver.Answer, error)
	TXT(ctx context.Context, name string) ([]string, *resolver.Answer, error)
	Addresses(ctx context.Context, host string) ([]netip.Addr, resolver.State, error)
}

// maxTXT is the longest text that is looked at, in octets. A key of 16,384 bits has 2,800; the next size is work for us alone.
const maxTXT = 4096

// lookups is a DNS in the words of net.Resolver, which the libraries speak: absence and failure are *net.DNSError.
type lookups struct {
	ctx context.Context // of one message: go-msgauth passes none
	dns DNS
}

// LookupTXT returns texts; too long ones are left out.
func (l lookups) LookupTXT(ctx context.Context, name string) ([]string, error) {
	texts, a, err := l.dns.TXT(ctx, dns.Fqdn(name))
	if err := failure(name, a, err); err != nil {
		return nil, err
	}
	var list []string
	for _, t := range texts {
		if len(t) <= maxTXT {
			list = append(list, t)
		}
	}
	return list, nil
}

// LookupMX returns all exchangers; the library refuses more than ten.
func (l lookups) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a, err := l.dns.Lookup(ctx, dns.Fqdn(name), dns.TypeMX)
	if err := failure(name, a, err); err != nil {
		return nil, err
	}
	var list []*net.MX
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			list = append(list, &net.MX{Host: mx.Mx, Pref: mx.Preference})
		}
	}
	return list, nil
}

// LookupIPAddr returns the addresses of a host.
func (l lookups) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	list, _, err := l.dns.Addresses(ctx, host)
	if errors.Is(err, resolver.ErrNoAddress) || errors.Is(err, resolver.ErrBadName) {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	if err != nil {
		return nil, &net.DNSError{Err: "no answer", Name: host, IsTemporary: true}
	}
	var all []net.IPAddr
	for _, a := range list {
		all = append(all, net.IPAddr{IP: a.AsSlice()})
	}
	return all, nil
}

// LookupAddr returns the names of an address.
func (l lookups) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	reverse, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, &net.DNSError{Err: "no address", Name: addr, IsNotFound: true}
	}
	a, err := l.dns.Lookup(ctx, reverse, dns.TypePTR)
	if err := failure(addr, a, err); err != nil {
		return nil, err
	}
	var list []string
	for _, rr := range a.Records {
		if ptr, ok := rr.(*dns.PTR); ok {
			list = append(list, ptr.Ptr)
		}
	}
	return list, nil
}

// text is LookupTXT without a context, for go-msgauth. A name that no name can be is absent.
func (l lookups) text(name string) ([]string, error) {
	return l.LookupTXT(l.ctx, strings.TrimSuffix(name, "."))
}

// failure is a look-up's outcome as net.Resolver says it; nil when there is something.
func failure(name string, a *resolver.Answer, err error) error {
	switch {
	case errors.Is(err, resolver.ErrBadName), err == nil && len(a.Records) == 0:
		return &net.DNSError{Err: "nothing there", Name: name, IsNotFound: true}
	case err != nil:
		return &net.DNSError{Err: "no answer", Name: name, IsTemporary: true}
	}
	return nil
}

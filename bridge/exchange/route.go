package exchange

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/miekg/dns"

	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/dmtp/resolver"
)

// Bounds of one try.
const (
	maxHops    = 10               // hosts
	maxDials   = 10               // connections, over all addresses of all hosts
	maxAnswers = 3                // servers that answered and did not take the message
	maxSearch  = 10 * time.Minute // until a server has the message; it may then take its time
	smtpPort   = 25
	maxAddress = 6 // of one host
)

// A route is where mail for a domain goes.
type route struct {
	domain string // ASCII, lower case
	hops   []hop
	smart  bool
	secure bool     // DNSSEC proves the hops to be the domain's
	names  []string // the domain and, where that is proved, the name that its aliases lead to
	auth   func() sasl.Client

	asked  bool // the policy below is known
	policy *mtasts.Policy
	sts    error // why a policy that should be there is not, or mtasts.ErrUnknown
}

// A hop is one host that may take the mail.
type hop struct {
	host       string
	port       uint16
	preference uint16
}

// route finds where the mail goes (RFC 5321 §5).
func (t *try) route(ctx context.Context) (*route, *failure) {
	to := t.mail.To[strings.LastIndexByte(t.mail.To, '@')+1:]
	domain, err := resolver.NormalDomain(to)
	s := t.mail.Via
	if s.Host == "" && t.SmartHost != nil {
		s = t.SmartHost(domain)
	}
	if s.Host != "" {
		return &route{domain: domain, smart: true, hops: []hop{{host: s.Host, port: s.Port}}, names: []string{s.Host}, auth: s.Auth}, nil
	}
	if err != nil {
		return nil, &failure{class: queue.Permanent, status: "5.1.2", why: "what follows the @ is not a domain that mail can be sent to"}
	}
	list, null, a, err := t.DNS.Exchangers(ctx, domain)
	r := &route{domain: domain, names: []string{domain}}
	switch {
	case err != nil:
		f := dnsFailure(err, "the MX records of "+domain)
		t.report(r, tlsrpt.Session{Result: f.report, Reason: "MX", Unproven: true}, f)
		return nil, f
	case null:
		return nil, &failure{class: queue.Permanent, status: "5.1.10", why: domain + " takes no mail (null MX)"}
	case len(list) == 0 && a.NoName:
		return nil, &failure{class: queue.Permanent, status: "5.1.2", why: "there is no domain " + domain}
	case len(list) == 0 && len(a.Records) > 0:
		return nil, &failure{class: queue.Remote, status: "5.4.4", why: "the MX records of " + domain + " name no host"}
	case len(list) == 0:
		list = []resolver.Exchanger{{Host: domain}}
	}
	r.secure = a.State == resolver.Secure
	if owner := strings.TrimSuffix(a.Owner, "."); r.secure && owner != domain {
		r.names = append(r.names, owner)
	}
	return r, t.order(r, list)
}

// order makes hops of exchangers: best first, in no order among equals, and none that would lead back here: those are left
// out with all that are not better (RFC 5321 §5.1).
func (t *try) order(r *route, list []resolver.Exchanger) *failure {
	own := -1
	if t.Serves == nil || !t.Serves(r.domain) {
		own = slices.IndexFunc(list, func(e resolver.Exchanger) bool { return e.Host == t.Name || slices.Contains(t.Own, e.Host) })
	}
	if own >= 0 {
		p := list[own].Preference
		list = slices.DeleteFunc(slices.Clone(list), func(e resolver.Exchanger) bool { return e.Preference >= p })
		if len(list) == 0 {
			return &failure{class: queue.Permanent, status: "5.4.6", why: "mail for " + r.domain + " would come back here: its best MX is this gateway"}
		}
	}
	for _, e := range list {
		r.hops = append(r.hops, hop{e.Host, smtpPort, e.Preference})
	}
	rand.Shuffle(len(r.hops), func(i, j int) { r.hops[i], r.hops[j] = r.hops[j], r.hops[i] })
	slices.SortStableFunc(r.hops, func(a, b hop) int {
		if d := int(a.preference) - int(b.preference); d != 0 {
			return d
		}
		return t.pool.kept(b.key(false)) - t.pool.kept(a.key(false)) // a session that is there is better than a new one
	})
	r.hops = r.hops[:min(len(r.hops), maxHops)]
	return nil
}

// mtasts finds the domain's policy, once a try. It is for the way to the domain's own exchangers.
func (t *try) mtasts(ctx context.Context, r *route) (*mtasts.Policy, error) {
	if r.asked || r.smart || t.Policies == nil {
		return r.policy, r.sts
	}
	found, err := t.Policies.Find(ctx, r.domain)
	r.asked, r.policy, r.sts = true, found.Policy, err
	if found.Err != nil {
		result := tlsrpt.STSFetch
		switch {
		case errors.Is(found.Err, mtasts.ErrPolicy):
			result = tlsrpt.STSInvalid
		case mtasts.BadCertificate(found.Err):
			result = tlsrpt.STSWebPKI
		}
		t.report(r, tlsrpt.Session{Policy: tlsrpt.Policy{Kind: tlsrpt.STS, Domain: r.domain}, Result: result, Unproven: true}, nil)
	}
	return r.policy, r.sts
}

// A place is a host's addresses, and how far DNSSEC vouches for them.
type place struct {
	addresses []netip.Addr // IPv6 first
	state     resolver.State
	owner     string // where the aliases led, without the dot at the end
}

// place looks up the addresses of a hop. Of two families one is enough.
func (t *try) place(ctx context.Context, r *route, h hop) (place, *failure) {
	if ip, err := netip.ParseAddr(h.host); err == nil {
		return place{addresses: []netip.Addr{ip}, state: resolver.Insecure, owner: h.host}, nil
	}
	if r.smart && h.host == "localhost" {
		return place{addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, state: resolver.Insecure, owner: h.host}, nil
	}
	p := place{state: resolver.Secure, owner: h.host}
	var failed error
	for _, typ := range []uint16{dns.TypeAAAA, dns.TypeA} {
		a, err := t.DNS.Lookup(ctx, h.host+".", typ)
		if err != nil {
			failed = err
			continue
		}
		p.state = min(p.state, a.State)
		if len(a.Records) > 0 {
			p.owner = strings.TrimSuffix(a.Owner, ".")
		}
		p.addresses = append(p.addresses, addresses(a.Records)...)
	}
	if len(p.addresses) == 0 && failed != nil {
		return place{}, dnsFailure(failed, "the address of "+h.host)
	}
	found := len(p.addresses)
	if !r.smart && t.Permit != nil {
		p.addresses = slices.DeleteFunc(p.addresses, func(a netip.Addr) bool { return t.Permit(a) != nil })
	}
	switch {
	case found == 0 && h.host == r.domain:
		return place{}, &failure{class: queue.Permanent, status: "5.4.4", why: r.domain + " has neither MX nor address"}
	case found == 0:
		return place{}, &failure{class: queue.Remote, status: "5.4.4", why: h.host + " has no address"}
	case len(p.addresses) == 0:
		return place{}, &failure{class: queue.Remote, status: "5.4.4", why: h.host + " has no address that may be connected to"}
	}
	p.addresses = p.addresses[:min(len(p.addresses), maxAddress)]
	return p, nil
}

func addresses(records []dns.RR) (list []netip.Addr) {
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.AAAA:
			if ip, ok := netip.AddrFromSlice(rr.AAAA); ok && ip.Is6() && !ip.Is4In6() {
				list = append(list, ip)
			}
		case *dns.A:
			if ip, ok := netip.AddrFromSlice(rr.A); ok {
				list = append(list, ip.Unmap())
			}
		}
	}
	return list
}

// dnsFailure is a look-up without an answer: what is bogus is a matter of trust, the rest of the network. Neither is ever
// taken for "there is none".
func dnsFailure(err error, what string) *failure {
	if errors.Is(err, resolver.ErrBogus) {
		return &failure{class: queue.Trust, status: "5.7.5", why: what + " cannot be believed: DNSSEC validation failed", report: tlsrpt.DNSSECInvalid}
	}
	return &failure{class: queue.Network, status: "4.4.3", why: what + " cannot be had from DNS"}
}

package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Times of the DNS cache.
const (
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = time.Hour
	failureTTL     = 5 * time.Second  // how long a failed look-up is answered from memory
	lookupTimeout  = 20 * time.Second // one look-up with all its queries
	maxAnswers     = 8192
	maxCuts        = 8192
	maxServers     = 4
	cacheOctets    = 32 << 20 // of each cache here and of the resolver's
)

var errNoAnchor = errors.New("no trust anchor above this name")

// DNSConfig says whom to ask and whom to trust.
type DNSConfig struct {
	Servers []string // recursive resolvers, address:port, in order of preference; two are wise, four the most
	Anchors *Anchors // nil: the keys of the public root
	// TrustAD believes the resolver's own validation (the AD bit, RFC 6840 §5.8) in place of ours. Every server must
	// be a loopback address, since nobody signs the bit. No chain can be kept as evidence then.
	TrustAD bool
	Timeout time.Duration    // of one question to one resolver over TCP; over UDP two fifths of it; 0: 5s
	Now     func() time.Time // nil: time.Now
}

// DNS looks names up through recursive resolvers and validates the answers itself. Safe for concurrent use; it starts
// nothing.
type DNS struct {
	servers   []string
	preferred atomic.Uint32
	anchors   *Anchors
	trustAD   bool
	now       func() time.Time
	exchange  exchanger

	answers  *cache[*Answer]
	failures *cache[*DNSError]
	tops     *cache[*zone]
	cuts     *cache[*cut]
	flight   flight[*Answer]
}

// NewDNS checks the configuration.
func NewDNS(c DNSConfig) (*DNS, error) {
	if len(c.Servers) == 0 || len(c.Servers) > maxServers {
		return nil, fmt.Errorf("resolvers: %d given, 1 to %d wanted", len(c.Servers), maxServers)
	}
	for _, s := range c.Servers {
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Port() == 0 {
			return nil, fmt.Errorf("resolvers: %q is not address:port", s)
		}
		if c.TrustAD && !a.Addr().Unmap().IsLoopback() {
			return nil, fmt.Errorf("resolvers: %s: the AD bit is believed of loopback addresses only", s)
		}
	}
	d := &DNS{
		servers: c.Servers, anchors: c.Anchors, trustAD: c.TrustAD, now: c.Now,
	}
	d.flush()
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	d.exchange = func(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
		limit := c.Timeout
		if network == "udp" {
			limit = c.Timeout * 2 / 5
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return exchange(ctx, network, server, q)
	}
	if d.anchors == nil {
		d.anchors = RootAnchors()
	}
	if d.now == nil {
		d.now = time.Now
	}
	return d, nil
}

// flush makes the caches, empty.
func (d *DNS) flush() {
	d.answers, d.failures = newCache(maxAnswers, cacheOctets, (*Answer).octets), newCache(maxAnswers, cacheOctets, (*DNSError).octets)
	d.tops, d.cuts = newCache(maxAnchors, cacheOctets, (*zone).octets), newCache(maxCuts, cacheOctets, (*cut).octets)
}

// An Answer is a look-up's result that may be used as far as its State goes: Secure or Insecure. It is shared between
// callers: do not change it.
type Answer struct {
	Name    string // as asked, canonical, with the dot at the end
	Type    string
	Owner   string   // where the aliases led
	Records []dns.RR // of that type at Owner, in the order received; none: absent, and State says how surely
	NoName  bool     // absent: the whole name, not only the type
	State   State
	Why     string // of Insecure: where the chain ends
	Until   time.Time
	At      time.Time
	Server  string
	Chain   []Link
}

// Lookup asks for the records of that type at name and follows aliases. The error is a *DNSError, or ErrBadName.
func (d *DNS) Lookup(ctx context.Context, name string, typ uint16) (*Answer, error) {
	if _, ok := dns.IsDomainName(name); !ok || len(name) > 255 {
		return nil, ErrBadName
	}
	name = dns.CanonicalName(name)
	key := fmt.Sprintf("%d/%s", typ, name)
	now := d.now()
	if a, ok := d.answers.get(key, now); ok {
		return a, nil
	}
	if e, ok := d.failures.get(key, now); ok {
		return nil, e
	}
	return d.flight.do(ctx, key, func(ctx context.Context) (*Answer, error) {
		a, err := d.lookup(ctx, name, typ)
		if err != nil {
			if e, ok := errors.AsType[*DNSError](err); ok && ctx.Err() == nil {
				d.failures.put(key, e, now.Add(failureTTL), now)
			}
			return nil, err
		}
		d.answers.put(key, a, a.Until, now)
		return a, nil
	})
}

// lookup asks without the cache. What one resolver serves as bogus, another may serve right: it is asked, too, before we
// say so.
func (d *DNS) lookup(ctx context.Context, name string, typ uint16) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var failed *DNSError
	for shift := range uint32(min(2, len(d.servers))) {
		b := newBudget(d.now(), shift)
		a := &Answer{Name: name, Type: typeName(typ), Owner: name, State: Secure, At: b.now, Until: b.now.Add(maxTTL)}
		err := d.resolve(ctx, b, a, typ)
		if err == nil {
			return a, nil
		}
		failed = &DNSError{Name: name, Type: a.Type, State: Indeterminate, Why: "no answer", Chain: a.Chain, Err: err}
		if !isBogus(err) {
			break
		}
		failed.State, failed.Why, failed.Err = Bogus, err.Error(), nil
	}
	return nil, failed
}

// resolve fills a in, alias by alias.
func (d *DNS) resolve(ctx context.Context, b *budget, a *Answer, typ uint16) error {
	seen := map[string]bool{a.Owner: true}
	for range maxAliases + 1 {
		target, err := d.step(ctx, b, a, typ)
		if err != nil || target == "" {
			return err
		}
		if seen[target] {
			return errors.New("aliases lead in a circle")
		}
		seen[target] = true
		a.Owner = target
	}
	return errLimit
}

// step asks for a.Owner and takes in what comes: the records, their absence, or the next name.
func (d *DNS) step(ctx context.Context, b *budget, a *Answer, typ uint16) (next string, err error) {
	r, err := d.fetch(ctx, b, a.Owner, typ)
	if err != nil {
		return "", err
	}
	a.Server = r.server
	if set := r.find(a.Owner, typ); set != nil {
		a.Records = set.rrs
		return "", d.take(ctx, b, a, r, set, "answer")
	}
	if typ != dns.TypeCNAME {
		set, target, err := alias(r)
		if err != nil {
			return "", err
		}
		if set != nil {
			return target, d.take(ctx, b, a, r, set, "alias")
		}
	}
	return "", d.takeAbsence(ctx, b, a, r)
}

// alias returns the CNAME at the name asked for, or the DNAME above it from which one is made, and where it leads.
func alias(r *reply) (*rrset, string, error) {
	cname := r.find(r.name, dns.TypeCNAME)
	if cname != nil && len(cname.rrs) != 1 {
		return nil, "", bogusf("%s CNAME: more than one", r.name)
	}
	if cname == nil || len(cname.sigs) == 0 {
		for _, s := range r.answer {
			if s.typ != dns.TypeDNAME || s.name == r.name || !dns.IsSubDomain(s.name, r.name) {
				continue
			}
			to, ok := s.rrs[0].(*dns.DNAME)
			if len(s.rrs) != 1 || !ok {
				return nil, "", bogusf("%s DNAME: more than one", s.name)
			}
			target := r.name[:len(r.name)-len(s.name)] + dns.CanonicalName(to.Target)
			if s.name == "." {
				target = r.name + dns.CanonicalName(to.Target)
			}
			if _, ok := dns.IsDomainName(target); !ok || len(target) > 255 {
				return nil, "", bogusf("%s DNAME: the name that it makes is too long", s.name)
			}
			return s, target, nil // the CNAME beside it is made by the server and proves nothing
		}
	}
	if cname == nil {
		return nil, "", nil
	}
	to, ok := cname.rrs[0].(*dns.CNAME)
	if !ok {
		return nil, "", errGarbled
	}
	return cname, dns.CanonicalName(to.Target), nil
}

// take judges one set of the answer section and adds it to a: state, life and chain.
func (d *DNS) take(ctx context.Context, b *budget, a *Answer, r *reply, set *rrset, what string) error {
	if d.trustAD {
		d.takeAD(a, r, b.now.Add(set.ttl()))
		return nil
	}
	z, sig, extra, err := d.judge(ctx, b, r, set)
	if z != nil {
		a.Chain = append(a.Chain, newLinks(a.Chain, z.chain)...)
	}
	if err != nil {
		return err
	}
	records := set.strings(sig)
	until := b.now.Add(validFor(set, sig, b.now))
	if extra != nil {
		records = append(records, extra.records...)
		until = earlier(until, b.now.Add(extra.ttl))
	}
	a.Chain = append(a.Chain, Link{z.name, what, records, r.at})
	a.lower(z.state, z.why)
	a.Until = earlier(a.Until, earlier(until, z.until))
	return nil
}

// newLinks returns the links of more that have does not hold yet: aliases share the upper part of the tree.
func newLinks(have, more []Link) []Link {
	var out []Link
	for _, m := range more {
		known := false
		for _, h := range have {
			known = known || h.Zone == m.Zone && h.What == m.What && len(h.Records) > 0 && len(m.Records) > 0 && h.Records[0] == m.Records[0]
		}
		if !known {
			out = append(out, m)
		}
	}
	return out
}

func (a *Answer) lower(s State, why string) {
	if s < a.State {
		a.State, a.Why = s, why
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// judge finds the zone that vouches for set. Its signer is tried first; if that fails, the zone in which the name lies
// by the DS records decides whether the set may be unsigned. The zone comes back Insecure in that case. extra is the
// proof that a wildcard may stand for the name.
func (d *DNS) judge(ctx context.Context, b *budget, r *reply, set *rrset) (z *zone, sig *dns.RRSIG, extra *proof, err error) {
	var why error
	for _, signer := range signers(set, set.name, set.typ) {
		z, err := d.walk(ctx, b, signer)
		if err != nil && !isBogus(err) {
			return nil, nil, nil, err
		}
		if err != nil {
			why = err
			continue
		}
		if z.state == Insecure {
			return z, nil, nil, nil
		}
		if z.name != signer {
			why = bogusf("%s %s: signed by what is no zone", set.name, typeName(set.typ))
			continue
		}
		sig, err := verifySet(b, set, z.name, z.keys)
		if err == nil && isWildcard(set, sig) {
			var s State
			if s, extra, err = proveExpansion(b, z, r, set, sig); err == nil && s == Insecure {
				z = &zone{name: z.name, state: Insecure, why: z.name + " opts out around " + set.name, until: z.until, chain: z.chain}
			}
		}
		switch {
		case err == nil:
			return z, sig, extra, nil
		case !isBogus(err):
			return z, nil, nil, err
		}
		why = err
	}
	at := set.name
	if set.typ == dns.TypeDS {
		at = parent(at)
	}
	z, err = d.walk(ctx, b, at)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case z.state == Insecure:
		return z, nil, nil, nil
	case why == nil:
		why = bogusf("%s %s: no signature, in a signed zone", set.name, typeName(set.typ))
	}
	return z, nil, nil, why
}

// takeAbsence judges an answer without the records: what proves their absence, and how surely.
func (d *DNS) takeAbsence(ctx context.Context, b *budget, a *Answer, r *reply) error {
	a.NoName = r.rcode == dns.RcodeNameError
	unsignedTTL := negativeTTL(r)
	if d.trustAD {
		d.takeAD(a, r, b.now.Add(unsignedTTL))
		return nil
	}
	z, p, err := d.judgeAbsence(ctx, b, r)
	if z != nil {
		a.Chain = append(a.Chain, newLinks(a.Chain, z.chain)...)
	}
	if err != nil {
		return err
	}
	ttl := unsignedTTL
	if p != nil {
		ttl = p.ttl
		a.Chain = append(a.Chain, Link{z.name, "denial", p.records, r.at})
		if p.what == unsigned {
			a.lower(Insecure, p.why)
		} else {
			a.NoName = p.what == noName
		}
	}
	a.lower(z.state, z.why)
	a.Until = earlier(a.Until, earlier(b.now.Add(ttl), z.until))
	return nil
}

// judgeAbsence is judge for what is not there. A nil proof goes with an Insecure zone.
func (d *DNS) judgeAbsence(ctx context.Context, b *budget, r *reply) (*zone, *proof, error) {
	var why error
	for _, s := range r.authority {
		if s.typ != dns.TypeNSEC && s.typ != dns.TypeNSEC3 && s.typ != dns.TypeSOA {
			continue
		}
		signer := signers(s, r.name, r.typ)
		if len(signer) == 0 {
			continue
		}
		z, err := d.walk(ctx, b, signer[0])
		if err != nil && !isBogus(err) {
			return nil, nil, err
		}
		if err == nil && z.state == Insecure {
			return z, nil, nil
		}
		if err == nil && z.name == signer[0] {
			p, err := deny(b, z, r)
			if err == nil && p.what != noProof {
				return z, p, nil
			}
			if err != nil && !isBogus(err) {
				return z, nil, err
			}
			why = err
		}
		break // the first signed set decides: all of an answer come from one zone
	}
	at := r.name
	if r.typ == dns.TypeDS {
		at = parent(at)
	}
	z, err := d.walk(ctx, b, at)
	switch {
	case err != nil:
		return nil, nil, err
	case z.state == Insecure:
		return z, nil, nil
	case why == nil:
		why = bogusf("%s %s: absent without proof, in a signed zone", r.name, typeName(r.typ))
	}
	return z, nil, why
}

// signers returns who may have signed s, an ancestor of name or, but for DS, name itself: three at most.
func signers(s *rrset, name string, typ uint16) []string {
	var list []string
next:
	for i, sig := range s.sigs {
		if i == maxSigsPerSet || len(list) == 3 {
			break
		}
		if !dns.IsSubDomain(sig.SignerName, name) || typ == dns.TypeDS && sig.SignerName == name {
			continue
		}
		for _, l := range list {
			if l == sig.SignerName {
				continue next
			}
		}
		list = append(list, sig.SignerName)
	}
	return list
}

// negativeTTL is how long an unsigned "no" is believed (RFC 2308 §5).
func negativeTTL(r *reply) time.Duration {
	for _, s := range r.authority {
		if soa, ok := s.rrs[0].(*dns.SOA); ok {
			return min(maxNegativeTTL, s.ttl(), time.Duration(soa.Minttl)*time.Second)
		}
	}
	return time.Minute
}

// takeAD believes the resolver: with the AD bit Secure, without it Insecure; what is bogus to it, it answers SERVFAIL.
func (d *DNS) takeAD(a *Answer, r *reply, until time.Time) {
	if !r.ad {
		a.lower(Insecure, "the resolver has not validated it")
	}
	a.Until = earlier(a.Until, until)
}

// LocalServers reads the resolvers of this machine's resolv.conf form.
func LocalServers(path string) ([]string, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("resolvers: %w", err)
	}
	var out []string
	for _, s := range c.Servers[:min(len(c.Servers), maxServers)] {
		out = append(out, net.JoinHostPort(s, c.Port))
	}
	return out, nil
}

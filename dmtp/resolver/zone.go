package resolver

import (
	"context"
	"time"

	"github.com/miekg/dns"
)

// A Link is one step of the chain of trust that was seen: the records that the next step rests on, with the signature
// that held, in presentation form. With the anchors it can be verified again by anyone, at the time At.
type Link struct {
	Zone    string    `json:"zone"`
	What    string    `json:"what"` // "anchor", "keys", "delegation", "unsigned delegation", "answer", "denial", "alias"
	Records []string  `json:"records"`
	At      time.Time `json:"at"`
}

// A zone is a place in the tree where the same keys hold. Never changed once made.
type zone struct {
	name  string
	state State     // Secure or Insecure
	why   string    // of Insecure
	keys  []zoneKey // of Secure
	until time.Time
	chain []Link // from the anchor down to here
}

// A cut is what the walk down found at one name: a zone that begins there, or none.
type cut struct {
	zone  *zone // nil: no zone begins here
	below bool  // without a zone: none begins below either
	until time.Time
}

// walk returns the zone that holds name: the anchor's, then down label by label through the DS records or the proofs
// that there are none (RFC 4035 §4.2, RFC 6840 §5.11). An Insecure zone ends the walk. For the records that the parent
// holds (DS), ask for the parent of name. The error is a *bogusError or says why it cannot be known.
func (d *DNS) walk(ctx context.Context, b *budget, name string) (*zone, error) {
	top := d.anchors.closest(name)
	if top == "" {
		return nil, errNoAnchor
	}
	z, err := d.top(ctx, b, top)
	if err != nil {
		return nil, err
	}
	from, to := dns.CountLabel(top)+1, dns.CountLabel(name)
	if to-from > maxZoneDepth {
		return nil, errLimit
	}
	for n := from; n <= to && z.state == Secure; n++ {
		c, err := d.cutAt(ctx, b, z, lastLabels(name, n))
		if err != nil {
			return nil, err
		}
		if c.zone != nil {
			z = c.zone
		} else if c.below {
			break
		}
	}
	return z, nil
}

// top returns the zone of a trust anchor with its keys.
func (d *DNS) top(ctx context.Context, b *budget, name string) (*zone, error) {
	if z, ok := d.tops.get(name, b.now); ok {
		return z, nil
	}
	vouchers := d.anchors.byZone[name]
	var texts []string
	for _, rr := range vouchers {
		texts = append(texts, rr.String())
	}
	z, err := d.prime(ctx, b, name, vouchers, []Link{{name, "anchor", texts, b.now}}, b.now.Add(maxTTL))
	if err != nil {
		return nil, err
	}
	d.tops.put(name, z, z.until, b.now)
	return z, nil
}

// prime fetches the keys of a zone and lets those that the vouchers name verify the whole set (RFC 4035 §5.2).
func (d *DNS) prime(ctx context.Context, b *budget, name string, vouchers []dns.RR, chain []Link, until time.Time) (*zone, error) {
	if _, usable := anchored(vouchers, nil); !usable {
		return &zone{name: name, state: Insecure, why: name + " is signed with nothing that is in use", until: until, chain: chain}, nil
	}
	r, err := d.fetch(ctx, b, name, dns.TypeDNSKEY)
	if err != nil {
		return nil, err
	}
	set := r.find(name, dns.TypeDNSKEY)
	if set == nil {
		return nil, bogusf("%s DNSKEY: none, though its parent names some", name)
	}
	keys, err := keysOf(set.rrs)
	if err != nil {
		return nil, err
	}
	trusted, _ := anchored(vouchers, keys)
	sig, err := verifySet(b, set, name, trusted)
	if err != nil {
		return nil, err
	}
	if end := b.now.Add(validFor(set, sig, b.now)); end.Before(until) {
		until = end
	}
	chain = append(chain[:len(chain):len(chain)], Link{name, "keys", set.strings(sig), r.at})
	return &zone{name: name, state: Secure, keys: keys, until: until, chain: chain}, nil
}

// cutAt tells whether a zone begins at name, which lies in z, and returns it with its keys.
func (d *DNS) cutAt(ctx context.Context, b *budget, z *zone, name string) (*cut, error) {
	if c, ok := d.cuts.get(name, b.now); ok {
		return c, nil
	}
	r, err := d.fetch(ctx, b, name, dns.TypeDS)
	if err != nil {
		return nil, err
	}
	c, err := d.readCut(ctx, b, z, r)
	if err != nil {
		return nil, err
	}
	if c.until.After(z.until) {
		c.until = z.until
	}
	d.cuts.put(name, c, c.until, b.now)
	return c, nil
}

func (d *DNS) readCut(ctx context.Context, b *budget, z *zone, r *reply) (*cut, error) {
	if set := r.find(r.name, dns.TypeDS); set != nil {
		if len(set.rrs) > maxDSPerZone {
			return nil, errLimit
		}
		sig, err := verifySet(b, set, z.name, z.keys)
		if err != nil {
			return nil, err
		}
		if isWildcard(set, sig) {
			return nil, bogusf("%s DS: made from a wildcard", r.name)
		}
		chain := append(z.chain[:len(z.chain):len(z.chain)], Link{z.name, "delegation", set.strings(sig), r.at})
		child, err := d.prime(ctx, b, r.name, set.rrs, chain, b.now.Add(validFor(set, sig, b.now)))
		if err != nil {
			return nil, err
		}
		return &cut{zone: child, until: child.until}, nil
	}
	if set, _, err := alias(r); err != nil {
		return nil, err
	} else if set != nil { // an alias cannot be a delegation; what lies below a CNAME can
		sig, err := verifySet(b, set, z.name, z.keys)
		if err != nil {
			return nil, err
		}
		return &cut{until: b.now.Add(validFor(set, sig, b.now)), below: set.typ == dns.TypeDNAME || isWildcard(set, sig)}, nil
	}
	proof, err := deny(b, z, r)
	if err != nil {
		return nil, err
	}
	until := b.now.Add(proof.ttl)
	switch proof.what {
	case noData, noName:
		return &cut{until: until, below: proof.what == noName}, nil
	case openCut, unsigned:
		why := "no DS at " + r.name
		if proof.why != "" {
			why = proof.why
		}
		chain := append(z.chain[:len(z.chain):len(z.chain)], Link{z.name, "unsigned delegation", proof.records, r.at})
		return &cut{zone: &zone{name: r.name, state: Insecure, why: why, until: until, chain: chain}, until: until}, nil
	}
	return nil, bogusf("%s DS: neither there nor proved absent", r.name)
}

// isWildcard tells that the records were made from a wildcard: the signature has fewer labels than the owner.
func isWildcard(s *rrset, sig *dns.RRSIG) bool { return int(sig.Labels) < ownerLabels(s.name) }

package resolver

import (
	"time"

	"github.com/miekg/dns"
)

// A proof is what the authority section of an answer proves, and on what records it rests.
type proof struct {
	what    denial
	why     string // of unsigned
	ttl     time.Duration
	records []string
}

// denialSets returns the verified NSEC and NSEC3 sets of zone z in r. A set of z that does not verify is an error; sets
// that other zones signed are passed over.
func denialSets(b *budget, z *zone, r *reply) (nsec []*dns.NSEC, nsec3 []*dns.NSEC3, p *proof, err error) {
	p = &proof{ttl: maxNegativeTTL}
	n := 0
	for _, s := range r.authority {
		if s.typ != dns.TypeNSEC && s.typ != dns.TypeNSEC3 && s.typ != dns.TypeSOA || !signedBy(s, z.name) {
			continue
		}
		if n++; n > maxDenialSets {
			return nil, nil, nil, errLimit
		}
		sig, err := verifySet(b, s, z.name, z.keys)
		if err != nil {
			return nil, nil, nil, err
		}
		if isWildcard(s, sig) && s.typ != dns.TypeNSEC { // an expanded NSEC would lie about its owner, as the rest would
			return nil, nil, nil, bogusf("%s %s: made from a wildcard", s.name, typeName(s.typ))
		}
		p.ttl = min(p.ttl, validFor(s, sig, b.now))
		if s.typ == dns.TypeSOA {
			if soa, ok := s.rrs[0].(*dns.SOA); ok { // RFC 2308 §5
				p.ttl = min(p.ttl, time.Duration(soa.Minttl)*time.Second)
			}
			continue
		}
		if isWildcard(s, sig) {
			continue
		}
		for _, rr := range s.rrs {
			switch rr := rr.(type) {
			case *dns.NSEC:
				nsec = append(nsec, rr)
			case *dns.NSEC3:
				nsec3 = append(nsec3, rr)
			}
		}
		p.records = append(p.records, s.strings(sig)...)
	}
	return nsec, nsec3, p, nil
}

func signedBy(s *rrset, zone string) bool {
	for _, sig := range s.sigs {
		if sig.SignerName == zone {
			return true
		}
	}
	return false
}

// deny reads what r, an answer without the records asked for, proves in zone z. The code of the answer is not looked
// at: nobody signs it.
func deny(b *budget, z *zone, r *reply) (*proof, error) {
	nsec, nsec3, p, err := denialSets(b, z, r)
	if err != nil {
		return nil, err
	}
	if p.what = nsecDenies(nsec, r.name, r.typ); p.what != noProof || len(nsec3) == 0 {
		return p, nil
	}
	h, tooMany, err := newNSEC3Proof(b, z.name, nsec3)
	if err != nil {
		return nil, err
	}
	if tooMany {
		p.what, p.why = unsigned, z.name+" wants too many NSEC3 iterations"
		return p, nil
	}
	if p.what = h.denies(r.name, r.typ); p.what == unsigned {
		p.why = z.name + " opts out around " + r.name
	}
	return p, h.err
}

// proveExpansion shows that the wildcard from which s was made is the closest match to its name. state is Insecure when
// the proof is of a span that is opted out or of a zone that wants too much hashing.
func proveExpansion(b *budget, z *zone, r *reply, s *rrset, sig *dns.RRSIG) (state State, p *proof, err error) {
	nsec, nsec3, p, err := denialSets(b, z, r)
	if err != nil {
		return Bogus, nil, err
	}
	closest := lastLabels(s.name, int(sig.Labels))
	if nsecProvesExpansion(nsec, s.name, closest) {
		return Secure, p, nil
	}
	if len(nsec3) > 0 {
		h, tooMany, err := newNSEC3Proof(b, z.name, nsec3)
		if err != nil {
			return Bogus, nil, err
		}
		if tooMany {
			return Insecure, p, nil
		}
		ok, optOut := h.provesExpansion(s.name, closest)
		switch {
		case h.err != nil:
			return Bogus, nil, h.err
		case ok && optOut:
			return Insecure, p, nil
		case ok:
			return Secure, p, nil
		}
	}
	return Bogus, nil, bogusf("%s %s: made from a wildcard, without proof that it may be", s.name, typeName(s.typ))
}

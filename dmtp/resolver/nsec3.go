package resolver

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// An nsec3Proof reads NSEC3 records, verified and all of one zone (RFC 5155 §8).
type nsec3Proof struct {
	b       *budget
	zone    string
	records []*dns.NSEC3
	hashes  map[string]string
	err     error // the budget's
}

// newNSEC3Proof keeps the records that can be read: a known hash and no unknown flag (RFC 5155 §8.1, §8.2). All must
// have the same parameters. tooMany tells that the zone asks for more iterations than we do.
func newNSEC3Proof(b *budget, zone string, records []*dns.NSEC3) (p *nsec3Proof, tooMany bool, err error) {
	p = &nsec3Proof{b: b, zone: zone, hashes: map[string]string{}}
	for _, n := range records {
		if n.Hash != dns.SHA1 || n.Flags > 1 || parent(n.Hdr.Name) != zone {
			continue
		}
		if n.Iterations > maxIterations {
			return nil, true, nil
		}
		if len(p.records) > 0 {
			if f := p.records[0]; f.Iterations != n.Iterations || lower(f.Salt) != lower(n.Salt) {
				return nil, false, bogusf("%s NSEC3: parameters differ", zone)
			}
		}
		p.records = append(p.records, n)
	}
	return p, false, nil
}

// hash returns the hash of name in the form of an owner's label, upper case; "" after the budget has ended.
func (p *nsec3Proof) hash(name string) string {
	if h, ok := p.hashes[name]; ok {
		return h
	}
	if p.err == nil {
		p.err = p.b.hash()
	}
	if p.err != nil {
		return ""
	}
	f := p.records[0]
	h := dns.HashName(name, f.Hash, f.Iterations, f.Salt)
	p.hashes[name] = h
	return h
}

// match returns the record of name itself, or nil.
func (p *nsec3Proof) match(name string) *dns.NSEC3 {
	h := p.hash(name)
	for _, n := range p.records {
		if h != "" && ownerHash(n) == h {
			return n
		}
	}
	return nil
}

// cover returns a record whose span holds the hash of name, so that name does not exist (or is opted out), or nil.
func (p *nsec3Proof) cover(name string) *dns.NSEC3 {
	h := p.hash(name)
	if h == "" {
		return nil
	}
	for _, n := range p.records {
		owner, next := ownerHash(n), strings.ToUpper(n.NextDomain)
		if len(next) != len(h) || len(owner) != len(h) {
			continue
		}
		inside := owner < h && h < next
		if owner >= next { // the last of the zone, or the only one
			inside = owner < h || h < next
		}
		if inside && h != owner {
			return n
		}
	}
	return nil
}

func ownerHash(n *dns.NSEC3) string {
	label, _, _ := strings.Cut(n.Hdr.Name, ".")
	return strings.ToUpper(label)
}

// closest returns the closest encloser of name that the records prove, and the record that covers the name one label
// longer (RFC 5155 §8.3). ok is false without such a proof.
func (p *nsec3Proof) closest(name string) (ce string, nextCloser *dns.NSEC3, ok bool) {
	labels := dns.CountLabel(name)
	for n := labels - 1; n >= dns.CountLabel(p.zone); n-- {
		ce = lastLabels(name, n)
		m := p.match(ce)
		if m == nil {
			continue
		}
		if isDelegation(m.TypeBitMap) || slices.Contains(m.TypeBitMap, dns.TypeDNAME) { // says nothing of what lies below
			return "", nil, false
		}
		nextCloser = p.cover(lastLabels(name, n+1))
		return ce, nextCloser, nextCloser != nil
	}
	return "", nil, false
}

// denies reads what the records prove about name and typ (RFC 5155 §8.4 to §8.7).
func (p *nsec3Proof) denies(name string, typ uint16) denial {
	if len(p.records) == 0 || !dns.IsSubDomain(p.zone, name) {
		return noProof
	}
	if m := p.match(name); m != nil {
		return bitmapDenies(m.TypeBitMap, name, typ)
	}
	ce, next, ok := p.closest(name)
	if !ok {
		return noProof
	}
	optOut := next.Flags&1 != 0
	wild := wildcardOf(ce)
	if w := p.match(wild); w != nil {
		if d := bitmapDenies(w.TypeBitMap, wild, typ); d == noProof || !optOut {
			return d
		}
		return unsigned
	}
	switch {
	case optOut: // an unsigned delegation may stand here, and DS has no wildcard: RFC 5155 §8.6
		return unsigned
	case p.cover(wild) != nil:
		return noName
	}
	return noProof
}

// provesExpansion tells that nothing closer to name exists than the wildcard right under closest (RFC 5155 §8.8), and
// whether that span is opted out.
func (p *nsec3Proof) provesExpansion(name, closest string) (ok, optOut bool) {
	if len(p.records) == 0 {
		return false, false
	}
	n := p.cover(lastLabels(name, dns.CountLabel(closest)+1))
	if n == nil {
		return false, false
	}
	return true, n.Flags&1 != 0
}

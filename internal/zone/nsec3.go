package zone

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// hashNames makes the NSEC3 chain and signs it: every name, and the empty ones between a name and the zone's own.
func (z *signed) hashNames() error {
	c := z.NSEC3
	salt := uint8(len(c.Salt) / 2)
	z.put(&dns.NSEC3PARAM{Hdr: header(z.name, dns.TypeNSEC3PARAM), Hash: dns.SHA1, Iterations: c.Iterations, SaltLength: salt, Salt: c.Salt})
	names := map[string]string{} // by hash
	for _, name := range z.list {
		if c.OptOut && z.cuts[name] && z.sets[name][dns.TypeDS] == nil {
			continue
		}
		for ; ; name = parent(name) {
			names[z.hash(name)] = name
			if name == z.name {
				break
			}
		}
	}
	z.hashes, z.hashed = slices.Sorted(maps.Keys(names)), map[string][]dns.RR{}
	for i, h := range z.hashes {
		n := &dns.NSEC3{Hdr: header(strings.ToLower(h)+"."+trimRoot(z.name), dns.TypeNSEC3), Hash: dns.SHA1, Iterations: c.Iterations,
			SaltLength: salt, Salt: c.Salt, HashLength: 20, NextDomain: z.hashes[(i+1)%len(z.hashes)]}
		if c.OptOut {
			n.Flags = 1
		}
		if name := names[h]; z.sets[name] != nil {
			n.TypeBitMap = z.types(name)
			if !z.cuts[name] || z.sets[name][dns.TypeDS] != nil { // something of it is signed
				n.TypeBitMap = z.types(name, dns.TypeRRSIG)
			}
		}
		sig, err := z.signature([]dns.RR{n})
		if err != nil {
			return err
		}
		z.hashed[h] = []dns.RR{n, sig}
	}
	if len(z.hashes) < len(names) {
		return errors.New("two names with one hash")
	}
	return nil
}

func (z *signed) hash(name string) string {
	return dns.HashName(name, dns.SHA1, z.NSEC3.Iterations, z.NSEC3.Salt)
}

// span returns the hash whose NSEC3 matches or covers name.
func (z *signed) span(name string) (h string, match bool) {
	i, match := slices.BinarySearch(z.hashes, z.hash(name))
	if !match {
		i = (i - 1 + len(z.hashes)) % len(z.hashes)
	}
	return z.hashes[i], match
}

// hashedDenial is denial with hashed names (RFC 5155 §7.2).
func (z *signed) hashedDenial(name string, wildcard bool) []dns.RR {
	spans := []string{}
	if h, match := z.span(name); match {
		spans = append(spans, h)
	} else {
		next, ce := name, parent(name)
		h, match := z.span(ce)
		for ; !match; h, match = z.span(ce) {
			next, ce = ce, parent(ce)
		}
		cover, _ := z.span(next)
		spans = append(spans, h, cover)
		if wildcard {
			star, _ := z.span("*." + trimRoot(ce))
			spans = append(spans, star)
		}
	}
	slices.Sort(spans)
	var out []dns.RR
	for _, h := range slices.Compact(spans) {
		out = append(out, visible(z.hashed[h], true)...)
	}
	return out
}

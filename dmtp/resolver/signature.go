package resolver

import (
	"errors"
	"time"

	"github.com/miekg/dns"
)

// clockSkew is how far our clock and a signer's may differ.
const clockSkew = 5 * time.Minute

// A zoneKey is one DNSKEY of a zone with its tag.
type zoneKey struct {
	tag uint16
	key *dns.DNSKEY
}

// verifySet looks for one signature over s that a key of zone made and that holds now (RFC 4035 §5.3). One that holds is
// enough (RFC 6840 §5.4). The error says why the last one did not, and is a *bogusError unless the budget ended.
func verifySet(b *budget, s *rrset, zone string, keys []zoneKey) (*dns.RRSIG, error) {
	if len(s.sigs) == 0 {
		return nil, bogusf("%s %s: no signature", s.name, typeName(s.typ))
	}
	why := "not signed by its zone"
	for i, sig := range s.sigs {
		if i == maxSigsPerSet {
			break
		}
		if w := unfit(sig, s, zone, b.now); w != "" {
			why = w
			continue
		}
		why = "no key made its signature"
		tried := 0
		for _, k := range keys {
			if k.tag != sig.KeyTag || k.key.Algorithm != sig.Algorithm {
				continue
			}
			if tried++; tried > maxKeysPerTag {
				break
			}
			if err := b.signature(); err != nil {
				return nil, err
			}
			if sig.Verify(k.key, s.rrs) == nil {
				return sig, nil
			}
			why = "wrong signature"
		}
	}
	return nil, bogusf("%s %s: %s", s.name, typeName(s.typ), why)
}

// unfit says why sig cannot be one over s by zone at that time, or "".
func unfit(sig *dns.RRSIG, s *rrset, zone string, now time.Time) string {
	switch {
	case sig.SignerName != zone || !dns.IsSubDomain(zone, s.name):
		return "not signed by its zone"
	case sig.TypeCovered != s.typ || sig.Header().Name != s.name:
		return "signature covers something else"
	case !supportedAlgorithm(sig.Algorithm):
		return "signature of an algorithm that is not in use"
	case int(sig.Labels) > ownerLabels(s.name) || int(sig.Labels) < dns.CountLabel(zone):
		return "signature with a wrong label count"
	}
	t := uint32(now.Unix()) // serial arithmetic (RFC 1982, RFC 4034 §3.1.5)
	skew := int32(clockSkew / time.Second)
	switch {
	case int32(sig.Expiration-sig.Inception) < 0:
		return "signature that ends before it begins"
	case int32(t-sig.Inception) < -skew:
		return "signature not yet valid"
	case int32(sig.Expiration-t) < -skew:
		return "signature expired"
	}
	return ""
}

// ownerLabels counts as the Labels field of RRSIG does: without the root and without a leading wildcard.
func ownerLabels(name string) int {
	n := dns.CountLabel(name)
	if len(name) >= 2 && name[:2] == "*." {
		n--
	}
	return n
}

// validFor bounds the use of a verified set: TTL, original TTL, and the end of the signature (RFC 4035 §5.3.3).
func validFor(s *rrset, sig *dns.RRSIG, now time.Time) time.Duration {
	ttl := s.ttl()
	if sig == nil {
		return ttl
	}
	ttl = min(ttl, time.Duration(sig.OrigTtl)*time.Second)
	left := time.Duration(int32(sig.Expiration-uint32(now.Unix()))) * time.Second
	return max(0, min(ttl, left))
}

// keysOf returns the zone keys among rrs (RFC 4034 §2.1): zone flag, protocol 3, not revoked, an algorithm we verify.
func keysOf(rrs []dns.RR) ([]zoneKey, error) {
	if len(rrs) > maxKeysPerZone {
		return nil, errLimit
	}
	var keys []zoneKey
	for _, rr := range rrs {
		k, ok := rr.(*dns.DNSKEY)
		if !ok || k.Flags&dns.ZONE == 0 || k.Flags&dns.REVOKE != 0 || k.Protocol != 3 || !supportedAlgorithm(k.Algorithm) {
			continue
		}
		keys = append(keys, zoneKey{k.KeyTag(), k})
	}
	return keys, nil
}

// anchored returns the keys that DS or DNSKEY records vouch for: usable is false when none of the records is of an
// algorithm and digest in use, which makes a zone insecure (RFC 4035 §5.2), no matter what else it publishes.
func anchored(vouchers []dns.RR, keys []zoneKey) (trusted []zoneKey, usable bool) {
	for _, v := range vouchers {
		switch v := v.(type) {
		case *dns.DS:
			if !supportedAlgorithm(v.Algorithm) || !supportedDigest(v.DigestType) {
				continue
			}
			usable = true
			for _, k := range keys {
				if k.tag == v.KeyTag && k.key.Algorithm == v.Algorithm && dsMatches(v, k.key) {
					trusted = append(trusted, k)
				}
			}
		case *dns.DNSKEY:
			if !supportedAlgorithm(v.Algorithm) {
				continue
			}
			usable = true
			for _, k := range keys {
				if k.key.Algorithm == v.Algorithm && k.key.PublicKey == v.PublicKey {
					trusted = append(trusted, k)
				}
			}
		}
	}
	return trusted, usable
}

func dsMatches(ds *dns.DS, k *dns.DNSKEY) bool {
	made := k.ToDS(ds.DigestType)
	return made != nil && lower(made.Digest) == lower(ds.Digest)
}

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return "TYPE?"
}

// isBogus tells a verdict about data from a failure to get them.
func isBogus(err error) bool {
	_, ok := errors.AsType[*bogusError](err)
	return ok
}

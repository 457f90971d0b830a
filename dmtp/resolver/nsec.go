package resolver

import (
	"slices"

	"github.com/miekg/dns"
)

// A denial is what an answer without the records proves about a name and a type.
type denial uint8

const (
	noProof  denial = iota
	noName          // the name does not exist, nor does a wildcard stand for it
	noData          // the name exists, or a wildcard stands for it, without this type
	openCut         // asked for DS: the name is a delegation without one
	unsigned        // no more can be proved: the span is opted out, or the zone asks for too much hashing
)

// nsecDenies reads what NSEC records, verified and all of one zone, prove about name and typ (RFC 4035 §5.4,
// RFC 6840 §4). Canonical names.
func nsecDenies(records []*dns.NSEC, name string, typ uint16) denial {
	for _, n := range records {
		if n.Hdr.Name == name {
			return bitmapDenies(n.TypeBitMap, name, typ) // it exists: no other record may say otherwise
		}
	}
	for _, n := range records {
		if !nsecCovers(n, name) {
			continue
		}
		if next := dns.CanonicalName(n.NextDomain); next != name && dns.IsSubDomain(name, next) {
			return noData // an empty non-terminal: what comes next lies under it
		}
		wild := wildcardOf(encloser(n, name))
		for _, w := range records {
			if w.Hdr.Name == wild {
				return bitmapDenies(w.TypeBitMap, wild, typ)
			}
			if nsecCovers(w, wild) {
				return noName
			}
		}
	}
	return noProof
}

// nsecProvesExpansion tells that nothing closer to name exists than the wildcard right under closest, from which a
// signature of fewer labels says the answer was made (RFC 4035 §5.3.4).
func nsecProvesExpansion(records []*dns.NSEC, name, closest string) bool {
	return slices.ContainsFunc(records, func(n *dns.NSEC) bool {
		return nsecCovers(n, name) && encloser(n, name) == closest
	})
}

// nsecCovers tells that name sorts between the record's owner and the next name, so that it does not exist. A record
// from the parent's side of a delegation, or one with a DNAME, says nothing of names below it (RFC 6840 §4.1).
func nsecCovers(n *dns.NSEC, name string) bool {
	owner, next := n.Hdr.Name, dns.CanonicalName(n.NextDomain)
	if compareNames(owner, name) >= 0 {
		return false
	}
	if dns.IsSubDomain(owner, name) && (isDelegation(n.TypeBitMap) || slices.Contains(n.TypeBitMap, dns.TypeDNAME)) {
		return false
	}
	// At the end of the zone, next is the apex, an ancestor of every name in it.
	return compareNames(name, next) < 0 || dns.IsSubDomain(next, owner)
}

// encloser is the closest existing ancestor of a name that n covers: the longer of those it shares with the ends.
func encloser(n *dns.NSEC, name string) string {
	shared := max(dns.CompareDomainName(n.Hdr.Name, name), dns.CompareDomainName(dns.CanonicalName(n.NextDomain), name))
	return lastLabels(name, shared)
}

// bitmapDenies reads what the types of an existing name say of typ.
func bitmapDenies(bitmap []uint16, name string, typ uint16) denial {
	switch {
	case !typeAbsent(bitmap, typ) || !rightSide(bitmap, typ, name):
		return noProof
	case typ == dns.TypeDS && isDelegation(bitmap):
		return openCut
	}
	return noData
}

// typeAbsent tells that neither the type nor a CNAME, which would stand for it, is in the bitmap (RFC 6840 §4.3).
func typeAbsent(bitmap []uint16, typ uint16) bool {
	return !slices.Contains(bitmap, typ) && !slices.Contains(bitmap, dns.TypeCNAME)
}

// rightSide tells that a bitmap comes from the side of a zone cut that may deny typ: the parent's for DS, the child's
// for all others (RFC 4035 §5.4, RFC 6840 §4.4).
func rightSide(bitmap []uint16, typ uint16, name string) bool {
	if typ == dns.TypeDS {
		return !slices.Contains(bitmap, dns.TypeSOA) || name == "."
	}
	return !isDelegation(bitmap)
}

// isDelegation tells the parent's side of a zone cut.
func isDelegation(bitmap []uint16) bool {
	return slices.Contains(bitmap, dns.TypeNS) && !slices.Contains(bitmap, dns.TypeSOA)
}

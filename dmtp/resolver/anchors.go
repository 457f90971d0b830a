package resolver

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxAnchors bounds an anchor file.
const maxAnchors = 64

// Anchors are the keys in which trust begins: DS or DNSKEY records, of the root or of a zone below it.
type Anchors struct {
	byZone map[string][]dns.RR // canonical owner name; DS and DNSKEY only
}

// rootAnchors are the root's key signing keys of 2017 and 2024, as IANA publishes them (RFC 9718).
const rootAnchors = `
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
`

// RootAnchors returns the anchors of the public root.
func RootAnchors() *Anchors {
	a, err := ParseAnchors(strings.NewReader(rootAnchors))
	if err != nil {
		panic(err) // the text above parses: a test reads it
	}
	return a
}

// ParseAnchors reads trust anchors in presentation form, one DS or DNSKEY record a line, comments after ";". At least
// one must have an algorithm that we verify, or every name under it would be bogus.
func ParseAnchors(r io.Reader) (*Anchors, error) {
	a := &Anchors{byZone: map[string][]dns.RR{}}
	p := dns.NewZoneParser(io.LimitReader(r, 1<<20), ".", "")
	p.SetDefaultTTL(0)
	p.SetIncludeAllowed(false)
	usable := 0
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		switch k := rr.(type) {
		case *dns.DS:
			if supportedAlgorithm(k.Algorithm) && supportedDigest(k.DigestType) {
				usable++
			}
		case *dns.DNSKEY:
			if k.Flags&dns.ZONE == 0 || k.Flags&dns.REVOKE != 0 || k.Protocol != 3 {
				return nil, errors.New("trust anchors: a DNSKEY that is not a zone key, or is revoked")
			}
			if supportedAlgorithm(k.Algorithm) {
				usable++
			}
		default:
			return nil, fmt.Errorf("trust anchors: a record of type %s: only DS and DNSKEY", dns.TypeToString[rr.Header().Rrtype])
		}
		name := dns.CanonicalName(rr.Header().Name)
		rr.Header().Name = name
		a.byZone[name] = append(a.byZone[name], rr)
		if len(a.byZone[name]) > maxAnchors {
			return nil, fmt.Errorf("trust anchors: more than %d", maxAnchors)
		}
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("trust anchors: %w", err)
	}
	if usable == 0 {
		return nil, errors.New("trust anchors: none with an algorithm and digest in use today")
	}
	return a, nil
}

// closest returns the deepest anchor at or above name, or "" when there is none.
func (a *Anchors) closest(name string) string {
	best := ""
	for zone := range a.byZone {
		if dns.IsSubDomain(zone, name) && (best == "" || dns.CountLabel(zone) > dns.CountLabel(best)) {
			best = zone
		}
	}
	return best
}

// Algorithms and digests that we verify. SHA-1 is out (RFC 8624 §3.1, §3.3): a zone that has nothing else is insecure
// (RFC 4035 §5.2), as it is with any algorithm that a validator does not know.
var (
	algorithms = []uint8{dns.RSASHA256, dns.RSASHA512, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519}
	digests    = []uint8{dns.SHA256, dns.SHA384}
)

func supportedAlgorithm(a uint8) bool { return slices.Contains(algorithms, a) }
func supportedDigest(d uint8) bool    { return slices.Contains(digests, d) }

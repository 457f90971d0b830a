// Package zone is a small DNSSEC-signed name space on loopback: a root of its own, every zone down to those asked for,
// each signed by its own key and delegated with DS, and a server that holds all of it. The demo and the tests publish
// their _dx records in it. It signs with NSEC and knows no wildcards, no transfers and no dynamic update.
package zone

import (
	"crypto"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// nameserver is the one server of every zone. It is a name of the root zone itself, so no delegation needs glue.
const nameserver = "ns."

// ttl of every record, in seconds: short, since a test that changes a record does not wait for caches.
const ttl = 5

// A Zone is what one zone shall hold.
type Zone struct {
	Name      string   // alpha.test
	Records   []string // in presentation form, names relative to the zone; SOA, NS and the chain below are added
	Algorithm uint8    // dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519, dns.RSASHA256, dns.RSASHA512; 0: unsigned
	NSEC3     *NSEC3   // how absence is proved; nil: NSEC

	Inception, Expiration time.Time // of the signatures; zero: from an hour ago, for thirty days
}

// NSEC3 has absence proved with hashed names (RFC 5155).
type NSEC3 struct {
	Iterations uint16
	Salt       string // hex
	OptOut     bool   // unsigned delegations stay out of the chain
}

// A Tree is a signed name space from the root down. Safe for concurrent use.
type Tree struct {
	addr netip.Addr

	mu    sync.RWMutex
	zones map[string]*signed // by canonical name
}

// A signed zone as it is served.
type signed struct {
	Zone
	name string
	key  *dns.DNSKEY // nil when unsigned
	priv crypto.Signer
	sets map[string]map[uint16][]dns.RR // owner name, type: the records and their signatures
	cuts map[string]bool                // names delegated to a child
	list []string                       // owner names in canonical order, for denial

	hashes []string            // with NSEC3: the hashes of all names, in order
	hashed map[string][]dns.RR // by hash: the NSEC3 record and its signature
}

// New signs a name space that holds the given zones and, with ECDSA keys, every zone above them. addr is where the
// server will be found.
func New(addr netip.Addr, zones ...Zone) (*Tree, error) {
	t := &Tree{addr: addr, zones: map[string]*signed{}}
	for _, z := range zones {
		if err := t.add(z); err != nil {
			return nil, err
		}
	}
	for _, z := range zones {
		for name := parent(dns.CanonicalName(z.Name)); ; name = parent(name) {
			if t.zones[name] == nil {
				if err := t.add(Zone{Name: name, Algorithm: dns.ECDSAP256SHA256}); err != nil {
					return nil, err
				}
			}
			if name == "." {
				break
			}
		}
	}
	return t, t.sign()
}

// Set replaces the records of one of the tree's zones and signs again. The keys stay.
func (t *Tree) Set(name string, records ...string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	z := t.zones[dns.CanonicalName(name)]
	if z == nil {
		return fmt.Errorf("zone: there is no zone %q", name)
	}
	before := z.Records
	z.Records = records
	if err := t.sign(); err != nil {
		z.Records = before
		return errors.Join(err, t.sign())
	}
	return nil
}

// Anchor is the root's DS record in presentation form, a line: the trust anchor of everything here.
func (t *Tree) Anchor() string {
	return t.zones["."].key.ToDS(dns.SHA256).String() + "\n" // keys never change
}

// Names lists the zones, the root first.
func (t *Tree) Names() []string {
	return slices.SortedFunc(maps.Keys(t.zones), compare)
}

// Spoil breaks every signature of one record set, as a forger would. The next Set mends it.
func (t *Tree) Spoil(name string, rrtype uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	z := t.find(dns.CanonicalName(name), rrtype)
	spoilt := 0
	for _, rr := range z.sets[dns.CanonicalName(name)][rrtype] {
		if sig, ok := rr.(*dns.RRSIG); ok {
			sig.Inception -= 1 // a signed field
			spoilt++
		}
	}
	if spoilt == 0 {
		return fmt.Errorf("zone: %s has no signature to spoil", name)
	}
	return nil
}

func (t *Tree) add(z Zone) error {
	name := dns.CanonicalName(z.Name)
	if t.zones[name] != nil {
		return fmt.Errorf("zone: %q is there twice", z.Name)
	}
	s := &signed{Zone: z, name: name}
	t.zones[name] = s
	if z.Algorithm == 0 {
		return nil
	}
	bits := map[uint8]int{dns.ECDSAP256SHA256: 256, dns.ECDSAP384SHA384: 384, dns.ED25519: 256, dns.RSASHA256: 2048, dns.RSASHA512: 2048}[z.Algorithm]
	s.key = &dns.DNSKEY{Hdr: header(name, dns.TypeDNSKEY), Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: z.Algorithm}
	priv, err := s.key.Generate(bits)
	if err != nil {
		return fmt.Errorf("zone %s: %w", z.Name, err)
	}
	s.priv = priv.(crypto.Signer) // every key that Generate makes signs
	return nil
}

// sign makes every zone's record sets anew. The caller holds the lock, or is the only one.
func (t *Tree) sign() error {
	for _, z := range t.zones {
		z.sets, z.cuts = map[string]map[uint16][]dns.RR{}, map[string]bool{}
		z.put(&dns.SOA{Hdr: header(z.name, dns.TypeSOA), Ns: nameserver, Mbox: "hostmaster.", Serial: uint32(time.Now().Unix()),
			Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl})
		z.put(&dns.NS{Hdr: header(z.name, dns.TypeNS), Ns: nameserver})
		if z.key != nil {
			z.put(z.key)
		}
		for _, text := range z.Records {
			if err := z.parse(text); err != nil {
				return err
			}
		}
		if z.name == "." {
			z.put(&dns.A{Hdr: header(nameserver, dns.TypeA), A: t.addr.AsSlice()})
		}
	}
	for _, z := range t.zones {
		if z.name == "." {
			continue
		}
		up := t.zones[t.above(z.name)]
		up.cuts[z.name] = true
		up.put(&dns.NS{Hdr: header(z.name, dns.TypeNS), Ns: nameserver})
		if z.key != nil {
			ds := z.key.ToDS(dns.SHA256)
			ds.Hdr.Ttl = ttl
			up.put(ds)
		}
	}
	for _, z := range t.zones {
		if err := z.seal(); err != nil {
			return fmt.Errorf("zone %s: %w", z.name, err)
		}
	}
	return nil
}

// above is the closest zone over name.
func (t *Tree) above(name string) string {
	for name = parent(name); t.zones[name] == nil; name = parent(name) {
	}
	return name
}

// parse reads one record in presentation form, names relative to the zone.
func (z *signed) parse(text string) error {
	p := dns.NewZoneParser(strings.NewReader(text), z.name, "")
	p.SetDefaultTTL(ttl)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		if !dns.IsSubDomain(z.name, dns.CanonicalName(rr.Header().Name)) {
			return fmt.Errorf("zone %s: %s is not of this zone", z.name, rr.Header().Name)
		}
		z.put(rr)
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("zone %s: %w", z.name, err)
	}
	return nil
}

func (z *signed) put(rr dns.RR) {
	h := rr.Header()
	h.Name = dns.CanonicalName(h.Name)
	if z.sets[h.Name] == nil {
		z.sets[h.Name] = map[uint16][]dns.RR{}
	}
	z.sets[h.Name][h.Rrtype] = append(z.sets[h.Name][h.Rrtype], rr)
}

// seal adds the denial chain and the signatures (RFC 4034 §4, RFC 4035 §2).
func (z *signed) seal() error {
	z.list = slices.SortedFunc(maps.Keys(z.sets), compare)
	if z.key == nil {
		return nil
	}
	if z.NSEC3 != nil {
		if err := z.hashNames(); err != nil {
			return err
		}
	} else {
		for i, name := range z.list {
			z.put(&dns.NSEC{Hdr: header(name, dns.TypeNSEC), NextDomain: z.list[(i+1)%len(z.list)], TypeBitMap: z.types(name, dns.TypeNSEC, dns.TypeRRSIG)})
		}
	}
	for name, sets := range z.sets {
		for rrtype, rrs := range sets {
			if z.cuts[name] && rrtype == dns.TypeNS { // not ours: the child's
				continue
			}
			sig, err := z.signature(rrs)
			if err != nil {
				return err
			}
			sets[rrtype] = append(rrs, sig)
		}
	}
	return nil
}

func (z *signed) signature(rrs []dns.RR) (*dns.RRSIG, error) {
	from, to := z.Inception, z.Expiration
	if from.IsZero() {
		from = time.Now().Add(-time.Hour)
	}
	if to.IsZero() {
		to = time.Now().Add(30 * 24 * time.Hour)
	}
	sig := &dns.RRSIG{Hdr: header(rrs[0].Header().Name, dns.TypeRRSIG), Algorithm: z.key.Algorithm, KeyTag: z.key.KeyTag(), SignerName: z.name,
		Inception: uint32(from.Unix()), Expiration: uint32(to.Unix())}
	return sig, sig.Sign(z.priv, rrs)
}

// types is the bitmap of a name.
func (z *signed) types(name string, more ...uint16) []uint16 {
	types := append(slices.Collect(maps.Keys(z.sets[name])), more...)
	slices.Sort(types)
	return types
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func parent(name string) string {
	if i, end := dns.NextLabel(name, 0); !end {
		return name[i:]
	}
	return "."
}

// compare is the canonical order of names (RFC 4034 §6.1): label by label from the right. Names here are lower case and
// hold no escapes.
func compare(a, b string) int {
	la, lb := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(la)
	slices.Reverse(lb)
	return slices.Compare(la, lb)
}

package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Floors are the names of floors, rising.
var Floors = []string{"opportunistic", "tls", "mta-sts", "dane", "dime", "hold"}

// FloorFor returns the floor of mail from a sender, "" for the null reverse-path, to a recipient's domain, and the layer
// that set it: global, domain or sender. Domain and sender each take the place of global; where both speak, the higher holds.
func (p *Policy) FloorFor(sender, domain string) (floor, layer string) {
	of := p.senderFloor(strings.ToLower(sender))
	at := p.Domains[strings.ToLower(domain)].Floor
	switch {
	case of == "" && at == "":
		return p.Floor, "global"
	case of == "" || at != "" && slices.Index(Floors, at) >= slices.Index(Floors, of):
		return at, "domain"
	}
	return of, "sender"
}

// senderFloor is the floor of an address, or else of its domain.
func (p *Policy) senderFloor(sender string) string {
	if f := p.Senders[sender].Floor; f != "" {
		return f
	}
	return p.Senders[sender[strings.LastIndexByte(sender, '@')+1:]].Floor
}

// SmartHostFor returns the host and port of the smart host of a recipient's domain, in lower case; "" for none.
func (p *Policy) SmartHostFor(domain string) (host string, port uint16) {
	hop := p.Domains[strings.ToLower(domain)].SmartHost
	if hop == "" {
		hop = p.SmartHost
	}
	if hop == "" || hop == mxRoute {
		return "", 0
	}
	host, number, err := net.SplitHostPort(hop)
	n, nerr := strconv.ParseUint(number, 10, 16)
	if err != nil || nerr != nil { // checked
		return "", 0
	}
	return strings.ToLower(host), uint16(n)
}

// CheckRoute says what is wrong with host:port as a server that some mail shall go by. The error is a Faults, or nil.
func (c *Config) CheckRoute(hop string) error {
	var faults, others Faults
	k := checker{faults: &faults}
	if smartHost(k, hop); hop == "" {
		k.bad("route", "names no host and port")
	}
	if by := c.owners(checker{faults: &others})[hop]; by != "" {
		k.bad("route", "%s is our own %s: mail would go in circles", hop, by)
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// Reroutable tells whether mail from a sender to a domain may go by another host than the domain's own, and the floor and the
// layer that say so.
func (p *Policy) Reroutable(sender, domain string) (floor, layer string, may bool) {
	floor, layer = p.FloorFor(sender, domain)
	return floor, layer, floor == "opportunistic" || floor == "tls"
}

// smartHosts are all smart hosts by their keys.
func (p *Policy) smartHosts() map[string]string {
	all := map[string]string{"policy.smart_host": p.SmartHost}
	for name, d := range p.Domains {
		all[fmt.Sprintf("policy.domain.%q.smart_host", name)] = d.SmartHost
	}
	maps.DeleteFunc(all, func(_, hop string) bool { return hop == "" || hop == mxRoute })
	return all
}

func (p *Policy) check(k checker) {
	oneOf(k, "floor", p.Floor, Floors...)
	within(k, "history", p.History, 0, 10*365*24*time.Hour)
	smartHost(k, p.SmartHost)
	if p.SmartHostAuthFile != "" && len(p.smartHosts()) == 0 {
		k.bad("smart_host_auth_file", "is set, and there is no smart_host")
	}
	throughSmartHost(k, p.Floor, p.SmartHost)
	for _, a := range p.Journal {
		if at := strings.LastIndexByte(a, '@'); at < 1 || !isDomain(a[at+1:]) {
			k.bad("journal", "%q is not an address with a domain in ASCII", a)
		} else if f, _ := p.FloorFor("", a[at+1:]); f == "dime" || f == "hold" {
			k.bad("journal", "%s: floor %q lets no journal report out: give [policy.domain.%q] a floor of \"tls\" or above that", a, f, a[at+1:])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Domains)) {
		k, d := k.at("domain.%q.", name), p.Domains[name]
		says := d != DomainPolicy{}
		if !isDomain(name) {
			k.bad("floor", "%q is not a domain in ASCII", name)
		}
		if d.Floor != "" {
			oneOf(k, "floor", d.Floor, Floors...)
		}
		if d.SmartHost != mxRoute {
			smartHost(k, d.SmartHost)
		}
		if d.Floor == "" {
			d.Floor = p.Floor
		}
		if d.SmartHost == "" {
			d.SmartHost = p.SmartHost
		}
		if says { // else it is policy's own fault
			throughSmartHost(k, d.Floor, d.SmartHost)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Senders)) {
		k := k.at("sender.%q.", name)
		local, domain, address := strings.Cut(name, "@")
		if address && local == "" || address && !isDomain(domain) || !address && !isDomain(name) {
			k.bad("floor", "%q is neither an address nor a domain in ASCII", name)
		}
		oneOf(k, "floor", p.Senders[name].Floor, Floors...)
		throughSmartHost(k, p.Senders[name].Floor, p.SmartHost)
	}
}

func smartHost(k checker, hop string) {
	if hop == "" {
		return
	}
	address(k, "smart_host", hop)
	if host, port, err := net.SplitHostPort(hop); err == nil && (host == "" || port == "0") {
		k.bad("smart_host", "%q names no host and port", hop)
	}
}

// throughSmartHost refuses floors that nobody can keep: how a smart host sends mail on is not seen from here.
func throughSmartHost(k checker, floor, hop string) {
	if hop != "" && hop != mxRoute && (floor == "mta-sts" || floor == "dane") {
		k.bad("floor", "%q cannot be kept through smart_host %s, which sends the mail on as it likes: use \"tls\" or \"dime\", or smart_host = \"mx\" for the domain", floor, hop)
	}
}

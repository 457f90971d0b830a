package mailauth

import (
	"net"
	"net/mail"
	"strings"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/publicsuffix"

	"dimegate/bridge/translate"
)

// checkDMARC asks for the policy of the author's domain and whether one of the two methods passed for a domain that goes with it
// (RFC 7489 §6.6). Policies are not applied.
func checkDMARC(dns lookups, header []byte, path verdict, signatures []verdict) *authres.DMARCResult {
	domain, ok := author(header)
	if !ok {
		return &authres.DMARCResult{Value: authres.ResultPermError}
	}
	r := &authres.DMARCResult{From: domain}
	policy, value := findPolicy(dns, domain)
	if policy == nil {
		r.Value = value
		return r
	}
	r.Value = authres.ResultFail
	judge := func(v verdict, mode dmarc.AlignmentMode) {
		switch goes := aligned(v.domain, domain, mode == dmarc.AlignmentStrict); {
		case goes && v.value == authres.ResultPass:
			r.Value = authres.ResultPass
		case goes && v.value == authres.ResultTempError && r.Value == authres.ResultFail:
			r.Value = authres.ResultTempError // it might have passed
		}
	}
	judge(path, policy.SPFAlignment)
	for _, s := range signatures {
		judge(s, policy.DKIMAlignment)
	}
	return r
}

// author is the domain of the one author that DMARC is about (RFC 7489 §6.6.1): exactly one From field with one address.
func author(header []byte) (string, bool) {
	var value string
	n := 0
	for f := range translate.Fields(header) {
		if f.Is("From") {
			value = f.Value()
			n++
		}
	}
	if n != 1 {
		return "", false
	}
	list, err := mail.ParseAddressList(value)
	if err != nil || len(list) != 1 {
		return "", false
	}
	return hostName(list[0].Address[strings.LastIndexByte(list[0].Address, '@')+1:])
}

// findPolicy looks at the author's domain and then at the organisation's (RFC 7489 §6.6.3). nil: none, for the reason given.
func findPolicy(dns lookups, domain string) (*dmarc.Record, authres.ResultValue) {
	names := []string{domain}
	if org := organization(domain); org != domain {
		names = append(names, org)
	}
	for _, name := range names {
		texts, err := dns.text("_dmarc." + name)
		if e, ok := err.(*net.DNSError); ok && !e.IsNotFound {
			return nil, authres.ResultTempError
		}
		var found []string
		for _, t := range texts {
			if version, _, _ := strings.Cut(t, ";"); strings.Join(strings.Fields(version), "") == "v=DMARC1" {
				found = append(found, t)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
		default:
			return nil, authres.ResultNone
		}
		policy, err := dmarc.Parse(found[0])
		if err != nil {
			return nil, authres.ResultPermError
		}
		return policy, ""
	}
	return nil, authres.ResultNone
}

// aligned reports whether two domains go together (RFC 7489 §3.1).
func aligned(a, b string, strict bool) bool {
	if a == "" || strict {
		return a == b && a != ""
	}
	return organization(a) == organization(b)
}

// organization is a domain's organizational one (RFC 7489 §3.2), by the Public Suffix List that golang.org/x/net carries. A
// public suffix is its own.
func organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

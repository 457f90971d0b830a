package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Fault is one thing that is wrong, by its key.
type Fault struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

func (f Fault) Error() string { return f.Key + ": " + f.Reason }

// Faults is everything that is wrong with a configuration, in the order of the file's tables.
type Faults []Fault

// Error is one line for one fault, and for several a line that counts them and one for each.
func (f Faults) Error() string {
	if len(f) == 1 {
		return f[0].Error()
	}
	lines := []string{fmt.Sprintf("%d faults:", len(f))}
	for i := range f {
		lines = append(lines, "  "+f[i].Error())
	}
	return strings.Join(lines, "\n")
}

// A checker gathers faults under a prefix of keys.
type checker struct {
	prefix string
	faults *Faults
}

func (c checker) at(format string, a ...any) checker {
	return checker{c.prefix + fmt.Sprintf(format, a...), c.faults}
}

func (c checker) bad(key, format string, a ...any) {
	*c.faults = append(*c.faults, Fault{c.prefix + key, fmt.Sprintf(format, a...)})
}

// Check says everything that is wrong with a resolved configuration. It touches no file and no network. The error is
// a Faults.
func (c *Config) Check() error {
	var faults Faults
	k := checker{faults: &faults}
	if c.DataFolder == "" {
		k.bad("data_folder", "is empty")
	}
	if c.Hostname != "" && !isDomain(c.Hostname) {
		k.bad("hostname", "%q is not a host name in ASCII", c.Hostname)
	}
	c.checkOrganizations(k)
	c.Submission.check(k.at("submission."))
	c.DMTP.check(k.at("dmtp."))
	c.Inbound.check(k.at("inbound."))
	c.Handoff.check(k.at("handoff."))
	c.Scanner.check(k.at("scanner."))
	c.DNS.check(k.at("dns."))
	c.checkVaults(k)
	c.checkWitnessed(k)
	within(k, "vault.check_seals", c.Vault.CheckSeals, time.Second, 24*time.Hour)
	c.Policy.check(k.at("policy."))
	c.checkAlt(k.at("alt."))
	c.Queue.check(k.at("queue."))
	c.Audit.check(k.at("audit."))
	c.Keys.check(k.at("keys."))
	c.Archive.check(k.at("archive."))
	if a := c.Archive.JournalAddress; slices.Contains(c.Policy.Journal, a) {
		k.bad("archive.journal_address", "%s is in policy.journal, too: its reports leave to an archive outside, or are archived here", a)
	}
	c.checkHealth(k.at("health."))
	oneOf(k, "log.format", c.Log.Format, "text", "json")
	oneOf(k, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	c.checkListeners(k)
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (c *Config) checkOrganizations(k checker) {
	if len(c.Organizations) == 0 {
		k.bad("organization", "there is none: add [[organization]] with domains = [\"example.org\"]")
	}
	seen := map[string]bool{}
	for i, o := range c.Organizations {
		k := k.at("organization[%d].", i+1)
		if len(o.Domains) == 0 {
			k.bad("domains", "is empty")
		}
		for _, d := range o.Domains {
			switch {
			case !isDomain(d):
				k.bad("domains", "%q is not a domain in ASCII (write an international one as xn--…)", d)
			case seen[d]:
				k.bad("domains", "%s stands twice", d)
			}
			seen[d] = true
		}
		for _, h := range o.DX {
			if !isDomain(h) {
				k.bad("dx", "%q is not a host name: the record takes names, no addresses and no ports", h)
			}
		}
		if len(o.Name) > 255 || !utf8.ValidString(o.Name) || strings.ContainsFunc(o.Name, unicode.IsControl) {
			k.bad("name", "must be text of 255 octets at most, without control characters: it stands in the signet")
		}
		for _, d := range o.KeepKeys {
			if !slices.Contains(o.Domains, d) {
				k.bad("keep_keys", "%q is not one of domains", d)
			}
		}
		if _, ok := c.Vault.Own[o.Vault]; !ok && o.Vault != "" {
			k.bad("vault", "there is no [vault.own.%q]: make that table, empty for its defaults, or leave vault out", o.Vault)
		}
		networks(k, "networks", o.Networks)
		for _, p := range o.Prefixes() {
			if !c.Submission.letsIn(p) {
				k.bad("networks", "%s may not send at all: list it in submission.networks, too", p)
			}
		}
		if len(o.Users) > 0 && c.Submission.AuthFile == "" {
			k.bad("users", "submission.auth_file is not set: nobody could be one of them")
		}
		if o.Separator != NoSeparator && (len(o.Separator) != 1 || !strings.Contains("!#$%&'*+-/=?^_`{|}~", o.Separator)) {
			k.bad("subaddress_separator", "%q is neither one of the signs that an address may have, such as + or -, nor none", o.Separator)
		}
		address(k, "inner", o.Inner)
		oneOf(k, "policy", o.Policy, "experimental", "mixed", "strict")
	}
}

// letsIn tells whether somebody at an address of a prefix may get in: by the network, or by what it shows.
func (s *Submission) letsIn(p netip.Prefix) bool {
	return s.AuthFile != "" || len(s.CertificateNames)+len(s.Tenants) > 0 || slices.ContainsFunc(s.Prefixes(), p.Overlaps)
}

func (s *Submission) check(k checker) {
	if len(s.Listen) == 0 {
		k.bad("listen", "is empty: mail could not come in")
	}
	addresses(k, "listen", s.Listen)
	networks(k, "networks", s.Networks)
	for _, n := range s.Networks {
		switch p, err := parseNetwork(n); {
		case err == nil && p.Bits() == 0:
			k.bad("networks", "%s is the whole world: that is an open relay", n)
		}
	}
	believed(k, "proxy_from", s.ProxyFrom)
	believed(k, "xclient_from", s.XClientFrom)
	if len(s.Networks)+len(s.CertificateNames)+len(s.Tenants) == 0 && s.AuthFile == "" {
		k.bad("networks", "is empty and there is no auth_file: nobody could send")
	}
	s.checkCertificates(k)
	if (s.CertificateFile == "") != (s.KeyFile == "") {
		k.bad("key_file", "certificate_file and key_file go together")
	}
	octets(k, "max_octets", s.MaxOctets, 64<<10, 4<<30-1)
	count(k, "max_recipients", s.MaxRecipients, 100, 100_000)
	count(k, "max_sessions", s.MaxSessions, 1, 100_000)
	count(k, "max_per_client", s.MaxPerClient, 0, s.MaxSessions)
	count(k, "messages_hourly", s.MessagesHourly, 0, 1_000_000)
	count(k, "recipients_hourly", s.RecipientsHourly, 0, 10_000_000)
	networks(k, "mend", s.Mend)
	for _, p := range prefixes(s.Mend) {
		if p.Bits() == 0 {
			k.bad("mend", "%s is the whole world: a bare line end from a stranger hides a second message: name your own servers", p)
		}
	}
	within(k, "timeout", s.Timeout, 5*time.Minute, time.Hour)
}

// shared are relays that have one certificate for all of their customers, by the end of its name.
var shared = []string{"outlook.com", "office365.us", "outlook.cn", "google.com", "googlemail.com", "pphosted.com", "mimecast.com", "messagelabs.com"}

func (s *Submission) checkCertificates(k checker) {
	for _, name := range s.CertificateNames {
		if !isDomain(name) {
			k.bad("certificate_names", "%q is not a host name in ASCII", name)
		}
		for _, relay := range shared {
			if name == relay || strings.HasSuffix(name, "."+relay) {
				k.bad("certificate_names", "%s is shown for every customer of that relay: use [[submission.tenant]]", name)
			}
		}
	}
	for i, t := range s.Tenants {
		k := k.at("tenant[%d].", i+1)
		if !isDomain(t.CertificateName) {
			k.bad("certificate_name", "%q is not a host name in ASCII", t.CertificateName)
		}
		if t.Field == "" || strings.ContainsFunc(t.Field, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			k.bad("field", "%q is not the name of a header field, such as X-OriginatorOrg", t.Field)
		}
		if strings.TrimSpace(t.Value) == "" || strings.TrimSpace(t.Value) != t.Value {
			k.bad("value", "is what the field says of your own organization, without blanks around it: else every customer of the relay could send")
		}
	}
}

// Prefixes returns the networks of a checked table.
func (o *Organization) Prefixes() []netip.Prefix { return prefixes(o.Networks) }

// Prefixes returns the networks of a checked table.
func (s *Submission) Prefixes() []netip.Prefix { return prefixes(s.Networks) }

// Mended returns the prefixes of mend of a checked table.
func (s *Submission) Mended() []netip.Prefix { return prefixes(s.Mend) }

// Proxies returns the prefixes of proxy_from of a checked table.
func (s *Submission) Proxies() []netip.Prefix { return prefixes(s.ProxyFrom) }

// XClients returns the prefixes of xclient_from of a checked table.
func (s *Submission) XClients() []netip.Prefix { return prefixes(s.XClientFrom) }

// Proxies returns the prefixes of proxy_from of a checked table.
func (d *DMTP) Proxies() []netip.Prefix { return prefixes(d.ProxyFrom) }

// Permitted returns the prefixes of a checked table.
func (d *DMTP) Permitted() []netip.Prefix { return prefixes(d.Permit) }

func (d *DMTP) checkACME(k checker) {
	a := d.ACME
	if !a.On() {
		return
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		k.bad("acme.directory", "%q is not an https URL", a.Directory)
	}
	if !a.AgreeTerms {
		k.bad("acme.agree_to_terms", "is not true: read the authority's terms of service, and say so")
	}
	if !d.own {
		k.bad("acme.directory", "[[dmtp.certificate]] names files: leave them out, for ACME writes those of the data folder")
	}
	address(k, "acme.listen", a.Listen)
}

func (d *DMTP) check(k checker) {
	if len(d.Listen)+len(d.ListenDual) == 0 {
		k.bad("listen", "is empty, and so is listen_dual: nobody could reach us")
	}
	addresses(k, "listen", d.Listen)
	addresses(k, "listen_dual", d.ListenDual)
	d.checkACME(k)
	believed(k, "proxy_from", d.ProxyFrom)
	networks(k, "permit", d.Permit)
	for i, c := range d.Certificates {
		if c.CertificateFile == "" || c.KeyFile == "" {
			k.bad(fmt.Sprintf("certificate[%d]", i+1), "certificate_file and key_file go together")
		}
	}
	octets(k, "max_octets", d.MaxOctets, 64<<10, 4<<30-1)
	count(k, "max_sessions", d.MaxSessions, 1, 100_000)
	within(k, "timeout", d.Timeout, time.Minute, time.Hour)
}

func (i *Inbound) check(k checker) {
	networks(k, "exempt", i.Exempt)
	believed(k, "xclient_from", i.XClientFrom)
	octets(k, "max_octets", i.MaxOctets, 64<<10, 4<<30-1)
	count(k, "max_recipients", i.MaxRecipients, 100, 100_000)
	count(k, "max_sessions", i.MaxSessions, 1, 10_000)
	count(k, "max_per_client", i.MaxPerClient, 0, i.MaxSessions)
	within(k, "timeout", i.Timeout, 5*time.Minute, time.Hour)
}

// XClients returns the prefixes of xclient_from of a checked table.
func (i *Inbound) XClients() []netip.Prefix { return prefixes(i.XClientFrom) }

// Exempted returns the prefixes of a checked table.
func (i *Inbound) Exempted() []netip.Prefix { return prefixes(i.Exempt) }

func (h *Handoff) check(k checker) {
	address(k, "address", h.Address)
	oneOf(k, "starttls", h.StartTLS, "off", "opportunistic", "required")
	if h.AuthFile != "" && h.StartTLS != "required" {
		k.bad("auth_file", "needs starttls = \"required\": else the password could be had by whoever is in between")
	}
	oneOf(k, "exchange_fields", h.Exchange, "remove", "keep")
	oneOf(k, "client_address", h.Client, "auto", "off", "proxy")
	count(k, "max_sessions", h.MaxSessions, 1, 10_000)
	within(k, "timeout", h.Timeout, 10*time.Second, 8*time.Minute)
}

func (d *DNS) check(k checker) {
	if len(d.Resolvers) == 0 {
		k.bad("resolvers", "is empty")
	}
	for _, r := range d.Resolvers {
		ap, err := netip.ParseAddrPort(r)
		if err != nil || ap.Port() == 0 {
			k.bad("resolvers", "%q is not address:port", r)
		} else if d.TrustAD && !ap.Addr().IsLoopback() {
			k.bad("trust_ad", "%s is not on loopback: its AD bit could be set by anyone on the way", r)
		}
	}
	if d.TrustAD && d.TrustAnchorFile != "" {
		k.bad("trust_anchor_file", "means nothing while trust_ad is on")
	}
	within(k, "timeout", d.Timeout, 100*time.Millisecond, time.Minute)
}

func (s *Seal) check(k checker) {
	if s.Ways() == 0 {
		k.bad("key_file", "nothing is set that could open the seal")
	}
	if strings.ContainsAny(s.Credential, "/\x00") || s.Credential == "." || s.Credential == ".." {
		k.bad("credential", "is a name, not a path: systemd says where it lies")
	}
	if s.PKCS11Socket != "" && (s.PKCS11Name == "" || len(s.PKCS11Name) > 64) {
		k.bad("pkcs11_name", "has 1 to 64 characters")
	}
	if s.TransitAddress == "" {
		if s.TransitKey != "" || s.TransitTokenFile != "" || s.TransitCAFile != "" {
			k.bad("transit_address", "is not set, while other transit keys are")
		}
		return
	}
	u, err := url.Parse(s.TransitAddress)
	local := err == nil && (u.Hostname() == "localhost" || u.Hostname() == "::1" || strings.HasPrefix(u.Hostname(), "127."))
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.Scheme != "https" && !(u.Scheme == "http" && local) {
		k.bad("transit_address", "is not https://host:port (http to loopback alone)")
	}
	for key, name := range map[string]string{"transit_key": s.TransitKey, "transit_mount": s.TransitMount} {
		if name == "" || url.PathEscape(name) != name {
			k.bad(key, "is not a plain name")
		}
	}
	if s.TransitTokenFile == "" {
		k.bad("transit_token_file", "is not set: the key service asks who we are")
	}
}

func (q *Queue) check(k checker) {
	within(k, "life", q.Life, time.Hour, 30*24*time.Hour)
	within(k, "trust_life", q.TrustLife, time.Minute, 30*24*time.Hour)
	if q.DelayNotice != 0 {
		within(k, "delay_notice", q.DelayNotice, time.Minute, 30*24*time.Hour)
	}
	if len(q.Schedule) == 0 {
		k.bad("schedule", "is empty")
	}
	for _, d := range q.Schedule {
		within(k, "schedule", d, time.Second, 24*time.Hour)
	}
	count(k, "workers", q.Workers, 1, 10_000)
	count(k, "per_domain", q.PerDomain, 1, 10_000)
	octets(k, "in_flight", q.InFlight, 1<<20, 1<<40)
	octets(k, "min_free_octets", q.MinFree, 0, 1<<50)
}

func (l *Keys) check(k checker) {
	const day = 24 * time.Hour
	if l.RotateAfter != 0 {
		within(k, "rotate_after", l.RotateAfter, 30*day, 10*365*day) // 30 days: of others' caches
	}
	within(k, "grace", l.Grace, 36*day, 10*365*day) // 30 of caches, 5 of queues, one
	if l.RemindPrimaryAfter != 0 {
		within(k, "remind_primary_after", l.RemindPrimaryAfter, 90*day, 20*365*day)
	}
	if l.RotateSecondaryAfter != 0 {
		within(k, "rotate_secondary_after", l.RotateSecondaryAfter, 90*day, 10*365*day) // so that few stand in a signet at a time
	}
}

func (c *Config) checkHealth(k checker) {
	if c.Health.Listen == "" {
		return
	}
	ap, err := netip.ParseAddrPort(c.Health.Listen)
	if err != nil {
		k.bad("listen", "%q is not address:port", c.Health.Listen)
	} else if !ap.Addr().IsLoopback() {
		k.bad("listen", "%s is not on loopback", c.Health.Listen)
	}
}

// owners are the keys of our listeners by their addresses. Two on one address are a fault.
func (c *Config) owners(k checker) map[string]string {
	owner := map[string]string{}
	claim := func(key string, list ...string) {
		for _, a := range list {
			if a == "" || strings.HasSuffix(a, ":0") {
				continue
			}
			if owner[a] != "" {
				k.bad(key, "%s is taken by %s", a, owner[a])
				continue
			}
			owner[a] = key
		}
	}
	claim("submission.listen", c.Submission.Listen...)
	claim("dmtp.listen", c.DMTP.Listen...)
	claim("dmtp.listen_dual", c.DMTP.ListenDual...)
	claim("health.listen", c.Health.Listen)
	return owner
}

// checkListeners finds two listeners on one address, and a hand-off that comes straight back to us.
func (c *Config) checkListeners(k checker) {
	owner := c.owners(k)
	for key, hop := range c.Policy.smartHosts() {
		if by := owner[hop]; by != "" {
			k.bad(key, "%s is our own %s: mail would go in circles", hop, by)
		}
	}
	if by := owner[c.Handoff.Address]; by != "" {
		k.bad("handoff.address", "%s is our own %s: mail would go in circles", c.Handoff.Address, by)
	}
	for i, o := range c.Organizations {
		if by := owner[o.Inner]; by != "" && o.Inner != c.Handoff.Address {
			k.bad(fmt.Sprintf("organization[%d].inner", i+1), "%s is our own %s: mail would go in circles", o.Inner, by)
		}
	}
}

func (a *Audit) check(k checker) {
	for i, w := range a.Witnesses {
		text, key, ok := strings.Cut(w, " ")
		u, err := url.Parse(text)
		if !ok || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Count(key, "+") < 2 {
			k.bad(fmt.Sprintf("witnesses[%d]", i+1), "is not \"URL KEY\": the key is what \"gateway witness init\" printed")
		}
	}
}

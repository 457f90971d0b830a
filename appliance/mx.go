package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"dimegate/bridge"
	"dimegate/bridge/handoff"
	"dimegate/bridge/mailauth"
	"dimegate/bridge/mx"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp"
	"dimegate/dmtp/dmtpserver"
	"dimegate/vault"
)

// plain is the SMTP side of the shared ports: the DMTP server's front hands sessions over, mx serves them.
type plain struct {
	*mx.Server
	*dmtpserver.Handover
	inner inner // sessions of their own: who trickles plain mail does not hold up what comes sealed
}

// smtp is dmtpserver.Config.SMTP. A message under way may end after ctx: the server ends sessions by itself.
func (p *plain) smtp(ctx context.Context, conn net.Conn) {
	p.Handover.SMTP(context.WithoutCancel(ctx), conn)
}

func (p *plain) run(ctx context.Context) error { return p.Server.Serve(ctx, p.Handover) }

// makeMX makes the SMTP side, if there is a shared port.
func (a *Appliance) makeMX() error {
	if len(a.config.DMTP.ListenDual) == 0 {
		return nil
	}
	i := a.config.Inbound
	all := inner{}
	for _, t := range a.tenants {
		own, err := t.innerServers(i.MaxSessions, smtpwire.Timeouts{Verdict: a.config.Handoff.Timeout})
		if err != nil {
			return err
		}
		maps.Copy(all, own)
	}
	a.plain = &plain{inner: all, Handover: dmtpserver.NewHandover(&net.TCPAddr{}), Server: mx.New(mx.Config{
		Name: a.config.Hostname, Domains: func(d string) (mx.Domain, bool) { return a.tenants.plain(d, all) },
		Exempt: i.Exempted(), XClient: i.XClients(), Postmaster: "postmaster@" + a.tenants[0].domains()[0], Mark: bridge.MarkField,
		Firewall: firewall(a.config), Auth: a.mailAuth(), Scanner: a.scanners.inbound,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.certificates.Pick}, Under: dmtpserver.ConnectionState,
		MaxOctets: i.MaxOctets, MaxRecipients: i.MaxRecipients, MaxSessions: i.MaxSessions, MaxPerClient: i.MaxPerClient, Timeout: i.Timeout, Now: a.Now,
	}, a.Log)}
	return nil
}

// plain is a domain of ours as the SMTP side sees it.
func (all tenants) plain(domain string, servers inner) (mx.Domain, bool) {
	t, ours := all.of(domain)
	if !ours {
		return mx.Domain{}, false
	}
	o, _ := t.config.Organization(domain)
	d := mx.Domain{Inner: servers[domain], Strict: o.Policy == "strict"}
	if d.Down = !t.up.Load(); !d.Down {
		d.Loops, d.Hold = t.loops, func() mx.Held { return held{t.vault.NewHold()} }
		if t.archive != nil {
			d.Keep = passages{t.intents()}
		}
	}
	return d, true
}

// mailAuth is what notes SPF, DKIM and DMARC; nil: nobody does.
func (g *gateway) mailAuth() *mailauth.Checker {
	if !g.config.Inbound.AuthResults {
		return nil
	}
	return &mailauth.Checker{ID: g.config.Hostname, DNS: g.dns}
}

// held is a vault's hold in the words of mx.
type held struct{ *vault.Hold }

func (h held) Write(p []byte) (int, error) {
	n, err := h.Hold.Write(p)
	if errors.Is(err, vault.ErrFull) {
		err = errors.Join(mx.ErrFull, err)
	}
	return n, err
}

var clientPolicies = map[string]handoff.ClientPolicy{"auto": handoff.ClientAuto, "off": handoff.ClientOff, "proxy": handoff.ClientProxy}

// nameOf is the name of an address that leads back to it, as mail servers look it up: "" if there is none, later if nobody can
// tell now.
func (g *gateway) nameOf(ctx context.Context, addr netip.Addr) (name string, later bool) {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	reverse, err := dns.ReverseAddr(addr.String())
	if err != nil {
		return "", false
	}
	answer, err := g.dns.Lookup(ctx, reverse, dns.TypePTR)
	if err != nil {
		return "", true
	}
	for _, rr := range answer.Records[:min(len(answer.Records), maxNames)] {
		ptr, ok := rr.(*dns.PTR)
		if !ok {
			continue
		}
		host, err := dmtp.Domain(strings.TrimSuffix(dns.CanonicalName(ptr.Ptr), "."))
		if err != nil {
			continue
		}
		list, _, err := g.dns.Addresses(ctx, host)
		later = later || err != nil
		if slices.Contains(list, addr) {
			return host, false
		}
	}
	return "", later
}

// Bounds of looking a name up, while a client waits for the answer to a recipient.
const (
	nameTime = 5 * time.Second
	maxNames = 3
)

// innerServers are the ways to the mail servers of our domains, each of which gives so many sessions.
func (t *tenant) innerServers(sessions int, timeouts smtpwire.Timeouts) (inner, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	auth, err := plainAuth("handoff.auth_file", t.config.Handoff.AuthFile)
	if err != nil {
		return nil, err
	}
	servers, all := map[string]*handoff.Inner{}, inner{}
	for _, o := range t.config.Organizations {
		s := servers[o.Inner]
		if s == nil {
			s = handoff.New(handoff.Config{
				Address: o.Inner, Name: t.config.Hostname, LMTP: t.config.Handoff.LMTP,
				TLS: tlsPolicies[t.config.Handoff.StartTLS], TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
				Auth: auth, Client: clientPolicies[t.config.Handoff.Client], Names: t.nameOf,
				MaxSessions: sessions, Timeouts: timeouts, Log: t.Log,
			})
			servers[o.Inner] = s
		}
		for _, d := range o.Domains {
			all[d] = s
		}
	}
	return all, nil
}

// Package appliance is the one place that wires, starts and stops everything: it opens the vault, joins the houses
// through the small interfaces that each declares, and runs the listeners and the queue.
package appliance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/certificates"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/proxied"
	"dimegate/appliance/spool"
	"dimegate/bridge"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/handoff"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/submission"
	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/resolver"
	"dimegate/internal/safefile"
	"dimegate/trustful"
)

// Options are what a configuration file does not say.
type Options struct {
	Log *slog.Logger
	Now func() time.Time // nil: time.Now

	// Dial connects to another organisation's gateway; nil: TCP.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Sealed is shown every message before it leaves, sealed; nil: nobody is.
	Sealed func(octets []byte)
}

// An Appliance is one gateway with everything it is made of. Run it once.
type Appliance struct {
	gateway
	tenants tenants

	certificates *dmtpserver.Certificates // that others see
	inside       inside
	watchers     [2]*certificates.Watcher
	obtainer     *certificates.ACME // nil: no ACME

	submission *submission.Server
	plain      *plain // nil: no shared port
	server     *dmtpserver.Server

	listeners listeners
}

// listeners are the open sockets of each kind.
type listeners struct{ submission, dmtp, dual, acme, health []net.Listener }

// Open opens the vault, makes every part and opens the sockets, so that whatever is wrong with the configuration shows
// before anything runs. The configuration is resolved and checked. Errors name the key or file and the remedy; then
// nothing stays open.
func Open(ctx context.Context, c *config.Config, o Options) (_ *Appliance, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Appliance{gateway: gateway{Options: o, config: c}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := each(a.makeScanners, a.makeClient, a.makeDNS); err != nil {
		return nil, err
	}
	a.tenants = newTenants(&a.gateway)
	if err := a.tenants.open(ctx); err != nil {
		return nil, err
	}
	if err := each(a.makeCertificates, a.makeSubmission, a.makeMX, a.makeServer, a.listen); err != nil {
		return nil, err
	}
	return a, nil
}

// each makes parts in their order, up to the first fault.
func each(parts ...func() error) error {
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// makeLoops makes the guard against loops. Its key is the site's: every gateway on this vault has it.
func (t *tenant) makeLoops() error {
	secret, err := t.vault.Derive("loop-marker")
	if err != nil {
		return err
	}
	defer secret.Destroy()
	key := secret.Octets()
	defer clear(key)
	t.loops = handoff.NewLoopGuard([32]byte(key))
	return nil
}

func (t *tenant) makeInner() (err error) {
	t.inner, err = t.innerServers(t.config.Handoff.MaxSessions, smtpwire.Timeouts{})
	return err
}

var tlsPolicies = map[string]handoff.TLSPolicy{"off": handoff.TLSOff, "opportunistic": handoff.TLSOpportunistic, "required": handoff.TLSRequired}

// roots are the CAs that we believe; nil: the system's.
func (g *gateway) roots() (*x509.CertPool, error) { return rootsOf("tls.ca_file", g.config.TLS.CAFile) }

// rootsOf reads the CAs of a file that a key names; nil when it names none.
func rootsOf(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM", key, file)
	}
	return pool, nil
}

func (g *gateway) makeClient() error {
	g.client = dmtpclient.New(dmtpclient.Options{
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			list, _, err := g.dns.Addresses(ctx, host) // whatever their state: the certificate is what is judged
			return list, err
		},
		Permit:         g.permit,
		Dial:           g.Dial,
		PerDestination: g.config.Queue.PerDomain,
	})
	return nil
}

func (g *gateway) makeDNS() (err error) {
	c := resolver.DNSConfig{Servers: g.config.DNS.Resolvers, TrustAD: g.config.DNS.TrustAD, Timeout: g.config.DNS.Timeout, Now: g.Now}
	if path := g.config.DNS.TrustAnchorFile; path != "" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("dns.trust_anchor_file: %w", err)
		}
		defer f.Close()
		if c.Anchors, err = resolver.ParseAnchors(f); err != nil {
			return fmt.Errorf("dns.trust_anchor_file: %s: %w", path, err)
		}
	}
	if g.dns, err = resolver.NewDNS(c); err != nil {
		return fmt.Errorf("dns.resolvers: %w", err)
	}
	return nil
}

func (t *tenant) makeResolver() error {
	roots, err := t.roots()
	if err != nil {
		return err
	}
	lists, err := revocationLists(t.config.TLS.CRLFiles)
	if err != nil {
		return err
	}
	t.resolver, err = resolver.New(resolver.Config{
		DNS: t.dns, Fetcher: fetcher{t.client}, Store: t.known, Judge: resolver.CertificateJudge{Roots: roots, CRLs: lists}, Now: t.Now,
		Alarm: func(ctx context.Context, m resolver.Alarm) {
			t.Log.LogAttrs(ctx, slog.LevelWarn, "alarm: "+m.Kind, slog.String("domain", domainOf(m.Name)), slog.String("text", m.Text))
		},
	})
	return err
}

func (t *tenant) makeKeeper() error {
	layer, err := keystore.Layer(t.config.Alt)
	if err != nil {
		return err
	}
	escrowed, err := t.escrowKeys(context.Background())
	if err != nil {
		return err
	}
	pins := trustful.NewPins(keystore.Pins{Vault: t.vault.Vault}, peers{t.resolver}, t.Now)
	o := trustful.Options{
		Store: keystore.Keys{Vault: t.vault.Vault, Now: t.Now, Escrow: escrowed}, Organization: t.orgs, Pins: pins, Peers: peers{t.resolver},
		Grace: t.config.Keys.Grace, Life: t.config.Keys.RotateAfter, Keeps: t.config.KeepsKeys, Separator: t.config.SeparatorOf, Layer: layer, Now: t.Now,
	}
	if t.config.Handoff.CallAhead {
		o.Mailboxes = t.inner
	}
	t.keeper, err = trustful.NewKeeper(o)
	return err
}

func (t *tenant) makeLadder() error {
	t.reports = tlsrpt.New(keystore.TLSResults{Vault: t.vault.Vault}, t.Now)
	return t.makeExchange(keystore.Policies{Vault: t.vault.Vault}, t.reports)
}

func (t *tenant) makeQueue() error {
	q := t.config.Queue
	notice := q.DelayNotice
	if notice == 0 {
		notice = -1
	}
	t.queue = queue.New(spool.Store{Vault: t.vault.Vault, Keep: t.archive.outbound()}, queue.Options{
		Life: q.Life, TrustLife: q.TrustLife, DelayNotice: notice, Schedule: q.Schedule, Workers: q.Workers,
		PerDomain: q.PerDomain, InFlight: q.InFlight,
		Hostname: t.config.Hostname, Postmaster: "postmaster@" + t.domains()[0], Now: t.Now, Log: t.Log,
	})
	t.history = bridge.NewHistory(keystore.History{Vault: t.vault.Vault}, t.config.Policy.History, t.Now)
	t.outbound = bridge.NewOutbound(bridge.OutboundOptions{
		Router: router{t.resolver, t.client, t.config.Policy}, Author: author{t.keeper, t.resolver}, Origin: t.orgs,
		Carrier: carrier{t.client, t.orgs, t.Sealed}, Exchange: t.exchange, Domains: t.domains(), Hostname: t.config.Hostname,
		OwnHosts: ownHosts(t.config), Loops: t.loops, Journal: t.config.Policy.Journal, History: t.history, Log: t.Log,
	})
	return nil
}

// ownHosts are the names under which we and the inner servers sign Received fields, as far as the configuration tells.
func ownHosts(c *config.Config) []string {
	list := []string{strings.ToLower(c.Hostname)}
	for _, o := range c.Organizations {
		host, _, err := net.SplitHostPort(o.Inner)
		if _, perr := netip.ParseAddr(host); err == nil && perr != nil && host != "localhost" {
			list = append(list, strings.ToLower(strings.TrimSuffix(host, ".")))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// firewall is what takes fields out of mail from outside.
func firewall(c *config.Config) handoff.Firewall {
	return handoff.Firewall{AuthServIDs: []string{c.Hostname}, KeepExchange: c.Handoff.Exchange == "keep"}
}

func (t *tenant) makeInbound() error {
	t.inbound = bridge.NewInbound(bridge.InboundOptions{
		Opener: opener{t.keeper, t.resolver}, Inner: t.inner, Intents: t.intents(), Scanner: t.scanners.inbound,
		Firewall: firewall(t.config), Loops: t.loops, Hostname: t.config.Hostname, Now: t.Now, Log: t.Log,
	})
	return nil
}

func (a *Appliance) makeSubmission() error {
	s := a.config.Submission
	var err error
	c := submission.Config{
		Name: a.config.Hostname, Networks: s.Prefixes(), XClient: s.XClients(), Domains: a.tenants.serve, May: a.tenants.may,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.inside.get}, RequireTLS: s.RequireTLS,
		MaxOctets: s.MaxOctets, MaxRecipients: s.MaxRecipients, MaxSessions: s.MaxSessions, Timeout: s.Timeout,
		MaxPerClient: s.MaxPerClient, MessagesHourly: s.MessagesHourly, RecipientsHourly: s.RecipientsHourly, Mend: s.Mended(), Forwarding: s.Forwarding, Certificates: s.CertificateNames,
	}
	if c.Roots, err = a.roots(); err != nil {
		return err
	}
	for _, t := range s.Tenants {
		c.Tenants = append(c.Tenants, submission.Tenant{Certificate: t.CertificateName, Field: t.Field, Value: t.Value})
	}
	if s.AuthFile != "" {
		b, err := safefile.ReadSecret(s.AuthFile, maxUsersFile)
		if err == nil {
			c.Users, err = submission.ParseUsers(b)
		}
		if err != nil {
			return fmt.Errorf("submission.auth_file: %s: %w", s.AuthFile, err)
		}
	}
	a.submission = submission.New(c, acceptor{a.tenants, a.scanners.outbound, a.journalist(a.tenants)}, a.Log)
	return nil
}

// maxUsersFile bounds the file of submission.auth_file, in octets.
const maxUsersFile = 1 << 20

func (a *Appliance) makeServer() error {
	var err error
	c := dmtpserver.Config{
		Host: a.config.Hostname, Certificates: a.certificates, Directory: a.tenants, Domains: a.tenants, Origins: a.tenants,
		Outcomes: a.tenants, Deliverer: a.tenants, Log: a.Log,
		Limits:   dmtpserver.Limits{Message: uint64(a.config.DMTP.MaxOctets), Memory: messagesAtOnce, Sessions: a.config.DMTP.MaxSessions, Exempt: append(a.config.DMTP.Permitted(), a.config.Inbound.Exempted()...)},
		Buffers:  dmtpserver.NewFiles(a.config.DataFolder, messagesAtOnce),
		Timeouts: dmtpserver.Timeouts{Hello: a.config.DMTP.Timeout, Idle: 2 * a.config.DMTP.Timeout, Deliver: a.config.Handoff.Timeout},
	}
	if a.plain != nil {
		c.SMTP = a.plain.smtp
	}
	a.server, err = dmtpserver.New(c)
	return err
}

// messagesAtOnce bounds the octets of all messages that come in over DMTP at one time, ciphertext in unnamed files.
const messagesAtOnce = 512 << 20

// names are all under which others can ask for a certificate on port 25.
func (g *gateway) names() []string {
	list := []string{g.config.Hostname}
	for _, o := range g.config.Organizations {
		list = append(append(list, o.DX...), o.Domains...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// listen opens every socket of the configuration.
func (a *Appliance) listen() error {
	var acme []string
	if a.config.DMTP.ACME.On() {
		acme = []string{a.config.DMTP.ACME.Listen}
	}
	for _, l := range []struct {
		key       string
		addresses []string
		proxies   []netip.Prefix
		into      *[]net.Listener
	}{
		{"submission.listen", a.config.Submission.Listen, a.config.Submission.Proxies(), &a.listeners.submission},
		{"dmtp.listen", a.config.DMTP.Listen, a.config.DMTP.Proxies(), &a.listeners.dmtp},
		{"dmtp.listen_dual", a.config.DMTP.ListenDual, a.config.DMTP.Proxies(), &a.listeners.dual},
		{"dmtp.acme.listen", acme, nil, &a.listeners.acme},
		{"health.listen", []string{a.config.Health.Listen}, nil, &a.listeners.health},
	} {
		for _, address := range l.addresses {
			if address == "" {
				continue
			}
			ln, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", l.key, address, listenRemedy(err))
			}
			if len(l.proxies) > 0 {
				ln = proxied.New(ln, l.proxies, a.Log)
			}
			*l.into = append(*l.into, ln)
		}
	}
	return nil
}

// Addresses tells where the gateway listens, for those who let the system choose.
func (a *Appliance) Addresses() (submission, dmtp string) {
	return a.listeners.submission[0].Addr().String(), a.listeners.dmtp[0].Addr().String()
}

// Close gives back what Open took and Run has not closed.
func (a *Appliance) Close() error {
	var errs []error
	for _, ln := range slices.Concat(a.listeners.submission, a.listeners.dmtp, a.listeners.dual, a.listeners.acme, a.listeners.health) {
		ln.Close() // Serve may have closed it
	}
	if a.client != nil {
		errs = append(errs, a.client.Close())
	}
	errs = append(errs, a.scanners.close())
	if a.plain != nil {
		errs = append(errs, a.plain.inner.Close())
	}
	for _, t := range a.tenants {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

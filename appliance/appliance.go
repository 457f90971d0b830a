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

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/proxied"
	"dimegate/appliance/spool"
	"dimegate/bridge"
	"dimegate/bridge/exchange"
	"dimegate/bridge/exchange/mtasts"
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
	"dimegate/vault/audit"
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
	Options
	config *config.Config

	vault      *keystore.Opened
	known      resolver.Store // what is remembered of other domains
	orgs       organizations
	loops      *handoff.LoopGuard
	inner      inner
	client     *dmtpclient.Client
	dns        *resolver.DNS
	resolver   *resolver.Resolver
	keeper     *trustful.Keeper
	queue      *queue.Queue
	policies   *mtasts.Client
	reports    *tlsrpt.Recorder
	history    *bridge.History
	witnesses  []*audit.RemoteWitness
	exchange   *exchange.Exchanger
	outbound   *bridge.Outbound
	inbound    *bridge.Inbound
	submission *submission.Server
	plain      *plain // nil: no shared port
	scanners   scanners
	server     *dmtpserver.Server

	listeners listeners
}

// listeners are the open sockets of each kind.
type listeners struct{ submission, dmtp, dual, health []net.Listener }

// Open opens the vault, makes every part and opens the sockets, so that whatever is wrong with the configuration shows
// before anything runs. The configuration is resolved and checked. Errors name the key or file and the remedy; then
// nothing stays open.
func Open(ctx context.Context, c *config.Config, o Options) (_ *Appliance, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Appliance{Options: o, config: c}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if a.vault, err = keystore.Open(ctx, c.Vault, true); err != nil {
		return nil, err
	}
	a.vault.KeepFree(c.Queue.MinFree)
	a.known = keystore.DomainPins{Vault: a.vault.Vault}
	a.warnLost(a.vault.Missing)
	if err := a.sayLayer(ctx); err != nil {
		return nil, err
	}
	if a.orgs, err = openOrganizations(ctx, a.vault.Vault, c); err != nil {
		return nil, err
	}
	for _, part := range []func() error{a.makeLoops, a.makeScanners, a.makeInner, a.makeClient, a.makeResolver, a.makeKeeper, a.makeLadder, a.makeQueue, a.makeInbound, a.makeSubmission, a.makeMX, a.makeServer, a.makeWitnesses, a.listen} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// makeLoops makes the guard against loops. Its key is the site's: every gateway on this vault has it.
func (a *Appliance) makeLoops() error {
	secret, err := a.vault.Derive("loop-marker")
	if err != nil {
		return err
	}
	defer secret.Destroy()
	key := secret.Octets()
	defer clear(key)
	a.loops = handoff.NewLoopGuard([32]byte(key))
	return nil
}

func (a *Appliance) makeInner() (err error) {
	a.inner, err = a.innerServers(a.config.Handoff.MaxSessions, smtpwire.Timeouts{})
	return err
}

var tlsPolicies = map[string]handoff.TLSPolicy{"off": handoff.TLSOff, "opportunistic": handoff.TLSOpportunistic, "required": handoff.TLSRequired}

// roots are the CAs that we believe; nil: the system's.
func (a *Appliance) roots() (*x509.CertPool, error) {
	if a.config.TLS.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(a.config.TLS.CAFile)
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca_file: %s holds no certificate in PEM", a.config.TLS.CAFile)
	}
	return pool, nil
}

func (a *Appliance) makeClient() error {
	a.client = dmtpclient.New(dmtpclient.Options{
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			list, _, err := a.dns.Addresses(ctx, host) // whatever their state: the certificate is what is judged
			return list, err
		},
		Permit:         a.permit,
		Dial:           a.Dial,
		PerDestination: a.config.Queue.PerDomain,
	})
	return nil
}

func (a *Appliance) makeResolver() error {
	roots, err := a.roots()
	if err != nil {
		return err
	}
	lists, err := revocationLists(a.config.TLS.CRLFiles)
	if err != nil {
		return err
	}
	c := resolver.DNSConfig{Servers: a.config.DNS.Resolvers, TrustAD: a.config.DNS.TrustAD, Timeout: a.config.DNS.Timeout, Now: a.Now}
	if path := a.config.DNS.TrustAnchorFile; path != "" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("dns.trust_anchor_file: %w", err)
		}
		defer f.Close()
		if c.Anchors, err = resolver.ParseAnchors(f); err != nil {
			return fmt.Errorf("dns.trust_anchor_file: %s: %w", path, err)
		}
	}
	if a.dns, err = resolver.NewDNS(c); err != nil {
		return fmt.Errorf("dns.resolvers: %w", err)
	}
	a.resolver, err = resolver.New(resolver.Config{
		DNS: a.dns, Fetcher: fetcher{a.client}, Store: a.known, Judge: resolver.CertificateJudge{Roots: roots, CRLs: lists}, Now: a.Now,
		Alarm: func(ctx context.Context, m resolver.Alarm) {
			a.Log.LogAttrs(ctx, slog.LevelWarn, "alarm: "+m.Kind, slog.String("domain", domainOf(m.Name)), slog.String("text", m.Text))
		},
	})
	return err
}

func (a *Appliance) makeKeeper() error {
	layer, err := keystore.Layer(a.config.Alt)
	if err != nil {
		return err
	}
	pins := trustful.NewPins(keystore.Pins{Vault: a.vault.Vault}, peers{a.resolver}, a.Now)
	o := trustful.Options{
		Store: keystore.Keys{Vault: a.vault.Vault, Now: a.Now}, Organization: a.orgs, Pins: pins, Peers: peers{a.resolver},
		Grace: a.config.Keys.Grace, Life: a.config.Keys.RotateAfter, Keeps: a.config.KeepsKeys, Layer: layer, Now: a.Now,
	}
	if a.config.Handoff.CallAhead {
		o.Mailboxes = a.inner
	}
	a.keeper, err = trustful.NewKeeper(o)
	return err
}

func (a *Appliance) makeLadder() error {
	a.reports = tlsrpt.New(keystore.TLSResults{Vault: a.vault.Vault}, a.Now)
	return a.makeExchange(keystore.Policies{Vault: a.vault.Vault}, a.reports)
}

func (a *Appliance) makeQueue() error {
	q := a.config.Queue
	notice := q.DelayNotice
	if notice == 0 {
		notice = -1
	}
	a.queue = queue.New(spool.Store{Vault: a.vault.Vault}, queue.Options{
		Life: q.Life, TrustLife: q.TrustLife, DelayNotice: notice, Schedule: q.Schedule, Workers: q.Workers,
		PerDomain: q.PerDomain, InFlight: q.InFlight,
		Hostname: a.config.Hostname, Postmaster: "postmaster@" + a.domains()[0], Now: a.Now, Log: a.Log,
	})
	a.history = bridge.NewHistory(keystore.History{Vault: a.vault.Vault}, a.config.Policy.History, a.Now)
	a.outbound = bridge.NewOutbound(bridge.OutboundOptions{
		Router: router{a.resolver, a.client, a.config.Policy}, Author: author{a.keeper, a.resolver}, Origin: a.orgs,
		Carrier: carrier{a.client, a.orgs, a.Sealed}, Exchange: a.exchange, Domains: a.domains(), Hostname: a.config.Hostname,
		OwnHosts: ownHosts(a.config), Loops: a.loops, Journal: a.config.Policy.Journal, History: a.history, Log: a.Log,
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

// domains are ours, in the order of the configuration.
func (a *Appliance) domains() []string {
	var list []string
	for _, o := range a.config.Organizations {
		list = append(list, o.Domains...)
	}
	return list
}

// firewall is what takes fields out of mail from outside.
func firewall(c *config.Config) handoff.Firewall {
	return handoff.Firewall{AuthServIDs: []string{c.Hostname}, KeepExchange: c.Handoff.Exchange == "keep"}
}

func (a *Appliance) makeInbound() error {
	a.inbound = bridge.NewInbound(bridge.InboundOptions{
		Opener: opener{a.keeper, a.resolver}, Inner: a.inner, Intents: intents{a.vault.Vault, a.Now}, Scanner: a.scanners.inbound,
		Firewall: firewall(a.config), Loops: a.loops, Hostname: a.config.Hostname, Now: a.Now, Log: a.Log,
	})
	return nil
}

func (a *Appliance) makeSubmission() error {
	s := a.config.Submission
	cert, err := tls.LoadX509KeyPair(s.CertificateFile, s.KeyFile)
	if err != nil {
		return fmt.Errorf("submission.certificate_file: %s: %w", s.CertificateFile, err)
	}
	c := submission.Config{
		Name: a.config.Hostname, Networks: s.Prefixes(), XClient: s.XClients(), Domains: func(d string) bool { return a.orgs.domains[d] != nil },
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}, RequireTLS: s.RequireTLS,
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
	a.submission = submission.New(c, acceptor{a.queue, a.scanners.outbound}, a.Log)
	return nil
}

// maxUsersFile bounds the file of submission.auth_file, in octets.
const maxUsersFile = 1 << 20

func (a *Appliance) makeServer() error {
	certs, err := a.certificates()
	if err != nil {
		return err
	}
	certificates, err := dmtpserver.NewCertificates(dmtpserver.Host{Names: a.names(), Certificates: certs})
	if err != nil {
		return fmt.Errorf("dmtp.certificate: %w", err)
	}
	c := dmtpserver.Config{
		Host: a.config.Hostname, Certificates: certificates, Directory: directory{a.keeper}, Domains: a.orgs, Origins: origins{a.resolver},
		Outcomes: intents{a.vault.Vault, a.Now}, Deliverer: a.inbound, Log: a.Log,
		Limits:   dmtpserver.Limits{Message: uint64(a.config.DMTP.MaxOctets), Memory: messagesAtOnce, Sessions: a.config.DMTP.MaxSessions, Exempt: append(a.config.DMTP.Permitted(), a.config.Inbound.Exempted()...)},
		Buffers:  dmtpserver.NewFiles(a.config.Vault.Folder, messagesAtOnce),
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
func (a *Appliance) names() []string {
	list := []string{a.config.Hostname}
	for _, o := range a.config.Organizations {
		list = append(append(list, o.DX...), o.Domains...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// listen opens every socket of the configuration.
func (a *Appliance) listen() error {
	for _, l := range []struct {
		key       string
		addresses []string
		proxies   []netip.Prefix
		into      *[]net.Listener
	}{
		{"submission.listen", a.config.Submission.Listen, a.config.Submission.Proxies(), &a.listeners.submission},
		{"dmtp.listen", a.config.DMTP.Listen, a.config.DMTP.Proxies(), &a.listeners.dmtp},
		{"dmtp.listen_dual", a.config.DMTP.ListenDual, a.config.DMTP.Proxies(), &a.listeners.dual},
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
	for _, ln := range slices.Concat(a.listeners.submission, a.listeners.dmtp, a.listeners.dual, a.listeners.health) {
		ln.Close() // Serve may have closed it
	}
	if a.client != nil {
		errs = append(errs, a.client.Close())
	}
	if a.exchange != nil {
		errs = append(errs, a.exchange.Close())
	}
	errs = append(errs, a.inner.Close(), a.scanners.close())
	if a.plain != nil {
		errs = append(errs, a.plain.inner.Close())
	}
	a.orgs.destroy()
	if a.vault != nil {
		errs = append(errs, a.vault.Close())
	}
	return errors.Join(errs...)
}

package appliance

import (
	"context"
	"errors"
	"strings"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/bridge/exchange"
	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/handoff"
	"dimegate/bridge/queue"
	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault/audit"
)

// A gateway is what all tenants of one process use: its names, its way to the network and to the mail servers behind it.
// Nothing in it rests on disk, and no seal protects it.
type gateway struct {
	Options
	config *config.Config // whole

	client   *dmtpclient.Client
	dns      *resolver.DNS
	scanners scanners
}

// A tenant is one vault with everything that works on it: the organisations whose keys, queue, records and log are there.
// Tenants share the gateway and nothing that a seal protects.
type tenant struct {
	*gateway
	config *config.Config // as the gateway's, with the organisations and the vault of this tenant alone

	vault     *keystore.Opened
	inner     inner          // of its domains
	known     resolver.Store // what is remembered of other domains
	orgs      organizations
	loops     *handoff.LoopGuard
	resolver  *resolver.Resolver
	keeper    *trustful.Keeper
	queue     *queue.Queue
	policies  *mtasts.Client
	reports   *tlsrpt.Recorder
	history   *bridge.History
	witnesses []*audit.RemoteWitness
	exchange  *exchange.Exchanger
	outbound  *bridge.Outbound
	inbound   *bridge.Inbound
}

// openTenant opens a vault and makes every part that works on it. The gateway's own parts are made. After an error nothing
// stays open.
func openTenant(ctx context.Context, g *gateway, c *config.Config) (_ *tenant, err error) {
	t := &tenant{gateway: g, config: c}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.vault, err = keystore.Open(ctx, c.Vault, true); err != nil {
		return nil, err
	}
	t.vault.KeepFree(c.Queue.MinFree)
	t.known = keystore.DomainPins{Vault: t.vault.Vault}
	t.warnLost(t.vault.Missing)
	if err := t.sayLayer(ctx); err != nil {
		return nil, err
	}
	if t.orgs, err = openOrganizations(ctx, t.vault.Vault, c); err != nil {
		return nil, err
	}
	if err := each(t.makeLoops, t.makeInner, t.makeResolver, t.makeKeeper, t.makeLadder, t.makeQueue, t.makeInbound, t.makeWitnesses); err != nil {
		return nil, err
	}
	return t, nil
}

// close gives back what openTenant took.
func (t *tenant) close() error {
	var errs []error
	if t.exchange != nil {
		errs = append(errs, t.exchange.Close())
	}
	errs = append(errs, t.inner.Close())
	t.orgs.destroy()
	if t.vault != nil {
		errs = append(errs, t.vault.Close())
	}
	return errors.Join(errs...)
}

// domains are ours, in the order of the configuration.
func (t *tenant) domains() []string {
	var list []string
	for _, o := range t.config.Organizations {
		list = append(list, o.Domains...)
	}
	return list
}

// tenants are all of one gateway, at least one. They are the DMTP server's view of our side: each question goes to the tenant whose
// domain it is about, and to no other.
type tenants []*tenant

// of returns the tenant of a domain of ours, which is in lower case.
func (all tenants) of(domain string) (*tenant, bool) {
	for _, t := range all {
		if t.orgs.domains[domain] != nil {
			return t, true
		}
	}
	return nil, false
}

// named returns the tenant of a domain or address; dmtpserver.ErrNotFound where nobody's is asked for.
func (all tenants) named(name string) (*tenant, error) {
	if t, ok := all.of(name[strings.LastIndexByte(name, '@')+1:]); ok {
		return t, nil
	}
	return nil, dmtpserver.ErrNotFound
}

// Current is dmtpserver.Directory's.
func (all tenants) Current(ctx context.Context, name string) (*signet.Signet, error) {
	t, err := all.named(name)
	if err != nil {
		return nil, err
	}
	s, err := t.keeper.Current(ctx, name)
	return s, notFound(err)
}

// Chain is dmtpserver.Directory's.
func (all tenants) Chain(ctx context.Context, name string) ([]*signet.Signet, error) {
	t, err := all.named(name)
	if err != nil {
		return nil, err
	}
	list, err := t.keeper.Chain(ctx, name)
	return list, notFound(err)
}

// Organization is dmtpserver.Domains'.
func (all tenants) Organization(ctx context.Context, domain string) (*dmtpserver.Organization, error) {
	t, err := all.named(domain)
	if err != nil {
		return nil, err
	}
	return t.orgs.Organization(ctx, domain)
}

// OriginSignet is dmtpserver.Origins'.
func (all tenants) OriginSignet(ctx context.Context, destination, domain string, crypto signet.Fingerprint, mayAsk func() bool) (*signet.Signet, error) {
	t, err := all.named(destination)
	if err != nil {
		return nil, err
	}
	return origins{t.resolver}.OriginSignet(ctx, domain, crypto, mayAsk)
}

// Message is dmtpserver.Outcomes'.
func (all tenants) Message(ctx context.Context, destination, origin string, id [64]byte) (dmtpserver.Outcome, error) {
	t, err := all.named(destination)
	if err != nil {
		return dmtpserver.Outcome{}, err
	}
	return t.intents().Message(ctx, destination, origin, id)
}

// Accepted is dmtpserver.Outcomes'.
func (all tenants) Accepted(ctx context.Context, destination, origin string, commit [64]byte) (bool, error) {
	t, err := all.named(destination)
	if err != nil {
		return false, err
	}
	return t.intents().Accepted(ctx, destination, origin, commit)
}

// Deliver is dmtpserver.Deliverer's.
func (all tenants) Deliver(ctx context.Context, in *dmtpserver.Incoming) error {
	t, err := all.named(in.Destination)
	if err != nil {
		return err
	}
	return t.inbound.Deliver(ctx, in)
}

func (t *tenant) intents() intents { return intents{t.vault.Vault, t.Now} }

// serve tells whether a domain is ours.
func (all tenants) serve(domain string) bool {
	_, ours := all.of(domain)
	return ours
}

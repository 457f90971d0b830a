package appliance

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

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
// Tenants share the gateway and nothing that a seal protects. Its configuration is there from the start; the other parts only from
// the moment that it is up on, which for one of several may come later: until then its mail waits outside.
type tenant struct {
	*gateway
	config *config.Config // as the gateway's, with the organisations and the vault of this tenant alone
	up     atomic.Bool

	vault     *keystore.Opened
	archive   *archivist     // nil: nothing is kept
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

	archiveSwept time.Time // sweep's own
	alarms       alarms
}

// errDown is for whoever needs a tenant whose vault is not open. It is temporary.
var errDown = errors.New("appliance: the organisation's vault is not open")

// newTenants makes the tenants of a gateway, none of them up yet. Several say in the log whose it is.
func newTenants(g *gateway) tenants {
	var all tenants
	views := g.config.Tenants()
	for _, view := range views {
		own := *g
		if len(views) > 1 {
			own.Log = g.Log.With("organization", view.Organizations[0].Name)
		}
		all = append(all, &tenant{gateway: &own, config: view})
	}
	return all
}

// open opens the vault and makes every part that works on it. After an error nothing stays open, and it may be tried again.
func (t *tenant) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			t.close()
			t.vault, t.archive, t.inner, t.orgs, t.exchange, t.witnesses = nil, nil, nil, organizations{}, nil, nil
		}
	}()
	if t.vault, err = keystore.Open(ctx, t.config.Vault, true); err != nil {
		return err
	}
	t.vault.KeepFree(t.config.Queue.MinFree)
	t.known = keystore.DomainPins{Vault: t.vault.Vault}
	t.warnLost(t.vault.Missing)
	if err := t.sayLayer(ctx); err != nil {
		return err
	}
	if t.orgs, err = openOrganizations(ctx, t.vault.Vault, t.config); err != nil {
		return err
	}
	if err := each(t.makeArchive, t.makeLoops, t.makeInner, t.makeResolver, t.makeKeeper, t.makeLadder, t.makeQueue, t.makeInbound, t.makeWitnesses); err != nil {
		return err
	}
	t.up.Store(true)
	return nil
}

// run works on the vault until ctx ends, for a tenant that is not up once it is. The error is a part's that failed, or nil.
func (t *tenant) run(ctx context.Context) error {
	for last := ""; !t.up.Load(); {
		err := t.open(ctx)
		if err == nil {
			t.Log.Info("the vault is open: mail of its organisations goes on")
			break
		}
		if now := err.Error(); now != last && ctx.Err() == nil {
			t.Log.Error("the vault cannot be opened: mail of its organisations waits outside, and all other goes on", "error", now)
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sealedRetry):
		}
	}
	return together(ctx, map[string]func(context.Context) error{
		"queue": func(ctx context.Context) error {
			return t.queue.Run(ctx, deliverer{t.outbound}, notifier{t.inner, t.loops, t.queue})
		},
		"checkpoints": t.checkpoints, "counts": t.flush, "sweep": t.sweep, "organizations": t.watchOrganizations, "seals": t.watchSeals,
	})
}

// fault tells why the tenant takes no mail now; nil: it does.
func (t *tenant) fault() error {
	if !t.up.Load() {
		return errDown
	}
	if err := t.vault.Fault(); err != nil {
		return err
	}
	return t.archive.fault()
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

// open opens all that can be opened. Where none can, the error is of the first.
func (all tenants) open(ctx context.Context) error {
	var first error
	up := 0
	for _, t := range all {
		switch err := t.open(ctx); {
		case err == nil:
			up++
		case first == nil:
			first = err
		}
	}
	if up == 0 {
		return first
	}
	return nil
}

// run runs all until ctx ends. The only one's fault ends it; of several, one that fails is down from then on, and the others go on as
// long as there is one.
func (all tenants) run(ctx context.Context) error {
	if len(all) == 1 {
		return all[0].run(ctx)
	}
	var failed atomic.Int32
	parts := map[string]func(context.Context) error{}
	for _, t := range all {
		parts[t.config.Organizations[0].Name] = func(ctx context.Context) error {
			err := t.run(ctx)
			if err == nil || ctx.Err() != nil {
				return nil
			}
			t.up.Store(false)
			t.Log.Error("a part failed: mail of its organisations waits outside until the gateway is started again, and all other goes on", "error", err)
			if int(failed.Add(1)) == len(all) {
				return err
			}
			return nil
		}
	}
	return together(ctx, parts)
}

// states are what readiness is made of.
func (all tenants) states() []state {
	list := make([]state, len(all))
	for i, t := range all {
		err := t.fault()
		list[i] = state{t.config, err == nil, t.alarms.lines(), faultWord(err)}
	}
	return list
}

// of returns the tenant of a domain of ours, which is in lower case. It need not be up.
func (all tenants) of(domain string) (*tenant, bool) {
	for _, t := range all {
		if _, ok := t.config.Organization(domain); ok {
			return t, true
		}
	}
	return nil, false
}

// serve tells whether a domain is ours.
func (all tenants) serve(domain string) bool {
	_, ours := all.of(domain)
	return ours
}

// named returns the tenant of a domain or address, which is up: dmtpserver.ErrNotFound where it is nobody's here, errDown where it is not.
func (all tenants) named(name string) (*tenant, error) {
	t, ok := all.of(name[strings.LastIndexByte(name, '@')+1:])
	switch {
	case !ok:
		return nil, dmtpserver.ErrNotFound
	case !t.up.Load():
		return nil, errDown
	}
	return t, nil
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

func (t *tenant) intents() intents { return intents{t.vault.Vault, t.archive, t.seen, t.Now} }

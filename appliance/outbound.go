package appliance

import (
	"context"
	"errors"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge"
	"dimegate/bridge/exchange"
	"dimegate/bridge/queue"
	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/message"
	"dimegate/dmtp/record"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/internal/killpoint"
	"dimegate/trustful"
	"dimegate/vault"
)

// deliverer tells the queue of a full disk in its own word, wherever below a delivery it showed: in pins, keys or notes. It is
// no fault of the entry, which must not come into quarantine for it.
type deliverer struct{ to queue.Deliverer }

func (d deliverer) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	r, err := d.to.Deliver(ctx, it)
	if errors.Is(err, vault.ErrFull) {
		err = errors.Join(queue.ErrFull, err)
	}
	return r, err
}

// router finds the way to a recipient: the resolver, under the administrator's policy.
type router struct {
	resolver *resolver.Resolver
	client   *dmtpclient.Client
	policy   config.Policy
}

// situations is what the resolver's verdicts mean to the policy table. What is not here is Unreachable.
var situations = []struct {
	verdict error
	is      bridge.Situation
}{
	{resolver.ErrNotDIME, bridge.NoRecord},
	{resolver.ErrNoSignet, bridge.NoSignet},
	{resolver.ErrDoubtful, bridge.Doubtful},
	{resolver.ErrVanished, bridge.Vanished},
	{resolver.ErrUntrusted, bridge.Untrusted},
	{resolver.ErrGarbled, bridge.Untrusted},
}

// Route looks the recipient up. Only a fault of ours is an error.
func (r router) Route(ctx context.Context, sender, recipient string) (bridge.Route, error) {
	u, err := r.resolver.User(ctx, recipient, true)
	if errors.Is(err, resolver.ErrBadName) {
		return r.unnamed(ctx, sender, recipient)
	}
	terms, terr := r.terms(ctx, sender, recipient)
	if terr != nil {
		return bridge.Route{}, terr
	}
	route := bridge.Route{Terms: terms}
	if err == nil {
		route.Situation, route.Remote, route.Via = bridge.Verified, u.Org.Record.Policy, u.Org
		route.Recipient = message.Party{Name: u.Address, Signet: u.Signet}
		route.Destination = message.Party{Name: u.Org.Name, Signet: u.Org.Signet}
		route.Evidence = func() []byte { return evidenceOf(u.Org) }
		return route, nil
	}
	switch {
	case ctx.Err() != nil:
		return bridge.Route{}, ctx.Err()
	case errors.Is(err, vault.ErrFull): // the pins could not be kept
		return bridge.Route{}, err
	}
	return failed(route, err), nil
}

// unnamed is for an address that no signet can be for: the domain's record alone decides.
func (r router) unnamed(ctx context.Context, sender, recipient string) (bridge.Route, error) {
	terms, err := r.terms(ctx, sender, recipient)
	if err != nil {
		return bridge.Route{}, err
	}
	route := bridge.Route{Situation: bridge.NoSignet, Terms: terms, Why: "a signet cannot carry this address"}
	d, err := r.resolver.Org(ctx, domainOf(recipient))
	switch {
	case err == nil:
		route.Remote = d.Record.Policy
		return route, nil
	case ctx.Err() != nil:
		return bridge.Route{}, ctx.Err()
	case errors.Is(err, resolver.ErrBadName): // a domain that is no host name publishes nothing
		route.Situation = bridge.NoRecord
		return route, nil
	}
	return failed(route, err), nil
}

// garbledLife is how long mail waits for a signet that can be read (dmtp.md §8.11).
const garbledLife = 24 * time.Hour

// failed puts a verdict of the resolver into a route.
func failed(route bridge.Route, err error) bridge.Route {
	route.Situation, route.Why = bridge.Unreachable, err.Error()
	for _, s := range situations {
		if errors.Is(err, s.verdict) {
			route.Situation = s.is
			break
		}
	}
	if errors.Is(err, resolver.ErrGarbled) {
		route.Life = garbledLife
	}
	e, ok := errors.AsType[*resolver.Error](err)
	if !ok {
		return route
	}
	if e.Change != nil {
		route.Life = e.Change.Life
	}
	if route.Situation == bridge.NoSignet {
		route.Remote = record.Strict // what is not known is not lowered
		if e.Domain != nil {
			route.Remote = e.Domain.Record.Policy
		}
	}
	return route
}

// Forget drops what is cached of a recipient.
func (r router) Forget(recipient string) { r.resolver.Forget(recipient) }

// Retry drops failures from before an administrator asked for a try.
func (r router) Retry(recipient string, asked time.Time) {
	r.client.Retry(asked)
	r.resolver.Retry(recipient, asked)
}

// terms are what the administrator asks for mail from a sender to a recipient.
func (r router) terms(ctx context.Context, sender, recipient string) (bridge.Terms, error) {
	domain := normal(domainOf(recipient))
	t := floorFor(r.policy, sender, domain)
	var err error
	t.Override, err = r.resolver.Overridden(ctx, domain, resolver.OverrideSMTP)
	return t, err
}

// floorFor is what a policy says, as terms.
func floorFor(p config.Policy, sender, domain string) bridge.Terms {
	name, layer := p.FloorFor(sender, normal(domain))
	floor, _ := exchange.ParseFloor(name) // checked; what is none holds
	return bridge.Terms{Floor: floor, Layer: bridge.Layer(layer)}
}

// normal is a domain as the configuration names it: in ASCII.
func normal(domain string) string {
	if d, err := resolver.NormalDomain(domain); err == nil {
		return d
	}
	return domain
}

// author is the users' agent in the bridge's words.
type author struct {
	keeper   *trustful.Keeper
	resolver *resolver.Resolver
}

// remotes are a record's policies in trustful's words.
var remotes = map[record.Policy]trustful.Remote{
	record.Experimental: trustful.Experimental, record.Mixed: trustful.Mixed, record.Strict: trustful.Strict,
}

func (a author) Draft(ctx context.Context, address string, r bridge.Route) (bridge.Draft, error) {
	override, err := a.resolver.Overridden(ctx, r.Destination.Name, resolver.OverrideBrokenCustody)
	if err != nil {
		return nil, err
	}
	d, err := a.keeper.Prepare(ctx, trustful.Outgoing{Author: address, Recipient: r.Recipient, Destination: r.Destination, Remote: remotes[r.Remote], Override: override})
	if err != nil {
		return nil, draftError(err)
	}
	return draft{d}, nil
}

// A draft is the users' agent's, with the bridge's errors.
type draft struct{ *trustful.Draft }

// Seal is temporary where the author's keys were rotated after the draft was made: the next try takes the new ones.
func (d draft) Seal(ctx context.Context, c *message.Content) (*message.Message, error) {
	m, err := d.Draft.Seal(ctx, c)
	return m, draftError(err)
}

// carrier is the DMTP client in the bridge's words. It looks at every message before it leaves, when somebody wants to.
type carrier struct {
	client  *dmtpclient.Client
	origins organizations
	look    func(octets []byte)
}

func (c carrier) Carry(ctx context.Context, origin string, r bridge.Route, octets []byte) (dmtpclient.Receipt, error) {
	org, err := c.origins.get(origin)
	if err != nil {
		return dmtpclient.Receipt{}, err
	}
	own, err := org.current().Fingerprint(signet.Full)
	if err != nil {
		return dmtpclient.Receipt{}, err
	}
	theirs, err := r.Destination.Signet.Fingerprint(signet.Full)
	if err != nil {
		return dmtpclient.Receipt{}, err
	}
	if c.look != nil {
		c.look(octets)
	}
	env := dmtpclient.Envelope{Origin: origin, Destination: r.Destination.Name, OriginSignet: own, DestinationSignet: theirs}
	receipt, err := c.client.Deliver(ctx, target(r.Via.(*resolver.Domain).Target()), env, octets)
	if err == nil {
		killpoint.Here(killpoint.ReplyAfter, nil)
	}
	return receipt, err
}

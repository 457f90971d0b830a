package appliance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/bridge/exchange/mtasts"
	"dimegate/dmtp/message"
	"dimegate/dmtp/resolver"
	"dimegate/trustful"
)

// An Explainer says what a gateway would do with a message. It asks the same questions of the same servers and changes
// nothing: what it learns is forgotten with it, no key is made and no message sent.
type Explainer struct {
	a        *Appliance
	outbound *bridge.Outbound
}

// OpenExplainer opens the vault beside a running gateway. The configuration is resolved and checked.
func OpenExplainer(ctx context.Context, c *config.Config, o Options) (_ *Explainer, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Appliance{Options: o, config: c}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if a.vault, err = keystore.Open(ctx, c.Vault, false); err != nil {
		return nil, err
	}
	a.known = &lookOnlyPins{Store: keystore.DomainPins{Vault: a.vault.Vault}}
	for _, part := range []func() error{a.makeClient, a.makeResolver, func() error {
		return a.makeExchange(lookOnlyPolicies{keystore.Policies{Vault: a.vault.Vault}}, nil)
	}} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	layer, err := keystore.Layer(c.Alt)
	if err != nil {
		return nil, err
	}
	pins := trustful.NewPins(lookOnlyKeys{keystore.Pins{Vault: a.vault.Vault}}, peers{a.resolver}, a.Now)
	return &Explainer{a, bridge.NewOutbound(bridge.OutboundOptions{
		Router: router{a.resolver, a.client, c.Policy}, Author: judge{pins, a.resolver, layer}, Exchange: a.exchange, Domains: a.domains(), Journal: c.Policy.Journal, Log: o.Log,
	})}, nil
}

// Explain answers one question.
func (e *Explainer) Explain(ctx context.Context, q bridge.Question) (bridge.Explanation, error) {
	return e.outbound.Explain(ctx, q)
}

// Close closes the vault and all connections.
func (e *Explainer) Close() error { return e.a.Close() }

// judge is an Author that only says whether it would write.
type judge struct {
	pins     *trustful.Pins
	resolver *resolver.Resolver
	layer    trustful.Layer
}

// A judged is a message that would be written: of a draft it has the suite alone.
type judged struct {
	bridge.Draft
	suite message.SuiteID
}

func (j judged) Suite() message.SuiteID { return j.suite }

func (j judge) Draft(ctx context.Context, _ string, r bridge.Route) (bridge.Draft, error) {
	override, err := j.resolver.Overridden(ctx, r.Destination.Name, resolver.OverrideBrokenCustody)
	if err != nil {
		return nil, err
	}
	err = j.pins.Trust(ctx, trustful.Claim{Address: r.Recipient.Name, Signet: r.Recipient.Signet, Remote: remotes[r.Remote], Override: override})
	if err != nil {
		return nil, draftError(err)
	}
	suite, err := j.layer.Suite(r.Destination.Name, r.Recipient.Signet)
	return judged{suite: suite}, err
}

// lookOnlyPins remembers new pins of domains for as long as it lives.
type lookOnlyPins struct {
	resolver.Store
	mu  sync.Mutex
	now map[string]*resolver.Pin
}

func (p *lookOnlyPins) Pin(ctx context.Context, domain string) (*resolver.Pin, error) {
	p.mu.Lock()
	pin := p.now[domain]
	p.mu.Unlock()
	if pin != nil {
		return pin.Clone(), nil
	}
	return p.Store.Pin(ctx, domain)
}

func (p *lookOnlyPins) SetPin(_ context.Context, pin *resolver.Pin) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		p.now = map[string]*resolver.Pin{}
	}
	if old := p.now[pin.Domain]; old != nil && old.Version != pin.Version {
		return resolver.ErrConflict
	}
	pin.Version++
	p.now[pin.Domain] = pin.Clone()
	return nil
}

// lookOnlyKeys accepts every signet of a user that the rules accept, and forgets it.
type lookOnlyKeys struct{ trustful.PinStore }

func (lookOnlyKeys) AddPins(context.Context, string, int, []trustful.Pin) error { return nil }
func (lookOnlyKeys) Checked(context.Context, string, time.Time) error           { return nil }

func (k lookOnlyKeys) SetDoubt(ctx context.Context, address string, d trustful.Doubt) (trustful.Doubt, error) {
	_, old, err := k.Pins(ctx, address)
	if err == nil && old != nil && old.Crypto == d.Crypto {
		d = *old
	}
	return d, err
}

// lookOnlyPolicies keeps no policy.
type lookOnlyPolicies struct{ mtasts.Store }

func (lookOnlyPolicies) SetPolicy(context.Context, string, []byte) error { return nil }
func (lookOnlyPolicies) DropPolicy(context.Context, string) error        { return nil }

// draftError gives trustful's errors the bridge's names.
func draftError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, trustful.ErrHeld):
		return errors.Join(bridge.ErrUntrusted, err)
	case errors.Is(err, trustful.ErrUnavailable), errors.Is(err, trustful.ErrNoKeys): // rotated meanwhile
		return errors.Join(bridge.ErrUnavailable, err)
	case errors.Is(err, trustful.ErrAddress), errors.Is(err, trustful.ErrNotOurs):
		return errors.Join(bridge.ErrSender, err)
	}
	return err
}

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
	t        *tenant
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
	t := &tenant{gateway: &gateway{Options: o, config: c.Whole()}, config: c}
	e := &Explainer{t: t}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if t.vault, err = keystore.Open(ctx, c.Vault, false); err != nil {
		return nil, err
	}
	t.known = &lookOnlyPins{Store: keystore.DomainPins{Vault: t.vault.Vault}}
	err = each(t.makeClient, t.makeDNS, t.makeResolver, func() error {
		return t.makeExchange(lookOnlyPolicies{keystore.Policies{Vault: t.vault.Vault}}, nil)
	})
	if err != nil {
		return nil, err
	}
	layer, err := keystore.Layer(c.Alt)
	if err != nil {
		return nil, err
	}
	pins := trustful.NewPins(lookOnlyKeys{keystore.Pins{Vault: t.vault.Vault}}, peers{t.resolver}, t.Now)
	e.outbound = bridge.NewOutbound(bridge.OutboundOptions{
		Router: router{t.resolver, t.client, c.Policy}, Author: judge{pins, t.resolver, layer}, Exchange: t.exchange, Domains: t.domains(), Journal: c.Policy.Journal, Log: o.Log,
	})
	return e, nil
}

// Explain answers one question.
func (e *Explainer) Explain(ctx context.Context, q bridge.Question) (bridge.Explanation, error) {
	return e.outbound.Explain(ctx, q)
}

// Close closes the vault and all connections.
func (e *Explainer) Close() error {
	var err error
	if e.t.client != nil {
		err = e.t.client.Close()
	}
	return errors.Join(err, e.t.close())
}

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
	case errors.Is(err, trustful.ErrOwnKeys):
		return errors.Join(bridge.ErrOwnKeys, err)
	case errors.Is(err, trustful.ErrAddress), errors.Is(err, trustful.ErrNotOurs), errors.Is(err, trustful.ErrDisabled):
		return errors.Join(bridge.ErrSender, err)
	}
	return err
}

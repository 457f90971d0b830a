package appliance

import (
	"context"
	"errors"

	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// fetcher gives the resolver its look-up sessions: the DMTP client.
type fetcher struct{ client *dmtpclient.Client }

func (f fetcher) Connect(ctx context.Context, t resolver.Target) (resolver.Session, error) {
	c, err := f.client.Connect(ctx, target(t))
	if err != nil {
		return nil, err
	}
	return lookup{c}, nil
}

// target is a resolver's target in the client's words.
func target(t resolver.Target) dmtpclient.Target {
	out := dmtpclient.Target{Domain: t.Domain, Verify: t.Verify}
	for _, h := range t.Hosts {
		out.Hosts = append(out.Hosts, dmtpclient.Host{Name: h.Name, Dual: h.Dual})
	}
	return out
}

// lookup is a session whose "no such signet" the resolver understands.
type lookup struct{ *dmtpclient.Conn }

func (l lookup) Signet(ctx context.Context, name string) ([]byte, error) {
	b, err := l.Conn.Signet(ctx, name)
	return b, noSignet(err)
}

func (l lookup) SignetByFingerprint(ctx context.Context, name string, fp [64]byte) ([]byte, error) {
	b, err := l.Conn.SignetByFingerprint(ctx, name, fp)
	return b, noSignet(err)
}

func (l lookup) Verify(ctx context.Context, name string, fp [64]byte) (bool, [64]byte, error) {
	current, update, err := l.Conn.Verify(ctx, name, fp)
	return current, update, noSignet(err)
}

func (l lookup) History(ctx context.Context, name string, start [64]byte, next func([]byte) ([64]byte, error)) ([][]byte, error) {
	list, err := l.Conn.History(ctx, name, start, next)
	return list, noSignet(err)
}

func noSignet(err error) error {
	if errors.Is(err, dmtpclient.ErrNoSignet) {
		return errors.Join(resolver.ErrNoSignet, err)
	}
	return err
}

// peers tells trustful of other organisations' users: the resolver.
type peers struct{ *resolver.Resolver }

func (p peers) Author(ctx context.Context, address string, crypto signet.Fingerprint) (*signet.Signet, error) {
	u, err := p.UserByFingerprint(ctx, address, crypto)
	if err != nil {
		return nil, peerError(err)
	}
	return u.Signet, nil
}

func (p peers) History(ctx context.Context, address string, from signet.Fingerprint) ([]*signet.Signet, error) {
	list, err := p.Resolver.History(ctx, address, from)
	return list, peerError(err)
}

func (p peers) Current(ctx context.Context, address string, full signet.Fingerprint) (bool, error) {
	current, err := p.Resolver.Current(ctx, address, full)
	return current, peerError(err)
}

// peerError gives the resolver's verdicts trustful's names. What is refused keeps its own: it cannot be trusted.
func peerError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, resolver.ErrNoSignet):
		return errors.Join(trustful.ErrNoSignet, err)
	case errors.Is(err, resolver.ErrUntrusted), errors.Is(err, resolver.ErrNotDIME):
		return err
	}
	return errors.Join(trustful.ErrUnavailable, err)
}

// origins finds the organisational signet that an incoming message's author named: dmtpserver's view of the resolver.
type origins struct{ *resolver.Resolver }

func (o origins) OriginSignet(ctx context.Context, domain string, crypto signet.Fingerprint, mayAsk func() bool) (*signet.Signet, error) {
	if !o.Known(domain) && !mayAsk() {
		return nil, dmtpserver.ErrOriginUnavailable
	}
	s, _, err := o.OrgByFingerprint(ctx, domain, crypto)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, resolver.ErrNoSignet):
		return nil, errors.Join(dmtpserver.ErrOriginUnknown, err)
	case errors.Is(err, resolver.ErrNotDIME):
		return nil, errors.Join(dmtpserver.ErrOriginGone, err)
	}
	return nil, errors.Join(dmtpserver.ErrOriginUnavailable, err)
}

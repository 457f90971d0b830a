package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dimegate/internal/testpeer"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// direct is the label under which an organisation can be reached without gateways: mail for direct.bravo.test goes from
// one Postfix to the other. What arrives there is the baseline that the line is held against.
const direct = "direct."

// users is who exists in both organisations. Anyone else is refused by the mail servers at RCPT, as in real life: a
// gateway makes keys only for those whom the mail server confirms.
const users = "^(alice|bob|carol|m[0-9]+)@"

// An Org is one organisation: its mail server, its mail store, and where its gateway stands.
type Org struct {
	Name    string // alpha
	Domain  string // alpha.test
	MX      string // address of the mail server
	DX      string // address of the gateway: 26 and 25 for others, 2525 for the mail server
	Postfix *testpeer.Postfix
	Store   *testpeer.Dovecot

	records []string // further records of its zone
	main    []string // further lines of its mail server's main.cf
	volume  string   // the folder for its gateway's data; "": the bench's
}

// A Lab is two organisations on loopback, and the name space that both believe in.
type Lab struct {
	*testpeer.Bench
	Tree         *zone.Tree
	Resolver     *testpeer.Unbound
	Alpha, Bravo *Org
}

// Orgs are the two organisations.
func (l *Lab) Orgs() []*Org { return []*Org{l.Alpha, l.Bravo} }

// Other is the organisation at the other end.
func (l *Lab) Other(o *Org) *Org {
	if o == l.Alpha {
		return l.Bravo
	}
	return l.Alpha
}

// NewLab starts names, mail servers and mail stores on a bench; the gateways come by themselves (see StartGateway). The
// caller closes the bench, and ctx must not end before. Each edit may change the organisations before they start.
func NewLab(ctx context.Context, b *testpeer.Bench, edit ...func(*Lab)) (*Lab, error) {
	l := &Lab{Bench: b, Alpha: &Org{Name: "alpha", Domain: "alpha.test"}, Bravo: &Org{Name: "bravo", Domain: "bravo.test"}}
	for _, e := range edit {
		e(l)
	}
	for _, o := range l.Orgs() {
		for _, addr := range []*string{&o.MX, &o.DX} {
			a, err := b.Address()
			if err != nil {
				return nil, err
			}
			*addr = a
		}
	}
	if err := l.startNames(ctx); err != nil {
		return nil, fmt.Errorf("names: %w", err)
	}
	err := l.each(func(o *Org) (err error) {
		o.Store, err = b.Dovecot(ctx, "store."+o.Domain, o.MX)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, l.each(func(o *Org) error { return l.startPostfix(ctx, o) })
}

// each does the same for both organisations at once.
func (l *Lab) each(f func(*Org) error) error {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, o := range l.Orgs() {
		wg.Go(func() { errs[i] = f(o) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// startNames serves the signed name space and a validating resolver for it.
func (l *Lab) startNames(ctx context.Context) error {
	server, err := l.Address()
	if err != nil {
		return err
	}
	resolver, err := l.Address()
	if err != nil {
		return err
	}
	udp, tcp, err := zone.Listen(server + ":53")
	if err != nil {
		return err
	}
	l.Tree, err = zone.New(netip.MustParseAddr(server),
		zone.Zone{Name: l.Alpha.Domain, Algorithm: dns.ED25519, Records: l.Alpha.zone()},
		zone.Zone{Name: l.Bravo.Domain, Algorithm: dns.ECDSAP256SHA256, Records: l.Bravo.zone()})
	if err != nil {
		return err
	}
	l.Go("zones", func(ctx context.Context) error { return l.Tree.Serve(ctx, udp, tcp) })
	l.Resolver, err = l.Unbound(ctx, "unbound", resolver, l.Tree.Anchor(), server+":53", l.Tree.Names())
	return err
}

// zone is what an organisation publishes.
func (o *Org) zone() []string {
	return slices.Concat([]string{"@ MX 10 mx", "mx A " + o.MX, "dx A " + o.DX}, o.records)
}

// Publish makes records, in presentation form with names relative to the zone, the whole of what an organisation
// publishes beside its hosts. The resolver keeps nothing, so they are seen at once.
func (l *Lab) Publish(o *Org, records ...string) error {
	o.records = records
	return l.Tree.Set(o.Domain, o.zone()...)
}

// startPostfix starts an organisation's mail server: its own domain rests in its store, mail for the direct name of the
// other goes there, and all else goes to the gateway.
func (l *Lab) startPostfix(ctx context.Context, o *Org) error {
	other := l.Other(o)
	var err error
	o.Postfix, err = l.Bench.Postfix(ctx, testpeer.PostfixConfig{
		Name: "mx." + o.Domain, Listen: o.MX + ":25", Hostname: "mx." + o.Domain, Domain: o.Domain,
		Domains:   []string{direct + o.Domain},
		Users:     users,
		Relayhost: "[" + o.DX + "]:2525",
		Main:      o.main,
		Transport: []string{
			o.Domain + " lmtp:inet:" + o.Store.LMTP,
			direct + o.Domain + " lmtp:inet:" + o.Store.LMTP,
			direct + other.Domain + " smtp:[" + other.MX + "]:25",
		},
	})
	return err
}

// waitLong bounds how long mail may take from one end to the other.
const waitLong = 5 * time.Minute

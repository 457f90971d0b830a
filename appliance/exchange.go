package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/emersion/go-sasl"

	"dimegate/bridge/exchange"
	"dimegate/bridge/exchange/mtasts"
	"dimegate/dmtp/dmtpclient"
	"dimegate/internal/safefile"
)

// maxPasswordFile bounds a file of plainAuth, in octets.
const maxPasswordFile = 1024

// makeExchange makes the way out by plain SMTP, over the given policies. Reports may be nil.
func (t *tenant) makeExchange(policies mtasts.Store, reports exchange.Reports) error {
	roots, err := t.roots()
	if err != nil {
		return err
	}
	auth, err := plainAuth("policy.smart_host_auth_file", t.config.Policy.SmartHostAuthFile)
	if err != nil {
		return err
	}
	t.policies = mtasts.New(mtasts.Options{
		Store: policies, Roots: roots, Now: t.Now, Dial: t.dialName,
		TXT: func(ctx context.Context, name string) ([]string, error) {
			texts, _, err := t.dns.TXT(ctx, name)
			return texts, err
		},
	})
	t.exchange = exchange.New(exchange.Options{
		Name: t.config.Hostname, Own: append(t.names(), ownHosts(t.config)...), DNS: t.dns, Policies: t.policies, Reports: reports, Roots: roots,
		Serves: t.takesPlain, Permit: t.permit, Dial: t.Dial, Now: t.Now,
		SmartHost: func(domain string) exchange.SmartHost {
			host, port := t.config.Policy.SmartHostFor(domain)
			return exchange.SmartHost{Host: host, Port: port, Auth: auth}
		},
	})
	return nil
}

// takesPlain tells whether plain mail for a domain comes in here.
func (g *gateway) takesPlain(domain string) bool {
	_, ours := g.config.Organization(domain)
	return ours && len(g.config.DMTP.ListenDual) > 0
}

// permit refuses addresses at which no other organisation can be.
func (g *gateway) permit(addr netip.Addr) error {
	for _, p := range g.config.DMTP.Permitted() {
		if p.Contains(addr) {
			return nil
		}
	}
	return dmtpclient.PublicOnly(addr)
}

// dialName connects to a name's permitted addresses in turn, by our own look-ups.
func (g *gateway) dialName(ctx context.Context, _, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	list, _, err := g.dns.Addresses(ctx, host) // whatever their state: the certificate is what is judged
	if err != nil {
		return nil, err
	}
	failed := errors.New("no address that may be connected to")
	for _, addr := range list {
		if g.permit(addr) != nil {
			continue
		}
		to := netip.AddrPortFrom(addr, uint16(port))
		var c net.Conn
		if g.Dial != nil {
			c, err = g.Dial(ctx, to)
		} else {
			c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to.String())
		}
		if err == nil {
			return c, nil
		}
		failed = err
	}
	return nil, failed
}

// plainAuth reads the name and password that a key names a file of; nil without a file.
func plainAuth(key, file string) (func() sasl.Client, error) {
	if file == "" {
		return nil, nil
	}
	b, err := safefile.ReadSecret(file, maxPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", key, file, err)
	}
	name, password, ok := bytes.Cut(bytes.TrimRight(b, "\r\n"), []byte(":"))
	if !ok || len(name) == 0 || bytes.ContainsAny(password, "\r\n\x00") {
		return nil, fmt.Errorf("%s: %s: not one line name:password", key, file)
	}
	return func() sasl.Client { return sasl.NewPlainClient("", string(name), string(password)) }, nil
}

// flushEvery is how often what is counted for TLS reports, and what was decided, is made durable.
const flushEvery = time.Minute

// flush keeps the counts of TLS reports and the decisions, now and then and at the end.
func (t *tenant) flush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			t.kept(last, errors.Join(t.reports.Flush(last), t.history.Flush(last)))
			return nil
		case <-time.After(flushEvery):
			t.kept(ctx, errors.Join(t.reports.Flush(ctx), t.history.Flush(ctx)))
		}
	}
}

func (t *tenant) kept(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		t.Log.Error("counts for TLS reports, or decisions, could not be kept", "error", err)
	}
}

// sweepExchange drops policies, counts and decisions whose time is over.
func (t *tenant) sweepExchange(ctx context.Context) {
	if err := errors.Join(t.policies.Sweep(ctx), t.reports.Sweep(ctx), t.history.Sweep(ctx)); err != nil && ctx.Err() == nil {
		t.Log.Error("kept MTA-STS policies, counts for TLS reports or decisions could not be swept", "error", err)
	}
}

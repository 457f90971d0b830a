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
func (a *Appliance) makeExchange(policies mtasts.Store, reports exchange.Reports) error {
	roots, err := a.roots()
	if err != nil {
		return err
	}
	auth, err := plainAuth("policy.smart_host_auth_file", a.config.Policy.SmartHostAuthFile)
	if err != nil {
		return err
	}
	a.policies = mtasts.New(mtasts.Options{
		Store: policies, Roots: roots, Now: a.Now, Dial: a.dialName,
		TXT: func(ctx context.Context, name string) ([]string, error) {
			texts, _, err := a.dns.TXT(ctx, name)
			return texts, err
		},
	})
	a.exchange = exchange.New(exchange.Options{
		Name: a.config.Hostname, Own: append(a.names(), ownHosts(a.config)...), DNS: a.dns, Policies: a.policies, Reports: reports, Roots: roots,
		Permit: a.permit, Dial: a.Dial, Now: a.Now,
		SmartHost: func(domain string) exchange.SmartHost {
			host, port := a.config.Policy.SmartHostFor(domain)
			return exchange.SmartHost{Host: host, Port: port, Auth: auth}
		},
	})
	return nil
}

// permit refuses addresses at which no other organisation can be.
func (a *Appliance) permit(addr netip.Addr) error {
	for _, p := range a.config.DMTP.Permitted() {
		if p.Contains(addr) {
			return nil
		}
	}
	return dmtpclient.PublicOnly(addr)
}

// dialName connects to a name's permitted addresses in turn, by our own look-ups.
func (a *Appliance) dialName(ctx context.Context, _, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	list, _, err := a.dns.Addresses(ctx, host) // whatever their state: the certificate is what is judged
	if err != nil {
		return nil, err
	}
	failed := errors.New("no address that may be connected to")
	for _, addr := range list {
		if a.permit(addr) != nil {
			continue
		}
		to := netip.AddrPortFrom(addr, uint16(port))
		var c net.Conn
		if a.Dial != nil {
			c, err = a.Dial(ctx, to)
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
func (a *Appliance) flush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			a.kept(last, errors.Join(a.reports.Flush(last), a.history.Flush(last)))
			return nil
		case <-time.After(flushEvery):
			a.kept(ctx, errors.Join(a.reports.Flush(ctx), a.history.Flush(ctx)))
		}
	}
}

func (a *Appliance) kept(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		a.Log.Error("counts for TLS reports, or decisions, could not be kept", "error", err)
	}
}

// sweepExchange drops policies, counts and decisions whose time is over.
func (a *Appliance) sweepExchange(ctx context.Context) {
	if err := errors.Join(a.policies.Sweep(ctx), a.reports.Sweep(ctx), a.history.Sweep(ctx)); err != nil && ctx.Err() == nil {
		a.Log.Error("kept MTA-STS policies, counts for TLS reports or decisions could not be swept", "error", err)
	}
}

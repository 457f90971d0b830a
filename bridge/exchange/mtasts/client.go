package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Times of the cache and of the fetch.
const (
	fetchTimeout = time.Minute
	refresh      = 24 * time.Hour  // a policy is fetched again after that, or half its life
	pause        = 5 * time.Minute // after a fetch that failed (RFC 8461 §3.3)
	maxKept      = 4096            // policies in memory
)

// A Store keeps policies over restarts. Octets are ours; an absent one is nil.
type Store interface {
	Policy(ctx context.Context, domain string) ([]byte, error)
	SetPolicy(ctx context.Context, domain string, octets []byte) error
	DropPolicy(ctx context.Context, domain string) error
	Policies(ctx context.Context) ([]string, error) // the domains
}

// Options are what a Client is made of.
type Options struct {
	Store Store
	// TXT returns the texts at a name; none when there is none. An error is one of DNS: nothing is known.
	TXT func(ctx context.Context, name string) ([]string, error)
	// Dial connects to a web server by name and port, as net.Dialer would.
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Roots *x509.CertPool // nil: the system's
	Now   func() time.Time
}

// A Client finds the policies of domains. Safe for concurrent use; it starts nothing.
type Client struct {
	o      Options
	http   *http.Client
	flight singleflight.Group

	mu     sync.Mutex
	kept   map[string]*entry
	failed map[string]time.Time // when a fetch failed
}

// An entry is a policy as it is kept.
type entry struct {
	ID      string    `json:"id"`
	Text    string    `json:"policy"`
	Fetched time.Time `json:"fetched"`

	policy *Policy
}

// fresh tells whether a policy is still in force. One from the future is: the clock went back, the domain did not.
func (e *entry) fresh(now time.Time) bool {
	return e != nil && now.Before(e.Fetched.Add(e.policy.MaxAge))
}

// due tells whether a policy in force is to be fetched again all the same.
func (e *entry) due(id string, now time.Time) bool {
	age := now.Sub(e.Fetched)
	return id != e.ID || age < 0 || age >= min(refresh, e.policy.MaxAge/2)
}

// New makes a Client.
func New(o Options) *Client {
	c := &Client{o: o, kept: map[string]*entry{}, failed: map[string]time.Time{}}
	c.http = &http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     o.Dial,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots, Time: o.Now},
			// One request a host and a day: nothing is kept open, no proxy sees it.
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		},
	}
	return c
}

// What is wrong with a policy that should be there.
var (
	ErrFetch   = errors.New("mtasts: the policy cannot be fetched")
	ErrUnknown = errors.New("mtasts: it cannot be found out whether the domain has a policy")
)

// A Finding is what is known of a domain's policy.
type Finding struct {
	Policy *Policy // in force; nil: none
	Cached bool    // from the cache, without asking the web server now
	// Err says why a policy that the domain's record speaks of could not be had or read now: it wraps ErrFetch or ErrPolicy.
	// A policy from before stays in force beside it (RFC 8461 §3.3); without one the domain counts as one that has none.
	Err error
}

// Find says what policy of a domain is in force for a message that is due now. The error is ErrUnknown when DNS does not
// answer and nothing is cached, ctx's, or the store's.
func (c *Client) Find(ctx context.Context, domain string) (Finding, error) {
	select {
	case r := <-c.flight.DoChan(domain, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout+30*time.Second) // for all who wait, not for who came first
		defer cancel()
		return c.find(ctx, domain)
	}):
		f, _ := r.Val.(Finding)
		return f, r.Err
	case <-ctx.Done():
		return Finding{}, ctx.Err()
	}
}

func (c *Client) find(ctx context.Context, domain string) (Finding, error) {
	e, err := c.load(ctx, domain)
	if err != nil {
		return Finding{}, err
	}
	now := c.o.Now()
	texts, err := c.o.TXT(ctx, "_mta-sts."+domain)
	id, published := parseRecord(texts)
	switch fresh := e.fresh(now); {
	case err != nil && !fresh:
		return Finding{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	case fresh && (err != nil || !published || !e.due(id, now)):
		return Finding{Policy: e.policy, Cached: true}, nil
	case !published:
		return Finding{}, nil
	case !fresh:
		e = nil
	}
	found, err := c.renew(ctx, domain, id)
	if err != nil && !errors.Is(err, ErrFetch) && !errors.Is(err, ErrPolicy) {
		return Finding{}, err
	}
	if err == nil {
		return Finding{Policy: found.policy}, nil
	}
	if e != nil {
		return Finding{Policy: e.policy, Cached: true, Err: err}, nil
	}
	return Finding{Err: err}, nil
}

// renew fetches a policy and keeps it; after a failure not before a while has passed.
func (c *Client) renew(ctx context.Context, domain, id string) (*entry, error) {
	now := c.o.Now()
	c.mu.Lock()
	at, paused := c.failed[domain]
	c.mu.Unlock()
	if paused && now.Sub(at) < pause && !now.Before(at) {
		return nil, fmt.Errorf("%w: it failed a moment ago", ErrFetch)
	}
	text, err := c.fetch(ctx, domain)
	e := &entry{ID: id, Text: text, Fetched: now}
	if err == nil {
		e.policy, err = ParsePolicy(text)
	}
	if err != nil {
		c.mu.Lock()
		if len(c.failed) >= maxKept {
			clear(c.failed)
		}
		c.failed[domain] = now
		c.mu.Unlock()
		return nil, err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if err := c.o.Store.SetPolicy(ctx, domain, b); err != nil {
		return nil, err
	}
	c.keep(domain, e)
	return e, nil
}

func (c *Client) keep(domain string, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxKept {
		clear(c.kept) // the store has them
	}
	c.kept[domain] = e
	delete(c.failed, domain)
}

// load returns what is kept of a domain. What cannot be read is an error, not as good as nothing: Sweep drops it.
func (c *Client) load(ctx context.Context, domain string) (*entry, error) {
	c.mu.Lock()
	e := c.kept[domain]
	c.mu.Unlock()
	if e != nil {
		return e, nil
	}
	b, err := c.o.Store.Policy(ctx, domain)
	if err != nil || b == nil {
		return nil, err
	}
	if e, err = parseEntry(b); err != nil {
		return nil, fmt.Errorf("mtasts: the kept policy of %s: %w", domain, err)
	}
	c.keep(domain, e)
	return e, nil
}

func parseEntry(b []byte) (*entry, error) {
	e := new(entry)
	err := json.Unmarshal(b, e)
	if err == nil {
		e.policy, err = ParsePolicy(e.Text)
	}
	return e, err
}

// fetch reads the policy's text (RFC 8461 §3.3). Its errors wrap ErrFetch and do not quote the server.
func (c *Client) fetch(ctx context.Context, domain string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return "", fmt.Errorf("%w: no such name", ErrFetch)
	}
	r.Header.Set("User-Agent", "") // none: it is nobody's business
	resp, err := c.http.Do(r)
	if err != nil {
		return "", &fetchError{err}
	}
	defer resp.Body.Close()
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%w: HTTP status %d", ErrFetch, resp.StatusCode)
	case err != nil || !strings.EqualFold(kind, "text/plain"):
		return "", fmt.Errorf("%w: not text/plain", ErrFetch)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err != nil {
		return "", &fetchError{err}
	}
	if len(b) > maxPolicy {
		return "", fmt.Errorf("%w: over %d octets", ErrPolicy, maxPolicy)
	}
	return string(b), nil
}

// A fetchError is ErrFetch with its cause: the certificate, the network, DNS.
type fetchError struct{ cause error }

func (e *fetchError) Error() string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](e.cause); ok {
		return ErrFetch.Error() + ": the web server's certificate does not hold"
	}
	return ErrFetch.Error() + ": the web server cannot be reached"
}

func (e *fetchError) Unwrap() []error { return []error{ErrFetch, e.cause} }

// BadCertificate tells whether a fetch failed on the web server's certificate.
func BadCertificate(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// Sweep drops kept policies whose time is over, and those that cannot be read.
func (c *Client) Sweep(ctx context.Context) error {
	domains, err := c.o.Store.Policies(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range domains {
		b, err := c.o.Store.Policy(ctx, d)
		if err != nil || b == nil {
			errs = append(errs, err)
			continue
		}
		if e, err := parseEntry(b); err == nil && e.fresh(c.o.Now()) {
			continue
		}
		errs = append(errs, c.o.Store.DropPolicy(ctx, d))
		c.mu.Lock()
		delete(c.kept, d)
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

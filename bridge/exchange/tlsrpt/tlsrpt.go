// Package tlsrpt counts how TLS went with each domain, day by day, and writes the reports of SMTP TLS Reporting (RFC 8460).
// It sends none.
package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Kind is what policy a session was held to (RFC 8460 §4.4, policy-type).
type Kind string

const (
	TLSA     Kind = "tlsa"
	STS      Kind = "sts"
	NoPolicy Kind = "no-policy-found"
)

// A Result is what failed (RFC 8460 §4.3); "" is success.
type Result string

const (
	NoSTARTTLS    Result = "starttls-not-supported"
	WrongName     Result = "certificate-host-mismatch"
	Expired       Result = "certificate-expired"
	NotTrusted    Result = "certificate-not-trusted"
	Failed        Result = "validation-failure"
	TLSAInvalid   Result = "tlsa-invalid"
	DNSSECInvalid Result = "dnssec-invalid"
	DANERequired  Result = "dane-required"
	STSFetch      Result = "sts-policy-fetch-error"
	STSInvalid    Result = "sts-policy-invalid"
	STSWebPKI     Result = "sts-webpki-invalid"
)

// A Policy is what a domain published when the session was made.
type Policy struct {
	Kind    Kind     `json:"policy-type"`
	Strings []string `json:"policy-string,omitempty"`
	Domain  string   `json:"policy-domain"`
	Hosts   []string `json:"mx-host,omitempty"`
}

// A Session is one try to speak TLS with a host of a domain.
type Session struct {
	Policy   Policy
	Result   Result
	Host     string     // the MX; "" when it did not come to that
	Sending  netip.Addr // ours; invalid when it did not come to that
	Address  netip.Addr // the host's
	Reason   string     // ours, in a few words
	Unproven bool       // recorded, but neither a success nor a failure of a session: a policy that could not be had
}

// A Store keeps a day's counts. Octets are ours; absent ones are nil.
type Store interface {
	TLSResults(ctx context.Context, day, domain string) ([]byte, error)
	SetTLSResults(ctx context.Context, day, domain string, octets []byte) error
	DropTLSResults(ctx context.Context, day, domain string) error
	TLSResultDays(ctx context.Context) ([]Day, error)
}

// A Day is one domain's day, in UTC.
type Day struct{ Day, Domain string } // 2006-01-02

// Bounds of what is kept.
const (
	maxPending = 10_000 // domains and days between two flushes
	maxDetails = 200    // different failures of a policy and a day; more are only counted
	maxSets    = 20     // different policies of a domain and a day
	keep       = 8      // days
)

// A Recorder counts sessions. Record is cheap and touches no disk; Flush makes it durable, so that the counts since the last
// one are what a crash costs. Safe for concurrent use.
type Recorder struct {
	store Store
	now   func() time.Time

	mu      sync.Mutex
	pending map[Day]*results
}

// New makes a Recorder.
func New(s Store, now func() time.Time) *Recorder {
	return &Recorder{store: s, now: now, pending: map[Day]*results{}}
}

// results are one domain's day as it is kept: RFC 8460's policies array.
type results struct {
	Policies []*set `json:"policies"`
}

type set struct {
	Policy  Policy    `json:"policy"`
	Summary summary   `json:"summary"`
	Details []*detail `json:"failure-details,omitempty"`
}

type summary struct {
	Good int64 `json:"total-successful-session-count"`
	Bad  int64 `json:"total-failure-session-count"`
}

type detail struct {
	Result  Result `json:"result-type"`
	Sending string `json:"sending-mta-ip,omitempty"`
	Host    string `json:"receiving-mx-hostname,omitempty"`
	Address string `json:"receiving-ip,omitempty"`
	Count   int64  `json:"failed-session-count"`
	Reason  string `json:"failure-reason-code,omitempty"`
}

// Record counts one session.
func (r *Recorder) Record(s Session) {
	day := Day{r.now().UTC().Format(time.DateOnly), s.Policy.Domain}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pending[day]
	if p == nil {
		if len(r.pending) >= maxPending {
			return
		}
		p = &results{}
		r.pending[day] = p
	}
	one := &set{Policy: s.Policy}
	switch {
	case s.Result == "":
		one.Summary.Good = 1
	default:
		d := &detail{Result: s.Result, Host: s.Host, Count: 1, Reason: s.Reason}
		if s.Sending.IsValid() {
			d.Sending = s.Sending.String()
		}
		if s.Address.IsValid() {
			d.Address = s.Address.String()
		}
		one.Summary.Bad, one.Details = 1, []*detail{d}
		if s.Unproven {
			one.Summary.Bad = 0
		}
	}
	p.add(one)
}

// add joins counts of the same policy, and failures that are the same.
func (r *results) add(more *set) {
	i := slices.IndexFunc(r.Policies, func(s *set) bool { return s.Policy.same(more.Policy) })
	if i < 0 {
		if len(r.Policies) < maxSets {
			r.Policies = append(r.Policies, more)
		}
		return
	}
	s := r.Policies[i]
	s.Summary.Good += more.Summary.Good
	s.Summary.Bad += more.Summary.Bad
	for _, d := range more.Details {
		i := slices.IndexFunc(s.Details, func(o *detail) bool { return o.same(d) })
		switch {
		case i >= 0:
			s.Details[i].Count += d.Count
		case len(s.Details) < maxDetails:
			s.Details = append(s.Details, d)
		}
	}
}

func (p Policy) same(o Policy) bool {
	return p.Kind == o.Kind && p.Domain == o.Domain && slices.Equal(p.Strings, o.Strings) && slices.Equal(p.Hosts, o.Hosts)
}

func (d *detail) same(o *detail) bool {
	a, b := *d, *o
	a.Count, b.Count = 0, 0
	return a == b
}

// Flush adds what was recorded to what is stored. What fails stays for the next time.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	pending := r.pending
	r.pending = map[Day]*results{}
	r.mu.Unlock()
	var errs []error
	for day, p := range pending {
		if err := r.merge(ctx, day, p); err != nil {
			errs = append(errs, err)
			r.putBack(day, p)
		}
	}
	return errors.Join(errs...)
}

func (r *Recorder) merge(ctx context.Context, day Day, p *results) error {
	stored, err := r.load(ctx, day)
	if err != nil {
		return err
	}
	for _, s := range p.Policies {
		stored.add(s)
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return r.store.SetTLSResults(ctx, day.Day, day.Domain, b)
}

func (r *Recorder) putBack(day Day, p *results) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.pending[day]
	if now == nil {
		r.pending[day] = p
		return
	}
	for _, s := range p.Policies {
		now.add(s)
	}
}

func (r *Recorder) load(ctx context.Context, day Day) (*results, error) {
	b, err := r.store.TLSResults(ctx, day.Day, day.Domain)
	if err != nil {
		return nil, err
	}
	p := &results{}
	if b == nil {
		return p, nil
	}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("tlsrpt: counts of %s %s: %w", day.Day, day.Domain, err)
	}
	return p, nil
}

// Sweep drops days that nobody will report any more.
func (r *Recorder) Sweep(ctx context.Context) error {
	days, err := r.store.TLSResultDays(ctx)
	if err != nil {
		return err
	}
	oldest := r.now().UTC().AddDate(0, 0, -keep).Format(time.DateOnly)
	var errs []error
	for _, d := range days {
		if d.Day < oldest {
			errs = append(errs, r.store.DropTLSResults(ctx, d.Day, d.Domain))
		}
	}
	return errors.Join(errs...)
}

// A Reporter is who a report is from.
type Reporter struct {
	Organization string
	Contact      string // an address
	Domain       string // of the reporter, in the report's id
}

// ErrNothing means that there is nothing to report about that day.
var ErrNothing = errors.New("tlsrpt: no sessions with this domain on that day")

// report is the JSON object of RFC 8460 §4.4.
type report struct {
	Organization string `json:"organization-name"`
	Range        struct {
		Start time.Time `json:"start-datetime"`
		End   time.Time `json:"end-datetime"`
	} `json:"date-range"`
	Contact string `json:"contact-info"`
	ID      string `json:"report-id"`
	results
}

// Report writes the report about a domain's day (2006-01-02, UTC), from what has been flushed. The same counts make the same
// octets.
func (r *Recorder) Report(ctx context.Context, day, domain string, from Reporter) ([]byte, error) {
	start, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return nil, fmt.Errorf("tlsrpt: %w", err)
	}
	p, err := r.load(ctx, Day{day, domain})
	if err != nil {
		return nil, err
	}
	if len(p.Policies) == 0 {
		return nil, ErrNothing
	}
	out := report{Organization: from.Organization, Contact: from.Contact, results: *p}
	out.Range.Start, out.Range.End = start, start.Add(24*time.Hour-time.Second)
	out.ID = strings.Join([]string{day, domain, from.Domain}, "!")
	return json.MarshalIndent(out, "", "  ")
}

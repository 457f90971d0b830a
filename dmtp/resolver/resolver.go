package resolver

import (
	"context"
	"errors"
	"time"

	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

// Times of the caches (dmtp chapter 8.8, OC-32): after the soft time what is kept is asked for again, and used on if the
// answer cannot be had; after the hard time it is not used.
const (
	recordSoftMin = 5 * time.Minute
	recordSoftMax = 24 * time.Hour
	recordHardMax = 90 * 24 * time.Hour
	orgSoft       = 6 * time.Hour
	userSoftSend  = time.Hour
	userSoft      = 24 * time.Hour
	signetHard    = 30 * 24 * time.Hour
	noSignetTTL   = 15 * time.Minute
	failedTTL     = 30 * time.Second // a domain that failed is not asked for again before
	alarmEvery    = time.Hour        // for one kind and one name
	maxDomains    = 4096
	maxUsers      = 16384
)

// Config is what a Resolver needs. DNS, Fetcher and Store must be given.
type Config struct {
	DNS     *DNS
	Fetcher Fetcher
	Store   Store
	Judge   CertificateJudge
	Now     func() time.Time // nil: time.Now
	// Alarm is told of what an operator should see, at most once an hour for a kind and a name. It must not block. Nil:
	// nobody is.
	Alarm func(ctx context.Context, a Alarm)
	// AcceptUnnamed takes org and user signets without a name in them (dmtp OC-28): then only TLS binds the name, and the
	// result is Weak.
	AcceptUnnamed bool
}

// An Alarm is a message to the operator.
type Alarm struct {
	Kind     string // "substitution", "key change", "record", "certificate", "downgrade", "vanished"
	Name     string // domain or address
	Text     string
	At       time.Time
	Evidence *Evidence // may be nil
}

// A Resolver goes from names to verified signets. Safe for concurrent use; it starts nothing.
type Resolver struct {
	c       Config
	now     func() time.Time
	domains *cache[*Domain]
	failed  *cache[*Error]
	users   *cache[*cachedUser]
	missing *cache[*Error]
	alarms  *cache[struct{}]

	domainFlight flight[*Domain]
	userFlight   flight[*User]
}

// New makes a Resolver.
func New(c Config) (*Resolver, error) {
	if c.DNS == nil || c.Fetcher == nil || c.Store == nil {
		return nil, errors.New("resolver: DNS, Fetcher and Store are needed")
	}
	r := &Resolver{
		c: c, now: c.Now,
		domains: newCache(maxDomains, cacheOctets, (*Domain).octets), failed: newCache(maxDomains, cacheOctets, (*Error).octets),
		users: newCache(maxUsers, 2*cacheOctets, (*cachedUser).octets), missing: newCache(maxUsers, cacheOctets, (*Error).octets),
		alarms: newCache(maxDomains, cacheOctets, func(struct{}) int { return smallValue }),
	}
	if r.now == nil {
		r.now = time.Now
	}
	return r, nil
}

// A Domain is an organisation that was verified from its record down to its signet. It does not change.
type Domain struct {
	Name     string
	Record   *record.Record
	State    State // Secure or Insecure
	Signet   *signet.Signet
	Hosts    []Host
	FirstUse bool // nothing but a CA's word stands behind the POK, and it is seen for the first time
	Weak     bool // the signet does not say whose it is: AcceptUnnamed
	Evidence *Evidence

	judge      CertificateJudge
	pinned     []string // certificates
	softRecord time.Time
	softSignet time.Time
	hard       time.Time
	at         time.Time
	now        func() time.Time
}

// Evidence is what a decision rested on, so that it can be looked at again.
type Evidence struct {
	Domain      string       `json:"domain"`
	At          time.Time    `json:"at"`
	Record      string       `json:"record,omitempty"` // its text
	State       State        `json:"dnssec"`
	Why         string       `json:"dnssec_why,omitempty"`
	Chain       []Link       `json:"chain,omitempty"`
	Hosts       []Host       `json:"hosts,omitempty"`
	MX          *State       `json:"mx_dnssec,omitempty"` // where the hosts come from MX
	Certificate *Certificate `json:"certificate,omitempty"`
	Refused     []Refusal    `json:"refused,omitempty"`
	OrgSignet   string       `json:"org_signet,omitempty"` // ID fingerprints
	Continuity  string       `json:"continuity,omitempty"` // how the POK relates to what is pinned
	Address     string       `json:"address,omitempty"`
	UserSignet  string       `json:"user_signet,omitempty"`
	Fresh       time.Time    `json:"fresh,omitzero"` // when the user signet was last known to be current
}

// A Certificate is the one that was accepted.
type Certificate struct {
	Host       string   `json:"host"`
	ID         string   `json:"sha256"`
	TLS        TLSMatch `json:"tls"`
	CAValid    bool     `json:"ca_valid"` // CA-issued for the host's name
	Revocation string   `json:"revocation"`
	Reason     string   `json:"reason"`
}

// A Refusal is a host whose certificate was not accepted.
type Refusal struct {
	Host   string `json:"host"`
	ID     string `json:"sha256,omitempty"`
	Reason string `json:"reason"`
}

// alarm tells the operator, unless he was told of the same within the hour.
func (r *Resolver) alarm(ctx context.Context, kind, name, text string, ev *Evidence) {
	now := r.now()
	id := kind + "/" + name
	if _, told := r.alarms.get(id, now); told || r.c.Alarm == nil {
		return
	}
	r.alarms.put(id, struct{}{}, now.Add(alarmEvery), now)
	r.c.Alarm(ctx, Alarm{Kind: kind, Name: name, Text: text, At: now, Evidence: ev})
}

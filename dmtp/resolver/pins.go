package resolver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

// A Pin is what is remembered of one domain (dmtp chapters 8.9 and 11.3). It is no cache: nothing in it is deleted for its
// age, and losing it means meeting the domain for the first time again.
type Pin struct {
	Version uint64    `json:"version"` // counts the writes: see Store
	Domain  string    `json:"domain"`
	POKs    []POKPin  `json:"poks"`           // every one that was listed, accepted or not
	Orgs    []OrgPin  `json:"orgs"`           // org signets that were accepted, the newest last; the oldest give way
	Policy  string    `json:"policy"`         // as last seen: experimental, mixed, strict
	Best    State     `json:"dnssec"`         // the best state of its record
	First   time.Time `json:"first"`          // when a record of it was verified first
	Last    time.Time `json:"last"`           // and last
	Until   time.Time `json:"capable_until"`  // until then, "no record" without proof is not believed
	Gone    time.Time `json:"gone,omitzero"`  // since when its record is absent; zero: it is not
	Plain   time.Time `json:"plain,omitzero"` // since when the zone, once secure, is provably unsigned

	Certificates []string    `json:"certificates,omitempty"` // pinned by hand: see CertificateID
	Overrides    []*Override `json:"overrides,omitempty"`
}

// A POKPin is one primary key.
type POKPin struct {
	Key     key.SigningPublic `json:"-"`
	Text    string            `json:"key"` // Key in base64, as the record has it
	Trusted bool              `json:"trusted"`
	How     string            `json:"how"` // "first use", "dnssec", "listed with a pinned one", "key change", "manual"
	First   time.Time         `json:"first"`
	Last    time.Time         `json:"last"`
}

// An OrgPin is one org signet.
type OrgPin struct {
	ID     string    `json:"id"`     // fingerprints
	Crypto string    `json:"crypto"` // empty: none
	At     time.Time `json:"at"`
	How    string    `json:"how"`
}

// An Override is an administrator's decision about one domain, for a time.
type Override struct {
	What  string    `json:"what"` // one of the Override… constants
	Until time.Time `json:"until"`
	By    string    `json:"by"`
	Why   string    `json:"why"`
}

// What an Override can permit.
const (
	OverrideVanished      = "record-vanished"       // plain mail though the record vanished
	OverrideUnsigned      = "unsigned"              // a zone that was secure may be insecure
	OverrideBrokenCustody = "accept-broken-custody" // user signets that changed without custody, where the policy is mixed
	OverrideSMTP          = "smtp"                  // plain mail though DMTP, or finding out about it, fails (dmtp chapter 11.2)
)

// Overrides lists what an Override can permit.
var Overrides = []string{OverrideVanished, OverrideUnsigned, OverrideBrokenCustody, OverrideSMTP}

// Bounds of a pin.
const (
	maxPOKPins = 32
	maxOrgPins = 32
	unsignedOK = 7 * 24 * time.Hour // OC-26: so long must a DS be gone before a zone that was secure may be insecure
	listedOK   = trustHold          // so long must a new POK be listed beside a trusted one, where DNSSEC proves nothing
)

// Overridden tells whether an administrator permits what for a domain now. An error permits nothing.
func (r *Resolver) Overridden(ctx context.Context, domain, what string) (bool, error) {
	name, err := NormalDomain(domain)
	if err != nil {
		return false, nil // what cannot be a domain has no pin
	}
	pin, err := r.c.Store.Pin(ctx, name)
	return err == nil && pin.overridden(what, r.now()), err
}

// Trust takes a key, with its text as the record has it, for the domain's by an administrator's word.
func (p *Pin) Trust(k key.SigningPublic, now time.Time) {
	pin := p.pok(k)
	if pin == nil {
		p.POKs = append(p.POKs, POKPin{Key: k, Text: pokText(k), First: now, Last: now})
		pin = &p.POKs[len(p.POKs)-1]
	}
	pin.Trusted, pin.How = true, "manual"
	if p.First.IsZero() {
		p.First, p.Policy = now, record.Strict.String() // until its record says otherwise
	}
}

// overridden tells whether the administrator permits what at now.
func (p *Pin) overridden(what string, now time.Time) bool {
	return p != nil && slices.ContainsFunc(p.Overrides, func(o *Override) bool { return o.What == what && now.Before(o.Until) })
}

// pok returns the pin of a key, or nil.
func (p *Pin) pok(k key.SigningPublic) *POKPin {
	if p == nil {
		return nil
	}
	for i := range p.POKs {
		if p.POKs[i].Key == k {
			return &p.POKs[i]
		}
	}
	return nil
}

func (p *Pin) trusted(k key.SigningPublic) bool {
	pin := p.pok(k)
	return pin != nil && pin.Trusted
}

// policy is the policy as last seen. What cannot be read counts as strict.
func (p *Pin) policy() record.Policy {
	pol, err := record.ParsePolicy(p.Policy)
	if err != nil {
		return record.Strict
	}
	return pol
}

// knows tells that an org signet with that ID fingerprint was accepted.
func (p *Pin) knows(id string) bool {
	return p != nil && slices.ContainsFunc(p.Orgs, func(o OrgPin) bool { return o.ID == id })
}

// Clone copies a pin, so that a store's value is not changed by a caller.
func (p *Pin) Clone() *Pin {
	c := *p
	c.POKs, c.Orgs = slices.Clone(p.POKs), slices.Clone(p.Orgs)
	c.Certificates, c.Overrides = slices.Clone(p.Certificates), slices.Clone(p.Overrides)
	return &c
}

// Check makes sure of what was read from a store.
func (p *Pin) Check() error {
	for i := range p.POKs {
		b, err := base64.RawStdEncoding.DecodeString(p.POKs[i].Text)
		if err != nil {
			return fmt.Errorf("pin of %s: key %d: not base64", p.Domain, i+1)
		}
		if p.POKs[i].Key, err = key.ParseSigningPublic(b); err != nil {
			return fmt.Errorf("pin of %s: key %d: %w", p.Domain, i+1, err)
		}
	}
	if p.Domain == "" || p.First.IsZero() != (len(p.POKs) == 0) || p.First.IsZero() && len(p.Overrides) == 0 {
		return fmt.Errorf("pin of %q: incomplete", p.Domain)
	}
	for _, o := range p.Overrides {
		if o == nil || !slices.Contains(Overrides, o.What) || o.Until.IsZero() {
			return fmt.Errorf("pin of %s: an override that permits nothing, or has no end", p.Domain)
		}
	}
	if p.First.IsZero() {
		return nil // a domain that was never met, and overrides for it
	}
	if _, err := record.ParsePolicy(p.Policy); err != nil {
		return fmt.Errorf("pin of %s: %w", p.Domain, err)
	}
	return nil
}

func pokText(k key.SigningPublic) string { return base64.RawStdEncoding.EncodeToString(k[:]) }

// see notes the keys of a record that was verified: state is its DNSSEC state.
func (p *Pin) see(r *record.Record, state State, now time.Time) {
	besideTrusted := slices.ContainsFunc(r.POKs, p.trusted)
	first := len(p.POKs) == 0
	p.POKs = slices.DeleteFunc(p.POKs, func(k POKPin) bool { return !k.Trusted && !slices.Contains(r.POKs, k.Key) }) // its clock starts anew
	for _, k := range r.POKs {
		pin := p.pok(k)
		if pin == nil {
			p.POKs = append(p.POKs, POKPin{Key: k, Text: pokText(k), First: now})
			pin = &p.POKs[len(p.POKs)-1]
		}
		pin.Last = now
		switch {
		case pin.Trusted:
		case first:
			pin.Trusted, pin.How = true, "first use"
		case state == Secure:
			pin.Trusted, pin.How = true, "dnssec"
		case besideTrusted && now.Sub(pin.First) >= listedOK:
			pin.Trusted, pin.How = true, "listed with a pinned one"
		}
	}
	if n := len(p.POKs) - maxPOKPins; n > 0 {
		p.POKs = slices.Delete(p.POKs, 0, n)
	}
}

// accepted notes a domain that was verified to the end.
func (p *Pin) accepted(d *Domain, how string, now time.Time) {
	if pin := p.pok(d.Signet.SigningKey()); pin != nil && !pin.Trusted {
		pin.Trusted, pin.How = true, how
	}
	id := fingerprint(d.Signet, signet.ID)
	if !p.knows(id) && !d.Weak {
		p.Orgs = append(p.Orgs, OrgPin{ID: id, Crypto: fingerprint(d.Signet, signet.Crypto), At: now, How: how})
		p.Orgs = slices.Delete(p.Orgs, 0, max(0, len(p.Orgs)-maxOrgPins))
	}
	p.Policy = d.Record.Policy.String()
	if d.State == Secure {
		p.Plain = time.Time{}
	}
	p.Best = max(p.Best, d.State)
	if p.Best > d.State && !p.Plain.IsZero() { // the DS has been gone long enough, or an override says so
		p.Best, p.Plain = d.State, time.Time{}
	}
	p.Last, p.Gone = now, time.Time{}
	if p.First.IsZero() {
		p.First = now
	}
	p.Until = now.AddDate(0, 0, d.Record.ExpiryDays())
}

func fingerprint(s *signet.Signet, f signet.Form) string {
	fp, err := s.Fingerprint(f)
	if err != nil {
		return ""
	}
	return fp.String()
}

// ErrConflict is for a pin that someone else has written since it was read.
var ErrConflict = errors.New("resolver: the pin was changed meanwhile")

// A Store keeps pins. It must outlive restarts, and an error must never look like "no pin".
type Store interface {
	// Pin returns a domain's pin for the caller to keep; nil without an error: there is none.
	Pin(ctx context.Context, domain string) (*Pin, error)
	// SetPin puts p, its Version raised by one, in the place of the pin with p's Version, which is 0 when there shall be
	// none; ErrConflict when another stands there. It is durable when it returns, and then raises p.Version, too. What an
	// administrator accepts while a look-up is under way would be lost without it.
	SetPin(ctx context.Context, p *Pin) error
}

// A MemoryStore keeps pins for as long as the process lives. Safe for concurrent use.
type MemoryStore struct {
	mu   sync.Mutex
	pins map[string]*Pin
}

// Pin returns a copy.
func (s *MemoryStore) Pin(_ context.Context, domain string) (*Pin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pins[domain]; p != nil {
		return p.Clone(), nil
	}
	return nil, nil
}

// SetPin keeps a copy.
func (s *MemoryStore) SetPin(_ context.Context, p *Pin) error {
	if err := p.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	version := uint64(0)
	if old := s.pins[p.Domain]; old != nil {
		version = old.Version
	}
	if p.Version != version {
		return ErrConflict
	}
	p.Version++
	if s.pins == nil {
		s.pins = map[string]*Pin{}
	}
	s.pins[p.Domain] = p.Clone()
	return nil
}

// Pins returns copies of all, by domain.
func (s *MemoryStore) Pins(context.Context) ([]*Pin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Pin
	for _, d := range slices.Sorted(maps.Keys(s.pins)) {
		out = append(out, s.pins[d].Clone())
	}
	return out, nil
}

// Forget drops a domain's pin.
func (s *MemoryStore) Forget(_ context.Context, domain string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pins, domain)
	return nil
}

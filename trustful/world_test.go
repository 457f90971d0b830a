package trustful_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// A side is one organisation with its keeper. Its stores are in memory: the vault's are tested beside these in store_test.go.
type side struct {
	domain  string
	org     *organization
	store   *memory
	pinned  *memoryPins
	clock   *clock
	keeper  *trustful.Keeper
	pins    *trustful.Pins
	mailbox mailboxes
	peers   peers // of the other side, through whatever a test puts in between
}

// newSides makes two organisations that can ask each other.
func newSides(t *testing.T) (alpha, bravo *side) {
	t.Helper()
	c := &clock{at: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	alpha, bravo = newSide(t, "alpha.example", c), newSide(t, "bravo.example", c)
	alpha.peers.other, bravo.peers.other = bravo, alpha
	return alpha, bravo
}

func newSide(t *testing.T, domain string, c *clock) *side {
	t.Helper()
	s := &side{domain: domain, clock: c, org: newOrganization(t, domain), store: &memory{}, pinned: &memoryPins{}, mailbox: mailboxes{}}
	s.pins = trustful.NewPins(s.pinned, &s.peers, c.now)
	var err error
	s.keeper, err = trustful.NewKeeper(trustful.Options{Store: s.store, Organization: s.org, Mailboxes: s.mailbox, Pins: s.pins,
		Peers: &s.peers, Grace: trustful.MinGrace, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// An organization signs with its POK. tamper, when set, changes what it hands out.
type organization struct {
	domain  string
	pair    key.Pair
	signets []*signet.Signet
	tamper  func(u *signet.Uncertified, d signet.Details) (*signet.Signet, error)
	rename  func(s *signet.Signet, name string) (*signet.Signet, error)
	request func(r *signet.Signet, d signet.Details) (*signet.Signet, error)
}

func newOrganization(t testing.TB, domain string) *organization {
	t.Helper()
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &organization{domain: domain, pair: pair}
	o.publish(t)
	return o
}

// publish makes an organisational signet; each but the first has a new encryption key.
func (o *organization) publish(t testing.TB) {
	t.Helper()
	if len(o.signets) > 0 {
		var err error
		if o.pair.Encryption, err = key.GenerateEncryption(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	s, err := signet.NewOrg(o.pair, signet.Details{Name: o.domain, Fields: trustful.Advertised()})
	if err != nil {
		t.Fatal(err)
	}
	o.signets = append(o.signets, s)
}

func (o *organization) Signets(_ context.Context, domain string) ([]*signet.Signet, error) {
	if domain != o.domain {
		return nil, trustful.ErrNotOurs
	}
	return o.signets, nil
}

func (o *organization) Certify(_ context.Context, domain string, u *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
	if domain != o.domain {
		return nil, trustful.ErrNotOurs
	}
	if o.tamper != nil {
		return o.tamper(u, d)
	}
	return u.Certify(o.pair.Signing, d)
}

func (o *organization) SignRequest(_ context.Context, domain string, request *signet.Signet, d signet.Details) (*signet.Signet, error) {
	if domain != o.domain {
		return nil, trustful.ErrNotOurs
	}
	if o.request != nil {
		return o.request(request, d)
	}
	return signet.SignRequest(request, o.pair.Signing, d)
}

func (o *organization) Rename(_ context.Context, domain string, s *signet.Signet, name string) (*signet.Signet, error) {
	if domain != o.domain {
		return nil, trustful.ErrNotOurs
	}
	if o.rename != nil {
		return o.rename(s, name)
	}
	return s.Renamed(o.pair.Signing, name)
}

func (o *organization) party() message.Party {
	return message.Party{Name: o.domain, Signet: o.signets[len(o.signets)-1]}
}

// mailboxes is what the inner server says.
type mailboxes map[string]error

func (m mailboxes) Confirm(_ context.Context, address string) error {
	err, ok := m[address]
	if !ok {
		return trustful.ErrNoUser
	}
	return err
}

// peers asks the other side's keeper, as its server would be asked.
type peers struct {
	other   *side
	fault   error // of everything
	forge   func([]*signet.Signet) []*signet.Signet
	current func() (bool, error)
}

func (p *peers) Author(ctx context.Context, address string, crypto signet.Fingerprint) (*signet.Signet, error) {
	all, err := p.from(ctx, address, signet.Crypto, crypto)
	if err != nil {
		return nil, err
	}
	return all[0], all[0].VerifyUser(p.other.org.party().Signet)
}

func (p *peers) History(ctx context.Context, address string, from signet.Fingerprint) ([]*signet.Signet, error) {
	all, err := p.from(ctx, address, signet.Full, from)
	if p.forge != nil {
		all = p.forge(all)
	}
	return all, err
}

func (p *peers) Current(ctx context.Context, address string, full signet.Fingerprint) (bool, error) {
	if p.current != nil {
		return p.current()
	}
	all, err := p.from(ctx, address, signet.Full, full)
	return len(all) == 1, err
}

// from returns the other side's chain from a fingerprint on.
func (p *peers) from(ctx context.Context, address string, form signet.Form, fp signet.Fingerprint) ([]*signet.Signet, error) {
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := p.other.keeper.Chain(ctx, address)
	if err != nil && !errors.Is(err, trustful.ErrNoUser) {
		return nil, err
	}
	for i, s := range all {
		if own, err := s.Fingerprint(form); err == nil && own == fp {
			return all[i:], nil
		}
	}
	return nil, trustful.ErrNoSignet
}

// to is mail from an author to a user of the other side.
func to(author string, other *side, recipient *signet.Signet) trustful.Outgoing {
	return trustful.Outgoing{Author: author, Recipient: message.Party{Name: recipient.Name(), Signet: recipient},
		Destination: other.org.party(), Remote: trustful.Strict}
}

// carry seals content at one side, signs it as origin, and gives what the other side's organisation would hand over.
func carry(t testing.TB, from *side, o trustful.Outgoing, c *message.Content) trustful.Incoming {
	t.Helper()
	m, err := from.keeper.Seal(t.Context(), o, c)
	if err != nil {
		t.Fatal(err)
	}
	return handOver(t, from, o, m)
}

func handOver(t testing.TB, from *side, o trustful.Outgoing, m *message.Message) trustful.Incoming {
	t.Helper()
	opened, err := m.Open(message.Origin, from.org.pair.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := opened.Origin()
	if err != nil {
		t.Fatal(err)
	}
	author, err := from.keeper.Current(t.Context(), chunk.Author)
	if err != nil {
		t.Fatal(err)
	}
	err = opened.Verify(message.Parties{Author: message.Party{Name: chunk.Author, Signet: author}, Origin: from.org.party(), Destination: o.Destination})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := opened.SignOrigin(from.org.pair.Signing)
	if err != nil {
		t.Fatal(err)
	}
	fp, err := o.Recipient.Signet.Fingerprint(signet.Crypto)
	if err != nil {
		t.Fatal(err)
	}
	m, err = message.Parse(signed.Bytes(), message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return trustful.Incoming{Message: m, Recipient: o.Recipient.Name, RecipientSignet: fp, Origin: from.org.party()}
}

// letter is a small message.
func letter(body string) *message.Content {
	return &message.Content{
		Common:  []byte("Date: Wed, 25 Nov 2026 12:00:00 +0000\r\nTo: bob@bravo.example\r\nFrom: alice@alpha.example\r\nSubject: Merger terms\r\n"),
		Other:   []byte("DIME-Layout: 1 hdr=full body=concat\r\n\r\n"),
		Display: []message.Part{{Data: []byte(body)}},
	}
}

// memory is a Store without seals.
type memory struct {
	mu      sync.Mutex
	users   map[string][]stored
	vouched int
	fault   func(op string) error
}

type stored struct {
	trustful.Generation
	keys trustful.Keys
}

func (m *memory) fail(op string) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(op)
}

func (m *memory) Generations(_ context.Context, address string) ([]trustful.Generation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []trustful.Generation
	for _, g := range m.users[address] {
		all = append(all, g.Generation)
	}
	return all, m.fail("generations")
}

func (m *memory) Append(_ context.Context, address string, g trustful.Generation, keys trustful.Keys) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail("append"); err != nil {
		return err
	}
	all := m.users[address]
	if g.Number != len(all)+1 {
		return trustful.ErrConflict
	}
	if len(all) > 0 {
		all[len(all)-1].Retired = g.Made
		all[len(all)-1].keys.Signing.Destroy()
	}
	if m.users == nil {
		m.users = map[string][]stored{}
	}
	if g.Held {
		m.users[address] = append(all, stored{Generation: g})
		return nil
	}
	m.users[address] = append(all, stored{g, trustful.Keys{Pair: clonePair(keys.Pair), Layers: keys.Layers}})
	return nil
}

func (m *memory) Vouched(_ context.Context, address string, number int, _ []byte, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := m.users[address]; number != len(all) || number == 0 || all[number-1].Held {
		return trustful.ErrNoKeys
	}
	m.vouched++
	return m.fail("vouched")
}

func (m *memory) Signing(_ context.Context, address string, number int) (key.Signing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.users[address]
	if number != len(all) || number == 0 {
		return key.Signing{}, trustful.ErrNoKeys
	}
	return clonePair(all[number-1].keys.Pair).Signing, m.fail("signing")
}

func (m *memory) Encryption(_ context.Context, address string, number int) (key.Encryption, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.users[address]
	if number < 1 || number > len(all) || !all[number-1].Destroyed.IsZero() {
		return key.Encryption{}, trustful.ErrNoKeys
	}
	e, err := key.NewEncryption(all[number-1].keys.Encryption.Scalar())
	if err != nil {
		return e, err
	}
	return e, m.fail("encryption")
}

func (m *memory) Layers(_ context.Context, address string, number int) ([]message.LayerKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.users[address]
	if number < 1 || number > len(all) || !all[number-1].Destroyed.IsZero() {
		return nil, trustful.ErrNoKeys
	}
	return all[number-1].keys.Layers, m.fail("layers")
}

func (m *memory) Aged(_ context.Context, before, bare time.Time, after string, n int) (list []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for address, all := range m.users {
		last := &all[len(all)-1]
		if address > after && !last.Held && (last.Made.Before(before) || last.Made.Before(bare) && len(last.keys.Layers) == 0) {
			list = append(list, address)
		}
	}
	slices.Sort(list)
	return list[:min(n, len(list))], m.fail("aged")
}

func (m *memory) DestroyEncryption(_ context.Context, before time.Time) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.users {
		for i := range all {
			if g := &all[i]; !g.Retired.IsZero() && g.Retired.Before(before) && g.Destroyed.IsZero() {
				g.Destroyed = before
				g.keys.Encryption.Destroy()
				n++
			}
		}
	}
	return n, m.fail("destroy")
}

// clonePair copies keys, because their owner destroys them.
func clonePair(p key.Pair) key.Pair {
	s, err := key.NewSigning(p.Signing.Seed())
	if err != nil {
		panic(err)
	}
	e, err := key.NewEncryption(p.Encryption.Scalar())
	if err != nil {
		panic(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

// memoryPins is a PinStore.
type memoryPins struct {
	mu     sync.Mutex
	pins   map[string][]trustful.Pin
	doubts map[string]trustful.Doubt
}

func (m *memoryPins) Pins(_ context.Context, address string) ([]trustful.Pin, *trustful.Doubt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var doubt *trustful.Doubt
	if d, ok := m.doubts[address]; ok {
		doubt = &d
	}
	return slices.Clone(m.pins[address]), doubt, nil
}

func (m *memoryPins) AddPins(_ context.Context, address string, known int, pins []trustful.Pin) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pins[address]) != known {
		return trustful.ErrConflict
	}
	if m.pins == nil {
		m.pins = map[string][]trustful.Pin{}
	}
	m.pins[address] = append(m.pins[address], pins...)
	delete(m.doubts, address)
	return nil
}

func (m *memoryPins) Checked(_ context.Context, address string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins[address][len(m.pins[address])-1].Checked = at
	return nil
}

func (m *memoryPins) SetDoubt(_ context.Context, address string, d trustful.Doubt) (trustful.Doubt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.doubts[address]; ok && old.Crypto == d.Crypto {
		return old, nil
	}
	if m.doubts == nil {
		m.doubts = map[string]trustful.Doubt{}
	}
	m.doubts[address] = d
	return d, nil
}

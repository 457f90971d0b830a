// Package archive keeps what crossed the gateway, so that nobody opens it alone: it seals records' keys to the organisation's escrow
// key, a wrap a custodian, and finds records again by keyed tokens.
//
// What it may tell before a quorum: addresses that are asked for, dates, sizes, direction, class, custodians. It holds no private half
// of an escrow key, so it opens nothing.
package archive

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// Errors that callers decide on.
var (
	// ErrNoKey is returned while no escrow key of discovery is in force: mail that must be kept waits.
	ErrNoKey = errors.New("archive: no escrow key is in force: install one with \"gateway escrow install\"")
	// ErrTooWide is returned for a query over more than a month's lists can hold.
	ErrTooWide = errors.New("archive: the query names too many custodians, classes or addresses: ask in parts")
	// ErrQuorum is returned for a key that as few would open as one that opens less.
	ErrQuorum = errors.New("archive: the quorum for continuity must be larger than that for discovery")
	// ErrRename is returned for what cannot be a change of address.
	ErrRename = errors.New("archive: an address is no successor of itself, and of one other at most")
	// ErrLabel is returned for a wrap that would give a record another class, month or custodian.
	ErrLabel = errors.New("archive: a label that is not its record's")
	// ErrReplaced is returned for an epoch of a key that has given way to another one.
	ErrReplaced = errors.New("archive: the key has a successor, and no epoch of it comes into force any more")
)

// MaxCustodians bounds the custodians of one message.
const MaxCustodians = 0xffff

// An Archive is the archive of one vault. It follows what others install into the vault. Safe for concurrent use.
type Archive struct {
	v *vault.Vault

	mu      sync.Mutex
	version int64 // of what is below; see vault.EscrowVersion
	sealers map[escrow.Purpose]*escrow.Sealer
}

// Open reads which escrow keys are in force; an archive without one is open, and not ready.
func Open(ctx context.Context, v *vault.Vault) (*Archive, error) {
	a := &Archive{v: v, version: -2}
	if _, err := a.Sealer(ctx, escrow.Discovery); err != nil && !errors.Is(err, ErrNoKey) {
		return nil, err
	}
	return a, nil
}

// Sealer seals to the key of a purpose that is in force, in its current epoch; ErrNoKey when there is none.
func (a *Archive) Sealer(ctx context.Context, p escrow.Purpose) (*escrow.Sealer, error) {
	version, err := a.v.EscrowVersion(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if version != a.version {
		keys, err := a.Keys(ctx)
		if err != nil {
			return nil, err
		}
		a.sealers = map[escrow.Purpose]*escrow.Sealer{}
		for _, k := range keys { // the newest of a purpose
			if a.sealers[k.Key.Purpose], err = escrow.NewSealer(k.Key, k.Epochs, k.Statements); err != nil {
				return nil, fmt.Errorf("archive: %v key: %w", k.Key.Purpose, err)
			}
		}
		a.version = version
	}
	s, ok := a.sealers[p]
	if !ok {
		return nil, ErrNoKey
	}
	return s, nil
}

// A Key is an escrow key that the archive has, with its epochs from the first on and the attestations of the last.
type Key struct {
	Key        *escrow.Key
	Epochs     []*escrow.Epoch
	Statements []*escrow.Statement
	First      int64 // leaf that brought the key into force
	Leaf       int64 // that brought the last epoch into force
}

// Epoch is the current one.
func (k *Key) Epoch() *escrow.Epoch { return k.Epochs[len(k.Epochs)-1] }

// Keys lists all, the oldest first.
func (a *Archive) Keys(ctx context.Context) ([]*Key, error) {
	rows, err := a.v.EscrowKeys(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Key
	for _, r := range rows {
		k, err := parseKey(r)
		if err != nil {
			return nil, fmt.Errorf("archive: escrow key: %w", err)
		}
		list = append(list, k)
	}
	return list, nil
}

// parseKey reads a row. That the epochs are those of the key is the sealer's to check.
func parseKey(r vault.EscrowKey) (*Key, error) {
	k := &Key{First: r.Epochs[0].Leaf}
	var err error
	if k.Key, err = escrow.ParseKey(r.Record); err != nil {
		return nil, err
	}
	for _, e := range r.Epochs {
		epoch, err := escrow.ParseEpoch(e.Octets)
		if err != nil {
			return nil, err
		}
		k.Epochs, k.Leaf = append(k.Epochs, epoch), e.Leaf
	}
	for b := range slices.Chunk(r.Epochs[len(r.Epochs)-1].Statements, escrow.StatementSize) {
		st, err := escrow.ParseStatement(b)
		if err != nil {
			return nil, err
		}
		k.Statements = append(k.Statements, st)
	}
	return k, nil
}

// Install brings a key's last epoch into force: every officer of it has attested his share, and the epochs are those of the key, from
// the first on without a gap. Then new mail is sealed to it. Leaf 8 is written in the same commit. vault.ErrExists: it is in force;
// escrow.ErrQuorum: a statement is missing; other errors of package escrow: the records do not belong together.
func (a *Archive) Install(ctx context.Context, k *escrow.Key, epochs []*escrow.Epoch, statements []*escrow.Statement, now time.Time) error {
	if _, err := escrow.NewSealer(k, epochs, statements); err != nil {
		return err
	}
	if err := a.fits(ctx, k, epochs); err != nil {
		return err
	}
	row := vault.EscrowKey{ID: k.ID(), Purpose: uint8(k.Purpose), Record: k.Octets()}
	for _, e := range epochs {
		row.Epochs = append(row.Epochs, vault.EscrowEpoch{Number: int(e.Number), Octets: e.Octets()})
	}
	statements = slices.SortedFunc(slices.Values(statements), func(a, b *escrow.Statement) int { return int(a.Index) - int(b.Index) })
	for _, st := range statements {
		last := &row.Epochs[len(row.Epochs)-1]
		last.Statements = append(last.Statements, st.Octets()...)
	}
	attested := escrow.AttestationsDigest(statements)
	return a.v.InstallEscrow(ctx, row, epochs[len(epochs)-1].Digest(), attested[:], now)
}

// fits compares a key with those that are installed.
func (a *Archive) fits(ctx context.Context, k *escrow.Key, epochs []*escrow.Epoch) error {
	keys, err := a.Keys(ctx)
	if err != nil {
		return err
	}
	newest := map[escrow.Purpose]*Key{}
	known := false
	for _, old := range keys {
		newest[old.Key.Purpose] = old
		if old.Key.ID() != k.ID() {
			continue
		}
		known = true
		for i := range min(len(old.Epochs), len(epochs)) {
			if old.Epochs[i].Digest() != epochs[i].Digest() {
				return fmt.Errorf("%w: another epoch %d of the key is in force", vault.ErrExists, i+1)
			}
		}
	}
	if known && newest[k.Purpose].Key.ID() != k.ID() {
		return ErrReplaced
	}
	quorum := epochs[len(epochs)-1].Quorum
	if other := newest[escrow.Discovery]; k.Purpose == escrow.Continuity && other != nil && quorum <= other.Epoch().Quorum {
		return ErrQuorum
	}
	if other := newest[escrow.Continuity]; k.Purpose == escrow.Discovery && other != nil && quorum >= other.Epoch().Quorum {
		return ErrQuorum
	}
	return nil
}

// A Message is what the archive asks about a message that crosses.
type Message struct {
	Author     string   // "" for the null reverse-path
	From       []string // addresses of the header's From, where they are not the author's
	Recipients []string // all, Bcc among them
	Custodians []string // those of ours among them: whose copies are kept
	Class      uint16
	Retention  time.Duration // zero: none, it is kept until somebody asks for erasure
}

// Keeping returns what makes the message's record an archived one: see vault.Draft.Keep. ErrNoKey when nothing may be sealed: the mail
// waits. ctx is that of the intake.
func (a *Archive) Keeping(ctx context.Context, m Message) (func(vault.KeepRequest) (*vault.Keeping, error), error) {
	s, err := a.Sealer(ctx, escrow.Discovery)
	if err != nil {
		return nil, err
	}
	if len(m.Custodians) == 0 {
		return nil, errors.New("archive: a message without a custodian")
	}
	if len(m.Custodians) > MaxCustodians {
		return nil, fmt.Errorf("archive: over %d custodians", MaxCustodians)
	}
	return func(r vault.KeepRequest) (*vault.Keeping, error) { return a.keep(ctx, s, m, r) }, nil
}

func (a *Archive) keep(ctx context.Context, s *escrow.Sealer, m Message, r vault.KeepRequest) (*vault.Keeping, error) {
	t, err := a.tokens(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	k := &vault.Keeping{Class: m.Class, Content: t.of("octets", r.Octets[:]), Index: t.index(m)}
	if m.Retention > 0 {
		k.Expires = r.Now.Add(m.Retention)
	}
	done := map[string]bool{}
	for _, address := range m.Custodians {
		address = normal(address)
		if done[address] {
			continue
		}
		done[address] = true
		w, err := a.wrap(ctx, t, s, address, m.Class, r)
		if err != nil {
			return nil, err
		}
		k.Wraps = append(k.Wraps, w)
	}
	return k, nil
}

// wrap seals the record's key for one custodian.
func (a *Archive) wrap(ctx context.Context, t tokens, s *escrow.Sealer, address string, class uint16, r vault.KeepRequest) (vault.KeptWrap, error) {
	c, err := a.custodian(ctx, t, address, r.Now)
	if err != nil {
		return vault.KeptWrap{}, err
	}
	shred := vault.Shred{Custodian: c.ID, Class: class, Month: uint16(escrow.MonthOf(r.Now)), Made: r.Now}
	id, key, err := a.v.ShredKey(ctx, t.shred(shred), shred)
	if err != nil {
		return vault.KeptWrap{}, err
	}
	defer key.Destroy()
	sealed, err := s.SealRecord(r.Key, escrow.Label{Class: class, Month: escrow.Month(shred.Month), Archive: a.v.Archive(), Record: r.Record,
		Custodian: escrow.Custodian(c.ID), Body: r.Body}, escrow.ShredKey{ID: id, Key: key})
	if err != nil {
		return vault.KeptWrap{}, fmt.Errorf("archive: %w", err)
	}
	return vault.KeptWrap{Shred: id, Digest: sealed.Digest, Outer: sealed.Outer}, nil
}

// custodian finds the one of an address, or makes him.
func (a *Archive) custodian(ctx context.Context, t tokens, address string, now time.Time) (vault.Custodian, error) {
	token := t.address(address)
	c, err := a.v.Custodian(ctx, token, address)
	if !errors.Is(err, vault.ErrNotFound) {
		return c, err
	}
	return a.v.AddCustodian(ctx, token, newCustodian(address), now)
}

func newCustodian(address string) vault.Custodian {
	c := vault.Custodian{Address: address}
	rand.Read(c.Salt[:])
	c.ID = vault.CustodianID(escrow.CustodianOf(c.Salt, address))
	return c
}

// custodians are those of an address and, where its person had other addresses before, of these, the newest first.
func (a *Archive) custodians(ctx context.Context, t tokens, address string) ([]vault.Custodian, error) {
	address = normal(address)
	c, err := a.v.Custodian(ctx, t.address(address), address)
	var list []vault.Custodian
	for err == nil && len(list) < maxAddresses {
		list = append(list, c)
		if c.Former == (vault.CustodianID{}) {
			return list, nil
		}
		c, err = a.v.CustodianByID(ctx, c.Former)
	}
	if errors.Is(err, vault.ErrNotFound) {
		err = nil
	}
	return list, err
}

// maxAddresses bounds the addresses that one person has had.
const maxAddresses = 64

// CustodianNames are the ids that an address has in the archive, with what an officer needs to compute them: its own, those of
// addresses that its person had before, or none for somebody of whom nothing is kept. The newest comes first.
func (a *Archive) CustodianNames(ctx context.Context, address string) ([]escrow.CustodianName, error) {
	t, err := a.tokens(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	list, err := a.custodians(ctx, t, address)
	var names []escrow.CustodianName
	for _, c := range list {
		names = append(names, escrow.CustodianName{Salt: c.Salt, Address: c.Address})
	}
	return names, err
}

// Rename notes that a person has another address from now on: who asks for the new one is given what was kept under the old one, too.
// What was archived stays as it was stamped. By and why stand in the leaf, the addresses do not. ErrRename; vault.ErrNotFound when nothing
// is kept of the old address.
func (a *Archive) Rename(ctx context.Context, from, to, by, why string, now time.Time) error {
	t, err := a.tokens(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	list, err := a.custodians(ctx, t, from)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("archive: the old address: %w", vault.ErrNotFound)
	}
	to = normal(to)
	if len(list) == maxAddresses || slices.ContainsFunc(list, func(c vault.Custodian) bool { return c.Address == to }) {
		return ErrRename
	}
	c := newCustodian(to)
	c.Former = list[0].ID
	payload, err := json.Marshal(struct {
		Before string `json:"before"`
		Now    string `json:"now"`
		By     string `json:"by"`
		Why    string `json:"why"`
	}{hex.EncodeToString(c.Former[:]), hex.EncodeToString(c.ID[:]), by, why})
	if err != nil {
		return err
	}
	err = a.v.RenameCustodian(ctx, t.address(to), c, payload, now)
	if errors.Is(err, vault.ErrExists) {
		return ErrRename
	}
	return err
}

// Wrap takes the wrap with a digest out of its shred key, and gives the digests of all wraps of the record, ascending, as the
// record's current leaf has them. vault.ErrDestroyed: it was erased; vault.ErrNotFound, with the others: it was never there, or replaced.
func (a *Archive) Wrap(ctx context.Context, record vault.ID, of vault.Digest) (det1 []byte, all []vault.Digest, err error) {
	all, outer, err := a.v.ArchivedWraps(ctx, record, of)
	if err != nil {
		return nil, all, err
	}
	id, _, err := escrow.ParseOuter(outer)
	if err != nil {
		return nil, nil, fmt.Errorf("archive: record %v: %w", record, err)
	}
	key, err := a.v.OpenShredKey(ctx, id)
	if errors.Is(err, vault.ErrNotFound) {
		err = vault.ErrDestroyed
	}
	if err != nil {
		return nil, nil, fmt.Errorf("archive: record %v: %w", record, err)
	}
	defer key.Destroy()
	w, err := escrow.ShredKey{ID: id, Key: key}.Open(outer)
	if err == nil && w.Digest() != of {
		err = fmt.Errorf("%w: the wrap is another one", vault.ErrCorrupt)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("archive: record %v: %w", record, err)
	}
	return w.Octets(), all, nil
}

// normal is how addresses are compared: spec/dmtp.md OC-17.
func normal(address string) string { return strings.ToLower(address) }

// tokens makes index tokens: the first 16 octets of HMAC-SHA-256(search key, kind ‖ 0x00 ‖ octets).
type tokens struct {
	key   []byte
	close func()
}

func (a *Archive) tokens(ctx context.Context) (tokens, error) {
	k, err := a.v.NamedKey(ctx, "archive search")
	if err != nil {
		return tokens{}, err
	}
	b := k.Octets()
	return tokens{b, func() { clear(b); k.Destroy() }}, nil
}

func (t tokens) of(kind string, octets []byte) vault.Token {
	h := hmac.New(sha256.New, t.key)
	h.Write([]byte(kind + "\x00"))
	h.Write(octets)
	return vault.Token(h.Sum(nil)[:16])
}

func (t tokens) address(address string) vault.Token { return t.of("address", []byte(address)) }

func (t tokens) domain(domain string) vault.Token { return t.of("domain", []byte(domain)) }

func (t tokens) shred(s vault.Shred) vault.Token {
	return t.of("shred", fmt.Appendf(nil, "%x/%d/%d", s.Custodian, s.Class, s.Month))
}

// index is under which tokens a message is found: every address, and its domain.
func (t tokens) index(m Message) []vault.IndexEntry {
	var list []vault.IndexEntry
	add := func(address string, role uint8) {
		if address == "" {
			return
		}
		address = normal(address)
		list = append(list, vault.IndexEntry{Token: t.address(address), Role: role},
			vault.IndexEntry{Token: t.domain(address[strings.LastIndexByte(address, '@')+1:]), Role: role})
	}
	add(m.Author, vault.RoleAuthor)
	for _, f := range m.From {
		add(f, vault.RoleAuthor)
	}
	for _, r := range m.Recipients {
		add(r, vault.RoleRecipient)
	}
	return list
}

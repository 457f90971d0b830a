package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// A house is one organisation on a vault of its own, under a clock that all share.
type house struct {
	domain string
	vault  *vault.Vault
	org    keystore.Organization
	keeper *trustful.Keeper
	peers  map[string]*house
}

const day = 24 * time.Hour

func newHouse(t testing.TB, domain string, now *time.Time, peers map[string]*house) *house {
	t.Helper()
	return houseOn(t, newVault(t), domain, now, peers)
}

func houseOn(t testing.TB, v *vault.Vault, domain string, now *time.Time, peers map[string]*house) *house {
	t.Helper()
	if _, err := keystore.CreateOrganization(t.Context(), v, domain, "", *now); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return *now }
	h := &house{domain: domain, vault: v, org: keystore.Organization{Vault: v}, peers: peers}
	var err error
	h.keeper, err = trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v, Now: clock}, Organization: h.org, Peers: h,
		Pins: trustful.NewPins(keystore.Pins{Vault: v}, h, clock), Grace: trustful.MinGrace, Life: 90 * day, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	peers[domain] = h
	return h
}

// from asks the house of an address for its signets from a fingerprint on, as SGNT and HIST would.
func (h *house) from(ctx context.Context, address string, form signet.Form, fp signet.Fingerprint) ([]*signet.Signet, error) {
	all, err := h.peers[address[len(address)-len(h.domain):]].keeper.Chain(ctx, address)
	for i, s := range all {
		if own, _ := s.Fingerprint(form); own == fp {
			return all[i:], nil
		}
	}
	return nil, errors.Join(trustful.ErrNoSignet, err)
}

func (h *house) Author(ctx context.Context, address string, crypto signet.Fingerprint) (*signet.Signet, error) {
	all, err := h.from(ctx, address, signet.Crypto, crypto)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func (h *house) History(ctx context.Context, address string, full signet.Fingerprint) ([]*signet.Signet, error) {
	return h.from(ctx, address, signet.Full, full)
}

func (h *house) Current(ctx context.Context, address string, full signet.Fingerprint) (bool, error) {
	all, err := h.from(ctx, address, signet.Full, full)
	return len(all) == 1, err
}

// party is the house's organisation.
func (h *house) party(t testing.TB) message.Party {
	t.Helper()
	all, err := h.org.Signets(t.Context(), h.domain)
	if err != nil {
		t.Fatal(err)
	}
	return message.Party{Name: h.domain, Signet: all[len(all)-1]}
}

// send is mail from a user of h to a signet of another house, as that house's organisation hands it to the user's agent.
func (h *house) send(t testing.TB, author string, to *house, recipient *signet.Signet) trustful.Incoming {
	t.Helper()
	ctx := t.Context()
	o := trustful.Outgoing{Author: author, Recipient: message.Party{Name: recipient.Name(), Signet: recipient}, Destination: to.party(t), Remote: trustful.Strict}
	m, err := h.keeper.Seal(ctx, o, &message.Content{
		Common:  []byte("Date: Wed, 25 Nov 2026 12:00:00 +0000\r\nTo: b\r\nFrom: a\r\nSubject: s\r\n"),
		Other:   []byte("DIME-Layout: 1 hdr=full body=concat\r\n\r\n"),
		Display: []message.Part{{Data: []byte("terms")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := h.keeper.Current(ctx, author)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := h.vault.OrgEncryption(ctx, h.domain)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := m.Open(message.Origin, secrets[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Verify(message.Parties{Author: message.Party{Name: author, Signet: own}, Origin: h.party(t), Destination: o.Destination}); err != nil {
		t.Fatal(err)
	}
	primary, err := h.vault.OrgSigning(ctx, h.domain, vault.PrimaryKey)
	if err != nil {
		t.Fatal(err)
	}
	defer primary.Destroy()
	if m, err = opened.SignOrigin(primary); err != nil {
		t.Fatal(err)
	}
	fp, err := recipient.Fingerprint(signet.Crypto)
	if err != nil {
		t.Fatal(err)
	}
	return trustful.Incoming{Message: m, Recipient: recipient.Name(), RecipientSignet: fp, Origin: h.party(t), Remote: trustful.Strict}
}

// A sender is a peer's user with what his organisation has cached of the recipient.
type sender struct {
	*house
	author string
	cached *signet.Signet
	until  time.Time
}

// A flight is mail that lies in a peer's queue.
type flight struct {
	in  trustful.Incoming
	due time.Time
}

// TestThreeRotations lets the clock run over three rotations of everybody, a day a step, as the appliance's hourly sweep does.
// Peers use a signet for all the 30 days that they may cache it, begun on different days, the worst of them the day before
// a rotation; their mail then lies in their queues for up to five days. All of it opens, none is refused for its key; then
// each key that was destroyed has its one leaf, and no mail that is sealed to one opens.
func TestThreeRotations(t *testing.T) {
	ctx, now, peers := t.Context(), made, map[string]*house{}
	bravo := newHouse(t, "b.test", &now, peers)
	var senders []*sender
	for i, domain := range []string{"p.test", "q.test", "r.test"} {
		h := newHouse(t, domain, &now, peers)
		senders = append(senders, &sender{house: h, author: "alice@" + domain, until: made.Add(time.Duration(10*i) * day)})
	}
	const bob = "bob@b.test"
	first, err := bravo.keeper.Enrol(ctx, bob)
	if err != nil {
		t.Fatal(err)
	}
	var flights []flight
	var sent, opened, bounced, retired, destroyed int
	for step := 0; step <= 320; step++ {
		now = made.Add(time.Duration(step)*day + time.Minute) // a minute after keys of the same hour are due
		for _, h := range peers {
			if _, err := h.keeper.RotateDue(ctx); err != nil {
				t.Fatal(err)
			}
		}
		n, err := bravo.keeper.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		destroyed += n
		left := flights[:0]
		for _, f := range flights {
			if f.due.After(now) {
				left = append(left, f)
				continue
			}
			letter, err := bravo.keeper.Open(ctx, f.in)
			switch {
			case errors.Is(err, trustful.ErrStaleSignet):
				bounced++
			case err != nil:
				t.Fatalf("day %d: %v", step, err)
			default:
				opened++
				if letter.Retired {
					retired++
				}
			}
		}
		flights = left
		for i, s := range senders {
			if step%90 == 89 && i == 0 || s.cached == nil || now.After(s.until) { // the first fetches just before a rotation
				if s.cached, err = bravo.keeper.Current(ctx, bob); err != nil {
					t.Fatal(err)
				}
				s.until = now.Add(30 * day)
			}
			if step%3 == i || !s.until.After(now.Add(day)) {
				in := s.send(t, s.author, bravo, s.cached)
				flights = append(flights, flight{in, now.Add(time.Duration(step%6) * day)})
				sent++
			}
		}
	}
	for _, f := range flights {
		if _, err := bravo.keeper.Open(ctx, f.in); err != nil {
			t.Fatal(err)
		}
		opened++
	}
	t.Logf("sent %d, opened %d, of them %d to a replaced key, bounced_for_key %d, keys destroyed %d", sent, opened, retired, bounced, destroyed)
	if opened != sent || bounced != 0 || retired == 0 || destroyed != 3 {
		t.Error("mail was lost, or nothing was shown")
	}
	chain, err := bravo.keeper.Chain(ctx, bob)
	if err != nil || len(chain) != 4 {
		t.Fatalf("%d signets: %v", len(chain), err)
	}
	if err := signet.VerifyChain(chain, bravo.party(t).Signet); err != nil {
		t.Error(err)
	}
	checkLeaves(t, bravo.vault, bob, 3)
	late := senders[0].house
	fp, _ := first.Fingerprint(signet.Crypto)
	in := late.send(t, senders[0].author, bravo, chain[3])
	in.RecipientSignet = fp
	if _, err := bravo.keeper.Open(ctx, in); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("mail to a destroyed key: %v, want 586", err)
	}
}

// checkLeaves says whether each destroyed key of an address has one leaf of its destruction, and no other key has.
func checkLeaves(t *testing.T, v *vault.Vault, address string, want int) {
	t.Helper()
	octets, err := v.LogLeaves(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	leaves := map[vault.ID]int{}
	for _, b := range octets {
		l, err := vault.ParseLeaf(b)
		if err != nil {
			t.Fatal(err)
		}
		if l.Type == vault.LeafKeyDestroyed {
			leaves[l.Subject]++
		}
	}
	keys, err := v.UserKeys(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, k := range keys {
		if got := leaves[k.ID]; (got == 1) == k.Destroyed.IsZero() || got > 1 {
			t.Errorf("generation %d: destroyed %v, %d leaves", k.Number, k.Destroyed, got)
		} else {
			n += got
		}
	}
	if n != want {
		t.Errorf("%d keys were destroyed, want %d", n, want)
	}
}

// TestRotateDue: who is due, who is not, who keeps his keys, and that one address's fault is not the others'.
func TestRotateDue(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "x.test", &now, map[string]*house{})
	for _, name := range []string{"a", "b", "c"} {
		if _, err := h.keeper.Enrol(ctx, name+"@x.test"); err != nil {
			t.Fatal(err)
		}
		now = now.Add(day)
	}
	numbers := func() (text string) {
		for _, name := range []string{"a", "b", "c"} {
			all, err := h.vault.UserKeys(ctx, name+"@x.test")
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprint(len(all))
		}
		return text
	}
	now = made.Add(90*day - time.Second)
	if n, err := h.keeper.RotateDue(ctx); n != 0 || err != nil || numbers() != "111" {
		t.Errorf("before their time: %d, %v", n, err)
	}
	now = made.Add(91*day + time.Second)
	h.keeper.Keeps = func(domain string) bool { return domain == "x.test" }
	if n, err := h.keeper.RotateDue(ctx); n != 0 || err != nil || numbers() != "111" {
		t.Errorf("of a domain that keeps its keys: %d, %v", n, err)
	}
	h.keeper.Keeps = nil
	h.keeper.Store = lost{h.keeper.Store, "a@x.test"}
	if n, err := h.keeper.RotateDue(ctx); n != 1 || !errors.Is(err, errLost) || numbers() != "121" {
		t.Errorf("beside one that fails: %d, %v, %s", n, err, numbers())
	}
	h.keeper.Store = h.keeper.Store.(lost).Store
	if n, err := h.keeper.RotateDue(ctx); n != 1 || err != nil || numbers() != "221" {
		t.Errorf("tried again: %d, %v, %s", n, err, numbers())
	}
}

// lost is a store that cannot open one address's signing key.
type lost struct {
	trustful.Store
	address string
}

var errLost = errors.New("seal is closed")

func (l lost) Signing(ctx context.Context, address string, number int) (key.Signing, error) {
	if address == l.address {
		return key.Signing{}, errLost
	}
	return l.Store.Signing(ctx, address, number)
}

// TestAlarms: what somebody must look at, and what looks after itself.
func TestAlarms(t *testing.T) {
	ctx, now := t.Context(), made
	h := newHouse(t, "x.test", &now, map[string]*house{})
	c := config.Default()
	c.Organizations = []config.Organization{{Domains: []string{"x.test"}}}
	for _, name := range []string{"a@x.test", "b@x.test"} {
		if _, err := h.keeper.Enrol(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when time.Duration, want ...string) {
		t.Helper()
		list, err := keystore.Alarms(ctx, h.vault, c, made.Add(when))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range list {
			got = append(got, fmt.Sprintf("%s: %s %t", d.Name, d.What, d.Late))
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %v: %q, want %q", when, got, want)
		}
	}
	want(89 * day)
	want(90*day + time.Hour)
	want(92*day, "users: rotation true")
	now = made.Add(90*day + time.Hour)
	if n, err := h.keeper.RotateDue(ctx); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	want(92 * day)
	c.Organizations[0].KeepKeys = []string{"x.test"}
	want(875 * day)
	want(880*day, "x.test: primary key: rollover false")
	want(1097*day, "x.test: primary key: rollover true")
	c.Organizations[0].KeepKeys = nil
	want(367*day, "x.test: secondary key: successor true", "users: rotation true")
}

package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/setup"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

// A clock is what a gateway takes for now.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time  { return time.Unix(0, c.at.Load()) }
func (c *clock) set(t time.Time) { c.at.Store(t.UnixNano()) }

// A link is a gateway's way to the others, which can be cut.
type link struct {
	world *world
	mu    sync.Mutex
	down  bool
	open  []net.Conn
}

func (l *link) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("the link is down")
	}
	c, err := l.world.dial(ctx, to)
	if err == nil {
		l.open = append(l.open, c)
	}
	return c, err
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.open {
		c.Close()
	}
	l.open = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// A correspondent is a gateway whose user writes to bob at bravo, with a clock and a link of its own.
type correspondent struct {
	*site
	clock *clock
	link  *link
	sent  int
	stale atomic.Int64 // messages that left under a signet that was not the current one any more
}

// write is mail to bob, of which no two are alike.
func (c *correspondent) write() {
	t := c.world.t
	t.Helper()
	c.sent++
	s := call(t, c.gateway.listeners.submission[0].Addr().String(), "")
	s.want("220")
	s.cmd("EHLO mail."+c.domain, "250")
	s.send("MAIL FROM:<alice@" + c.domain + ">\r\nRCPT TO:<bob@bravo.example>\r\n")
	s.want("250", "250")
	s.cmd("DATA", "354")
	s.send(fmt.Sprintf("Subject: %s %d.\r\n\r\nhello\r\n.\r\n", c.domain, c.sent))
	s.want("250")
	check(t, s.conn.Close())
}

// answers counts the deliveries of a gateway by the code of its answer.
type answers struct {
	slog.Handler
	mu    sync.Mutex
	codes map[int64]int
}

func (a *answers) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(at slog.Attr) bool {
		if at.Key == "code" && at.Value.Kind() == slog.KindInt64 && r.Message == "dmtp message" {
			a.mu.Lock()
			a.codes[at.Value.Int64()]++
			a.mu.Unlock()
		}
		return true
	})
	if !a.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return a.Handler.Handle(ctx, r)
}

func (a *answers) Enabled(context.Context, slog.Level) bool { return true }

func (a *answers) of(code int64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.codes[code]
}

// A history is whole gateways under a clock that runs on: bob at bravo, whom two others write to. Alpha's clock is bravo's, and its
// link is down around each rotation, so that mail lies in its queue. Charlie looks at its clock once in thirty days, a day before the
// others rotate: so it takes what it fetched for fresh for as long as it may be cached at all.
type history struct {
	t              *testing.T
	world          *world
	bravo          *site
	clock          *clock
	alpha, charlie *correspondent
	answers        *answers
	start          time.Time
}

const day = 24 * time.Hour

func newHistory(t *testing.T) *history {
	h := &history{t: t, world: newWorldUntil(t, time.Now().AddDate(2, 0, 0), "alpha.example", "bravo.example", "charlie.example"), clock: &clock{}, start: time.Now()}
	h.bravo = h.world.sites[1]
	h.alpha = &correspondent{site: h.world.sites[0], clock: h.clock}
	h.charlie = &correspondent{site: h.world.sites[2], clock: &clock{}}
	h.clock.set(h.start)
	h.charlie.clock.set(h.start)
	for _, s := range h.world.sites {
		s.make(nil, func(c *config.Config) {
			c.Keys.RotateSecondaryAfter = 90 * day
			c.Queue.DelayNotice = 0                              // whatever comes to a sender is a bounce
			c.DMTP.Permit = append(c.DMTP.Permit, "127.0.0.0/8") // a year's questions come in seconds
		})
	}
	h.answers = &answers{Handler: slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}), codes: map[int64]int{}}
	quiet := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	h.bravo.inner.only("bob@bravo.example")
	h.bravo.run(Options{Now: h.clock.now, Log: slog.New(h.answers)})
	for _, c := range []*correspondent{h.alpha, h.charlie} {
		c.inner.only("alice@" + c.domain)
		c.link = &link{world: h.world}
		c.run(Options{Now: c.clock.now, Log: quiet, Dial: c.link.dial, Sealed: func(b []byte) { h.look(c, b) }})
	}
	return h
}

// look counts a message that leaves under a signet of bob's that was replaced.
func (h *history) look(c *correspondent, octets []byte) {
	k, err := h.bravo.gateway.EncryptionKey(h.t.Context(), "bravo.example", "")
	if err != nil {
		return
	}
	m, err := message.Parse(octets, message.Limits{})
	if err != nil {
		return
	}
	o, err := m.Open(message.Destination, k)
	if err != nil {
		return
	}
	chunk, err := o.Destination()
	if err != nil {
		return
	}
	current, err := h.bravo.gateway.Signet(h.t.Context(), "bob@bravo.example")
	if err != nil {
		return
	}
	if fp, err := current.Fingerprint(signet.Crypto); err == nil && fp != chunk.RecipientSignet {
		c.stale.Add(1)
	}
}

// next lets the clock run to a day, and has every gateway do what is due then.
func (h *history) next(n int) {
	h.clock.set(h.start.Add(time.Duration(n)*day + time.Duration(n)*time.Minute)) // keys of the same hour are due
	if n%30 == 29 && n < lastLook {
		h.charlie.clock.set(h.clock.now())
	}
	for _, s := range h.world.sites {
		s.gateway.tenants[0].sweepOnce(h.t.Context())
	}
}

// arrived waits until so much mail has come to bob.
func (h *history) arrived(n int) {
	h.t.Helper()
	until(h.t, func() bool { return len(h.subjects()) >= n })
}

// subjects tells of the mail that came to bob which it was.
func (h *history) subjects() (list []string) {
	for _, m := range h.bravo.inner.messages() {
		_, subject, _ := strings.Cut(m, "\r\nSubject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		list = append(list, subject)
	}
	return list
}

// Days of TestLife: keys rotate every ninety days, and charlie looks at its clock no more after the last.
const (
	rotation = 90
	lastLook = 3*rotation + 35
)

// TestLife lets whole gateways live through three rotations of everybody's keys, and of the domains' secondary keys: with mail in flight
// in a queue while keys rotate, peers that cached the recipient's signet for thirty days, late mail that comes within the grace of
// a replaced key, and one message that comes after it, which is refused with 586 and sealed again by its origin.
func TestLife(t *testing.T) {
	h := newHistory(t)
	pinned, err := h.bravo.gateway.tenants[0].keeper.Enrol(t.Context(), "bob@bravo.example")
	check(t, err)
	n := 0
	for ; n < lastLook; n++ {
		h.next(n)
		switch n % rotation {
		case rotation - 3:
			h.alpha.write() // so that alpha has the signet when its link is gone
			h.arrived(h.alpha.sent + h.charlie.sent)
			h.alpha.link.cut()
		case rotation - 2: // sealed to the key that is about to be replaced, and in the queue when that happens
			h.alpha.write()
			until(t, func() bool { return h.alpha.tried() == 1 })
		case 1:
			h.alpha.link.mend()
			h.alpha.gateway.tenants[0].client.Retry(time.Now().Add(time.Hour))
			h.alpha.write()
		}
		if n%5 == 4 {
			h.charlie.write()
			until(t, func() bool { return h.from(h.charlie) == h.charlie.sent })
		}
		if n%rotation < rotation-2 && n%rotation > 0 {
			h.arrived(h.alpha.sent + h.charlie.sent)
		}
	}
	if n := h.answers.of(586); n != 0 {
		t.Errorf("%d messages were refused for their key while all caches were as they may be", n)
	}
	inGrace := h.alpha.stale.Load() + h.charlie.stale.Load()
	for users := 0; users < 4; n++ { // charlie keeps what it has for longer than anybody may
		h.next(n)
		users, _ = h.destroyed()
	}
	h.charlie.write()
	h.arrived(h.alpha.sent + h.charlie.sent)

	bounced := len(h.alpha.inner.messages()) + len(h.charlie.inner.messages())
	sent, refused := h.alpha.sent+h.charlie.sent, h.answers.of(586)
	opened := len(slices.Compact(slices.Sorted(slices.Values(h.subjects()))))
	users, secondary := h.destroyed()
	t.Logf("%d days: sent %d, opened %d, of them %d in the grace of a replaced key, refused with 586 and sealed again %d, bounced_for_key %d; keys destroyed: %d of a user, %d secondary",
		n, sent, opened, inGrace, refused, bounced, users, secondary)
	if opened != sent || bounced != 0 || inGrace < 3*(1+5) || refused != 1 || secondary < 2 {
		t.Error("mail was lost, or nothing was shown")
	}
	h.checkHistory(pinned)
}

// tried is how many messages lie in the queue, tried and not delivered.
func (c *correspondent) tried() (n int) {
	list, err := c.gateway.tenants[0].queue.List(c.world.t.Context(), "", "", 100)
	check(c.world.t, err)
	for _, i := range list {
		if i.Attempts > 0 {
			n++
		}
	}
	return n
}

// from is how many messages of a domain have come.
func (h *history) from(c *correspondent) (n int) {
	for _, s := range h.subjects() {
		if strings.HasPrefix(s, c.domain+" ") {
			n++
		}
	}
	return n
}

// destroyed counts bravo's destroyed keys, each of which must have its leaf, and no other.
func (h *history) destroyed() (users, secondary int) {
	t, v := h.t, h.bravo.gateway.tenants[0].vault.Vault
	t.Helper()
	leaves := map[vault.ID]int{}
	octets, err := v.LogLeaves(t.Context(), 0, 1_000_000)
	check(t, err)
	for _, b := range octets {
		l, err := vault.ParseLeaf(b)
		check(t, err)
		if l.Type == vault.LeafKeyDestroyed {
			leaves[l.Subject]++
		}
	}
	wants := func(id vault.ID, destroyed time.Time) (n int) {
		if !destroyed.IsZero() {
			n = 1
		}
		if leaves[id] != n {
			t.Errorf("key %v, destroyed %v, has %d leaves of it", id, destroyed, leaves[id])
		}
		delete(leaves, id)
		return n
	}
	keys, err := v.UserKeys(t.Context(), "bob@bravo.example")
	check(t, err)
	for _, k := range keys {
		users += wants(k.ID, k.Destroyed)
	}
	orgs, err := v.OrgKeys(t.Context(), "bravo.example")
	check(t, err)
	for _, k := range orgs {
		secondary += wants(k.ID, k.Destroyed)
	}
	if len(leaves) != 0 {
		t.Errorf("%d leaves of a destruction that was none", len(leaves))
	}
	return users, secondary
}

var signets = regexp.MustCompile(`\[([A-Za-z0-9+/=]{100,})\]`)

// checkHistory asks bravo for the history of bob's keys: through alpha's resolver and client, which verify it from the pinned signet on; and
// by hand, for the second reader, which has its own way from the record's key to each signet.
func (h *history) checkHistory(pinned *signet.Signet) {
	t := h.t
	t.Helper()
	full, err := pinned.Fingerprint(signet.Full)
	check(t, err)
	chain, err := h.alpha.gateway.tenants[0].resolver.History(t.Context(), "bob@bravo.example", full)
	check(t, err)
	keys, err := h.bravo.gateway.tenants[0].vault.UserKeys(t.Context(), "bob@bravo.example")
	check(t, err)
	if len(chain) != len(keys) || len(chain) < 4 {
		t.Fatalf("a history of %d signets, of %d", len(chain), len(keys))
	}
	for i, k := range keys {
		if string(chain[i].Bytes()) != string(k.Signet) {
			t.Errorf("step %d is another", i+1)
		}
	}
	c := call(t, h.bravo.single(), "").secure(&tls.Config{})
	c.want("220")
	pok := h.bravo.gateway.tenants[0].orgs.domains["bravo.example"].now.Load().primary.Public()
	begin, err := h.bravo.gateway.tenants[0].orgs.domains["bravo.example"].now.Load().signets[0].Fingerprint(signet.Full)
	check(t, err)
	var orgs []*plainSignet
	for _, m := range signets.FindAllStringSubmatch(c.cmd(fmt.Sprintf("HIST <bravo.example> [%v]", begin), "290"), -1) {
		s := plainText(t, m[1])
		check(t, verifyPlainOrg(s, pok[:]))
		orgs = append(orgs, s)
	}
	var previous *plainSignet
	steps, under := 0, map[int]bool{}
	for _, m := range signets.FindAllStringSubmatch(c.cmd(fmt.Sprintf("HIST <bob@bravo.example> [%v]", full), "290"), -1) {
		s := plainText(t, m[1])
		err, found := errors.New("no organisation"), false
		for i := 0; i < len(orgs) && !found; i++ {
			if err = verifyPlainUser(s, orgs[i], previous, "bob@bravo.example"); err == nil {
				found, under[i] = true, true
			}
		}
		if !found {
			t.Errorf("step %d, read by the second reader: %v", steps+1, err)
		}
		if previous != nil && verifyPlainUser(s, orgs[len(orgs)-1], s, "bob@bravo.example") == nil {
			t.Errorf("step %d is in its own custody", steps+1)
		}
		previous = s
		steps++
	}
	t.Logf("HIST gave %d steps, verified under %d of %d organisational signets", steps, len(under), len(orgs))
	if steps != len(keys) || len(under) < 2 {
		t.Errorf("the second reader saw %d steps of %d", steps, len(keys))
	}
}

// TestPrimaryRollover replaces bravo's primary key while it writes to and hears from a gateway that looks every day, and from one that
// looks once in thirty days: the record lists both keys, the new one signs, the old one goes. No step can be taken before its time.
func TestPrimaryRollover(t *testing.T) {
	h := newHistory(t)
	ctx, tenant := t.Context(), h.bravo.gateway.tenants[0]
	v := tenant.vault.Vault
	publish := func() {
		t.Helper()
		records, err := setup.Records(ctx, h.bravo.config, v, "bravo.example", nil)
		check(t, err)
		h.bravo.publish(records[0].RecordLine)
	}
	step := func(want error) {
		t.Helper()
		if err := keystore.StepRollover(ctx, v, "bravo.example", false, h.clock.now()); !errors.Is(err, want) {
			t.Errorf("a step: %v, want %v", err, want)
		}
	}
	step(keystore.ErrNoRollover)
	old := tenant.orgs.domains["bravo.example"].now.Load().primary.Public()
	back := 0
	for n := range 76 {
		h.next(n)
		switch n {
		case 1:
			check(t, keystore.BeginRollover(ctx, v, "bravo.example", h.clock.now()))
			check(t, keystore.BeginRollover(ctx, v, "bravo.example", h.clock.now())) // changes nothing
			step(keystore.ErrUnpublished)
		case 2:
			publish()
		case 3, 33, 60:
			step(keystore.ErrTooEarly)
		case 34:
			step(nil) // seen on day 3
		case 65:
			step(nil)
			publish()
			step(keystore.ErrNoRollover)
		}
		if n == 35 {
			publish() // the certificates' values by the new key
		}
		for _, c := range []*correspondent{h.alpha, h.charlie} {
			if n%5 != 4 && n < 34 {
				continue
			}
			c.write()
			check(t, h.bravo.write("alice@"+c.domain))
			back++
		}
		h.arrived(h.alpha.sent + h.charlie.sent)
		until(t, func() bool { return len(h.alpha.inner.messages())+len(h.charlie.inner.messages()) == back })
	}
	keys, err := v.OrgKeys(ctx, "bravo.example")
	check(t, err)
	primaries := keystore.Primaries(keys)
	now := tenant.orgs.domains["bravo.example"].now.Load()
	if len(primaries) != 1 || now.primary.Public() == old || key.SigningPublic(primaries[0].Public) != now.primary.Public() || len(h.bravo.inner.messages()) != h.alpha.sent+h.charlie.sent {
		t.Errorf("%d primary keys, the old one signs: %t", len(primaries), now.primary.Public() == old)
	}
	for _, m := range append(h.alpha.inner.messages(), h.charlie.inner.messages()...) {
		if !strings.Contains(m, "Subject: x\r\n") {
			t.Errorf("something came back: %s", m)
		}
	}
	_, secondary := h.destroyed()
	t.Logf("%d to bravo, %d from it, all arrived; %d key destroyed", h.alpha.sent+h.charlie.sent, back, secondary)
}

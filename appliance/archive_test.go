package appliance

import (
	"crypto/sha512"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge/queue"
	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// officersOf holds a ceremony for a site and brings its key into force beside the running gateway.
func officersOf(t *testing.T, s *site) *testescrow.Officers {
	t.Helper()
	o, err := testescrow.NewOfficers(escrow.Discovery, s.domain, 2, 3, time.Now())
	check(t, err)
	check(t, s.archive().Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, time.Now()))
	return o
}

func (s *site) vault() *vault.Vault { return s.gateway.tenants[0].vault.Vault }

func (s *site) archive() *archive.Archive {
	a, err := archive.Open(s.world.t.Context(), s.vault())
	check(s.world.t, err)
	return a
}

// archived lists what a site's archive has of an address.
func (s *site) archived(q archive.Query) (list []archive.Hit) {
	t := s.world.t
	t.Helper()
	check(t, s.archive().Search(t.Context(), q, func(h archive.Hit) error { list = append(list, h); return nil }))
	return list
}

// exhibits opens what belongs to a record, and compares each with its leaf.
func (s *site) exhibits(key vault.Secret, record vault.ID) (list []queue.Exhibit) {
	t := s.world.t
	t.Helper()
	for _, x := range must(s.vault().SealedExhibits(t.Context(), record))(t) {
		r, n, err := s.vault().OpenSealedExhibit(t.Context(), record, x.N)
		check(t, err)
		sealed, err := io.ReadAll(r)
		check(t, errors.Join(err, r.Close()))
		plain, err := vault.OpenOctets(key, vault.PartExhibit, vault.ExhibitContext(record, x.N), sealed)
		check(t, err)
		digest := vault.Digest(sha512.Sum512_256(sealed))
		leaf := must(vault.ParseLeaf(must(s.vault().LogLeaves(t.Context(), x.Leaf, 1))(t)[0]))(t)
		if leaf.Type != vault.LeafExhibit || leaf.Subject != record || leaf.Public != vault.NewDigest("exhibit", []byte{x.Kind}, digest[:]) || n != int64(len(sealed)) {
			t.Errorf("exhibit %d of kind %d is not what leaf %d is about", x.N, x.Kind, x.Leaf)
		}
		list = append(list, queue.Exhibit{Kind: queue.ExhibitKind(x.Kind), Octets: plain})
	}
	return list
}

// open has two officers open one custodian's copies, and returns octets and stored envelopes by record.
func (s *site) open(o *testescrow.Officers, address string, hits []archive.Hit) (octets, envelopes map[vault.ID]string) {
	s.world.t.Helper()
	octets, envelopes, _ = s.openAll(o, address, hits)
	return octets, envelopes
}

// openAll is open, with the exhibits.
func (s *site) openAll(o *testescrow.Officers, address string, hits []archive.Hit) (octets, envelopes map[vault.ID]string, exhibits map[vault.ID][]queue.Exhibit) {
	t := s.world.t
	t.Helper()
	a, v, ctx := s.archive(), s.vault(), t.Context()
	names, err := a.CustodianNames(ctx, address)
	check(t, err)
	month := escrow.MonthOf(time.Now())
	c := testescrow.VaultCase{Vault: v, Custodians: names, First: month, Last: month, Now: time.Now()}
	owner := map[vault.Digest]vault.ID{}
	for _, h := range hits {
		if !slices.Contains(c.Classes, h.Class) {
			c.Classes = append(c.Classes, h.Class)
		}
		for _, w := range h.Wraps {
			if slices.ContainsFunc(names, func(n escrow.CustodianName) bool {
				return escrow.CustodianOf(n.Salt, n.Address) == escrow.Custodian(w.Custodian)
			}) {
				c.Entries = append(c.Entries, escrow.Entry{Leaf: uint64(h.Leaf), Wrap: w.Digest})
				owner[w.Digest] = h.Record
			}
		}
	}
	slices.Sort(c.Classes)
	c.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		det1, all, err := a.Wrap(ctx, owner[c.Entries[n].Wrap], c.Entries[n].Wrap)
		return all, det1, err
	}
	octets, envelopes, exhibits = map[vault.ID]string{}, map[vault.ID]string{}, map[vault.ID][]queue.Exhibit{}
	_, err = o.Open(ctx, c, func(x escrow.Opened) error {
		body, _, err := v.SealedBody(ctx, x.Label.Record)
		check(t, err)
		defer body.Close()
		r, err := vault.NewStreamReader(body, x.Key, vault.PartBody, nil)
		check(t, err)
		b, err := io.ReadAll(r)
		check(t, err)
		octets[x.Label.Record] = string(b)
		sealed, err := v.SealedEnvelope(ctx, x.Label.Record)
		check(t, err)
		envelope, err := vault.OpenOctets(x.Key, vault.PartEnvelope, x.Label.Record[:], sealed)
		envelopes[x.Label.Record] = string(envelope)
		exhibits[x.Label.Record] = s.exhibits(x.Key, x.Label.Record)
		return err
	}, 1, 3)
	check(t, err)
	return octets, envelopes, exhibits
}

// TestArchive: two whole gateways keep what crosses, each for its own officers; without a key nothing is taken; what leaves and what
// comes, by DMTP and by plain SMTP, opens by a quorum, octet for octet, with every recipient; rules and classes hold.
func TestArchive(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example")
	alpha, bravo := w.sites[0], w.sites[1]
	health := "127.0.0.1:" + freePort(t, "127.0.0.1:0")
	for _, s := range w.sites {
		s.make(nil, func(c *config.Config) {
			c.Archive.Keep, c.Audit.Witnesses = true, []string{silentWitness(t)}
			c.Archive.Classes = []config.Class{{Number: 1, Name: "mail", Retention: 87600 * time.Hour}, {Number: 5, Name: "board", Retention: 876000 * time.Hour}}
			c.Archive.Rules = []config.ArchiveRule{{From: "news@alpha.example", Class: "none"}, {From: "board@alpha.example", Class: "board"}}
			if s == alpha {
				c.Health.Listen = health
			}
		})
	}
	bravo.inner.only("bob@bravo.example", "hidden@bravo.example")
	var mu sync.Mutex
	sealed := map[string]bool{} // what alpha sent
	alpha.run(Options{Sealed: func(b []byte) { mu.Lock(); defer mu.Unlock(); sealed[string(b)] = true }})
	bravo.run(Options{})
	ready := func() (int, string) {
		r, err := http.Get("http://" + health + "/readyz")
		check(t, err)
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		check(t, err)
		return r.StatusCode, string(b)
	}
	if code, body := ready(); code != http.StatusServiceUnavailable || !strings.Contains(body, "no escrow key is in force") {
		t.Errorf("without a key: %d %q", code, body)
	}
	send := func(from, want string, to ...string) {
		t.Helper()
		addr, _ := alpha.gateway.Addresses()
		c := call(t, addr, "")
		c.want("220")
		c.cmd("EHLO inner", "250")
		c.cmd("MAIL FROM:<"+from+">", "250")
		for _, r := range to {
			c.cmd("RCPT TO:<"+r+">", "250")
		}
		c.cmd("DATA", "354")
		author := "Alice <alice+work@alpha.example>"
		if from == "news@alpha.example" {
			author = from
		}
		c.send("From: " + author + "\r\nTo: bob@bravo.example\r\nSubject: " + from + "\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@inner.example>\r\n\r\nhello\r\n.\r\n")
		c.want(want)
	}
	plain := func(want string) {
		t.Helper()
		c := call(t, bravo.dual(), "127.0.9.9")
		c.want("220")
		c.cmd("EHLO out.example.net", "250")
		c.cmd("MAIL FROM:<eve@out.example.net>", "250")
		c.cmd("RCPT TO:<bob@bravo.example>", "250")
		c.cmd("DATA", "354")
		c.send("X-DIME: yes\r\nFrom: forged@bravo.example\r\nSubject: plain\r\n\r\nhello\r\n.\r\n")
		c.want(want)
	}
	send("alice@alpha.example", "451 4.3.5", "bob@bravo.example")
	plain("451 4.3.5")
	officers := map[*site]*testescrow.Officers{alpha: officersOf(t, alpha)}
	if code, body := ready(); code != http.StatusOK {
		t.Errorf("with a key: %d %q", code, body)
	}
	send("alice@alpha.example", "250", "bob@bravo.example", "hidden@bravo.example")
	until(t, func() bool { return len(alpha.archived(archive.Query{Parties: []string{"hidden@bravo.example"}})) == 1 })
	if got := bravo.inner.messages(); len(got) != 0 {
		t.Errorf("the destination has no key, and took %d", len(got))
	}
	officers[bravo] = officersOf(t, bravo)
	until(t, func() bool {
		q := alpha.gateway.tenants[0].queue
		for _, r := range must(q.List(t.Context(), "", "", 10))(t) {
			q.Retry(t.Context(), r.ID) // one that is in delivery is tried again by itself
		}
		return len(bravo.inner.messages()) == 2
	})
	plain("250")
	send("", "250", "bob@bravo.example") // an absence notice: its author stands in the header alone
	send("news@alpha.example", "250", "bob@bravo.example")
	send("board@alpha.example", "250", "bob@bravo.example")
	until(t, func() bool { return len(bravo.inner.messages()) == 6 })

	alice := alpha.archived(archive.Query{Custodians: []string{"alice@alpha.example"}})
	if len(alice) != 3 || alice[0].Class != 1 || alice[2].Class != 5 || alice[2].Expires.Sub(alice[2].Made).Round(time.Minute) != 876000*time.Hour {
		t.Errorf("alice wrote %+v", alice)
	}
	octets, envelopes, exhibits := alpha.openAll(officers[alpha], "alice@alpha.example", alice)
	for i, from := range []string{"alice@alpha.example", "", "board@alpha.example"} {
		got := octets[alice[i].Record]
		if !strings.HasSuffix(got, "Subject: "+from+"\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@inner.example>\r\n\r\nhello\r\n") || !strings.HasPrefix(got, "Received: ") {
			t.Errorf("kept %q", got)
		}
	}
	if e := envelopes[alice[0].Record]; !strings.Contains(e, "hidden@bravo.example") {
		t.Errorf("envelope %q", e)
	}
	judge := func(list []queue.Exhibit, want ...queue.ExhibitKind) {
		t.Helper()
		var kinds []queue.ExhibitKind
		for _, x := range list {
			kinds = append(kinds, x.Kind)
			mu.Lock()
			sent := sealed[string(x.Octets)]
			mu.Unlock()
			switch {
			case x.Kind == queue.ExhibitObject && !sent,
				x.Kind == queue.ExhibitDecision && !strings.Contains(string(x.Octets), `"leg":"dmtp"`),
				x.Kind == queue.ExhibitSignets && !strings.Contains(string(x.Octets), `"role":"destination","name":"bravo.example"`),
				x.Kind == queue.ExhibitDNS && !strings.Contains(string(x.Octets), `"record":"ver=`) && !strings.Contains(string(x.Octets), `pok=`):
				t.Errorf("exhibit of kind %d: %.200q", x.Kind, x.Octets)
			}
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, want) {
			t.Errorf("exhibits of kinds %v, not %v", kinds, want)
		}
	}
	judge(exhibits[alice[0].Record], 1, 1, 2, 2, 3, 3, 4, 4) // of two recipients
	judge(exhibits[alice[1].Record], 1, 2, 3, 4)
	bob := bravo.archived(archive.Query{Custodians: []string{"bob@bravo.example"}, Direction: vault.Inbound})
	octets, envelopes, exhibits = bravo.openAll(officers[bravo], "bob@bravo.example", bob)
	var subjects []string
	for _, h := range bob {
		for line := range strings.Lines(octets[h.Record]) {
			if s, ok := strings.CutPrefix(line, "Subject: "); ok {
				subjects = append(subjects, strings.TrimSpace(s))
			}
		}
	}
	slices.Sort(subjects)
	if want := []string{"", "alice@alpha.example", "board@alpha.example", "plain"}; !slices.Equal(subjects, want) {
		t.Errorf("bob got %q", subjects)
	}
	judge(exhibits[bob[0].Record], 1, 3, 4)
	eve := bravo.archived(archive.Query{Parties: []string{"eve@out.example.net"}})
	if len(eve) != 1 || octets[eve[0].Record] != "X-DIME: yes\r\nFrom: forged@bravo.example\r\nSubject: plain\r\n\r\nhello\r\n" || !strings.Contains(envelopes[eve[0].Record], `"eve@out.example.net"`) {
		t.Errorf("of plain mail %d, %q, %q", len(eve), octets, envelopes)
	}
	if n := len(bravo.archived(archive.Query{Custodians: []string{"forged@bravo.example"}})); n != 0 {
		t.Error("a stranger makes custodians of ours by a From field")
	}
	if n := len(bravo.archived(archive.Query{Parties: []string{"forged@bravo.example"}})); n != 1 {
		t.Errorf("by the From field %d are found", n)
	}
	if n := len(bravo.archived(archive.Query{Parties: []string{"hidden@bravo.example"}, Direction: vault.Inbound})); n != 1 {
		t.Errorf("the hidden recipient's copy: %d", n)
	}
	for _, s := range w.sites { // the host opens none of it
		for _, h := range s.archived(archive.Query{Domains: []string{"bravo.example"}}) {
			if _, err := s.vault().Record(t.Context(), h.Record); err == nil {
				t.Errorf("the host opens a record of %s", s.domain)
			}
		}
	}

	// A continuity key beside the running gateway: keys of before are sealed by its sweep, a new one as it is made.
	escrowed := func(address string) []vault.EscrowedKey {
		return must(alpha.vault().EscrowedKeys(t.Context(), []string{address}, vault.ID{}, 10))(t)
	}
	o := must(testescrow.NewOfficers(escrow.Continuity, alpha.domain, 3, 4, time.Now()))(t)
	check(t, alpha.archive().Install(t.Context(), o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations, time.Now()))
	if n := len(escrowed("alice@alpha.example")); n != 0 {
		t.Errorf("before the sweep %d keys are sealed", n)
	}
	alpha.gateway.tenants[0].sweepEscrow(t.Context())
	if k := escrowed("alice@alpha.example"); len(k) != 1 || k[0].Retention != 876000*time.Hour {
		t.Errorf("of alice %+v", k)
	}
	send("carol@alpha.example", "250", "bob@bravo.example")
	until(t, func() bool { return len(escrowed("carol@alpha.example")) == 1 })
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// silentWitness is one that an archive must have, and that nobody reaches.
func silentWitness(t *testing.T) string {
	k, err := audit.NewWitnessKey("silent.example", make([]byte, 32))
	check(t, err)
	return "http://127.0.0.1:1 " + k.Verifier()
}

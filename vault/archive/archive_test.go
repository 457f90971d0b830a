package archive_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// A world is a vault with an archive that seals to an escrow key of three officers.
type world struct {
	testing.TB
	at       testvault.Vault
	v        *vault.Vault
	a        *archive.Archive
	key      *escrow.Key
	epoch    *escrow.Epoch
	officers []escrow.SigningKey
	now      time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, now: time.Date(2026, 3, 15, 10, 0, 0, 0, time.UTC)}
	w.at = testvault.New(t)
	w.v = w.at.Open(t, vault.Options{Now: func() time.Time { return w.now }})
	var err error
	w.a, err = archive.Open(t.Context(), w.v)
	w.ok(err)
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// deal holds a ceremony and returns what every officer attests.
func (w *world) deal() []*escrow.Statement {
	w.Helper()
	c := escrow.Ceremony{Suite: escrow.R255, Purpose: escrow.Discovery, Organisation: "corp.example", Quorum: 2, Now: w.now}
	w.officers = nil
	for i := range 3 {
		seed := make([]byte, 32)
		rand.Read(seed)
		k, err := escrow.NewSigningKey(seed)
		w.ok(err)
		id, err := age.GenerateX25519Identity()
		w.ok(err)
		w.officers = append(w.officers, k)
		c.Officers = append(c.Officers, escrow.Officer{Person: fmt.Sprintf("officer%d@corp.example", i), Key: k.Public(), Recipient: id.Recipient().String()})
	}
	dealt, err := c.Deal()
	w.ok(err)
	defer dealt.Destroy()
	w.key, w.epoch = dealt.Key, dealt.Epoch
	var list []*escrow.Statement
	for i, k := range w.officers {
		st, err := escrow.Statement{Kind: escrow.AttestShare, Index: uint16(i + 1), Time: w.now, Subject: w.epoch.Digest()}.Sign(k)
		w.ok(err)
		list = append(list, st)
	}
	return list
}

func (w *world) install() {
	w.Helper()
	w.ok(w.a.Install(w.Context(), w.key, []*escrow.Epoch{w.epoch}, w.deal(), w.now))
}

// accept takes a message to one recipient outside, and returns its record and the queue's row.
func (w *world) accept(m archive.Message, body string) (record, row vault.ID) {
	w.Helper()
	record, row, err := w.try(m, body)
	w.ok(err)
	return record, row
}

func (w *world) try(m archive.Message, body string) (record, row vault.ID, err error) {
	keep, err := w.a.Keeping(w.Context(), m)
	if err != nil {
		return record, row, err
	}
	d, err := w.v.NewDraft()
	if err != nil {
		return record, row, err
	}
	d.Keep(keep)
	if _, err := d.Write([]byte(body)); err != nil {
		return record, row, err
	}
	rows, err := w.v.Accept(w.Context(), d, []byte("envelope"), []vault.NewRow{{Domain: "else.example", Lane: "else.example", Due: w.now, Detail: []byte("{}"), Recipient: []byte("r"), State: 1}}, w.now)
	if err != nil {
		return record, row, err
	}
	return d.ID(), rows[0], nil
}

// deliver ends the queue's interest in a message.
func (w *world) deliver(row vault.ID) {
	w.Helper()
	r, err := w.v.QueueRow(w.Context(), row)
	w.ok(err)
	w.ok(w.v.ChangeRow(w.Context(), nil, r, vault.RowChange{Remove: true, Leaves: []vault.RowLeaf{{Type: vault.LeafDelivered}}}, w.now))
}

func (w *world) search(q archive.Query) (list []archive.Hit) {
	w.Helper()
	w.ok(w.a.Search(w.Context(), q, func(h archive.Hit) error { list = append(list, h); return nil }))
	return list
}

var toElse = archive.Message{Author: "Alice@corp.example", Recipients: []string{"x@else.example", "bob@corp.example", "hidden@third.example"},
	Custodians: []string{"Alice@corp.example", "bob@corp.example", "alice@corp.example"}, Class: 3, Retention: 365 * 24 * time.Hour}

// TestKept: a message that has left is still there, sealed to the officers for each custodian, and nothing of the host's opens it.
func TestKept(t *testing.T) {
	w := newWorld(t)
	if _, err := w.a.Keeping(t.Context(), toElse); !errors.Is(err, archive.ErrNoKey) {
		t.Fatalf("before there is a key: %v", err)
	}
	w.install()
	record, row := w.accept(toElse, "secret text\r\n")
	w.deliver(row)
	if _, err := w.v.Record(t.Context(), record); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("the host opens what has left: %v", err)
	}
	hits := w.search(archive.Query{Custodians: []string{"alice@CORP.example"}})
	if len(hits) != 1 || len(hits[0].Wraps) != 1 || hits[0].Record != record || hits[0].Class != 3 || !hits[0].Expires.Equal(w.now.Add(toElse.Retention)) {
		t.Fatalf("found %+v", hits)
	}
	h := hits[0]
	det1, all, err := w.a.Wrap(t.Context(), record, h.Wraps[0].Digest)
	w.ok(err)
	wrap, err := escrow.ParseWrap(det1)
	w.ok(err)
	w.ok(wrap.Check(w.key))
	names, err := w.a.CustodianNames(t.Context(), "alice@corp.example")
	w.ok(err)
	body, _, err := w.v.SealedBody(t.Context(), record)
	w.ok(err)
	defer body.Close()
	l := wrap.Label
	if len(all) != 2 || len(names) != 1 || l.Custodian != escrow.CustodianOf(names[0].Salt, names[0].Address) || l.Class != 3 ||
		l.Month != escrow.MonthOf(w.now) || l.Record != record || l.Archive != w.v.Archive() || l.Key != w.key.ID() {
		t.Fatalf("label %+v of %d wraps", l, len(all))
	}
	leaves, err := w.v.LogLeaves(t.Context(), h.Leaf, 1)
	w.ok(err)
	leaf, err := vault.ParseLeaf(leaves[0])
	w.ok(err)
	if leaf.Type != vault.LeafIntake || leaf.Subject != record || leaf.Public != vault.IntakePublic(l.Body, all) {
		t.Fatal("the intake's leaf is not about this body and these wraps")
	}
}

// TestKeptInbound: what was not accepted is not kept; what was, is.
func TestKeptInbound(t *testing.T) {
	w := newWorld(t)
	w.install()
	for n, end := range map[byte]func(id vault.InboundID) error{
		0: func(id vault.InboundID) error { return w.v.EndInbound(t.Context(), id, 0, "", nil, w.now) },
		1: func(id vault.InboundID) error { return w.v.EndInbound(t.Context(), id, 550, "5.1.1", nil, w.now) },
		2: func(id vault.InboundID) error { return w.v.DeferInbound(t.Context(), id, false, nil, w.now) },
	} {
		d, err := w.v.NewDraft()
		w.ok(err)
		keep, err := w.a.Keeping(t.Context(), archive.Message{Author: "x@else.example", Recipients: []string{"bob@corp.example"}, Custodians: []string{"bob@corp.example"}})
		w.ok(err)
		d.Keep(keep)
		d.Write([]byte("text"))
		id := vault.InboundID{Origin: "else.example", Message: [64]byte{n}}
		_, err = w.v.BeginInbound(t.Context(), d, id, []byte("e"), w.now)
		w.ok(err)
		w.ok(end(id))
		found := w.search(archive.Query{Custodians: []string{"bob@corp.example"}, From: w.now, Direction: vault.Inbound})
		if len(found) != 1 && n == 0 || len(found) > 1 {
			t.Fatalf("end %d: found %d", n, len(found))
		}
	}
	if found := w.search(archive.Query{Domains: []string{"else.example"}}); len(found) != 1 {
		t.Fatalf("found %d, accepted 1", len(found))
	}
}

// TestSearch: every way to narrow, alone.
func TestSearch(t *testing.T) {
	w := newWorld(t)
	w.install()
	var ids []vault.ID
	for i, m := range []archive.Message{
		toElse,
		{Author: "bob@corp.example", Recipients: []string{"y@else.example"}, Custodians: []string{"bob@corp.example"}, Class: 1},
		{Author: "alice@corp.example", Recipients: []string{"x@else.example"}, Custodians: []string{"alice@corp.example"}, Class: 1},
	} {
		id, _ := w.accept(m, "text"+string(bytes.Repeat([]byte("x"), i*100)))
		ids = append(ids, id)
		w.now = w.now.AddDate(0, 1, 0)
	}
	begin := time.Date(2026, 3, 15, 10, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		q    archive.Query
		want []int
	}{
		"custodian":               {archive.Query{Custodians: []string{"bob@corp.example"}}, []int{0, 1}},
		"two custodians":          {archive.Query{Custodians: []string{"bob@corp.example", "alice@corp.example"}}, []int{0, 1, 2}},
		"a stranger":              {archive.Query{Custodians: []string{"eve@corp.example"}}, nil},
		"a party who had Bcc":     {archive.Query{Parties: []string{"Hidden@third.example"}}, []int{0}},
		"a domain":                {archive.Query{Domains: []string{"else.example"}}, []int{0, 1, 2}},
		"custodian and party":     {archive.Query{Custodians: []string{"alice@corp.example"}, Parties: []string{"x@else.example"}}, []int{0, 2}},
		"a party of another's":    {archive.Query{Custodians: []string{"bob@corp.example"}, Parties: []string{"y@else.example"}}, []int{1}},
		"from":                    {archive.Query{Domains: []string{"else.example"}, From: begin.Add(time.Second)}, []int{1, 2}},
		"to, exclusive":           {archive.Query{Domains: []string{"else.example"}, To: begin.AddDate(0, 1, 0)}, []int{0}},
		"class":                   {archive.Query{Domains: []string{"else.example"}, Classes: []uint16{1}}, []int{1, 2}},
		"class of a custodian":    {archive.Query{Custodians: []string{"alice@corp.example"}, Classes: []uint16{1}}, []int{2}},
		"larger":                  {archive.Query{Domains: []string{"else.example"}, MinOctets: 104}, []int{1, 2}},
		"smaller":                 {archive.Query{Domains: []string{"else.example"}, MaxOctets: 104}, []int{0, 1}},
		"the other direction":     {archive.Query{Domains: []string{"else.example"}, Direction: vault.Inbound}, nil},
		"a name that is a domain": {archive.Query{Parties: []string{"else.example"}}, nil},
	} {
		var got []int
		for _, h := range w.search(c.q) {
			got = append(got, slices.Index(ids, h.Record))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, not %v", name, got, c.want)
		}
	}
	if err := w.a.Search(t.Context(), archive.Query{}, nil); err == nil {
		t.Error("a query about everybody is answered")
	}
}

// TestOnce: one custodian and one shred key, whoever asks at the same time.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	w.install()
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = w.try(toElse, "text") })
	}
	wg.Wait()
	w.ok(errors.Join(errs...))
	hits := w.search(archive.Query{Custodians: []string{"alice@corp.example"}})
	shreds := map[vault.ID]bool{}
	for _, h := range hits {
		shreds[h.Wraps[0].Shred] = true
		if h.Content != hits[0].Content {
			t.Error("equal messages have another content")
		}
	}
	if len(hits) != len(errs) || len(shreds) != 1 {
		t.Fatalf("%d records under %d shred keys", len(hits), len(shreds))
	}
}

// TestInstallRefuses: a key is in force with the word of every officer, in order, and not before.
func TestInstallRefuses(t *testing.T) {
	w := newWorld(t)
	all := w.deal()
	install := func(list []*escrow.Statement) error {
		return w.a.Install(t.Context(), w.key, []*escrow.Epoch{w.epoch}, list, w.now)
	}
	for name, list := range map[string][]*escrow.Statement{"none": nil, "two of three": all[:2], "one twice": {all[0], all[1], all[1]}} {
		if err := install(list); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
	if _, err := w.a.Sealer(t.Context(), escrow.Discovery); !errors.Is(err, archive.ErrNoKey) {
		t.Fatalf("a key is in force: %v", err)
	}
	w.ok(install([]*escrow.Statement{all[2], all[0], all[1]}))
	if err := install(all); !errors.Is(err, vault.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := w.a.Sealer(t.Context(), escrow.Continuity); !errors.Is(err, archive.ErrNoKey) {
		t.Errorf("for continuity: %v", err)
	}
	keys, err := w.a.Keys(t.Context())
	w.ok(err)
	if len(keys) != 1 || keys[0].Key.ID() != w.key.ID() || len(keys[0].Statements) != 3 || keys[0].Leaf < 0 {
		t.Errorf("keys %+v", keys)
	}
}

// BenchmarkAccept is the cost of an intake, without and with the archive.
func BenchmarkAccept(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("kept=%v", kept), func(b *testing.B) {
			w := newWorld(b)
			w.install()
			body := bytes.Repeat([]byte("x"), 10_000)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					d, err := w.v.NewDraft()
					w.ok(err)
					if kept {
						keep, err := w.a.Keeping(context.Background(), archive.Message{Author: "alice@corp.example", Recipients: []string{"x@else.example"}, Custodians: []string{"alice@corp.example"}})
						w.ok(err)
						d.Keep(keep)
					}
					d.Write(body)
					_, err = w.v.Accept(context.Background(), d, []byte("e"), []vault.NewRow{{Domain: "else.example", Lane: "else.example", Due: w.now, Detail: []byte("{}"), Recipient: []byte("r"), State: 1}}, w.now)
					w.ok(err)
				}
			})
		})
	}
}

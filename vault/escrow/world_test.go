package escrow

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A world is an organisation with officers, an archive and its log, as far as the tests need one.
type world struct {
	t       testing.TB
	now     time.Time
	people  map[string]person
	dealt   *Dealt
	epochs  []*Epoch
	shares  map[uint16]Share // of the last epoch
	sealer  *Sealer
	archive vault.ID
	log     *memoryLog
	records []worldRecord
}

type person struct {
	Officer
	signing  SigningKey
	identity *age.X25519Identity
}

// A worldRecord is a record with its wraps, one for each custodian.
type worldRecord struct {
	id    vault.ID
	key   []byte
	leaf  int64
	wraps []*Wrap
}

func newPerson(t testing.TB, name string) person {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	k := must[SigningKey](t)(NewSigningKey(seed))
	id := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	return person{Officer{Person: name + "@corp.example", Key: k.Public(), Recipient: id.Recipient().String()}, k, id}
}

var worldCustodians = []CustodianName{
	{Salt: [32]byte{1}, Address: "alice@corp.example"}, {Salt: [32]byte{2}, Address: "bob@corp.example"}, {Salt: [32]byte{3}, Address: "outside@corp.example"},
}

func newWorld(t testing.TB, quorum, officers int) *world {
	t.Helper()
	w := &world{t: t, now: time.Unix(1795000000, 0).UTC(), people: map[string]person{}, shares: map[uint16]Share{}, archive: vault.RandomID(), log: newMemoryLog(t)}
	c := Ceremony{Suite: R255, Purpose: Discovery, Organisation: "corp.example", Quorum: quorum, Now: w.now}
	for i := range officers {
		p := newPerson(t, fmt.Sprintf("officer%d", i+1))
		w.people[p.Person] = p
		c.Officers = append(c.Officers, p.Officer)
	}
	w.dealt = must[*Dealt](t)(c.Deal())
	for _, s := range w.dealt.Shares {
		if err := s.Check(w.dealt.Key, w.dealt.Epoch); err != nil {
			t.Fatal(err)
		}
		w.shares[s.Index] = s
	}
	w.epochs = []*Epoch{w.dealt.Epoch}
	w.sealer = must[*Sealer](t)(NewSealer(w.dealt.Key, w.epochs, w.attest()))
	return w
}

func (w *world) epoch() *Epoch { return w.epochs[len(w.epochs)-1] }

// attest has every officer of the last epoch attest.
func (w *world) attest() []*Statement {
	var list []*Statement
	for _, o := range w.epoch().Officers {
		list = append(list, w.say(o.Index, Statement{Kind: AttestShare, Time: w.now, Subject: w.epoch().Digest()}))
	}
	return list
}

// say signs a statement of an officer of the last epoch.
func (w *world) say(i uint16, s Statement) *Statement {
	w.t.Helper()
	o, ok := w.epoch().Officer(i)
	if !ok {
		w.t.Fatalf("no officer %d", i)
	}
	s.Index = i
	return must[*Statement](w.t)(s.Sign(w.people[o.Person].signing))
}

// seal archives n records for the given custodians, by number.
func (w *world) seal(n int, custodians ...int) {
	w.t.Helper()
	for range n {
		r := worldRecord{id: vault.RandomID(), key: make([]byte, 32)}
		rand.Read(r.key)
		body := vault.NewDigest("test body", r.id[:])
		var digests []vault.Digest
		for _, c := range custodians {
			who := worldCustodians[c]
			l := Label{Class: 7, Month: MonthOf(w.now), Archive: w.archive, Record: r.id, Custodian: CustodianOf(who.Salt, who.Address), Body: body}
			wrap := must[*Wrap](w.t)(w.sealer.Seal(must[vault.Secret](w.t)(vault.SecretOf(r.key)), l))
			r.wraps, digests = append(r.wraps, wrap), append(digests, wrap.Digest())
		}
		r.leaf = w.log.append(vault.Leaf{Type: vault.LeafIntake, Time: w.now, Archive: w.archive, Subject: r.id, Public: vault.IntakePublic(body, digests)})
		w.records = append(w.records, r)
	}
}

// A worldCase is a case with all that the gateway and the station have of it.
type worldCase struct {
	w         *world
	m         *Manifest
	key       CaseKey
	file      CaseFile
	requester person
	entries   []worldEntry // in the manifest's order
}

type worldEntry struct {
	record *worldRecord
	wrap   *Wrap
}

// open makes a case over one custodian's wraps; change may alter the manifest before it is made.
func (w *world) open(custodian int, change func(*Manifest)) *worldCase {
	w.t.Helper()
	who := worldCustodians[custodian]
	id := CustodianOf(who.Salt, who.Address)
	c := &worldCase{w: w, requester: newPerson(w.t, "requester"), key: must[CaseKey](w.t)(NewCaseKey(R255))}
	for i := range w.records {
		for _, wrap := range w.records[i].wraps {
			if wrap.Label.Custodian == id {
				c.entries = append(c.entries, worldEntry{&w.records[i], wrap})
			}
		}
	}
	cp := w.log.checkpoint()
	m := Manifest{Suite: R255, Purpose: Discovery, Case: vault.RandomID(), Archive: w.archive, Key: w.dealt.Key.ID(), Epoch: w.epoch().Digest(),
		Opened: w.now, Expires: w.now.Add(24 * time.Hour), First: MonthOf(w.now), Last: MonthOf(w.now), Requester: c.requester.Person, RequesterKey: c.requester.Key,
		Basis: "Court order 12 O 34/26", CaseKey: c.key.Public(), LogOrigin: cp.Origin, LogSize: uint64(cp.Size), LogRoot: cp.Root,
		Custodians: []Custodian{id}, Classes: []uint16{7}}
	for _, e := range c.entries {
		m.Entries = append(m.Entries, Entry{uint64(e.record.leaf), e.wrap.Digest()})
	}
	if change != nil {
		change(&m)
	}
	c.m = must[*Manifest](w.t)(NewManifest(m))
	c.file = CaseFile{Manifest: c.m, Custodians: []CustodianName{who}}
	c.file.Request = must[*Statement](w.t)(Statement{Kind: Request, Time: w.now, Subject: c.m.Digest(), Size: c.m.LogSize, Root: c.m.LogRoot}.Sign(c.requester.signing))
	c.file.CaseIndex = w.log.append(vault.Leaf{Type: vault.LeafCaseOpened, Time: w.now, Archive: w.archive, Subject: c.m.Case, Public: c.m.Digest()})
	c.file.Checkpoint, c.file.Size = w.log.sign(true), w.log.size()
	return c
}

func (c *worldCase) entry(n int) ([]vault.Digest, []byte, error) {
	var list []vault.Digest
	for _, wrap := range c.entries[n].record.wraps {
		list = append(list, wrap.Digest())
	}
	slices.SortFunc(list, compareDigests)
	return list, c.entries[n].wrap.Octets(), nil
}

func (c *worldCase) bundle() []byte {
	c.w.t.Helper()
	var b bytes.Buffer
	if err := c.file.WriteBundle(context.Background(), &b, c.w.log, c.entry); err != nil {
		c.w.t.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) reviewer() Reviewer {
	return Reviewer{Key: w.dealt.Key, Epoch: w.epoch(), Trust: w.log.trust(), Now: func() time.Time { return w.now.Add(time.Hour) }}
}

// approve is officer i's answer file.
func (c *worldCase) approve(i uint16) []byte {
	c.w.t.Helper()
	w, bundle := c.w, c.bundle()
	v := must[*Review](w.t)(w.reviewer().Review(context.Background(), bytes.NewReader(bundle)))
	o, _ := w.epoch().Officer(i)
	var messages []byte
	st, err := Approve(context.Background(), v, w.dealt.Key, w.epoch(), w.shares[i], w.people[o.Person].signing, w.now, bytes.NewReader(bundle),
		func(b []byte) error { messages = append(messages, b...); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return append(st.Octets(), messages...)
}

// A heldAnswer is an answer file in memory.
type heldAnswer []byte

func (a heldAnswer) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a)), nil }

func answersOf(files ...[]byte) []Answer {
	var list []Answer
	for _, f := range files {
		list = append(list, heldAnswer(f))
	}
	return list
}

// open combines, and checks every key that comes out against what was sealed.
func (c *worldCase) open(answers ...[]byte) (*OpenReport, error) {
	c.w.t.Helper()
	s := Station{Key: c.w.dealt.Key, Epoch: c.w.epoch(), Manifest: c.m, CaseKey: c.key}
	return s.Open(context.Background(), answersOf(answers...),
		func(n int) ([]byte, error) { return c.entries[n].wrap.Octets(), nil },
		func(o Opened) error {
			if !bytes.Equal(o.Key.Octets(), c.entries[o.Entry].record.key) {
				c.w.t.Errorf("entry %d: another key came out", o.Entry)
			}
			return nil
		})
}

// reshare makes the next epoch: dealers deal, officers are by name, new ones are made.
func (w *world) reshare(dealers []uint16, quorum int, names ...string) {
	w.t.Helper()
	old := w.epoch()
	var officers []Officer
	for _, name := range names {
		p, ok := w.people[name+"@corp.example"]
		if !ok {
			p = newPerson(w.t, name)
			w.people[p.Person] = p
		}
		p.Officer.Index = 0
		officers = append(officers, p.Officer)
	}
	p := must[*Plan](w.t)(NewPlan(old, w.epochs[:len(w.epochs)-1], dealers, officers, quorum, w.now))
	var deals []*Deal
	var statements []*Statement
	subs := map[uint16][]SubShare{}
	for _, i := range p.Dealers {
		d, list, err := DealPlan(w.shares[i], old, p)
		if err != nil {
			w.t.Fatal(err)
		}
		deals = append(deals, d)
		statements = append(statements, w.say(i, Statement{Kind: DealShares, Time: w.now, Subject: d.Digest(), Extra: p.Digest()}))
		for _, u := range list {
			subs[u.To] = append(subs[u.To], u)
		}
	}
	e := must[*Epoch](w.t)(Next(w.dealt.Key, old, w.epochs[:len(w.epochs)-1], p, deals, statements))
	w.epochs = append(w.epochs, e)
	w.shares = map[uint16]Share{}
	for _, o := range e.Officers {
		w.shares[o.Index] = must[Share](w.t)(Accept(e, p, deals, o.Index, subs[o.Index]))
	}
	w.sealer = must[*Sealer](w.t)(NewSealer(w.dealt.Key, w.epochs, w.attest()))
}

// A memoryLog is a log with its key and a witness.
type memoryLog struct {
	t       testing.TB
	leaves  [][]byte
	hashes  []tlog.Hash
	key     note.Signer
	keyText string
	witness *testWitness
}

const logOrigin = "dimegate/test"

func newMemoryLog(t testing.TB) *memoryLog {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, logOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return &memoryLog{t: t, key: must[note.Signer](t)(note.NewSigner(private)), keyText: public, witness: newTestWitness("witness.example")}
}

func (l *memoryLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var list []tlog.Hash
	for _, i := range indexes {
		list = append(list, l.hashes[i])
	}
	return list, nil
}

func (l *memoryLog) append(leaf vault.Leaf) int64 {
	n := l.size()
	l.hashes = append(l.hashes, must[[]tlog.Hash](l.t)(tlog.StoredHashes(n, leaf.Octets(), l))...)
	l.leaves = append(l.leaves, leaf.Octets())
	return n
}

func (l *memoryLog) size() int64 { return int64(len(l.leaves)) }

func (l *memoryLog) checkpoint() Checkpoint {
	return Checkpoint{logOrigin, l.size(), must[tlog.Hash](l.t)(tlog.TreeHash(l.size(), l))}
}

// sign is the checkpoint as a note, with or without the witness's cosignature.
func (l *memoryLog) sign(cosigned bool) []byte {
	cp := l.checkpoint()
	signers := []note.Signer{l.key}
	if cosigned {
		signers = append(signers, l.witness)
	}
	return must[[]byte](l.t)(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", cp.Origin, cp.Size, cp.Root)}, signers...))
}

func (l *memoryLog) trust() Trust {
	return Trust{Log: l.keyText, Witnesses: []string{l.witness.text()}}
}

func (l *memoryLog) Leaf(_ context.Context, i int64) ([]byte, error) { return l.leaves[i], nil }
func (l *memoryLog) ProveLeaf(_ context.Context, size, i int64) ([]tlog.Hash, error) {
	return tlog.ProveRecord(size, i, l)
}
func (l *memoryLog) ProveGrowth(_ context.Context, old, size int64) ([]tlog.Hash, error) {
	return tlog.ProveTree(size, old, l)
}

// A testWitness cosigns whatever it is given: C2SP tlog-cosignature.
type testWitness struct {
	name string
	key  ed25519.PrivateKey
}

func newTestWitness(name string) *testWitness {
	_, k, _ := ed25519.GenerateKey(nil)
	return &testWitness{name, k}
}

func (w *testWitness) public() []byte {
	return append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
}

func (w *testWitness) text() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.KeyHash(), base64.StdEncoding.EncodeToString(w.public()))
}

func (w *testWitness) Name() string { return w.name }

func (w *testWitness) KeyHash() uint32 {
	sum := sha256.Sum256([]byte(w.name + "\n" + string(w.public())))
	return binary.BigEndian.Uint32(sum[:])
}

func (w *testWitness) Sign(msg []byte) ([]byte, error) {
	const at = 1795000001
	sig := ed25519.Sign(w.key, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", at, msg)))
	return append(binary.BigEndian.AppendUint64(nil, at), sig...), nil
}

// Package testcase gives tests a discovery station with a case in it: messages sealed to an escrow key, a log with a witness, three
// officers of whom two approve, and the case file that a gateway would write. Gateway and officers are in this process, as small as
// they can be.
package testcase

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

// A Message is archived. What is not set has a default: class 1, alice@example.org's, inbound.
type Message struct {
	Octets     []byte
	Envelopes  []discovery.Envelope
	Class      uint16
	Custodians []string
	Direction  vault.Kind
	Stored     []byte // the envelope as it rests, in place of Envelopes in the form that Envelopes reads
}

// A World is everything around a case. Requester is rita@example.org.
type World struct {
	Archive  *testescrow.Archive
	Key      *escrow.Key
	Epoch    *escrow.Epoch
	Station  *station.Station
	Keys     *station.Keys
	CaseFile string // path
	Records  []vault.ID
	Now      time.Time
	Relay    bool // Grant writes leaves about the officers' answers; true

	dir          string
	identity     age.Identity
	signing      map[uint16]escrow.SigningKey
	shares       []escrow.Share
	attestations []*escrow.Statement
	sealer       *escrow.Sealer
	sealed       map[vault.ID]*sealed
	order        []*sealed
}

type sealed struct {
	info     discovery.RecordInfo
	body     []byte
	envelope []byte
	leaf     int64
	wraps    [][]byte
}

// Passphrase opens the station's keys.
const Passphrase = "five words by chance here"

// Folder is the station's.
func (w *World) Folder() string { return filepath.Join(w.dir, "station") }

// New makes a world with an empty station.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{Archive: testescrow.New(), Now: time.Now(), Relay: true, dir: t.TempDir(), signing: map[uint16]escrow.SigningKey{}, sealed: map[vault.ID]*sealed{}}
	c := escrow.Ceremony{Suite: escrow.R255, Purpose: escrow.Discovery, Organisation: "example.org", Quorum: 2, Now: w.Now}
	for i, name := range []string{"anna", "ben", "cleo"} {
		k := newSigning(t)
		id := must(age.GenerateX25519Identity())(t)
		c.Officers = append(c.Officers, escrow.Officer{Person: name + "@example.org", Key: k.Public(), Recipient: id.Recipient().String()})
		w.signing[uint16(i+1)] = k
	}
	dealt := must(c.Deal())(t)
	w.Key, w.Epoch, w.shares = dealt.Key, dealt.Epoch, dealt.Shares
	for _, o := range w.Epoch.Officers {
		w.attestations = append(w.attestations, must(escrow.Statement{Kind: escrow.AttestShare, Index: o.Index, Time: w.Now, Subject: w.Epoch.Digest()}.Sign(w.signing[o.Index]))(t))
	}
	w.sealer = must(escrow.NewSealer(w.Key, []*escrow.Epoch{w.Epoch}, w.attestations))(t)
	to := must(age.NewScryptRecipient(Passphrase))(t)
	to.SetWorkFactor(8)
	w.identity = must(age.NewScryptIdentity(Passphrase))(t)
	trust := must(w.Archive.Trust())(t)
	w.Station = must(station.Create(w.Folder(), "rita@example.org", trust, officer.Lock{To: to}))(t)
	return w
}

// Opened is a world whose station has opened messages, and the case in it.
func Opened(t testing.TB, messages ...Message) (*World, *station.Case) {
	t.Helper()
	w := New(t)
	for _, m := range messages {
		w.Seal(t, m)
	}
	w.Grant(t, 1, 3)
	w.Open(t)
	c := must(w.Station.Case(w.Keys, w.Now))(t)
	t.Cleanup(func() { c.Close() })
	return w, c
}

func newSigning(t testing.TB) escrow.SigningKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return must(escrow.NewSigningKey(seed))(t)
}

// must ends the test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Envelopes reads envelopes as Seal stores them.
func Envelopes(_ vault.Kind, stored []byte) ([]discovery.Envelope, error) {
	var list []discovery.Envelope
	err := json.Unmarshal(stored, &list)
	return list, err
}

// Seal archives a message.
func (w *World) Seal(t testing.TB, m Message) {
	t.Helper()
	if m.Class == 0 {
		m.Class = 1
	}
	if m.Custodians == nil {
		m.Custodians = []string{"alice@example.org"}
	}
	if m.Direction == 0 {
		m.Direction = vault.Inbound
	}
	if m.Envelopes == nil {
		m.Envelopes = []discovery.Envelope{{From: "sender@example.net", Recipients: m.Custodians, Received: w.Now.UTC().Truncate(time.Second), Source: "dmtp"}}
	}
	key := vault.NewSecret()
	defer key.Destroy()
	id := vault.NewID(w.Now)
	envelope := m.Stored
	if envelope == nil {
		envelope = must(json.Marshal(m.Envelopes))(t)
	}
	var o vault.Opening
	rand.Read(o.Salt[:])
	octets, env := vault.NewDigest("octets", m.Octets), vault.NewDigest("envelope", envelope)
	o.Payload = slices.Concat(octets[:], env[:])
	s := &sealed{body: vault.SealOctets(key, vault.PartBody, nil, m.Octets), envelope: vault.SealOctets(key, vault.PartEnvelope, id[:], append(o.Salt[:], envelope...))}
	body := vault.Digest(sha512.Sum512_256(s.body))
	var digests []vault.Digest
	for _, address := range m.Custodians {
		n := w.Archive.Custodian(address)
		wrap := must(w.sealer.Seal(key, escrow.Label{Class: m.Class, Month: escrow.MonthOf(w.Now), Archive: w.Archive.ID, Record: id, Custodian: escrow.CustodianOf(n.Salt, address), Body: body}))(t)
		s.wraps, digests = append(s.wraps, wrap.Octets()), append(digests, wrap.Digest())
	}
	s.leaf = must(w.Archive.Append(vault.Leaf{Type: vault.LeafIntake, Time: w.Now, Subject: id, Public: vault.IntakePublic(body, digests), Commitment: o.Commit(vault.LeafIntake)}))(t)
	s.info = discovery.RecordInfo{Record: id, Direction: m.Direction, Made: w.Now, Octets: int64(len(m.Octets)), EnvelopeOctets: len(s.envelope), BodyOctets: int64(len(s.body))}
	w.sealed[id] = s
	w.order = append(w.order, s)
	w.Records = append(w.Records, id)
}

// Damage changes the sealed body of a record that was archived, as a damaged disk would.
func (w *World) Damage(id vault.ID) {
	s := w.sealed[id]
	s.body[len(s.body)-1] ^= 1
}

// Selection is everything that was archived, for the requester to sign.
func (w *World) Selection(t testing.TB, life time.Duration) *discovery.Selection {
	t.Helper()
	size := int64(len(w.Archive.Leaves))
	root := must(tlog.TreeHash(size, w.Archive))(t)
	r := w.Station.Request()
	trust := must(w.Archive.Trust())(t)
	origin, _, _ := bytes.Cut([]byte(trust.Log), []byte("+"))
	m := escrow.Manifest{Suite: w.Key.Suite(), Purpose: w.Key.Purpose, Case: vault.NewID(w.Now), Archive: w.Archive.ID, Key: w.Key.ID(), Epoch: w.Epoch.Digest(),
		Opened: w.Now.Add(-time.Minute).Truncate(time.Second), Expires: w.Now.Add(life).Truncate(time.Second), First: escrow.MonthOf(w.Now), Last: escrow.MonthOf(w.Now),
		Requester: r.Requester, RequesterKey: r.Key, Basis: "a test's order", CaseKey: r.CaseKey, LogOrigin: string(origin), LogSize: uint64(size), LogRoot: root}
	names := map[escrow.Custodian]escrow.CustodianName{}
	for _, s := range w.order {
		for _, octets := range s.wraps {
			wrap := must(escrow.ParseWrap(octets))(t)
			m.Entries = append(m.Entries, escrow.Entry{Leaf: uint64(s.leaf), Wrap: wrap.Digest()})
			if !slices.Contains(m.Classes, wrap.Label.Class) {
				m.Classes = append(m.Classes, wrap.Label.Class)
			}
		}
	}
	for address := range w.Archive.Salts {
		n := w.Archive.Custodian(address)
		id := escrow.CustodianOf(n.Salt, address)
		names[id] = n
		m.Custodians = append(m.Custodians, id)
	}
	s := &discovery.Selection{Manifest: must(escrow.NewManifest(m))(t)}
	for _, id := range s.Manifest.Custodians {
		s.Custodians = append(s.Custodians, names[id])
	}
	return s
}

// Grant has the requester sign, the officers of these indexes approve, and the gateway write the case file.
func (w *World) Grant(t testing.TB, officers ...uint16) {
	t.Helper()
	sel := w.Selection(t, time.Hour)
	keys := must(w.Station.Unlock(w.identity))(t)
	st := must(w.Station.Sign(keys, sel, w.Now))(t)
	keys.Destroy()
	f := escrow.CaseFile{Manifest: sel.Manifest, Request: st, Custodians: sel.Custodians}
	f.CaseIndex = must(w.Archive.Append(vault.Leaf{Type: vault.LeafCaseOpened, Time: w.Now, Subject: sel.Manifest.Case, Public: sel.Manifest.Digest()}))(t)
	var leaves []discovery.ProvedLeaf
	answers := map[uint16][]byte{}
	for _, i := range officers {
		answer, statement := w.approve(t, f, i)
		answers[i] = answer
		if !w.Relay {
			continue
		}
		for _, l := range []vault.Leaf{{Type: vault.LeafAnswer, Public: statement.LeafDigest()}, {Type: vault.LeafPartials, Public: statement.Extra}} {
			l.Subject, l.Time = sel.Manifest.Case, w.Now
			leaves = append(leaves, discovery.ProvedLeaf{Index: uint64(must(w.Archive.Append(l))(t))})
		}
	}
	w.CaseFile = filepath.Join(w.dir, "case.zip")
	w.write(t, f, leaves, answers)
}

// bundle is the case's under the log as it is.
func (w *World) bundle(t testing.TB, f escrow.CaseFile, to io.Writer) {
	t.Helper()
	f.Size, f.Checkpoint = int64(len(w.Archive.Leaves)), must(w.Archive.Checkpoint())(t)
	wraps := map[vault.Digest]*sealed{}
	octets := map[vault.Digest][]byte{}
	for _, s := range w.order {
		for _, o := range s.wraps {
			d := vault.NewDigest("wrap", o)
			wraps[d], octets[d] = s, o
		}
	}
	if err := f.WriteBundle(t.Context(), to, w.Archive, func(n int) ([]vault.Digest, []byte, error) {
		d := f.Manifest.Entries[n].Wrap
		var all []vault.Digest
		for _, o := range wraps[d].wraps {
			all = append(all, vault.NewDigest("wrap", o))
		}
		slices.SortFunc(all, func(a, b vault.Digest) int { return bytes.Compare(a[:], b[:]) })
		return all, octets[d], nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (w *World) approve(t testing.TB, f escrow.CaseFile, i uint16) ([]byte, *escrow.Statement) {
	t.Helper()
	var b, messages bytes.Buffer
	w.bundle(t, f, &b)
	r := escrow.Reviewer{Key: w.Key, Epoch: w.Epoch, Trust: must(w.Archive.Trust())(t), Now: func() time.Time { return w.Now }}
	v := must(r.Review(t.Context(), bytes.NewReader(b.Bytes())))(t)
	st := must(escrow.Approve(t.Context(), v, w.Key, w.Epoch, w.shares[i-1], w.signing[i], w.Now, &b, func(m []byte) error {
		_, err := messages.Write(m)
		return err
	}))(t)
	return append(st.Octets(), messages.Bytes()...), st
}

func (w *World) write(t testing.TB, f escrow.CaseFile, leaves []discovery.ProvedLeaf, answers map[uint16][]byte) {
	t.Helper()
	out := must(os.Create(w.CaseFile))(t)
	defer out.Close()
	c := must(discovery.NewCaseFile(out, f.Manifest.Case, must(w.Archive.Trust())(t).Log, w.Now))(t)
	size := int64(len(w.Archive.Leaves))
	for i := range leaves {
		leaves[i].Octets = w.Archive.Leaves[leaves[i].Index]
		leaves[i].Proof = must(w.Archive.ProveLeaf(t.Context(), size, int64(leaves[i].Index)))(t)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Key(w.Key, []*escrow.Epoch{w.Epoch}, w.attestations))
	check(c.Bundle(func(to io.Writer) error { w.bundle(t, f, to); return nil }))
	check(c.Leaves(leaves))
	for i, a := range answers {
		check(c.Answer(i, bytes.NewReader(a)))
	}
	check(c.Records(t.Context(), w.Records, func(_ context.Context, id vault.ID) (discovery.SealedRecord, func() error, error) {
		s := w.sealed[id]
		return discovery.SealedRecord{RecordInfo: s.info, Body: bytes.NewReader(s.body), Envelope: s.envelope}, func() error { return nil }, nil
	}))
	check(c.Close())
}

// Unlock opens the station's keys into Keys.
func (w *World) Unlock(t testing.TB) {
	t.Helper()
	w.Keys = must(w.Station.Unlock(w.identity))(t)
	t.Cleanup(w.Keys.Destroy)
}

// Open has the station open the case file.
func (w *World) Open(t testing.TB) *station.Report {
	t.Helper()
	w.Unlock(t)
	return must(w.Station.OpenCase(t.Context(), w.Keys, w.CaseFile, Envelopes, w.Now, func(int, int) {}))(t)
}

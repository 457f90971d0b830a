// Package testescrow gives tests and the test bed an archive with its log and a witness: records sealed to an escrow key, cases over
// them, and the discovery station that opens what a quorum gives. It is the gateway's part, as small as it can be.
package testescrow

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// An Archive is records, log and witness. Not safe for concurrent use.
type Archive struct {
	ID          vault.ID
	LogSeed     []byte
	WitnessSeed []byte
	Salts       map[string][]byte // of custodians, by address
	Records     []Record
	Leaves      [][]byte

	hashes []tlog.Hash
}

// A Record is a sealed message. Plain is what it held, to compare with; a real archive does not have it.
type Record struct {
	ID     vault.ID
	Leaf   int64
	Plain  []byte
	Sealed []byte
	Wraps  [][]byte // DET1, one for each custodian

	Salt     [32]byte // of the leaf's commitment
	Envelope []byte   // that it commits to
}

// New makes an archive with nothing in it.
func New() *Archive {
	return &Archive{ID: vault.RandomID(), LogSeed: random(32), WitnessSeed: random(32), Salts: map[string][]byte{}}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// Load reads what Save wrote.
func Load(path string) (*Archive, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := new(Archive)
	if err := json.Unmarshal(b, a); err != nil {
		return nil, err
	}
	leaves := a.Leaves
	a.Leaves = nil
	for _, l := range leaves {
		if err := a.addLeaf(l); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Save writes the archive into a file.
func (a *Archive) Save(path string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// ReadHashes is the log as tlog reads it.
func (a *Archive) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		list[i] = a.hashes[n]
	}
	return list, nil
}

func (a *Archive) addLeaf(octets []byte) error {
	h, err := tlog.StoredHashes(int64(len(a.Leaves)), octets, a)
	if err != nil {
		return err
	}
	a.hashes = append(a.hashes, h...)
	a.Leaves = append(a.Leaves, octets)
	return nil
}

// Append writes a leaf and returns its index.
func (a *Archive) Append(l vault.Leaf) (int64, error) {
	l.Archive = a.ID
	return int64(len(a.Leaves)), a.addLeaf(l.Octets())
}

// Leaf, ProveLeaf and ProveGrowth are escrow.Prover.
func (a *Archive) Leaf(_ context.Context, i int64) ([]byte, error) { return a.Leaves[i], nil }

// ProveLeaf proves that a leaf is in the tree of a size.
func (a *Archive) ProveLeaf(_ context.Context, size, i int64) ([]tlog.Hash, error) {
	return tlog.ProveRecord(size, i, a)
}

// ProveGrowth proves that a smaller tree is a beginning of one.
func (a *Archive) ProveGrowth(_ context.Context, old, size int64) ([]tlog.Hash, error) {
	return tlog.ProveTree(size, old, a)
}

func (a *Archive) logKey() (*audit.Key, error) { return audit.NewKey(audit.Origin(a.ID, 0), a.LogSeed) }

// Trust is whom an officer is told to believe.
func (a *Archive) Trust() (escrow.Trust, error) {
	k, err := a.logKey()
	if err != nil {
		return escrow.Trust{}, err
	}
	return escrow.Trust{Log: k.Verifier(), Witnesses: []string{a.witness().verifier()}}, nil
}

func (a *Archive) witness() witness { return witness{ed25519.NewKeyFromSeed(a.WitnessSeed)} }

// Checkpoint is the log's state, signed by its key and cosigned by the witness.
func (a *Archive) Checkpoint() ([]byte, error) {
	k, err := a.logKey()
	if err != nil {
		return nil, err
	}
	root, err := tlog.TreeHash(int64(len(a.Leaves)), a)
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", k.Name(), len(a.Leaves), root)}, k, a.witness())
}

// Custodian is the name of a custodian, with a salt that is made once.
func (a *Archive) Custodian(address string) escrow.CustodianName {
	if a.Salts[address] == nil {
		a.Salts[address] = random(32)
	}
	return escrow.CustodianName{Salt: [32]byte(a.Salts[address]), Address: address}
}

// Seal archives a message of each of the custodians.
func (a *Archive) Seal(s *escrow.Sealer, plain []byte, class uint16, now time.Time, custodians ...string) error {
	key := vault.NewSecret()
	defer key.Destroy()
	r := Record{ID: vault.RandomID(), Plain: plain, Salt: [32]byte(random(32)), Envelope: []byte("to: " + strings.Join(custodians, ", "))}
	r.Sealed = vault.SealOctets(key, vault.PartBody, r.ID[:], plain)
	body := vault.Digest(sha512.Sum512_256(r.Sealed))
	var digests []vault.Digest
	for _, address := range custodians {
		c := a.Custodian(address)
		w, err := s.Seal(key, escrow.Label{Class: class, Month: escrow.MonthOf(now), Archive: a.ID, Record: r.ID, Custodian: escrow.CustodianOf(c.Salt, address), Body: body})
		if err != nil {
			return err
		}
		r.Wraps, digests = append(r.Wraps, w.Octets()), append(digests, w.Digest())
	}
	octets, envelope := vault.NewDigest("octets", plain), vault.NewDigest("envelope", r.Envelope)
	commitment := vault.Opening{Salt: r.Salt, Payload: slices.Concat(octets[:], envelope[:])}.Commit(vault.LeafIntake)
	var err error
	r.Leaf, err = a.Append(vault.Leaf{Type: vault.LeafIntake, Time: now, Subject: r.ID, Public: vault.IntakePublic(body, digests), Commitment: commitment})
	a.Records = append(a.Records, r)
	return err
}

// An Order is what a case is to be about.
type Order struct {
	Key        *escrow.Key
	Epoch      *escrow.Epoch
	Custodians []string
	Class      uint16
	Requester  string
	Basis      string
	Opened     time.Time
	Life       time.Duration
	First      escrow.Month
	Last       escrow.Month
	Known      []int64 // sizes of the checkpoints that officers saw last
}

// A Case is a case as the gateway and the station have it.
type Case struct {
	File    escrow.CaseFile
	CaseKey escrow.CaseKey
	Signing escrow.SigningKey // the requester's
	Entries []Entry

	slipped *Record // an entry that is no record of the archive's
}

// record is where an entry's wrap is.
func (a *Archive) record(c *Case, n int) *Record {
	if i := c.Entries[n].Record; i < len(a.Records) {
		return &a.Records[i]
	}
	return c.slipped
}

// An Entry says where an entry's wrap is.
type Entry struct{ Record, Wrap int }

// Open makes a case over all wraps of some custodians, by a requester with a key of his own, and writes its leaf.
func (a *Archive) Open(o Order) (*Case, error) {
	c, m, err := a.manifest(o)
	if err != nil {
		return nil, err
	}
	requester, err := escrow.NewSigningKey(random(ed25519.SeedSize))
	if err != nil {
		return nil, err
	}
	m.RequesterKey, c.Signing = requester.Public(), requester
	if c.File.Manifest, err = escrow.NewManifest(*m); err != nil {
		return nil, err
	}
	digest := c.File.Manifest.Digest()
	c.File.Request, err = escrow.Statement{Kind: escrow.Request, Time: o.Opened, Subject: digest, Size: m.LogSize, Root: m.LogRoot}.Sign(requester)
	if err != nil {
		return nil, err
	}
	if c.File.CaseIndex, err = a.Append(vault.Leaf{Type: vault.LeafCaseOpened, Time: o.Opened, Subject: m.Case, Public: digest}); err != nil {
		return nil, err
	}
	c.File.Known, c.File.Size = o.Known, int64(len(a.Leaves))
	c.File.Checkpoint, err = a.Checkpoint()
	return c, err
}

func (a *Archive) manifest(o Order) (*Case, *escrow.Manifest, error) {
	c := new(Case)
	var err error
	if c.CaseKey, err = escrow.NewCaseKey(o.Key.Suite()); err != nil {
		return nil, nil, err
	}
	size := int64(len(a.Leaves))
	root, err := tlog.TreeHash(size, a)
	if err != nil {
		return nil, nil, err
	}
	m := &escrow.Manifest{Suite: o.Key.Suite(), Purpose: o.Key.Purpose, Case: vault.RandomID(), Archive: a.ID, Key: o.Key.ID(), Epoch: o.Epoch.Digest(),
		Opened: o.Opened.Truncate(time.Second), Expires: o.Opened.Add(o.Life).Truncate(time.Second), First: o.First, Last: o.Last, Requester: o.Requester, Basis: o.Basis,
		CaseKey: c.CaseKey.Public(), LogOrigin: audit.Origin(a.ID, 0), LogSize: uint64(size), LogRoot: root, Classes: []uint16{o.Class}}
	names := map[escrow.Custodian]escrow.CustodianName{}
	for _, address := range o.Custodians {
		n := a.Custodian(address)
		id := escrow.CustodianOf(n.Salt, address)
		names[id] = n
		m.Custodians = append(m.Custodians, id)
	}
	slices.SortFunc(m.Custodians, func(a, b escrow.Custodian) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range m.Custodians { // as the manifest has them
		c.File.Custodians = append(c.File.Custodians, names[id])
	}
	return c, m, a.choose(c, m)
}

// choose finds the entries.
func (a *Archive) choose(c *Case, m *escrow.Manifest) error {
	type found struct {
		escrow.Entry
		at Entry
	}
	var all []found
	for i, r := range a.Records {
		for j, octets := range r.Wraps {
			w, err := escrow.ParseWrap(octets)
			if err != nil {
				return err
			}
			l := w.Label
			if slices.Contains(m.Custodians, l.Custodian) && slices.Contains(m.Classes, l.Class) && l.Month >= m.First && l.Month <= m.Last {
				all = append(all, found{escrow.Entry{Leaf: uint64(r.Leaf), Wrap: w.Digest()}, Entry{i, j}})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.Leaf != b.Leaf {
			return int(a.Leaf) - int(b.Leaf)
		}
		return bytes.Compare(a.Wrap[:], b.Wrap[:])
	})
	for _, f := range all {
		m.Entries, c.Entries = append(m.Entries, f.Entry), append(c.Entries, f.at)
	}
	return nil
}

// WriteBundle writes what the officers get.
func (a *Archive) WriteBundle(ctx context.Context, w io.Writer, c *Case) error {
	return c.File.WriteBundle(ctx, w, a, func(n int) ([]vault.Digest, []byte, error) {
		r := a.record(c, n)
		var digests []vault.Digest
		for _, octets := range r.Wraps {
			digests = append(digests, vault.NewDigest("wrap", octets))
		}
		slices.SortFunc(digests, func(a, b vault.Digest) int { return bytes.Compare(a[:], b[:]) })
		return digests, r.Wraps[c.Entries[n].Wrap], nil
	})
}

// x25519 is the curve of the case keys of the R255 suite.
func x25519() ecdh.Curve { return ecdh.X25519() }

// A file is an answer on disk.
type file string

func (f file) Open() (io.ReadCloser, error) { return os.Open(string(f)) }

// ErrDiffers is returned when what comes out is not what went in.
var ErrDiffers = errors.New("testescrow: an opened message is not the one that was sealed")

// Combine opens a case with the answers in files, and compares every message octet by octet.
func (a *Archive) Combine(ctx context.Context, k *escrow.Key, e *escrow.Epoch, c *Case, answers ...string) (*escrow.OpenReport, error) {
	var list []escrow.Answer
	for _, name := range answers {
		list = append(list, file(name))
	}
	s := escrow.Station{Key: k, Epoch: e, Manifest: c.File.Manifest, CaseKey: c.CaseKey}
	return s.Open(ctx, list, func(n int) ([]byte, error) { return a.record(c, n).Wraps[c.Entries[n].Wrap], nil },
		func(o escrow.Opened) error {
			r := a.record(c, o.Entry)
			plain, err := vault.OpenOctets(o.Key, vault.PartBody, r.ID[:], r.Sealed)
			if err != nil {
				return err
			}
			if !bytes.Equal(plain, r.Plain) {
				return ErrDiffers
			}
			return nil
		})
}

// A witness cosigns whatever it is given: C2SP tlog-cosignature.
type witness struct{ key ed25519.PrivateKey }

const witnessName = "witness.test"

func (w witness) public() []byte { return append([]byte{4}, w.key.Public().(ed25519.PublicKey)...) }

func (w witness) verifier() string {
	return fmt.Sprintf("%s+%08x+%s", witnessName, w.KeyHash(), base64.StdEncoding.EncodeToString(w.public()))
}

func (witness) Name() string { return witnessName }

func (w witness) KeyHash() uint32 {
	sum := sha256.Sum256([]byte(witnessName + "\n" + string(w.public())))
	return binary.BigEndian.Uint32(sum[:])
}

func (w witness) Sign(msg []byte) ([]byte, error) {
	now := time.Now().Unix()
	sig := ed25519.Sign(w.key, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", now, msg)))
	return append(binary.BigEndian.AppendUint64(nil, uint64(now)), sig...), nil
}

// Addresses makes n addresses of a domain.
func Addresses(n int, domain string) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("custodian%02d@%s", i, strings.ToLower(domain)))
	}
	return list
}

package testescrow

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// Officers are those of one escrow key, all in this process, after a ceremony.
type Officers struct {
	Key          *escrow.Key
	Epoch        *escrow.Epoch
	Attestations []*escrow.Statement

	signing map[uint16]escrow.SigningKey
	shares  []escrow.Share
}

// NewOfficers holds a ceremony: n officers, of whom a quorum opens.
func NewOfficers(p escrow.Purpose, organisation string, quorum, n int, now time.Time) (*Officers, error) {
	o := &Officers{signing: map[uint16]escrow.SigningKey{}}
	c := escrow.Ceremony{Suite: escrow.R255, Purpose: p, Organisation: organisation, Quorum: quorum, Now: now}
	for i := range n {
		k, err := escrow.NewSigningKey(random(ed25519.SeedSize))
		if err != nil {
			return nil, err
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		c.Officers = append(c.Officers, escrow.Officer{Person: fmt.Sprintf("officer%d@%s", i+1, organisation), Key: k.Public(), Recipient: id.Recipient().String()})
		o.signing[uint16(i+1)] = k
	}
	dealt, err := c.Deal()
	if err != nil {
		return nil, err
	}
	o.Key, o.Epoch, o.shares = dealt.Key, dealt.Epoch, dealt.Shares
	for _, x := range o.Epoch.Officers {
		s, err := escrow.Statement{Kind: escrow.AttestShare, Index: x.Index, Time: now, Subject: o.Epoch.Digest()}.Sign(o.signing[x.Index])
		if err != nil {
			return nil, err
		}
		o.Attestations = append(o.Attestations, s)
	}
	return o, nil
}

// A VaultCase is a case over records of a vault.
type VaultCase struct {
	Vault      *vault.Vault
	Custodians []escrow.CustodianName
	Classes    []uint16
	First      escrow.Month
	Last       escrow.Month
	Entries    []escrow.Entry
	Wrap       func(n int) (all []vault.Digest, det1 []byte, err error) // of an entry, in the order of Entries once they are sorted
	Now        time.Time
}

// Open takes a case from its manifest to the keys that come out, by the officers given: their own review of the bundle included.
func (o *Officers) Open(ctx context.Context, c VaultCase, visit func(escrow.Opened) error, officers ...uint16) (*escrow.OpenReport, error) {
	slices.SortFunc(c.Entries, func(a, b escrow.Entry) int {
		return cmp.Or(cmp.Compare(a.Leaf, b.Leaf), bytes.Compare(a.Wrap[:], b.Wrap[:]))
	})
	key, err := escrow.NewCaseKey(o.Key.Suite())
	if err != nil {
		return nil, err
	}
	file, trust, err := o.file(ctx, c, key)
	if err != nil {
		return nil, err
	}
	var bundle bytes.Buffer
	if err := file.WriteBundle(ctx, &bundle, vaultLog{c.Vault}, c.Wrap); err != nil {
		return nil, err
	}
	var answers []escrow.Answer
	for _, i := range officers {
		a, err := o.Answer(ctx, bundle.Bytes(), trust, c.Now, i)
		if err != nil {
			return nil, err
		}
		answers = append(answers, octets(a))
	}
	s := escrow.Station{Key: o.Key, Epoch: o.Epoch, Manifest: file.Manifest, CaseKey: key}
	return s.Open(ctx, answers, func(n int) ([]byte, error) {
		_, det1, err := c.Wrap(n)
		return det1, err
	}, visit)
}

// file makes the case, with its leaf.
func (o *Officers) file(ctx context.Context, c VaultCase, key escrow.CaseKey) (escrow.CaseFile, escrow.Trust, error) {
	var file escrow.CaseFile
	fail := func(err error) (escrow.CaseFile, escrow.Trust, error) { return escrow.CaseFile{}, escrow.Trust{}, err }
	logKey, err := audit.VaultKey(ctx, c.Vault)
	if err != nil {
		return fail(err)
	}
	tree, _, err := checkpoint(ctx, c.Vault, logKey)
	if err != nil {
		return fail(err)
	}
	requester, err := escrow.NewSigningKey(random(ed25519.SeedSize))
	if err != nil {
		return fail(err)
	}
	m := escrow.Manifest{Suite: o.Key.Suite(), Purpose: o.Key.Purpose, Case: vault.NewID(c.Now), Archive: c.Vault.Archive(), Key: o.Key.ID(), Epoch: o.Epoch.Digest(),
		Opened: c.Now.Truncate(time.Second), Expires: c.Now.Add(time.Hour).Truncate(time.Second), First: c.First, Last: c.Last, Requester: "rita@test.example", RequesterKey: requester.Public(),
		Basis: "a test's order", CaseKey: key.Public(), LogOrigin: tree.Origin, LogSize: uint64(tree.Size), LogRoot: tree.Root, Classes: c.Classes, Entries: c.Entries}
	names := map[escrow.Custodian]escrow.CustodianName{}
	for _, n := range c.Custodians {
		id := escrow.CustodianOf(n.Salt, n.Address)
		names[id] = n
		m.Custodians = append(m.Custodians, id)
	}
	slices.SortFunc(m.Custodians, func(a, b escrow.Custodian) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range m.Custodians {
		file.Custodians = append(file.Custodians, names[id])
	}
	if file.Manifest, err = escrow.NewManifest(m); err != nil {
		return fail(err)
	}
	digest := file.Manifest.Digest()
	if file.Request, err = (escrow.Statement{Kind: escrow.Request, Time: c.Now, Subject: digest, Size: m.LogSize, Root: m.LogRoot}).Sign(requester); err != nil {
		return fail(err)
	}
	row := vault.Case{ID: m.Case, State: vault.CaseSubmitted, Opened: m.Opened, Expires: m.Expires, Octets: []byte("{}")}
	if err := c.Vault.OpenCase(ctx, row, vault.LegalHold{ID: vault.NewID(c.Now)}, []byte("asked"), c.Now); err != nil {
		return fail(err)
	}
	if err := c.Vault.ChangeCase(ctx, m.Case, c.Now, func(*vault.Case) ([]vault.CaseLeaf, error) {
		return []vault.CaseLeaf{{Type: vault.LeafCaseOpened, Public: digest, Payload: file.Request.Octets()}}, nil
	}); err != nil {
		return fail(err)
	}
	leaves, err := c.Vault.CaseLeaves(ctx, m.Case)
	if err != nil {
		return fail(err)
	}
	file.CaseIndex = leaves[len(leaves)-1].Index
	tree, file.Checkpoint, err = checkpoint(ctx, c.Vault, logKey)
	if err != nil {
		return fail(err)
	}
	file.Size = tree.Size
	return file, escrow.Trust{Log: logKey.Verifier(), Witnesses: []string{caseWitness.verifier()}}, nil
}

// caseWitness cosigns what a VaultCase is about.
var caseWitness = witness{ed25519.NewKeyFromSeed(random(ed25519.SeedSize))}

// checkpoint is the log's state, signed by its key and cosigned.
func checkpoint(ctx context.Context, v *vault.Vault, key *audit.Key) (audit.Tree, []byte, error) {
	size, err := v.LogSize(ctx)
	if err != nil {
		return audit.Tree{}, nil, err
	}
	root, err := tlog.TreeHash(size, tlog.HashReaderFunc(func(i []int64) ([]tlog.Hash, error) { return v.LogHashes(ctx, i) }))
	if err != nil {
		return audit.Tree{}, nil, err
	}
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", key.Name(), size, root)}, key, caseWitness)
	return audit.Tree{Origin: key.Name(), Size: size, Root: root}, signed, err
}

// Answer is an officer's answer to a bundle, after his whole review.
func (o *Officers) Answer(ctx context.Context, bundle []byte, trust escrow.Trust, now time.Time, i uint16) ([]byte, error) {
	var messages bytes.Buffer
	r := escrow.Reviewer{Key: o.Key, Epoch: o.Epoch, Trust: trust, Now: func() time.Time { return now }}
	v, err := r.Review(ctx, bytes.NewReader(bundle))
	if err != nil {
		return nil, err
	}
	st, err := escrow.Approve(ctx, v, o.Key, o.Epoch, o.shares[i-1], o.signing[i], now, bytes.NewReader(bundle), func(m []byte) error {
		messages.Write(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(st.Octets(), messages.Bytes()...), nil
}

// octets are an answer in memory.
type octets []byte

func (o octets) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o)), nil }

// vaultLog is escrow.Prover on a vault.
type vaultLog struct{ v *vault.Vault }

func (l vaultLog) Leaf(ctx context.Context, i int64) ([]byte, error) {
	leaves, err := l.v.LogLeaves(ctx, i, 1)
	if err != nil || len(leaves) != 1 {
		return nil, fmt.Errorf("testescrow: leaf %d: %w", i, err)
	}
	return leaves[0], nil
}

func (l vaultLog) ProveLeaf(ctx context.Context, size, i int64) ([]tlog.Hash, error) {
	return audit.ProveLeaf(ctx, l.v, size, i)
}

func (l vaultLog) ProveGrowth(ctx context.Context, old, size int64) ([]tlog.Hash, error) {
	return audit.ProveGrowth(ctx, l.v, old, size)
}

// Transcript is a ceremony's.
func (o *Officers) Transcript() ([]byte, error) {
	dealer, err := escrow.NewSigningKey(random(ed25519.SeedSize))
	if err != nil {
		return nil, err
	}
	t, err := escrow.NewTranscript("a test", o.Key.Created, o.Key, o.Epoch, dealer)
	if err != nil {
		return nil, err
	}
	return []byte(t.Text()), nil
}

// Sealer seals to their key.
func (o *Officers) Sealer() (*escrow.Sealer, error) {
	return escrow.NewSealer(o.Key, []*escrow.Epoch{o.Epoch}, o.Attestations)
}

// Sign has an officer sign a statement.
func (o *Officers) Sign(i uint16, s escrow.Statement) (*escrow.Statement, error) {
	s.Index = i
	return s.Sign(o.signing[i])
}

// Approve has an officer review and approve a case of an archive, whose log gets the leaves of his answer.
func (o *Officers) Approve(ctx context.Context, a *Archive, c *Case, i uint16, now time.Time) (*escrow.Statement, error) {
	var bundle bytes.Buffer
	if err := a.WriteBundle(ctx, &bundle, c); err != nil {
		return nil, err
	}
	trust, err := a.Trust()
	if err != nil {
		return nil, err
	}
	answer, err := o.Answer(ctx, bundle.Bytes(), trust, now, i)
	if err != nil {
		return nil, err
	}
	st, err := escrow.ParseStatement(answer[:escrow.StatementSize])
	if err != nil {
		return nil, err
	}
	for _, l := range []vault.Leaf{{Type: vault.LeafAnswer, Public: st.LeafDigest()}, {Type: vault.LeafPartials, Public: st.Extra}} {
		l.Time, l.Subject = now, c.File.Manifest.Case
		if _, err := a.Append(l); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// Files writes what a ceremony and its officers hand to a gateway into a folder: the transcript, the records and every statement, by
// its name.
func (o *Officers) Files(dir string) (transcript string, statements []string, err error) {
	text, err := o.Transcript()
	if err != nil {
		return "", nil, err
	}
	transcript = filepath.Join(dir, "transcript.txt")
	err = os.WriteFile(transcript, text, 0o600)
	for _, s := range o.Attestations {
		name := filepath.Join(dir, fmt.Sprintf("attest-%d-%d.deg1", o.Epoch.Number, s.Index))
		err = errors.Join(err, os.WriteFile(name, s.Octets(), 0o600))
		statements = append(statements, name)
	}
	return transcript, statements, err
}

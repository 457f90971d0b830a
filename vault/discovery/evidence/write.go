package evidence

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// A Source is what a package is made of: a part of discovery.Source.
type Source interface {
	Items() []discovery.Item
	Open(ctx context.Context, number int) (io.ReadCloser, error)
	Exhibits(ctx context.Context, number int) ([]discovery.Exhibit, error)
	OpenExhibit(ctx context.Context, x discovery.Exhibit) (io.ReadCloser, error)
	Intakes(ctx context.Context, number int) ([]discovery.Intake, error)
	Case() *discovery.CaseRecord
}

// An Input is what a package needs beside its source.
type Input struct {
	Witnesses  []string               // verifier keys of those who cosigned the checkpoint, one at least
	Transcript []byte                 // of the ceremony; may be nil
	Leaves     []discovery.ProvedLeaf // more of the case's leaves than the case record has; may be nil
	Custody    []Event                // what the station did: time, who, what; without leaves
	Requester  escrow.SigningKey      // signs the package
	Software   string                 // name and version
	Now        time.Time
	Progress   func(done, total int) // may be nil
}

// ErrRewrapped is returned for a message whose key was sealed anew to another escrow key: the package's form has no place for the leaves that
// lead from there to the message's intake.
var ErrRewrapped = errors.New("evidence: a message was re-wrapped under a new escrow key, and a package cannot prove such a one yet: export it in another format")

// Name is a package's, without ".zip".
func Name(m *escrow.Manifest) string { return "evidence-" + m.Case.String() }

// Write writes a package. Memory: the case's manifest, the tag manifests and one message's proofs. What Write makes passes
// Verify: the caller is best advised to see.
func Write(ctx context.Context, w io.Writer, src Source, in Input) error {
	c := src.Case()
	if in.Requester.Public() != c.Head.Manifest.RequesterKey {
		return errors.New("evidence: the signing key is not the requester's of the case")
	}
	if len(in.Witnesses) == 0 {
		return errors.New("evidence: no witness: a checkpoint that nobody cosigned proves nothing against the host that signed it")
	}
	b, err := newBag(w, Name(c.Head.Manifest), in.Now)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	defer b.close()
	p := &packing{ctx: ctx, bag: b, src: src, in: in, c: c}
	for _, step := range []func() error{p.head, p.custody, p.escrow, p.log, p.messages, p.withheld, p.finish} {
		if err := step(); err != nil {
			return fmt.Errorf("evidence: %w", err)
		}
	}
	return nil
}

// A packing is a package in the making. Its steps are in the order of the files' names.
type packing struct {
	ctx  context.Context
	bag  *bag
	src  Source
	in   Input
	c    *discovery.CaseRecord
	seen map[uint64]string // leaves that are told of: "" for those of a message, else why not
}

func (p *packing) put(name string, octets []byte) error {
	_, err := p.bag.copy(name, bytes.NewReader(octets))
	return err
}

func (p *packing) document(name string, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return p.put(name, b)
}

// leaves are the case's, but the one that opened it, ascending.
func (p *packing) leaves() []discovery.ProvedLeaf {
	list := slices.Concat(p.c.Leaves, p.in.Leaves)
	slices.SortFunc(list, func(a, b discovery.ProvedLeaf) int { return compare(a.Index, b.Index) })
	list = slices.CompactFunc(list, func(a, b discovery.ProvedLeaf) bool { return a.Index == b.Index })
	return slices.DeleteFunc(list, func(l discovery.ProvedLeaf) bool { return l.Index == p.c.Head.CaseIndex })
}

// answers are the officers', by index.
func (p *packing) answers() []*escrow.Statement {
	return slices.SortedFunc(slices.Values(p.c.Answers), func(a, b *escrow.Statement) int { return int(a.Index) - int(b.Index) })
}

func (p *packing) head() error {
	h := &p.c.Head
	if err := p.put(fileReadme, readme(p.c)); err != nil {
		return err
	}
	for _, a := range p.answers() {
		if err := p.put(fmt.Sprintf("%s%05d.deg1", folderAnswers, a.Index), a.Octets()); err != nil {
			return err
		}
	}
	var names []custodian
	for i, n := range h.Custodians {
		names = append(names, custodian{hex.EncodeToString(h.Manifest.Custodians[i][:]), n.Salt, n.Address})
	}
	if err := p.document(fileCustodians, names); err != nil {
		return err
	}
	return errors.Join(p.put(fileCase, h.Manifest.Octets()), p.put(fileRequest, h.Request.Octets()))
}

func (p *packing) custody() error {
	events, err := documented(&p.c.Head, p.epoch(), p.answers(), p.leaves())
	if err != nil {
		return err
	}
	for _, e := range p.in.Custody {
		if e.Leaf != nil {
			return errors.New("a leaf of the custody record comes with its proof, in Input.Leaves")
		}
		e.Time = e.Time.UTC().Truncate(time.Second)
		events = append(events, e)
	}
	events = append(events, Event{Time: p.in.Now, Who: p.c.Head.Manifest.Requester, What: "wrote this package with " + p.in.Software})
	slices.SortStableFunc(events, func(a, b Event) int { return a.Time.Compare(b.Time) })
	b, err := chain(events)
	if err != nil {
		return err
	}
	return p.put(fileCustody, b)
}

func (p *packing) epoch() *escrow.Epoch { return p.c.Epochs[len(p.c.Epochs)-1] }

func (p *packing) escrow() error {
	for _, s := range slices.SortedFunc(slices.Values(p.c.Attestations), func(a, b *escrow.Statement) int { return int(a.Index) - int(b.Index) }) {
		if err := p.put(fmt.Sprintf("%s%05d.deg1", folderAttest, s.Index), s.Octets()); err != nil {
			return err
		}
	}
	for _, e := range p.c.Epochs {
		if err := p.put(epochFile(int(e.Number)), e.Octets()); err != nil {
			return err
		}
	}
	if err := p.put(fileKey, p.c.Key.Octets()); err != nil || p.in.Transcript == nil {
		return err
	}
	return p.put(fileTranscript, p.in.Transcript)
}

func epochFile(n int) string { return fmt.Sprintf("%s%010d.dee1", folderEpoch, n) }

func (p *packing) log() error {
	h := &p.c.Head
	proofs := caseProofs{Opened: leafProof{h.CaseIndex, h.CaseLeaf, hashes(h.CaseProof)}, Consistency: []consistency{}}
	for _, c := range h.Consistency {
		proofs.Consistency = append(proofs.Consistency, consistency{c.Size, hashes(c.Proof)})
	}
	if err := p.document(fileProofs, proofs); err != nil {
		return err
	}
	var keys strings.Builder
	fmt.Fprintf(&keys, "log %s\n", p.c.LogKey)
	for _, w := range p.in.Witnesses {
		fmt.Fprintf(&keys, "witness %s\n", w)
	}
	leaves := []leafProof{}
	for _, l := range p.leaves() {
		leaves = append(leaves, leafProofOf(l))
	}
	return errors.Join(p.put(fileCheckpoint, h.Note), p.put(fileKeys, []byte(keys.String())), p.document(fileLeaves, leaves))
}

func (p *packing) messages() error {
	p.seen = map[uint64]string{}
	items := p.src.Items()
	for n, item := range items {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if err := p.message(item); err != nil {
			return fmt.Errorf("item %d: %w", item.Number, err)
		}
		if p.in.Progress != nil {
			p.in.Progress(n+1, len(items))
		}
	}
	return nil
}

func (p *packing) message(item discovery.Item) error {
	intakes, err := p.src.Intakes(p.ctx, item.Number)
	if err != nil {
		return err
	}
	for _, i := range intakes {
		if l, err := vault.ParseLeaf(i.Leaf.Octets); err == nil && l.Type == vault.LeafRewrap {
			return ErrRewrapped
		}
	}
	if item.Withheld() {
		for _, i := range intakes {
			p.seen[i.Leaf.Index] = strings.Join(item.Marks, ", ")
		}
		return nil
	}
	m := message{Number: item.Number, Custodians: nonNil(item.Custodians), Marks: nonNil(item.Marks), Records: []record{}, Exhibits: []exhibit{}}
	for _, i := range intakes {
		p.seen[i.Leaf.Index] = ""
		m.Records = append(m.Records, recordOf(i, item))
	}
	folder := fmt.Sprintf("%s%07d/", folderMessages, item.Number)
	if m.Exhibits, err = p.exhibits(folder, item.Number); err != nil {
		return err
	}
	body, err := p.src.Open(p.ctx, item.Number)
	if err != nil {
		return err
	}
	m.Octets, err = p.bag.copy(folder+nameMessage, body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	return p.document(folder+nameProof, m)
}

func nonNil(list []string) []string { return append([]string{}, list...) }

func recordOf(i discovery.Intake, item discovery.Item) record {
	r := record{Record: i.Record, Leaf: leafProofOf(i.Leaf), Body: hexDigest(i.Body), DET1: slices.Clone(i.Named), Salt: i.Salt, Envelope: i.Envelope, Events: []event{}, Recipients: []string{}}
	for _, e := range i.Events {
		r.Events = append(r.Events, event{leafProofOf(e.Leaf), e.Salt, e.Payload})
	}
	for _, w := range i.Wraps {
		r.Wraps = append(r.Wraps, hexDigest(w))
	}
	slices.SortFunc(r.DET1, bytes.Compare)
	slices.SortFunc(r.Wraps, func(a, b hexDigest) int { return bytes.Compare(a[:], b[:]) })
	for _, e := range item.Envelopes {
		if e.Record == i.Record {
			r.From, r.Recipients, r.Received, r.Source, r.Direction = e.From, nonNil(e.Recipients), e.Received.UTC(), e.Source, e.Direction
		}
	}
	return r
}

func (p *packing) exhibits(folder string, number int) ([]exhibit, error) {
	list := []exhibit{}
	all, err := p.src.Exhibits(p.ctx, number)
	if err != nil {
		return nil, err
	}
	type named struct {
		exhibit
		from discovery.Exhibit
	}
	var sorted []named
	for _, x := range all {
		sorted = append(sorted, named{exhibit{x.Record, x.N, uint8(x.Kind), x.Made.UTC(), 0, hexDigest(x.Digest), leafProofOf(x.Leaf)}, x})
	}
	slices.SortFunc(sorted, func(a, b named) int { return strings.Compare(a.file(), b.file()) })
	for _, x := range sorted {
		r, err := p.src.OpenExhibit(p.ctx, x.from)
		if err != nil {
			return nil, err
		}
		x.Octets, err = p.bag.copy(folder+x.file(), r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		list = append(list, x.exhibit)
	}
	return list, nil
}

// withheld lists every record of the case that is in no message, and why.
func (p *packing) withheld() error {
	var out bytes.Buffer
	last := uint64(0)
	for n, e := range p.c.Head.Manifest.Entries {
		if n > 0 && e.Leaf == last {
			continue
		}
		last = e.Leaf
		why, told := p.seen[e.Leaf]
		switch {
		case !told:
			why = notOpened
		case why == "":
			continue
		}
		b, err := line(withheld{e.Leaf, why})
		if err != nil {
			return err
		}
		out.Write(b)
	}
	return p.put(fileWithheld, out.Bytes())
}

func (p *packing) finish() error {
	m := p.c.Head.Manifest
	cp, err := escrow.ReadCheckpoint(p.c.Head.Note)
	if err != nil {
		return err
	}
	info := fmt.Sprintf("Bag-Software-Agent: %s\nBagging-Date: %s\nExternal-Identifier: %v\nPayload-Oxum: %d.%d\n",
		p.in.Software, p.in.Now.UTC().Format(time.DateOnly), m.Case, p.bag.octets, p.bag.files)
	if err := errors.Join(p.bag.tag(fileInfo, strings.NewReader(info)), p.bag.tag(fileBagit, strings.NewReader(bagit)), p.bag.manifests()); err != nil {
		return err
	}
	st, err := escrow.Statement{Kind: escrow.Export, Time: p.in.Now, Subject: m.Digest(), Extra: vault.NewDigest("export", p.bag.tags[1]),
		Size: uint64(cp.Size), Root: cp.Root}.Sign(p.in.Requester)
	if err != nil {
		return err
	}
	return p.bag.end(st.Octets())
}

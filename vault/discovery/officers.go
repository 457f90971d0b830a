package discovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// selection reads the set of a case.
func (d *Desk) selection(ctx context.Context, id vault.ID) (*Selection, error) {
	b, err := d.get(ctx, id, selectionPart)
	if err != nil {
		return nil, err
	}
	return ParseSelection(b)
}

// Submit takes the requester's signed request for the set that was selected, and enters the case in the log.
func (d *Desk) Submit(ctx context.Context, id vault.ID, request *escrow.Statement) error {
	if _, err := d.working(ctx, id, vault.CaseSelected); err != nil {
		return err
	}
	sel, err := d.selection(ctx, id)
	if err != nil {
		return err
	}
	m := sel.Manifest
	key, err := d.keyOf(ctx, m.Key)
	if err != nil {
		return err
	}
	if err := m.Check(key.Key, key.Epoch(), d.Now()); err != nil {
		return err
	}
	if err := escrow.CheckRequest(m, request); err != nil {
		return err
	}
	if err := d.put(ctx, id, requestPart, request.Octets()); err != nil {
		return err
	}
	digest := m.Digest()
	return d.change(ctx, id, []vault.CaseState{vault.CaseSelected}, func(c *Case) ([]vault.CaseLeaf, error) {
		if c.About.Selected.Digest != hex.EncodeToString(digest[:]) {
			return nil, fmt.Errorf("discovery: case %v: %w: another set was selected", id, vault.ErrChanged)
		}
		c.state = vault.CaseSubmitted
		return []vault.CaseLeaf{{Type: vault.LeafCaseOpened, Public: digest, Payload: request.Octets()}}, nil
	})
}

// WriteBundle writes what the officers get, under a checkpoint that a witness has cosigned. Known are sizes of the log that officers
// may have seen last, beside those that the desk knows of.
func (d *Desk) WriteBundle(ctx context.Context, id vault.ID, w io.Writer, known []int64) error {
	if _, err := d.working(ctx, id, vault.CaseSubmitted, vault.CaseGranted); err != nil {
		return err
	}
	f, leaves, err := d.caseFile(ctx, id, known)
	if err != nil {
		return err
	}
	if f.Checkpoint, f.Size, err = d.cosigned(ctx, leaves[len(leaves)-1].Index); err != nil {
		return err
	}
	if err := d.writeBundle(ctx, f, w); err != nil {
		return err
	}
	return d.change(ctx, id, nil, func(c *Case) ([]vault.CaseLeaf, error) {
		if !slices.Contains(c.About.Bundles, f.Size) {
			c.About.Bundles = append(c.About.Bundles, f.Size)
		}
		return nil, nil
	})
}

// maxKnown bounds the consistency proofs of a bundle.
const maxKnown = 250

// caseFile is what a bundle is made of, its checkpoint excepted, and the leaves of the case so far.
func (d *Desk) caseFile(ctx context.Context, id vault.ID, known []int64) (escrow.CaseFile, []vault.CaseLeaf, error) {
	fail := func(err error) (escrow.CaseFile, []vault.CaseLeaf, error) { return escrow.CaseFile{}, nil, err }
	sel, err := d.selection(ctx, id)
	if err != nil {
		return fail(err)
	}
	b, err := d.get(ctx, id, requestPart)
	if err != nil {
		return fail(err)
	}
	f := escrow.CaseFile{Manifest: sel.Manifest, Custodians: sel.Custodians, CaseIndex: -1, Known: known}
	if f.Request, err = escrow.ParseStatement(b); err != nil {
		return fail(err)
	}
	all, err := d.Vault.CaseLeaves(ctx, id)
	if err != nil {
		return fail(err)
	}
	var leaves []vault.CaseLeaf
	for _, l := range all {
		switch l.Type {
		case vault.LeafCaseOpened:
			f.CaseIndex = l.Index
			leaves = append(leaves, l)
		case vault.LeafAnswer, vault.LeafPartials:
			leaves = append(leaves, l)
		}
	}
	if f.CaseIndex < 0 {
		return fail(fmt.Errorf("discovery: case %v: %w: its leaf is gone", id, vault.ErrCorrupt))
	}
	cases, err := d.Cases(ctx)
	if err != nil {
		return fail(err)
	}
	for _, c := range slices.Backward(cases) { // what an officer saw last is a checkpoint of a bundle
		f.Known = append(f.Known, c.About.Bundles...)
	}
	f.Known = f.Known[:min(len(f.Known), maxKnown)]
	return f, leaves, nil
}

// cosigned is a checkpoint that covers a leaf and that a witness has cosigned; it is made when there is none.
func (d *Desk) cosigned(ctx context.Context, leaf int64) (signed []byte, size int64, err error) {
	if len(d.Witnesses) == 0 {
		return nil, 0, refusef("the log has no witness, and officers believe none without: set audit.witnesses")
	}
	if _, err := d.Log.Checkpoint(ctx, d.Now()); err != nil {
		return nil, 0, err
	}
	cerr := d.Cosign(ctx)
	for after := leaf; ; {
		list, err := d.Vault.Checkpoints(ctx, after, 100)
		if err != nil {
			return nil, 0, err
		}
		if len(list) == 0 {
			break
		}
		for _, c := range list {
			after = c.Size
			if len(audit.Cosigned(c.Note, d.Witnesses)) > 0 {
				signed, size = c.Note, c.Size
			}
		}
	}
	if signed == nil {
		return nil, 0, errors.Join(errors.New("discovery: no witness has cosigned the log with this case in it: try again when one answers"), cerr)
	}
	return signed, size, nil
}

func (d *Desk) writeBundle(ctx context.Context, f escrow.CaseFile, w io.Writer) error {
	ids, err := d.records(ctx, f.Manifest.Case)
	if err != nil {
		return err
	}
	return f.WriteBundle(ctx, w, newProver(d.Vault), func(n int) ([]vault.Digest, []byte, error) {
		wrap, all, err := d.Archive.Wrap(ctx, ids[n], f.Manifest.Entries[n].Wrap)
		slices.SortFunc(all, func(a, b vault.Digest) int { return bytes.Compare(a[:], b[:]) })
		return all, wrap, err
	})
}

// records are the records of a case's entries, in the manifest's order.
func (d *Desk) records(ctx context.Context, id vault.ID) ([]vault.ID, error) {
	b, err := d.get(ctx, id, recordsPart)
	if err != nil {
		return nil, err
	}
	ids := make([]vault.ID, len(b)/len(vault.ID{}))
	for i := range ids {
		ids[i] = vault.ID(b[i*len(vault.ID{}):])
	}
	return ids, nil
}

// A prover proves leaves of the vault's log. Neighbours share most of their proofs, so what was read is remembered.
type prover struct {
	*vault.Vault
	hashes map[int64]tlog.Hash
}

// maxRemembered bounds what a prover remembers, in hashes.
const maxRemembered = 1 << 18

func newProver(v *vault.Vault) *prover { return &prover{v, map[int64]tlog.Hash{}} }

// LogHashes is the vault's, remembered.
func (p *prover) LogHashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		h, ok := p.hashes[n]
		if !ok {
			list, err := p.Vault.LogHashes(ctx, []int64{n})
			if err != nil {
				return nil, err
			}
			if h = list[0]; len(p.hashes) >= maxRemembered {
				clear(p.hashes)
			}
			p.hashes[n] = h
		}
		out[i] = h
	}
	return out, nil
}

// Leaf is a leaf's octets.
func (p *prover) Leaf(ctx context.Context, index int64) ([]byte, error) {
	list, err := p.LogLeaves(ctx, index, 1)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("discovery: leaf %d: %w", index, vault.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// ProveLeaf proves a leaf in the tree of a size.
func (p *prover) ProveLeaf(ctx context.Context, size, index int64) ([]tlog.Hash, error) {
	return audit.ProveLeaf(ctx, p, size, index)
}

// ProveGrowth proves that a smaller tree is a beginning of one.
func (p *prover) ProveGrowth(ctx context.Context, old, size int64) ([]tlog.Hash, error) {
	return audit.ProveGrowth(ctx, p, old, size)
}

// Relay takes an officer's answer: it checks that it is his and covers the case, keeps it, and enters it in the log. It can read nothing
// of the partials. From the answer of a quorum on, the case counts as opened.
func (d *Desk) Relay(ctx context.Context, id vault.ID, answer io.ReadSeeker) (*OfficerSaid, *Case, error) {
	before := []vault.CaseState{vault.CaseSubmitted, vault.CaseGranted}
	c, err := d.working(ctx, id, before...)
	if err != nil {
		return nil, nil, err
	}
	sel, err := d.selection(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	key, err := d.keyOf(ctx, sel.Manifest.Key)
	if err != nil {
		return nil, nil, err
	}
	e := key.Epoch()
	st, err := escrow.CheckAnswer(sel.Manifest, e, answer)
	if err != nil {
		return nil, nil, err
	}
	o, _ := e.Officer(st.Index)
	leaf := st.LeafDigest()
	said := &OfficerSaid{Index: st.Index, Person: o.Person, Approved: st.Kind == escrow.Approval, At: st.Time, Digest: hex.EncodeToString(leaf[:])}
	if was := c.said(st.Index); was != nil {
		if was.Digest == said.Digest {
			return was, c, nil // relayed already
		}
		return nil, nil, refusef("officer %d (%s) has answered already, and said something else", st.Index, o.Person)
	}
	if _, err := answer.Seek(0, io.SeekStart); err != nil {
		return nil, nil, err
	}
	w, err := d.Vault.CreateCaseFile(ctx, id, answerPart(st.Index))
	if err == nil {
		_, err = io.Copy(w, answer)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	if err := d.change(ctx, id, before, func(c *Case) ([]vault.CaseLeaf, error) {
		if c.said(st.Index) != nil {
			return nil, fmt.Errorf("discovery: case %v: %w: officer %d has answered", id, vault.ErrChanged, st.Index)
		}
		c.About.Answers = append(c.About.Answers, *said)
		leaves := []vault.CaseLeaf{{Type: vault.LeafAnswer, Public: leaf, Payload: st.Octets()}}
		if said.Approved {
			count := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, st.Index), uint32(len(sel.Manifest.Entries)))
			leaves = append(leaves, vault.CaseLeaf{Type: vault.LeafPartials, Public: st.Extra, Payload: count})
		}
		if c.approvals() >= e.Quorum {
			c.state = vault.CaseGranted
		}
		return leaves, nil
	}); err != nil {
		return nil, nil, err
	}
	c, err = d.Case(ctx, id)
	return said, c, err
}

func (c *Case) said(index uint16) *OfficerSaid {
	for i := range c.About.Answers {
		if c.About.Answers[i].Index == index {
			return &c.About.Answers[i]
		}
	}
	return nil
}

func (c *Case) approvals() int {
	n := 0
	for _, a := range c.About.Answers {
		if a.Approved {
			n++
		}
	}
	return n
}

// Quorum is how many officers must approve a case.
func (d *Desk) Quorum(ctx context.Context, c *Case) (int, error) {
	key, err := d.findKey(ctx, c.About.Key)
	if err != nil {
		return 0, err
	}
	return key.Epoch().Quorum, nil
}

// Close ends a case with what its station signed: that the case key, the officers' partials and what was opened are destroyed. The hold
// ends unless it is to go on.
func (d *Desk) Close(ctx context.Context, id vault.ID, closing []byte, holdGoesOn bool) (*Case, error) {
	c, err := d.Case(ctx, id)
	if err != nil {
		return nil, err
	}
	if c.state != vault.CaseSubmitted && c.state != vault.CaseGranted {
		return nil, refusef("case %v is %s: %s", id, c.state, "only a case that was before the officers is closed by its station: see --abandon")
	}
	sel, err := d.selection(ctx, id)
	if err != nil {
		return nil, err
	}
	x, err := ParseClosing(closing, sel.Manifest)
	if err != nil {
		return nil, err
	}
	var faults []byte
	for _, n := range x.Unopenable {
		faults = binary.BigEndian.AppendUint64(faults, n)
	}
	end := &Closed{At: d.Now().UTC().Truncate(time.Second), Opened: len(x.Opened), Unopenable: len(x.Unopenable)}
	if x.Export != (vault.Digest{}) {
		end.Export = hex.EncodeToString(x.Export[:])
	}
	leaves := []vault.CaseLeaf{{Type: vault.LeafOpening, Public: x.Statement.Extra, Payload: faults}}
	if x.Accesses > 0 {
		end.Access, end.Accesses = hex.EncodeToString(x.Access[:]), x.Accesses
		leaves = append(leaves, vault.CaseLeaf{Type: vault.LeafCaseRead, Payload: binary.BigEndian.AppendUint64(x.Access[:], uint64(x.Accesses))})
	}
	return d.end(ctx, id, c.state, end, holdGoesOn, append(leaves, vault.CaseLeaf{Type: vault.LeafCaseClosed, Public: x.Statement.LeafDigest(), Payload: x.Export[:]}))
}

// Abandon ends a case that nobody opened, without its station: one that was never granted.
func (d *Desk) Abandon(ctx context.Context, id vault.ID, why string, holdGoesOn bool) (*Case, error) {
	c, err := d.Case(ctx, id)
	if err != nil {
		return nil, err
	}
	switch c.state {
	case vault.CaseClosed:
		return nil, refusef("case %v is closed", id)
	case vault.CaseGranted:
		return nil, refusef("case %v was granted: its station closes it (gateway case station close)", id)
	}
	if why == "" || len(why) > escrow.MaxBasis {
		return nil, fmt.Errorf("discovery: say why in 1 to %d octets", escrow.MaxBasis)
	}
	end := &Closed{At: d.Now().UTC().Truncate(time.Second), Abandoned: why}
	return d.end(ctx, id, c.state, end, holdGoesOn, []vault.CaseLeaf{{Type: vault.LeafCaseClosed, Payload: []byte(why)}})
}

func (d *Desk) end(ctx context.Context, id vault.ID, state vault.CaseState, end *Closed, holdGoesOn bool, leaves []vault.CaseLeaf) (*Case, error) {
	var hold vault.ID
	if err := d.change(ctx, id, nil, func(c *Case) ([]vault.CaseLeaf, error) {
		if c.state != state {
			return nil, fmt.Errorf("discovery: case %v: %w", id, vault.ErrChanged)
		}
		hold = c.About.Hold
		c.About.Closed, c.About.HoldGoesOn, c.state = end, holdGoesOn, vault.CaseClosed
		return leaves, nil
	}); err != nil {
		return nil, err
	}
	if !holdGoesOn {
		why := fmt.Appendf(nil, `{"by":%q,"case":%q}`, d.By, id)
		if err := d.Vault.EndHold(ctx, hold, why, d.Now()); err != nil && !errors.Is(err, vault.ErrChanged) {
			return nil, err
		}
	}
	return d.Case(ctx, id)
}

package discovery

import (
	"context"
	"errors"
	"io"
	"time"

	"dimegate/vault"
)

// Release writes the case file for the station, once a quorum's answers were relayed: everything sealed still, with proofs under a
// checkpoint that a witness has cosigned. Progress is told of records.
func (d *Desk) Release(ctx context.Context, id vault.ID, w io.Writer, progress func(done, total int)) error {
	c, err := d.working(ctx, id, vault.CaseGranted)
	if err != nil {
		return err
	}
	f, leaves, err := d.caseFile(ctx, id, nil)
	if err != nil {
		return err
	}
	if f.Checkpoint, f.Size, err = d.cosigned(ctx, leaves[len(leaves)-1].Index); err != nil {
		return err
	}
	out, err := NewCaseFile(w, id, d.LogKey, d.Now())
	if err != nil {
		return err
	}
	key, err := d.keyOf(ctx, f.Manifest.Key)
	if err != nil {
		return err
	}
	if err := out.Key(key.Key, key.Epochs, key.Statements); err != nil {
		return err
	}
	if err := out.Bundle(func(w io.Writer) error { return d.writeBundle(ctx, f, w) }); err != nil {
		return err
	}
	p := newProver(d.Vault)
	var proved []ProvedLeaf
	for _, l := range leaves {
		if l.Type == vault.LeafCaseOpened {
			continue // the bundle has it
		}
		leaf, err := p.proved(ctx, f.Size, l.Index)
		if err != nil {
			return err
		}
		proved = append(proved, leaf)
	}
	if err := out.Leaves(proved); err != nil {
		return err
	}
	for _, a := range c.About.Answers {
		r, err := d.Vault.OpenCaseFile(ctx, id, answerPart(a.Index))
		if err != nil {
			return err
		}
		if err := out.Answer(a.Index, r); err != nil {
			return err
		}
	}
	if err := d.releaseRecords(ctx, id, out, p, f.Size, progress); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return d.change(ctx, id, nil, func(c *Case) ([]vault.CaseLeaf, error) {
		if c.About.Released.IsZero() {
			c.About.Released = d.Now().UTC().Truncate(time.Second)
		}
		return nil, nil
	})
}

func (p *prover) proved(ctx context.Context, size, index int64) (l ProvedLeaf, err error) {
	l.Index = uint64(index)
	if l.Octets, err = p.Leaf(ctx, index); err == nil {
		l.Proof, err = p.ProveLeaf(ctx, size, index)
	}
	return l, err
}

// releaseRecords writes the sealed parts of every record. One that is gone since it was selected is left out: the station names it.
func (d *Desk) releaseRecords(ctx context.Context, id vault.ID, out *CaseFileWriter, p *prover, size int64, progress func(done, total int)) error {
	ids, err := d.records(ctx, id)
	if err != nil {
		return err
	}
	done := map[vault.ID]bool{}
	for n, record := range ids {
		progress(n, len(ids))
		if done[record] {
			continue
		}
		done[record] = true
		if err := d.releaseRecord(ctx, record, out, p, size); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (d *Desk) releaseRecord(ctx context.Context, id vault.ID, out *CaseFileWriter, p *prover, size int64) error {
	a, err := d.Vault.SealedRecord(ctx, id)
	if err != nil {
		return err
	}
	r := SealedRecord{RecordInfo: RecordInfo{Record: id, Direction: a.Kind, Made: a.Made, Octets: a.Octets, EnvelopeOctets: len(a.Envelope)}, Envelope: a.Envelope}
	body, octets, err := d.Vault.SealedBody(ctx, id)
	if err != nil {
		return err
	}
	defer body.Close()
	r.Body, r.BodyOctets = body, octets
	for _, e := range a.Openings {
		if e.Index >= size { // later than the checkpoint: the next case file has it
			continue
		}
		leaf, err := p.proved(ctx, size, e.Index)
		if err != nil {
			return err
		}
		r.Events = append(r.Events, SealedEvent{leaf, e.Sealed})
	}
	if r.Chain, err = p.chain(ctx, a, size); err != nil {
		return err
	}
	if err := d.exhibits(ctx, id, &r, p, size); err != nil {
		return err
	}
	return out.Record(r)
}

// chain leads from a record's intake to the leaf of its last re-wrap; none when there was no re-wrap.
func (p *prover) chain(ctx context.Context, a vault.SealedRecord, size int64) (list []SealedEvent, err error) {
	if len(a.Rewraps) == 0 {
		return nil, nil
	}
	leaf, err := p.proved(ctx, size, a.Leaf)
	if err != nil {
		return nil, err
	}
	list = append(list, SealedEvent{Leaf: leaf})
	for _, r := range a.Rewraps {
		if r.Index >= size { // later than the checkpoint, so than the case
			break
		}
		if leaf, err = p.proved(ctx, size, r.Index); err != nil {
			return nil, err
		}
		list = append(list, SealedEvent{leaf, append(r.Opening.Salt[:], r.Opening.Payload...)})
	}
	return list, nil
}

// exhibits adds those that the checkpoint covers.
func (d *Desk) exhibits(ctx context.Context, id vault.ID, r *SealedRecord, p *prover, size int64) error {
	list, err := d.Vault.SealedExhibits(ctx, id)
	if err != nil {
		return err
	}
	for _, x := range list {
		if x.Leaf >= size {
			continue
		}
		leaf, err := p.proved(ctx, size, x.Leaf)
		if err != nil {
			return err
		}
		body, octets, err := d.Vault.OpenSealedExhibit(ctx, id, x.N)
		if err != nil {
			return err
		}
		body.Close()
		r.Exhibits = append(r.Exhibits, &exhibitReader{ctx: ctx, v: d.Vault, record: id, n: x.N})
		r.RecordInfo.Exhibits = append(r.RecordInfo.Exhibits, SealedExhibit{N: x.N, Kind: ExhibitKind(x.Kind), Made: x.Made, Octets: octets, Leaf: leaf})
	}
	return nil
}

// An exhibitReader opens an exhibit when it is first read, and closes it at its end: a record may have very many.
type exhibitReader struct {
	ctx    context.Context // of the call that reads all of it
	v      *vault.Vault
	record vault.ID
	n      int
	open   io.ReadCloser
}

func (x *exhibitReader) Read(b []byte) (n int, err error) {
	if x.open == nil {
		if x.open, _, err = x.v.OpenSealedExhibit(x.ctx, x.record, x.n); err != nil {
			return 0, err
		}
	}
	if n, err = x.open.Read(b); err != nil {
		x.open.Close()
	}
	return n, err
}

package escrow

import (
	"context"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Prover is the log that a bundle is proved from.
type Prover interface {
	Leaf(ctx context.Context, index int64) ([]byte, error)
	ProveLeaf(ctx context.Context, size, index int64) ([]tlog.Hash, error)
	ProveGrowth(ctx context.Context, old, size int64) ([]tlog.Hash, error)
}

// A CaseFile is what the gateway knows of a case that it opened: a bundle is made of it.
type CaseFile struct {
	Manifest   *Manifest
	Request    *Statement
	CaseIndex  int64   // of the leaf that says so
	Checkpoint []byte  // a note that covers that leaf, with its cosignatures
	Size       int64   // of the checkpoint's tree
	Known      []int64 // sizes of the checkpoints that the officers saw last
	Custodians []CustodianName
}

// WriteBundle writes the bundle of a case. Entry gives the digests of all wraps of an entry's record, ascending, and the DET1
// octets of the entry's own. Memory: an entry.
func (c CaseFile) WriteBundle(ctx context.Context, w io.Writer, log Prover, entry func(n int) ([]vault.Digest, []byte, error)) error {
	b, err := c.head(ctx, log)
	if err != nil {
		return err
	}
	if _, err := b.WriteTo(w); err != nil {
		return err
	}
	for n, m := range c.Manifest.Entries {
		var e BundleEntry
		if e.Leaf, err = log.Leaf(ctx, int64(m.Leaf)); err != nil {
			return err
		}
		if e.Proof, err = log.ProveLeaf(ctx, c.Size, int64(m.Leaf)); err != nil {
			return err
		}
		if e.Wraps, e.Wrap, err = entry(n); err != nil {
			return err
		}
		if _, err := e.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

func (c CaseFile) head(ctx context.Context, log Prover) (*Bundle, error) {
	b := &Bundle{Manifest: c.Manifest, Request: c.Request, Note: c.Checkpoint, CaseIndex: uint64(c.CaseIndex), Custodians: c.Custodians}
	var err error
	if b.CaseLeaf, err = log.Leaf(ctx, c.CaseIndex); err != nil {
		return nil, err
	}
	if b.CaseProof, err = log.ProveLeaf(ctx, c.Size, c.CaseIndex); err != nil {
		return nil, err
	}
	done := map[int64]bool{}
	for _, old := range append([]int64{int64(c.Manifest.LogSize)}, c.Known...) {
		if old <= 0 || old >= c.Size || done[old] { // nothing to prove about none, the same or a later one
			continue
		}
		done[old] = true
		proof, err := log.ProveGrowth(ctx, old, c.Size)
		if err != nil {
			return nil, err
		}
		b.Consistency = append(b.Consistency, Consistency{uint64(old), proof})
	}
	return b, nil
}

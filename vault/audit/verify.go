package audit

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Fault is what is wrong with a log.
type Fault struct {
	Leaf   int64 // the first that is known to be bad; -1 when no single leaf can be named
	Reason string
}

func (f *Fault) Error() string {
	if f.Leaf < 0 {
		return "audit: " + f.Reason
	}
	return fmt.Sprintf("audit: leaf %d: %s", f.Leaf, f.Reason)
}

// A Report says what Verify saw of a log without a fault.
type Report struct {
	Size        int64
	Root        tlog.Hash
	Checkpoints int   // that agree
	Signed      int64 // leaves under the last of them
	Cosigned    int64 // leaves under the last of them that a witness cosigned; those behind it are protected by nobody else
	Types       map[vault.LeafType]int64
}

// verifyBatch is how many leaves are read at once.
const verifyBatch = 1000

// Verify reads every leaf, computes the tree anew and compares each hash that the log keeps and each checkpoint that it
// gave out, and what leaves about roles and looks attest. When verifier is not empty the checkpoints' signatures are checked, too, and what the witnesses cosigned is counted. Kept are checkpoints from elsewhere,
// as parsed: what the host may have changed together with its log is found by them. It returns the first *Fault.
// Memory: a batch of leaves.
func Verify(ctx context.Context, src Source, verifier string, witnesses []note.Verifier, kept ...Tree) (Report, error) {
	size, err := src.LogSize(ctx)
	if err != nil {
		return Report{}, err
	}
	v := verification{src: src, verifier: verifier, witnesses: witnesses, kept: kept, edge: map[int64]tlog.Hash{}, r: Report{Types: map[vault.LeafType]int64{}}}
	if err := v.checkOrigins(); err != nil {
		return Report{}, err
	}
	for v.r.Size < size {
		leaves, err := src.LogLeaves(ctx, v.r.Size, int(min(verifyBatch, size-v.r.Size)))
		if err != nil {
			return Report{}, err
		}
		if len(leaves) == 0 {
			return Report{}, &Fault{Leaf: v.r.Size, Reason: "is gone"}
		}
		if err := v.batch(ctx, leaves); err != nil {
			return Report{}, err
		}
	}
	if err := v.checkEnd(ctx, size); err != nil {
		return Report{}, err
	}
	if leaves, hashes, err := src.LogExtent(ctx); err != nil {
		return Report{}, err
	} else if n := tlog.StoredHashCount(leaves); hashes != n {
		return Report{}, &Fault{Leaf: leaves, Reason: fmt.Sprintf("the log ends before it, its tree has %d hashes in place of %d", hashes, n)}
	}
	v.r.Root, err = tlog.TreeHash(size, v.reader())
	return v.r, err
}

type verification struct {
	src       Source
	verifier  string
	witnesses []note.Verifier
	kept      []Tree
	known     int64               // leaves under the last of kept that agreed
	edge      map[int64]tlog.Hash // the hashes that later ones are made of
	r         Report
}

func (v *verification) checkOrigins() error {
	_, restoredAt := v.src.Restored()
	for _, t := range v.kept {
		switch origin := originOf(v.src); {
		case t.Origin == origin:
		case !ofArchive(t.Origin, v.src.Archive()):
			return &Fault{Leaf: -1, Reason: fmt.Sprintf("the checkpoint is of the log %q, this is %q", t.Origin, origin)}
		case t.Size > restoredAt:
			return &Fault{Leaf: restoredAt, Reason: fmt.Sprintf("the log was restored from a backup that ends before it; of the leaves of the checkpoint %d are not in that: "+
				"they are attested where %q was witnessed", t.Size-restoredAt, t.Origin)}
		}
	}
	return nil
}

// checkEnd finds checkpoints that are larger than the log.
func (v *verification) checkEnd(ctx context.Context, size int64) error {
	last, err := v.src.Checkpoints(ctx, size, 1)
	if err != nil {
		return err
	}
	var more int64
	for _, c := range last {
		more = c.Size
	}
	for _, t := range v.kept {
		more = max(more, t.Size)
	}
	if more > size {
		return &Fault{Leaf: size, Reason: fmt.Sprintf("the log ends before it, a checkpoint has %d leaves", more)}
	}
	return nil
}

func (v *verification) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(x []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(x))
		for i, n := range x {
			h, ok := v.edge[n]
			if !ok {
				return nil, fmt.Errorf("audit: hash %d is not on the tree's edge", n) // cannot be: it always is
			}
			hashes[i] = h
		}
		return hashes, nil
	})
}

// batch checks leaves against the hashes that are kept, and the tree against the checkpoints that fall among them.
func (v *verification) batch(ctx context.Context, leaves [][]byte) error {
	first := v.r.Size
	points, err := v.src.Checkpoints(ctx, first, len(leaves))
	if err != nil {
		return err
	}
	for i, b := range leaves {
		n := first + int64(i)
		if err := v.leaf(ctx, n, b); err != nil {
			return err
		}
		v.r.Size = n + 1
		for _, t := range v.kept {
			if t.Size == v.r.Size {
				if err := v.same(t, v.known); err != nil { // the log's own since then are the host's word
					return err
				}
				v.known = t.Size
			}
		}
		if len(points) > 0 && points[0].Size == v.r.Size {
			if err := v.checkpoint(points[0]); err != nil {
				return err
			}
			points = points[1:]
		}
	}
	return nil
}

// leaf computes the hashes that leaf n completes and compares them with those kept.
func (v *verification) leaf(ctx context.Context, n int64, b []byte) error {
	l, err := vault.ParseLeaf(b)
	if err != nil {
		return &Fault{Leaf: n, Reason: "is not a leaf"}
	}
	if l.Archive != v.src.Archive() {
		return &Fault{Leaf: n, Reason: "is of another archive"}
	}
	v.r.Types[l.Type]++
	hashes, err := tlog.StoredHashes(n, b, v.reader())
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, n)
	indexes := make([]int64, len(hashes))
	for i := range hashes {
		indexes[i] = first + int64(i)
		v.edge[indexes[i]] = hashes[i]
	}
	kept, err := v.src.LogHashes(ctx, indexes)
	if err != nil {
		return &Fault{Leaf: n, Reason: "its hashes cannot be read"}
	}
	for i := range hashes {
		if kept[i] != hashes[i] {
			return &Fault{Leaf: n, Reason: "is not what the tree was made of"}
		}
	}
	v.forget(n)
	return v.opened(ctx, n, l)
}

// opened finds that what a leaf about roles or a look hides was taken away or changed: nothing else attests it.
func (v *verification) opened(ctx context.Context, n int64, l vault.Leaf) error {
	if l.Type != vault.LeafRoles && l.Type != vault.LeafLook {
		return nil
	}
	ok, err := v.src.LeafOpened(ctx, n, l)
	if err == nil && !ok {
		err = &Fault{Leaf: n, Reason: fmt.Sprintf("what it attests (%v) is gone or is another", l.Type)}
	}
	return err
}

// forget drops the hashes under the largest subtree that leaf n completes: nothing above is made of them.
func (v *verification) forget(n int64) {
	for level := 0; (n>>level)&1 == 1; level++ {
		delete(v.edge, tlog.StoredHashIndex(level, n>>level))
		delete(v.edge, tlog.StoredHashIndex(level, n>>level-1))
	}
}

func (v *verification) checkpoint(c vault.Checkpoint) error {
	if v.verifier == "" {
		return nil
	}
	t, err := ParseCheckpoint(c.Note, v.verifier)
	if err != nil {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the checkpoint of %d leaves is not signed by the log's key", c.Size)}
	}
	if t.Size != c.Size || t.Origin != originOf(v.src) {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the checkpoint of %d leaves is another's", c.Size)}
	}
	if err := v.same(t, v.r.Signed); err != nil {
		return err
	}
	if len(Cosigned(c.Note, v.witnesses)) > 0 {
		v.r.Cosigned = t.Size
	}
	return nil
}

// same compares the tree as computed up to here. Up to from it is known to be good.
func (v *verification) same(t Tree, from int64) error {
	root, err := tlog.TreeHash(t.Size, v.reader())
	if err != nil {
		return err
	}
	if root != t.Root {
		return &Fault{Leaf: from, Reason: fmt.Sprintf("it, or one after it up to %d, is not what a checkpoint was signed over", t.Size-1)}
	}
	v.r.Checkpoints++
	v.r.Signed = max(v.r.Signed, t.Size)
	return nil
}

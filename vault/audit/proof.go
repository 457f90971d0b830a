package audit

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Proof is a leaf with all that shows it to be in a log: RFC 6962 §2.1.1 and a checkpoint. As JSON it stands alone.
type Proof struct {
	Index      int64            `json:"index"`
	Leaf       []byte           `json:"leaf"`       // as hashed; base64 in JSON
	Hashes     tlog.RecordProof `json:"hashes"`     // from the leaf up
	Checkpoint string           `json:"checkpoint"` // a signed note
}

// Prove proves a leaf under a checkpoint of the log as it stands, which it makes where there is none.
func (l *Log) Prove(ctx context.Context, index int64, now time.Time) (Proof, error) {
	note, err := l.Checkpoint(ctx, now)
	if err != nil {
		return Proof{}, err
	}
	t, err := ParseCheckpoint(note, l.key.Verifier())
	if err != nil {
		return Proof{}, err
	}
	hashes, err := ProveLeaf(ctx, l.src, t.Size, index)
	if err != nil {
		return Proof{}, err
	}
	leaves, err := l.src.LogLeaves(ctx, index, 1)
	if err != nil {
		return Proof{}, err
	}
	if len(leaves) != 1 {
		return Proof{}, &Fault{Leaf: index, Reason: "is gone"}
	}
	return Proof{Index: index, Leaf: leaves[0], Hashes: hashes, Checkpoint: string(note)}, nil
}

// maxProof is how many hashes a proof may have: a tree has fewer levels.
const maxProof = 64

// Check checks a proof with the log's public key, and nothing else. A *Fault: it proves nothing.
func (p Proof) Check(verifier string) (vault.Leaf, Tree, error) {
	t, err := ParseCheckpoint([]byte(p.Checkpoint), verifier)
	if err != nil {
		return vault.Leaf{}, Tree{}, err
	}
	l, err := vault.ParseLeaf(p.Leaf)
	if err != nil {
		return vault.Leaf{}, Tree{}, &Fault{Leaf: p.Index, Reason: "is not a leaf"}
	}
	if !ofArchive(t.Origin, l.Archive) {
		return vault.Leaf{}, Tree{}, &Fault{Leaf: p.Index, Reason: fmt.Sprintf("is of another log than the checkpoint, which is of %q", t.Origin)}
	}
	if len(p.Hashes) > maxProof || p.Index < 0 || p.Index >= t.Size {
		return vault.Leaf{}, Tree{}, &Fault{Leaf: p.Index, Reason: "cannot be in a tree of the checkpoint's size"}
	}
	if err := tlog.CheckRecord(p.Hashes, t.Size, t.Root, p.Index, tlog.RecordHash(p.Leaf)); err != nil {
		return vault.Leaf{}, Tree{}, &Fault{Leaf: p.Index, Reason: "is not in the tree that the checkpoint signs"}
	}
	return l, t, nil
}

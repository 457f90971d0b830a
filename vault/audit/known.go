package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ReadTree reads what a checkpoint says, whoever signed it.
func ReadTree(signed []byte) (Tree, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok || len(signed) > maxNote {
		return Tree{}, errors.New("audit: not a checkpoint")
	}
	return parseTree(text + "\n")
}

// Known tells whether a tree that is known elsewhere is one of the log's, or was before it was restored; a *Fault says how
// the log is an older copy, or another.
func Known(ctx context.Context, src Source, t Tree) error {
	times, _ := src.Restored()
	if !ofArchive(t.Origin, src.Archive()) {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the checkpoint is of the log %q, this is %q", t.Origin, originOf(src))}
	}
	_, suffix, _ := strings.Cut(strings.TrimPrefix(t.Origin, "dimegate/"), "/")
	if restores, _ := strconv.Atoi(suffix); restores < times {
		return nil // the leaf of the restore tells of it
	} else if restores > times {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("this is a copy of before restore %d", restores)}
	}
	size, err := src.LogSize(ctx)
	if err != nil {
		return err
	}
	if t.Size > size {
		return &Fault{Leaf: size, Reason: fmt.Sprintf("the log ends before it, and had %d leaves already: this is an older copy", t.Size)}
	}
	root, err := tlog.TreeHash(t.Size, reader(ctx, src))
	if err != nil {
		return err
	}
	if root != t.Root {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the log's first %d leaves are not those that were signed", t.Size)}
	}
	return nil
}

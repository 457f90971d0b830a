package discovery

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// Rewrap takes what a station made in a case that re-wraps, and puts the new wraps in the place of the old ones. Nothing is changed before
// all of the file was checked; cut short, it is called again. Refusal, or an error of package escrow or archive, for a file that is not right.
func (d *Desk) Rewrap(ctx context.Context, id vault.ID, file []byte, progress func(done, total int)) (*archive.Rewrapped, error) {
	if _, err := d.working(ctx, id, vault.CaseGranted); err != nil {
		return nil, err
	}
	sel, err := d.selection(ctx, id)
	if err != nil {
		return nil, err
	}
	to, err := d.installed(ctx)
	if err != nil {
		return nil, err
	}
	r, err := escrow.ParseRewrap(file)
	if err != nil {
		return nil, err
	}
	if err := r.Check(sel.Manifest, to.Key); err != nil {
		return nil, err
	}
	return d.Archive.Rewrap(ctx, r, d.Now, progress)
}

// findKey is the escrow key of discovery whose id begins so in hexadecimal; the one in force for none.
func (d *Desk) findKey(ctx context.Context, prefix string) (*archive.Key, error) {
	if prefix == "" {
		return d.installed(ctx)
	}
	keys, err := d.Archive.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var found *archive.Key
	for _, k := range keys {
		if id := k.Key.ID(); k.Key.Purpose == escrow.Discovery && strings.HasPrefix(hex.EncodeToString(id[:]), strings.ToLower(prefix)) {
			if found != nil {
				return nil, refusef("more than one escrow key begins with %q", prefix)
			}
			found = k
		}
	}
	if found == nil {
		return nil, refusef("no escrow key of discovery begins with %q: gateway escrow list shows them", prefix)
	}
	return found, nil
}

// orderKey is the key that a case is to be opened by.
func (d *Desk) orderKey(ctx context.Context, o Order) (*archive.Key, error) {
	k, err := d.findKey(ctx, o.Key)
	if err != nil || !escrow.IsRewrap(o.Basis) {
		return k, err
	}
	now, err := d.installed(ctx)
	if err == nil && now.Key.ID() == k.Key.ID() {
		err = refusef("a case re-wraps what is sealed to a key that was replaced: bring the new one into force (gateway escrow install), then name the old one")
	}
	return k, err
}

// intakeLeaf is the leaf of a record's intake: that of the entry itself, or where the record was sealed anew since the first of chain, which
// leads to the entry's leaf: each leaf 2 commits to the public part of the one before it. Holds says whether the log has a leaf.
func intakeLeaf(entry []byte, chain []SealedEvent, holds func(ProvedLeaf) bool) (vault.Leaf, error) {
	last, err := vault.ParseLeaf(entry)
	if err != nil || last.Type == vault.LeafIntake {
		return last, err
	}
	bad := func(why string) (vault.Leaf, error) {
		return vault.Leaf{}, fmt.Errorf("%w: its leaves do not lead to its intake: %s", vault.ErrCorrupt, why)
	}
	var first, before vault.Leaf
	for i, c := range chain {
		l, err := vault.ParseLeaf(c.Leaf.Octets)
		switch {
		case err != nil || l.Subject != last.Subject || l.Archive != last.Archive || !holds(c.Leaf):
			return bad("one is another record's, or not in the log")
		case i == 0 && l.Type != vault.LeafIntake, i > 0 && l.Type != vault.LeafRewrap:
			return bad("one is of another kind")
		case i > 0 && chain[i-1].Leaf.Index >= c.Leaf.Index:
			return bad("they are not in order")
		case i == 0:
			first = l
		default:
			if len(c.Opening) != 32+len(vault.Digest{}) {
				return bad("an opening cannot be read")
			}
			o := vault.Opening{Salt: [32]byte(c.Opening), Payload: c.Opening[32:]}
			if vault.Digest(o.Payload) != before.Public || o.Commit(vault.LeafRewrap) != l.Commitment {
				return bad("one replaces another leaf")
			}
		}
		if before = l; string(c.Leaf.Octets) == string(entry) {
			return first, nil
		}
	}
	return bad("the case file has too few")
}

// IntakeLeaf is the leaf of the record's intake, when entry is the leaf of its entry in the case: see Chain. Holds says whether the log has a
// leaf. ErrCorrupt when they do not belong together.
func (r RecordInfo) IntakeLeaf(entry []byte, holds func(ProvedLeaf) bool) (vault.Leaf, error) {
	return intakeLeaf(entry, r.Chain, holds)
}

package discovery

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dimegate/vault"
)

// TestIntakeLeaf: from the leaf of a re-wrap one comes to the intake's by links that hold alone.
func TestIntakeLeaf(t *testing.T) {
	archive, record := vault.ID{1}, vault.ID{2}
	leaf := func(kind vault.LeafType, subject vault.ID, public byte, replaces *vault.Leaf) (l vault.Leaf, opening []byte) {
		l = vault.Leaf{Type: kind, Time: time.Unix(1, 0), Archive: archive, Subject: subject, Public: vault.Digest{public}, Commitment: vault.Digest{9}}
		if replaces != nil {
			o := vault.Opening{Salt: [32]byte{public}, Payload: replaces.Public[:]}
			l.Commitment = o.Commit(kind)
			opening = slices.Concat(o.Salt[:], o.Payload)
		}
		return l, opening
	}
	intake, _ := leaf(vault.LeafIntake, record, 1, nil)
	first, open1 := leaf(vault.LeafRewrap, record, 2, &intake)
	second, open2 := leaf(vault.LeafRewrap, record, 3, &first)
	skips, open3 := leaf(vault.LeafRewrap, record, 4, &intake)
	another, _ := leaf(vault.LeafIntake, vault.ID{3}, 1, nil)
	event := func(index uint64, l vault.Leaf, opening []byte) SealedEvent {
		return SealedEvent{ProvedLeaf{Index: index, Octets: l.Octets()}, opening}
	}
	chain := []SealedEvent{event(1, intake, nil), event(5, first, open1), event(9, second, open2)}
	all := func(ProvedLeaf) bool { return true }
	for name, c := range map[string]struct {
		entry vault.Leaf
		chain []SealedEvent
		holds func(ProvedLeaf) bool
		ok    bool
	}{
		"no re-wrap":           {intake, nil, all, true},
		"two":                  {second, chain, all, true},
		"a later one besides":  {first, chain, all, true},
		"none":                 {second, nil, all, false},
		"cut short":            {second, chain[:2], all, false},
		"without the intake":   {second, chain[1:], all, false},
		"one left out":         {second, []SealedEvent{chain[0], chain[2]}, all, false},
		"one that skips":       {skips, []SealedEvent{chain[0], chain[1], event(9, skips, open3)}, all, false},
		"not in order":         {second, []SealedEvent{chain[0], event(10, first, open1), chain[2]}, all, false},
		"another opening":      {second, []SealedEvent{chain[0], event(5, first, open2), chain[2]}, all, false},
		"an opening too short": {second, []SealedEvent{chain[0], event(5, first, open1[:40]), chain[2]}, all, false},
		"of another record":    {second, []SealedEvent{event(1, another, nil), chain[1], chain[2]}, all, false},
		"not in the log":       {second, chain, func(p ProvedLeaf) bool { return p.Index != 5 }, false},
	} {
		got, err := RecordInfo{Chain: c.chain}.IntakeLeaf(c.entry.Octets(), c.holds)
		if c.ok && (err != nil || got.Public != intake.Public || got.Type != vault.LeafIntake) || !c.ok && !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

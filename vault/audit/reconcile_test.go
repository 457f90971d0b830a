package audit_test

import (
	"context"
	"fmt"
	"testing"

	"dimegate/vault"
	"dimegate/vault/audit"
)

// A ledger is a log and a queue that no vault would write.
type ledger struct {
	audit.Source
	leaves []vault.Leaf
	rows   []vault.QueueRow
}

func (l ledger) LogSize(context.Context) (int64, error) { return int64(len(l.leaves)), nil }
func (l ledger) LogLeaves(_ context.Context, first int64, _ int) (list [][]byte, _ error) {
	for _, leaf := range l.leaves[first:] {
		list = append(list, leaf.Octets())
	}
	return list, nil
}
func (l ledger) QueueRows(context.Context, string, vault.ID, int) ([]vault.QueueRow, error) {
	return l.rows, nil
}

// What a log should not say is found: a second end, an end of nobody, a second acceptance before and behind the end.
func TestReconcileStrange(t *testing.T) {
	a, b := vault.ID{1}, vault.ID{2}
	leaf := func(t vault.LeafType, id vault.ID) vault.Leaf { return vault.Leaf{Type: t, Subject: id} }
	for name, tt := range map[string]struct {
		leaves []vault.Leaf
		rows   []vault.QueueRow
		want   audit.Reconciliation
	}{
		"fine":             {[]vault.Leaf{leaf(vault.LeafRecipient, a), leaf(vault.LeafDelivered, a)}, nil, audit.Reconciliation{Accepted: 1, Delivered: 1}},
		"missing":          {[]vault.Leaf{leaf(vault.LeafRecipient, a)}, nil, audit.Reconciliation{Accepted: 1, Missing: []int64{0}}},
		"second end":       {[]vault.Leaf{leaf(vault.LeafRecipient, a), leaf(vault.LeafDelivered, a), leaf(vault.LeafFailed, a)}, nil, audit.Reconciliation{Accepted: 1, Delivered: 1, Strange: []int64{2}}},
		"end of nobody":    {[]vault.Leaf{leaf(vault.LeafDelivered, b)}, nil, audit.Reconciliation{Strange: []int64{0}}},
		"accepted twice":   {[]vault.Leaf{leaf(vault.LeafRecipient, a), leaf(vault.LeafRecipient, a), leaf(vault.LeafDelivered, a)}, nil, audit.Reconciliation{Accepted: 1, Delivered: 1, Strange: []int64{1}}},
		"accepted anew":    {[]vault.Leaf{leaf(vault.LeafRecipient, a), leaf(vault.LeafDelivered, a), leaf(vault.LeafRecipient, a)}, nil, audit.Reconciliation{Accepted: 1, Delivered: 1, Strange: []int64{2}}},
		"a row of nowhere": {nil, []vault.QueueRow{{ID: b}}, audit.Reconciliation{Unknown: 1}},
	} {
		r, err := audit.Reconcile(t.Context(), ledger{leaves: tt.leaves, rows: tt.rows})
		if err != nil || fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", tt.want) || r.OK() != (name == "fine") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

package audit

import (
	"context"
	"maps"
	"slices"

	"dimegate/vault"
)

// A QueueSource is a log with the queue beside it; *vault.Vault is one.
type QueueSource interface {
	Source
	QueueRows(ctx context.Context, domain string, after vault.ID, n int) ([]vault.QueueRow, error)
}

// A Reconciliation counts recipients: accepted is the sum of the five behind it, and of what is missing. What was erased
// keeps counting, since its leaves stay.
type Reconciliation struct {
	Accepted  int64 `json:"accepted"`
	Delivered int64 `json:"delivered"`
	Bounced   int64 `json:"bounced"`
	Dropped   int64 `json:"dropped"`
	Held      int64 `json:"held"` // wait for an administrator
	Queued    int64 `json:"queued"`

	Missing []int64 `json:"missing,omitempty"` // leaves of recipients who are neither in the queue nor at an end
	Strange []int64 `json:"strange,omitempty"` // leaves of an end that no recipient was accepted for, or of a second end or acceptance
	Unknown int64   `json:"unknown"`           // rows of the queue that no leaf was written for
}

// OK tells whether every recipient is accounted for, once.
func (r Reconciliation) OK() bool {
	return len(r.Missing) == 0 && len(r.Strange) == 0 && r.Unknown == 0
}

// ends are the leaves that end a recipient's entry.
var ends = map[vault.LeafType]func(*Reconciliation) *int64{
	vault.LeafDelivered: func(r *Reconciliation) *int64 { return &r.Delivered },
	vault.LeafFailed:    func(r *Reconciliation) *int64 { return &r.Bounced },
	vault.LeafDropped:   func(r *Reconciliation) *int64 { return &r.Dropped },
}

// Reconcile compares the log with the queue. It may run beside a gateway: who is accepted after its beginning is left out,
// and an end that is written meanwhile counts. It believes the log: see Verify. Memory: about 100 octets a recipient, since
// a second end may come at any time.
func Reconcile(ctx context.Context, src QueueSource) (Reconciliation, error) {
	size, err := src.LogSize(ctx)
	if err != nil {
		return Reconciliation{}, err
	}
	rows, err := queued(ctx, src) // before the leaves: what leaves the queue from now on has its end among them
	if err != nil {
		return Reconciliation{}, err
	}
	t := tally{size: size, open: map[vault.ID]int64{}, closed: map[vault.ID]bool{}}
	for n := int64(0); ; {
		leaves, err := src.LogLeaves(ctx, n, verifyBatch)
		if err != nil {
			return Reconciliation{}, err
		}
		for i, b := range leaves {
			l, err := vault.ParseLeaf(b)
			if err != nil {
				return Reconciliation{}, &Fault{Leaf: n + int64(i), Reason: "is not a leaf"}
			}
			t.leaf(l, n+int64(i))
		}
		if n += int64(len(leaves)); len(leaves) < verifyBatch {
			break
		}
	}
	return t.compare(rows), nil
}

// A tally follows recipients through the log.
type tally struct {
	Reconciliation
	size   int64              // of the log at the beginning
	open   map[vault.ID]int64 // accepted and not at an end, by leaf
	closed map[vault.ID]bool  // at an end (true), or accepted too late to be counted (false)
}

func (t *tally) leaf(l vault.Leaf, n int64) {
	count, end := ends[l.Type]
	_, open := t.open[l.Subject]
	atEnd, known := t.closed[l.Subject]
	switch {
	case l.Type == vault.LeafRecipient && (open || known):
		t.Strange = append(t.Strange, n)
	case l.Type == vault.LeafRecipient && n < t.size:
		t.open[l.Subject] = n
		t.Accepted++
	case l.Type == vault.LeafRecipient:
		t.closed[l.Subject] = false
	case !end:
	case open:
		delete(t.open, l.Subject)
		t.closed[l.Subject] = true
		*count(&t.Reconciliation)++
	case atEnd || !known:
		t.Strange = append(t.Strange, n)
	}
}

// compare finds what is open in the queue. A row at its end may be there still: its sender is being told.
func (t *tally) compare(rows []vault.QueueRow) Reconciliation {
	for _, row := range rows {
		_, open := t.open[row.ID]
		_, closed := t.closed[row.ID]
		switch {
		case open && row.Due.Equal(vault.Never):
			t.Held++
		case open:
			t.Queued++
		case !closed:
			t.Unknown++
		}
		delete(t.open, row.ID)
	}
	t.Missing = slices.Sorted(maps.Values(t.open))
	return t.Reconciliation
}

// queued reads the whole queue.
func queued(ctx context.Context, src QueueSource) (all []vault.QueueRow, err error) {
	for after := (vault.ID{}); ; {
		rows, err := src.QueueRows(ctx, "", after, verifyBatch)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			rows[i].Detail = nil // not ours, and the queue may be long
		}
		all = append(all, rows...)
		if len(rows) < verifyBatch {
			return all, nil
		}
		after = rows[len(rows)-1].ID
	}
}

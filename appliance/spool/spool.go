// Package spool joins the outbound queue to the vault.
package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"dimegate/bridge/queue"
	"dimegate/internal/killpoint"
	"dimegate/vault"
)

// Store is a queue.Store on a vault.
type Store struct {
	Vault *vault.Vault
	// Keep says what the archive keeps of a message, by its envelope and its header block; nil, and a nil answer: nothing. An error of
	// it refuses the message.
	Keep func(ctx context.Context, env queue.Envelope, header []byte) (func(vault.KeepRequest) (*vault.Keeping, error), error)
}

var (
	_ queue.Store = Store{}
	_ queue.Draft = &draft{}
	_ queue.Entry = entry{}
)

// events are the queue's events as the log's leaves call them.
var events = map[queue.Event]vault.LeafType{
	queue.Accepted:    vault.LeafRecipient,
	queue.Decided:     vault.LeafDecision,
	queue.Delivered:   vault.LeafDelivered,
	queue.Failed:      vault.LeafFailed,
	queue.Dropped:     vault.LeafDropped,
	queue.HeldBack:    vault.LeafHeld,
	queue.Released:    vault.LeafReleased,
	queue.NoticeGiven: vault.LeafNotice,
	queue.NoticeLost:  vault.LeafNoNotice,
}

func leaves(list []queue.Leaf) []vault.RowLeaf {
	var l []vault.RowLeaf
	for _, x := range list {
		l = append(l, vault.RowLeaf{Type: events[x.Event], Payload: x.Payload})
	}
	return l
}

// names are the vault's errors as the queue calls them; first match wins.
var names = []struct{ vault, queue error }{
	{vault.ErrFull, queue.ErrFull},
	{vault.ErrChanged, queue.ErrChanged},
	{vault.ErrNotFound, queue.ErrNotFound},
	{vault.ErrCorrupt, queue.ErrDamaged},
	{vault.ErrTruncated, queue.ErrDamaged},
	{vault.ErrWrongKey, queue.ErrDamaged},
}

// A namedError is the queue's error for one of the vault's.
type namedError struct{ error, name error }

func (e namedError) Error() string   { return e.name.Error() + ": " + e.error.Error() }
func (e namedError) Unwrap() []error { return []error{e.name, e.error} }

func named(err error) error {
	for _, n := range names {
		if errors.Is(err, n.vault) {
			return namedError{err, n.queue}
		}
	}
	return err
}

// Begin starts a message.
func (s Store) Begin(context.Context) (queue.Draft, error) {
	d, err := s.Vault.NewDraft()
	if err != nil {
		return nil, named(err)
	}
	return &draft{s: s, d: d, head: headReader{off: s.Keep == nil}}, nil
}

type draft struct {
	s    Store
	d    *vault.Draft
	head headReader
}

func (d *draft) Write(p []byte) (int, error) {
	d.head.write(p)
	n, err := d.d.Write(p)
	return n, named(err)
}

func (d *draft) Discard() { d.d.Discard() }

// keep asks what the archive keeps.
func (d *draft) keep(ctx context.Context, envelope []byte) error {
	if d.s.Keep == nil {
		return nil
	}
	env, err := queue.ParseEnvelope(envelope)
	if err != nil {
		return err
	}
	f, err := d.s.Keep(ctx, env, d.head.b)
	d.d.Keep(f)
	return err
}

// A headReader remembers a message's header block as it passes, up to maxHead octets.
type headReader struct {
	b   []byte
	off bool
}

const maxHead = 256 << 10

func (h *headReader) write(p []byte) {
	if h.off {
		return
	}
	from := max(0, len(h.b)-3)
	h.b = append(h.b, p[:min(len(p), maxHead-len(h.b))]...)
	if i := bytes.Index(h.b[from:], []byte("\r\n\r\n")); i >= 0 {
		h.b, h.off = h.b[:from+i+2], true
	}
	h.off = h.off || len(h.b) == maxHead
}

func (d *draft) Accept(ctx context.Context, envelope []byte, rows []queue.NewRow, now time.Time) (queue.Receipt, error) {
	list := make([]vault.NewRow, len(rows))
	for i, r := range rows {
		list[i] = vault.NewRow{Domain: r.Domain, Lane: r.Lane, Recipient: r.Recipient, State: uint8(r.State), Due: r.Due,
			Detail: r.Detail, Payload: r.Leaf.Payload}
	}
	if err := d.keep(ctx, envelope); err != nil {
		return queue.Receipt{}, named(err)
	}
	receipt := queue.Receipt{Record: d.d.ID().String()}
	killpoint.Here(killpoint.AcceptBefore, d.d.ID())
	ids, err := d.s.Vault.Accept(ctx, d.d, envelope, list, now)
	if err != nil {
		return queue.Receipt{}, named(err)
	}
	killpoint.Here(killpoint.AcceptAfter, d.d.ID())
	for _, id := range ids {
		receipt.Entries = append(receipt.Entries, id.String())
	}
	return receipt, nil
}

// Claim leases due rows.
func (s Store) Claim(ctx context.Context, wants []queue.Want, now, lease time.Time) ([]queue.Claim, error) {
	list := make([]vault.Want, len(wants))
	for i, w := range wants {
		list[i] = vault.Want(w)
	}
	got, err := s.Vault.ClaimRows(ctx, list, now, lease)
	if err != nil {
		return nil, named(err)
	}
	claims := make([]queue.Claim, len(got))
	for i, c := range got {
		claims[i] = queue.Claim{Rows: rows(c.Rows), Next: c.Next}
		for _, r := range c.Rows {
			killpoint.Here(killpoint.ClaimAfter, r.ID)
		}
	}
	return claims, nil
}

// Lanes lists the lanes that have rows.
func (s Store) Lanes(ctx context.Context) ([]queue.LaneDue, error) {
	got, err := s.Vault.QueueLanes(ctx)
	if err != nil {
		return nil, named(err)
	}
	var list []queue.LaneDue
	for _, l := range got {
		list = append(list, queue.LaneDue(l))
	}
	return list, nil
}

func rows(list []vault.QueueRow) []queue.Row {
	var out []queue.Row
	for _, r := range list {
		out = append(out, row(r))
	}
	return out
}

func row(r vault.QueueRow) queue.Row {
	return queue.Row{ID: r.ID.String(), Record: r.Record.String(), Domain: r.Domain, Lane: r.Lane, State: queue.State(r.State),
		Due: r.Due, Made: r.Made, Octets: r.Octets, Leased: r.Leased, Lost: r.Lost, Version: r.Version, Detail: r.Detail}
}

// back is what the vault needs to find a row that it gave out.
func back(r queue.Row) (vault.QueueRow, error) {
	id, err := vault.ParseID(r.ID)
	if err != nil {
		return vault.QueueRow{}, err
	}
	record, err := vault.ParseID(r.Record)
	return vault.QueueRow{ID: id, Record: record, Version: r.Version}, err
}

func change(c queue.Change) vault.RowChange {
	return vault.RowChange{State: uint8(c.State), Lane: c.Lane, Due: c.Due, Detail: c.Detail, Trouble: c.Trouble,
		DropBuilt: c.DropBuilt, Remove: c.Remove, Leaves: leaves(c.Leaves)}
}

// Set changes a row without opening it.
func (s Store) Set(ctx context.Context, r queue.Row, c queue.Change, now time.Time) error {
	vr, err := back(r)
	if err != nil {
		return err
	}
	return named(s.Vault.ChangeRow(ctx, nil, vr, change(c), now))
}

// Row reads one row.
func (s Store) Row(ctx context.Context, id string) (queue.Row, error) {
	vid, err := vault.ParseID(id)
	if err != nil {
		return queue.Row{}, namedError{err, queue.ErrNotFound}
	}
	r, err := s.Vault.QueueRow(ctx, vid)
	return row(r), named(err)
}

// Rows lists rows.
func (s Store) Rows(ctx context.Context, domain, after string, n int) ([]queue.Row, error) {
	var from vault.ID
	if after != "" {
		var err error
		if from, err = vault.ParseID(after); err != nil {
			return nil, namedError{err, queue.ErrNotFound}
		}
	}
	list, err := s.Vault.QueueRows(ctx, domain, from, n)
	return rows(list), named(err)
}

// Sealed is a row's message as it rests.
func (s Store) Sealed(ctx context.Context, r queue.Row) (io.ReadCloser, int64, error) {
	vr, err := back(r)
	if err != nil {
		return nil, 0, err
	}
	b, n, err := s.Vault.SealedBody(ctx, vr.Record)
	return b, n, named(err)
}

// Open opens a row's message.
func (s Store) Open(ctx context.Context, r queue.Row) (queue.Entry, error) {
	vr, err := back(r)
	if err != nil {
		return nil, err
	}
	rec, err := s.Vault.Record(ctx, vr.Record)
	if errors.Is(err, vault.ErrNotFound) {
		if now, rerr := s.Vault.QueueRow(ctx, vr.ID); rerr == nil && now.Version == r.Version {
			return nil, namedError{err, queue.ErrDamaged} // the row is there and its message is not
		}
	}
	if err != nil {
		return nil, named(err)
	}
	return entry{s.Vault, rec, vr}, nil
}

type entry struct {
	v   *vault.Vault
	rec *vault.Record
	row vault.QueueRow
}

func (e entry) Contents(ctx context.Context) (c queue.Contents, err error) {
	if c.Envelope, err = e.rec.Envelope(); err != nil {
		return queue.Contents{}, named(err)
	}
	if c.Recipient, err = e.rec.RowRecipient(ctx, e.row.ID); err != nil {
		return queue.Contents{}, named(err)
	}
	c.Trouble, err = e.rec.RowTrouble(ctx, e.row.ID)
	return c, named(err)
}

func (e entry) Body(ctx context.Context) (io.ReadCloser, error) {
	b, err := e.rec.Body(ctx)
	return b, named(err)
}

func (e entry) Built(ctx context.Context) (io.ReadCloser, error) {
	b, err := e.rec.Built(ctx, e.row.ID)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, queue.ErrNoBuilt
	}
	return b, named(err)
}

func (e entry) SaveBuilt(ctx context.Context, octets []byte, l []queue.Leaf, exhibits []queue.Exhibit, now time.Time) error {
	var list []vault.Exhibit
	for _, x := range exhibits {
		list = append(list, vault.Exhibit{Kind: uint8(x.Kind), Octets: x.Octets, About: e.row.ID[:]})
	}
	killpoint.Here(killpoint.BuiltBefore, e.row.ID)
	err := e.v.SaveBuilt(ctx, e.rec, e.row.ID, octets, leaves(l), now, list...)
	if errors.Is(err, vault.ErrExists) {
		return queue.ErrBuilt
	}
	killpoint.Here(killpoint.BuiltAfter, e.row.ID)
	return named(err)
}

func (e entry) Attest(ctx context.Context, l []queue.Leaf, now time.Time) error {
	return named(e.v.AddRowLeaves(ctx, e.rec, e.row.ID, leaves(l), now))
}

func (e entry) Change(ctx context.Context, c queue.Change, now time.Time) error {
	err := e.v.ChangeRow(ctx, e.rec, e.row, change(c), now)
	if err == nil {
		killpoint.Here(killpoint.OutcomeAfter, e.row.ID)
	}
	return named(err)
}

func (e entry) Close() { e.rec.Close() }

package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// An Info is a queue entry as administrators see it: no address, no words of the other side.
type Info struct {
	ID       string     `json:"id"`
	Record   string     `json:"record"`
	Domain   string     `json:"domain"`
	State    string     `json:"state"`
	Active   bool       `json:"active"` // being delivered now
	Octets   int64      `json:"octets"`
	Accepted time.Time  `json:"accepted"`
	Due      *time.Time `json:"due,omitempty"` // of the next try or notice; nil: when an administrator says so
	Attempts int        `json:"attempts"`
	Last     *time.Time `json:"last,omitempty"`
	Leg      string     `json:"leg,omitempty"`
	Rule     string     `json:"rule,omitempty"`
	Route    string     `json:"route,omitempty"` // host:port that an administrator set for plain SMTP
	Class    string     `json:"class,omitempty"`
	Code     int        `json:"code,omitempty"`
	Status   string     `json:"status,omitempty"`
	Host     string     `json:"host,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Held     string     `json:"held,omitempty"`
	Notice   string     `json:"notice,omitempty"`
}

func (r Row) info() Info {
	i := Info{ID: r.ID, Record: r.Record, Domain: r.Domain, State: r.State.String(), Active: r.Leased, Octets: r.Octets, Accepted: r.Made}
	if !r.Leased && r.Due.Before(Never) {
		i.Due = &r.Due
	}
	d, err := parseDetail(r.Detail)
	if err != nil {
		i.Reason = "damaged: cannot be read"
		return i
	}
	i.Attempts, i.Leg, i.Rule, i.Class, i.Code, i.Status, i.Host, i.Reason = d.Attempts, d.Leg, d.Rule, d.Class, d.Code, d.Status, d.Host, d.Reason
	i.Held, i.Notice, i.Route = d.Held, d.Notice, d.Via
	if !d.Last.IsZero() {
		i.Last = &d.Last
	}
	return i
}

// List returns at most n entries after the id given, oldest first; those of one domain unless it is empty.
func (q *Queue) List(ctx context.Context, domain, after string, n int) ([]Info, error) {
	rows, err := q.store.Rows(ctx, domain, after, n)
	list := make([]Info, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.info())
	}
	return list, err
}

// Show returns one entry: ErrNotFound.
func (q *Queue) Show(ctx context.Context, id string) (Info, error) {
	r, err := q.store.Row(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return r.info(), nil
}

// Details are an entry with its envelope, and what the other side said: for who may see addresses.
type Details struct {
	Info
	From       string `json:"from"` // "": the null reverse-path
	To         string `json:"to"`
	Original   string `json:"original,omitempty"` // ORCPT: type;address
	EnvelopeID string `json:"envelope_id,omitempty"`
	Said       string `json:"said,omitempty"` // printable ASCII
}

// Look is Show with what is sealed: ErrNotFound, ErrDamaged.
func (q *Queue) Look(ctx context.Context, id string) (Details, error) {
	row, err := q.store.Row(ctx, id)
	if err != nil {
		return Details{}, err
	}
	a := &attempt{pass: &pass{Queue: q}, row: row}
	if err := a.open(ctx); err != nil {
		return Details{}, err
	}
	defer a.entry.Close()
	d := Details{Info: row.info(), From: a.env.ReversePath, To: a.rcpt.Address, Original: a.rcpt.Original, EnvelopeID: a.env.EnvelopeID}
	if a.trouble != nil {
		d.Said = plain(a.trouble.Text)
	}
	return d, nil
}

// Retry has a waiting entry tried at once, whether its destination rests or not, and its way looked for anew.
func (q *Queue) Retry(ctx context.Context, id string) error {
	return q.manage(ctx, id, func(a *attempt) (Change, error) {
		switch a.row.State {
		case Waiting:
			a.detail.Asked = a.now
			return a.change(Waiting, AtOnce), nil
		case Notice:
			c := a.change(Notice, AtOnce)
			c.Lane = noticeLane
			return c, nil
		}
		return Change{}, fmt.Errorf("%w: %v; release it", ErrState, a.row.State)
	})
}

// Route has plain SMTP of an entry go by another host, host:port, or by the usual way again when it is empty. What waits is
// tried at once. Allow says whether the policy permits it for mail from a sender ("": the null reverse-path) to a domain; the
// floor holds on that way, too. What was decided to go over DMTP goes nowhere else: ErrSealed.
func (q *Queue) Route(ctx context.Context, id, hop string, allow func(sender, domain string) error) error {
	return q.manage(ctx, id, func(a *attempt) (Change, error) {
		if a.row.State == Notice {
			return Change{}, fmt.Errorf("%w: %v", ErrState, a.row.State)
		}
		if hop != "" {
			if err := a.routable(ctx, allow); err != nil {
				return Change{}, err
			}
		}
		a.detail.Via = hop
		if a.row.State == Held {
			return a.change(Held, a.row.Due), nil
		}
		a.detail.Asked = a.now
		return a.change(Waiting, AtOnce), nil
	})
}

func (a *attempt) routable(ctx context.Context, allow func(sender, domain string) error) error {
	if a.detail.Leg == "dmtp" {
		return ErrSealed
	}
	built, err := a.entry.Built(ctx)
	if err == nil {
		built.Close()
		return ErrSealed
	}
	if !errors.Is(err, ErrNoBuilt) {
		return err
	}
	return allow(a.env.ReversePath, a.row.Domain)
}

// A Dump is an entry's message as nobody but its recipient, or who has this gateway's keys, can read it.
type Dump struct {
	Kind   string // DumpBuilt or DumpSealed
	Octets int64  // 0: not known
	io.ReadCloser
}

// What a Dump holds.
const (
	DumpBuilt  = "dmime"       // the D/MIME message that goes to the destination
	DumpSealed = "sealed-body" // the message as it rests here
)

// Dump gives the sealed object of an entry: the message that was built for its recipient, else the body as it rests, also of an
// entry that cannot be opened. The caller closes it.
func (q *Queue) Dump(ctx context.Context, id string) (Dump, error) {
	row, err := q.store.Row(ctx, id)
	if err != nil {
		return Dump{}, err
	}
	if b, err := q.built(ctx, row); err == nil {
		return Dump{Kind: DumpBuilt, ReadCloser: b}, nil
	} else if !errors.Is(err, ErrNoBuilt) && !errors.Is(err, ErrDamaged) {
		return Dump{}, err
	}
	r, n, err := q.store.Sealed(ctx, row)
	return Dump{Kind: DumpSealed, Octets: n, ReadCloser: r}, err
}

// built opens the built message of a row; its entry is closed with it.
func (q *Queue) built(ctx context.Context, row Row) (io.ReadCloser, error) {
	e, err := q.store.Open(ctx, row)
	if err != nil {
		return nil, err
	}
	b, err := e.Built(ctx)
	if err != nil {
		e.Close()
		return nil, err
	}
	return builtReader{b, e}, nil
}

type builtReader struct {
	io.ReadCloser
	entry Entry
}

func (r builtReader) Close() error {
	defer r.entry.Close()
	return r.ReadCloser.Close()
}

// Hold keeps a waiting entry until it is released. It does not expire.
func (q *Queue) Hold(ctx context.Context, id string) error {
	return q.manage(ctx, id, func(a *attempt) (Change, error) {
		if a.row.State != Waiting {
			return Change{}, fmt.Errorf("%w: %v", ErrState, a.row.State)
		}
		a.detail.Held = "administrator"
		c := a.change(Held, Never)
		c.Leaves = []Leaf{{HeldBack, fields("held", "administrator")}}
		return c, nil
	})
}

// Release has a held entry tried at once, its faults forgotten.
func (q *Queue) Release(ctx context.Context, id string) error {
	return q.manage(ctx, id, func(a *attempt) (Change, error) {
		if a.row.State != Held {
			return Change{}, fmt.Errorf("%w: %v", ErrState, a.row.State)
		}
		a.detail.Held, a.detail.Protocol, a.detail.Asked = "", 0, a.now
		a.detail.Faults, a.detail.Fault, a.detail.FaultSince = 0, "", time.Time{}
		c := a.change(Waiting, AtOnce)
		c.Leaves = []Leaf{{Released, fields("released")}}
		return c, nil
	})
}

// Fail ends an entry as if it had been refused for good: its sender is told.
func (q *Queue) Fail(ctx context.Context, id string) error {
	return q.manage(ctx, id, func(a *attempt) (Change, error) {
		if a.row.State == Notice {
			return Change{}, fmt.Errorf("%w: %v", ErrState, a.row.State)
		}
		return a.fail("5.7.0", "by an administrator"), nil
	})
}

// Drop ends an entry without telling anyone, also one that cannot be read. The log keeps that it was so.
func (q *Queue) Drop(ctx context.Context, id string) error {
	drop := func(a *attempt) (Change, error) {
		return a.remove(Leaf{Dropped, fields("dropped", "administrator")}), nil
	}
	err := q.manage(ctx, id, drop)
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	row, err := q.store.Row(ctx, id)
	if err != nil {
		return err
	}
	c, err := drop(&attempt{row: row})
	if err != nil {
		return err
	}
	return q.store.Set(ctx, row, c, q.o.Now())
}

// manage changes one entry that is not being delivered.
func (q *Queue) manage(ctx context.Context, id string, f func(*attempt) (Change, error)) error {
	row, err := q.store.Row(ctx, id)
	if err != nil {
		return err
	}
	if row.Leased {
		return fmt.Errorf("%w: %s", ErrBusy, id)
	}
	a := &attempt{pass: &pass{Queue: q}, row: row, now: q.o.Now()}
	if err := a.open(ctx); err != nil {
		return err
	}
	defer a.entry.Close()
	c, err := f(a)
	if err != nil {
		return err
	}
	if err := a.entry.Change(ctx, c, a.now); err != nil {
		return err
	}
	if !c.Remove {
		q.mu.Lock()
		q.lane(c.Lane).dueBy(c.Due)
		q.mu.Unlock()
		q.nudge()
	}
	return nil
}

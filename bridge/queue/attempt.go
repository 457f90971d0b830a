package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// trouble is the last failure as notices tell it: with the other side's words, hence sealed.
type trouble struct {
	Status   string    `json:"status"`
	Code     int       `json:"code,omitzero"`
	Text     string    `json:"text,omitzero"`
	Host     string    `json:"host,omitzero"`
	Protocol string    `json:"protocol,omitzero"`
	Time     time.Time `json:"time"`
}

// An attempt is one worker's view of one row.
type attempt struct {
	*pass
	row     Row
	entry   Entry
	env     Envelope
	rcpt    Recipient
	detail  detail
	trouble *trouble
	now     time.Time // of the decision
}

// How often the same fault of ours, or a process that dies over it, is let happen before a row is held.
const (
	maxFaults   = 5
	maxLost     = 10
	maxProtocol = 3
)

// settleTime is how long keeping a result may take after Run's context has ended.
const settleTime = 30 * time.Second

// do delivers or gives notice, and keeps what came of it. Between the two it tells the class of the delivery, Unset when
// there was none. It returns when the row is due in which lane.
func (p *pass) do(ctx context.Context, row Row, delivered func(Class)) (lane string, due time.Time) {
	keep, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(settleTime, cancel) })()
	a := &attempt{pass: p, row: row}
	if err := a.open(keep); err != nil {
		return row.Lane, a.unreadable(keep, err)
	}
	defer a.entry.Close()
	c, class := a.decide(ctx, keep)
	delivered(class)
	if err := a.keep(keep, c); err != nil {
		// The lease ends by itself. A delivery that was done and could not be noted is done again then: known again by
		// its octets over DMTP, a duplicate over SMTP.
		p.complain(keep, "queue entry "+row.ID, err)
		return row.Lane, Never
	}
	if c.Remove {
		return row.Lane, Never
	}
	return c.Lane, c.Due
}

// keep makes the row's change durable. A store in trouble, such as a full disk, is tried until it is not or the gateway
// stops: what was done must not be done again because nobody wrote it down.
func (a *attempt) keep(ctx context.Context, c Change) error {
	for wait := time.Second; ; wait = min(2*wait, settleTime) {
		err := a.entry.Change(ctx, c, a.now)
		if err == nil || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound) {
			return err
		}
		a.complain(ctx, "queue entry "+a.row.ID, err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// open reads what is sealed.
func (a *attempt) open(ctx context.Context) error {
	var err error
	if a.entry, err = a.store.Open(ctx, a.row); err != nil {
		return err
	}
	if err = a.read(ctx); err != nil {
		a.entry.Close()
	}
	return err
}

func (a *attempt) read(ctx context.Context) error {
	s, err := a.entry.Contents(ctx)
	if err != nil {
		return err
	}
	if a.env, err = ParseEnvelope(s.Envelope); err != nil {
		return err
	}
	if a.rcpt, err = parseRecipient(s.Recipient); err != nil {
		return err
	}
	if a.detail, err = parseDetail(a.row.Detail); err != nil {
		return err
	}
	if s.Trouble != nil {
		a.trouble = new(trouble)
		if err := json.Unmarshal(s.Trouble, a.trouble); err != nil {
			return fmt.Errorf("%w: trouble", ErrDamaged)
		}
	}
	return nil
}

// unreadable puts off a row that cannot be opened; one that is damaged is held. It returns when it is due.
func (a *attempt) unreadable(ctx context.Context, err error) time.Time {
	if errors.Is(err, ErrNotFound) {
		return Never // dropped meanwhile
	}
	a.complain(ctx, "queue entry "+a.row.ID, err)
	c := Change{State: a.row.State, Lane: a.row.Lane, Due: a.o.Now().Add(a.o.Schedule[0]), Detail: a.row.Detail}
	if errors.Is(err, ErrDamaged) {
		d := detail{Reason: "cannot be read from storage", Held: "damage"}
		c.State, c.Due, c.Detail = Held, Never, d.encode()
	}
	if err := a.store.Set(ctx, a.row, c, a.o.Now()); err != nil {
		a.complain(ctx, "queue entry "+a.row.ID, err)
		return Never
	}
	return c.Due
}

// decide does what is due for the row and returns how it shall be.
func (a *attempt) decide(ctx, keep context.Context) (Change, Class) {
	a.now = a.o.Now()
	switch {
	case a.row.State == Notice:
		return a.giveNotice(ctx), Unset
	case a.row.State == Held: // its time is over
		return a.fail(a.endStatus(Park, a.detail.Status), "held until its end"), Unset
	case a.row.Lost >= maxLost:
		return a.quarantine("the gateway stopped " + strconv.Itoa(a.row.Lost) + " times in its delivery"), Unset
	}
	if err := a.room.Acquire(ctx, a.weight()); err != nil {
		return a.putBack(), Unset
	}
	r, err := a.deliver(ctx)
	a.room.Release(a.weight())
	a.now = a.o.Now()
	if ctx.Err() != nil && r.Class != Done && r.Class != Permanent {
		return a.putBack(), Unset
	}
	a.detail.Attempts++
	a.detail.Last, a.detail.Asked = a.now, time.Time{}
	if err != nil {
		return a.fault(keep, err), Unset
	}
	a.sound(a.now)
	return a.after(keep, r), r.Class
}

func (a *attempt) weight() int64 { return min(a.row.Octets, a.o.InFlight) }

// deliver calls the Deliverer and turns a panic into an error that says where, not what.
func (a *attempt) deliver(ctx context.Context) (r Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = Result{}, panicError{panicPlace()}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, a.o.Lease*9/10)
	defer cancel()
	r, err = a.d.Deliver(ctx, &Item{
		ID: a.row.ID, Record: a.row.Record, Envelope: a.env, Recipient: a.rcpt, Accepted: a.row.Made, Octets: a.row.Octets,
		Attempt: a.detail.Attempts + 1, Asked: a.detail.Asked, Via: a.detail.Via, Decision: Decision{a.detail.Leg, a.detail.Rule}, q: a.Queue, entry: a.entry, detail: &a.detail,
	})
	if err == nil && r.Class == Unset {
		err = errors.New("no result of a delivery")
	}
	return r, err
}

// panicPlace is the function and line that panicked: called by the deferred function that recovers.
func panicPlace() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			return f.Function + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}

// putBack makes the row due again as if it had not been tried.
func (a *attempt) putBack() Change { return a.change(Waiting, a.now) }

func (a *attempt) change(s State, due time.Time) Change {
	return Change{State: s, Lane: a.row.Domain, Due: due, Detail: a.detail.encode()}
}

// after turns a result into the row's next state.
func (a *attempt) after(ctx context.Context, r Result) Change {
	d := &a.detail
	d.Faults, d.Fault, d.FaultSince = 0, "", time.Time{}
	if r.Class != Protocol {
		d.Protocol = 0
	}
	again := r.Class == Refresh && d.Refreshed
	d.Refreshed = r.Class == Refresh
	if r.Class == Done {
		return a.done(r)
	}
	a.blame(r)
	switch {
	case r.Class == Permanent:
		return a.fail(r.Status, "refused for good")
	case again:
		return a.fail("5.7.5", "refused again with new signets")
	case r.Class == Refresh:
		c := a.change(Waiting, a.now)
		c.DropBuilt, c.Trouble = true, a.sealTrouble()
		return c
	case r.Class == Park:
		return a.park(r)
	case r.Class == Protocol:
		if d.Protocol++; d.Protocol >= maxProtocol {
			return a.fail("5.5.0", "does not keep to the protocol")
		}
	}
	return a.again(ctx, r)
}

// blame notes the failure, in the clear without words, sealed with them.
func (a *attempt) blame(r Result) {
	a.detail.Class, a.detail.Code, a.detail.Status, a.detail.Host, a.detail.Reason = r.Class.String(), r.Code, r.Status, r.Host, r.Reason
	a.detail.Life = r.Life
	a.trouble = &trouble{Status: r.Status, Code: r.Code, Text: r.Text, Host: r.Host, Protocol: r.Protocol, Time: a.now}
}

func (a *attempt) sealTrouble() []byte {
	b, err := json.Marshal(a.trouble)
	if err != nil {
		panic("queue: trouble: " + err.Error()) // strings, numbers, a time of this millennium
	}
	return b
}

// end is when the row's time is over.
func (a *attempt) end(c Class) time.Time {
	life := a.o.Life
	if c == Trust {
		life = a.o.TrustLife
	}
	if a.detail.Life > 0 {
		life = a.detail.Life
	}
	return a.row.Made.Add(life)
}

// endStatus is the status with which waiting ends.
func (a *attempt) endStatus(c Class, status string) string {
	switch {
	case strings.HasPrefix(status, "5."):
		return status
	case c == Trust || c == Park:
		return "5.7.5"
	}
	return expired
}

// expired is the status of an entry whose time is over. Nothing waits for that reason.
const expired = "4.4.7"

// again puts the row off by the schedule, or ends it when its time is over. The last try is at that very time.
func (a *attempt) again(ctx context.Context, r Result) Change {
	end := a.end(r.Class)
	if !a.now.Before(end) {
		return a.fail(a.endStatus(r.Class, r.Status), "its time is over")
	}
	wait := max(a.o.scheduled(a.detail.Attempts), r.MinDelay)
	due := a.now.Add(wait)
	tell := a.row.Made.Add(a.o.DelayNotice)
	if a.o.DelayNotice > 0 && !a.detail.Told && a.wants(NotifyDelay) {
		if !a.now.Before(tell) {
			a.detail.Told = a.tellDelay(ctx, end)
		} else if earliest := a.now.Add(r.MinDelay); tell.Before(due) {
			due = latest(tell, earliest)
		}
	}
	if due.After(end) {
		due = end
	}
	c := a.change(Waiting, due)
	c.Trouble = a.sealTrouble()
	a.o.Log.LogAttrs(ctx, slog.LevelInfo, "deferred", slog.String("entry", a.row.ID), slog.String("domain", a.row.Domain),
		slog.String("class", r.Class.String()), slog.Int("code", r.Code), slog.String("reason", r.Reason), slog.Time("next", due))
	return c
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// scheduled is how long to wait after the n-th try: with up to a tenth more, so that what failed together does not come
// back together.
func (o *Options) scheduled(n int) time.Duration {
	d := o.Schedule[min(max(n, 1), len(o.Schedule))-1]
	return d + o.Rand(d/10+1)
}

// A panicError says where a Deliverer panicked.
type panicError struct{ place string }

func (e panicError) Error() string { return "panic in " + e.place }

// fault counts a fault of ours. The same one often enough holds the row, and mail flows past it: if it is the row's own. A
// panic is; another fault may be everybody's, such as a seal that is closed or a full disk, and then holds nothing back
// that would go by itself when it is mended. It counts as the row's when others were delivered meanwhile.
func (a *attempt) fault(ctx context.Context, err error) Change {
	a.complain(ctx, "queue delivery "+a.row.ID, err)
	if errors.Is(err, ErrFull) { // it is not this entry's: all would be held
		a.blame(Result{Class: Remote, Status: "4.3.1", Reason: "no space left here"})
		return a.again(ctx, Result{Class: Remote, Status: "4.3.1", Reason: a.detail.Reason})
	}
	sum := sha256.Sum256([]byte(err.Error()))
	if what := hex.EncodeToString(sum[:4]); a.detail.Fault != what {
		a.detail.Faults, a.detail.Fault, a.detail.FaultSince = 0, what, a.now
	}
	a.detail.Faults++
	_, own := errors.AsType[panicError](err)
	if own = own || a.soundSince(a.detail.FaultSince); own && a.detail.Faults >= maxFaults {
		return a.quarantine("the same fault of ours " + strconv.Itoa(a.detail.Faults) + " times")
	}
	r := Result{Class: Remote, Status: "4.3.0", Reason: "a fault of ours: see the gateway's log"}
	a.blame(r)
	return a.again(ctx, r)
}

// quarantine holds the row for an administrator; when its time is over its sender is told.
func (a *attempt) quarantine(why string) Change {
	a.detail.Held, a.detail.Reason, a.detail.Status = "quarantine", why, "5.3.0"
	c := a.change(Held, a.row.Made.Add(a.o.Life))
	c.Leaves = []Leaf{{HeldBack, fields("held", "quarantine")}}
	a.o.Log.Error("quarantined", slog.String("entry", a.row.ID), slog.String("domain", a.row.Domain), slog.String("reason", why))
	return c
}

// heldByPolicy is why an entry is held that no administrator touched.
const heldByPolicy = "policy"

func (a *attempt) park(r Result) Change {
	a.detail.Held = heldByPolicy
	due := Never
	if r.Life > 0 {
		due = a.end(Park)
	}
	c := a.change(Held, due)
	c.Trouble = a.sealTrouble()
	c.Leaves = []Leaf{{HeldBack, fields("held", "policy", r.Status)}}
	a.o.Log.Warn("held", slog.String("entry", a.row.ID), slog.String("domain", a.row.Domain), slog.String("reason", r.Reason))
	return c
}

// done ends the row, or keeps it for the notice of success that was asked for.
func (a *attempt) done(r Result) Change {
	a.o.Log.Info("delivered", slog.String("entry", a.row.ID), slog.String("domain", a.row.Domain), slog.String("host", r.Host),
		slog.Int("code", r.Code), slog.Int64("octets", a.row.Octets), slog.Duration("after", a.now.Sub(a.row.Made)))
	leaf := Leaf{Delivered, fields("delivered", a.detail.Leg, r.Host, strconv.Itoa(r.Code))}
	if a.env.ReversePath == "" || a.rcpt.Notify&NotifySuccess == 0 || r.Relayed {
		return a.remove(leaf)
	}
	a.trouble = &trouble{Status: "2.0.0", Code: r.Code, Text: r.Text, Host: r.Host, Protocol: r.Protocol, Time: a.now}
	return a.leave(noticeRelayed, leaf)
}

// fail ends the row for good: its sender is told, where there is one who wants to be.
func (a *attempt) fail(status, why string) Change {
	if !strings.HasPrefix(status, "5.") && !strings.HasPrefix(status, "4.") {
		status = "5.0.0"
	}
	if a.trouble == nil {
		a.trouble = &trouble{Time: a.now}
	}
	a.trouble.Status = status
	a.detail.Status = status
	a.o.Log.Warn("failed", slog.String("entry", a.row.ID), slog.String("domain", a.row.Domain), slog.String("status", status),
		slog.Int("code", a.trouble.Code), slog.String("reason", why))
	leaf := Leaf{Failed, fields("failed", a.detail.Leg, a.trouble.Host, strconv.Itoa(a.trouble.Code), status)}
	if !a.wants(NotifyFailure) {
		return a.remove(leaf)
	}
	return a.leave(noticeFailed, leaf)
}

// wants reports whether the sender is to be told of a failure or a delay: when he did not say, he is.
func (a *attempt) wants(n Notify) bool {
	return a.env.ReversePath != "" && (a.rcpt.Notify == 0 || a.rcpt.Notify&n != 0)
}

func (a *attempt) remove(l ...Leaf) Change {
	c := a.change(a.row.State, Never)
	c.Remove, c.Leaves = true, l
	return c
}

// leave turns the row into a notice that waits.
func (a *attempt) leave(kind string, l Leaf) Change {
	a.detail.Notice, a.detail.Decided, a.detail.NoticeNo = kind, a.now, 0
	c := a.change(Notice, a.now)
	c.Lane, c.Trouble, c.DropBuilt, c.Leaves = noticeLane, a.sealTrouble(), true, []Leaf{l}
	return c
}

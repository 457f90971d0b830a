package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dimegate/internal/killpoint"
)

// A writer runs the transactions of concurrent callers on one connection, many in one commit. There is no goroutine of
// its own: the first caller to find the writer idle leads, runs all that wait, commits, and hands the lead to one of
// those that came meanwhile. While a commit waits for the disk the next batch gathers, so under load the number of
// commits follows the disk and the number of transactions follows the callers.
type writer struct {
	db   *sql.DB
	conn *sql.Conn

	mu      sync.Mutex
	waiting []*job
	busy    bool
	steps   int64         // how often a commit got on
	stillAt int64         // what steps was when somebody looked
	still   time.Duration // for how long it was that
	closed  bool
	idle    chan struct{} // closed by the last leader when close waits for it

	// What follows belongs to the leader.
	stmts   map[string]*sql.Stmt
	present func() error // tells whether the files are where they were; ErrGone
	commits int64        // counted for tests and metrics
	jobs    int64
}

// A commit that does not get on refuses those that wait behind it, with ErrStuck, and those that come then: a client hears that
// it shall come again, and does not hang. What is in the commit itself waits for its outcome, which nobody knows. It does not get
// on when one step of it, a transaction or the disk's part, takes over keyPatience for what makes or ends a key, which must
// refuse within a second, and over mailPatience for everything else: a busy disk takes a second now and then. Who waits looks
// every lookEvery and must have seen it stand still each time: where the process is short of processors, who looks is as late as
// who shall get on.
const (
	lookEvery    = 300 * time.Millisecond
	keyPatience  = 3 * lookEvery
	mailPatience = 16 * lookEvery
)

// maxBatch bounds one commit, and so the time that the first of it waits for the last.
const maxBatch = 512

// A job is one caller's transaction.
type job struct {
	fn       func(*Tx) error
	alone    func() error  // in place of fn: what runs outside a transaction
	patience time.Duration // with a commit before it that does not get on
	lead     chan struct{} // closed when its caller shall lead
	done     chan struct{} // closed when err is set
	err      error
	panic    any
}

// A Tx is a transaction in work; it is valid inside the function that got it. What it read and wrote becomes visible and
// durable with the commit, or not at all.
type Tx struct {
	w     *writer
	batch *batch
}

// A batch is what the transactions of one commit share.
type batch struct {
	log   logState
	after []func() // run once the commit is durable
}

// update runs fn in a transaction and returns when it is durable. An error of fn undoes what fn did, not what others in
// the same commit did. fn may run later than update was called and on another goroutine, but not after update returned.
// When ctx ends before the transaction began, nothing is done; likewise with ErrStuck, when the commit before it does not end.
func (v *Vault) update(ctx context.Context, fn func(*Tx) error) error {
	return v.write.submit(ctx, &job{fn: fn, patience: mailPatience})
}

// updateKey is update for what makes or ends a key.
func (v *Vault) updateKey(ctx context.Context, fn func(*Tx) error) error {
	return v.write.submit(ctx, &job{fn: fn, patience: keyPatience})
}

// submit queues j and returns when it is done; its caller leads when the writer is idle.
func (w *writer) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.lead, j.done = make(chan struct{}), make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	if w.stuck(j.patience) {
		w.mu.Unlock()
		return ErrStuck
	}
	w.waiting = append(w.waiting, j)
	if !w.busy {
		w.busy = true
		close(j.lead)
	}
	w.mu.Unlock()

	if err := w.await(ctx, j); err != nil {
		return err
	}
	if j.panic != nil {
		panic(j.panic)
	}
	return j.err
}

// await returns when j is done. An error: it never began.
func (w *writer) await(ctx context.Context, j *job) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	steps, still := int64(-1), time.Duration(0)
	for {
		select {
		case <-j.done:
			return nil
		case <-j.lead:
			w.runBatch()
			return nil
		case <-ctx.Done():
			if w.withdraw(j) {
				return ctx.Err()
			}
			ctx = context.WithoutCancel(ctx) // too late: it is in work, or its caller was just asked to lead
		case <-look.C:
			if now := w.look(still); now != steps {
				steps, still = now, 0
			} else if still += lookEvery; still >= j.patience && w.withdraw(j) {
				return ErrStuck
			}
		}
	}
}

// look returns how often a commit got on, and notes for how long somebody has seen that it does not.
func (w *writer) look(still time.Duration) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stillAt != w.steps {
		w.stillAt, w.still = w.steps, 0
	} else {
		w.still = max(w.still, still+lookEvery)
	}
	return w.steps
}

// stuck tells whether the commit in work has not got on for so long that nobody of such patience needs to wait. The caller holds mu.
func (w *writer) stuck(patience time.Duration) bool {
	return w.busy && w.stillAt == w.steps && w.still >= patience
}

// move notes that the commit in work gets on.
func (w *writer) move() {
	w.mu.Lock()
	w.steps++
	w.mu.Unlock()
}

// withdraw takes j out of the queue; false when it is no longer there or leads.
func (w *writer) withdraw(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-j.lead:
		return false
	default:
	}
	i := slices.Index(w.waiting, j)
	if i < 0 {
		return false
	}
	w.waiting = slices.Delete(w.waiting, i, i+1)
	return true
}

// runBatch does what waits and passes the lead on. The leader's own job is the first that waits.
func (w *writer) runBatch() {
	w.mu.Lock()
	jobs := w.take()
	w.steps++
	w.mu.Unlock()

	if j := jobs[0]; j.alone != nil {
		j.err = j.alone()
	} else {
		w.commit(jobs)
	}
	for _, j := range jobs {
		close(j.done)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
	if len(w.waiting) > 0 {
		close(w.waiting[0].lead)
		return
	}
	w.busy = false
	if w.idle != nil {
		close(w.idle)
	}
}

// take takes the jobs of one commit, or one that runs alone, from the front of those that wait.
func (w *writer) take() []*job {
	n := 0
	for n < min(len(w.waiting), maxBatch) && w.waiting[n].alone == nil {
		n++
	}
	n = max(n, 1)
	jobs := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return jobs
}

// commit runs jobs in one transaction and sets their err. Each is undone alone when it fails (SAVEPOINT).
func (w *writer) commit(jobs []*job) {
	fail := func(err error) {
		for _, j := range jobs {
			if j.err == nil && j.panic == nil {
				j.err = err
			}
		}
	}
	if err := w.present(); err != nil {
		fail(err)
		return
	}
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		fail(fmt.Errorf("vault: begin: %w", err))
		return
	}
	b := &batch{}
	good := 0
	for _, j := range jobs {
		stands, lost := w.run(b, j)
		if lost != nil {
			fail(lost)
			w.exec("ROLLBACK") // if there is anything of it
			return
		}
		if stands {
			good++
		}
		w.move()
	}
	end := "COMMIT"
	if good == 0 {
		end = "ROLLBACK"
	} else {
		killpoint.Here(killpoint.CommitBefore, nil)
	}
	if err := w.exec(end); err != nil {
		fail(fmt.Errorf("vault: commit: %w", err))
		w.exec("ROLLBACK") // SQLite may have done it already
		return
	}
	if err := w.present(); err != nil { // it went into files that no name leads to
		fail(err)
		return
	}
	if good > 0 {
		killpoint.Here(killpoint.CommitAfter, nil)
		w.mu.Lock()
		w.commits++
		w.jobs += int64(good)
		w.mu.Unlock()
		for _, f := range b.after {
			f()
		}
	}
}

// run runs one job in a savepoint and reports whether its work stands. Lost: the transaction of all is no more, since SQLite undoes
// it as a whole where it has no room or cannot read or write. What ran then would be in no transaction, and stand by itself.
func (w *writer) run(b *batch, j *job) (stands bool, lost error) {
	if j.err = w.exec("SAVEPOINT job"); j.err != nil {
		return false, fmt.Errorf("vault: savepoint: %w", j.err)
	}
	after := len(b.after)
	func() {
		defer func() { j.panic = recover() }()
		j.err = j.fn(&Tx{w: w, batch: b})
	}()
	if j.err == nil && j.panic == nil {
		if j.err = w.exec("RELEASE job"); j.err == nil {
			return true, nil
		}
	}
	b.after = b.after[:after]
	b.log = logState{} // what it appended is undone: read the size again
	if err := w.exec("ROLLBACK TO job"); err != nil {
		if errors.Is(j.err, ErrFull) {
			err = j.err
		}
		return false, fmt.Errorf("vault: the commit was undone: %w", err)
	}
	if err := w.exec("RELEASE job"); err != nil {
		return false, fmt.Errorf("vault: savepoint: %w", err)
	}
	return false, nil
}

// checkpoint empties the write-ahead log, between two commits.
func (w *writer) checkpoint(ctx context.Context) error {
	return w.submit(ctx, &job{patience: mailPatience, alone: func() error {
		s, err := w.prepare("PRAGMA wal_checkpoint(TRUNCATE)")
		if err != nil {
			return err
		}
		var busy, frames, moved int
		if err := s.QueryRowContext(context.Background()).Scan(&busy, &frames, &moved); err != nil {
			return fmt.Errorf("vault: checkpoint: %w", storageError(err))
		}
		if busy != 0 {
			return errors.New("vault: checkpoint: a reader holds the write-ahead log")
		}
		return nil
	}})
}

func (w *writer) close() error {
	w.mu.Lock()
	w.closed = true
	if w.busy {
		w.idle = make(chan struct{})
		idle := w.idle
		w.mu.Unlock()
		<-idle
		w.mu.Lock()
	}
	w.mu.Unlock()
	if w.db == nil {
		return nil
	}
	for _, s := range w.stmts {
		s.Close()
	}
	clear(w.stmts)
	if w.conn != nil {
		w.conn.Close()
	}
	return storageError(w.db.Close())
}

// prepare returns the statement of query, made once. The context is not the caller's: a caller that goes away must not
// cut short the commit of others.
func (w *writer) prepare(query string) (*sql.Stmt, error) {
	if s, ok := w.stmts[query]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, storageError(err)
	}
	w.stmts[query] = s
	return s, nil
}

func (w *writer) exec(query string, args ...any) error {
	s, err := w.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background(), args...)
	return storageError(err)
}

// exec runs a statement. A violated UNIQUE or PRIMARY KEY is ErrExists.
func (tx *Tx) exec(query string, args ...any) error { return tx.w.exec(query, args...) }

// change runs a statement and returns how many rows it changed.
func (tx *Tx) change(query string, args ...any) (int64, error) {
	s, err := tx.w.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, storageError(err)
	}
	n, err := r.RowsAffected()
	return n, storageError(err)
}

// changeOne is change for a row that must be there as the statement says: else ErrChanged.
func (tx *Tx) changeOne(query string, args ...any) error {
	n, err := tx.change(query, args...)
	if err == nil && n != 1 {
		err = ErrChanged
	}
	return err
}

// queryRow reads one row into dst; ErrNotFound when there is none.
func (tx *Tx) queryRow(query string, args []any, dst ...any) error {
	s, err := tx.w.prepare(query)
	if err != nil {
		return err
	}
	return storageError(s.QueryRowContext(context.Background(), args...).Scan(dst...))
}

// queryRows calls scan for each row. scan must not use tx.
func (tx *Tx) queryRows(query string, args []any, scan func(scanner) error) error {
	s, err := tx.w.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return storageError(err)
	}
	return scanAll(rows, scan)
}

// afterCommit runs f once the transaction is durable, such as removing a file that no row names any more.
func (tx *Tx) afterCommit(f func()) { tx.batch.after = append(tx.batch.after, f) }

// Commits tells how many commits there were since the vault was opened, and how many transactions they carried.
func (v *Vault) Commits() (commits, transactions int64) {
	v.write.mu.Lock()
	defer v.write.mu.Unlock()
	return v.write.commits, v.write.jobs
}

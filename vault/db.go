package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"dimegate/internal/safefile"
)

// Names in the vault's folder.
const (
	dbName   = "vault.db"
	bodyDir  = "bodies"
	lockName = "lock"
)

// Options say how a vault is opened.
type Options struct {
	Dir     string
	Host    *Root // nil: what is under the host seal stays closed, and operations on it return ErrSealed
	Signing *Root // likewise
	// Owner is set by the gateway itself, not by commands beside it: it takes the folder's lock (ErrLocked), frees the
	// leases of a process that died, and removes body files that no row names.
	Owner bool
	Now   func() time.Time // nil: time.Now. For ids and leases freed at start; what is stored takes its time from the caller
}

// A Vault is an open storage folder on the embedded engine: SQLite in WAL mode with synchronous=FULL. Writes of concurrent
// callers share a commit; reads go beside them. Safe for concurrent use.
type Vault struct {
	dir     string
	host    *Root
	signing *Root
	minFree int64
	now     func() time.Time
	archive ID
	owner   ID // this opening, in leases

	restores   int   // how often it was made from a backup
	restoredAt int64 // with how many leaves, the last time

	lock  *os.File
	file  os.FileInfo // the database, as it was opened
	write writer
	read  *sql.DB

	stmtMu sync.Mutex
	stmts  map[string]*sql.Stmt // of read

	namedMu sync.Mutex
	named   map[string]Secret // the vault's own keys that were asked for
}

// Create makes the folder dir with an empty vault in it; ErrExists when there is one. It makes no seals.
func Create(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, bodyDir), 0o700); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	if err := safefile.CheckSecret(dir); err != nil {
		return fmt.Errorf("vault: folder: %w", err)
	}
	path := filepath.Join(dir, dbName)
	// Made here, since SQLite would make it for all to read; its -wal and -shm take the same mode.
	if err := safefile.Create(path, nil); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	} else if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	v := &Vault{dir: dir}
	if err := v.openWriter(ctx, true); err != nil {
		os.Remove(path)
		return err
	}
	return v.Close()
}

// Open opens the vault in o.Dir; its owner brings the tables up to date. The caller calls Close.
func Open(ctx context.Context, o Options) (*Vault, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &Vault{dir: o.Dir, host: o.Host, signing: o.Signing, now: o.Now, owner: RandomID(), stmts: map[string]*sql.Stmt{}}
	path := filepath.Join(o.Dir, dbName)
	if err := safefile.CheckSecret(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no folder %s: run gateway init", ErrNotFound, o.Dir)
	} else if err != nil {
		return nil, fmt.Errorf("vault: folder: %w", err)
	}
	if err := safefile.CheckSecret(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no %s: run gateway init", ErrNotFound, path)
	} else if err != nil {
		return nil, fmt.Errorf("vault: database: %w", err)
	}
	if err := v.start(ctx, o.Owner); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// start opens the two sides of the database and does the owner's housekeeping.
func (v *Vault) start(ctx context.Context, owner bool) error {
	if owner {
		if err := v.takeLock(); err != nil {
			return err
		}
	}
	if err := v.openWriter(ctx, owner); err != nil {
		return err
	}
	var err error
	if v.read, err = sql.Open("sqlite", v.dsn("_pragma=query_only(1)")); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	v.read.SetMaxOpenConns(4)
	v.read.SetMaxIdleConns(4)
	id, err := v.meta(ctx, "archive")
	if err != nil {
		return err
	}
	if len(id) != len(ID{}) {
		return fmt.Errorf("%w: archive id", ErrCorrupt)
	}
	v.archive = ID(id)
	if err := v.readRestores(ctx); err != nil {
		return err
	}
	if !owner {
		return nil
	}
	if err := v.freeLeases(ctx); err != nil {
		return err
	}
	return v.sweepBodies(ctx)
}

// Close waits for the commit in work and closes the database. The vault's roots stay the caller's.
func (v *Vault) Close() error {
	err := v.write.close()
	if v.read != nil {
		v.stmtMu.Lock()
		for _, s := range v.stmts {
			s.Close()
		}
		clear(v.stmts)
		v.stmtMu.Unlock()
		err = errors.Join(err, v.read.Close())
	}
	v.namedMu.Lock()
	for _, k := range v.named {
		k.Destroy()
	}
	clear(v.named)
	v.namedMu.Unlock()
	if v.lock != nil {
		err = errors.Join(err, v.lock.Close()) // gives the lock back
	}
	return err
}

// KeepFree sets how many octets must be free on the folder's file system for a message to be accepted: below it ErrFull.
// It is called before the vault is used.
func (v *Vault) KeepFree(octets int64) { v.minFree = octets }

// Archive is the random id of this vault, which labels and leaves carry.
func (v *Vault) Archive() ID { return v.archive }

// takeLock makes this process the only owner of the folder.
func (v *Vault) takeLock() (err error) {
	if v.lock, err = lockFile(filepath.Join(v.dir, lockName)); errors.Is(err, ErrLocked) {
		err = fmt.Errorf("%w: %s", ErrLocked, v.dir)
	}
	return err
}

// lockFile takes a file for this process alone, until it is closed or the process ends. ErrLocked.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("vault: lock: %w", err)
	}
	return f, nil
}

// dsn is the data source name with what both sides need. It says how long one process waits for another's commit: a command
// ten seconds, the gateway, with a client at its door, less than a second. A connection never makes a database: beside an empty
// one SQLite removes the write-ahead log, and with it what was committed there.
func (v *Vault) dsn(pragmas ...string) string {
	wait := 10 * time.Second
	if v.lock != nil {
		wait = keyPatience
	}
	s := "file:" + (&url.URL{Path: filepath.Join(v.dir, dbName)}).EscapedPath() + fmt.Sprintf("?mode=rw&_pragma=busy_timeout(%d)", wait.Milliseconds())
	for _, p := range pragmas {
		s += "&" + p
	}
	return s
}

// openWriter opens the one connection that writes and migrates the schema on it. secure_delete(fast) clears what is
// deleted inside pages that stay; for what must be nowhere, wraps, see wraps.go.
// What a savepoint keeps for its undoing stays in memory: it would be a file in the system's folder for such, written anew
// for each job of a commit. A checkpoint comes every 16 MiB: each copies the pages that every commit changes once more.
func (v *Vault) openWriter(ctx context.Context, mayMigrate bool) error {
	db, err := sql.Open("sqlite", v.dsn("_pragma=journal_mode(wal)", "_pragma=synchronous(full)", "_pragma=foreign_keys(1)",
		"_pragma=secure_delete(fast)", "_pragma=journal_size_limit(67108864)", "_pragma=temp_store(2)", "_pragma=wal_autocheckpoint(4096)", "_pragma=trusted_schema(0)"))
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return fmt.Errorf("vault: %s: %w", filepath.Join(v.dir, dbName), storageError(err))
	}
	v.write.db, v.write.conn, v.write.stmts = db, conn, map[string]*sql.Stmt{}
	if err := migrate(ctx, conn, mayMigrate); err != nil {
		return err
	}
	if v.file, err = os.Stat(filepath.Join(v.dir, dbName)); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	v.write.present = v.watchFiles()
	return nil
}

// watchFiles returns a function that tells whether the database and its write-ahead log are still the files that are open: what
// is written to files that were removed or replaced is gone with the process. It belongs to the leader.
func (v *Vault) watchFiles() func() error {
	path := filepath.Join(v.dir, dbName) + "-wal"
	var wal os.FileInfo // made with the first write
	return func() error {
		if err := v.present(); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if wal == nil && err == nil {
			wal = st
		}
		if wal != nil && (err != nil || !os.SameFile(wal, st)) {
			return fmt.Errorf("%w: %s", ErrGone, path)
		}
		return nil
	}
}

// present tells whether the database is where it was.
func (v *Vault) present() error {
	path := filepath.Join(v.dir, dbName)
	if st, err := os.Stat(path); err != nil || !os.SameFile(v.file, st) {
		return fmt.Errorf("%w: %s", ErrGone, path)
	}
	return nil
}

// Fault tells why nothing can be written now, as far as that shows without writing: ErrGone, ErrStuck; nil when it can.
func (v *Vault) Fault() error {
	v.write.mu.Lock()
	stuck := v.write.stuck(mailPatience)
	v.write.mu.Unlock()
	if stuck {
		return ErrStuck
	}
	return v.present()
}

// prepared returns a statement of the reading side, made once.
func (v *Vault) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	v.stmtMu.Lock()
	defer v.stmtMu.Unlock()
	if s, ok := v.stmts[query]; ok {
		return s, nil
	}
	s, err := v.read.PrepareContext(ctx, query)
	if err != nil {
		return nil, storageError(err)
	}
	v.stmts[query] = s
	return s, nil
}

// queryRow reads one row into dst; ErrNotFound when there is none. It is over before a context could end it, and what would
// watch one costs the driver and database/sql a goroutine each.
func (v *Vault) queryRow(ctx context.Context, query string, args []any, dst ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	s, err := v.prepared(ctx, query)
	if err != nil {
		return err
	}
	return storageError(s.QueryRowContext(ctx, args...).Scan(dst...))
}

// queryRows calls scan for each row.
func (v *Vault) queryRows(ctx context.Context, query string, args []any, scan func(scanner) error) error {
	s, err := v.prepared(ctx, query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return storageError(err)
	}
	return scanAll(rows, scan)
}

// A scanner is a *sql.Row or *sql.Rows at one row.
type scanner interface{ Scan(dst ...any) error }

func scanAll(rows *sql.Rows, scan func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return storageError(err)
		}
	}
	return storageError(rows.Err())
}

// meta reads one value of the table meta.
func (v *Vault) meta(ctx context.Context, name string) ([]byte, error) {
	var b []byte
	err := v.queryRow(ctx, `SELECT value FROM meta WHERE name = ?`, []any{name}, &b)
	return b, err
}

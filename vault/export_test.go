package vault

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// SetMaxPages lets the database grow to n pages at most; fewer than it has means: not at all.
func (v *Vault) SetMaxPages(t testing.TB, n int) {
	t.Helper()
	err := v.write.submit(context.Background(), &job{patience: mailPatience, alone: func() error {
		var got int
		return v.write.conn.QueryRowContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", n)).Scan(&got)
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// Batch runs fs in one commit and returns what each came to. A nil one is work that loses the transaction of all: SQLite undoes it
// as a whole where it has no room in the middle.
func (v *Vault) Batch(fs ...func(*Tx) error) []error {
	jobs := make([]*job, len(fs))
	for i, f := range fs {
		if f == nil {
			f = func(tx *Tx) error {
				if err := tx.exec("PRAGMA max_page_count = 1"); err != nil {
					return err
				}
				return tx.exec("INSERT INTO meta (name, value) VALUES ('large', zeroblob(1000000))")
			}
		}
		jobs[i] = &job{fn: f}
	}
	errs := make([]error, len(fs))
	v.write.submit(context.Background(), &job{patience: mailPatience, alone: func() error {
		v.write.commit(jobs)
		return nil
	}})
	for i, j := range jobs {
		errs[i] = j.err
	}
	return errs
}

// PutMeta writes one value of the table meta.
func (tx *Tx) PutMeta(name string, value []byte) error {
	return tx.exec("INSERT INTO meta (name, value) VALUES (?, ?)", name, value)
}

// Meta reads it.
func (v *Vault) Meta(name string) ([]byte, error) { return v.meta(context.Background(), name) }

// Stick keeps a commit in work until release is called.
func (v *Vault) Stick(t testing.TB) (release func()) {
	t.Helper()
	began, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- v.update(context.Background(), func(*Tx) error { close(began); <-end; return nil })
	}()
	<-began
	return func() {
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// ParseSealHeader reads a header and encodes it again.
func ParseSealHeader(b []byte) ([]byte, error) {
	h, err := parseSealHeader(b)
	if err != nil {
		return nil, err
	}
	return h.encode(), nil
}

// CreateAt makes a vault as a gateway of an earlier schema version made it. Not beside other tests.
func CreateAt(t testing.TB, dir string, version int) {
	t.Helper()
	all := migrations
	migrations = all[:version]
	defer func() { migrations = all }()
	if err := Create(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
}

// Erase destroys a key before its time.
func (v *Vault) Erase(key ID, now time.Time) error {
	return v.update(context.Background(), func(tx *Tx) error { return tx.erase(key, now) })
}

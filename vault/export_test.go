package vault

import (
	"context"
	"fmt"
	"testing"
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

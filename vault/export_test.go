package vault

import (
	"context"
	"fmt"
	"testing"
)

// SetMaxPages lets the database grow to n pages at most; fewer than it has means: not at all.
func (v *Vault) SetMaxPages(t testing.TB, n int) {
	t.Helper()
	err := v.write.submit(context.Background(), &job{alone: func() error {
		var got int
		return v.write.conn.QueryRowContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", n)).Scan(&got)
	}})
	if err != nil {
		t.Fatal(err)
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

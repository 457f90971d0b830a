package vault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dimegate/internal/testvault"
	"dimegate/vault"
)

// TestCase is a case's life in the vault: a hold from its first moment, leaves with every change, files that go when it closes.
func TestCase(t *testing.T) {
	folder := testvault.New(t)
	v, ctx, now := folder.Open(t, vault.Options{}), t.Context(), time.Now()
	c := vault.Case{ID: vault.NewID(now), State: vault.CaseOpen, Opened: now, Expires: now.Add(time.Hour), Octets: []byte("about bernadette")}
	h := vault.LegalHold{ID: vault.NewID(now), Basis: "an order", Custodians: []string{"Anna@example.org"}, Classes: []uint16{1}}
	if err := v.OpenCase(ctx, c, h, []byte("a notice"), now); err != nil {
		t.Fatal(err)
	}
	got, err := v.Case(ctx, c.ID)
	if err != nil || string(got.Octets) != string(c.Octets) || got.State != vault.CaseOpen || !got.Expires.Equal(now.Add(time.Hour).Truncate(time.Millisecond)) {
		t.Fatalf("read %+v, %v", got, err)
	}
	holds, err := v.Holds(ctx)
	if err != nil || len(holds) != 1 || holds[0].Case != c.ID || !holds[0].Covers("anna@example.org", 1, now) {
		t.Fatalf("holds %+v, %v", holds, err)
	}
	big := make([]byte, 3<<20)
	rand.Read(big)
	w, err := v.CreateCaseFile(ctx, c.ID, "answer-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}
	if r, err := v.OpenCaseFile(ctx, c.ID, "answer-1"); err == nil {
		if _, err = io.ReadAll(r); err == nil {
			t.Error("a file that was not written to its end is read")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := v.OpenCaseFile(ctx, c.ID, "answer-1")
	if err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, big) {
		t.Fatalf("read back %d octets, %v", len(back), err)
	}
	boom := errors.New("no")
	if err := v.ChangeCase(ctx, c.ID, now, func(c *vault.Case) ([]vault.CaseLeaf, error) { c.State = vault.CaseClosed; return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := v.ChangeCase(ctx, c.ID, now, func(c *vault.Case) ([]vault.CaseLeaf, error) {
		c.State = vault.CaseClosed
		return []vault.CaseLeaf{{Type: vault.LeafCaseClosed, Public: vault.NewDigest("x"), Payload: []byte("exported")}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	leaves, err := v.CaseLeaves(ctx, c.ID)
	if err != nil || len(leaves) != 2 || string(leaves[0].Payload) != "a notice" || leaves[1].Type != vault.LeafCaseClosed || string(leaves[1].Payload) != "exported" {
		t.Fatalf("leaves %+v, %v", leaves, err)
	}
	if _, err := v.OpenCaseFile(ctx, c.ID, "answer-1"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after close: %v", err)
	}
	if err := v.EndHold(ctx, h.ID, []byte("over"), now); err != nil {
		t.Fatal(err)
	}
	if err := v.EndHold(ctx, h.ID, nil, now); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("ended twice: %v", err)
	}
	if holds, err = v.Holds(ctx); err != nil || holds[0].Covers("anna@example.org", 1, now) {
		t.Errorf("an ended hold holds: %v", err)
	}
	v.Close()
	for _, name := range []string{"vault.db", "vault.db-wal"} {
		b, _ := os.ReadFile(filepath.Join(folder.Dir, name))
		for _, word := range []string{"bernadette", "an order", "Anna@example.org", "anna@example.org", "a notice"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s holds %q in the clear", name, word)
			}
		}
	}
}

func TestHoldCovers(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	h := vault.LegalHold{Custodians: []string{"a@x.example"}, Classes: []uint16{1, 2}, From: day(10), To: day(20)}
	tests := map[string]struct {
		custodian string
		class     uint16
		made      time.Time
		want      bool
	}{
		"inside":            {"A@x.example", 2, day(15), true},
		"first moment":      {"a@x.example", 1, day(10), true},
		"end":               {"a@x.example", 1, day(20), false},
		"before":            {"a@x.example", 1, day(9), false},
		"another class":     {"a@x.example", 3, day(15), false},
		"another custodian": {"b@x.example", 1, day(15), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := h.Covers(tt.custodian, tt.class, tt.made); got != tt.want {
				t.Errorf("covers: %v", got)
			}
		})
	}
	if !h.CoversMonth("a@x.example", 1, day(1), day(31)) || h.CoversMonth("a@x.example", 1, day(20), day(31)) || !(vault.LegalHold{}).Covers("x", 9, day(1)) {
		t.Error("a month, or everything")
	}
}

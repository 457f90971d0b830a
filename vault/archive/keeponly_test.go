package archive_test

import (
	"errors"
	"testing"

	"dimegate/vault"
	"dimegate/vault/archive"
)

// TestKeepOnly: records of which nobody waits are found like others, are opened by nothing of the host's, and are kept all or none.
func TestKeepOnly(t *testing.T) {
	w := newWorld(t)
	w.install()
	draft := func(text string, kept bool) vault.KeptOnly {
		d, err := w.v.NewDraft()
		w.ok(err)
		if kept {
			f, err := w.a.Keeping(t.Context(), toElse)
			w.ok(err)
			d.Keep(f)
		}
		_, err = d.Write([]byte(text))
		w.ok(err)
		return vault.KeptOnly{Draft: d, Envelope: []byte("envelope")}
	}
	if _, err := w.v.KeepOnly(t.Context(), []vault.KeptOnly{draft("one", true), draft("two", false)}, w.now); err == nil {
		t.Fatal("a record that nothing opens was kept")
	}
	alice := archive.Query{Custodians: []string{"alice@corp.example"}, Direction: vault.Internal}
	if hits := w.search(alice); len(hits) != 0 {
		t.Fatalf("half of it was kept: %+v", hits)
	}
	ids, err := w.v.KeepOnly(t.Context(), []vault.KeptOnly{draft("one", true), draft("one", true)}, w.now)
	w.ok(err)
	hits := w.search(alice)
	if len(ids) != 2 || len(hits) != 2 || hits[0].Content != hits[1].Content || hits[0].Direction != vault.Internal {
		t.Fatalf("found %+v", hits)
	}
	for _, id := range ids {
		if _, err := w.v.Record(t.Context(), id); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the host opens it: %v", err)
		}
	}
}

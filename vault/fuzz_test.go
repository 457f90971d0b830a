package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dimegate/vault"
)

// FuzzSealHeader: what is read is written in a form that is read as the same.
func FuzzSealHeader(f *testing.F) {
	path := filepath.Join(f.TempDir(), "host.seal")
	if _, err := vault.CreateSeal(f.Context(), path, vault.HostRole, made, keyFile(f, "k"), keyFile(f, "l")); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":"dimegate-seal-1","role":"host","roots":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		once, err := vault.ParseSealHeader(b)
		if err != nil {
			if !errors.Is(err, vault.ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		if twice, err := vault.ParseSealHeader(once); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%v: %q is read again as %q", err, once, twice)
		}
	})
}

func FuzzParseLeaf(f *testing.F) {
	f.Add(vault.Leaf{Type: vault.LeafIntake, Time: made}.Octets())
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := vault.ParseLeaf(b); err == nil && !bytes.Equal(l.Octets(), b) {
			t.Errorf("encodes differently:\n in %x\nout %x", b, l.Octets())
		}
	})
}

// FuzzUnwrap: no octets panic, and none but a wrap open.
func FuzzUnwrap(f *testing.F) {
	root, err := vault.CreateSeal(f.Context(), filepath.Join(f.TempDir(), "host.seal"), vault.HostRole, made, keyFile(f, "k"))
	if err != nil {
		f.Fatal(err)
	}
	key := vault.NewSecret()
	good, err := root.Wrap(key, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := root.Unwrap(b, nil); err == nil && (!bytes.Equal(b, good) || !k.Equal(key)) {
			t.Errorf("%x opened", b)
		}
	})
}

package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

var made = time.Date(2026, 11, 17, 8, 0, 0, 0, time.UTC)

// keyFile makes a key file and its seal.
func keyFile(t testing.TB, name string) vault.Seal {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := vault.CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := vault.KeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func passphrase(t testing.TB, name, words string) vault.Seal {
	t.Helper()
	s, err := vault.Passphrase(name, []byte(words))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAnySealOpens: two seals, each opens alone, and what one wrapped the other unwraps.
func TestAnySealOpens(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "host.seal")
	file, pass := keyFile(t, "a.key"), passphrase(t, "boot", "correct horse battery")
	root, err := vault.CreateSeal(ctx, path, vault.HostRole, made, file, pass)
	if err != nil {
		t.Fatal(err)
	}
	key := vault.NewSecret()
	wrap, err := root.Wrap(key, vault.Label("record", "1"))
	if err != nil || len(wrap) != vault.WrapSize {
		t.Fatalf("%d octets, %v", len(wrap), err)
	}
	missing := map[string][]string{"file": {"passphrase boot"}, "pass": {"keyfile " + file.ID()}, "both": nil}
	for name, seals := range map[string][]vault.Seal{"file": {file}, "pass": {pass}, "both": {pass, file}} {
		t.Run(name, func(t *testing.T) {
			r, err := vault.OpenSeal(ctx, path, vault.HostRole, seals...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range r.Missing() {
				got = append(got, m.String())
			}
			if !slices.Equal(got, missing[name]) {
				t.Errorf("missing %q, want %q", got, missing[name])
			}
			if got, err := r.Unwrap(wrap, vault.Label("record", "1")); err != nil || !got.Equal(key) {
				t.Errorf("unwrap: %v", err)
			}
		})
	}
	if err := safefile.CheckSecret(path); err != nil {
		t.Error(err)
	}
}

func TestSealRefusals(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	path := filepath.Join(dir, "host.seal")
	file := keyFile(t, "a.key")
	if _, err := vault.CreateSeal(ctx, path, vault.HostRole, made, file, passphrase(t, "boot", "correct horse battery")); err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	variant := func(name string, content []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	open := filepath.Join(dir, "open.seal")
	if err := os.WriteFile(open, header, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		role vault.Role
		seal vault.Seal
		want error
		says string
	}{
		"wrong passphrase":  {path, vault.HostRole, passphrase(t, "boot", "incorrect horse battery"), vault.ErrSealed, "passphrase boot: vault: sealed under another key"},
		"other name":        {path, vault.HostRole, passphrase(t, "root", "correct horse battery"), vault.ErrSealed, "not given"},
		"other key file":    {path, vault.HostRole, keyFile(t, "b.key"), vault.ErrSealed, "not given"},
		"other role":        {path, vault.SigningRole, file, nil, "header of the host seal"},
		"no file":           {filepath.Join(dir, "none"), vault.HostRole, file, fs.ErrNotExist, "none"},
		"group can read":    {open, vault.HostRole, file, safefile.ErrOpenToOthers, "chmod 600"},
		"cut":               {variant("cut", header[:len(header)/2]), vault.HostRole, file, vault.ErrCorrupt, "not the JSON"},
		"two":               {variant("two", append(bytes.Clone(header), header...)), vault.HostRole, file, vault.ErrCorrupt, "follows"},
		"other format":      {variant("fmt", bytes.Replace(header, []byte("seal-1"), []byte("seal-2"), 1)), vault.HostRole, file, vault.ErrCorrupt, "dimegate-seal-1"},
		"relabelled":        {variant("kind", bytes.Replace(header, []byte(`"role": "host"`), []byte(`"role": "signing"`), 1)), vault.SigningRole, file, vault.ErrSealed, "another key"},
		"unknown key":       {variant("key", bytes.Replace(header, []byte(`"role"`), []byte(`"rule"`), 1)), vault.HostRole, file, vault.ErrCorrupt, "not the JSON"},
		"blob of the other": {variant("blob", swapBlobs(t, header)), vault.HostRole, file, vault.ErrSealed, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := vault.OpenSeal(ctx, tt.path, tt.role, tt.seal)
			if r != nil || err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, %v; want %v saying %q", r, err, tt.want, tt.says)
			}
		})
	}
	if _, err := vault.CreateSeal(ctx, path, vault.HostRole, made, file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created over a header: %v", err)
	}
	if _, err := vault.Passphrase("short", []byte("12345678901")); err == nil {
		t.Error("took a short passphrase")
	}
}

// swapBlobs exchanges the two longest JSON strings of a header: its blobs.
func swapBlobs(t *testing.T, header []byte) []byte {
	t.Helper()
	parts := strings.Split(string(header), `"blob": "`)
	if len(parts) != 3 {
		t.Fatalf("header has %d blobs", len(parts)-1)
	}
	a, b := strings.SplitN(parts[1], `"`, 2), strings.SplitN(parts[2], `"`, 2)
	a[0], b[0] = b[0], a[0]
	parts[1], parts[2] = strings.Join(a, `"`), strings.Join(b, `"`)
	return []byte(strings.Join(parts, `"blob": "`))
}

func TestAddAndRemoveSeal(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "signing.seal")
	first, second := keyFile(t, "a.key"), keyFile(t, "b.key")
	root, err := vault.CreateSeal(ctx, path, vault.SigningRole, made, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := vault.RemoveSeal(path, "keyfile", first.ID(), nil); err == nil {
		t.Error("removed the only seal")
	}
	if err := vault.AddSeal(ctx, path, root, second, nil); err != nil {
		t.Fatal(err)
	}
	if err := vault.AddSeal(ctx, path, root, second, nil); !errors.Is(err, vault.ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	if err := vault.RemoveSeal(path, "keyfile", first.ID(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.OpenSeal(ctx, path, vault.SigningRole, first); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("the removed seal: %v", err)
	}
	if _, err := vault.OpenSeal(ctx, path, vault.SigningRole, second); err != nil {
		t.Errorf("the seal that stayed: %v", err)
	}
	if err := vault.RemoveSeal(path, "keyfile", first.ID(), nil); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}

func TestWrapIsBound(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	roots := map[vault.Role]*vault.Root{}
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		r, err := vault.CreateSeal(ctx, filepath.Join(dir, role.String()), role, made, keyFile(t, "k"))
		if err != nil {
			t.Fatal(err)
		}
		roots[role] = r
	}
	host := roots[vault.HostRole]
	wrap, err := host.Wrap(vault.NewSecret(), vault.Label("a", "bc"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(wrap) * 8 {
		bad := bytes.Clone(wrap)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := host.Unwrap(bad, vault.Label("a", "bc")); err == nil {
			t.Fatalf("bit %d flipped: unwrapped", i)
		}
	}
	if _, err := host.Unwrap(wrap, vault.Label("ab", "c")); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("other label: %v", err)
	}
	if _, err := roots[vault.SigningRole].Unwrap(wrap, vault.Label("a", "bc")); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("other role: %v", err)
	}
	var none *vault.Root
	if _, err := none.Unwrap(wrap, nil); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("no root: %v", err)
	}
	if _, err := none.Wrap(vault.NewSecret(), nil); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("no root: %v", err)
	}
}

func TestKeyFileRefusals(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := vault.CreateKeyFile(good); err != nil {
		t.Fatal(err)
	}
	if err := vault.CreateKeyFile(good); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"empty":     "",
		"cut":       string(text[:len(text)-2]),
		"no prefix": string(text[len("dimegate-keyfile-1 "):]),
		"two lines": string(text) + "\n",
		"words":     "correct horse battery staple\n",
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := vault.KeyFile(path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want an error that names the file", err)
			}
		})
	}
	if err := os.Chmod(good, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.KeyFile(good); !errors.Is(err, safefile.ErrOpenToOthers) {
		t.Errorf("group-readable: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s, err := vault.SecretOf([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	p := passphrase(t, "boot", "correct horse battery")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		out := fmt.Sprintf(verb+verb, s, struct{ K vault.Secret }{s}) + fmt.Sprintf(verb, p)
		if strings.Contains(out, "0123") || strings.Contains(out, "3031") || strings.Contains(out, "horse") || strings.Contains(out, "48 49") {
			t.Errorf("%s prints %s", verb, out)
		}
	}
	b := s.Octets()
	s.Destroy()
	if string(b[:4]) != "0123" || s.Octets()[0] != 0 {
		t.Error("Octets is no copy, or Destroy does not clear")
	}
}

func TestID(t *testing.T) {
	a, b := vault.NewID(made), vault.NewID(made.Add(time.Millisecond))
	if a.String() >= b.String() {
		t.Errorf("%v is older than %v and sorts after it", a, b)
	}
	got, err := vault.ParseID(a.String())
	if err != nil || got != a {
		t.Errorf("%v, %v, want %v", got, err, a)
	}
	for _, bad := range []string{"", "0", strings.ToUpper(a.String()) + "0", a.String()[:25] + "v", a.String() + "0"} {
		if id, err := vault.ParseID(bad); err == nil && id.String() != bad {
			t.Errorf("%q is taken for %v", bad, id)
		}
	}
}

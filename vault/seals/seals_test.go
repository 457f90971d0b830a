package seals_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/vault"
	"dimegate/vault/seals"
)

var label = vault.Label("root", "host", "12345678")

func TestShares(t *testing.T) {
	ctx := t.Context()
	s, list, err := seals.NewShares(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	key := vault.NewSecret()
	blob, err := s.Wrap(ctx, key, label)
	if err != nil {
		t.Fatal(err)
	}
	public, err := seals.PublicShares(blob)
	if err != nil || public.ID() != s.ID() {
		t.Fatalf("public half: %v", err)
	}
	again, err := public.Wrap(ctx, key, label) // without any holder
	if err != nil {
		t.Fatal(err)
	}
	_, others, err := seals.NewShares(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(list[1].Line(), []byte(" 2 "), []byte(" 3 "), 1)
	bad, err := seals.ParseShare(forged)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		blob  []byte
		label []byte
		given []seals.Share
		want  error
	}{
		"three":            {blob, label, []seals.Share{list[4], list[0], list[2]}, nil},
		"five":             {blob, label, list, nil},
		"the public one's": {again, label, list[2:], nil},
		"two":              {blob, label, list[:2], vault.ErrNotGiven},
		"another set":      {blob, label, others, vault.ErrWrongKey},
		"a forged one":     {blob, label, []seals.Share{list[0], list[1], bad}, vault.ErrWrongKey},
		"other label":      {blob, []byte("x"), list, vault.ErrWrongKey},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var parsed []seals.Share
			for _, g := range tt.given {
				p, err := seals.ParseShare(g.Line())
				if err != nil {
					t.Fatal(err)
				}
				parsed = append(parsed, p)
			}
			o, err := seals.OpenShares(parsed...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.Unwrap(ctx, tt.blob, tt.label)
			if !errors.Is(err, tt.want) || (err == nil) != got.Equal(key) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	if _, err := seals.OpenShares(list[0], list[0], list[1]); err == nil {
		t.Error("a share twice")
	}
	o, err := seals.OpenShares(list...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if _, err := o.Unwrap(ctx, bad, label); err == nil {
			t.Fatalf("octet %d changed: opened", i)
		}
	}
}

func FuzzParseShare(f *testing.F) {
	_, list, err := seals.NewShares(2, 2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(list[0].Line())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := seals.ParseShare(b); err == nil && strings.TrimSuffix(string(s.Line()), "\n") != strings.TrimSuffix(string(b), "\n") {
			t.Errorf("%q is written otherwise", b)
		}
	})
}

// bao is a transit engine as its HTTP API is published, with real AES-256-GCM.
type bao struct {
	aead   cipher.AEAD
	sealed bool
	broken bool // refuses what it encrypted itself
}

func (b *bao) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Plaintext, Ciphertext string
		AssociatedData        string `json:"associated_data"`
	}
	refuse := func(code int) { w.WriteHeader(code); w.Write([]byte(`{"errors":["no"]}`)) }
	op, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/transit/"), "/host")
	switch {
	case b.sealed:
		refuse(http.StatusServiceUnavailable)
		return
	case r.Header.Get("X-Vault-Token") != "hvs.good":
		refuse(http.StatusForbidden)
		return
	case b.broken && op == "decrypt", r.Method != http.MethodPost || !ok || json.NewDecoder(r.Body).Decode(&q) != nil:
		refuse(http.StatusBadRequest)
		return
	}
	ad, err := base64.StdEncoding.DecodeString(q.AssociatedData)
	data := map[string]string{}
	switch {
	case err != nil:
	case op == "encrypt":
		plain, perr := base64.StdEncoding.DecodeString(q.Plaintext)
		nonce := make([]byte, 12)
		rand.Read(nonce)
		data["ciphertext"], err = "vault:v1:"+base64.StdEncoding.EncodeToString(b.aead.Seal(nonce, nonce, plain, ad)), perr
	case op == "decrypt":
		raw, derr := base64.StdEncoding.DecodeString(strings.TrimPrefix(q.Ciphertext, "vault:v1:"))
		if err = derr; err == nil && len(raw) >= 12 {
			var plain []byte
			plain, err = b.aead.Open(nil, raw[:12], raw[12:], ad)
			data["plaintext"] = base64.StdEncoding.EncodeToString(plain)
		}
	}
	if err != nil {
		refuse(http.StatusBadRequest)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func TestTransit(t *testing.T) {
	ctx := t.Context()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	server := &bao{}
	if server.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server)
	token := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(token, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("hvs.good")
	s, err := seals.Transit(seals.TransitConfig{Address: h.URL, Mount: "transit", Key: "host", TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	key := vault.NewSecret()
	blob, err := s.Wrap(ctx, key, label)
	if err != nil || !strings.HasPrefix(string(blob), "vault:v1:") {
		t.Fatalf("%v", err)
	}
	if got, err := s.Unwrap(ctx, blob, label); err != nil || !got.Equal(key) {
		t.Fatalf("unwrap: %v", err)
	}
	check := func(name string, label []byte, want error) {
		t.Helper()
		if _, err := s.Unwrap(ctx, blob, label); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	check("other label", []byte("x"), vault.ErrWrongKey)
	write("hvs.bad")
	check("token refused", label, vault.ErrAway)
	write("hvs.good")
	server.broken = true // the same status as for another label
	check("broken", label, vault.ErrAway)
	if _, err := s.Unwrap(ctx, blob, label); errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("an outage is taken for a wrong key: %v", err)
	}
	server.broken = false
	server.sealed = true
	check("sealed", label, vault.ErrAway)
	h.Close()
	check("gone", label, vault.ErrAway)
	if _, err := seals.Transit(seals.TransitConfig{Address: "http://bao.example:8200", Mount: "transit", Key: "host"}); err == nil {
		t.Error("in the clear to another machine")
	}
}

// heldKey is a token's key held in memory.
type heldKey struct{ aead cipher.AEAD }

func (k heldKey) Wrap(key, label []byte) ([]byte, error) {
	return k.aead.Seal(nil, make([]byte, 12), key, label), nil
}

func (k heldKey) Unwrap(blob, label []byte) ([]byte, error) {
	out, err := k.aead.Open(nil, make([]byte, 12), blob, label)
	if err != nil {
		err = vault.ErrWrongKey
	}
	return out, err
}

func TestHelperProtocol(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(permit bool) (vault.Seal, func()) {
		socket := filepath.Join(t.TempDir(), "s")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- seals.ServeToken(ctx, ln, heldKey{aead}, func(uid uint32) bool { return permit && int(uid) == os.Getuid() }, func(uint32, string, error) {})
		}()
		return seals.Token(socket, "t"), func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	ctx := t.Context()
	s, stop := serve(true)
	key := vault.NewSecret()
	blob, err := s.Wrap(ctx, key, label)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Unwrap(ctx, blob, label); err != nil || !got.Equal(key) {
		t.Errorf("unwrap: %v", err)
	}
	if _, err := s.Unwrap(ctx, blob, []byte("x")); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("other label: %v", err)
	}
	if _, err := s.Unwrap(ctx, make([]byte, 5000), label); err == nil {
		t.Error("a question over the bound")
	}
	stop()
	if _, err := s.Unwrap(ctx, blob, label); !errors.Is(err, vault.ErrAway) {
		t.Errorf("no helper: %v", err)
	}
	s, stop = serve(false)
	if _, err := s.Unwrap(ctx, blob, label); !errors.Is(err, vault.ErrAway) {
		t.Errorf("not permitted: %v", err)
	}
	stop()
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	if err := vault.CreateKeyFile(filepath.Join(dir, "host")); err != nil {
		t.Fatal(err)
	}
	s, err := seals.Credential(dir, "host")
	if err != nil || s.Kind() != "credential" || s.ID() != "host" {
		t.Fatalf("%v", err)
	}
	key := vault.NewSecret()
	blob, err := s.Wrap(t.Context(), key, label)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Unwrap(t.Context(), blob, label); err != nil || !got.Equal(key) {
		t.Errorf("unwrap: %v", err)
	}
	if _, err := seals.Credential("", "host"); !errors.Is(err, vault.ErrAway) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := seals.Credential(dir, "../host"); err == nil {
		t.Error("a path")
	}
}

func FuzzParseQuestion(f *testing.F) {
	f.Add([]byte("DTK1\x02\x00\x01xblob"))
	f.Add(append([]byte("DTK1\x01\x00\x01x"), make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, q []byte) {
		op, label, payload, ok := seals.ParseQuestion(q)
		if ok && (len(label)+len(payload)+7 != len(q) || op == 1 && len(payload) != vault.SecretSize) {
			t.Errorf("operation %d, %d and %d of %d octets", op, len(label), len(payload), len(q))
		}
	})
}

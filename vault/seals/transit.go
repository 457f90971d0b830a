package seals

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

// A TransitConfig names a key of a transit engine. Its type must do associated data: aes256-gcm96, the engine's default,
// aes128-gcm96, chacha20-poly1305 and xchacha20-poly1305 do.
type TransitConfig struct {
	Address   string // https://host:port; plain http to loopback alone
	Mount     string // where the engine is mounted: "transit"
	Key       string
	TokenFile string // mode 0600; read at each use, so an agent may renew it
	CAFile    string // PEM; empty: the system's store
}

// transitWait bounds one request.
const transitWait = 15 * time.Second

// maxTransit bounds an answer, in octets.
const maxTransit = 64 << 10

type transit struct {
	TransitConfig
	base   string
	client *http.Client
}

// Transit is the seal of a key in the transit engine of OpenBao or Vault: it encrypts and decrypts there, the label as
// associated data. Nothing is asked before the first use. The caller closes nothing.
func Transit(c TransitConfig) (vault.Seal, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return nil, errors.New("seals: the transit address is https://host:port")
	}
	for _, name := range append(strings.Split(c.Mount, "/"), c.Key) {
		if name == "" || name == "." || name == ".." || url.PathEscape(name) != name {
			return nil, errors.New("seals: transit mount and key are plain names")
		}
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, MaxResponseHeaderBytes: 32 << 10}
	if c.CAFile != "" {
		pem, err := safefile.Read(c.CAFile, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("transit certificates: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("seals: %s holds no certificate in PEM", c.CAFile)
		}
	}
	client := &http.Client{Transport: t, Timeout: transitWait, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("a redirect, which would take the token elsewhere")
	}}
	return transit{c, strings.TrimRight(c.Address, "/") + "/v1/" + c.Mount, client}, nil
}

func loopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

func (transit) Kind() string { return TransitKind }
func (t transit) ID() string { return t.Key }

// Wrap's blob is what the engine answers: "vault:v1:…".
func (t transit) Wrap(ctx context.Context, key vault.Secret, label []byte) ([]byte, error) {
	raw := key.Octets()
	defer clear(raw)
	a, err := t.ask(ctx, "encrypt", map[string]string{"plaintext": base64.StdEncoding.EncodeToString(raw), "associated_data": base64.StdEncoding.EncodeToString(label)})
	if err != nil {
		return nil, err
	}
	if a.Ciphertext == "" || !strings.HasPrefix(a.Ciphertext, "vault:v") {
		return nil, errors.New("seals: the transit engine gave no ciphertext")
	}
	return []byte(a.Ciphertext), nil
}

func (t transit) Unwrap(ctx context.Context, blob, label []byte) (vault.Secret, error) {
	a, err := t.ask(ctx, "decrypt", map[string]string{"ciphertext": string(blob), "associated_data": base64.StdEncoding.EncodeToString(label)})
	if errors.Is(err, vault.ErrWrongKey) { // or the key is gone, or another fault of its own that it says 400 to
		err = orAway(err, t.works(ctx, label))
	}
	if err != nil {
		return vault.Secret{}, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(a.Plaintext)
	defer clear(raw)
	if err != nil {
		return vault.Secret{}, fmt.Errorf("%w: answer of the transit engine", vault.ErrCorrupt)
	}
	return vault.SecretOf(raw)
}

// works tells why the engine does not open what it wraps now.
func (t transit) works(ctx context.Context, label []byte) error {
	probe := vault.NewSecret()
	defer probe.Destroy()
	blob, err := t.Wrap(ctx, probe, label)
	if err != nil {
		return err
	}
	_, err = t.ask(ctx, "decrypt", map[string]string{"ciphertext": string(blob), "associated_data": base64.StdEncoding.EncodeToString(label)})
	return err
}

// transitAnswer is the part of an answer's data that we read.
type transitAnswer struct {
	Ciphertext string `json:"ciphertext"`
	Plaintext  string `json:"plaintext"`
}

// ask is one request. Of a refusal we tell its status alone: its text is the server's.
func (t transit) ask(ctx context.Context, op string, body map[string]string) (transitAnswer, error) {
	access, err := safefile.ReadSecret(t.TokenFile, 4096)
	if err != nil {
		return transitAnswer{}, fmt.Errorf("transit token: %w", err)
	}
	defer clear(access)
	b, err := json.Marshal(body)
	if err != nil {
		return transitAnswer{}, errors.New("seals: transit request")
	}
	defer clear(b)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.base+"/"+op+"/"+t.Key, bytes.NewReader(b))
	if err != nil {
		return transitAnswer{}, errors.New("seals: transit address")
	}
	r.Header.Set("X-Vault-Token", string(bytes.TrimSpace(access)))
	r.Header.Set("X-Vault-Request", "true")
	r.Header.Set("Content-Type", "application/json")
	res, err := t.client.Do(r)
	if err != nil {
		return transitAnswer{}, fmt.Errorf("%w: transit engine: %w", vault.ErrAway, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxTransit))
	defer clear(answer)
	if err != nil {
		return transitAnswer{}, fmt.Errorf("%w: transit engine: answer cut short", vault.ErrAway)
	}
	if err := transitStatus(res.StatusCode); err != nil {
		return transitAnswer{}, err
	}
	var a struct {
		Data transitAnswer `json:"data"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return transitAnswer{}, fmt.Errorf("%w: transit engine: not its JSON", vault.ErrAway)
	}
	return a.Data, nil
}

// transitStatus reads a status as the HTTP API of both servers defines it. 400 is also the answer to a ciphertext of
// another key, to other associated data, and to a key that was deleted.
func transitStatus(code int) error {
	switch {
	case code == http.StatusOK:
		return nil
	case code == http.StatusBadRequest:
		return fmt.Errorf("%w: transit engine: status 400", vault.ErrWrongKey)
	case code == http.StatusForbidden:
		return fmt.Errorf("%w: transit engine: its token may not use the key (status 403)", vault.ErrAway)
	case code == http.StatusServiceUnavailable:
		return fmt.Errorf("%w: transit engine: sealed itself (status 503)", vault.ErrAway)
	}
	return fmt.Errorf("%w: transit engine: status %d", vault.ErrAway, code)
}

// Package seals has the seals that keep their key elsewhere than in a file: systemd credentials, PKCS#11 tokens behind a
// helper program, the transit engine of OpenBao and Vault, and break-glass shares that people hold. Each is a vault.Seal.
package seals

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"dimegate/vault"
)

// Kinds, as they stand in seal headers. The vault's own are "keyfile" and "passphrase".
const (
	CredentialKind = "credential"
	TokenKind      = "pkcs11"
	TransitKind    = "transit"
	SharesKind     = "shares"
)

// A credential is a key file that systemd opens for the service: encrypted to the machine, its TPM or both.
type credential struct {
	vault.Seal
	name string
}

// Credential is the seal of a systemd credential: a key file (vault.CreateKeyFile) that was encrypted with systemd-creds
// and is named in the unit's LoadCredentialEncrypted=. folder is what systemd says in CREDENTIALS_DIRECTORY; ErrAway when
// that is empty: not started by systemd, or a unit without credentials.
func Credential(folder, name string) (vault.Seal, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return nil, errors.New("seals: a credential's name has no slash")
	}
	if folder == "" {
		return nil, fmt.Errorf("credential %s: %w: systemd gave this process no credentials", name, vault.ErrAway)
	}
	key, err := vault.KeyFile(filepath.Join(folder, name))
	if err != nil {
		return nil, fmt.Errorf("credential %s: %w", name, err)
	}
	return credential{key, name}, nil
}

func (credential) Kind() string { return CredentialKind }
func (c credential) ID() string { return c.name }

// keyOf derives a key of 32 octets. HKDF fails only for outputs that nothing here asks for.
func keyOf(secret, salt []byte, info string) vault.Secret {
	b, err := hkdf.Key(sha256.New, secret, salt, info, vault.SecretSize)
	if err != nil {
		panic("seals: HKDF: " + err.Error())
	}
	defer clear(b)
	k, err := vault.SecretOf(b)
	if err != nil {
		panic("seals: " + err.Error()) // it is 32 octets
	}
	return k
}

// orAway is what a refusal to unwrap means: another key's blob where the seal opens what it wraps now, else that it does not work.
func orAway(refused, works error) error {
	if works == nil {
		return refused
	}
	return fmt.Errorf("%w: it does not open what it wraps itself: %v", vault.ErrAway, works)
}

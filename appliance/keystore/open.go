package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"dimegate/appliance/config"
	"dimegate/internal/safefile"
	"dimegate/vault"
)

// An Opened is a vault with the roots that its seals gave out.
type Opened struct {
	*vault.Vault
	Missing []string // seals that did not open, while another did: a warning

	host, signing *vault.Root
}

// Close closes the vault and clears its roots.
func (o *Opened) Close() error {
	err := o.Vault.Close()
	o.host.Destroy()
	o.signing.Destroy()
	return err
}

// Open opens the seals that a resolved configuration names, and the vault behind them. The owner is the gateway itself;
// commands beside it are not. Errors name the key or the file, and what to do.
func Open(ctx context.Context, c config.Vault, owner bool) (*Opened, error) {
	o := &Opened{}
	var err error
	if o.host, err = openRoot(ctx, c, vault.HostRole); err != nil {
		return nil, err
	}
	if o.signing, err = openRoot(ctx, c, vault.SigningRole); err != nil {
		o.host.Destroy()
		return nil, err
	}
	o.Missing = append(o.host.Missing(), o.signing.Missing()...)
	o.Vault, err = vault.Open(ctx, vault.Options{Dir: c.Folder, Host: o.host, Signing: o.signing, Owner: owner})
	if err != nil {
		o.host.Destroy()
		o.signing.Destroy()
		return nil, err
	}
	return o, nil
}

// SealHeader returns the name of a role's seal header in a vault's folder.
func SealHeader(folder string, role vault.Role) string {
	return filepath.Join(folder, role.String()+".seal")
}

func openRoot(ctx context.Context, c config.Vault, role vault.Role) (*vault.Root, error) {
	seal, file, err := Seal(c, role)
	if err != nil {
		return nil, err
	}
	header := SealHeader(c.Folder, role)
	root, err := vault.OpenSeal(ctx, header, role, seal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("vault.folder: %s: no such file: run \"gateway init\", or restore the folder from your backup", header)
	case errors.Is(err, vault.ErrSealed):
		return nil, fmt.Errorf("%s: %s does not open %s: it is not the one that this vault was sealed with: restore that one",
			sealKey(c, role), file, header)
	}
	return root, err
}

// Seal makes the seal that the configuration names for a role, and says which file it was made of.
func Seal(c config.Vault, role vault.Role) (s vault.Seal, file string, err error) {
	table := sealTable(c, role)
	key := sealKey(c, role)
	if table.KeyFile != "" {
		s, err = vault.KeyFile(table.KeyFile)
		return s, table.KeyFile, remedy(key, table.KeyFile, err)
	}
	text, err := safefile.ReadSecret(table.PassphraseFile, maxPassphrase)
	if err != nil {
		return nil, "", remedy(key, table.PassphraseFile, err)
	}
	defer clear(text)
	s, err = vault.Passphrase("config", bytes.TrimRight(text, "\r\n"))
	return s, table.PassphraseFile, remedy(key, table.PassphraseFile, err)
}

// maxPassphrase bounds a passphrase file, in octets.
const maxPassphrase = 4096

func sealTable(c config.Vault, role vault.Role) config.Seal {
	if role == vault.SigningRole {
		return c.SigningSeal
	}
	return c.HostSeal
}

// sealKey names the configuration key that a role's seal comes from.
func sealKey(c config.Vault, role vault.Role) string {
	key := "vault." + role.String() + "_seal."
	if sealTable(c, role).KeyFile != "" {
		return key + "key_file"
	}
	return key + "passphrase_file"
}

// remedy names the configuration key and says what to do about a file that cannot be used.
func remedy(key, file string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %s: no such file: restore it from your backup, or make it before the first \"gateway init\"", key, file)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %s: may not be read by this user: run as the one who owns it", key, file)
	case errors.Is(err, safefile.ErrOpenToOthers):
		return fmt.Errorf("%s: %s can be read by others: chmod 600 %s", key, file, file)
	}
	text := strings.TrimPrefix(err.Error(), "vault: ")
	if !strings.Contains(text, file) {
		text = file + ": " + text
	}
	return fmt.Errorf("%s: %s", key, text)
}

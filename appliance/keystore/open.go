package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dimegate/appliance/config"
	"dimegate/internal/safefile"
	"dimegate/vault"
	elsewhere "dimegate/vault/seals"
)

// An Opened is a vault with the roots that its seals gave out.
type Opened struct {
	*vault.Vault
	Missing []LostSeal // seals that did not open, while another did: a warning

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
	o.Missing = append(lostOf(o.host), lostOf(o.signing)...)
	o.Vault, err = vault.Open(ctx, vault.Options{Dir: c.Folder, Host: o.host, Signing: o.signing, Owner: owner})
	if err != nil {
		o.host.Destroy()
		o.signing.Destroy()
		return nil, err
	}
	return o, nil
}

// A LostSeal is a seal of a role that does not open it now.
type LostSeal struct {
	Role vault.Role
	vault.MissingSeal
}

func lostOf(r *vault.Root) []LostSeal {
	var list []LostSeal
	for _, m := range Lost(r.Missing()) {
		list = append(list, LostSeal{r.Role(), m})
	}
	return list
}

// TrySeals opens both roles with the seals of the configuration, touching no vault, and lists the seals that were lost.
// An error is a role that none opened.
func TrySeals(ctx context.Context, c config.Vault) ([]LostSeal, error) {
	var lost []LostSeal
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		r, err := openRoot(ctx, c, role)
		if err != nil {
			return nil, err
		}
		lost = append(lost, lostOf(r)...)
		r.Destroy()
	}
	return lost, nil
}

// OpenRole opens one role with the seals of the configuration and some more, which people keep.
func OpenRole(ctx context.Context, c config.Vault, role vault.Role, more ...vault.Seal) (*vault.Root, error) {
	if len(more) == 0 {
		return openRoot(ctx, c, role)
	}
	return vault.OpenSeal(ctx, SealHeader(c.Folder, role), role, append(more, seals(Seals(c, role))...)...)
}

// SealHeader returns the name of a role's seal header in a vault's folder.
func SealHeader(folder string, role vault.Role) string {
	return filepath.Join(folder, role.String()+".seal")
}

func openRoot(ctx context.Context, c config.Vault, role vault.Role) (*vault.Root, error) {
	given := Seals(c, role)
	header := SealHeader(c.Folder, role)
	root, err := vault.OpenSeal(ctx, header, role, seals(given)...)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %s: no such file: run \"gateway init\", or restore the folder from your backup", c.Key("folder"), header)
	case errors.Is(err, vault.ErrSealed):
		return nil, closedError(given, role, header, err)
	}
	return root, err
}

// A ClosedError says that no seal of the configuration opened a role.
type ClosedError struct {
	Role   vault.Role
	Reason string // one line, with what each seal said
	err    error
}

func (e *ClosedError) Error() string { return e.Reason }
func (e *ClosedError) Unwrap() error { return e.err }

// closedError tells of each seal why it did not open. One of which nothing can be made says so itself.
func closedError(given []Given, role vault.Role, header string, err error) error {
	e := &ClosedError{Role: role, err: err}
	if len(given) == 1 && given[0].Fault != nil {
		e.Reason = given[0].Fault.Error()
		e.err = given[0].Fault
		return e
	}
	if len(given) == 1 && !errors.Is(err, vault.ErrAway) {
		e.Reason = fmt.Sprintf("%s: %s does not open %s: it is not the one that this vault was sealed with: restore that one", given[0].Key, given[0].What, header)
		return e
	}
	var why []string
	for _, g := range given {
		if g.Fault != nil {
			why = append(why, g.Fault.Error())
			if errors.Is(g.Fault, vault.ErrAway) {
				e.err = errors.Join(err, vault.ErrAway)
			}
		}
	}
	for line := range strings.Lines(err.Error()) {
		why = append(why, strings.TrimSpace(line))
	}
	e.Reason = fmt.Sprintf("no seal opens %s: %s", header, strings.Join(why, "; "))
	return e
}

// A Given is one seal that the configuration names.
type Given struct {
	vault.Seal
	Key   string // the configuration key
	What  string // the file, socket or address that it names
	Fault error  // why there is no seal; then Seal is nil
}

func seals(given []Given) []vault.Seal {
	var list []vault.Seal
	for _, g := range given {
		if g.Seal != nil {
			list = append(list, g.Seal)
		}
	}
	return list
}

// Seals makes the seals that the configuration names for a role. Tokens and key services are not asked yet.
func Seals(c config.Vault, role vault.Role) []Given {
	t := c.HostSeal
	if role == vault.SigningRole {
		t = c.SigningSeal
	}
	var list []Given
	add := func(key, what string, make func() (vault.Seal, error)) {
		if what == "" {
			return
		}
		g := Given{Key: c.Key(role.String() + "_seal." + key), What: what}
		s, err := make()
		if g.Fault = remedy(g.Key, what, err); err == nil {
			g.Seal = s
		}
		list = append(list, g)
	}
	add("key_file", t.KeyFile, func() (vault.Seal, error) { return vault.KeyFile(t.KeyFile) })
	add("passphrase_file", t.PassphraseFile, func() (vault.Seal, error) { return passphraseSeal(t.PassphraseFile) })
	add("credential", t.Credential, func() (vault.Seal, error) {
		return elsewhere.Credential(os.Getenv("CREDENTIALS_DIRECTORY"), t.Credential)
	})
	add("pkcs11_socket", t.PKCS11Socket, func() (vault.Seal, error) { return elsewhere.Token(t.PKCS11Socket, t.PKCS11Name), nil })
	add("transit_address", t.TransitAddress, func() (vault.Seal, error) {
		return elsewhere.Transit(elsewhere.TransitConfig{Address: t.TransitAddress, Mount: t.TransitMount, Key: t.TransitKey,
			TokenFile: t.TransitTokenFile, CAFile: t.TransitCAFile})
	})
	return list
}

// PassphraseID is the name of the passphrase that the configuration names; others are kept by people.
const PassphraseID = "config"

func passphraseSeal(path string) (vault.Seal, error) {
	text, err := safefile.ReadSecret(path, maxPassphrase)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return vault.Passphrase(PassphraseID, bytes.TrimRight(text, "\r\n"))
}

// Lost lists what is worth a warning among the seals that did not open: not break-glass shares and passphrases that
// people keep, since those are not here by intent.
func Lost(missing []vault.MissingSeal) []vault.MissingSeal {
	return slices.DeleteFunc(slices.Clone(missing), ByHand)
}

// ByHand reports whether people keep the seal, and the configuration never names it.
func ByHand(m vault.MissingSeal) bool {
	return m.Kind == elsewhere.SharesKind || m.Kind == "passphrase" && m.ID != PassphraseID
}

// maxPassphrase bounds a passphrase file, in octets.
const maxPassphrase = 4096

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
	if errors.Is(err, vault.ErrAway) {
		return fmt.Errorf("%s: %w", key, err)
	}
	return fmt.Errorf("%s: %s", key, text)
}

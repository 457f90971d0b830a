package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/seals"
)

// A sealChange is what a command did.
type sealChange struct {
	Role  string   `json:"role"`
	Done  string   `json:"done"` // added, removed, re-wrapped
	Seal  string   `json:"seal,omitempty"`
	Wraps int      `json:"wraps,omitempty"`
	Files []string `json:"files,omitempty"`
}

func (c sealChange) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(c)
	}
	_, err := fmt.Fprintf(w, "%s seal: %s %s", c.Role, c.Done, c.Seal)
	if c.Done == "re-wrapped" {
		fmt.Fprintf(w, "%d keys under a new root key", c.Wraps)
	}
	for _, f := range c.Files {
		fmt.Fprintf(w, "\n  %s", f)
	}
	fmt.Fprintln(w)
	return err
}

// sealAddFlags are those of seal add.
type sealAddFlags struct {
	path, role, passphrase, passphraseFile, out string
	quorum                                      int
	holders, shares                             list
	asJSON                                      bool
}

func runSealAdd(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var f sealAddFlags
	fs.StringVar(&f.path, "config", defaultConfig, "configuration `FILE`")
	fs.StringVar(&f.role, "role", "", "only this `ROLE`; default: both, and host for a passphrase or shares")
	fs.StringVar(&f.passphrase, "passphrase", "", "add a passphrase under this `NAME`; it is asked for")
	fs.StringVar(&f.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase, mode 0600")
	fs.IntVar(&f.quorum, "quorum", 0, "how many break-glass shares open")
	fs.Var(&f.holders, "holder", "`NAME=RECIPIENT` of a holder of a share, an age recipient: his share is encrypted to it")
	fs.StringVar(&f.out, "out", "", "`FOLDER` for the shares")
	fs.Var(&f.shares, "share", "`FILE` of a decrypted break-glass share, where no other seal opens the host seal")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON, an object a seal")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("seal add: takes no operand")
	}
	c, err := loadFor(ctx, f.path)
	if err != nil {
		return err
	}
	byHand := f.passphrase != "" || f.quorum > 0
	if byHand && f.role == "" {
		f.role = vault.HostRole.String()
	}
	if (f.quorum > 0) != (len(f.holders) > 0) || (f.quorum > 0) != (f.out != "") || f.quorum > 0 && f.passphrase != "" {
		return usagef("seal add: --quorum, --holder and --out belong together")
	}
	if _, err := parseHolders(f.holders); err != nil {
		return err
	}
	more, err := readShares(f.shares)
	if err != nil {
		return err
	}
	release, err := lockSeals(c.Vault.Folder)
	if err != nil {
		return err
	}
	defer release()
	added := 0
	for _, role := range sealRoles {
		if f.role != "" && f.role != role.String() {
			continue
		}
		n, err := f.add(ctx, std, c.Vault, role, more)
		if err != nil {
			return err
		}
		added += n
	}
	switch {
	case f.role != "" && f.role != "host" && f.role != "signing":
		return usagef("--role: host or signing")
	case added == 0 && !f.asJSON:
		fmt.Fprintln(std.out, "nothing to add: the headers have every seal that the configuration names")
	}
	return nil
}

// add gives one role what it lacks.
func (f sealAddFlags) add(ctx context.Context, std stdio, c config.Vault, role vault.Role, more []vault.Seal) (int, error) {
	header := keystore.SealHeader(c.Folder, role)
	h, err := vault.ReadSealHeader(header)
	if err != nil {
		return 0, usageError{err}
	}
	list, lines, err := f.wanted(std, c, role, h)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	root, err := keystore.OpenRole(ctx, c, role, more...)
	if err != nil {
		return 0, usageError{err}
	}
	defer root.Destroy()
	for _, s := range list {
		change := sealChange{Role: role.String(), Done: "added", Seal: sealText(s.Kind(), s.ID())}
		if lines != nil { // the holders have theirs before the header counts on them
			if change.Files, err = f.writeShares(lines); err != nil {
				return 0, err
			}
		}
		if err := vault.AddSeal(ctx, header, root, s, attestSeal(ctx, c, role, root, "add "+change.Seal)); err != nil {
			return 0, err
		}
		if err := change.print(std.out, f.asJSON); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// wanted is what is to be added: of shares with their lines.
func (f sealAddFlags) wanted(std stdio, c config.Vault, role vault.Role, h *vault.SealHeader) ([]vault.Seal, []seals.Share, error) {
	switch {
	case f.passphrase == keystore.PassphraseID:
		return nil, nil, usagef("the name %q is that of the configuration's passphrase", f.passphrase)
	case f.passphrase != "":
		p, err := passphrase(std, f.passphraseFile, true)
		if err != nil {
			return nil, nil, err
		}
		s, err := vault.Passphrase(f.passphrase, []byte(p))
		return []vault.Seal{s}, nil, err
	case f.quorum > 0 && role != vault.HostRole:
		return nil, nil, refusedError{errors.New("break-glass shares exist for the host seal only: nobody signs for users by breaking glass")}
	case f.quorum > 0:
		s, lines, err := seals.NewShares(f.quorum, len(f.holders))
		if err != nil {
			return nil, nil, usageError{err}
		}
		return []vault.Seal{s}, lines, nil
	}
	var list []vault.Seal
	for _, g := range keystore.Seals(c, role) {
		if g.Fault != nil {
			fmt.Fprintln(std.err, "gateway: warning:", g.Fault)
		} else if !h.Has(g.Kind(), g.ID()) {
			list = append(list, g.Seal)
		}
	}
	return list, nil, nil
}

// A holder of a break-glass share.
type holder struct {
	name string
	to   age.Recipient
}

// parseHolders reads every --holder before anything is written. Two with one name would have one file.
func parseHolders(texts []string) ([]holder, error) {
	var list []holder
	for _, h := range texts {
		name, text, ok := strings.Cut(h, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/\x00") {
			return nil, usagef("--holder is NAME=RECIPIENT")
		}
		to, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(to) != 1 {
			return nil, usagef("--holder %s: not an age recipient", name)
		}
		if slices.ContainsFunc(list, func(o holder) bool { return o.name == name }) {
			return nil, usagef("--holder %s: stands twice", name)
		}
		list = append(list, holder{name, to[0]})
	}
	return list, nil
}

// writeShares encrypts each share to its holder, and stops at the first fault.
func (f sealAddFlags) writeShares(lines []seals.Share) ([]string, error) {
	holders, err := parseHolders(f.holders)
	if err != nil {
		return nil, err
	}
	var files []string
	for i, h := range holders {
		line := lines[i].Line()
		sealed, err := encryptTo(h.to, line)
		clear(line)
		if err != nil {
			return files, err
		}
		path := filepath.Join(f.out, fmt.Sprintf("host-seal-share-%s.age", h.name))
		if err := safefile.Create(path, sealed); err != nil {
			return files, fmt.Errorf("share of %s: %w", h.name, err)
		}
		files = append(files, path)
	}
	return files, nil
}

func encryptTo(to age.Recipient, plain []byte) ([]byte, error) {
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, to)
	if err != nil {
		return nil, errors.New("a share cannot be encrypted to its holder")
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readShares reads shares that their holders decrypted.
func readShares(files []string) ([]vault.Seal, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var list []seals.Share
	for _, file := range files {
		b, err := safefile.ReadSecret(file, 256)
		if err != nil {
			return nil, usageError{err}
		}
		s, err := seals.ParseShare(b)
		clear(b)
		if err != nil {
			return nil, usagef("%s: %w", file, err)
		}
		list = append(list, s)
	}
	s, err := seals.OpenShares(list...)
	if err != nil {
		return nil, usageError{err}
	}
	return []vault.Seal{s}, nil
}

func runSealRemove(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) < 2 || len(rest) > 3 {
		return usagef("seal remove: name ROLE, KIND and ID as gateway seal status shows them")
	}
	role, err := parseRole(rest[0])
	if err != nil {
		return err
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	release, err := lockSeals(c.Vault.Folder)
	if err != nil {
		return err
	}
	defer release()
	kind, id := rest[1], strings.Join(rest[2:], "")
	var others []vault.Seal
	for _, g := range keystore.Seals(c.Vault, role) {
		if g.Seal != nil && (g.Kind() != kind || g.ID() != id) {
			others = append(others, g.Seal)
		}
	}
	header := keystore.SealHeader(c.Vault.Folder, role)
	root, err := vault.OpenSeal(ctx, header, role, others...)
	if errors.Is(err, vault.ErrSealed) {
		return refusedError{fmt.Errorf("no other seal of the configuration opens the %v seal now: without %s the gateway could not start", role, sealText(kind, id))}
	} else if err != nil {
		return usageError{err}
	}
	defer root.Destroy()
	change := sealChange{Role: role.String(), Done: "removed", Seal: sealText(kind, id)}
	if err := vault.RemoveSeal(header, kind, id, attestSeal(ctx, c.Vault, role, root, "remove "+change.Seal)); err != nil {
		return err
	}
	return change.print(std.out, *asJSON)
}

func sealText(kind, id string) string { return strings.TrimSpace(kind + " " + id) }

// attestSeal writes into the log what is about to happen.
func attestSeal(ctx context.Context, c config.Vault, role vault.Role, root *vault.Root, what string) vault.Attest {
	return func(header vault.Digest) error {
		o := vault.Options{Dir: c.Folder}
		if role == vault.HostRole {
			o.Host = root
		} else {
			o.Signing = root
		}
		v, err := vault.Open(ctx, o)
		if err != nil {
			return err
		}
		return errors.Join(v.AttestSeal(ctx, role, what, header, time.Now()), v.Close())
	}
}

// lockSeals keeps other commands from the headers.
func lockSeals(folder string) (release func(), err error) {
	if release, err = vault.LockSeals(folder); errors.Is(err, vault.ErrLocked) {
		err = fmt.Errorf("%w: try again when that has ended", err)
	} else if err != nil {
		err = usageError{err}
	}
	return release, err
}

func runSealRewrap(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	var files list
	fs.Var(&files, "share", "`FILE` of a decrypted break-glass share")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("seal rewrap: name the role, host or signing")
	}
	role, err := parseRole(rest[0])
	if err != nil {
		return err
	}
	more, err := readShares(files)
	if err != nil {
		return err
	}
	c, err := loadFor(ctx, *path)
	if err != nil {
		return err
	}
	release, err := lockSeals(c.Vault.Folder)
	if err != nil {
		return err
	}
	defer release()
	n, err := rewrap(ctx, c.Vault, role, more)
	if errors.Is(err, vault.ErrLocked) {
		return refusedError{errors.New("the gateway runs: stop it first, since it would not know the new root key")}
	} else if err != nil {
		return err
	}
	return sealChange{Role: role.String(), Done: "re-wrapped", Wraps: n}.print(std.out, *asJSON)
}

// rewrap has the vault for itself. It can be cut short anywhere: both root keys are in the header until all is done, and
// the next run goes on where this one ended.
func rewrap(ctx context.Context, c config.Vault, role vault.Role, more []vault.Seal) (n int, err error) {
	root, err := keystore.OpenRole(ctx, c, role, more...)
	if err != nil {
		return 0, usageError{err}
	}
	defer root.Destroy()
	o := vault.Options{Dir: c.Folder, Owner: true}
	if role == vault.HostRole {
		o.Host = root
	} else {
		o.Signing = root
	}
	v, err := vault.Open(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	header := keystore.SealHeader(c.Folder, role)
	h, err := vault.ReadSealHeader(header)
	if err != nil {
		return 0, err
	}
	attest := func(what string) vault.Attest {
		return func(header vault.Digest) error { return v.AttestSeal(ctx, role, what, header, time.Now()) }
	}
	if len(h.Roots) == 1 { // else a run before was cut short
		list, err := wrappers(c, role, h)
		if err != nil {
			return 0, err
		}
		if err := vault.NewRoot(ctx, header, root, time.Now(), attest("new root key"), list...); err != nil {
			return 0, err
		}
	}
	if n, err = v.Rewrap(ctx, role); err != nil {
		return n, err
	}
	return n, vault.DropOldRoots(header, attest("re-wrap"))
}

// wrappers are the seals that a new root key is wrapped by: the configuration's, and shares by their public half.
func wrappers(c config.Vault, role vault.Role, h *vault.SealHeader) ([]vault.Seal, error) {
	var list []vault.Seal
	for _, g := range keystore.Seals(c, role) {
		if g.Seal != nil {
			list = append(list, g.Seal)
		}
	}
	for _, e := range h.Roots[0].Entries {
		if e.Kind != seals.SharesKind {
			continue
		}
		s, err := seals.PublicShares(e.Blob)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

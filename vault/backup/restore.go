package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/audit"
)

// maxManifest bounds a manifest, in octets: a line for each file of a body.
const maxManifest = 1 << 30

// ErrDamaged is returned for a backup that is not what its manifest, its log or its database says.
var ErrDamaged = errors.New("the backup is damaged")

func damaged(text string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(text, args...))
}

// unpack writes a backup's files into dir and checks them against the manifest. Bodies are written where keep says so.
func unpack(ctx context.Context, r io.Reader, dir string, keep bool, done func(int64)) (m Manifest, err error) {
	if err := os.MkdirAll(filepath.Join(dir, dirBodies), 0o700); err != nil {
		return m, err
	}
	var seen []Entry
	t := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		h, err := t.Next()
		if err != nil { // also io.EOF: the manifest is what ends it
			return m, damaged("it is cut short, or not a backup: %w", err)
		}
		if h.Name == nameManifest {
			m, err = readManifest(t, h.Size)
			if err == nil && !slices.Equal(m.Entries, seen) {
				err = damaged("%s", differ(m.Entries, seen))
			}
			return m, err
		}
		if !known(h.Name) || h.Typeflag != tar.TypeReg {
			return m, damaged("it holds %q, which no backup does", h.Name)
		}
		e, err := unpackFile(t, h, dir, keep || !strings.HasPrefix(h.Name, dirBodies))
		if err != nil {
			return m, err
		}
		seen = append(seen, e)
		if done != nil {
			done(e.Octets)
		}
	}
}

// known tells whether a backup has a file of this name: names become paths.
func known(name string) bool {
	if body, ok := strings.CutPrefix(name, dirBodies+"/"); ok {
		text, _, _ := strings.Cut(body, ".")
		_, err := vault.ParseID(text)
		return err == nil && filepath.Base(body) == body
	}
	return name == nameDatabase || name == nameWraps || slices.Contains(nameSeals, name)
}

func readManifest(r io.Reader, size int64) (m Manifest, err error) {
	if size > maxManifest {
		return m, damaged("its manifest has %d octets", size)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return m, damaged("its manifest: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || m.Format != format {
		return m, damaged("its manifest is not one of %s", format)
	}
	return m, nil
}

// differ names the first file that is not as the manifest says.
func differ(want, got []Entry) string {
	for i, e := range want {
		switch {
		case i >= len(got):
			return e.Name + " is missing"
		case got[i].Name != e.Name:
			return fmt.Sprintf("%s stands where %s should", got[i].Name, e.Name)
		case got[i] != e:
			return e.Name + " was changed"
		}
	}
	return got[len(want)].Name + " is not of it"
}

func unpackFile(t io.Reader, h *tar.Header, dir string, keep bool) (e Entry, err error) {
	sum := sha512.New512_256()
	var to io.Writer = sum
	if keep {
		f, err := os.OpenFile(filepath.Join(dir, h.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return e, err
		}
		defer func() {
			if serr := f.Sync(); err == nil {
				err = serr
			}
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		to = io.MultiWriter(sum, f)
	}
	n, err := io.Copy(to, t)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return e, damaged("it is cut short in %s", h.Name)
	} else if err != nil {
		return e, err
	}
	return Entry{h.Name, n, hex.EncodeToString(sum.Sum(nil))}, nil
}

// A Report is what Verify found in order.
type Report struct {
	Manifest
	Key bool `json:"key"` // the key is there and opens the wraps
}

// Verify reads a whole backup, on any machine: every file against the manifest, the database against SQLite's rules, every leaf of
// the log, every sealed body against its record; and the wraps, where the key is there. It writes into a folder beside the
// file, which it removes. ErrDamaged; ErrNoKey is no fault.
func Verify(ctx context.Context, file, keys string, done func(int64)) (r Report, err error) {
	f, err := os.Open(file)
	if err != nil {
		return r, err
	}
	defer f.Close()
	tmp, err := os.MkdirTemp(filepath.Dir(file), ".verify-*")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(tmp)
	if r.Manifest, err = unpack(ctx, f, tmp, false, done); err != nil {
		return r, err
	}
	if err := r.Manifest.check(ctx, tmp); err != nil {
		return r, err
	}
	k, err := r.Manifest.openKey(tmp, keys)
	if errors.Is(err, ErrNoKey) {
		return r, nil
	} else if err != nil {
		return r, err
	}
	k.Secret.Destroy()
	r.Key = true
	return r, nil
}

// openKey reads the backup's key and all that it opens. ErrNoKey.
func (m Manifest) openKey(dir, keys string) (Key, error) {
	id, err := vault.ParseID(m.ID)
	if err != nil {
		return Key{}, damaged("its manifest: %w", err)
	}
	if keys == "" {
		return Key{}, fmt.Errorf("%w: no backup.keys_folder is named", ErrNoKey)
	}
	k, err := ReadKey(keys, id)
	if err != nil {
		return Key{}, err
	}
	n, err := vault.CountCopiedWraps(dir, k.Secret, id)
	if err == nil && n != m.Wraps {
		err = damaged("%d wraps, of %d", n, m.Wraps)
	}
	if err != nil {
		k.Secret.Destroy()
		return Key{}, err
	}
	return k, nil
}

// check looks into the database of an unpacked backup.
func (m Manifest) check(ctx context.Context, dir string) error {
	v, err := vault.Open(ctx, vault.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.Intact(ctx); err != nil {
		return damaged("%w", err)
	}
	root, err := tlog.ParseHash(m.LogRoot)
	if v.Archive().String() != m.Archive || err != nil {
		return damaged("its manifest is of another archive")
	}
	times, _ := v.Restored()
	kept := audit.Tree{Origin: audit.Origin(v.Archive(), times), Size: m.LogSize, Root: root}
	if m.LogSize == 0 {
		return m.checkBodies(ctx, v)
	}
	if _, err := audit.Verify(ctx, v, "", nil, kept); err != nil {
		return damaged("%w", err)
	}
	return m.checkBodies(ctx, v)
}

func (m Manifest) checkBodies(ctx context.Context, v *vault.Vault) error {
	digests := map[string]string{}
	for _, e := range m.Entries {
		digests[e.Name] = e.Digest
	}
	return v.BodyDigests(ctx, func(name string, d vault.Digest) error {
		if digests[dirBodies+"/"+name] != hex.EncodeToString(d[:]) {
			return damaged("the body of record %s is missing, or is another", name)
		}
		return nil
	})
}

// RestoreOptions say what is restored, and where to.
type RestoreOptions struct {
	File   string
	Folder string // of the vault, which must not exist
	Keys   string // of the backups' keys and the ledger
	NoKeys bool   // restore without the backup's key: users get new keys
	Now    time.Time
	Done   func(octets int64)
}

// Restore makes a vault of a backup, in a folder that must not exist: fs.ErrExist. Nothing is there before all is. The keys that
// the ledger names do not come back. ErrDamaged, ErrNoKey.
func Restore(ctx context.Context, o RestoreOptions) (m Manifest, out vault.Restored, err error) {
	if _, err := os.Lstat(o.Folder); !errors.Is(err, fs.ErrNotExist) {
		return m, out, fmt.Errorf("%s: %w", o.Folder, errors.Join(fs.ErrExist, err))
	}
	f, err := os.Open(o.File)
	if err != nil {
		return m, out, err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Dir(o.Folder), 0o700); err != nil {
		return m, out, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(o.Folder), "."+filepath.Base(o.Folder)+"-restoring-*")
	if err != nil {
		return m, out, err
	}
	defer os.RemoveAll(tmp)
	if m, err = unpack(ctx, f, tmp, true, o.Done); err != nil {
		return m, out, err
	}
	if err := m.check(ctx, tmp); err != nil {
		return m, out, err
	}
	r, err := o.restore(m, tmp)
	if err != nil {
		return m, out, err
	}
	defer r.Key.Destroy()
	if out, err = vault.Reinstate(ctx, tmp, r); err != nil {
		return m, out, err
	}
	if err := safefile.SyncDir(tmp); err != nil {
		return m, out, err
	}
	if err := os.Rename(tmp, o.Folder); err != nil {
		return m, out, err
	}
	return m, out, safefile.SyncDir(filepath.Dir(o.Folder))
}

// restore collects what the copy is made a vault with.
func (o RestoreOptions) restore(m Manifest, dir string) (r vault.Restore, err error) {
	id, err := vault.ParseID(m.ID)
	if err != nil {
		return r, damaged("its manifest: %w", err)
	}
	archive, err := vault.ParseID(m.Archive)
	if err != nil {
		return r, damaged("its manifest: %w", err)
	}
	r = vault.Restore{ID: id, Made: m.Made, Now: o.Now}
	if o.NoKeys {
		return r, nil
	}
	if _, r.LastLog, err = LastLog(o.Keys, archive); err != nil {
		return r, err
	}
	if r.Erased, err = vault.ReadLedger(Ledger(o.Keys, archive), archive); err != nil {
		return r, err
	}
	k, err := m.openKey(dir, o.Keys)
	r.Key = k.Secret
	return r, err
}

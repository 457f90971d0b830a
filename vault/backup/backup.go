// Package backup makes, checks and restores backups of a vault: one file, a tar, made while the gateway runs.
//
// A backup outlives what it was made of, so it must not hold what is to be destroyed: wraps of keys are in it under a key of the
// backup's own, which is kept apart and lives 30 days. See docs/operating.md, "Backup and restore"; the file is in docs/formats.md.
package backup

import (
	"archive/tar"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

const format = "dimegate-backup-1"

// Names of a backup's entries; bodies stand under "bodies/". The manifest is the last.
const (
	nameDatabase = "vault.db"
	nameWraps    = "wraps"
	nameManifest = "manifest.json"
	dirBodies    = "bodies"
)

var nameSeals = []string{"host.seal", "signing.seal"}

// A Manifest says what a backup holds.
type Manifest struct {
	Format  string    `json:"format"`
	ID      string    `json:"id"`
	Archive string    `json:"archive"`
	Made    time.Time `json:"made"`
	KeyDies time.Time `json:"key_dies"` // then nothing opens the wraps any more
	LogSize int64     `json:"log_size"`
	LogRoot string    `json:"log_root"`
	Wraps   int64     `json:"wraps"`
	Waiting int64     `json:"waiting"` // entries of the queue, which are not in it
	Entries []Entry   `json:"entries"`
}

// An Entry is a file of a backup, in the order in which they stand.
type Entry struct {
	Name   string `json:"name"`
	Octets int64  `json:"octets"`
	Digest string `json:"digest"` // SHA-512/256, hexadecimal
}

// Options say what is backed up, and where to.
type Options struct {
	Folder string        // of the vault
	Keys   string        // of the backups' keys and the erasure ledger
	File   string        // of the backup, which must not exist
	Grace  time.Duration // of users' retired keys
	Now    time.Time
	Done   func(octets int64) // told how much was written; nil: nobody is
}

// Create makes a backup of an open vault and its key, and does what Keep does. What fails leaves neither file nor key.
func Create(ctx context.Context, v *vault.Vault, o Options) (m Manifest, err error) {
	if _, err := os.Stat(o.File); err == nil {
		return m, fmt.Errorf("%s exists: a backup is never written over", o.File)
	}
	if _, err := Keep(ctx, v, o.Keys, o.Now); err != nil {
		return m, err
	}
	id := vault.NewID(o.Now)
	k, err := makeKey(o.Keys, id, o.Now.Add(Life))
	if err != nil {
		return m, err
	}
	defer func() {
		k.Secret.Destroy()
		if err != nil {
			err = errors.Join(err, destroyFile(keyPath(o.Keys, id)))
		}
	}()
	tmp, err := os.MkdirTemp(filepath.Dir(o.File), ".backup-*")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp)
	m = Manifest{Format: format, ID: id.String(), Archive: v.Archive().String(), Made: o.Now.UTC().Truncate(time.Second), KeyDies: k.Dies}
	copied := filepath.Join(tmp, "vault")
	c, err := v.CopyTo(ctx, copied, k.Secret, id, k.Dies.Add(-o.Grace))
	if err != nil {
		return m, err
	}
	m.Wraps, m.Waiting = c.Wraps, c.Waiting
	bodies, err := m.look(ctx, copied, o.Folder)
	if err != nil {
		return m, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(m.write(ctx, w, copied, o.Folder, bodies)) }()
	var from io.Reader = r
	if o.Done != nil {
		from = io.TeeReader(r, counter(o.Done))
	}
	err = safefile.CreateFrom(o.File, from)
	r.CloseWithError(err) // the writer has ended, or ends now
	return m, err
}

type counter func(int64)

func (c counter) Write(b []byte) (int, error) {
	c(int64(len(b)))
	return len(b), nil
}

// look reads the copy: its log, and which files of bodies belong to it.
func (m *Manifest) look(ctx context.Context, copied, folder string) ([]string, error) {
	v, err := vault.Open(ctx, vault.Options{Dir: copied})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if m.LogSize, err = v.LogSize(ctx); err != nil {
		return nil, err
	}
	root, err := tlog.TreeHash(m.LogSize, tlog.HashReaderFunc(func(x []int64) ([]tlog.Hash, error) { return v.LogHashes(ctx, x) }))
	if err != nil {
		return nil, err
	}
	m.LogRoot = root.String()
	return v.BodyFiles(ctx, folder)
}

// write writes the tar.
func (m *Manifest) write(ctx context.Context, w io.Writer, copied, folder string, bodies []string) error {
	t := tar.NewWriter(w)
	files := [][2]string{{nameDatabase, filepath.Join(copied, nameDatabase)}, {nameWraps, filepath.Join(copied, nameWraps)}}
	for _, s := range nameSeals {
		files = append(files, [2]string{s, filepath.Join(folder, s)})
	}
	for _, b := range bodies {
		files = append(files, [2]string{dirBodies + "/" + b, filepath.Join(folder, dirBodies, b)})
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := addFile(t, f[0], f[1], m.Made)
		if err != nil {
			return fmt.Errorf("backup: %s: %w (mail that was erased meanwhile: try again)", f[0], err)
		}
		m.Entries = append(m.Entries, e)
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: nameManifest, Mode: 0o600, Size: int64(len(b)), ModTime: m.Made}); err != nil {
		return err
	}
	if _, err := t.Write(b); err != nil {
		return err
	}
	return t.Close()
}

func addFile(t *tar.Writer, name, path string, at time.Time) (Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Entry{}, err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: st.Size(), ModTime: at}); err != nil {
		return Entry{}, err
	}
	h := sha512.New512_256()
	if _, err := io.Copy(io.MultiWriter(t, h), f); err != nil {
		return Entry{}, err
	}
	return Entry{name, st.Size(), hex.EncodeToString(h.Sum(nil))}, nil
}

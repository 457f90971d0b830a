// Package safefile writes files whole or not at all, and reads secret files only when nobody else can.
package safefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrOpenToOthers is returned for a secret file whose mode lets its group or the world in.
var ErrOpenToOthers = errors.New("readable or writable by others: use chmod 600")

// ErrTooLarge is returned for a file that is longer than the reader allows.
var ErrTooLarge = errors.New("file too large")

// Write puts data into the file at path with mode 0600, in place of what was there: after a crash the path has the old
// content or all of the new one, never a part. When it returns nil the content and its name are on stable storage.
func Write(path string, data []byte) error {
	return write(path, bytes.NewReader(data), os.Rename)
}

// Create is Write for a file that must not exist: it fails with fs.ErrExist when there is one, also against another
// Create at the same moment.
func Create(path string, data []byte) error {
	return CreateFrom(path, bytes.NewReader(data))
}

// CreateFrom is Create of what a reader gives.
func CreateFrom(path string, r io.Reader) error {
	return write(path, r, os.Link)
}

// write makes a temporary file beside path and publishes it by place, which is os.Rename or os.Link.
func write(path string, r io.Reader, place func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // CreateTemp makes mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after a rename nothing is there
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir brings the names in the folder dir to stable storage.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadSecret reads a regular file of at most limit octets, if its mode gives group and others nothing; else the error
// wraps ErrOpenToOthers and names the file. The caller clears what it got.
func ReadSecret(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat() // of the open file, so that the check is of what is read
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := checkMode(path, st.Mode()); err != nil {
		return nil, err
	}
	return readAll(path, f, limit)
}

// CheckSecret is the check of ReadSecret without the reading, for a file or a folder.
func CheckSecret(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return checkMode(path, st.Mode())
}

// Read reads a file of at most limit octets, whoever can read it.
func Read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(path, f, limit)
}

func checkMode(path string, m fs.FileMode) error {
	if p := m.Perm(); p&0o077 != 0 {
		return fmt.Errorf("%s: mode %04o: %w", path, p, ErrOpenToOthers)
	}
	return nil
}

func readAll(path string, r io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		clear(b)
		return nil, err
	}
	if len(b) > limit {
		clear(b)
		return nil, fmt.Errorf("%s: %w: at most %d octets", path, ErrTooLarge, limit)
	}
	return b, nil
}

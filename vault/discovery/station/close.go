package station

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
	"dimegate/vault/escrow"
)

// CloseCase ends the case here: it signs statement 8 over what was opened, destroys the case key, the keys of every message and the
// officers' partials, and then gives out the closing file. Ended in the middle, it goes on when it is called again, without keys
// where they are gone. Export is the digest of what was exported.
func (s *Station) CloseCase(k *Keys, export vault.Digest, now time.Time) ([]byte, error) {
	if s.selection == nil {
		return nil, ErrNotSigned
	}
	draft := s.path(closingFile) + ".new"
	if _, err := os.Stat(draft); errors.Is(err, fs.ErrNotExist) {
		if k == nil {
			return nil, ErrClosed
		}
		b, err := s.closing(k, export, now)
		if err != nil {
			return nil, err
		}
		if err := safefile.Write(draft, b); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{secretFile, journalFile, marksFile} {
		if err := overwrite(s.path(name)); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(s.Credentials()); err != nil {
		return nil, err
	}
	if err := os.Remove(s.path(caseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) { // sealed, and maybe a link to a file that is somebody's
		return nil, err
	}
	if err := os.Rename(draft, s.path(closingFile)); err != nil {
		return nil, err
	}
	if err := safefile.SyncDir(s.dir); err != nil {
		return nil, err
	}
	return safefile.Read(s.path(closingFile), discovery.MaxClosing)
}

// Closing tells whether a closing was begun and not ended.
func (s *Station) Closing() bool {
	_, err := os.Stat(s.path(closingFile) + ".new")
	return err == nil
}

// closing makes the closing file.
func (s *Station) closing(k *Keys, export vault.Digest, now time.Time) ([]byte, error) {
	m := s.selection.Manifest
	c := discovery.Closing{Export: export}
	var err error
	if c.Access, c.Accesses, err = s.accesses(); err != nil {
		return nil, err
	}
	st := escrow.Statement{Kind: escrow.CloseCase, Time: now, Subject: m.Digest(), Size: m.LogSize, Root: m.LogRoot}
	opened, err := s.openedCase(k)
	switch {
	case m.Rewraps():
		r, err := s.rewrappedCase()
		if err != nil {
			return nil, err
		}
		c.Opened, c.Unopenable = r.Opened, r.Unopenable
		slices.Sort(c.Opened)
		c.Opened = slices.Compact(c.Opened)
		c.Unopenable = slices.DeleteFunc(c.Unopenable, func(n uint64) bool { return slices.Contains(c.Opened, n) })
		slices.Sort(c.Unopenable)
		c.Unopenable = slices.Compact(c.Unopenable)
	case errors.Is(err, ErrNotOpened):
	case err != nil:
		return nil, err
	default:
		defer opened.Close()
		if cp, err := s.trust().Open(opened.record.Head.Note); err == nil {
			st.Size, st.Root = uint64(cp.Size), cp.Root
		}
		for _, r := range opened.records {
			c.Opened = append(c.Opened, r.leaf)
		}
		slices.Sort(c.Opened)
		for _, f := range opened.faults {
			if _, ok := slices.BinarySearch(c.Opened, f.Leaf); !ok {
				c.Unopenable = append(c.Unopenable, f.Leaf)
			}
		}
		slices.Sort(c.Unopenable)
		c.Unopenable = slices.Compact(c.Unopenable)
	}
	st.Extra = discovery.OpenedDigest(c.Opened)
	if c.Statement, err = st.Sign(k.signing); err != nil {
		return nil, err
	}
	return c.Octets()
}

// accesses is the head of the mailbox's access record; zero when there was no mailbox.
func (s *Station) accesses() (vault.Digest, int, error) {
	f, err := os.Open(s.AccessRecord())
	if errors.Is(err, fs.ErrNotExist) {
		return vault.Digest{}, 0, nil
	} else if err != nil {
		return vault.Digest{}, 0, err
	}
	defer f.Close()
	return access.Read(f, s.selection.Manifest.Digest(), nil)
}

// AccessRecord is the file of the mailbox's access record, which stays when the case is closed.
func (s *Station) AccessRecord() string { return s.path("access.log") }

// Credentials is the folder of the mailbox's credentials.
func (s *Station) Credentials() string { return s.path("credentials") }

// overwrite destroys a file's octets as far as a program can, then its name.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	noise := make([]byte, 64<<10)
	for at := int64(0); at < st.Size(); at += int64(len(noise)) {
		rand.Read(noise)
		if _, err := f.WriteAt(noise[:min(int64(len(noise)), st.Size()-at)], at); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Remove(path)
}

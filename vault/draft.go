package vault

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"dimegate/internal/killpoint"
	"dimegate/internal/safefile"
)

// InlineMax is the size in octets up to which a sealed body or object rests in its row; what is larger is a file.
const InlineMax = 64 << 10

// A Draft is a record in the making. It seals what is written to it as it comes: at most one segment is in memory, and
// what it writes to disk is sealed. Its owner ends it with the vault's Accept or BeginInbound, or with Discard.
type Draft struct {
	v      *Vault
	id     ID
	key    Secret
	seal   *StreamWriter
	out    spill
	octets int64
	plain  sumWriter // D("octets", …)
	sealed sumWriter // SHA-512/256 of the sealed body
	keep   func(KeepRequest) (*Keeping, error)

	exhibits []Exhibit
	files    []*readyExhibit // of these, once they are sealed
	err      error
}

// NewDraft begins a record. ErrFull when the folder's file system has less room than KeepFree says, ErrSealed without
// the host seal.
func (v *Vault) NewDraft() (*Draft, error) {
	if v.host == nil {
		return nil, fmt.Errorf("%w (host seal not open)", ErrSealed)
	}
	if err := v.checkRoom(); err != nil {
		return nil, err
	}
	id := NewID(v.now())
	d := &Draft{v: v, id: id, key: NewSecret(), plain: newDigester("octets"), sealed: sha512.New512_256()}
	d.out.path = v.bodyPath(id.String())
	var err error
	if d.seal, err = NewStreamWriter(sealedOf{d}, d.key, PartBody, nil); err != nil {
		d.Discard()
		return nil, err
	}
	return d, nil
}

// ID is the record's.
func (d *Draft) ID() ID { return d.id }

// sealedOf is the writer below the seal: it hashes and spills.
type sealedOf struct{ d *Draft }

func (s sealedOf) Write(p []byte) (int, error) {
	s.d.sealed.Write(p)
	return s.d.out.Write(p)
}

// Write seals p. ErrFull when there is no room for it.
func (d *Draft) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	d.plain.Write(p)
	n, err := d.seal.Write(p)
	d.octets += int64(n)
	if err != nil {
		d.err = storageError(err)
	}
	return n, d.err
}

// finish writes the last segment and, for a file, brings it to stable storage.
func (d *Draft) finish() error {
	if d.err == nil {
		d.err = storageError(d.seal.Close())
	}
	if d.err == nil {
		d.err = storageError(d.out.finish())
	}
	return d.err
}

// Discard ends a draft that is not wanted and removes its file. After a commit it does nothing.
func (d *Draft) Discard() {
	if d.err == errDraftDone {
		return
	}
	d.out.remove()
	removeExhibits(d.files)
	d.done()
}

var errDraftDone = errors.New("vault: the draft has ended")

func (d *Draft) done() {
	d.err = errDraftDone
	d.key.Destroy()
}

// digest is that of the sealed body.
func (d *Draft) digest() Digest { return Digest(d.sealed.Sum(nil)) }

// A spill keeps octets in memory up to InlineMax and in a file beyond.
type spill struct {
	path string
	mem  bytes.Buffer
	file *os.File
}

func (s *spill) Write(p []byte) (int, error) {
	if s.file == nil && s.mem.Len()+len(p) <= InlineMax {
		return s.mem.Write(p)
	}
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return 0, err
		}
		s.file = f
		if _, err := f.Write(s.mem.Bytes()); err != nil {
			return 0, err
		}
		s.mem = bytes.Buffer{}
	}
	return s.file.Write(p)
}

// finish brings file and name to stable storage, if there is a file.
func (s *spill) finish() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Sync()
	if cerr := s.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	err = safefile.SyncDir(filepath.Dir(s.path))
	killpoint.Here(killpoint.FileAfter, nil)
	return err
}

// inline is what a row holds: nil beside a file.
func (s *spill) inline() []byte {
	if s.file != nil {
		return nil
	}
	return s.mem.Bytes()
}

func (s *spill) remove() {
	if s.file != nil {
		s.file.Close() // closed already after finish, which is fine
		os.Remove(s.path)
	}
}

// objectSuffix tells the file of a built message from that of a body.
const objectSuffix = ".object"

func (v *Vault) bodyPath(name string) string { return filepath.Join(v.dir, bodyDir, name) }

// removeFile removes the file of a row that went. What fails is left to the sweep at the next start.
func (v *Vault) removeFile(name string) { os.Remove(v.bodyPath(name)) }

// checkRoom is ErrFull when the file system has less room than is to stay free.
func (v *Vault) checkRoom() error {
	if v.minFree <= 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(v.dir, &st); err != nil {
		return fmt.Errorf("vault: free space: %w", err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < v.minFree {
		return fmt.Errorf("%w: %d octets free, %d wanted", ErrFull, free, v.minFree)
	}
	return nil
}

// openFile opens the file of a row that says it has one.
func (v *Vault) openFile(name string) (*os.File, error) {
	f, err := os.Open(v.bodyPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: its file is gone", ErrCorrupt)
	}
	return f, err
}

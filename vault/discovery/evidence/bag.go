package evidence

import (
	"archive/zip"
	"bufio"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"
)

// sums are the hashes of the two manifests, in the order of algorithms.
type sums [2]hash.Hash

func newSums() sums { return sums{sha256.New(), sha512.New()} }

func (s sums) Write(p []byte) (int, error) {
	for _, h := range s {
		h.Write(p)
	}
	return len(p), nil
}

func (s sums) hex(i int) string { return hex.EncodeToString(s[i].Sum(nil)) }

// manifestLine is a line of a manifest (RFC 8493 §2.1.3).
func manifestLine(sum, name string) string { return sum + "  " + name + "\n" }

// A bag writes a BagIt bag into a ZIP file, file by file, those of the payload in the order of their names. Members are stored as
// they are: nothing swells when it is read.
type bag struct {
	z       *zip.Writer
	base    string
	made    time.Time
	last    string
	lists   [2]*os.File // the payload's manifests, while they grow
	buffers [2]*bufio.Writer
	tags    [2][]byte // the tag manifests
	octets  int64     // of the payload
	files   int64
}

// newBag begins a bag. Manifests grow in temporary files: they have names and hashes, no mail.
func newBag(w io.Writer, base string, made time.Time) (*bag, error) {
	b := &bag{z: zip.NewWriter(w), base: base + "/", made: made}
	for i := range b.lists {
		f, err := os.CreateTemp("", "dimegate-manifest-*")
		if err != nil {
			b.close()
			return nil, err
		}
		b.lists[i], b.buffers[i] = f, bufio.NewWriter(f)
	}
	return b, nil
}

// close removes what the bag needed.
func (b *bag) close() {
	for _, f := range b.lists {
		if f != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}
}

func (b *bag) create(name string) (io.Writer, error) {
	return b.z.CreateHeader(&zip.FileHeader{Name: b.base + name, Method: zip.Store, Modified: b.made})
}

// copy writes a file of the payload.
func (b *bag) copy(name string, r io.Reader) (int64, error) {
	if name <= b.last {
		return 0, fmt.Errorf("evidence: %s behind %s", name, b.last) // a fault of this package's
	}
	b.last = name
	w, err := b.create(name)
	if err != nil {
		return 0, err
	}
	s := newSums()
	n, err := io.Copy(w, io.TeeReader(r, s))
	if err != nil {
		return n, err
	}
	for i, l := range b.buffers {
		l.WriteString(manifestLine(s.hex(i), name))
	}
	b.octets += n
	b.files++
	return n, nil
}

// tag writes a tag file that the tag manifests list; they must come in the order of their names.
func (b *bag) tag(name string, r io.Reader) error {
	w, err := b.create(name)
	if err != nil {
		return err
	}
	s := newSums()
	if _, err := io.Copy(w, io.TeeReader(r, s)); err != nil {
		return err
	}
	for i := range b.tags {
		b.tags[i] = append(b.tags[i], manifestLine(s.hex(i), name)...)
	}
	return nil
}

// manifests writes the payload's.
func (b *bag) manifests() error {
	for i, l := range b.buffers {
		if err := l.Flush(); err != nil {
			return err
		}
		if _, err := b.lists[i].Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := b.tag(fileManifest+algorithms[i]+".txt", b.lists[i]); err != nil {
			return err
		}
	}
	return nil
}

// end writes the tag manifests and what signs them, which they do not list.
func (b *bag) end(signature []byte) error {
	put := func(name string, octets []byte) error {
		w, err := b.create(name)
		if err == nil {
			_, err = w.Write(octets)
		}
		return err
	}
	err := put(fileSignature, signature)
	for i, t := range b.tags {
		err = errors.Join(err, put(fileTags+algorithms[i]+".txt", t))
	}
	return errors.Join(err, b.z.Close())
}

// Package access is the access record of a case: who read which item on the discovery station, in a chain that the gateway takes the
// head of when the case is closed.
package access

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

// What an entry tells of.
const (
	Login   = "login"
	Refused = "refused" // a login with a credential that exists
	Fetch   = "fetch"   // content of one item was given out
	Search  = "search"
	Logout  = "logout" // or the end of the connection
)

// An Entry is one line of the record: who did what with which item. It has no content, and no words that were searched for.
type Entry struct {
	Number     int       `json:"n"` // from 1; set by Record, with Time and Before
	Time       time.Time `json:"time"`
	Person     string    `json:"person"`
	Credential string    `json:"credential"`
	What       string    `json:"what"`
	Item       int       `json:"item,omitempty"`
	Record     string    `json:"record,omitempty"` // the item's
	Parts      string    `json:"parts,omitempty"`  // which of it, in IMAP's words; of a search: what it looked into
	Found      int       `json:"found,omitempty"`
	Before     string    `json:"before"` // the head before this entry
}

// A Log is the access record of a case: a file of lines, JSON each, of which every one holds the digest of the line before. The
// station is not the gateway and writes no leaf: Head and Count go to the gateway when the case is closed, and it makes a
// leaf of them, so the file cannot be changed afterwards.
type Log struct {
	mu     sync.Mutex
	f      *os.File
	size   int64
	head   vault.Digest
	count  int
	now    func() time.Time
	failed error
}

// ErrBroken tells that an access record is not what was written.
var ErrBroken = errors.New("access: the record is broken")

const maxEntry = 4 << 10

// Open opens the record of a case, or begins one, and checks all of it. A last line that was cut by a crash told of nothing
// that was given out, and is removed. One process at a time.
func Open(path string, of vault.Digest) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &Log{f: f, now: time.Now}
	if err := safefile.CheckSecret(path); err != nil {
		f.Close()
		return nil, err
	}
	if r.head, r.count, r.size, err = read(f, of, nil); err == nil {
		err = f.Truncate(r.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// Read checks a record from its begin and shows each entry; the head is what a leaf of the gateway holds.
func Read(r io.Reader, of vault.Digest, visit func(Entry)) (head vault.Digest, count int, err error) {
	head, count, _, err = read(r, of, visit)
	return head, count, err
}

func read(r io.Reader, of vault.Digest, visit func(Entry)) (head vault.Digest, count int, size int64, err error) {
	head = vault.NewDigest("access record", of[:])
	in := bufio.NewReaderSize(r, maxEntry)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF: // nothing, or a line that was cut
			return head, count, size, nil
		case err != nil:
			return head, count, size, fmt.Errorf("%w: entry %d: %w", ErrBroken, count+1, err)
		}
		var a Entry
		if err := json.Unmarshal(line, &a); err != nil || a.Number != count+1 || a.Before != hex.EncodeToString(head[:]) {
			return head, count, size, fmt.Errorf("%w: entry %d does not follow the one before", ErrBroken, count+1)
		}
		if visit != nil {
			visit(a)
		}
		head = vault.NewDigest("access record", head[:], line)
		count++
		size += int64(len(line))
	}
}

// Record appends entries and brings them to the disk, once for all of them. After an error it writes no more.
func (r *Log) Record(_ context.Context, entries ...Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return r.failed
	}
	var lines bytes.Buffer
	head, count := r.head, r.count
	for _, a := range entries {
		count++
		a.Number, a.Time, a.Before = count, r.now().UTC(), hex.EncodeToString(head[:])
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		line = append(line, '\n')
		if len(line) > maxEntry {
			return fmt.Errorf("access: an entry of %d octets", len(line))
		}
		head = vault.NewDigest("access record", head[:], line)
		lines.Write(line)
	}
	_, err := r.f.Write(lines.Bytes())
	if err == nil {
		err = r.f.Sync()
	}
	if err != nil {
		r.failed = fmt.Errorf("access: %w", err)
		return r.failed
	}
	r.head, r.count, r.size = head, count, r.size+int64(lines.Len())
	return nil
}

// Head is the digest that stands for all entries, and how many there are.
func (r *Log) Head() (vault.Digest, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head, r.count
}

// Close leaves the file.
func (r *Log) Close() error { return r.f.Close() }

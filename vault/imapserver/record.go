package imapserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

func hexText(d vault.Digest) string { return hex.EncodeToString(d[:]) }

func slogErr(err error) slog.Attr { return slog.Any("error", err) }

// What an entry of the access record tells of.
const (
	WhatLogin   = "login"
	WhatRefused = "refused" // a login with a credential that exists
	WhatFetch   = "fetch"   // content of one item was given out
	WhatSearch  = "search"
	WhatLogout  = "logout" // or the end of the connection
)

// An Access is one entry of the access record: who did what with which item. It has no content, and no words that were searched for.
type Access struct {
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

// A Record is the access record of a case: a file of lines, JSON each, of which every one holds the digest of the line before. The
// station is not the gateway and writes no leaf: Head and Count go to the gateway when the case is closed, and it makes a
// leaf of them, so the file cannot be changed afterwards.
type Record struct {
	mu     sync.Mutex
	f      *os.File
	size   int64
	head   vault.Digest
	count  int
	now    func() time.Time
	failed error
}

// ErrBroken tells that an access record is not what was written.
var ErrBroken = errors.New("imapserver: the access record is broken")

const maxEntry = 4 << 10

// OpenRecord opens the record of a case, or begins one, and checks all of it. A last line that was cut by a crash told of nothing
// that was given out, and is removed. One process at a time.
func OpenRecord(path string, of vault.Digest) (*Record, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &Record{f: f, now: time.Now}
	if err := safefile.CheckSecret(path); err != nil {
		f.Close()
		return nil, err
	}
	if r.head, r.count, r.size, err = readRecord(f, of, nil); err == nil {
		err = f.Truncate(r.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// ReadRecord checks a record from its begin and shows each entry; the head is what a leaf of the gateway holds.
func ReadRecord(r io.Reader, of vault.Digest, visit func(Access)) (head vault.Digest, count int, err error) {
	head, count, _, err = readRecord(r, of, visit)
	return head, count, err
}

func readRecord(r io.Reader, of vault.Digest, visit func(Access)) (head vault.Digest, count int, size int64, err error) {
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
		var a Access
		if err := json.Unmarshal(line, &a); err != nil || a.Number != count+1 || a.Before != hexText(head) {
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
func (r *Record) Record(_ context.Context, entries ...Access) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return r.failed
	}
	var lines bytes.Buffer
	head, count := r.head, r.count
	for _, a := range entries {
		count++
		a.Number, a.Time, a.Before = count, r.now().UTC(), hexText(head)
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		line = append(line, '\n')
		if len(line) > maxEntry {
			return fmt.Errorf("imapserver: an entry of %d octets", len(line))
		}
		head = vault.NewDigest("access record", head[:], line)
		lines.Write(line)
	}
	_, err := r.f.Write(lines.Bytes())
	if err == nil {
		err = r.f.Sync()
	}
	if err != nil {
		r.failed = fmt.Errorf("imapserver: access record: %w", err)
		return r.failed
	}
	r.head, r.count, r.size = head, count, r.size+int64(lines.Len())
	return nil
}

// Head is the digest that stands for all entries, and how many there are.
func (r *Record) Head() (vault.Digest, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head, r.count
}

// Close leaves the file.
func (r *Record) Close() error { return r.f.Close() }

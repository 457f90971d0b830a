package station

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/discovery"
)

// The journal is what came out of the case, an entry of the manifest a frame, in their order without a gap: length u32 ‖ the frame,
// sealed under the derived key and bound to its number. A run that was ended in the middle leaves a frame that is cut short at most;
// the next one goes on behind the last whole one.
type journal struct {
	f    *os.File
	key  vault.Secret
	n    int   // frames
	size int64 // of the whole ones
	late int   // frames since the last sync
}

const (
	maxFrame  = 16 << 20
	syncEvery = 256
)

// A frame is what is kept of one entry.
type frame struct {
	Entry     int      `json:"entry"`
	Record    vault.ID `json:"record"`
	Custodian string   `json:"custodian,omitempty"`
	Class     uint16   `json:"class,omitempty"`
	Fault     string   `json:"fault,omitempty"` // the entry does not open, and why

	// Of an entry that opens.
	Key   []byte         `json:"key,omitempty"` // of the record
	Leaf  []byte         `json:"leaf,omitempty"`
	Proof []tlog.Hash    `json:"proof,omitempty"`
	Wraps []vault.Digest `json:"wraps,omitempty"`
	Wrap  []byte         `json:"wrap,omitempty"`

	// Of the first entry of a record.
	Message *message `json:"message,omitempty"`
}

// A message is what is known of a record once it was opened and compared with the log.
type message struct {
	Direction vault.Kind           `json:"direction"`
	Octets    int64                `json:"octets"`
	Content   vault.Digest         `json:"content"`
	Body      vault.Digest         `json:"body"`
	Salt      [32]byte             `json:"salt"`
	Envelope  []byte               `json:"envelope"`
	Envelopes []discovery.Envelope `json:"envelopes"`
}

// openJournal opens the journal and gives each frame to visit with where it is. Visit keeps nothing of the frame's key.
func openJournal(path string, key vault.Secret, write bool, visit func(at int64, f *frame) error) (*journal, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR | os.O_CREATE
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotOpened
	} else if err != nil {
		return nil, err
	}
	j := &journal{f: f, key: key}
	if err := j.load(visit); err != nil {
		f.Close()
		return nil, err
	}
	if write {
		if err := f.Truncate(j.size); err != nil {
			f.Close()
			return nil, err
		}
	}
	return j, nil
}

func (j *journal) load(visit func(int64, *frame) error) error {
	st, err := j.f.Stat()
	if err != nil {
		return err
	}
	for {
		fr, next, err := j.read(j.size, j.n, st.Size())
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
		if fr.Entry != j.n {
			return fmt.Errorf("station: %w: the journal's frame %d", vault.ErrCorrupt, j.n)
		}
		err = visit(j.size, fr)
		clear(fr.Key)
		if err != nil {
			return err
		}
		j.size, j.n = next, j.n+1
	}
}

func frameContext(n int) []byte { return vault.Label("opened", fmt.Sprint(n)) }

// read reads frame n at an offset, and says where the next one begins. io.ErrUnexpectedEOF: it is not there, or not whole.
func (j *journal) read(at int64, n int, end int64) (*frame, int64, error) {
	var length [4]byte
	if at+4 > end {
		return nil, 0, io.ErrUnexpectedEOF
	}
	if _, err := j.f.ReadAt(length[:], at); err != nil {
		return nil, 0, err
	}
	size := int64(binary.BigEndian.Uint32(length[:]))
	if at+4+size > end {
		return nil, 0, io.ErrUnexpectedEOF
	}
	if size > maxFrame {
		return nil, 0, fmt.Errorf("station: %w: the journal's frame %d", vault.ErrCorrupt, n)
	}
	sealed := make([]byte, size)
	if _, err := j.f.ReadAt(sealed, at+4); err != nil {
		return nil, 0, err
	}
	b, err := vault.OpenOctets(j.key, vault.PartStation, frameContext(n), sealed)
	if err != nil {
		return nil, 0, fmt.Errorf("station: the journal's frame %d: %w", n, err)
	}
	defer clear(b)
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, 0, fmt.Errorf("station: %w: the journal's frame %d", vault.ErrCorrupt, n)
	}
	return &f, at + 4 + size, nil
}

// add appends a frame and says where it is.
func (j *journal) add(f *frame) (int64, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return 0, err
	}
	defer clear(b)
	sealed := vault.SealOctets(j.key, vault.PartStation, frameContext(j.n), b)
	if len(sealed) > maxFrame {
		return 0, fmt.Errorf("station: record %v: its envelope is too large", f.Record)
	}
	sealed = append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...)
	at := j.size
	if _, err := j.f.WriteAt(sealed, at); err != nil {
		return 0, err
	}
	j.size, j.n, j.late = at+int64(len(sealed)), j.n+1, j.late+1
	if j.late >= syncEvery {
		return at, j.sync()
	}
	return at, nil
}

func (j *journal) sync() error {
	j.late = 0
	return j.f.Sync()
}

func (j *journal) close() error { return j.f.Close() }

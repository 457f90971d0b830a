package dmtpserver

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
)

// ErrNoRoom says that all messages together hold as much as they may.
var ErrNoRoom = errors.New("dmtpserver: no room for the message")

// Buffers makes a place for each message that comes in.
type Buffers interface {
	// New makes one for a message of at most limit octets, a number that the client only claims.
	New(limit uint64) (Buffer, error)
}

// A Buffer holds one message. Nothing is used by two goroutines at a time.
type Buffer interface {
	// Write appends octets as they arrive.
	Write(p []byte) (int, error)
	// Bytes are all octets written, valid until Release. Nobody changes them.
	Bytes() ([]byte, error)
	// Release gives the place back.
	Release()
}

// NewMemory keeps messages in memory, at most total octets of all together.
func NewMemory(total int64) Buffers {
	m := new(memory)
	m.free.Store(total)
	return m
}

type memory struct{ free atomic.Int64 }

func (m *memory) New(limit uint64) (Buffer, error) { return &memoryBuffer{m: m, limit: limit}, nil }

// A memoryBuffer grows as octets arrive, by doubling, up to what was claimed: a claim by itself costs nothing.
type memoryBuffer struct {
	m     *memory
	limit uint64
	b     []byte
	taken int64
}

const firstRoom = 16 << 10

func (b *memoryBuffer) Write(p []byte) (int, error) {
	if need := len(b.b) + len(p); need > cap(b.b) {
		room := max(need, min(2*cap(b.b), int(b.limit)), min(firstRoom, int(b.limit)))
		grown := int64(room - cap(b.b))
		if b.m.free.Add(-grown) < 0 {
			b.m.free.Add(grown)
			return 0, ErrNoRoom
		}
		b.taken += grown
		next := make([]byte, len(b.b), room)
		copy(next, b.b)
		b.b = next
	}
	b.b = append(b.b, p...)
	return len(p), nil
}

func (b *memoryBuffer) Bytes() ([]byte, error) { return b.b, nil }

func (b *memoryBuffer) Release() {
	b.m.free.Add(b.taken)
	b.b, b.taken = nil, 0
}

// inMemory is how many octets of a message stay in memory where there are files for the rest.
const inMemory = 1 << 20

// NewFiles keeps large messages, which are ciphertext, in files of a folder that exists, and maps them to be read; small ones in
// memory. All together hold at most total octets. A file has no name any more when its first octet is written, so that it is gone
// with the process.
func NewFiles(folder string, total int64) Buffers {
	f := &files{folder: folder}
	f.memory.free.Store(total)
	return f
}

type files struct {
	memory memory // whose bound is that of the files, too
	folder string
}

func (f *files) New(limit uint64) (Buffer, error) {
	return &fileBuffer{files: f, small: memoryBuffer{m: &f.memory, limit: min(limit, inMemory)}}, nil
}

// A fileBuffer writes to its file and reads by a map: a write that finds no room is an error, where by a map it would be a signal.
type fileBuffer struct {
	files  *files
	small  memoryBuffer
	file   *os.File // nil: all is in small
	octets int
	mapped []byte
}

func (b *fileBuffer) Write(p []byte) (int, error) {
	if b.file == nil {
		if len(b.small.b)+len(p) <= inMemory {
			return b.small.Write(p)
		}
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	if b.files.memory.free.Add(-int64(len(p))) < 0 {
		b.files.memory.free.Add(int64(len(p)))
		return 0, ErrNoRoom
	}
	b.octets += len(p)
	return b.write(p)
}

// write is for octets that are counted.
func (b *fileBuffer) write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = errors.Join(ErrNoRoom, err)
	}
	return n, err
}

// spill goes over to a file.
func (b *fileBuffer) spill() (err error) {
	if b.file, err = os.CreateTemp(b.files.folder, "message-*"); err != nil { // mode 0600
		return err
	}
	if err := os.Remove(b.file.Name()); err != nil {
		return err
	}
	n, err := b.write(b.small.b)
	b.octets = n
	b.files.memory.free.Add(-int64(n))
	b.small.Release()
	return err
}

// Bytes maps the file.
func (b *fileBuffer) Bytes() ([]byte, error) {
	if b.file == nil {
		return b.small.Bytes()
	}
	if len(b.mapped) != b.octets {
		b.unmap()
		var err error
		if b.mapped, err = syscall.Mmap(int(b.file.Fd()), 0, b.octets, syscall.PROT_READ, syscall.MAP_PRIVATE); err != nil {
			return nil, fmt.Errorf("dmtpserver: mapping a message: %w", err)
		}
	}
	return b.mapped, nil
}

func (b *fileBuffer) unmap() {
	if b.mapped != nil {
		syscall.Munmap(b.mapped)
		b.mapped = nil
	}
}

func (b *fileBuffer) Release() {
	b.unmap()
	b.small.Release()
	if b.file != nil {
		b.file.Close()
		b.files.memory.free.Add(int64(b.octets))
		b.file, b.octets = nil, 0
	}
}

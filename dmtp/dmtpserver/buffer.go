package dmtpserver

import (
	"errors"
	"sync/atomic"
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
	Bytes() []byte
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

func (b *memoryBuffer) Bytes() []byte { return b.b }

func (b *memoryBuffer) Release() {
	b.m.free.Add(b.taken)
	b.b, b.taken = nil, 0
}

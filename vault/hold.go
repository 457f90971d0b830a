package vault

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// holdMemory is how many octets of a Hold stay in memory before it goes to a file, and how often room is looked for.
const (
	holdMemory = 256 << 10
	holdLook   = 16 << 20
)

// A Hold keeps octets for a moment: in memory while they are few, beyond that sealed in a file without a name, under a key that
// dies with it. First it is written, then read as often as one likes; Close gives everything back. It is for one goroutine.
type Hold struct {
	v      *Vault
	mem    []byte // all of it, until there is a file
	key    Secret
	file   *os.File
	seal   *StreamWriter
	n      int64 // octets held
	looked int64 // octets at the last look for room
}

var errHoldRead = errors.New("vault: a hold is written, then read")

// NewHold begins one. It takes nothing before it is written to.
func (v *Vault) NewHold() *Hold { return &Hold{v: v} }

// Write keeps p. ErrFull when there is no room, as KeepFree says.
func (h *Hold) Write(p []byte) (int, error) {
	if h.file == nil && len(h.mem)+len(p) <= holdMemory {
		h.mem = append(h.mem, p...)
		return len(p), nil
	}
	if err := h.spill(); err != nil {
		return 0, storageError(err)
	}
	n, err := h.seal.Write(p)
	h.n += int64(n)
	if errors.Is(err, errStreamClosed) {
		err = errHoldRead
	}
	return n, storageError(err)
}

// spill makes the file, and looks for room now and then.
func (h *Hold) spill() error {
	if h.file == nil || h.n-h.looked >= holdLook {
		if err := h.v.checkRoom(); err != nil {
			return err
		}
		h.looked = h.n
	}
	if h.file != nil {
		return nil
	}
	file, err := os.CreateTemp(h.v.dir, "hold-*") // mode 0600
	if err != nil {
		return err
	}
	key := NewSecret()
	seal, err := NewStreamWriter(file, key, PartBody, nil)
	if err := errors.Join(os.Remove(file.Name()), err); err != nil {
		file.Close()
		return err
	}
	h.file, h.key, h.seal = file, key, seal
	_, err = h.seal.Write(h.mem)
	h.n = int64(len(h.mem))
	clear(h.mem)
	h.mem = nil
	return err
}

// Reader reads what was written from the first octet. Nothing can be written after it.
func (h *Hold) Reader() (io.Reader, error) {
	if h.file == nil {
		return bytes.NewReader(h.mem), nil
	}
	if err := h.seal.Close(); err != nil {
		return nil, storageError(err)
	}
	return NewStreamReader(io.NewSectionReader(h.file, 0, SealedSize(h.n)), h.key, PartBody, nil)
}

// Close forgets all of it.
func (h *Hold) Close() error {
	clear(h.mem)
	h.mem = nil
	h.key.Destroy()
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}

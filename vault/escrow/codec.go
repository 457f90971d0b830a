package escrow

import (
	"encoding/binary"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudflare/circl/group"
)

// A cursor reads an object from its first octet to its last. It keeps its first failure, so that the good path reads
// straight down; after one it returns zeros, so that loops are bounded by what is there, see list.
type cursor struct {
	b      []byte
	object string
	err    error
}

func (c *cursor) fail(class Class, format string, a ...any) {
	if c.err == nil {
		c.err = refuse(class, c.object, format, a...)
		c.b = nil
	}
}

// take returns the next n octets, which stay part of the input; nil after a failure.
func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.fail(ErrDecode, "ends within a field")
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

// fixed reads into a whole array.
func (c *cursor) fixed(into []byte) { copy(into, c.take(len(into))) }

func (c *cursor) uint(n int) uint64 {
	var b [8]byte
	copy(b[8-n:], c.take(n))
	return binary.BigEndian.Uint64(b[:])
}

func (c *cursor) u8() uint8   { return uint8(c.uint(1)) }
func (c *cursor) u16() uint16 { return uint16(c.uint(2)) }
func (c *cursor) u32() uint32 { return uint32(c.uint(4)) }
func (c *cursor) u64() uint64 { return c.uint(8) }

func (c *cursor) magic(want string) {
	if got := c.take(len(want)); c.err == nil && string(got) != want {
		c.fail(ErrDecode, "is no %s", want)
	}
}

// suite reads a suite octet; never nil, so that reading can go on after a failure.
func (c *cursor) suite() *suite {
	id := c.u8()
	s := lookUp(Suite(id))
	if s == nil || !s.offered {
		c.fail(ErrDecode, "unknown suite %d", id)
		return &suites[0]
	}
	return s
}

func (c *cursor) purpose() Purpose {
	p := Purpose(c.u8())
	if p != Discovery && p != Continuity {
		c.fail(ErrDecode, "unknown %s", p)
	}
	return p
}

func (c *cursor) time() time.Time {
	t := c.u64()
	if t > maxTime {
		c.fail(ErrDecode, "a time beyond the year 9999")
		return time.Time{}
	}
	return time.Unix(int64(t), 0).UTC()
}

func (c *cursor) str8() string  { return c.text(int(c.u8())) }
func (c *cursor) str16() string { return c.text(int(c.u16())) }

func (c *cursor) text(n int) string {
	s := string(c.take(n))
	if !clean(s) {
		c.fail(ErrDecode, "text with control characters, or no UTF-8")
	}
	return s
}

func (c *cursor) point(s *suite) group.Element {
	b := c.take(s.pointSize)
	if c.err != nil {
		return nil
	}
	p, err := s.decode(b)
	switch err {
	case nil:
		return p
	case ErrIdentity:
		c.fail(ErrIdentity, "a point is the identity")
	default:
		c.fail(ErrDecode, "a point is not in canonical form")
	}
	return nil
}

func (c *cursor) points(s *suite, n int) []group.Element {
	if n*s.pointSize > len(c.b) {
		c.fail(ErrDecode, "ends within its points")
		return nil
	}
	list := make([]group.Element, n)
	for i := range list {
		list[i] = c.point(s)
	}
	return list
}

func (c *cursor) scalar(s *suite) group.Scalar {
	b := c.take(scalarSize)
	if c.err != nil {
		return nil
	}
	k, err := s.decodeScalar(b)
	if err != nil {
		c.fail(ErrDecode, "a scalar is not below the group's order")
	}
	return k
}

// list says whether n entries of at least size octets can follow, before anyone allocates for them.
func (c *cursor) list(n, size int) bool {
	if c.err == nil && n > len(c.b)/size {
		c.fail(ErrDecode, "ends within a list")
	}
	return c.err == nil
}

// end is the error of the whole: what is left over is one.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail(ErrDecode, "has spare octets at its end")
	}
	return c.err
}

// clean reports whether s is UTF-8 without control characters.
func clean(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
}

func appendStr8(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendStr16(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

package message

import (
	"crypto/sha512"
	"encoding/binary"
	"iter"
	"math"
	"sync"

	"dimegate/dmtp/key"
)

// Limits bounds what Parse accepts and Content unfolds. A zero stands for the default. All are octets, except Chunks.
type Limits struct {
	Total    int64 // the message with its tracing; default 64 MiB, at most 2³²-1 behind the header
	Chunks   int   // default 1024
	Tracing  int   // default 65,535, all that its length field can say
	Envelope int   // data of chunk 4 and of 5; default 4 KiB
	Common   int   // data of chunk 33; default 1 MiB
	Other    int   // data of chunk 34; default 1 MiB
	Unzipped int64 // data of one compressed chunk, unfolded, which is also held to 200 times its compressed size; default 64 MiB
}

// TracingKept is how much tracing a server of ours keeps when it puts its own on top.
const TracingKept = 16 << 10

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Total <= 0 {
		l.Total = 64 << 20
	}
	if l.Unzipped <= 0 {
		l.Unzipped = 64 << 20
	}
	def(&l.Chunks, 1024)
	def(&l.Tracing, math.MaxUint16)
	def(&l.Envelope, 4<<10)
	def(&l.Common, 1<<20)
	def(&l.Other, 1<<20)
	return l
}

// data is the limit of the data of a chunk of type t, or 0 for none of its own.
func (l *Limits) data(t Type) int {
	switch t {
	case TypeOrigin, TypeDestination:
		return l.Envelope
	case TypeCommon:
		return l.Common
	case TypeOther:
		return l.Other
	}
	return 0
}

// A Message is one D/MIME message of number 1847, structurally sound. Nothing of it has been decrypted or verified: see
// Open. It is safe for concurrent use, as long as nobody writes to the octets under it.
type Message struct {
	raw    []byte
	body   int // where the header of number 1847 stands, after the tracing
	chunks []chunk
	point  key.EncryptionPublic // chunk 2
	limits Limits

	once sync.Once
	id   [sha512.Size]byte

	mu   sync.Mutex
	held map[heldSignature]bool // by the origin: see originSignature
}

// A heldSignature is one that was seen to hold over the chunks from the first up to last.
type heldSignature struct {
	by   key.SigningPublic
	last Type
	sig  [signatureSize]byte
}

// Parse checks the whole structure of a message: lengths, kinds, order and number of its chunks, sizes, the ephemeral point.
// It decrypts nothing. All of b must be used, and order must be canonical (libdime's reader takes any order and repeated
// chunks), so a message has one form and every signed range lies contiguous in b.
//
// The message keeps b and never writes to it; the caller leaves it unchanged, and mapped, for as long as the message is used.
// Memory: 24 octets a chunk; bounds are checked before. Errors: *Error.
func Parse(b []byte, l Limits) (*Message, error) {
	m := &Message{raw: b, limits: l.withDefaults()}
	if int64(len(b)) > m.limits.Total {
		return nil, fail(TooLarge, 0, "%d octets, the limit is %d", len(b), m.limits.Total)
	}
	if err := m.header(); err != nil {
		return nil, err
	}
	if err := m.walk(); err != nil {
		return nil, err
	}
	if err := m.complete(); err != nil {
		return nil, err
	}
	c := m.chunks[0] // chunk 2, for it is required and the lowest type
	point, err := key.ParseEncryptionPublic(m.payload(c))
	if err != nil {
		return nil, &Error{Class: BadEphemeral, Chunk: TypeEphemeral, Offset: c.start, Reason: "no compressed point of the curve"}
	}
	m.point = point
	return m, nil
}

// header reads the tracing block and the message header.
func (m *Message) header() error {
	b := m.raw
	if len(b) >= tracingHeader && binary.BigEndian.Uint16(b) == tracingNumber {
		n := int(binary.BigEndian.Uint16(b[2:]))
		switch {
		case n == 0:
			return fail(BadTracing, 0, "empty tracing")
		case n > m.limits.Tracing:
			return fail(BadTracing, 0, "%d octets of tracing, the limit is %d", n, m.limits.Tracing)
		case n > len(b)-tracingHeader:
			return fail(Truncated, 0, "the tracing runs past the end")
		}
		m.body = tracingHeader + n
		b = b[m.body:]
	}
	if len(b) < messageHeader {
		return fail(Truncated, 0, "%d octets are no message", len(b))
	}
	switch number := binary.BigEndian.Uint16(b); {
	case number == tracingNumber && m.body > 0:
		return fail(BadTracing, 0, "a second tracing block")
	case number == nakedNumber:
		return fail(UnsupportedVariant, 0, "a naked message of PRIME (number 1908)")
	case number != messageNumber:
		return fail(BadMagic, 0, "the object number is not %d", messageNumber)
	}
	length, rest := uint64(binary.BigEndian.Uint32(b[2:])), uint64(len(b)-messageHeader)
	switch {
	case length > rest:
		return fail(Truncated, 0, "the header counts more octets than there are")
	case length < rest:
		return fail(BadLength, 0, "octets behind the end that the header gives")
	}
	return nil
}

// walk finds the chunks and checks each by itself and against the one before it.
func (m *Message) walk() error {
	m.chunks = make([]chunk, 0, 16)
	var last Type
	for p := m.body + messageHeader; p < len(m.raw); {
		if len(m.chunks) == m.limits.Chunks {
			return fail(TooLarge, 0, "more than %d chunks", m.limits.Chunks)
		}
		c, err := m.next(p, last)
		if err != nil {
			err.Offset = p
			return err
		}
		m.chunks = append(m.chunks, c)
		p, last = c.end(), c.typ
	}
	return nil
}

// next reads the chunk header at p. The first chunk of PRIME's numbering is told by its type and length (dmime.md §13.8).
func (m *Message) next(p int, last Type) (chunk, *Error) {
	b := m.raw[p:]
	if len(b) < chunkHeader {
		return chunk{}, fail(Truncated, 0, "the last chunk's header is cut")
	}
	c := chunk{typ: Type(b[0]), start: p, payload: uint24(b[1:])}
	k := &kinds[c.typ]
	switch {
	case last == 0 && c.typ == 1 && (c.payload == 35 || c.payload == 69):
		return chunk{}, fail(UnsupportedVariant, 0, "the chunks are numbered as PRIME does")
	case k.form == 0:
		return chunk{}, fail(BadChunkType, c.typ, "no such chunk")
	case k.form == reserved:
		return chunk{}, fail(ReservedChunkType, c.typ, "named but not defined")
	case c.typ < last:
		return chunk{}, fail(ChunkOrder, c.typ, "stands after chunk %d", uint8(last))
	case c.typ == last && !k.many:
		return chunk{}, fail(ChunkRepeated, c.typ, "stands there twice")
	case c.end() > len(m.raw):
		return chunk{}, fail(Truncated, c.typ, "runs past the end")
	case k.form == ephemeral && c.payload != ephemeralSize:
		return chunk{}, fail(BadPayloadSize, c.typ, "%d octets instead of %d", c.payload, ephemeralSize)
	case k.form == signature && c.payload != signatureSize:
		return chunk{}, fail(BadPayloadSize, c.typ, "%d octets instead of %d", c.payload, signatureSize)
	case k.form == standard && (c.payload%blockSize != 0 || c.payload < standardHeader):
		return chunk{}, fail(BadPayloadSize, c.typ, "%d octets are no standard payload", c.payload)
	}
	if limit := m.limits.data(c.typ); limit > 0 && c.payload > standardHeader+limit+maxPadding {
		return chunk{}, fail(TooLarge, c.typ, "the limit is %d octets of data", limit)
	}
	return c, nil
}

// complete looks for what must be there. Chunk 34, which libdime's own readers as author and recipient demand, may be absent.
func (m *Message) complete() error {
	for t := range kinds {
		if !kinds[t].required {
			continue
		}
		if _, ok := m.find(Type(t)); !ok {
			return fail(ChunkMissing, Type(t), "is not there")
		}
	}
	return nil
}

// find returns the first chunk of type t.
func (m *Message) find(t Type) (chunk, bool) {
	for _, c := range m.chunks {
		if c.typ == t {
			return c, true
		}
	}
	return chunk{}, false
}

// span is ser(2..last): the octets of all chunks up to type last, slots included. Source: dmime.md §7.
func (m *Message) span(last Type) []byte {
	start := m.body + messageHeader
	end := start
	for _, c := range m.chunks {
		if c.typ > last {
			break
		}
		end = c.end()
	}
	return m.raw[start:end]
}

func (m *Message) octets(c chunk) []byte { return m.raw[c.start:c.end()] }

func (m *Message) payload(c chunk) []byte {
	return m.raw[c.start+chunkHeader:][:c.payload]
}

func (m *Message) slot(c chunk, a Actor) []byte {
	return m.raw[c.start+chunkHeader+c.payload+slotSize*kinds[c.typ].slots.index(a):][:slotSize]
}

// Bytes are the octets of the wire, tracing included. They are not a copy: they must not be changed.
func (m *Message) Bytes() []byte { return m.raw }

// Body are the octets without tracing: what stays the same from hop to hop. They must not be changed.
func (m *Message) Body() []byte { return m.raw[m.body:] }

// Tracing is the tracing data, nil without any. Nothing signs it: never trust it.
func (m *Message) Tracing() []byte {
	if m.body == 0 {
		return nil
	}
	return m.raw[tracingHeader:m.body]
}

// ID is the message id, SHA-512 over ser(2..225): what the author's full signature covers, and what all four actors can
// compute. Tracing and origin signatures leave it as it is (dmime.md §15.5). The first call hashes the message.
func (m *Message) ID() [sha512.Size]byte {
	m.once.Do(func() { m.id = sha512.Sum512(m.span(TypeAuthorTree)) })
	return m.id
}

// A ChunkInfo is what everybody sees of a chunk.
type ChunkInfo struct {
	Type    Type
	Offset  int // from the start of the message, tracing included
	Payload int // octets, without header and slots
	Octets  []byte
}

// Chunks yields all chunks in wire order. Octets is a part of the message, not a copy.
func (m *Message) Chunks() iter.Seq2[int, ChunkInfo] {
	return func(yield func(int, ChunkInfo) bool) {
		for i, c := range m.chunks {
			if !yield(i, ChunkInfo{Type: c.typ, Offset: c.start, Payload: c.payload, Octets: m.octets(c)}) {
				return
			}
		}
	}
}

func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

func putUint24(b []byte, n int) { b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n) }

// TracingBlock is lines as the octets that stand before a message, newest first: as many whole lines (each ends with CRLF)
// as TracingKept allows, the oldest dropped; nil when there is none.
func TracingBlock(lines []byte) []byte {
	if len(lines) > TracingKept {
		lines = lines[:TracingKept]
		lines = lines[:lastLine(lines)]
	}
	if len(lines) == 0 {
		return nil
	}
	b := make([]byte, 0, tracingHeader+len(lines))
	b = binary.BigEndian.AppendUint16(b, tracingNumber)
	b = binary.BigEndian.AppendUint16(b, uint16(len(lines)))
	return append(b, lines...)
}

// lastLine is where the last whole line of b ends.
func lastLine(b []byte) int {
	for i := len(b); i >= 2; i-- {
		if b[i-2] == '\r' && b[i-1] == '\n' {
			return i
		}
	}
	return 0
}

package vault

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Part says what a sealed stream holds, so that one cannot be taken for another under the same record key.
type Part uint8

const (
	PartBody      Part = 1  // the octets of a message as received
	PartEnvelope  Part = 2  // salt of the intake leaf ‖ stored envelope
	PartRecipient Part = 3  // one queue row's recipient
	PartObject    Part = 4  // a D/MIME object, as sent or received
	PartTrouble   Part = 5  // a queue row's last failure, with the peer's words
	PartOpening   Part = 6  // salt and payload of a leaf
	PartKey       Part = 7  // a user's encryption key
	PartPin       Part = 8  // what we know of someone else's user
	PartNote      Part = 9  // octets of another room
	PartLayer     Part = 10 // a user's keys of the alternate layer
	PartArchive   Part = 11 // what the archive knows of custodians and shred keys
	PartCase      Part = 16 // what a case is about, a file of it, a hold
	PartStation   Part = 17 // what a discovery station keeps of a case
	PartExhibit   Part = 19 // what belongs to an archived record beside octets and envelope
	PartBackup    Part = 20 // the wraps of a backup
)

// A sealed stream:
//
//	"DSR1" 4 ‖ suite 1 ‖ part 1 ‖ salt 32 ‖ commitment 32 ‖ segments
//
// HKDF-SHA-256(record key, salt, "dimegate-stream-v1" ‖ 0x00 ‖ the first 6 octets ‖ context) gives 64 octets: an
// AES-256-GCM key for this stream alone, and the commitment, which tells a wrong key from damaged octets and lets no
// stream open under two keys (GCM does not promise that). Segments are STREAM of Hoang, Reyhanitabar, Rogaway and Vizár,
// "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (CRYPTO 2015): 64 KiB of plaintext and a tag
// each, the last one 0 to 64 KiB and empty only when it is the first; nonce = counter u88 ‖ (1 for the last, else 0).
// Every octet of the header is bound by the derivation or compared, so segments need no associated data.
const (
	streamMagic  = "DSR1"
	streamSuite  = 1
	streamPrefix = len(streamMagic) + 2
	commitSize   = 32
	streamHeader = streamPrefix + saltSize + commitSize
	segmentSize  = 64 << 10
)

// SealedSize is the length of a stream that seals n octets.
func SealedSize(n int64) int64 {
	segments := max(1, (n+segmentSize-1)/segmentSize)
	return int64(streamHeader) + n + segments*tagSize
}

// stream is the state that writer and reader share.
type stream struct {
	aead    cipher.AEAD
	counter uint64
}

// newStream derives key and commitment of a stream.
func newStream(key Secret, header, context []byte) (stream, []byte) {
	salt := header[streamPrefix : streamPrefix+saltSize]
	k := derive(key, salt, "dimegate-stream-v1\x00"+string(header[:streamPrefix])+string(context), 32+commitSize)
	defer clear(k[:32])
	return stream{aead: newGCM(k[:32])}, k[32:]
}

func (s *stream) nonce(last bool) []byte {
	var n [nonceSize]byte
	binary.BigEndian.PutUint64(n[3:], s.counter)
	if last {
		n[nonceSize-1] = 1
	}
	return n[:]
}

// A StreamWriter seals what is written to it. Close writes the last segment: without it the stream is cut short.
type StreamWriter struct {
	w   io.Writer
	s   stream
	buf []byte // plaintext of the segment in work; grows to a segment, is sealed in place
	err error
}

// NewStreamWriter writes the header of a sealed stream to w. Context is what else the stream is bound to, such as the id
// of its row; the reader must give the same.
func NewStreamWriter(w io.Writer, key Secret, part Part, context []byte) (*StreamWriter, error) {
	h := make([]byte, streamPrefix+saltSize, streamHeader)
	copy(h, streamMagic)
	h[streamPrefix-2], h[streamPrefix-1] = streamSuite, byte(part)
	rand.Read(h[streamPrefix:])
	s, commitment := newStream(key, h, context)
	if _, err := w.Write(append(h, commitment...)); err != nil {
		return nil, err
	}
	return &StreamWriter{w: w, s: s}, nil
}

func (w *StreamWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 && w.err == nil {
		if len(w.buf) == segmentSize { // and more follows: not the last
			w.flush(false)
			continue
		}
		k := min(len(p), segmentSize-len(w.buf))
		w.grow(k)
		w.buf = append(w.buf, p[:k]...)
		p, n = p[k:], n+k
	}
	return n, w.err
}

// grow makes room for k more octets and the tag, clearing what it leaves behind: that was plaintext.
func (w *StreamWriter) grow(k int) {
	if need := len(w.buf) + k + tagSize; need > cap(w.buf) {
		old := w.buf
		w.buf = append(make([]byte, 0, min(segmentSize+tagSize, max(need, 2*cap(old), 4096))), old...)
		clear(old)
	}
}

func (w *StreamWriter) flush(last bool) {
	w.grow(0)
	sealed := w.s.aead.Seal(w.buf[:0], w.s.nonce(last), w.buf, nil)
	w.s.counter++
	_, w.err = w.w.Write(sealed)
	w.buf = w.buf[:0]
}

var errStreamClosed = errors.New("vault: write to a closed stream")

// Close writes the last segment. It does not close the writer below. Only the first call does anything.
func (w *StreamWriter) Close() error {
	switch {
	case w.err == errStreamClosed:
		return nil
	case w.err == nil:
		w.flush(true)
	}
	clear(w.buf[:cap(w.buf)])
	if w.err != nil {
		return w.err
	}
	w.err = errStreamClosed
	return nil
}

// A StreamReader opens a sealed stream: a segment is verified whole before its first octet is given out, and the end is
// reported only after the last segment and nothing behind it. Errors: ErrCorrupt, ErrTruncated, or the reader's below.
type StreamReader struct {
	r    *bufio.Reader
	s    stream
	buf  []byte // a sealed segment
	open []byte // the same segment's plaintext
	rest []byte // of open, not yet given out
	err  error
}

// NewStreamReader reads the header of a stream. ErrWrongKey: the stream was not sealed under this key, part and context.
func NewStreamReader(r io.Reader, key Secret, part Part, context []byte) (*StreamReader, error) {
	h := make([]byte, streamHeader)
	if _, err := io.ReadFull(r, h); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, ErrTruncated
	} else if err != nil {
		return nil, err
	}
	if string(h[:len(streamMagic)]) != streamMagic || h[streamPrefix-2] != streamSuite || Part(h[streamPrefix-1]) != part {
		return nil, fmt.Errorf("%w: not a sealed stream of this kind", ErrCorrupt)
	}
	s, commitment := newStream(key, h, context)
	if subtle.ConstantTimeCompare(commitment, h[streamPrefix+saltSize:]) != 1 {
		return nil, ErrWrongKey
	}
	return &StreamReader{r: bufio.NewReaderSize(r, 4096), s: s}, nil
}

func (r *StreamReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.rest, r.err = r.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next opens one segment. With the last one it returns io.EOF.
func (r *StreamReader) next() ([]byte, error) {
	if r.buf == nil {
		r.buf, r.open = make([]byte, segmentSize+tagSize), make([]byte, 0, segmentSize)
	}
	n, err := io.ReadFull(r.r, r.buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	last := err != nil
	if !last {
		if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
			last = true
		} else if err != nil {
			return nil, err
		}
	}
	if n < tagSize {
		return nil, ErrTruncated
	}
	first := r.s.counter == 0
	plain, err := r.s.aead.Open(r.open, r.s.nonce(last), r.buf[:n], nil)
	if err != nil {
		return nil, r.blame(n, last)
	}
	r.s.counter++
	if !last {
		return plain, nil
	}
	if len(plain) == 0 && !first {
		return nil, ErrCorrupt // an empty last segment is a second form of the same message
	}
	return plain, io.EOF
}

// blame tells a stream that ends after a whole segment from one whose octets changed.
func (r *StreamReader) blame(n int, last bool) error {
	if last && n == segmentSize+tagSize {
		if _, err := r.s.aead.Open(nil, r.s.nonce(false), r.buf[:n], nil); err == nil {
			return ErrTruncated
		}
	}
	return ErrCorrupt
}

// SealOctets seals a short plaintext as one stream.
func SealOctets(key Secret, part Part, context, plain []byte) []byte {
	var b bytes.Buffer
	b.Grow(int(SealedSize(int64(len(plain)))))
	w, err := NewStreamWriter(&b, key, part, context)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("vault: sealing into memory: " + err.Error()) // a bytes.Buffer takes what it is given
	}
	return b.Bytes()
}

// OpenOctets is the inverse of SealOctets.
func OpenOctets(key Secret, part Part, context, sealed []byte) ([]byte, error) {
	r, err := NewStreamReader(bytes.NewReader(sealed), key, part, context)
	if err != nil {
		return nil, err
	}
	if n := len(sealed) - streamHeader; n < segmentSize {
		r.buf = make([]byte, n+1) // no whole segment's room for what is mostly a line; one more shows that it is the last
	}
	return io.ReadAll(r)
}

package escrow

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Bundle is the head of what an officer gets of a case, DEB1: the case, who asks for it, and what the log says.
type Bundle struct {
	Manifest    *Manifest
	Request     *Statement
	Note        []byte // checkpoint with its cosignatures
	CaseIndex   uint64 // of the leaf that says that the case was opened
	CaseLeaf    []byte
	CaseProof   []tlog.Hash
	Consistency []Consistency
	Custodians  []CustodianName // as the manifest's custodians
}

// A Consistency proves that a smaller tree is a beginning of the note's.
type Consistency struct {
	Size  uint64
	Proof []tlog.Hash
}

// A CustodianName is what a custodian's id is made of.
type CustodianName struct {
	Salt    [32]byte
	Address string
}

// A BundleEntry is one wrap of a case with the leaf of its record, in the manifest's order.
type BundleEntry struct {
	Leaf  []byte         // of the record's intake, or of its re-wrap
	Proof []tlog.Hash    // that the leaf is in the note's tree
	Wraps []vault.Digest // all wraps of the record, ascending
	Wrap  []byte         // DET1
}

const (
	bundleMagic = "DEB1"
	maxProof    = 255
	maxAddress  = 255
)

// WriteTo writes the head; entries follow it, see BundleEntry.WriteTo.
func (b *Bundle) WriteTo(w io.Writer) (int64, error) {
	if len(b.Note) > maxNote || len(b.Consistency) > 255 || len(b.Custodians) != len(b.Manifest.Custodians) || len(b.CaseLeaf) != vault.LeafSize {
		return 0, refuse(ErrDecode, "bundle", "a part is too long, or missing")
	}
	out := append([]byte(bundleMagic), be32(uint32(len(b.Manifest.octets)))...)
	out = slices.Concat(out, b.Manifest.octets, b.Request.Octets(), be16(uint16(len(b.Note))), b.Note)
	out = append(binary.BigEndian.AppendUint64(out, b.CaseIndex), b.CaseLeaf...)
	out = appendHashes(out, b.CaseProof)
	out = append(out, byte(len(b.Consistency)))
	for _, c := range b.Consistency {
		out = appendHashes(binary.BigEndian.AppendUint64(out, c.Size), c.Proof)
	}
	for _, c := range b.Custodians {
		out = appendStr8(append(out, c.Salt[:]...), c.Address)
	}
	n, err := w.Write(out)
	return int64(n), err
}

// WriteTo writes an entry.
func (e *BundleEntry) WriteTo(w io.Writer) (int64, error) {
	if len(e.Leaf) != vault.LeafSize || len(e.Wraps) > 65535 {
		return 0, refuse(ErrDecode, "bundle", "no leaf, or too many wraps")
	}
	out := appendHashes(slices.Clone(e.Leaf), e.Proof)
	out = append(out, be16(uint16(len(e.Wraps)))...)
	for _, d := range e.Wraps {
		out = append(out, d[:]...)
	}
	n, err := w.Write(append(out, e.Wrap...))
	return int64(n), err
}

// appendHashes writes a proof, which has at most 63 hashes: the tree's height.
func appendHashes(b []byte, proof []tlog.Hash) []byte {
	b = append(b, byte(len(proof)))
	for _, h := range proof {
		b = append(b, h[:]...)
	}
	return b
}

// A BundleReader reads a bundle as a stream: the head at once, then entry by entry.
type BundleReader struct {
	Bundle
	r    *bufio.Reader
	next int
}

// ReadBundle reads the head. Memory: the manifest, and one entry at a time after it.
func ReadBundle(r io.Reader) (*BundleReader, error) {
	b := &BundleReader{r: bufio.NewReaderSize(r, 64<<10)}
	s := stream{r: b.r, object: "bundle"}
	if magic := s.take(4); s.err == nil && string(magic) != bundleMagic {
		s.fail("is no " + bundleMagic)
	}
	manifest := s.take(s.length(4, MaxManifest))
	request := s.take(StatementSize)
	b.Note = s.take(s.length(2, maxNote))
	b.CaseIndex = s.uint(8)
	b.CaseLeaf = s.take(vault.LeafSize)
	b.CaseProof = s.hashes()
	for range s.length(1, 255) {
		b.Consistency = append(b.Consistency, Consistency{s.uint(8), s.hashes()})
	}
	if s.err != nil {
		return nil, s.err
	}
	var err error
	if b.Manifest, err = ParseManifest(manifest); err != nil {
		return nil, err
	}
	if b.Request, err = ParseStatement(request); err != nil {
		return nil, err
	}
	for range b.Manifest.Custodians {
		c := CustodianName{Salt: [32]byte(s.fixed(32)), Address: string(s.take(s.length(1, maxAddress)))}
		if s.err == nil && !clean(c.Address) {
			s.fail("an address with control characters")
		}
		if s.err != nil {
			return nil, s.err
		}
		b.Custodians = append(b.Custodians, c)
	}
	return b, nil
}

// Next reads the next entry; io.EOF after the last of the manifest, when nothing follows it.
func (b *BundleReader) Next() (*BundleEntry, error) {
	if b.next == len(b.Manifest.Entries) {
		if _, err := b.r.ReadByte(); err == nil {
			return nil, refuse(ErrDecode, "bundle", "has spare octets at its end")
		} else if !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, io.EOF
	}
	s := stream{r: b.r, object: "bundle"}
	e := &BundleEntry{Leaf: s.take(vault.LeafSize), Proof: s.hashes()}
	for range s.length(2, 65535) {
		d := vault.Digest(s.fixed(digestSize))
		if s.err != nil {
			break
		}
		e.Wraps = append(e.Wraps, d)
	}
	e.Wrap = s.take(lookUp(b.Manifest.Suite).wrapSize())
	if s.err != nil {
		return nil, s.err
	}
	b.next++
	return e, nil
}

// A stream reads fields from a reader and keeps its first failure; every length is bounded by its caller.
type stream struct {
	r      io.Reader
	object string
	err    error
}

func (s *stream) fail(reason string) {
	if s.err == nil {
		s.err = refuse(ErrDecode, s.object, "%s", reason)
	}
}

// take reads n octets. What it allocates grows with what is there, not with what a length says.
func (s *stream) take(n int) []byte {
	if s.err != nil || n == 0 {
		return nil
	}
	b := make([]byte, min(n, 64<<10))
	var all bytes.Buffer
	for n > 0 {
		part := b[:min(n, len(b))]
		if _, err := io.ReadFull(s.r, part); err != nil {
			s.err = readError(s.object, err)
			return nil
		}
		all.Write(part)
		n -= len(part)
	}
	return all.Bytes()
}

// fixed is take for arrays: never shorter than n.
func (s *stream) fixed(n int) []byte {
	if b := s.take(n); b != nil {
		return b
	}
	return make([]byte, n)
}

func readError(object string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(ErrDecode, object, "ends within a field")
	}
	return err
}

func (s *stream) uint(n int) uint64 {
	var b [8]byte
	copy(b[8-n:], s.take(n))
	return binary.BigEndian.Uint64(b[:])
}

// length reads a length of n octets and refuses one above limit.
func (s *stream) length(n, limit int) int {
	v := s.uint(n)
	if v > uint64(limit) {
		s.fail("a part is too long")
		return 0
	}
	return int(v)
}

func (s *stream) hashes() []tlog.Hash {
	var list []tlog.Hash
	for range s.length(1, maxProof) {
		if s.err != nil {
			return nil
		}
		list = append(list, tlog.Hash(s.fixed(tlog.HashSize)))
	}
	return list
}

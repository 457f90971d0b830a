package message

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"

	"dimegate/dmtp/key"
)

// PRIME's naked messages (number 1908): what magma keeps of SMTP mail, encrypted by the server that got it, without author and
// origin. They are read, so that a user can leave magma with his mail, and never written: see NakedWeakness. Source: dmime.md §13.

// NakedWeakness is what the owner of such a message should be told.
const NakedWeakness = "PRIME's keyslots are weak: the receiving organisation's key opens the recipient's content too, so treat what was stored like this as readable by whoever had that server's key"

// A Naked is an opened PRIME message. It proves that the organisation stored these octets, and nothing about who wrote them.
type Naked struct {
	Common []byte // chunk 32: a digest of the header, LF-terminated lines
	Header []byte // chunk 33: the header block with the empty line that ends it, verbatim
	Body   []byte // chunks 48, verbatim
}

const (
	nakedEphemeral  = 1
	nakedCommon     = 32
	nakedHeaders    = 33
	nakedBody       = 48
	nakedTree       = 224
	nakedUser       = 225
	nakedOrg        = 255
	nakedSlot       = 32
	nakedShards     = 32 // of nonce and tag
	nakedKeys       = 69 // both ephemeral keys with their field headers
	nakedLeast      = 84 // of a chunk's length field
	nakedMost       = 16777332
	nakedPieceLimit = 16777098
)

// IsNaked reports whether b begins as a message of number 1908.
func IsNaked(b []byte) bool { return len(b) >= 2 && binary.BigEndian.Uint16(b) == nakedNumber }

// OpenNaked parses, verifies and opens a PRIME message with its recipient's key. The organisation's POK must be known: its
// signature alone says where the message comes from. All of b must be used (magma ignores what follows the last signature). All or
// nothing. Memory: two copies of the content. Errors: *Error.
func OpenNaked(b []byte, l Limits, recipient key.Encryption, pok key.SigningPublic) (*Naked, error) {
	l = l.withDefaults()
	switch {
	case int64(len(b)) > l.Total:
		return nil, fail(TooLarge, 0, "%d octets, the limit is %d", len(b), l.Total)
	case len(b) < messageHeader:
		return nil, fail(Truncated, 0, "%d octets are no message", len(b))
	case !IsNaked(b):
		return nil, fail(BadMagic, 0, "not number %d", nakedNumber)
	case uint64(binary.BigEndian.Uint32(b[2:])) != uint64(len(b)-messageHeader):
		return nil, fail(BadLength, 0, "the header's length is not that of the rest")
	case recipient.IsZero():
		return nil, fail(NoSlot, 0, "there is no key")
	}
	r := &nakedReader{all: b[messageHeader:], limits: l}
	if err := r.keys(recipient); err != nil {
		return nil, err
	}
	defer clear(r.kek[:])
	n := new(Naked)
	var err error
	if n.Common, err = r.one(nakedCommon); err != nil {
		return nil, err
	}
	if n.Header, err = r.one(nakedHeaders); err != nil {
		return nil, err
	}
	if n.Body, err = r.body(); err != nil {
		return nil, err
	}
	if err := r.signatures(pok); err != nil {
		return nil, err
	}
	return n, nil
}

// A nakedReader goes through a message once.
type nakedReader struct {
	all    []byte // behind the header
	at     int
	limits Limits
	signer key.SigningPublic // the message's own
	kek    [nakedSlot]byte   // the recipient's, the raw x coordinate
	tree   []byte            // the hashes so far
	chunks int
}

// take returns the next n octets.
func (r *nakedReader) take(n int) ([]byte, error) {
	if n > len(r.all)-r.at {
		return nil, fail(Truncated, 0, "a chunk runs past the end")
	}
	b := r.all[r.at : r.at+n : r.at+n]
	r.at += n
	return b, nil
}

// next reports the type of the chunk that follows; 0 at the end.
func (r *nakedReader) next() byte {
	if r.at == len(r.all) {
		return 0
	}
	return r.all[r.at]
}

// hashed adds the chunk that began at start to the tree.
func (r *nakedReader) hashed(start int) {
	h := sha512.Sum512(r.all[start:r.at])
	r.tree = append(r.tree, h[:]...)
}

// keys reads the ephemeral chunk, and derives the recipient's key encryption key.
func (r *nakedReader) keys(recipient key.Encryption) error {
	b, err := r.take(chunkHeader + nakedKeys)
	if err != nil {
		return err
	}
	if b[0] != nakedEphemeral || uint24(b[1:]) != nakedKeys || b[4] != 1 || b[5] != key.SigningSize || b[38] != 2 || b[39] != key.EncryptionPublicSize {
		return fail(ChunkOrder, 0, "no ephemeral chunk with both keys")
	}
	r.signer, err = key.ParseSigningPublic(b[6:38])
	if err != nil {
		return fail(BadEphemeral, 0, "no signing key")
	}
	point, err := key.ParseEncryptionPublic(b[40:])
	if err != nil {
		return fail(BadEphemeral, 0, "no compressed point of the curve")
	}
	r.kek = recipient.ECDH(point)
	r.hashed(0)
	return nil
}

// one reads an encrypted chunk of a type that stands alone.
func (r *nakedReader) one(typ byte) ([]byte, error) {
	data, flags, err := r.encrypted(typ)
	if err == nil && flags != 0 {
		return nil, fail(BadFlags, 0, "PRIME chunk %d: a flag without meaning here", typ)
	}
	return data, err
}

// body reads the pieces of the body.
func (r *nakedReader) body() ([]byte, error) {
	var all []byte
	for {
		data, flags, err := r.encrypted(nakedBody)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
		switch {
		case flags == 0 && r.next() == nakedBody, flags != 0 && r.next() != nakedBody:
			return nil, fail(BadSpan, 0, "PRIME chunk %d: the last piece is not the last", nakedBody)
		case flags == 0:
			return all, nil
		case flags != FlagContinues:
			return nil, fail(BadFlags, 0, "PRIME chunk %d: a flag without meaning here", nakedBody)
		}
	}
}

// encrypted opens one encrypted chunk and checks its signature.
func (r *nakedReader) encrypted(typ byte) ([]byte, byte, error) {
	start := r.at
	if r.chunks++; r.chunks > r.limits.Chunks {
		return nil, 0, fail(TooLarge, 0, "more than %d chunks", r.limits.Chunks)
	}
	header, err := r.take(chunkHeader)
	if err != nil {
		return nil, 0, err
	}
	size := uint24(header[1:])
	if header[0] != typ {
		return nil, 0, fail(ChunkOrder, 0, "PRIME chunk %d is not at its place", typ)
	}
	if size < nakedLeast || size > nakedMost {
		return nil, 0, fail(BadPayloadSize, 0, "PRIME chunk %d: no possible length", typ)
	}
	payload, err := r.take(size)
	if err != nil {
		return nil, 0, err
	}
	slots, err := r.take(2 * nakedSlot) // author, recipient
	if err != nil {
		return nil, 0, err
	}
	r.hashed(start)
	plain, err := r.open(typ, payload, slots)
	if err != nil {
		return nil, 0, err
	}
	if !r.signer.Verify(plain[signatureSize:], plain[:signatureSize]) {
		return nil, 0, fail(SigChunk, 0, "PRIME chunk %d: its signature does not hold", typ)
	}
	return nakedData(typ, plain)
}

// secret is the hash of the chunk's key, out of the recipient's slot, which is the last. The other slots are those of actors that a
// naked message has not.
func (r *nakedReader) secret(typ byte, slots []byte, zeros int) ([sha512.Size]byte, error) {
	if len(bytes.Trim(slots[:zeros], "\x00")) > 0 {
		return [sha512.Size]byte{}, fail(BadChunkType, 0, "PRIME chunk %d: a slot of an author", typ)
	}
	var k [nakedSlot]byte
	defer clear(k[:])
	subtle.XORBytes(k[:], slots[len(slots)-nakedSlot:], r.kek[:])
	return sha512.Sum512(k[:]), nil
}

// open decrypts: nonce and tag lie masked before the ciphertext.
func (r *nakedReader) open(typ byte, payload, slots []byte) ([]byte, error) {
	z, err := r.secret(typ, slots, nakedSlot)
	if err != nil {
		return nil, err
	}
	defer clear(z[:])
	gcm, err := cipher.NewGCMWithNonceSize(newAES(z[32:]), 16)
	if err != nil {
		return nil, fail(UnsupportedVariant, 0, "this build has no GCM with a nonce of 16 octets")
	}
	var nonce, tag [16]byte
	subtle.XORBytes(nonce[:], payload[:16], z[:16])
	subtle.XORBytes(tag[:], payload[16:32], z[16:32])
	sealed := append(bytes.Clone(payload[nakedShards:]), tag[:]...)
	plain, err := gcm.Open(sealed[:0], nonce[:], sealed, nil)
	if err != nil {
		return nil, fail(SigChunk, 0, "PRIME chunk %d does not authenticate", typ)
	}
	if len(plain) < standardHeader {
		return nil, fail(BadDataLength, 0, "PRIME chunk %d is cut short", typ)
	}
	return plain, nil
}

// nakedData takes a plain payload apart. The padding is not random: to a multiple of 16, and then to 256 in all.
func nakedData(typ byte, plain []byte) ([]byte, byte, error) {
	size, flags, pad := uint24(plain[signatureSize:]), plain[signatureSize+3], plain[signatureSize+4]
	length := len(plain) - standardHeader - size
	d := standardHeader + size
	want := max((blockSize-d%blockSize)%blockSize, minPayload-d)
	switch {
	case size == 0 || size > nakedPieceLimit || length < 0:
		return nil, 0, fail(BadDataLength, 0, "PRIME chunk %d: the data does not fit its payload", typ)
	case length != want || int(pad) != length:
		return nil, 0, fail(BadPadding, 0, "PRIME chunk %d: the padding has not its one length", typ)
	}
	for _, c := range plain[d:] {
		if c != pad {
			return nil, 0, fail(BadPadding, 0, "PRIME chunk %d: the padding is not all of its octet", typ)
		}
	}
	return plain[standardHeader:d:d], flags, nil
}

// signatures checks tree, user and organisation, and that nothing follows.
func (r *nakedReader) signatures(pok key.SigningPublic) error {
	for _, s := range []struct {
		typ    byte
		slots  int
		zeros  int
		by     key.SigningPublic
		signed func() []byte
		class  Class
	}{
		{nakedTree, 3, 2, r.signer, func() []byte { return r.tree }, SigTree},
		{nakedUser, 3, 2, r.signer, nil, SigAuthor},
		{nakedOrg, 2, 0, pok, nil, SigOrigin},
	} {
		signed := r.all[:r.at]
		if s.signed != nil {
			signed = s.signed()
		}
		b, err := r.take(1 + signatureSize + s.slots*nakedSlot)
		if err != nil {
			return err
		}
		if b[0] != s.typ {
			return fail(ChunkOrder, 0, "PRIME chunk %d is not at its place", s.typ)
		}
		z, err := r.secret(s.typ, b[1+signatureSize:], s.zeros*nakedSlot)
		if err != nil {
			return err
		}
		var sig [signatureSize]byte
		subtle.XORBytes(sig[:], b[1:1+signatureSize], z[:])
		clear(z[:])
		if !s.by.Verify(signed, sig[:]) {
			return fail(s.class, 0, "PRIME chunk %d: the signature does not hold", s.typ)
		}
	}
	if r.at != len(r.all) {
		return fail(BadLength, 0, "octets behind the last signature")
	}
	return nil
}

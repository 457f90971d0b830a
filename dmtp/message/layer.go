package message

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// A LayerMode is an administrator's wish for the alternate layer.
type LayerMode uint8

const (
	LayerOff           LayerMode = iota // never wrapped; who asks for the layer gets no mail
	LayerOpportunistic                  // wrapped where the recipient can read it
	LayerRequired                       // wrapped or not sent
)

// A Layer says how Compose treats the alternate layer. The zero value is off.
type Layer struct {
	Mode   LayerMode
	Suites []SuiteID // the administrator's order; nil is that of Suites
	Bucket int       // octets: content is filled up with zeros to a multiple, as far as a chunk holds it; 0 is none
}

const (
	layerVersion  = 1
	layerBoxes    = 0 // mode of chunk 33: the boxes are here
	layerNoBoxes  = 1 // mode of the others
	layerHeader   = 5
	layerSecret   = 32                   // the message's, AMS
	layerLength   = 4                    // true length before the data
	layerOverhead = layerHeader + 4 + 16 // of a chunk without boxes: header, length, tag
	boxHeader     = 1 + 8 + 2
)

// Suite is the suite under which a message to the owner of a user signet is wrapped: the first of the administrator's that he
// advertises; 0 for none. Errors: AltPolicy where the layer is demanded and none is common, and where a suite that would be chosen
// is advertised by a commitment whose key is not there: somebody took it out, and a weaker suite, or none, is what he wants.
func (l Layer) Suite(recipient *signet.Signet) (SuiteID, error) {
	s, _, err := l.choose(recipient)
	if s == nil {
		return 0, err
	}
	return s.id, nil
}

// choose is Suite, with the recipient's key.
func (l Layer) choose(recipient *signet.Signet) (*suite, hpke.PublicKey, error) {
	offers := adverts(recipient)
	if l.Mode != LayerOff {
		order := l.Suites
		if order == nil {
			order = Suites()
		}
		for _, id := range order {
			for _, a := range offers {
				switch {
				case a.id != id || id.row() == nil:
				case a.public != nil:
					return id.row(), a.public, nil
				case a.commit:
					return nil, nil, fail(AltPolicy, 0, "the recipient's signet lacks the key that it commits to for the alternate layer")
				}
			}
		}
	}
	if l.Mode == LayerRequired || slices.ContainsFunc(offers, func(a advert) bool { return a.always }) {
		return nil, nil, fail(AltPolicy, 0, "the alternate layer is demanded, and no suite with a whole key is common")
	}
	return nil, nil, nil
}

// A layerContext is what binds the layer of one message to it.
type layerContext struct {
	suite             *suite
	point             [key.EncryptionPublicSize]byte
	author, recipient signet.Fingerprint
	secret            []byte
}

// info is the HPKE info of an actor's box.
func (c *layerContext) info(a Actor) []byte {
	b := binary.BigEndian.AppendUint16([]byte("DIME-ALT-1 box"), uint16(c.suite.id))
	b = append(append(b, c.point[:]...), byte(a))
	return append(append(b, c.author[:]...), c.recipient[:]...)
}

// cipher makes cipher and nonce of a chunk: neither is used twice, for type and index are in the derivation.
func (c *layerContext) cipher(t Type, index uint32) (cipher.AEAD, []byte, error) {
	okm, err := c.derive(t, index)
	if err != nil {
		return nil, nil, err
	}
	defer clear(okm[:layerKeySize])
	aead, err := c.suite.content(okm[:layerKeySize])
	return aead, okm[layerKeySize:], err
}

// derive is the key and behind it the nonce of a chunk.
func (c *layerContext) derive(t Type, index uint32) ([]byte, error) {
	info := binary.BigEndian.AppendUint16([]byte("DIME-ALT-1 chunk"), uint16(c.suite.id))
	info = binary.BigEndian.AppendUint32(append(info, byte(t)), index)
	probe, err := c.suite.content(make([]byte, layerKeySize)) // for the size of its nonce
	if err != nil {
		return nil, fmt.Errorf("message: content cipher: %w", err)
	}
	okm, err := hkdf.Key(sha512.New, c.secret, c.point[:], string(info), layerKeySize+probe.NonceSize())
	if err != nil {
		return nil, fmt.Errorf("message: layer: %w", err)
	}
	return okm, nil
}

// layerAAD is what a chunk's tag covers beside its content.
func layerAAD(header []byte, t Type, index uint32, flags byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(slices.Clone(header), byte(t)), index), flags)
}

// A wrapping puts the content of one message under the layer, chunk by chunk.
type wrapping struct {
	layerContext
	boxes  []byte // header of chunk 33
	bucket int
	buf    []byte // of the chunk that was wrapped last
}

// wrapLayer prepares the layer of a message. Its secret lives until wipe.
func (w *composer) wrapLayer(p *Parties, o OriginChunk, d DestinationChunk, s *suite, public hpke.PublicKey, bucket int) (err error) {
	c := &wrapping{bucket: bucket}
	w.layer = c
	c.layerContext = layerContext{suite: s, point: w.point.Bytes(), author: o.AuthorSignet, recipient: d.RecipientSignet, secret: make([]byte, layerSecret)}
	if _, err := io.ReadFull(w.rand, c.secret); err != nil {
		return fmt.Errorf("message: randomness: %w", err)
	}
	c.boxes, err = c.layerContext.boxes(p.Author.Signet, public)
	return err
}

// most is how much longer a wrapped chunk is at most.
func (c *wrapping) most() int { return len(c.boxes) + layerOverhead + c.bucket }

// wrap returns a part under the layer, the index-th of its type. What it returns is good until the next call.
func (c *wrapping) wrap(p typedPart, index uint32) (typedPart, error) {
	header := []byte{layerVersion, byte(c.suite.id >> 8), byte(c.suite.id), layerNoBoxes, byte(TypeCommon)}
	if p.typ == TypeCommon {
		header = c.boxes
	}
	p.Flags |= flagAltLayer
	var err error
	c.buf, err = c.seal(c.buf[:0], header, &p, index, c.bucket)
	p.Data = c.buf
	return p, err
}

// boxes is the header of chunk 33: the secret for the recipient, and for the author where his signet has a key of the suite.
func (c *layerContext) boxes(author *signet.Signet, recipient hpke.PublicKey) ([]byte, error) {
	header := []byte{layerVersion, byte(c.suite.id >> 8), byte(c.suite.id), layerBoxes, 0}
	box := func(a Actor, public hpke.PublicKey) error {
		sealed, err := hpke.Seal(public, c.suite.kdf, c.suite.aead, c.info(a), c.secret)
		if err != nil {
			return fmt.Errorf("message: key box: %w", err)
		}
		id := layerKeyID(public)
		header = append(append(header, byte(a)), id[:]...)
		header = append(binary.BigEndian.AppendUint16(header, uint16(len(sealed))), sealed...)
		header[layerHeader-1]++
		return nil
	}
	for _, own := range adverts(author) {
		if own.id == c.suite.id && own.public != nil {
			if err := box(Author, own.public); err != nil {
				return nil, err
			}
			break
		}
	}
	return header, box(Recipient, recipient)
}

// seal appends a part's header and ciphertext to buf, which holds nothing that overlaps the part.
func (c *layerContext) seal(buf, header []byte, p *typedPart, index uint32, bucket int) ([]byte, error) {
	aead, nonce, err := c.cipher(p.typ, index)
	if err != nil {
		return nil, err
	}
	n := layerLength + len(p.Data)
	room := pieceSize - len(header) - aead.Overhead()
	if l := (Limits{}).withDefaults(); l.data(p.typ) > 0 {
		room = l.data(p.typ) - len(header) - aead.Overhead()
	}
	if n > room {
		return nil, fail(TooLarge, p.typ, "under the alternate layer it is over its limit")
	}
	if bucket > 0 {
		n = min((n+bucket-1)/bucket*bucket, room)
	}
	buf = append(slices.Grow(buf, len(header)+n+aead.Overhead()), header...)
	plain := buf[len(buf) : len(buf)+n]
	binary.BigEndian.PutUint32(plain, uint32(len(p.Data)))
	clear(plain[layerLength+copy(plain[layerLength:], p.Data):])
	return aead.Seal(buf, nonce, plain, layerAAD(header, p.typ, index, p.Flags)), nil
}

// UseLayer gives the reader's private keys of the alternate layer to Content. They are only read.
func (o *Opened) UseLayer(keys ...LayerKey) { o.layerKeys = keys }

// Layer is the suite under which the content lay, after Content; 0 for none.
func (o *Opened) Layer() SuiteID {
	if o.layer == nil {
		return 0
	}
	return o.layer.suite.id
}

// layered looks at a chunk's flag, of which all chunks of the content have the same, and takes the layer off, in p's own octets.
func (o *Opened) layered(t Type, p standardPayload, index uint32) ([]byte, error) {
	mixed := fail(AltAuth, t, "some chunks lie under the alternate layer and some do not")
	if p.flags&flagAltLayer == 0 {
		if o.layer != nil {
			return nil, mixed
		}
		return p.data, nil
	}
	h, err := parseLayer(t, p.data)
	switch {
	case err != nil:
		return nil, err
	case t == TypeCommon:
		if o.layer, err = o.unbox(h); err != nil {
			return nil, err
		}
	case o.layer == nil:
		return nil, mixed
	case h.suite != o.layer.suite:
		return nil, fail(AltAuth, t, "of another suite than chunk 33")
	}
	return o.layer.open(h, t, index, p.flags)
}

// open decrypts a chunk where it lies.
func (c *layerContext) open(h layerParts, t Type, index uint32, flags byte) ([]byte, error) {
	aead, nonce, err := c.cipher(t, index)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(h.sealed[:0], nonce, h.sealed, layerAAD(h.header, t, index, flags))
	if err != nil {
		return nil, fail(AltAuth, t, "does not authenticate")
	}
	if len(plain) < layerLength || uint64(binary.BigEndian.Uint32(plain)) > uint64(len(plain)-layerLength) {
		return nil, fail(AltAuth, t, "the true length runs past the data")
	}
	end := layerLength + int(binary.BigEndian.Uint32(plain))
	if len(bytes.TrimLeft(plain[end:], "\x00")) > 0 {
		return nil, fail(AltAuth, t, "the fill is not zeros")
	}
	if end == layerLength {
		return nil, fail(BadDataLength, t, "no data")
	}
	return plain[layerLength:end:end], nil
}

// layerParts is the data of a wrapped chunk, taken apart.
type layerParts struct {
	suite  *suite
	header []byte
	boxes  []layerBox
	sealed []byte
}

type layerBox struct {
	actor  Actor
	id     []byte
	sealed []byte
}

// parseLayer reads the header of a wrapped chunk (dmime.md §17.4). It keeps parts of b.
func parseLayer(t Type, b []byte) (h layerParts, err error) {
	switch {
	case len(b) < layerHeader || b[0] != layerVersion:
		return h, fail(AltUnknown, t, "a version that we do not know")
	case b[3] > layerNoBoxes:
		return h, fail(AltUnknown, t, "a mode that we do not know")
	}
	if h.suite = SuiteID(binary.BigEndian.Uint16(b[1:])).row(); h.suite == nil {
		return h, fail(AltUnknown, t, "a suite that we have not")
	}
	rest, n := b[layerHeader:], int(b[4])
	switch {
	case (b[3] == layerBoxes) != (t == TypeCommon):
		return h, fail(AltAuth, t, "the key boxes are in chunk 33, and nowhere else")
	case b[3] == layerNoBoxes && n != int(TypeCommon):
		return h, fail(AltAuth, t, "the key boxes are said to be elsewhere")
	case b[3] == layerNoBoxes:
		n = 0
	}
	var seen slots
	for range n {
		if len(rest) < boxHeader {
			return h, fail(AltAuth, t, "a key box is cut short")
		}
		x := layerBox{actor: Actor(rest[0]), id: rest[1:9]}
		size := int(binary.BigEndian.Uint16(rest[9:]))
		rest = rest[boxHeader:]
		switch {
		case x.actor != Author && x.actor != Recipient || seen.has(x.actor):
			return h, fail(AltAuth, t, "a key box for nobody, or twice for one")
		case size > len(rest):
			return h, fail(AltAuth, t, "a key box is cut short")
		}
		seen |= 1 << x.actor
		x.sealed, rest = rest[:size], rest[size:]
		h.boxes = append(h.boxes, x)
	}
	h.header, h.sealed = b[:len(b)-len(rest)], rest
	return h, nil
}

// unbox opens the reader's own key box.
func (o *Opened) unbox(h layerParts) (*layerContext, error) {
	c := &layerContext{suite: h.suite, point: o.m.point.Bytes(), author: o.origin.AuthorSignet, recipient: o.destination.RecipientSignet}
	for _, x := range h.boxes {
		if x.actor != o.actor {
			continue
		}
		for _, k := range o.layerKeys {
			if k.suite != h.suite {
				continue
			}
			private := k.private()
			if id := layerKeyID(private.PublicKey()); !bytes.Equal(id[:], x.id) {
				continue
			}
			secret, err := hpke.Open(private, c.suite.kdf, c.suite.aead, c.info(o.actor), x.sealed)
			if err != nil || len(secret) != layerSecret {
				return nil, fail(AltAuth, TypeCommon, "the key box does not authenticate")
			}
			c.secret = secret
			return c, nil
		}
	}
	return nil, fail(AltNoKey, TypeCommon, "no key box for a key that we have")
}

package message

import (
	"crypto/hpke"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// A Part is the data of one display or attachment chunk. What is to be cut in several chunks, because it is larger than one or
// because the cuts mean something, has FlagContinues on all pieces but the last.
type Part struct {
	Flags byte // FlagContinues or 0
	Data  []byte
}

// Content is what author and recipient alone see.
type Content struct {
	Common  []byte // chunk 33: the lines of dmime.md §8.2
	Other   []byte // chunk 34: opaque here; nil in a message of a peer that left it out
	Display []Part // chunks 67
	Attach  []Part // chunks 131
}

// pieceSize is how much of an object too large for one chunk goes in each: whatever the padding is, it fits.
const pieceSize = 16776890

// Compose writes a message as its author: chunks signed and encrypted, both author signatures, and the three origin
// signatures as encrypted placeholders, which SignOrigin fills. All four signets are needed. It emits what libdime reads
// (dmime.md §11): at most one chunk 67 and one 131, standard padding, the reference's tree signature. Content that does not fit
// is cut where all three others advertise dmime-multi, and else refused with TooLarge. Like libdime it does not look at what the
// recipient's signet says of the alternate layer: see ComposeLayered.
//
// rand is crypto/rand.Reader, except in tests. Memory: one buffer of the message's size; content is only read. Errors: *Error,
// or a failure of rand.
func Compose(rand io.Reader, p Parties, c *Content, author key.Signing) (*Message, error) {
	return compose(rand, p, c, author, nil, nil, 0)
}

// ComposeLayered is Compose with the alternate layer under the outer scheme, as l and the recipient's signet say. Servers see no
// difference. Errors: also AltPolicy, where the layer is demanded and not to be had. (The key boxes draw from crypto/rand, whatever
// rand is.)
func ComposeLayered(rand io.Reader, p Parties, c *Content, author key.Signing, l Layer) (*Message, error) {
	inner, public, err := l.choose(p.Recipient.Signet)
	if err != nil {
		return nil, err
	}
	return compose(rand, p, c, author, inner, public, l.Bucket)
}

// compose writes a message, with the layer of a suite for a recipient's key; nil for none.
func compose(rand io.Reader, p Parties, c *Content, author key.Signing, inner *suite, public hpke.PublicKey, bucket int) (*Message, error) {
	chunk4, chunk5, err := p.envelope(author)
	if err != nil {
		return nil, err
	}
	most := MaxData
	if inner != nil {
		most = pieceSize - layerOverhead
	}
	display, attach, err := p.layout(c, most)
	if err != nil {
		return nil, err
	}
	w := &composer{rand: rand, author: author}
	defer w.wipe()
	if err := w.agree(&p); err != nil {
		return nil, err
	}
	parts := []typedPart{{TypeOrigin, Part{Data: chunk4.encode()}}, {TypeDestination, Part{Data: chunk5.encode()}},
		{TypeCommon, Part{Data: c.Common}}, {TypeOther, Part{Data: c.Other}}}
	parts = append(append(parts, display...), attach...)
	if inner != nil {
		if err := w.wrapLayer(&p, chunk4, chunk5, inner, public, bucket); err != nil {
			return nil, err
		}
	}
	if err := w.write(parts); err != nil {
		return nil, err
	}
	if err := p.fits(len(w.m.raw)); err != nil {
		return nil, err
	}
	m := w.m
	w.m = nil // it is whole: wipe must leave it
	return m, nil
}

// envelope checks that the four belong together and makes chunks 4 and 5 of them.
func (p *Parties) envelope(author key.Signing) (o OriginChunk, d DestinationChunk, err error) {
	o = OriginChunk{Author: p.Author.name(), Destination: p.Destination.name()}
	d = DestinationChunk{Recipient: p.Recipient.name(), Origin: p.Origin.name()}
	for _, x := range []struct {
		party *Party
		role  Actor
		chunk Type
		name  string
		fp    *signet.Fingerprint
	}{
		{&p.Author, Author, TypeOrigin, o.Author, &o.AuthorSignet},
		{&p.Destination, Destination, TypeOrigin, o.Destination, &o.DestinationSignet},
		{&p.Recipient, Recipient, TypeDestination, d.Recipient, &d.RecipientSignet},
		{&p.Origin, Origin, TypeDestination, d.Origin, &d.OriginSignet},
	} {
		if err := x.party.has(x.role); err != nil {
			return o, d, err
		}
		if err := x.party.named(x.role, x.chunk, x.name); err != nil {
			return o, d, err
		}
		if *x.fp, err = x.party.Signet.Fingerprint(signet.Crypto); err != nil {
			return o, d, &Error{Class: SignetInvalid, Reason: "the " + x.role.String() + "'s signet has no fingerprint", Err: err}
		}
	}
	if p.Author.Signet.SigningKey() != author.Public() {
		return o, d, fail(SignetInvalid, 0, "the author's signet does not hold the signing key that is used")
	}
	// What a reader would refuse is not written: the same rules as in decodeEnvelope and bind.
	if _, err := decodeOrigin(o.encode()); err != nil {
		return o, d, err
	}
	if _, err := decodeDestination(d.encode()); err != nil {
		return o, d, err
	}
	return o, d, p.bind(&o, &d)
}

type typedPart struct {
	typ Type
	Part
}

// layout checks the content against the profile and cuts it into chunks.
func (p *Parties) layout(c *Content, most int) (display, attach []typedPart, err error) {
	if err := checkCommon(c.Common); err != nil {
		return nil, nil, err
	}
	if len(c.Other) == 0 {
		return nil, nil, fail(BadDataLength, TypeOther, "libdime needs other headers, and at least one octet of them")
	}
	l := Limits{}.withDefaults()
	if len(c.Common) > l.Common || len(c.Other) > l.Other {
		return nil, nil, fail(TooLarge, TypeCommon, "the header is over its limit")
	}
	if display, err = pieces(TypeDisplay, c.Display, most); err != nil {
		return nil, nil, err
	}
	if attach, err = pieces(TypeAttachment, c.Attach, most); err != nil {
		return nil, nil, err
	}
	const others = 10 // chunks that are neither
	switch {
	case len(display)+len(attach)+others > l.Chunks:
		return nil, nil, fail(TooLarge, 0, "more than %d chunks", l.Chunks)
	case (len(display) > 1 || len(attach) > 1) && !p.Multi():
		return nil, nil, fail(TooLarge, 0, "needs several chunks of a kind, and not all of origin, destination and recipient advertise %s", extensionMulti)
	}
	return display, attach, nil
}

// pieces cuts what is larger than a chunk holds: most octets.
func pieces(t Type, parts []Part, most int) (list []typedPart, err error) {
	for i, part := range parts {
		switch {
		case len(part.Data) == 0:
			return nil, fail(BadDataLength, t, "no data")
		case part.Flags&^FlagContinues != 0:
			return nil, fail(BadFlags, t, "only the flag of continuation can be asked for")
		case part.Flags != 0 && i == len(parts)-1:
			return nil, fail(BadSpan, t, "the last piece is said to continue")
		}
		cut := min(pieceSize, most)
		for len(part.Data) > most {
			list = append(list, typedPart{t, Part{FlagContinues, part.Data[:cut]}})
			part.Data = part.Data[cut:]
		}
		list = append(list, typedPart{t, part})
	}
	return list, nil
}

// fits holds the whole message against what destination and recipient say they take.
func (p *Parties) fits(size int) error {
	for _, party := range []*Party{&p.Destination, &p.Recipient} {
		if limit := party.sizeLimit(); limit > 0 && uint64(size) > limit {
			return fail(TooLarge, 0, "%d octets, the peer's signet allows %d", size, limit)
		}
	}
	return nil
}

// A composer appends chunks to a message whose buffer has its final capacity: nothing is copied twice, and everything is
// encrypted where it lies.
type composer struct {
	rand   io.Reader
	author key.Signing
	keks   [4]kek
	point  key.EncryptionPublic
	m      *Message
	layer  *wrapping                             // nil: none
	random [1 + ivSize + keySize + 4*ivSize]byte // one chunk's, in libdime's order: padding choice, IV, key, slots
}

// agree makes the ephemeral key, derives the four keks and forgets it.
func (w *composer) agree(p *Parties) error {
	e, err := key.GenerateEncryption(w.rand)
	if err != nil {
		return fmt.Errorf("message: ephemeral key: %w", err)
	}
	defer e.Destroy()
	w.point = e.Public()
	for a, party := range []*Party{&p.Author, &p.Origin, &p.Destination, &p.Recipient} {
		w.keks[a] = agree(e, party.Signet.EncryptionKey())
	}
	return nil
}

// wipe clears what must not outlive the call: random octets, keks, and the buffer, part of it plain text, after a failure.
func (w *composer) wipe() {
	clear(w.random[:])
	clear(w.keks[:])
	if w.layer != nil {
		clear(w.layer.secret)
	}
	if w.m != nil {
		clear(w.m.raw)
	}
}

// write makes the whole message. Order: dmime.md §7.6.
func (w *composer) write(parts []typedPart) error {
	const signatures = 5 * (chunkHeader + signatureSize + 4*slotSize)
	size := messageHeader + chunkHeader + ephemeralSize + signatures
	for _, p := range parts {
		size += chunkHeader + standardHeader + len(p.Data) + 2*minPayload + 3*slotSize
		if w.layer != nil {
			size += w.layer.most()
		}
	}
	if uint64(size) > math.MaxUint32 {
		return fail(TooLarge, 0, "a message has at most 2³²-1 octets")
	}
	w.m = &Message{raw: make([]byte, messageHeader, size), chunks: make([]chunk, 0, len(parts)+6), point: w.point,
		limits: Limits{Total: math.MaxInt64}.withDefaults()}
	binary.BigEndian.PutUint16(w.m.raw, messageNumber)
	point := w.point.Bytes()
	w.begin(TypeEphemeral, ephemeralSize)
	w.m.raw = append(w.m.raw, point[:]...)
	var index uint32 // of a part among those of its type
	for i, p := range parts {
		if index++; i == 0 || parts[i-1].typ != p.typ {
			index = 0
		}
		if w.layer != nil && p.typ >= TypeCommon {
			var err error
			if p, err = w.layer.wrap(p, index); err != nil {
				return err
			}
		}
		if err := w.standard(p); err != nil {
			return err
		}
	}
	if err := w.signature(TypeAuthorTree, w.author.Sign(w.m.tree(false))); err != nil {
		return err
	}
	if err := w.signature(TypeAuthorFull, w.author.Sign(w.m.span(TypeAuthorTree))); err != nil {
		return err
	}
	for _, t := range []Type{TypeMetadataBounce, TypeDisplayBounce, TypeOriginSignature} {
		if err := w.signature(t, make([]byte, signatureSize)); err != nil {
			return err
		}
	}
	binary.BigEndian.PutUint32(w.m.raw[2:], uint32(len(w.m.raw)-messageHeader))
	return nil
}

// begin appends a chunk's header.
func (w *composer) begin(t Type, payload int) {
	w.m.chunks = append(w.m.chunks, chunk{typ: t, start: len(w.m.raw), payload: payload})
	w.m.raw = append(w.m.raw, byte(t), byte(payload>>16), byte(payload>>8), byte(payload))
}

// draw fills the random octets of a chunk with n slots, the first one only where there is padding to choose.
func (w *composer) draw(padded bool, n int) error {
	from := 1
	if padded {
		from = 0
	}
	if _, err := io.ReadFull(w.rand, w.random[from:1+ivSize+keySize+n*ivSize]); err != nil {
		return fmt.Errorf("message: randomness: %w", err)
	}
	return nil
}

// standard appends a standard chunk: pad, sign, encrypt in place, add slots.
func (w *composer) standard(p typedPart) error {
	if err := w.draw(true, kinds[p.typ].slots.count()); err != nil {
		return err
	}
	pad, octet := padding(p.Flags, len(p.Data), w.random[0])
	w.begin(p.typ, standardHeader+len(p.Data)+pad)
	w.plain(p.Part, pad, octet)
	w.seal(p.typ)
	return nil
}

// plain appends a standard payload in the clear, signed.
func (w *composer) plain(p Part, pad int, octet byte) {
	n := len(w.m.raw)
	var header [standardHeader]byte
	putUint24(header[signatureSize:], len(p.Data))
	header[signatureSize+3] = p.Flags
	header[signatureSize+4] = octet
	w.m.raw = append(w.m.raw, header[:]...)
	w.m.raw = append(w.m.raw, p.Data...)
	for range pad {
		w.m.raw = append(w.m.raw, octet)
	}
	payload := w.m.raw[n:]
	copy(payload, w.author.Sign(payload[signatureSize:]))
}

// signature appends a signature chunk.
func (w *composer) signature(t Type, sig []byte) error {
	if err := w.draw(false, kinds[t].slots.count()); err != nil {
		return err
	}
	w.begin(t, signatureSize)
	w.m.raw = append(w.m.raw, sig...)
	w.seal(t)
	return nil
}

// seal encrypts the payload of the last chunk where it lies, and appends its slots.
func (w *composer) seal(t Type) {
	var k chunkKey
	defer k.clear()
	random := w.random[1:]
	copy(k.iv[:], random)
	copy(k.key[:], random[ivSize:])
	payload := w.m.payload(w.m.chunks[len(w.m.chunks)-1])
	k.encrypt(payload, payload)
	random = random[ivSize+keySize:]
	for a := range w.keks {
		if kinds[t].slots.has(Actor(a)) {
			w.m.raw = w.keks[a].wrap(w.m.raw, random, &k)
			random = random[ivSize:]
		}
	}
}

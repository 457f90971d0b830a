package message

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// ErrNotVerified is returned where Verify must have succeeded first: by Content, and by SignOrigin.
var ErrNotVerified = errors.New("message: not verified yet")

// An Opened is a message as one actor sees it. It is not safe for concurrent use.
type Opened struct {
	m       *Message
	actor   Actor
	kek     kek
	own     key.EncryptionPublic
	parties Parties

	origin      OriginChunk
	destination DestinationChunk
	chunk4      standardPayload // kept until their signatures are looked at
	chunk5      standardPayload
	report      Report
	verified    bool
	originBy    *signet.Signet // by whose keys the origin's signatures were seen to hold
	unzipped    int64          // octets unfolded so far, of all chunks
	layerKeys   []LayerKey     // the reader's own
	layer       *layerContext  // of the content that is being read; nil when it lies under none
}

// Open derives the actor's key encryption key and opens chunks 4 and 5, as far as he has slots there. Of a message nothing else
// is decrypted before Verify. A wrong key shows here, as an error whose Outcome is NotAuthentic and whose class means nothing.
//
// Memory: a copy of those two chunks.
func (m *Message) Open(a Actor, k key.Encryption) (*Opened, error) {
	if int(a) >= len(actorNames) {
		return nil, fail(NoSlot, 0, "there is no such actor")
	}
	if k.IsZero() {
		return nil, fail(NoSlot, 0, "there is no key")
	}
	o := &Opened{m: m, actor: a, own: k.Public(), kek: agree(k, m.point)}
	var err error
	if kinds[TypeOrigin].slots.has(a) {
		if o.chunk4, err = o.first(TypeOrigin); err != nil {
			return nil, err
		}
		if o.origin, err = decodeOrigin(o.chunk4.data); err != nil {
			return nil, err
		}
	}
	if kinds[TypeDestination].slots.has(a) {
		if o.chunk5, err = o.first(TypeDestination); err != nil {
			return nil, err
		}
		if o.destination, err = decodeDestination(o.chunk5.data); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// first opens the first chunk of type t, which is there.
func (o *Opened) first(t Type) (standardPayload, error) {
	c, _ := o.m.find(t)
	return o.standard(c)
}

// decrypt returns the plain payload of c, in a buffer of its own.
func (o *Opened) decrypt(c chunk) []byte {
	k := o.kek.unwrap(o.m.slot(c, o.actor))
	defer k.clear()
	plain := make([]byte, c.payload)
	k.decrypt(plain, o.m.payload(c))
	return plain
}

// standard decrypts a standard chunk and takes it apart. It does not look at the signature.
func (o *Opened) standard(c chunk) (standardPayload, error) {
	p, err := unpad(c.typ, o.decrypt(c))
	if err != nil {
		return p, err
	}
	if limit := o.m.limits.data(c.typ); limit > 0 && len(p.data) > limit {
		return p, fail(TooLarge, c.typ, "the limit is %d octets of data", limit)
	}
	return p, nil
}

// Message is the message that was opened.
func (o *Opened) Message() *Message { return o.m }

// Actor is who opened it.
func (o *Opened) Actor() Actor { return o.actor }

// Origin is chunk 4. Before Verify it is a claim, good only for fetching the signets that it names by fingerprint.
func (o *Opened) Origin() (OriginChunk, error) {
	if !kinds[TypeOrigin].slots.has(o.actor) {
		return OriginChunk{}, fail(NoSlot, TypeOrigin, "the %v cannot open it", o.actor)
	}
	return o.origin, nil
}

// Destination is chunk 5. Before Verify (or, for the destination, VerifyOriginSignature) it is a claim.
func (o *Opened) Destination() (DestinationChunk, error) {
	if !kinds[TypeDestination].slots.has(o.actor) {
		return DestinationChunk{}, fail(NoSlot, TypeDestination, "the %v cannot open it", o.actor)
	}
	return o.destination, nil
}

// Report is what the last Verify, or VerifyOriginSignature, found.
func (o *Opened) Report() Report { return o.report }

// Content opens chunks 33, 34, 67 and 131 and checks what only now can be seen: the author's signature inside each, padding,
// flags, the grammar of 33, spans. All or nothing. For author and recipient, after Verify.
//
// Memory: one copy of the content, chunk by chunk; compressed chunks once more, within Limits.Unzipped.
func (o *Opened) Content() (*Content, error) {
	content := new(Content)
	err := o.walk(func(t Type, _ standardPayload, part Part) {
		switch t {
		case TypeCommon:
			content.Common = part.Data
		case TypeOther:
			content.Other = part.Data
		case TypeDisplay:
			content.Display = append(content.Display, part)
		case TypeAttachment:
			content.Attach = append(content.Attach, part)
		}
	})
	if err != nil {
		return nil, err
	}
	return content, nil
}

// walk visits the chunks of the content. What it has visited counts only when it ends without an error.
func (o *Opened) walk(visit func(Type, standardPayload, Part)) error {
	if !kinds[TypeCommon].slots.has(o.actor) {
		return fail(NoSlot, TypeCommon, "the %v cannot open it", o.actor)
	}
	if !o.verified {
		return ErrNotVerified
	}
	o.unzipped, o.layer = 0, nil
	defer func() {
		if o.layer != nil {
			clear(o.layer.secret)
		}
	}()
	var index uint32 // of a chunk among those of its type
	for i, c := range o.m.chunks {
		if c.typ < TypeCommon || c.typ > TypeAttachment {
			continue
		}
		if index++; o.m.chunks[i-1].typ != c.typ { // chunk 2 at least is before
			index = 0
		}
		p, part, err := o.part(c, index)
		if err != nil {
			return err
		}
		if part.Flags != 0 && o.m.chunks[i+1].typ != c.typ { // there is a next one: the signatures
			return fail(BadSpan, c.typ, "continues in a chunk that is not there")
		}
		if c.typ == TypeCommon {
			if err := checkCommon(part.Data); err != nil {
				return err
			}
		}
		visit(c.typ, p, part)
	}
	return nil
}

// part decrypts, verifies and unfolds one chunk of content.
func (o *Opened) part(c chunk, index uint32) (standardPayload, Part, error) {
	p, err := o.standard(c)
	if err != nil {
		return p, Part{}, err
	}
	if !o.parties.Author.Signet.SigningKey().Verify(p.signed(), p.signature()) {
		return p, Part{}, fail(SigChunk, c.typ, "the author's signature does not hold")
	}
	data, err := o.layered(c.typ, p, index)
	if err != nil {
		return p, Part{}, err
	}
	p.data = data
	if p.flags&flagGzip != 0 {
		if data, err = o.unzip(c.typ, data); err != nil {
			return p, Part{}, err
		}
	}
	return p, Part{Flags: p.flags & FlagContinues, Data: data}, nil
}

// unzip unfolds one gzip member, which must be all of data.
func (o *Opened) unzip(t Type, data []byte) ([]byte, error) {
	limit := min(o.m.limits.Unzipped-o.unzipped, 200*int64(len(data)))
	r := bytes.NewReader(data) // an io.ByteReader, so that gzip reads no octet too many
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fail(BadCompression, t, "no gzip header")
	}
	z.Multistream(false)
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(z, limit+1))
	switch {
	case err != nil:
		return nil, fail(BadCompression, t, "no whole gzip member")
	case n > limit:
		return nil, fail(BadCompression, t, "unfolds to more than %d octets", limit)
	case r.Len() > 0:
		return nil, fail(BadCompression, t, "octets behind the gzip member")
	}
	if limit := int64(o.m.limits.data(t)); limit > 0 && n > limit {
		return nil, fail(TooLarge, t, "the limit is %d octets of data", limit)
	}
	o.unzipped += n
	return out.Bytes(), nil
}

// A Plain is one opened chunk, as it lies in the message, but for the alternate layer.
type Plain struct {
	Type  Type
	Flags byte
	Data  []byte  // of a signature chunk: the signature
	Sig   Verdict // of a standard chunk: the author's signature inside
}

// Chunks opens every chunk for which the actor has a slot, in wire order. Those of the content are there only after Verify, and
// if Content would succeed; without that the others are returned, and the error that stands in the way.
func (o *Opened) Chunks() ([]Plain, error) {
	var content []Plain
	err := o.walk(func(t Type, p standardPayload, _ Part) {
		content = append(content, Plain{t, p.flags, p.data, Valid})
	})
	if err != nil {
		content = nil
	}
	if !kinds[TypeCommon].slots.has(o.actor) {
		err = nil
	}
	var list []Plain
	for _, c := range o.m.chunks {
		k := &kinds[c.typ]
		switch {
		case !k.slots.has(o.actor):
		case k.form == signature:
			list = append(list, Plain{Type: c.typ, Data: o.decrypt(c)})
		case c.typ == TypeOrigin:
			list = append(list, Plain{c.typ, o.chunk4.flags, o.chunk4.data, o.report.OriginChunk})
		case c.typ == TypeDestination:
			list = append(list, Plain{c.typ, o.chunk5.flags, o.chunk5.data, o.report.DestinationChunk})
		case len(content) > 0:
			list, content = append(list, content[0]), content[1:]
		}
	}
	return list, err
}

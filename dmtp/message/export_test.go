package message

import (
	"bytes"
	"io"

	"dimegate/dmtp/key"
)

// ComposeChanged is ComposeLayered by an author who does with each wrapped chunk what change says, and signs it.
func ComposeChanged(rand io.Reader, p Parties, c *Content, author key.Signing, l Layer, change func(t Type, flags byte, data []byte) (byte, []byte)) (*Message, error) {
	o, d, err := p.envelope(author)
	if err != nil {
		return nil, err
	}
	s, public, err := l.choose(p.Recipient.Signet)
	if err != nil {
		return nil, err
	}
	w := &composer{rand: rand, author: author}
	if err := w.agree(&p); err != nil {
		return nil, err
	}
	parts := []typedPart{{TypeOrigin, Part{Data: o.encode()}}, {TypeDestination, Part{Data: d.encode()}},
		{TypeCommon, Part{Data: c.Common}}, {TypeOther, Part{Data: c.Other}}, {TypeDisplay, c.Display[0]}}
	if s != nil {
		if err := w.wrapLayer(&p, o, d, s, public, l.Bucket); err != nil {
			return nil, err
		}
		for i := range parts[2:] { // one of each type
			if parts[2+i], err = w.layer.wrap(parts[2+i], 0); err != nil {
				return nil, err
			}
			parts[2+i].Data = bytes.Clone(parts[2+i].Data)
		}
		w.layer = nil
	}
	for i := range parts[2:] {
		x := &parts[2+i]
		x.Flags, x.Data = change(x.typ, x.Flags, x.Data)
	}
	if err := w.write(parts); err != nil {
		return nil, err
	}
	return w.m, nil
}

// LayerValues are what stands between the octets of the layer and its content, for vectors.
type LayerValues struct {
	Secret, Point     []byte
	Author, Recipient []byte // fingerprints
	Boxes             []LayerBox
}

type LayerBox struct {
	Actor      byte
	ID, Sealed []byte
	Info       []byte
}

// LayerValues tells them of a message whose layer's keys are there, and of its chunk 33's data. LayerChunk goes on from there.
func (o *Opened) LayerValues(common []byte) (LayerValues, error) {
	h, err := parseLayer(TypeCommon, common)
	if err != nil {
		return LayerValues{}, err
	}
	c, err := o.unbox(h)
	if err != nil {
		return LayerValues{}, err
	}
	o.layer = c
	v := LayerValues{c.secret, c.point[:], c.author[:], c.recipient[:], nil}
	for _, b := range h.boxes {
		v.Boxes = append(v.Boxes, LayerBox{byte(b.actor), b.id, b.sealed, c.info(b.actor)})
	}
	return v, nil
}

// LayerChunk takes one wrapped chunk apart: header, key and nonce, additional data, and what lies under the tag.
func (o *Opened) LayerChunk(t Type, index uint32, flags byte, data []byte) (header, okm, aad, inner []byte, err error) {
	h, err := parseLayer(t, data)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if okm, err = o.layer.derive(t, index); err != nil {
		return nil, nil, nil, nil, err
	}
	aead, nonce, err := o.layer.cipher(t, index)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	aad = layerAAD(h.header, t, index, flags)
	inner, err = aead.Open(nil, nonce, h.sealed, aad)
	return h.header, okm, aad, inner, err
}

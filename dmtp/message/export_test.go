package message

import (
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
		if err := w.wrapLayer(parts, &p, o, d, s, public, l.Bucket); err != nil {
			return nil, err
		}
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

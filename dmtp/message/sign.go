package message

import (
	"crypto/sha512"
	"crypto/subtle"
	"slices"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// tree is what the author's tree signature signs: the SHA-512 of each chunk up to 131, in order. The reference's form, which
// is on the wire, leaves chunk 5 out and ends with 64 zero octets, by a slip of its counter (libdime dmessage/dmsg.c
// dmsg_treesig_data_get): that is what we write. The corrected form, which we read too, has every chunk at its place.
func (m *Message) tree(corrected bool) []byte {
	input := make([]byte, 0, sha512.Size*len(m.chunks))
	for _, c := range m.chunks {
		if c.typ > TypeAttachment {
			break
		}
		if c.typ != TypeDestination || corrected {
			h := sha512.Sum512(m.octets(c))
			input = append(input, h[:]...)
		}
	}
	if !corrected {
		input = append(input, make([]byte, sha512.Size)...)
	}
	return input
}

// originCoverage is what each origin signature covers: ser(2..last).
var originCoverage = []struct{ typ, last Type }{
	{TypeMetadataBounce, TypeOther},
	{TypeDisplayBounce, TypeDisplay},
	{TypeOriginSignature, TypeDisplayBounce},
}

// SignOrigin signs as origin, after Verify: chunks 248, 249 and 255 that the author left as zeros, under the keys he chose for
// them. It changes nothing else and draws nothing, so the same message and key give the same octets, and a message that is
// signed already with this key stays as it is. One that holds anything else there is refused: it is somebody else's
// signature, or a replay. Key is the organisation's POK (libdime accepts no other) or a secondary key for messages.
//
// Memory: a copy of the message.
func (o *Opened) SignOrigin(pok key.Signing) (*Message, error) {
	return o.sign(pok, func() []byte { return append(make([]byte, 0, len(o.m.raw)), o.m.raw...) })
}

// SignOriginHere is SignOrigin in the octets of the message itself, without a copy: for who has just composed it and shares it
// with nobody. Only the message that it returns may be used afterwards, none after an error.
func (o *Opened) SignOriginHere(pok key.Signing) (*Message, error) {
	return o.sign(pok, func() []byte { return o.m.raw })
}

func (o *Opened) sign(pok key.Signing, octets func() []byte) (*Message, error) {
	if o.actor != Origin {
		return nil, fail(NoSlot, TypeOriginSignature, "the origin alone signs")
	}
	if !o.verified {
		return nil, ErrNotVerified
	}
	if !o.parties.Origin.signs(pok.Public()) {
		return nil, fail(SignetInvalid, 0, "the origin's signet does not hold the signing key that is used")
	}
	signed := &Message{raw: octets(), body: o.m.body, chunks: o.m.chunks, point: o.m.point, limits: o.m.limits}
	for _, s := range originCoverage {
		c, ok := signed.find(s.typ)
		if !ok {
			continue
		}
		k := o.kek.unwrap(signed.slot(c, Origin))
		sig := pok.Sign(signed.span(s.last))
		payload := signed.payload(c)
		k.decrypt(payload, payload)
		var zeros [signatureSize]byte
		if subtle.ConstantTimeCompare(payload, zeros[:])|subtle.ConstantTimeCompare(payload, sig) != 1 {
			k.clear()
			return nil, fail(SigOrigin, s.typ, "holds a signature that is not ours")
		}
		k.encrypt(payload, sig)
		k.clear()
	}
	return signed, nil
}

// signs reports whether k is a key with which the organisation signs messages.
func (p *Party) signs(k key.SigningPublic) bool {
	return slices.Contains(p.messageKeys(), k)
}

// maxMessageKeys bounds how often a whole message is hashed to find the key that signed it.
const maxMessageKeys = 16

// messageKeys are the POK and the first secondary keys with the permission to sign messages.
func (p *Party) messageKeys() []key.SigningPublic {
	keys := p.Signet.Signers(signet.SignMessages)
	return keys[:min(len(keys), maxMessageKeys)]
}

package message

// Padding, dmime.md §4. Of the two algorithms we write the standard one and read both; libdime's own reader cannot read
// the alternate one, and counts padding in one octet.

const (
	minPayload = 256      // below that, the standard algorithm pads more
	maxPayload = 16777200 // the largest multiple of 16 that a u24 holds
	maxPadding = 4096     // what either algorithm can add
	MaxData    = maxPayload - standardHeader - 1
)

// padding returns length and octet of the padding for size octets of data, at most MaxData, and the random octet r, which
// chooses among the lengths that the payload's own limit allows. libdime fails where its choice is over that limit.
func padding(flags byte, size int, r byte) (length int, octet byte) {
	d := standardHeader + size
	least := blockSize - d%blockSize
	if flags&flagAltPadding != 0 {
		r = byte(min(int(r), (maxPayload-d-least)/blockSize))
		return least + blockSize*int(r), r
	}
	if d < minPayload {
		length = minPayload - d + blockSize*(int(r)%(d/blockSize+1))
	} else {
		room := min(blockSize, (maxPayload-d-least)/blockSize+1)
		length = least + blockSize*(int(r)%room)
	}
	return length, byte(length)
}

// unpad takes the plain payload of a standard chunk apart, strictly: pad_len as a whole number, all pad octets looked at.
// libdime checks neither beyond one octet's worth, nor that the data is within the payload.
func unpad(t Type, payload []byte) (standardPayload, error) {
	size := uint24(payload[signatureSize:])
	p := standardPayload{payload: payload, flags: payload[signatureSize+3]}
	pad := payload[signatureSize+4]
	length := len(payload) - standardHeader - size
	switch {
	case length < 0:
		return p, fail(BadDataLength, t, "the data runs past its payload")
	case size == 0:
		return p, fail(BadDataLength, t, "no data")
	case p.flags&^kinds[t].flags != 0:
		return p, fail(BadFlags, t, "a flag without meaning here")
	case length == 0:
		return p, fail(BadPadding, t, "no padding")
	}
	if p.flags&flagAltPadding != 0 {
		if length > maxPadding || int(pad) != (length-1)/blockSize {
			return p, fail(BadPadding, t, "the alternate pad octet does not fit the length")
		}
	} else if length > minPayload || pad != byte(length) {
		return p, fail(BadPadding, t, "the pad octet does not fit the length")
	}
	p.data = payload[standardHeader : standardHeader+size : standardHeader+size]
	differ := byte(0)
	for _, c := range payload[standardHeader+size:] {
		differ |= c ^ pad
	}
	if differ != 0 {
		return p, fail(BadPadding, t, "the padding is not all of its octet")
	}
	return p, nil
}

// A standardPayload is a decrypted payload, its data a part of it.
type standardPayload struct {
	payload []byte
	flags   byte
	data    []byte
}

func (p *standardPayload) signature() []byte { return p.payload[:signatureSize] }
func (p *standardPayload) signed() []byte    { return p.payload[signatureSize:] }

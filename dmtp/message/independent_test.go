package message_test

// A second reading of the format, written from the pseudocode of dmime.md (appendix B, §4 to §7) and sharing nothing with the
// package: its own table, its own arithmetic of the curve, its own padding. It is short, slow and accepts one form: what the
// reference writes.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

var plainSlots = map[byte]string{2: "", 4: "AOR", 5: "ADR", 33: "AR", 34: "AR", 67: "AR", 131: "AR",
	225: "AOR", 226: "AOR", 248: "AODR", 249: "AODR", 255: "AODR"}

type plainChunk struct {
	t                   byte
	payload, slots, raw []byte
	data                []byte // opened: of a signature chunk, the signature
	flags               byte
	sig                 []byte
	signed              []byte
	standard            bool
}

func plainParse(b []byte) (chunks []*plainChunk, err error) {
	if len(b) >= 4 && binary.BigEndian.Uint16(b) == 1837 {
		b = b[4+int(binary.BigEndian.Uint16(b[2:])):]
	}
	if binary.BigEndian.Uint16(b) != 1847 || int(binary.BigEndian.Uint32(b[2:])) != len(b)-6 {
		return nil, errors.New("header")
	}
	last := byte(0)
	for p := 6; p < len(b); {
		t := b[p]
		slots, ok := plainSlots[t]
		if !ok || t < last || t == last && t != 67 && t != 131 {
			return nil, fmt.Errorf("chunk %d after %d", t, last)
		}
		s := int(b[p+1])<<16 | int(b[p+2])<<8 | int(b[p+3])
		n := 4 + s + 64*len(slots)
		chunks = append(chunks, &plainChunk{t: t, payload: b[p+4 : p+4+s], slots: b[p+4+s : p+n], raw: b[p : p+n]})
		p, last = p+n, t
	}
	return chunks, nil
}

// The curve y² = x³ + 7 modulo p, points in affine coordinates, nil for infinity.
var (
	curveP, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", 16)
	three     = big.NewInt(3)
)

type point struct{ x, y *big.Int }

func mod(x *big.Int) *big.Int { return x.Mod(x, curveP) }

func pointOf(b []byte) (*point, error) {
	x := new(big.Int).SetBytes(b[1:])
	y := mod(new(big.Int).Add(new(big.Int).Exp(x, three, curveP), big.NewInt(7)))
	if y = y.ModSqrt(y, curveP); y == nil || len(b) != 33 || b[0]&^1 != 2 {
		return nil, errors.New("no point")
	}
	if byte(y.Bit(0)) != b[0]&1 {
		y = mod(y.Neg(y))
	}
	return &point{x, y}, nil
}

func (a *point) add(b *point) *point {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	var slope *big.Int
	if a.x.Cmp(b.x) == 0 {
		if a.y.Cmp(b.y) != 0 {
			return nil
		}
		slope = mod(new(big.Int).Mul(new(big.Int).Mul(three, new(big.Int).Mul(a.x, a.x)), new(big.Int).ModInverse(new(big.Int).Lsh(a.y, 1), curveP)))
	} else {
		slope = mod(new(big.Int).Mul(new(big.Int).Sub(b.y, a.y), new(big.Int).ModInverse(mod(new(big.Int).Sub(b.x, a.x)), curveP)))
	}
	x := mod(new(big.Int).Sub(new(big.Int).Sub(new(big.Int).Mul(slope, slope), a.x), b.x))
	return &point{x, mod(new(big.Int).Sub(new(big.Int).Mul(slope, new(big.Int).Sub(a.x, x)), a.y))}
}

func (a *point) times(k []byte) (sum *point) {
	for _, octet := range k {
		for bit := 7; bit >= 0; bit-- {
			sum = sum.add(sum)
			if octet>>bit&1 == 1 {
				sum = sum.add(a)
			}
		}
	}
	return sum
}

func xor(a, b []byte) []byte {
	c := make([]byte, len(a))
	for i := range a {
		c[i] = a[i] ^ b[i]
	}
	return c
}

func cbc(key, iv, b []byte) []byte {
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	out := make([]byte, len(b))
	cipher.NewCBCDecrypter(c, iv).CryptBlocks(out, b)
	return out
}

// plainOpen reads a message as actor "A", "O", "D" or "R" and verifies all that the actor must. Keys that he cannot know are nil.
func plainOpen(b []byte, actor string, scalar []byte, author, origin ed25519.PublicKey) (chunks []*plainChunk, err error) {
	if chunks, err = plainParse(b); err != nil {
		return nil, err
	}
	e, err := pointOf(chunks[0].payload)
	if err != nil {
		return nil, err
	}
	h := sha512.Sum512(e.times(scalar).x.FillBytes(make([]byte, 32)))
	kekIV, kekKey := xor(h[:16], h[16:32]), h[32:]
	tree, before := []byte(nil), map[byte][]byte{} // before[t] = ser(2..t)
	ser := []byte(nil)
	for _, c := range chunks {
		ser = append(ser, c.raw...)
		before[c.t] = ser[:len(ser):len(ser)]
		if sum := sha512.Sum512(c.raw); c.t <= 131 && c.t != 5 {
			tree = append(tree, sum[:]...)
		}
		i := strings.Index(plainSlots[c.t], actor)
		if i < 0 {
			continue
		}
		x := cbc(kekKey, kekIV, c.slots[64*i:64*i+64])
		if err := c.open(cbc(x[32:], xor(x[:16], x[16:32]), c.payload)); err != nil {
			return nil, err
		}
		if c.standard && author != nil && !ed25519.Verify(author, c.signed, c.sig) {
			return nil, fmt.Errorf("signature in chunk %d", c.t)
		}
	}
	tree = append(tree, make([]byte, 64)...)
	upTo := func(t byte) (s []byte) {
		for k, v := range before {
			if k <= t && len(v) > len(s) {
				s = v
			}
		}
		return s
	}
	for _, c := range chunks {
		if c.data == nil || c.standard {
			continue
		}
		covered, by := map[byte][]byte{225: tree, 226: upTo(225), 248: upTo(34), 249: upTo(67), 255: upTo(249)}[c.t], author
		if c.t >= 248 {
			by = origin
		}
		if by != nil && !ed25519.Verify(by, covered, c.data) {
			return nil, fmt.Errorf("signature %d", c.t)
		}
	}
	return chunks, nil
}

func (c *plainChunk) open(plain []byte) error {
	if c.t >= 225 {
		c.data = plain
		return nil
	}
	c.standard = true
	size := int(plain[64])<<16 | int(plain[65])<<8 | int(plain[66])
	if size == 0 || 69+size >= len(plain) || len(plain)%16 != 0 || len(plain) < 256 {
		return fmt.Errorf("chunk %d: %d octets of data in %d", c.t, size, len(plain))
	}
	pad := plain[69+size:]
	if len(pad) > 256 || !bytes.Equal(pad, bytes.Repeat([]byte{byte(len(pad))}, len(pad))) || plain[68] != byte(len(pad)) {
		return fmt.Errorf("chunk %d: padding", c.t)
	}
	c.sig, c.signed, c.flags, c.data = plain[:64], plain[64:], plain[67], plain[69:69+size]
	return nil
}

package key

import (
	"encoding/hex"
	"math/big"
	"slices"
)

// The field and the curve of Ed25519 (RFC 8032 §5.1). Public points only pass here, so math/big may take its time.
var (
	fieldPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD, _  = new(big.Int).SetString("37095705934669439343138083508754565189542113879843219016388785533085940283555", 10)
	one        = big.NewInt(1)
)

// smallOrderY are the y coordinates of the eight points whose order divides 8, little-endian: orders 1, 2, 4, 8 and 8.
// Each stands for both signs of x.
var smallOrderY = [...]SigningPublic{
	mustY("0100000000000000000000000000000000000000000000000000000000000000"),
	mustY("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	mustY("0000000000000000000000000000000000000000000000000000000000000000"),
	mustY("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
	mustY("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
}

func mustY(s string) SigningPublic {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return SigningPublic(b)
}

// y is p without the sign of x.
func (p SigningPublic) y() SigningPublic {
	p[31] &= 0x7f
	return p
}

func (p SigningPublic) smallOrder() bool { return slices.Contains(smallOrderY[:], p.y()) }

// checkPoint accepts a canonical encoding of a point on the curve that has not small order.
func checkPoint(p SigningPublic) error {
	if p.smallOrder() {
		return syntaxf(ErrKeyValue, 0, "the signing key is a point of small order")
	}
	le := p.y()
	slices.Reverse(le[:])
	y := new(big.Int).SetBytes(le[:])
	if y.Cmp(fieldPrime) >= 0 {
		return syntaxf(ErrKeyValue, 0, "the signing key is not in canonical form")
	}
	// x² = (y²-1)/(dy²+1) has a root when (y²-1)(dy²+1) has one; it is never 0 here, as y = ±1 has small order.
	yy := new(big.Int).Mul(y, y)
	v := new(big.Int).Mul(curveD, yy)
	v.Add(v, one)
	u := yy.Sub(yy, one)
	if v.Mul(v, u).Mod(v, fieldPrime); big.Jacobi(v, fieldPrime) != 1 {
		return syntaxf(ErrKeyValue, 0, "the signing key is no point of the curve")
	}
	return nil
}

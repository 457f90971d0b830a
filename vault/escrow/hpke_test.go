package escrow

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
)

// sealWith is HPKE (RFC 9180) in base mode for DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM with a given ephemeral key,
// which the standard library has no way in for. It makes one message.
func sealWith(t *testing.T, ephemeral, to, info, aad, plain []byte) (enc, ct []byte) {
	t.Helper()
	e := must[*ecdh.PrivateKey](t)(ecdh.X25519().NewPrivateKey(ephemeral))
	pk := must[*ecdh.PublicKey](t)(ecdh.X25519().NewPublicKey(to))
	dh := must[[]byte](t)(e.ECDH(pk))
	enc = e.PublicKey().Bytes()

	kem := []byte("KEM\x00\x20")
	prk := labeledExtract(t, kem, nil, "eae_prk", dh)
	secret := labeledExpand(t, kem, prk, "shared_secret", slices.Concat(enc, to), 32)

	suite := []byte("HPKE\x00\x20\x00\x01\x00\x02")
	context := slices.Concat([]byte{0}, labeledExtract(t, suite, nil, "psk_id_hash", nil), labeledExtract(t, suite, nil, "info_hash", info))
	s := labeledExtract(t, suite, secret, "secret", nil)
	key := labeledExpand(t, suite, s, "key", context, 32)
	nonce := labeledExpand(t, suite, s, "base_nonce", context, 12)
	aead := must[cipher.AEAD](t)(cipher.NewGCM(must[cipher.Block](t)(aes.NewCipher(key))))
	return enc, aead.Seal(nil, nonce, plain, aad)
}

func labeledExtract(t *testing.T, suite, salt []byte, label string, ikm []byte) []byte {
	t.Helper()
	return must[[]byte](t)(hkdf.Extract(sha256.New, slices.Concat([]byte("HPKE-v1"), suite, []byte(label), ikm), salt))
}

func labeledExpand(t *testing.T, suite, prk []byte, label string, info []byte, n int) []byte {
	t.Helper()
	all := slices.Concat(binary.BigEndian.AppendUint16(nil, uint16(n)), []byte("HPKE-v1"), suite, []byte(label), info)
	return must[[]byte](t)(hkdf.Expand(sha256.New, prk, string(all), n))
}

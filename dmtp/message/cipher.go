package message

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"

	"dimegate/dmtp/key"
)

const (
	keySize = 32 // AES-256
	ivSize  = aes.BlockSize
)

// A kek is one actor's key encryption key of one message: it opens, or closes, all of that actor's slots. What it keeps is
// the cipher's key schedule, which Go gives no means to clear: it lives as long as the Opened, or the Compose, that made it.
type kek struct {
	iv    [ivSize]byte
	block cipher.Block
}

// newKEK derives a kek from the x coordinate of the ECDH of ephemeral and actor's key: SHA-512, of which the first half is
// folded to the IV and the second is the key. Nothing else enters (dmime.md §6.1; libdime common/crypto.c _ecies_env_derivation).
func newKEK(x [32]byte) kek {
	h := sha512.Sum512(x[:])
	defer clear(h[:])
	var k kek
	subtle.XORBytes(k.iv[:], h[:16], h[16:32])
	k.block = newAES(h[32:])
	return k
}

func agree(private key.Encryption, public key.EncryptionPublic) kek {
	x := private.ECDH(public)
	defer clear(x[:])
	return newKEK(x)
}

// newAES makes the cipher of a 32-octet key.
func newAES(k []byte) cipher.Block {
	b, err := aes.NewCipher(k)
	if err != nil {
		panic("message: " + err.Error()) // only a wrong key size, and every caller's is a constant
	}
	return b
}

// A chunkKey is the IV and key of one chunk: the same in all of its slots.
type chunkKey struct {
	iv  [ivSize]byte
	key [keySize]byte
}

func (k *chunkKey) encrypt(dst, src []byte) {
	cipher.NewCBCEncrypter(newAES(k.key[:]), k.iv[:]).CryptBlocks(dst, src)
}

func (k *chunkKey) decrypt(dst, src []byte) {
	cipher.NewCBCDecrypter(newAES(k.key[:]), k.iv[:]).CryptBlocks(dst, src)
}

func (k *chunkKey) clear() { *k = chunkKey{} }

// wrap appends a slot: random || random XOR IV || key, under the kek. The random block does the work of the IV, for the
// kek's own is the same in every slot of the actor.
func (e *kek) wrap(dst []byte, random []byte, k *chunkKey) []byte {
	n := len(dst)
	dst = append(dst, random[:ivSize]...)
	dst = append(dst, k.iv[:]...)
	dst = append(dst, k.key[:]...)
	slot := dst[n:]
	subtle.XORBytes(slot[ivSize:2*ivSize], slot[ivSize:2*ivSize], slot[:ivSize])
	cipher.NewCBCEncrypter(e.block, e.iv[:]).CryptBlocks(slot, slot)
	return dst
}

// unwrap opens a slot. It cannot fail: with a wrong kek it gives a wrong key.
func (e *kek) unwrap(slot []byte) (k chunkKey) {
	var plain [slotSize]byte
	defer clear(plain[:])
	cipher.NewCBCDecrypter(e.block, e.iv[:]).CryptBlocks(plain[:], slot)
	subtle.XORBytes(k.iv[:], plain[:ivSize], plain[ivSize:2*ivSize])
	copy(k.key[:], plain[2*ivSize:])
	return k
}

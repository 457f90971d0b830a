package key

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// RealmKeySize is the length of the symmetric key that encrypts PRIME's key files: three parts of 16, 16 and 32 octets,
// which mask the nonce, mask the tag and encrypt.
const RealmKeySize = 64

const (
	encryptedHeader = 6 // type number (2 octets) and length of the rest (4 octets): one more than elsewhere
	blockSize       = 16
	maxEncrypted    = 1024 // octets of an encrypted key file that are looked at; a real one has 118
)

// encryptedKinds gives the kind of the keys in an encrypted file, and its armor.
var encryptedKinds = map[FileKind]struct {
	plain FileKind
	armor string
}{
	EncryptedOrgKeys:  {OrgKeys, ArmorEncryptedOrgKey},
	EncryptedUserKeys: {UserKeys, ArmorEncryptedUserKey},
}

// OpenFile reads a key file that PRIME encrypted under a realm key of 64 octets, armored or binary: AES-256-GCM with a nonce
// of 16 octets over the length, the padding's length, the body and the padding. Source: magma prime/cryptography/aes.c. Errors
// are of a Class: ErrDecrypt for a wrong key or changed octets.
func OpenFile(b, realm []byte) (*File, error) {
	if len(b) >= 2 && slices.Contains(binaryKinds, FileKind(binary.BigEndian.Uint16(b))) {
		return openFile(b, realm)
	}
	block, err := Dearmor(b, ArmorEncryptedUserKey, ArmorEncryptedOrgKey)
	if err != nil {
		return nil, err
	}
	f, err := openFile(block.Bytes, realm)
	if err == nil && encryptedArmor(f.Kind) != block.Type {
		f.Pair.Destroy()
		return nil, syntaxf(ErrArmor, 0, "the armor names another kind of keys than the object in it")
	}
	return f, err
}

func encryptedArmor(plain FileKind) string {
	for _, k := range encryptedKinds {
		if k.plain == plain {
			return k.armor
		}
	}
	return ""
}

func openFile(b, realm []byte) (*File, error) {
	if len(realm) != RealmKeySize {
		return nil, syntaxf(ErrKeyFormat, 0, "a realm key is %d octets, not %d", RealmKeySize, len(realm))
	}
	if len(b) < encryptedHeader {
		return nil, syntaxf(ErrShort, 0, "%d octets are no key file", len(b))
	}
	kind, ok := encryptedKinds[FileKind(binary.BigEndian.Uint16(b))]
	if !ok {
		return nil, syntaxf(ErrType, 0, "these keys are not encrypted")
	}
	rest := b[encryptedHeader:]
	if n := binary.BigEndian.Uint32(b[2:]); uint64(n) != uint64(len(rest)) {
		return nil, syntaxf(ErrLength, 2, "the header says %d octets, %d follow", n, len(rest))
	}
	if len(rest) > maxEncrypted || len(rest) < 3*blockSize || len(rest)%blockSize != 0 {
		return nil, syntaxf(ErrLength, 2, "%d octets are no encrypted key file", len(rest))
	}
	plain, err := openRealm(rest, realm)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	n, padding := int(plain[0])<<16|int(plain[1])<<8|int(plain[2]), int(plain[3])
	if padding < 1 || padding > blockSize || 4+n+padding != len(plain) ||
		!bytes.Equal(plain[4+n:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, syntaxf(ErrDecrypt, 0, "what was encrypted is no key file")
	}
	return parseFileBody(kind.plain, plain[4:4+n])
}

// openRealm undoes the encryption of R, the tag and the ciphertext.
func openRealm(b, realm []byte) ([]byte, error) {
	aead, err := realmAEAD(realm)
	if err != nil {
		return nil, err
	}
	nonce, tag := mask(b[:blockSize], realm[:16]), mask(b[blockSize:2*blockSize], realm[16:32])
	plain, err := aead.Open(nil, nonce, append(bytes.Clone(b[2*blockSize:]), tag...), nil)
	if err != nil {
		return nil, syntaxf(ErrDecrypt, 0, "the realm key is another's, or the file was changed")
	}
	return plain, nil
}

// EncryptedBytes is the file encrypted under a realm key, as OpenFile and PRIME read it: binary, with a nonce from rand.
func (f *File) EncryptedBytes(rand io.Reader, realm []byte) ([]byte, error) {
	if len(realm) != RealmKeySize {
		return nil, syntaxf(ErrKeyFormat, 0, "a realm key is %d octets, not %d", RealmKeySize, len(realm))
	}
	whole := f.Bytes()
	if whole == nil {
		return nil, syntaxf(ErrKeyFormat, 0, "a file without keys")
	}
	defer clear(whole)
	body := whole[headerSize:]
	padding := blockSize - (4+len(body))%blockSize
	plain := append([]byte{0, 0, byte(len(body)), byte(padding)}, body...)
	plain = append(plain, bytes.Repeat([]byte{byte(padding)}, padding)...)
	defer clear(plain)

	out := make([]byte, encryptedHeader+2*blockSize, encryptedHeader+2*blockSize+len(plain))
	for encrypted, k := range encryptedKinds {
		if k.plain == f.Kind {
			binary.BigEndian.PutUint16(out, uint16(encrypted))
		}
	}
	binary.BigEndian.PutUint32(out[2:], uint32(2*blockSize+len(plain)))
	random := out[encryptedHeader : encryptedHeader+blockSize]
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, fmt.Errorf("key: randomness: %w", err)
	}
	aead, err := realmAEAD(realm)
	if err != nil {
		return nil, err
	}
	sealed := aead.Seal(nil, mask(random, realm[:16]), plain, nil)
	copy(out[encryptedHeader+blockSize:], mask(sealed[len(plain):], realm[16:32]))
	return append(out, sealed[:len(plain)]...), nil
}

func realmAEAD(realm []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(realm[32:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithNonceSize(block, blockSize)
}

// mask returns a XOR b, of 16 octets each.
func mask(a, b []byte) []byte {
	out := make([]byte, blockSize)
	subtle.XORBytes(out, a, b)
	return out
}

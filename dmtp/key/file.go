package key

import (
	"encoding/binary"
	"slices"
)

// A Dialect is one of the three wire forms of signets and key files. They differ in the prefix of signing keys and in the
// widths of two lengths, nothing else; as these lie under the signatures, an object keeps its dialect.
type Dialect uint8

const (
	A Dialect = 1 + iota // libdime: what we write
	B                    // magma's dime
	C                    // magma's PRIME; its key files are those of B
)

func (d Dialect) String() string {
	if d < A || d > C {
		return "?"
	}
	return "ABC"[d-A : d]
}

// A FileKind is the object type number of a key file.
type FileKind uint16

const (
	OrgKeys           FileKind = 1952
	UserKeys          FileKind = 2013
	EncryptedOrgKeys  FileKind = 1947
	EncryptedUserKeys FileKind = 1976
)

// headerSize is the length of an object's header: type number (2 octets) and length of the rest (3 octets).
const headerSize = 5

// A File is a private key file. The reference leaves it unencrypted. Its zero value is no file.
type File struct {
	Kind    FileKind // OrgKeys or UserKeys
	Dialect Dialect  // A or B; C writes what B writes, and is read as B
	Pair    Pair
}

// fileKinds is the grammar of key files, a row a kind: the encryption key's identifier, and the armor's type.
var fileKinds = map[FileKind]struct {
	encryptionID byte
	armor        string
}{
	OrgKeys:  {3, ArmorOrgKey},
	UserKeys: {2, ArmorUserKey},
}

// ParseFile reads a key file, armored or binary. It holds exactly a signing key (identifier 1, 32 octets) and an
// encryption key (3 in an organisation's file, 2 in a user's; 32 octets after a length of two octets in dialect A, of one
// in B and C). libdime steps over secondary keys and ignores what follows; both are refused here, as is a file whose armor
// names another kind. It keeps no part of b. Errors are of a Class.
func ParseFile(b []byte) (*File, error) {
	if len(b) >= 2 && slices.Contains(binaryKinds, FileKind(binary.BigEndian.Uint16(b))) {
		return parseFile(b)
	}
	block, err := Dearmor(b, ArmorUserKey, ArmorOrgKey, ArmorEncryptedUserKey, ArmorEncryptedOrgKey)
	if err != nil {
		return nil, err
	}
	defer clear(block.Bytes)
	f, err := parseFile(block.Bytes)
	if err != nil {
		return nil, err
	}
	if fileKinds[f.Kind].armor != block.Type {
		f.Pair.Destroy()
		return nil, syntaxf(ErrArmor, 0, "the armor names another kind of keys than the object in it")
	}
	return f, nil
}

var binaryKinds = []FileKind{OrgKeys, UserKeys, EncryptedOrgKeys, EncryptedUserKeys}

func parseFile(b []byte) (*File, error) {
	if len(b) < headerSize {
		return nil, syntaxf(ErrShort, 0, "%d octets are no key file", len(b))
	}
	kind := FileKind(binary.BigEndian.Uint16(b))
	if kind == EncryptedOrgKeys || kind == EncryptedUserKeys {
		return nil, syntaxf(ErrType, 0, "the keys are encrypted: the realm key opens them")
	}
	if _, ok := fileKinds[kind]; !ok {
		return nil, syntaxf(ErrType, 0, "object type %d is no key file", kind)
	}
	body := b[headerSize:]
	if n := int(b[2])<<16 | int(b[3])<<8 | int(b[4]); n != len(body) {
		return nil, syntaxf(ErrLength, 2, "the header says %d octets, %d follow", n, len(body))
	}
	return parseFileBody(kind, body)
}

// parseFileBody reads the two fields behind the header.
func parseFileBody(kind FileKind, body []byte) (*File, error) {
	const second = 2 + SigningSize // where the encryption key's field begins
	malformed := func(offset int) error {
		return syntaxf(ErrKeyFormat, headerSize+offset, "a key file is a signing key of 32 octets and an encryption key of 32")
	}
	if len(body) < second+2 || body[0] != 1 || body[1] != SigningSize {
		return nil, malformed(0)
	}
	if body[second] != fileKinds[kind].encryptionID {
		return nil, malformed(second)
	}
	f := &File{Kind: kind, Dialect: B}
	at := second + 1
	if body[at] == 0 {
		f.Dialect = A
		at++
	}
	if len(body) != at+1+EncryptionSize || body[at] != EncryptionSize {
		return nil, malformed(second)
	}
	var err error
	if f.Pair.Encryption, err = NewEncryption(body[at+1:]); err != nil {
		return nil, err
	}
	f.Pair.Signing, err = NewSigning(body[2:second])
	return f, err
}

// Bytes is the binary form: a secret, which the caller must clear. A file without keys has none.
func (f *File) Bytes() []byte {
	if f.Pair.Signing.IsZero() || f.Pair.Encryption.IsZero() {
		return nil
	}
	b := make([]byte, headerSize, 2*headerSize+SigningSize+EncryptionSize)
	binary.BigEndian.PutUint16(b, uint16(f.Kind))
	b = append(b, 1, SigningSize)
	b = append(b, f.Pair.Signing.Seed()...)
	b = append(b, fileKinds[f.Kind].encryptionID)
	if f.Dialect == A {
		b = append(b, 0)
	}
	b = append(b, EncryptionSize)
	b = append(b, f.Pair.Encryption.Scalar()...)
	b[4] = byte(len(b) - headerSize)
	return b
}

// Armored is the text form: a secret, which the caller must clear. A file without keys has none.
func (f *File) Armored() []byte {
	b := f.Bytes()
	if b == nil {
		return nil
	}
	defer clear(b)
	return Armor(fileKinds[f.Kind].armor, b)
}

// ParseSigning reads the armor of a signing key alone, as the reference's record generator takes it; secondary keys are
// kept so.
func ParseSigning(text []byte) (Signing, error) {
	block, err := Dearmor(text, ArmorSigningKey)
	if err != nil {
		return Signing{}, err
	}
	defer clear(block.Bytes)
	return NewSigning(block.Bytes)
}

// Armored is k as ParseSigning reads it: a secret, which the caller must clear.
func (k Signing) Armored() []byte {
	seed := k.Seed()
	defer clear(seed)
	return Armor(ArmorSigningKey, seed)
}

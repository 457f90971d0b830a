package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"dimegate/internal/safefile"
)

// keyFilePrefix begins the one line of a key file; 43 characters of base64 and a line feed follow.
const keyFilePrefix = "dimegate-keyfile-1 "

// CreateKeyFile makes a key file with mode 0600: 32 random octets in a line of text. It fails with fs.ErrExist when
// there is a file.
func CreateKeyFile(path string) error {
	key := NewSecret()
	defer key.Destroy()
	b := base64.RawStdEncoding.AppendEncode([]byte(keyFilePrefix), key.raw())
	defer clear(b)
	return safefile.Create(path, append(b, '\n'))
}

// KeyFile is the seal of a key file, which others must not be able to read (safefile.ErrOpenToOthers).
func KeyFile(path string) (Seal, error) {
	b, err := safefile.ReadSecret(path, 128)
	if err != nil {
		return nil, fmt.Errorf("vault: key file: %w", err)
	}
	defer clear(b)
	text, ok := bytes.CutPrefix(bytes.TrimSuffix(b, []byte("\n")), []byte(keyFilePrefix))
	raw := make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
	defer clear(raw)
	n, err := base64.RawStdEncoding.Strict().Decode(raw, text)
	if !ok || err != nil || n != SecretSize || len(text) != base64.RawStdEncoding.EncodedLen(n) { // it skips line feeds
		return nil, fmt.Errorf("vault: key file %s: not one line %q and 43 characters of base64", path, keyFilePrefix)
	}
	key, err := SecretOf(raw[:n])
	if err != nil {
		return nil, err
	}
	d := NewDigest("keyfile", key.raw())
	return keyFile{key: key, id: hex.EncodeToString(d[:4])}, nil
}

type keyFile struct {
	key Secret
	id  string
}

func (keyFile) Kind() string { return "keyfile" }
func (f keyFile) ID() string { return f.id }

func (f keyFile) Wrap(_ context.Context, key Secret, label []byte) ([]byte, error) {
	return box(f.key, "dimegate-keyfile-v1", nil, label, key), nil
}

func (f keyFile) Unwrap(_ context.Context, blob, label []byte) (Secret, error) {
	return unbox(f.key, "dimegate-keyfile-v1", nil, label, blob)
}

// Passphrase is the seal of a passphrase under a name by which administrators tell it from others. It keeps a copy of
// the passphrase, which is octets, not text: nothing is trimmed or normalised.
func Passphrase(name string, passphrase []byte) (Seal, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("vault: a passphrase has at least %d octets", MinPassphrase)
	}
	p := bytes.Clone(passphrase)
	return passSeal{name: name, pass: func() []byte { return p }, cost: defaultCost}, nil
}

// MinPassphrase is the least length of a passphrase, in octets. Argon2 makes guessing dear, not short words long.
const MinPassphrase = 12

type passSeal struct {
	name string
	pass func() []byte // a func, so that fmt cannot look inside
	cost argonCost
}

// argonCost is what RFC 9106 §4 calls the parameters: passes, memory and lanes.
type argonCost struct {
	time, memoryKiB uint32
	lanes           uint8
}

// defaultCost is the second recommended option of RFC 9106 §4.
var defaultCost = argonCost{time: 3, memoryKiB: 64 << 10, lanes: 4}

// maxCost bounds what a header can make us spend.
var maxCost = argonCost{time: 64, memoryKiB: 4 << 20, lanes: 64}

// A passphrase's blob: time u32 ‖ memory in KiB u32 ‖ lanes u8 ‖ salt 16 ‖ box. The prefix is bound by the derivation.
const passPrefix = 4 + 4 + 1 + 16

func (passSeal) Kind() string { return "passphrase" }
func (s passSeal) ID() string { return s.name }

func (s passSeal) Wrap(_ context.Context, key Secret, label []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint32(nil, s.cost.time)
	b = binary.BigEndian.AppendUint32(b, s.cost.memoryKiB)
	b = append(b, s.cost.lanes)
	b = append(b, make([]byte, 16)...)
	rand.Read(b[passPrefix-16:])
	kek := s.stretch(b, s.cost)
	defer kek.Destroy()
	return append(b, box(kek, "dimegate-passphrase-v1", b, label, key)...), nil
}

func (s passSeal) Unwrap(_ context.Context, blob, label []byte) (Secret, error) {
	if len(blob) != passPrefix+boxSize {
		return Secret{}, fmt.Errorf("%w: length of the passphrase's entry", ErrCorrupt)
	}
	c := argonCost{binary.BigEndian.Uint32(blob), binary.BigEndian.Uint32(blob[4:]), blob[8]}
	if c.time < 1 || c.time > maxCost.time || c.lanes < 1 || c.lanes > maxCost.lanes ||
		c.memoryKiB < 8*uint32(c.lanes) || c.memoryKiB > maxCost.memoryKiB {
		return Secret{}, errors.New("argon2id parameters out of bounds")
	}
	kek := s.stretch(blob[:passPrefix], c)
	defer kek.Destroy()
	return unbox(kek, "dimegate-passphrase-v1", blob[:passPrefix], label, blob[passPrefix:])
}

// stretch is Argon2id (RFC 9106) with the salt at the end of prefix.
func (s passSeal) stretch(prefix []byte, c argonCost) Secret {
	k := argon2.IDKey(s.pass(), prefix[passPrefix-16:passPrefix], c.time, c.memoryKiB, c.lanes, SecretSize)
	return Secret{raw: func() []byte { return k }}
}

package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A cosignature is C2SP's cosignature/v1: key id 4 ‖ seconds since 1970, 8 octets ‖ Ed25519 over
// "cosignature/v1\ntime SECONDS\n" and the note's text. In keys its algorithm is 4.
const (
	cosignatureAlg  = 4
	cosignatureSize = 8 + ed25519.SignatureSize
)

// A WitnessKey cosigns checkpoints. It does not print.
type WitnessKey struct {
	name    string
	private ed25519.PrivateKey
}

func (WitnessKey) String() string { return "witness key" }

// NewWitnessKey makes the key of a seed of 32 octets. A name has no white space and no plus, and is best a domain and a path.
func NewWitnessKey(name string, seed []byte) (WitnessKey, error) {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '+' || r > '~' }) {
		return WitnessKey{}, errors.New("audit: a witness's name is printable ASCII without spaces and +")
	}
	if len(seed) != ed25519.SeedSize {
		return WitnessKey{}, fmt.Errorf("audit: a key's seed is %d octets", ed25519.SeedSize)
	}
	return WitnessKey{name, ed25519.NewKeyFromSeed(seed)}, nil
}

// Verifier is the public key as text: name+id+base64.
func (k WitnessKey) Verifier() string {
	public := append([]byte{cosignatureAlg}, k.private.Public().(ed25519.PublicKey)...)
	return fmt.Sprintf("%s+%08x+%s", k.name, keyID(k.name, public), base64.StdEncoding.EncodeToString(public))
}

// cosign returns one signature line for a checkpoint's text.
func (k WitnessKey) cosign(text string, now time.Time) string {
	public := append([]byte{cosignatureAlg}, k.private.Public().(ed25519.PublicKey)...)
	b := binary.BigEndian.AppendUint32(nil, keyID(k.name, public))
	b = binary.BigEndian.AppendUint64(b, uint64(now.Unix()))
	b = append(b, ed25519.Sign(k.private, cosigned(text, uint64(now.Unix())))...)
	return "— " + k.name + " " + base64.StdEncoding.EncodeToString(b) + "\n"
}

func cosigned(text string, at uint64) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatUint(at, 10) + "\n" + text)
}

// keyID is a note key's: the first four octets of SHA-256 over name, line feed and the key with its algorithm.
func keyID(name string, public []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), public...))
	return binary.BigEndian.Uint32(h[:])
}

// A witnessVerifier is a note.Verifier of cosignatures.
type witnessVerifier struct {
	name   string
	id     uint32
	public ed25519.PublicKey
}

// ParseWitness reads a witness's public key.
func ParseWitness(text string) (note.Verifier, error) {
	bad := errors.New("audit: not a witness's key: name+id+base64, of a cosignature/v1 key")
	name, rest, _ := strings.Cut(text, "+")
	hexID, b64, ok := strings.Cut(rest, "+")
	id, err := strconv.ParseUint(hexID, 16, 32)
	public, berr := base64.StdEncoding.DecodeString(b64)
	if !ok || name == "" || len(hexID) != 8 || err != nil || berr != nil || len(public) != 1+ed25519.PublicKeySize || public[0] != cosignatureAlg ||
		uint32(id) != keyID(name, public) {
		return nil, bad
	}
	return witnessVerifier{name, uint32(id), public[1:]}, nil
}

func (v witnessVerifier) Name() string    { return v.name }
func (v witnessVerifier) KeyHash() uint32 { return v.id }
func (v witnessVerifier) Verify(msg, sig []byte) bool {
	return len(sig) == cosignatureSize && ed25519.Verify(v.public, cosigned(string(msg), binary.BigEndian.Uint64(sig)), sig[8:])
}

// Cosigned tells which of the witnesses have cosigned a checkpoint, by name. Whether the log signed it is not asked.
func Cosigned(signed []byte, witnesses []note.Verifier) []string {
	if len(signed) > maxNote {
		return nil
	}
	n, err := note.Open(signed, note.VerifierList(witnesses...))
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range n.Sigs {
		names = append(names, s.Name)
	}
	return names
}

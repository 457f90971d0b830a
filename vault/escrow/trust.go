package escrow

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Trust is whom an officer believes about a log: its key, and witnesses that cosign only what grows consistently. Keys are
// texts: name+hash+base64, C2SP signed-note.
type Trust struct {
	Log       string
	Witnesses []string
}

// A Checkpoint is a state of a log: C2SP tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Has reports whether a leaf is in the checkpoint's tree at an index, by a proof of RFC 6962 §2.1.1.
func (c Checkpoint) Has(index uint64, leaf []byte, proof []tlog.Hash) bool {
	return index < uint64(c.Size) && tlog.CheckRecord(proof, c.Size, c.Root, int64(index), tlog.RecordHash(leaf)) == nil
}

// maxNote bounds a checkpoint with its cosignatures.
const maxNote = 0xffff

// Check says whether the keys can be read.
func (t Trust) Check() error {
	_, _, err := t.verifiers()
	return err
}

// CheckLog says whether the log's key can be read.
func (t Trust) CheckLog() error {
	if _, err := note.NewVerifier(t.Log); err != nil {
		return refuse(ErrLog, "trust", "the log's key is no verifier key")
	}
	return nil
}

func (t Trust) verifiers() (log note.Verifier, witnesses []note.Verifier, err error) {
	if log, err = note.NewVerifier(t.Log); err != nil {
		return nil, nil, refuse(ErrLog, "trust", "the log's key is no verifier key")
	}
	for _, w := range t.Witnesses {
		v, err := newCosigner(w)
		if err != nil {
			return nil, nil, err
		}
		witnesses = append(witnesses, v)
	}
	if len(witnesses) == 0 {
		return nil, nil, refuse(ErrLog, "trust", "no witness is trusted: one is required")
	}
	return log, witnesses, nil
}

// Open reads a checkpoint that the log and at least one of the witnesses have signed.
func (t Trust) Open(signed []byte) (Checkpoint, error) {
	log, witnesses, err := t.verifiers()
	if err != nil {
		return Checkpoint{}, err
	}
	if len(signed) > maxNote {
		return Checkpoint{}, refuse(ErrLog, "checkpoint", "is too long")
	}
	n, err := note.Open(signed, note.VerifierList(append(witnesses, log)...))
	if err != nil {
		return Checkpoint{}, refuse(ErrLog, "checkpoint", "is not signed as it should be")
	}
	byLog, byWitness := false, false
	for _, s := range n.Sigs {
		isLog := s.Name == log.Name() && s.Hash == log.KeyHash()
		byLog, byWitness = byLog || isLog, byWitness || !isLog
	}
	switch {
	case !byLog:
		return Checkpoint{}, refuse(ErrLog, "checkpoint", "is not signed by the log")
	case !byWitness:
		return Checkpoint{}, refuse(ErrLog, "checkpoint", "is not cosigned by a trusted witness")
	}
	return parseCheckpoint(n.Text)
}

// ReadCheckpoint reads what a signed checkpoint says, whoever signed it: see Open.
func ReadCheckpoint(signed []byte) (Checkpoint, error) {
	text, _, _ := strings.Cut(string(signed), "\n\n")
	return parseCheckpoint(text + "\n")
}

func parseCheckpoint(text string) (Checkpoint, error) {
	f := strings.SplitN(text, "\n", 4)
	bad := refuse(ErrLog, "checkpoint", "is not the text of one")
	if len(f) < 4 || f[0] == "" {
		return Checkpoint{}, bad
	}
	size, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || size < 1 || strconv.FormatInt(size, 10) != f[1] {
		return Checkpoint{}, bad
	}
	root, err := tlog.ParseHash(f[2])
	if err != nil {
		return Checkpoint{}, bad
	}
	return Checkpoint{Origin: f[0], Size: size, Root: root}, nil
}

// A cosigner verifies C2SP tlog-cosignature: Ed25519 over the checkpoint and a time.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

const algCosignature = 4

func newCosigner(text string) (note.Verifier, error) {
	bad := refuse(ErrLog, "trust", "a witness's key is no cosignature verifier key")
	f := strings.SplitN(text, "+", 3)
	if len(f) != 3 || f[0] == "" || strings.ContainsAny(f[0], " \n") || len(f[1]) != 8 {
		return nil, bad
	}
	hash, err := hex.DecodeString(f[1])
	if err != nil {
		return nil, bad
	}
	key, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature || !PublicKey(key[1:]).usable() {
		return nil, bad
	}
	sum := sha256.Sum256([]byte(f[0] + "\n" + string(key)))
	if string(sum[:4]) != string(hash) {
		return nil, bad
	}
	return &cosigner{f[0], binary.BigEndian.Uint32(hash), ed25519.PublicKey(key[1:])}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}

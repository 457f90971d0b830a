package escrow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A Share is an officer's part of the private scalar. It never prints. Copies share one secret; its one owner calls Destroy.
type Share struct {
	Key   vault.Digest
	Epoch vault.Digest
	Index uint16

	suite *suite
	x     func() group.Scalar
}

const (
	shareMagic = "DES1"
	shareSize  = 4 + 1 + 2*digestSize + 2 + scalarSize
)

func newShare(s *suite, key, epoch vault.Digest, i uint16, x group.Scalar) Share {
	return Share{Key: key, Epoch: epoch, Index: i, suite: s, x: func() group.Scalar { return x }}
}

// Octets is the plaintext of a share file, DES1; the caller clears it.
func (s Share) Octets() []byte {
	x := s.suite.encodeScalar(s.x())
	defer clear(x)
	return slices.Concat([]byte(shareMagic), []byte{byte(s.suite.id)}, s.Key[:], s.Epoch[:], be16(s.Index), x)
}

// ParseShare reads the plaintext of a share file. Whether the share is right: see Check.
func ParseShare(b []byte) (Share, error) {
	c := cursor{b: b, object: "share"}
	if len(b) != shareSize {
		c.fail(ErrDecode, "is %d octets, not %d", len(b), shareSize)
	}
	c.magic(shareMagic)
	var s Share
	s.suite = c.suite()
	c.fixed(s.Key[:])
	c.fixed(s.Epoch[:])
	s.Index = c.u16()
	x := c.scalar(s.suite)
	if err := c.end(); err != nil {
		return Share{}, err
	}
	s.x = func() group.Scalar { return x }
	return s, nil
}

// Destroy overwrites the share in every copy.
func (s Share) Destroy() {
	if s.x != nil {
		wipe(s.x())
	}
}

func (Share) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// Check verifies the share against the epoch's commitments: it is the one that the dealer owes this officer.
func (s Share) Check(k *Key, e *Epoch) error {
	switch {
	case s.suite != k.suite || s.Key != k.id:
		return refuse(ErrEpoch, "share", "is of another key")
	case s.Epoch != e.digest:
		return refuse(ErrEpoch, "share", "is of another epoch")
	}
	if _, ok := e.Officer(s.Index); !ok {
		return refuse(ErrSet, "share", "%d is no officer's index", s.Index)
	}
	return checkShare(s.suite, e.commitments, s.Index, s.x())
}

// checkShare is Feldman's equation: g^x = Π C_k^{i^k}.
func checkShare(s *suite, commitments []group.Element, i uint16, x group.Scalar) error {
	if i == 0 || x.IsZero() || !s.mulGen(x).IsEqual(s.evaluatePublic(commitments, i)) {
		return refuse(ErrFeldman, "share", "is not officer %d's by the commitments", i)
	}
	return nil
}

// maxAgeFile bounds the age files that are read: header, a hybrid stanza and a few hundred octets.
const maxAgeFile = 64 << 10

// SealFile puts secret octets into an age file that only one recipient opens.
func SealFile(to age.Recipient, secret []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, fmt.Errorf("escrow: age: %w", err)
	}
	if _, err := w.Write(secret); err != nil {
		return nil, fmt.Errorf("escrow: age: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("escrow: age: %w", err)
	}
	return out.Bytes(), nil
}

// OpenFile opens an age file; the caller clears what is in it.
func OpenFile(file []byte, identities ...age.Identity) ([]byte, error) {
	if len(file) > maxAgeFile {
		return nil, refuse(ErrDecode, "age file", "is too long")
	}
	r, err := age.Decrypt(bytes.NewReader(file), identities...)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return nil, refuse(ErrAEAD, "age file", "is for somebody else, or the passphrase is wrong")
	}
	if err != nil {
		return nil, refuse(ErrAEAD, "age file", "does not open")
	}
	b, err := io.ReadAll(io.LimitReader(r, maxAgeFile))
	if err != nil {
		clear(b)
		return nil, refuse(ErrAEAD, "age file", "was changed")
	}
	return b, nil
}

// NativeRecipient reads an age recipient that needs no plugin: hybrid, or X25519.
func NativeRecipient(text string) (age.Recipient, error) {
	list, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(list) != 1 {
		return nil, refuse(ErrDecode, "recipient", "is no age recipient")
	}
	return list[0], nil
}

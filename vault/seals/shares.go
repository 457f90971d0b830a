package seals

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"dimegate/vault"
)

// Break-glass shares are Shamir's scheme with Feldman's commitments over ristretto255 (circl's secretsharing). The root
// key is wrapped to the public key, the first commitment, so that new root keys can be wrapped while the holders are
// away. A blob, integers one octet:
//
//	"DWS1" 4 ‖ quorum k ‖ holders n ‖ k commitments of 32 ‖ ephemeral point 32 ‖ box
//
// The box's key is HKDF-SHA-256(the secret times the ephemeral point, salt: the commitments, "dimegate-shares-v1").
const (
	sharesMagic = "DWS1"
	pointSize   = 32
	maxHolders  = 32
)

// sharePrefix begins the one line of a share; set, number and base64 of the scalar follow.
const sharePrefix = "dimegate-share-1"

var ristretto = group.Ristretto255

// A Share is one holder's: a line of text for a file that he alone can read. Fewer than the quorum say nothing.
type Share struct {
	Number int
	set    string
	value  func() []byte // a func, so that fmt cannot look inside
}

func (Share) Format(s fmt.State, _ rune) { fmt.Fprint(s, "[secret]") }

// Line is the share's text, which ends with a line feed. The caller clears it.
func (s Share) Line() []byte {
	b := fmt.Appendf(nil, "%s %s %d ", sharePrefix, s.set, s.Number)
	return append(base64.RawStdEncoding.AppendEncode(b, s.value()), '\n')
}

// ParseShare is the inverse of Line. Its errors quote nothing.
func ParseShare(b []byte) (Share, error) {
	bad := errors.New("seals: not a share: one line that begins with " + sharePrefix)
	f := strings.Split(string(bytes.TrimSuffix(b, []byte("\n"))), " ")
	if len(b) > 256 || len(f) != 4 || f[0] != sharePrefix {
		return Share{}, bad
	}
	n, err := strconv.Atoi(f[2])
	if err != nil || n < 1 || n > maxHolders || strconv.Itoa(n) != f[2] {
		return Share{}, bad
	}
	if id, err := hex.DecodeString(f[1]); err != nil || len(id) != 8 || hex.EncodeToString(id) != f[1] {
		return Share{}, bad
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(f[3])
	if err != nil || base64.RawStdEncoding.EncodeToString(raw) != f[3] {
		return Share{}, bad
	}
	if _, err := scalarOf(raw); err != nil {
		return Share{}, bad
	}
	return Share{Number: n, set: f[1], value: func() []byte { return raw }}, nil
}

// shares is the seal: the public half always, the secret only when enough holders gave their shares.
type shares struct {
	holders     int
	commitments []group.Element // the first is the public key
	given       []Share
}

// NewShares draws a secret and splits it among n holders, of whom quorum open: 2 ≤ quorum ≤ n ≤ 32. The seal wraps to the
// public key; the secret itself is forgotten here.
func NewShares(quorum, n int) (vault.Seal, []Share, error) {
	if quorum < 2 || n < quorum || n > maxHolders {
		return nil, nil, fmt.Errorf("seals: %d of %d shares: at least 2 open, of at most %d", quorum, n, maxHolders)
	}
	secret := ristretto.RandomNonZeroScalar(rand.Reader)
	ss := secretsharing.New(rand.Reader, uint(quorum-1), secret)
	s := shares{holders: n, commitments: ss.CommitSecret()}
	var list []Share
	for i, sh := range ss.Share(uint(n)) {
		raw, err := sh.Value.MarshalBinary()
		if err != nil {
			return nil, nil, errors.New("seals: a share cannot be written")
		}
		list = append(list, Share{Number: i + 1, set: s.ID(), value: func() []byte { return raw }})
	}
	secret.SetUint64(0)
	return s, list, nil
}

// PublicShares is the seal of a header's entry without any holder: it wraps, and opens nothing.
func PublicShares(blob []byte) (vault.Seal, error) {
	s, _, _, err := parseShares(blob)
	return s, err
}

// OpenShares is the seal of enough shares of one set; whether they open is known when a blob is there. Duplicates are refused.
func OpenShares(given ...Share) (vault.Seal, error) {
	seen := map[int]bool{}
	for _, s := range given {
		if s.set != given[0].set {
			return nil, fmt.Errorf("seals: share %d is of set %s, share %d of set %s", given[0].Number, given[0].set, s.Number, s.set)
		}
		if seen[s.Number] {
			return nil, fmt.Errorf("seals: share %d is given twice", s.Number)
		}
		seen[s.Number] = true
	}
	if len(given) == 0 {
		return nil, errors.New("seals: no share is given")
	}
	return shares{given: given}, nil
}

func (shares) Kind() string { return SharesKind }

// ID names the set: 16 hexadecimal digits of a digest of the commitments.
func (s shares) ID() string {
	if len(s.commitments) == 0 {
		return s.given[0].set
	}
	d := vault.NewDigest("break-glass", s.prefix())
	return hex.EncodeToString(d[:8])
}

// prefix is the blob up to the ephemeral point.
func (s shares) prefix() []byte {
	b := append([]byte(sharesMagic), byte(len(s.commitments)), byte(s.holders))
	for _, c := range s.commitments {
		b = append(b, encode(c)...)
	}
	return b
}

func (s shares) Wrap(_ context.Context, key vault.Secret, label []byte) ([]byte, error) {
	if len(s.commitments) == 0 {
		return nil, errors.New("seals: shares alone wrap nothing: the header has the public key")
	}
	e := ristretto.RandomNonZeroScalar(rand.Reader)
	defer e.SetUint64(0)
	prefix := append(s.prefix(), encode(ristretto.NewElement().MulGen(e))...)
	kek := s.kek(ristretto.NewElement().Mul(s.commitments[0], e), prefix)
	defer kek.Destroy()
	return append(prefix, vault.Box(kek, "dimegate-shares-v1", prefix, label, key)...), nil
}

func (s shares) kek(shared group.Element, prefix []byte) vault.Secret {
	b := encode(shared)
	defer clear(b)
	return keyOf(b, prefix, "dimegate-shares-v1")
}

// Unwrap checks each share against the commitments before any is used, so that a wrong one is named, not guessed.
func (s shares) Unwrap(_ context.Context, blob, label []byte) (vault.Secret, error) {
	public, prefix, point, err := parseShares(blob)
	if err != nil {
		return vault.Secret{}, err
	}
	quorum := len(public.commitments)
	if len(s.given) < quorum {
		return vault.Secret{}, fmt.Errorf("%w: %d of the %d shares that open", vault.ErrNotGiven, len(s.given), quorum)
	}
	if public.ID() != s.ID() {
		return vault.Secret{}, fmt.Errorf("%w: shares of another set", vault.ErrWrongKey)
	}
	var list []secretsharing.Share
	for _, g := range s.given {
		v, err := scalarOf(g.value())
		if err != nil {
			return vault.Secret{}, err
		}
		sh := secretsharing.Share{ID: ristretto.NewScalar().SetUint64(uint64(g.Number)), Value: v}
		if g.Number > public.holders || !secretsharing.Verify(uint(quorum-1), sh, public.commitments) {
			return vault.Secret{}, fmt.Errorf("%w: share %d is not what was given out", vault.ErrWrongKey, g.Number)
		}
		list = append(list, sh)
	}
	secret, err := secretsharing.Recover(uint(quorum-1), list)
	if err != nil {
		return vault.Secret{}, errors.New("seals: the shares do not combine")
	}
	defer secret.SetUint64(0)
	kek := s.kek(ristretto.NewElement().Mul(point, secret), prefix)
	defer kek.Destroy()
	return vault.Unbox(kek, "dimegate-shares-v1", prefix, label, blob[len(prefix):])
}

// Holders reads from a blob how many shares open and how many there are.
func Holders(blob []byte) (quorum, holders int, err error) {
	s, _, _, err := parseShares(blob)
	return len(s.commitments), s.holders, err
}

func parseShares(blob []byte) (s shares, prefix []byte, point group.Element, err error) {
	bad := func() (shares, []byte, group.Element, error) {
		return shares{}, nil, nil, fmt.Errorf("%w: entry of break-glass shares", vault.ErrCorrupt)
	}
	const fixed = len(sharesMagic) + 2
	if len(blob) < fixed || string(blob[:len(sharesMagic)]) != sharesMagic {
		return bad()
	}
	quorum, holders := int(blob[len(sharesMagic)]), int(blob[len(sharesMagic)+1])
	if quorum < 2 || holders < quorum || holders > maxHolders || len(blob) != fixed+(quorum+1)*pointSize+vault.BoxSize {
		return bad()
	}
	s.holders = holders
	for i := range quorum + 1 {
		p, err := pointOf(blob[fixed+i*pointSize:][:pointSize])
		if err != nil {
			return bad()
		}
		s.commitments = append(s.commitments, p)
	}
	point, s.commitments = s.commitments[quorum], s.commitments[:quorum]
	return s, blob[:fixed+(quorum+1)*pointSize], point, nil
}

func encode(p group.Element) []byte {
	b, err := p.MarshalBinaryCompress()
	if err != nil {
		panic("seals: ristretto255: " + err.Error()) // points always encode
	}
	return b
}

// pointOf reads a canonical point that is not the identity.
func pointOf(b []byte) (group.Element, error) {
	p := ristretto.NewElement()
	if err := p.UnmarshalBinary(b); err != nil || p.IsIdentity() || !bytes.Equal(encode(p), b) {
		return nil, vault.ErrCorrupt
	}
	return p, nil
}

// scalarOf reads a canonical scalar.
func scalarOf(b []byte) (group.Scalar, error) {
	s := ristretto.NewScalar()
	if len(b) != pointSize || s.UnmarshalBinary(b) != nil {
		return nil, vault.ErrCorrupt
	}
	again, err := s.MarshalBinary()
	defer clear(again)
	if err != nil || !bytes.Equal(again, b) {
		return nil, vault.ErrCorrupt
	}
	return s, nil
}

package testescrow

import (
	"bytes"
	"crypto/hpke"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"slices"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// Offsets in a wrap of the R255 suite, DET1: magic, label, c, u, ū, w, w̄, f.
const (
	atLabel, atC, atU, atUbar, atW, atWbar, atF = 4, 126, 158, 190, 222, 254, 286
)

const dst = "dimegate-escrow-v1/R255/"

// Rerandomise is what an attacker makes of a wrap from outside a case: the same key, the points moved by g^t and ḡ^t, under the
// label of a wrap inside the case, with the proof that t alone can make. It is written without the product's code.
func Rerandomise(k *escrow.Key, outside, inside []byte) ([]byte, error) {
	g := group.Ristretto255
	record := k.Octets()
	h := record[len(record)-32:]
	gbar := g.HashToElement(h, []byte(dst+"gbar"))
	t, s := g.HashToScalar(random(64), []byte("attacker t")), g.HashToScalar(random(64), []byte("attacker s"))
	u, ubar := g.NewElement(), g.NewElement()
	if err := errors.Join(u.UnmarshalBinary(outside[atU:atUbar]), ubar.UnmarshalBinary(outside[atUbar:atW])); err != nil {
		return nil, err
	}
	u.Add(u, g.NewElement().MulGen(t))
	ubar.Add(ubar, g.NewElement().Mul(gbar, t))
	w, wbar := g.NewElement().MulGen(s), g.NewElement().Mul(gbar, s)
	b := slices.Clone(inside)
	copy(b[atC:], outside[atC:atU])
	for at, p := range map[int]group.Element{atU: u, atUbar: ubar, atW: w, atWbar: wbar} {
		enc, err := p.MarshalBinaryCompress()
		if err != nil {
			return nil, err
		}
		copy(b[at:], enc)
	}
	e := g.HashToScalar(slices.Concat(b[atC:atU], b[atLabel:atC], b[atU:atUbar], b[atW:atWbar], b[atUbar:atW], b[atWbar:atF]), []byte(dst+"H2"))
	f, err := e.Mul(e, t).Add(e, s).MarshalBinary()
	copy(b[atF:], f)
	return b, err
}

// Slip puts a wrap in place of the last of a case's entries, with a leaf that attests it: what an operator can do who holds the
// log's key. It returns a case of its own.
func (a *Archive) Slip(o Order, wrap []byte) (*Case, error) {
	w, err := escrow.ParseWrap(wrap)
	if err != nil {
		return nil, err
	}
	r := Record{ID: w.Label.Record, Wraps: [][]byte{wrap}}
	r.Leaf, err = a.Append(vault.Leaf{Type: vault.LeafIntake, Time: o.Opened, Subject: r.ID, Public: vault.IntakePublic(w.Label.Body, []vault.Digest{w.Digest()})})
	if err != nil {
		return nil, err
	}
	a.Records = append(a.Records, r)
	defer func() { a.Records = a.Records[:len(a.Records)-1] }()
	c, err := a.Open(o)
	if err != nil {
		return nil, err
	}
	c.slipped = &r
	return c, nil
}

// Forge changes one partial of an approval, which it opens with the case key, and signs the whole again as that officer would.
func Forge(answer []byte, c *Case, signer escrow.SigningKey) ([]byte, error) {
	st, err := escrow.ParseStatement(answer[:escrow.StatementSize])
	if err != nil {
		return nil, err
	}
	m := c.File.Manifest
	digest := m.Digest()
	const header = 14
	b := answer[escrow.StatementSize:]
	n := int(binary.BigEndian.Uint16(b[header:]))
	enc, rest := b[header+2:][:n], b[header+2+n:]
	ct := rest[4:][:binary.BigEndian.Uint32(rest)]
	after := rest[4+len(ct):]
	info := slices.Concat([]byte("dimegate-escrow-v1/partials\x00"), digest[:], m.Epoch[:], b[4:6])
	private, err := c.CaseKey.Octets()
	if err != nil {
		return nil, err
	}
	k, err := hpke.DHKEM(x25519()).NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	in, err := hpke.NewRecipient(enc, k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, err
	}
	text, err := in.Open(b[:header], ct)
	if err != nil {
		return nil, err
	}
	partials := text[4+1+32+32+2+4+4:]
	copy(partials[:32], partials[32:64]) // û in place of u_i: a point, but a wrong one
	enc, out, err := hpke.NewSender(k.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, err
	}
	if ct, err = out.Seal(b[:header], text); err != nil {
		return nil, err
	}
	messages := slices.Concat(b[:header], binary.BigEndian.AppendUint16(nil, uint16(len(enc))), enc, binary.BigEndian.AppendUint32(nil, uint32(len(ct))), ct, after)
	st.Extra = vault.NewDigest("partials", messages)
	signed, err := st.Sign(signer)
	if err != nil {
		return nil, err
	}
	return append(signed.Octets(), messages...), nil
}

// savedCase is a Case in a file.
type savedCase struct {
	Manifest, Request, Checkpoint, CaseKey []byte
	CaseIndex, Size                        int64
	Custodians                             []escrow.CustodianName
	Entries                                []Entry
}

// Save writes a case into a file, with the private key of it.
func (c *Case) Save(path string) error {
	k, err := c.CaseKey.Octets()
	if err != nil {
		return err
	}
	b, err := json.Marshal(savedCase{c.File.Manifest.Octets(), c.File.Request.Octets(), c.File.Checkpoint, k, c.File.CaseIndex, c.File.Size, c.File.Custodians, c.Entries})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// LoadCase reads what Save wrote.
func LoadCase(path string) (*Case, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s savedCase
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return nil, err
	}
	c := &Case{Entries: s.Entries, File: escrow.CaseFile{CaseIndex: s.CaseIndex, Size: s.Size, Checkpoint: s.Checkpoint, Custodians: s.Custodians}}
	if c.File.Manifest, err = escrow.ParseManifest(s.Manifest); err != nil {
		return nil, err
	}
	if c.File.Request, err = escrow.ParseStatement(s.Request); err != nil {
		return nil, err
	}
	c.CaseKey, err = escrow.ParseCaseKey(c.File.Manifest.Suite, s.CaseKey)
	return c, err
}

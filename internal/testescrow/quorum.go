package testescrow

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"filippo.io/age"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A Quorum is officers with everything that they have, in one hand.
type Quorum struct {
	Key          *escrow.Key
	Epoch        *escrow.Epoch
	Attestations []*escrow.Statement
	Sealer       *escrow.Sealer
	Transcript   []byte
	Shares       map[uint16]escrow.Share
	Signing      map[uint16]escrow.SigningKey
}

// NewQuorum makes officers of an organisation with a key of theirs.
func NewQuorum(organisation string, quorum, officers int, now time.Time) (*Quorum, error) {
	q := &Quorum{Shares: map[uint16]escrow.Share{}, Signing: map[uint16]escrow.SigningKey{}}
	c := escrow.Ceremony{Suite: escrow.R255, Purpose: escrow.Discovery, Organisation: organisation, Quorum: quorum, Now: now}
	for i := range officers {
		signing, err := escrow.NewSigningKey(random(ed25519.SeedSize))
		if err != nil {
			return nil, err
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		q.Signing[uint16(i+1)] = signing
		c.Officers = append(c.Officers, escrow.Officer{Person: fmt.Sprintf("officer%d@%s", i+1, organisation), Key: signing.Public(), Recipient: id.Recipient().String()})
	}
	dealt, err := c.Deal()
	if err != nil {
		return nil, err
	}
	q.Key, q.Epoch = dealt.Key, dealt.Epoch
	for _, s := range dealt.Shares {
		q.Shares[s.Index] = s
		st, err := escrow.Statement{Kind: escrow.AttestShare, Index: s.Index, Time: now, Subject: q.Epoch.Digest()}.Sign(q.Signing[s.Index])
		if err != nil {
			return nil, err
		}
		q.Attestations = append(q.Attestations, st)
	}
	dealer, err := escrow.NewSigningKey(random(ed25519.SeedSize))
	if err != nil {
		return nil, err
	}
	t, err := escrow.NewTranscript("testescrow", now, q.Key, q.Epoch, dealer)
	if err != nil {
		return nil, err
	}
	q.Transcript = []byte(t.Text())
	q.Sealer, err = escrow.NewSealer(q.Key, []*escrow.Epoch{q.Epoch}, q.Attestations)
	return q, err
}

// Approve has an officer review and approve a case; it returns his statement and his answer file. The archive's log gets the leaves
// of both.
func (q *Quorum) Approve(ctx context.Context, a *Archive, c *Case, i uint16, now time.Time) (*escrow.Statement, []byte, error) {
	var bundle, answer bytes.Buffer
	if err := a.WriteBundle(ctx, &bundle, c); err != nil {
		return nil, nil, err
	}
	trust, err := a.Trust()
	if err != nil {
		return nil, nil, err
	}
	v, err := escrow.Reviewer{Key: q.Key, Epoch: q.Epoch, Trust: trust, Now: func() time.Time { return now }}.Review(ctx, bytes.NewReader(bundle.Bytes()))
	if err != nil {
		return nil, nil, err
	}
	st, err := escrow.Approve(ctx, v, q.Key, q.Epoch, q.Shares[i], q.Signing[i], now, &bundle, func(b []byte) error { answer.Write(b); return nil })
	if err != nil {
		return nil, nil, err
	}
	m := c.File.Manifest
	if _, err := a.Append(vault.Leaf{Type: vault.LeafAnswer, Time: now, Subject: m.Case, Public: st.LeafDigest()}); err != nil {
		return nil, nil, err
	}
	_, err = a.Append(vault.Leaf{Type: vault.LeafPartials, Time: now, Subject: m.Case, Public: st.Extra})
	return st, append(st.Octets(), answer.Bytes()...), err
}

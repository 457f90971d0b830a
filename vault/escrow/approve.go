package escrow

import (
	"context"
	"crypto/sha512"
	"errors"
	"hash"
	"io"
	"time"

	"dimegate/vault"
)

// partialsDigest is D("partials", all messages in order), as a stream.
func partialsDigest() hash.Hash {
	h := sha512.New512_256()
	io.WriteString(h, domain+"partials\x00")
	return h
}

// Approve reads a reviewed bundle a second time and makes an officer's partials for every entry, in messages sealed to the case
// key, which it gives to emit in order. The bundle may have been changed meanwhile: every wrap is compared with the digest in
// the manifest that was reviewed. It returns the officer's statement over all messages.
func Approve(ctx context.Context, v *Review, k *Key, e *Epoch, s Share, signer SigningKey, now time.Time, bundle io.Reader, emit func([]byte) error) (*Statement, error) {
	if err := canAnswer(v, k, e, s, signer); err != nil {
		return nil, err
	}
	b, err := ReadBundle(bundle)
	if err != nil {
		return nil, err
	}
	if b.Manifest.digest != v.Manifest.digest {
		return nil, refuse(ErrManifest, "bundle", "is of another case than was reviewed")
	}
	job := work{k, e, v.Manifest.digest}
	digest := partialsDigest()
	for n := 0; n < len(b.Manifest.Entries); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := job.partials(b, n, s)
		if err != nil {
			return nil, err
		}
		sealed, err := sealBatch(v.Manifest, s.Index, uint32(n), list)
		for _, p := range list {
			p.forget()
		}
		if err != nil {
			return nil, err
		}
		digest.Write(sealed)
		if err := emit(sealed); err != nil {
			return nil, err
		}
		n += len(list)
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		return nil, err
	}
	return answer(Approval, v, s.Index, vault.Digest(digest.Sum(nil)), signer, now)
}

// Refuse makes the statement of an officer who declines.
func Refuse(v *Review, k *Key, e *Epoch, s Share, signer SigningKey, now time.Time) (*Statement, error) {
	if err := canAnswer(v, k, e, s, signer); err != nil {
		return nil, err
	}
	return answer(Decline, v, s.Index, vault.Digest{}, signer, now)
}

func canAnswer(v *Review, k *Key, e *Epoch, s Share, signer SigningKey) error {
	o, ok := e.Officer(s.Index)
	if !ok || o.Key != signer.Public() {
		return refuse(ErrSet, "officer", "the share and the signing key are not one officer's of this epoch")
	}
	if o.Person == v.Manifest.Requester || o.Key == v.Manifest.RequesterKey {
		return refuse(ErrManifest, "officer", "who asks cannot take part")
	}
	if v.Manifest.Epoch != e.digest {
		return refuse(ErrManifest, "case", "is of another epoch")
	}
	return s.Check(k, e)
}

func answer(kind StatementKind, v *Review, i uint16, extra vault.Digest, signer SigningKey, now time.Time) (*Statement, error) {
	return Statement{Kind: kind, Index: i, Time: now, Subject: v.Manifest.digest, Extra: extra,
		Size: uint64(v.Checkpoint.Size), Root: v.Checkpoint.Root}.Sign(signer)
}

// partials makes those of at most batchSize entries from n on.
func (w work) partials(b *BundleReader, n int, s Share) ([]*partial, error) {
	var list []*partial
	for i := n; i < len(b.Manifest.Entries) && len(list) < batchSize; i++ {
		e, err := b.Next()
		if err != nil {
			return nil, &EntryError{Entry: i, Err: err}
		}
		wrap, err := ParseWrap(e.Wrap)
		if err != nil {
			return nil, &EntryError{Entry: i, Err: err}
		}
		if wrap.digest != b.Manifest.Entries[i].Wrap {
			return nil, &EntryError{i, wrap.Label.Record, refuse(ErrScope, "wrap", "was changed since the review")}
		}
		t, p, err := w.part(s.Index, s.x(), wrap, system)
		if err != nil {
			return nil, &EntryError{i, wrap.Label.Record, err}
		}
		wipe(t.k)
		list = append(list, p)
	}
	return list, nil
}

package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A Kind says which way a record's message went.
type Kind uint8

const (
	Outbound Kind = 1
	Inbound  Kind = 2
	Internal Kind = 3 // it did not cross: a journal report told of it
)

// A Record is a kept message, opened: it holds the record key until Close. Safe for concurrent use, Close excepted.
type Record struct {
	ID     ID
	Kind   Kind
	Made   time.Time
	Octets int64  // of the message as received
	Digest Digest // SHA-512/256 of the sealed body

	v        *Vault
	key      Secret
	envelope []byte // sealed
	file     bool
}

// Record opens a record by the host's wrap. ErrNotFound when there is none, or its queue wrap has gone with delivery.
func (v *Vault) Record(ctx context.Context, id ID) (*Record, error) {
	r := &Record{ID: id, v: v}
	var made int64
	var digest, wrap []byte
	err := v.queryRow(ctx, `SELECT r.kind, r.made, r.octets, r.digest, r.envelope, r.file, w.wrap FROM records r
		JOIN wraps w ON w.owner = r.id AND w.purpose = ? AND w.used = 1 WHERE r.id = ?`, []any{WrapHost, id[:]},
		&r.Kind, &made, &r.Octets, &digest, &r.envelope, &r.file, &wrap)
	if err != nil {
		return nil, fmt.Errorf("record %v: %w", id, err)
	}
	if len(digest) != len(Digest{}) {
		return nil, fmt.Errorf("record %v: %w: digest", id, ErrCorrupt)
	}
	r.Made, r.Digest = timeOf(made), Digest(digest)
	if r.key, err = v.host.Unwrap(wrap, keyLabel(id)); err != nil {
		return nil, fmt.Errorf("record %v: %w", id, err)
	}
	return r, nil
}

// Close clears the record key.
func (r *Record) Close() { r.key.Destroy() }

// Envelope opens the stored envelope.
func (r *Record) Envelope() ([]byte, error) {
	_, envelope, err := r.openEnvelope()
	return envelope, err
}

func (r *Record) openEnvelope() (salt, envelope []byte, err error) {
	b, err := OpenOctets(r.key, PartEnvelope, r.ID[:], r.envelope)
	if err != nil {
		return nil, nil, fmt.Errorf("record %v: envelope: %w", r.ID, err)
	}
	if len(b) < saltSize {
		return nil, nil, fmt.Errorf("record %v: envelope: %w", r.ID, ErrCorrupt)
	}
	return b[:saltSize], b[saltSize:], nil
}

// Opening computes what the record's intake leaf hides, from the octets and the envelope as they are kept: it opens the
// leaf's commitment if they are those that were accepted. It reads the whole body.
func (r *Record) Opening(ctx context.Context) (Opening, error) {
	salt, envelope, err := r.openEnvelope()
	if err != nil {
		return Opening{}, err
	}
	body, err := r.Body(ctx)
	if err != nil {
		return Opening{}, err
	}
	defer body.Close()
	octets := newDigester("octets")
	if _, err := io.Copy(octets, body); err != nil {
		return Opening{}, fmt.Errorf("record %v: body: %w", r.ID, err)
	}
	env := NewDigest("envelope", envelope)
	return Opening{Salt: [32]byte(salt), Payload: append(octets.Sum(nil), env[:]...)}, nil
}

// Body opens the message as received. The caller closes the reader before the record.
func (r *Record) Body(ctx context.Context) (io.ReadCloser, error) {
	body, err := r.v.openStream(ctx, r.file, r.ID.String(), `SELECT body FROM records WHERE id = ?`, r.ID[:], r.key, PartBody, nil)
	if err != nil {
		return nil, fmt.Errorf("record %v: body: %w", r.ID, err)
	}
	return body, nil
}

// SealedBody is a record's body as it rests, a sealed stream of so many octets; no key is needed. The caller closes it.
func (v *Vault) SealedBody(ctx context.Context, id ID) (r io.ReadCloser, octets int64, err error) {
	var file bool
	var sealed []byte
	if err := v.queryRow(ctx, `SELECT file, body FROM records WHERE id = ?`, []any{id[:]}, &file, &sealed); err != nil {
		return nil, 0, fmt.Errorf("record %v: %w", id, err)
	}
	if !file {
		return io.NopCloser(bytes.NewReader(sealed)), int64(len(sealed)), nil
	}
	f, err := v.openFile(id.String())
	if err != nil {
		return nil, 0, fmt.Errorf("record %v: %w", id, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// openStream opens a sealed stream that rests in a file or in the one column of query's row.
func (v *Vault) openStream(ctx context.Context, file bool, name, query string, id []byte, key Secret, part Part, context []byte) (io.ReadCloser, error) {
	if file {
		f, err := v.openFile(name)
		if err != nil {
			return nil, err
		}
		r, err := NewStreamReader(f, key, part, context)
		if err != nil {
			f.Close()
			return nil, err
		}
		return readCloser{r, f}, nil
	}
	var sealed []byte
	if err := v.queryRow(ctx, query, []any{id}, &sealed); err != nil {
		return nil, err
	}
	r, err := NewStreamReader(bytes.NewReader(sealed), key, part, context)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// An intake is a draft that is ready for its transaction.
type intake struct {
	d          *Draft
	kind       Kind
	now        time.Time
	digest     Digest
	envelope   []byte // sealed
	wrap       []byte
	commitment Digest
	kept       *Keeping // nil: the archive has no part in it
	exhibits   []*readyExhibit
}

// prepare does what can be done before the transaction: the disk's and the ciphers' part.
func (v *Vault) prepare(d *Draft, kind Kind, envelope []byte, now time.Time) (*intake, error) {
	if err := d.finish(); err != nil {
		return nil, err
	}
	env := NewDigest("envelope", envelope)
	o := newOpening(d.plain.Sum(nil))
	o.Payload = append(o.Payload, env[:]...)
	in := &intake{d: d, kind: kind, now: now, digest: d.digest(), commitment: o.Commit(LeafIntake)}
	in.envelope = SealOctets(d.key, PartEnvelope, d.id[:], append(o.Salt[:], envelope...))
	var err error
	if kind != Internal { // of which nobody waits
		in.wrap, err = v.host.Wrap(d.key, keyLabel(d.id))
	}
	if err != nil || d.keep == nil {
		return in, err
	}
	in.kept, err = d.keep(KeepRequest{Record: d.id, Key: d.key, Body: in.digest, Octets: Digest(o.Payload[:len(Digest{})]), Now: now})
	if err == nil && in.kept != nil {
		in.exhibits, err = v.readyExhibits(d.key, d.id, 0, d.exhibits, now)
		d.files = in.exhibits
	}
	return in, err
}

// public is the public part of the intake's leaf, and its class.
func (in *intake) public() (Digest, uint16) {
	if in.kept == nil {
		return IntakePublic(in.digest, nil), 0
	}
	var wraps []Digest
	for _, w := range in.kept.Wraps {
		wraps = append(wraps, w.Digest)
	}
	return IntakePublic(in.digest, wraps), in.kept.Class
}

// put writes record, wraps and intake leaf.
func (in *intake) put(tx *Tx, v *Vault) error {
	public, class := in.public()
	leaf, err := tx.appendLeaf(Leaf{Type: LeafIntake, Time: in.now, Archive: v.archive, Subject: in.d.id, Public: public, Commitment: in.commitment})
	if err != nil {
		return err
	}
	inline := in.d.out.inline()
	if err := tx.exec(`INSERT INTO records (id, kind, made, octets, class, digest, envelope, body, file, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		in.d.id[:], in.kind, in.now.UnixMilli(), in.d.octets, class, in.digest[:], in.envelope, inline, inline == nil, leaf); err != nil {
		return err
	}
	if in.kept != nil {
		if err := tx.putKept(in.d.id, in.kept); err != nil {
			return err
		}
		if err := tx.putExhibits(in.d.id, in.exhibits, in.now); err != nil {
			return err
		}
	}
	if in.wrap == nil {
		return nil
	}
	return tx.putWrap(in.d.id, WrapHost, in.wrap)
}

// A recordLeaf is a leaf about a record or one of its queue rows, with its opening sealed under the record key.
type recordLeaf struct {
	leaf   Leaf
	sealed []byte
}

// recordLeaf makes one. Owner is what the opening goes with: the row or the record.
func (v *Vault) recordLeaf(key Secret, t LeafType, subject ID, public Digest, payload []byte, now time.Time) recordLeaf {
	o := newOpening(payload)
	return recordLeaf{
		leaf:   Leaf{Type: t, Time: now, Archive: v.archive, Subject: subject, Public: public, Commitment: o.Commit(t)},
		sealed: SealOctets(key, PartOpening, append(subject[:], byte(t)), o.octets()),
	}
}

// putLeaf writes a leaf and its opening, which belongs to the record.
func (tx *Tx) putLeaf(l recordLeaf, record ID) error {
	n, err := tx.appendLeaf(l.leaf)
	if err != nil || l.sealed == nil {
		return err
	}
	return tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, n, record[:], l.sealed)
}

// discardRecord ends the record of a message that was not accepted: the archive keeps nothing of it.
func (v *Vault) discardRecord(tx *Tx, id ID) error {
	if err := tx.dropKept(id); err != nil {
		return err
	}
	return v.endRecord(tx, id)
}

// endRecord drops the queue's wrap of a record that nothing waits for any more, and the record with it unless the archive
// holds a wrap. The file goes after the commit.
func (v *Vault) endRecord(tx *Tx, id ID) error {
	if err := tx.dropWrap(id, WrapHost); err != nil {
		return err
	}
	if n, err := tx.keptWraps(id); err != nil || n > 0 {
		return err
	}
	return v.deleteRecord(tx, id)
}

// deleteRecord deletes a record that nobody has a wrap of, with all that belongs to it.
func (v *Vault) deleteRecord(tx *Tx, id ID) error {
	var file bool
	if err := tx.queryRow(`SELECT file FROM records WHERE id = ?`, []any{id[:]}, &file); err != nil {
		return err
	}
	if err := tx.dropKept(id); err != nil {
		return err
	}
	if err := v.dropExhibits(tx, id); err != nil {
		return err
	}
	if err := tx.exec(`DELETE FROM openings WHERE owner = ?`, id[:]); err != nil {
		return err
	}
	if err := tx.exec(`DELETE FROM records WHERE id = ?`, id[:]); err != nil {
		return err
	}
	if file {
		tx.afterCommit(func() { v.removeFile(id.String()) })
	}
	return nil
}

// sweepBodies removes the files that no row names: what a crash left between a file and its commit, or between a commit
// and the removal of a file. The caller owns the folder, so nothing is in the making.
func (v *Vault) sweepBodies(ctx context.Context) error {
	dir, err := os.Open(v.bodyPath(""))
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("vault: %w", err)
		}
		for _, name := range names {
			named, err := v.namesFile(ctx, name)
			if err != nil {
				return err
			}
			if !named {
				v.removeFile(name)
			}
		}
	}
}

// namesFile reports whether a row has its octets in the file of this name. Names that are not ours are let be.
func (v *Vault) namesFile(ctx context.Context, name string) (bool, error) {
	query := `SELECT COUNT(*) FROM records WHERE id = ? AND file = 1`
	text, object := strings.CutSuffix(name, objectSuffix)
	if object {
		query = `SELECT COUNT(*) FROM built WHERE id = ? AND file = 1`
	}
	if exhibit, ok := strings.CutSuffix(name, exhibitSuffix); ok {
		text, query = exhibit, `SELECT COUNT(*) FROM exhibits WHERE file = ?`
	}
	id, err := ParseID(text)
	if err != nil {
		return true, nil
	}
	var n int
	err = v.queryRow(ctx, query, []any{id[:]}, &n)
	return n > 0, err
}

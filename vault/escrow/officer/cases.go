package officer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A Ceremony is what an officer looks at before he attests: a transcript that holds, his own place in it, and his share, which
// was checked against the commitments.
type Ceremony struct {
	Transcript *escrow.Transcript
	Index      uint16
	share      escrow.Share
	file       []byte
}

// Ceremony opens the officer's share of a ceremony and checks everything of the specification's §3.3.
func (d *Desk) Ceremony(k *Keys, t *escrow.Transcript, shareFile []byte) (*Ceremony, error) {
	s, err := d.openShare(k, t.Key, t.Epoch, shareFile)
	if err != nil {
		return nil, err
	}
	if err := d.checkQuorums(t.Key, t.Epoch.Quorum); err != nil {
		return nil, err
	}
	return &Ceremony{t, s.Index, s, shareFile}, nil
}

// openShare opens a share file and checks the share, and that the officer it is of is this one with these keys.
func (d *Desk) openShare(k *Keys, key *escrow.Key, e *escrow.Epoch, file []byte) (escrow.Share, error) {
	b, err := k.open(file)
	if err != nil {
		return escrow.Share{}, err
	}
	defer clear(b)
	s, err := escrow.ParseShare(b)
	if err != nil {
		return escrow.Share{}, err
	}
	if o, _ := e.Officer(s.Index); o.Line() != d.me.Line() {
		s.Destroy()
		return escrow.Share{}, &escrow.Error{Class: escrow.ErrSet, Object: "share", Reason: "the epoch names another person, or other keys, for it"}
	}
	if err := s.Check(key, e); err != nil {
		s.Destroy()
		return escrow.Share{}, err
	}
	return s, nil
}

// checkQuorums holds the rule that continuity needs one officer more than discovery, as far as this officer knows both.
func (d *Desk) checkQuorums(k *escrow.Key, quorum int) error {
	for _, o := range d.state.Keys {
		if o.key.Organisation != k.Organisation || o.key.Purpose == k.Purpose {
			continue
		}
		discovery, continuity := quorum, o.last().Quorum
		if k.Purpose == escrow.Continuity {
			discovery, continuity = continuity, discovery
		}
		if continuity <= discovery {
			return &escrow.Error{Class: escrow.ErrQuorum, Object: "quorum", Reason: fmt.Sprintf("continuity's %d is not above discovery's %d", continuity, discovery)}
		}
	}
	return nil
}

// Attest keeps share, key, epoch and trust, and then signs that the share is right.
func (d *Desk) Attest(k *Keys, c *Ceremony, t escrow.Trust, now time.Time) (*escrow.Statement, error) {
	defer c.share.Destroy()
	ks, err := d.key(c.Transcript.Key.ID())
	if err != nil {
		ks = &keyState{Record: fmt.Sprintf("%x", c.Transcript.Key.Octets()), key: c.Transcript.Key, Log: t.Log}
		ks.addEpoch(c.Transcript.Epoch)
		d.state.Keys = append(d.state.Keys, ks)
	}
	if err := d.trustLog(t); err != nil {
		return nil, err
	}
	return d.attest(k, ks, c.Transcript.Epoch, c.Index, c.file, now)
}

// attest keeps a share's file and signs statement 1 over its epoch.
func (d *Desk) attest(k *Keys, ks *keyState, e *escrow.Epoch, i uint16, file []byte, now time.Time) (*escrow.Statement, error) {
	st, err := escrow.Statement{Kind: escrow.AttestShare, Index: i, Time: now, Subject: e.Digest()}.Sign(k.Signing)
	if err != nil {
		return nil, err
	}
	if _, err := ks.share(e.Digest()); err == nil {
		return st, d.save() // signed again: the share is here already
	}
	name := fmt.Sprintf("share-%s-%d-%s.age", hexOf(ks.key.ID())[:16], e.Number, hexOf(e.Digest())[:16])
	if err := d.writeSecret(name, file); err != nil {
		return nil, err
	}
	ks.Shares = append(ks.Shares, &shareState{Epoch: hexOf(e.Digest()), File: name, Attested: now.UTC().Truncate(time.Second)})
	return st, d.save()
}

// loadShare opens the officer's share of an epoch.
func (d *Desk) loadShare(k *Keys, ks *keyState, e *escrow.Epoch) (escrow.Share, error) {
	s, err := ks.share(e.Digest())
	if err != nil {
		return escrow.Share{}, err
	}
	file, err := safefile.ReadSecret(filepath.Join(d.dir, s.File), maxSecret)
	if err != nil {
		return escrow.Share{}, err
	}
	return d.openShare(k, ks.key, e, file)
}

// A Case is what an officer looks at before he approves or declines.
type Case struct {
	*escrow.Review
	Key   *escrow.Key
	Epoch *escrow.Epoch
}

// Review makes every check on a bundle and counts what is in it. It signs nothing; it keeps the checkpoint as the last one seen.
func (d *Desk) Review(ctx context.Context, bundle io.ReadSeeker, now time.Time) (*Case, error) {
	head, err := escrow.ReadBundle(bundle)
	if err != nil {
		return nil, err
	}
	ks, err := d.key(head.Manifest.Key)
	if err != nil {
		return nil, err
	}
	e, ok := ks.epoch(head.Manifest.Epoch)
	if !ok {
		e = ks.last() // the review says that the case is of another epoch
	}
	l := d.log(ks.Log)
	if l == nil {
		return nil, errors.New("the log of the key is not known here")
	}
	last, err := l.checkpoint()
	if err != nil {
		return nil, fmt.Errorf("%s: the last checkpoint seen cannot be read", stateFile)
	}
	seen, err := d.approvedRecords()
	if err != nil {
		return nil, err
	}
	if _, err := bundle.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r := escrow.Reviewer{Key: ks.key, Epoch: e, Trust: l.trust(), Last: last, Now: func() time.Time { return now },
		Seen: func(id vault.ID) bool { _, ok := seen[id]; return ok }}
	v, err := r.Review(ctx, bundle)
	if err != nil {
		return nil, err
	}
	l.saw(v.Checkpoint)
	return &Case{v, ks.key, e}, d.save()
}

// Approve writes the officer's answer to a reviewed case into the file at path, which must not exist: his partials for every entry,
// sealed to the case key, and his statement over them.
func (d *Desk) Approve(ctx context.Context, k *Keys, c *Case, bundle io.ReadSeeker, now time.Time, path string) (*escrow.Statement, error) {
	s, ks, err := d.caseShare(k, c)
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	if _, err := bundle.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	at := int64(escrow.StatementSize) // the statement comes first, and is made last
	st, err := escrow.Approve(ctx, c.Review, c.Key, c.Epoch, s, k.Signing, now, bundle, func(b []byte) error {
		_, err := f.WriteAt(b, at)
		at += int64(len(b))
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(st.Octets(), 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := d.decided(ks, c, true, now); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil { // never over a file
		return nil, err
	}
	return st, safefile.SyncDir(filepath.Dir(path))
}

// Decline signs that the officer takes no part in a reviewed case.
func (d *Desk) Decline(k *Keys, c *Case, now time.Time) (*escrow.Statement, error) {
	s, ks, err := d.caseShare(k, c)
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	st, err := escrow.Refuse(c.Review, c.Key, c.Epoch, s, k.Signing, now)
	if err != nil {
		return nil, err
	}
	return st, d.decided(ks, c, false, now)
}

func (d *Desk) caseShare(k *Keys, c *Case) (escrow.Share, *keyState, error) {
	ks, err := d.key(c.Key.ID())
	if err != nil {
		return escrow.Share{}, nil, err
	}
	s, err := d.loadShare(k, ks, c.Epoch)
	return s, ks, err
}

// decided keeps a decision, before it leaves the machine.
func (d *Desk) decided(ks *keyState, c *Case, approved bool, now time.Time) error {
	digest := hexOf(c.Manifest.Digest())
	if approved {
		if err := d.keepRecords(digest, c.RecordIDs); err != nil {
			return err
		}
	}
	d.state.Cases = append(d.state.Cases, caseState{Case: digest, Key: hexOf(ks.key.ID()), Approved: approved, Records: c.Records, Time: now.UTC().Truncate(time.Second)})
	return d.save()
}

func (d *Desk) keepRecords(digest string, ids []vault.ID) error {
	dir := filepath.Join(d.dir, approvedIn)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, id := range ids {
		b.Write(id[:])
	}
	return safefile.Write(filepath.Join(dir, digest), b.Bytes())
}

// approvedRecords reads what was approved in all cases.
func (d *Desk) approvedRecords() (map[vault.ID]struct{}, error) {
	seen := map[vault.ID]struct{}{}
	dir := filepath.Join(d.dir, approvedIn)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range list {
		b, err := safefile.Read(filepath.Join(dir, f.Name()), escrow.MaxEntries*len(vault.ID{}))
		if err != nil {
			return nil, err
		}
		for len(b) >= len(vault.ID{}) {
			seen[vault.ID(b)] = struct{}{}
			b = b[len(vault.ID{}):]
		}
	}
	return seen, nil
}

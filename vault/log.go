package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// A LeafType says what a leaf of the log attests. 1 to 15 are the escrow specification's; the rest are ours.
type LeafType uint8

const (
	LeafIntake LeafType = 1 // a record; public and payload as the escrow specification says

	// Escrow: subject, public and payload as its specification says.
	LeafRewrap     LeafType = 2 // a record's key, sealed to another escrow key
	LeafCaseOpened LeafType = 3
	LeafAnswer     LeafType = 4 // an officer approved or declined
	LeafPartials   LeafType = 5 // his partials were relayed: with a quorum's, the case counts as opened
	LeafOpening    LeafType = 6 // the station reported
	LeafCaseClosed LeafType = 7
	LeafEpoch      LeafType = 8 // an epoch of an escrow key is in force
	LeafErasure    LeafType = 9 // an officer of the epoch before erased his share

	// A queue row's life. Subject: the row. Public: record id 16 ‖ zeros 16.
	LeafRecipient LeafType = 16 // one for each recipient of an accepted message
	LeafDecision  LeafType = 17
	LeafDelivered LeafType = 18
	LeafFailed    LeafType = 19 // for good; the sender is told where he may be
	LeafDropped   LeafType = 20
	LeafHeld      LeafType = 21
	LeafReleased  LeafType = 22
	LeafNotice    LeafType = 23 // the sender's mail server took the notice of a failure
	LeafNoNotice  LeafType = 24 // it did not, and never will

	// An exhibit of an archived record. Subject: the record. Public: D("exhibit", kind u8 ‖ digest of the sealed octets).
	LeafExhibit LeafType = 25

	// A key's life. Subject: the key. Public: zeros.
	LeafKeyMade      LeafType = 32
	LeafKeyRetired   LeafType = 33
	LeafKeyDestroyed LeafType = 34
	LeafUserDisabled LeafType = 35 // an administrator's decision about an address; subject: its last key
	LeafUserEnabled  LeafType = 36
	LeafKeyAdmitted  LeafType = 37 // made by its user, who has it; we signed the signet
	LeafKeyVouched   LeafType = 38 // it signs the custody of keys that its user made

	// An inbound message's end. Subject: its record. Public: zeros.
	LeafAccepted  LeafType = 48
	LeafRefused   LeafType = 49
	LeafDeferred  LeafType = 50
	LeafAbandoned LeafType = 51

	// An administrator's decision about another organisation. Subject: of its note. Public: zeros.
	LeafTrust LeafType = 64

	// A seal was added or removed, or a role's root key replaced. Subject: of the role. Public: zeros.
	LeafSeal LeafType = 80

	// The vault was made from a backup: the leaves behind this one are not those that stood there before. Subject: the backup.
	// Public: zeros.
	LeafRestored LeafType = 81

	// Who has which role, all of it. Subject: one for all. Public: zeros.
	LeafRoles LeafType = 96
	// Somebody looked at addresses. Subject: random. Public: zeros.
	LeafLook LeafType = 97

	// A case is asked for: the notice to the privacy officer. Subject: the case. Public: zeros.
	LeafCaseAsked LeafType = 112
	// A legal hold. Subject: the hold. Public: zeros.
	LeafHoldPlaced LeafType = 113
	LeafHoldEnded  LeafType = 114
	// What a case's mailbox showed. Subject: the case. Public: zeros. Payload: head of the access record 32 ‖ entries u64.
	LeafCaseRead LeafType = 115

	// An archived record that nobody holds any more was destroyed, or, before its queue is done, will be. Subject: the record. Public:
	// D("destroyed", "retention" or "erasure").
	LeafDestroyed LeafType = 120
	// An erasure was asked for, or is done. Subject: of the request. Public: zeros.
	LeafErasureAsked LeafType = 121
	LeafErasureDone  LeafType = 122
	// A custodian has another address from now on. Subject: his id under the new one. Public: zeros.
	LeafRenamed LeafType = 123
)

// leafNames is what the types are called; a type that is not here is not written and not read.
var leafNames = map[LeafType]string{
	LeafIntake: "intake", LeafRewrap: "re-wrap", LeafCaseOpened: "case opened", LeafAnswer: "answer", LeafPartials: "partials relayed",
	LeafOpening: "opening reported", LeafCaseClosed: "case closed", LeafEpoch: "epoch in force", LeafErasure: "erasure attested",
	LeafRecipient: "recipient", LeafDecision: "decision", LeafDelivered: "delivered", LeafFailed: "failed",
	LeafDropped: "dropped", LeafHeld: "held", LeafReleased: "released", LeafNotice: "notice", LeafNoNotice: "no notice", LeafExhibit: "exhibit",
	LeafKeyMade: "key made", LeafKeyRetired: "key retired", LeafKeyDestroyed: "key destroyed",
	LeafUserDisabled: "user disabled", LeafUserEnabled: "user enabled",
	LeafKeyAdmitted: "key admitted", LeafKeyVouched: "key vouched",
	LeafAccepted: "accepted", LeafRefused: "refused", LeafDeferred: "deferred", LeafAbandoned: "abandoned",
	LeafTrust: "trust", LeafSeal: "seal", LeafRestored: "restored",
	LeafRoles: "roles", LeafLook: "look",
	LeafCaseAsked: "case asked for", LeafHoldPlaced: "hold placed", LeafHoldEnded: "hold ended", LeafCaseRead: "case read",
	LeafDestroyed: "destroyed", LeafErasureAsked: "erasure asked for", LeafErasureDone: "erasure done", LeafRenamed: "renamed",
}

func (t LeafType) String() string {
	if s, ok := leafNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Leaf is one entry of the log. It tells nobody whose mail it is about: the commitment is salted.
type Leaf struct {
	Type       LeafType
	Time       time.Time // to the second
	Archive    ID
	Subject    ID
	Public     Digest
	Commitment Digest
}

// LeafSize is the length of every leaf: "DLF1" 4 ‖ type 1 ‖ time 8 ‖ archive 16 ‖ subject 16 ‖ public 32 ‖ commitment 32.
const LeafSize = 4 + 1 + 8 + 16 + 16 + 32 + 32

const leafMagic = "DLF1"

// Octets is what is hashed into the tree.
func (l Leaf) Octets() []byte {
	b := make([]byte, 0, LeafSize)
	b = append(b, leafMagic...)
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Time.Unix()))
	b = append(b, l.Archive[:]...)
	b = append(b, l.Subject[:]...)
	b = append(b, l.Public[:]...)
	return append(b, l.Commitment[:]...)
}

// ParseLeaf is the inverse of Octets. Types that this version does not know are read: the log outlives versions.
func ParseLeaf(b []byte) (Leaf, error) {
	if len(b) != LeafSize || string(b[:4]) != leafMagic {
		return Leaf{}, fmt.Errorf("%w: not a leaf", ErrCorrupt)
	}
	return Leaf{
		Type: LeafType(b[4]), Time: time.Unix(int64(binary.BigEndian.Uint64(b[5:])), 0).UTC(),
		Archive: ID(b[13:]), Subject: ID(b[29:]), Public: Digest(b[45:]), Commitment: Digest(b[77:]),
	}, nil
}

// IntakePublic is the public part of an intake leaf: D("intake", body digest ‖ u16 count ‖ wrap digests ascending). The
// wraps are those of the archive; it sorts them.
func IntakePublic(body Digest, wraps []Digest) Digest {
	slices.SortFunc(wraps, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	list := binary.BigEndian.AppendUint16(nil, uint16(len(wraps)))
	for _, w := range wraps {
		list = append(list, w[:]...)
	}
	return NewDigest("intake", body[:], list)
}

// An Opening is what a leaf's commitment hides: it is kept beside what the leaf describes and destroyed with it.
type Opening struct {
	Salt    [32]byte
	Payload []byte
}

// Commit computes D("leaf", salt ‖ type ‖ payload).
func (o Opening) Commit(t LeafType) Digest {
	return NewDigest("leaf", o.Salt[:], []byte{byte(t)}, o.Payload)
}

func newOpening(payload []byte) Opening {
	o := Opening{Payload: payload}
	s := NewSecret()
	copy(o.Salt[:], s.raw())
	return o
}

func (o Opening) octets() []byte { return append(o.Salt[:], o.Payload...) }

// logState is what a batch knows of the log, so that it asks the database once.
type logState struct {
	known bool
	size  int64
	edge  map[int64]tlog.Hash // hashes that this batch wrote
}

// appendLeaf writes the next leaf and the hashes that it completes, and returns its index.
func (tx *Tx) appendLeaf(l Leaf) (int64, error) {
	st := &tx.batch.log
	if !st.known {
		if err := tx.queryRow(`SELECT COALESCE(MAX(idx), -1) + 1 FROM leaves`, nil, &st.size); err != nil {
			return 0, err
		}
		st.known, st.edge = true, map[int64]tlog.Hash{}
	}
	n := st.size
	octets := l.Octets()
	hashes, err := tlog.StoredHashes(n, octets, tlog.HashReaderFunc(tx.readHashes))
	if err != nil {
		return 0, err
	}
	if err := tx.exec(`INSERT INTO leaves (idx, leaf) VALUES (?, ?)`, n, octets); err != nil {
		return 0, err
	}
	first := tlog.StoredHashIndex(0, n)
	for i, h := range hashes {
		if err := tx.exec(`INSERT INTO hashes (idx, hash) VALUES (?, ?)`, first+int64(i), h[:]); err != nil {
			return 0, err
		}
		st.edge[first+int64(i)] = h
	}
	st.size++
	return n, nil
}

// readHashes is tlog's HashReader over the batch and the table.
func (tx *Tx) readHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if h, ok := tx.batch.log.edge[x]; ok {
			hashes[i] = h
			continue
		}
		var b []byte
		if err := tx.queryRow(`SELECT hash FROM hashes WHERE idx = ?`, []any{x}, &b); err != nil {
			return nil, fmt.Errorf("vault: log hash %d: %w", x, err)
		}
		if len(b) != tlog.HashSize {
			return nil, fmt.Errorf("%w: log hash %d", ErrCorrupt, x)
		}
		hashes[i] = tlog.Hash(b)
	}
	return hashes, nil
}

// LogSize is the number of leaves.
func (v *Vault) LogSize(ctx context.Context) (int64, error) {
	var n int64
	err := v.queryRow(ctx, `SELECT COALESCE(MAX(idx), -1) + 1 FROM leaves`, nil, &n)
	return n, err
}

// LogHashes reads the tree's hashes at tlog indexes. Their lengths are checked, their values are the caller's to check.
func (v *Vault) LogHashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		var b []byte
		if err := v.queryRow(ctx, `SELECT hash FROM hashes WHERE idx = ?`, []any{x}, &b); err != nil {
			return nil, fmt.Errorf("vault: log hash %d: %w", x, err)
		}
		if len(b) != tlog.HashSize {
			return nil, fmt.Errorf("%w: log hash %d", ErrCorrupt, x)
		}
		hashes[i] = tlog.Hash(b)
	}
	return hashes, nil
}

// LogLeaves reads at most n leaves from index first on, in order and without a gap. Octets, since a leaf is hashed as it
// was written.
func (v *Vault) LogLeaves(ctx context.Context, first int64, n int) ([][]byte, error) {
	var leaves [][]byte
	err := v.queryRows(ctx, `SELECT idx, leaf FROM leaves WHERE idx >= ? ORDER BY idx LIMIT ?`, []any{first, n}, func(s scanner) error {
		var idx int64
		var b []byte
		if err := s.Scan(&idx, &b); err != nil {
			return err
		}
		if want := first + int64(len(leaves)); idx != want {
			return fmt.Errorf("%w: leaf %d is not there", ErrCorrupt, want)
		}
		leaves = append(leaves, b)
		return nil
	})
	return leaves, err
}

// A Checkpoint is a signed note about the first Size leaves.
type Checkpoint struct {
	Size int64
	Note []byte
	Made time.Time
}

// SaveCheckpoint keeps a checkpoint; the first of a size stays.
func (v *Vault) SaveCheckpoint(ctx context.Context, c Checkpoint) error {
	return v.update(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO checkpoints (size, note, made) VALUES (?, ?, ?) ON CONFLICT (size) DO NOTHING`, c.Size, c.Note, c.Made.UnixMilli())
	})
}

// LogExtent is the number of leaves and of the tree's hashes, both at the same moment: tlog.StoredHashCount of the one is the
// other, unless somebody changed them.
func (v *Vault) LogExtent(ctx context.Context) (leaves, hashes int64, err error) {
	err = v.queryRow(ctx, `SELECT (SELECT COALESCE(MAX(idx), -1) + 1 FROM leaves), (SELECT COALESCE(MAX(idx), -1) + 1 FROM hashes)`, nil, &leaves, &hashes)
	return leaves, hashes, err
}

// CosignCheckpoint adds a signature line to the note of a checkpoint; ErrNotFound when there is none.
func (v *Vault) CosignCheckpoint(ctx context.Context, size int64, line []byte) error {
	return v.update(ctx, func(tx *Tx) error {
		var note []byte
		if err := tx.queryRow(`SELECT note FROM checkpoints WHERE size = ?`, []any{size}, &note); err != nil {
			return err
		}
		n, err := tx.change(`UPDATE checkpoints SET note = ? WHERE size = ?`, append(note, line...), size)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// Checkpoints reads at most n checkpoints of more than after leaves, in order.
func (v *Vault) Checkpoints(ctx context.Context, after int64, n int) ([]Checkpoint, error) {
	var list []Checkpoint
	err := v.queryRows(ctx, `SELECT size, note, made FROM checkpoints WHERE size > ? ORDER BY size LIMIT ?`, []any{after, n}, func(s scanner) error {
		var c Checkpoint
		var made int64
		err := s.Scan(&c.Size, &c.Note, &made)
		c.Made = timeOf(made)
		list = append(list, c)
		return err
	})
	return list, err
}

// LastCheckpoint is the largest; ErrNotFound when there is none.
func (v *Vault) LastCheckpoint(ctx context.Context) (Checkpoint, error) {
	var c Checkpoint
	var made int64
	err := v.queryRow(ctx, `SELECT size, note, made FROM checkpoints ORDER BY size DESC LIMIT 1`, nil, &c.Size, &c.Note, &made)
	c.Made = timeOf(made)
	return c, err
}

// attestKey writes a key's leaf with its opening in the clear: what it hides stands in the same tables.
func (v *Vault) attestKey(tx *Tx, t LeafType, key ID, payload []byte, now time.Time) error {
	o := newOpening(payload)
	n, err := tx.appendLeaf(Leaf{Type: t, Time: now, Archive: v.archive, Subject: key, Commitment: o.Commit(t)})
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, n, key[:], o.octets())
}

package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Token stands in the archive's index for what must not be read from a stolen disk: the start of an HMAC under a key of the vault's.
type Token [16]byte

// A CustodianID names a custodian to whoever has his salt and address: escrow specification §4.1.
type CustodianID [16]byte

// Roles of an address in the archive's index.
const (
	RoleAuthor    = 1
	RoleRecipient = 2 // Bcc too
)

// A KeepRequest is what a record's archive part is made from. The key is the draft's: it is not kept and not destroyed.
type KeepRequest struct {
	Record ID
	Key    Secret
	Body   Digest // SHA-512/256 of the sealed body
	Octets Digest // D("octets", octets as received)
	Now    time.Time
}

// A Keeping is the archive's part of an intake.
type Keeping struct {
	Class   uint16
	Expires time.Time // the end of its retention as it is said now; zero: it has no retention time
	Content Token     // of the octets
	Wraps   []KeptWrap
	Index   []IndexEntry
}

// A KeptWrap is one custodian's way to a record's key.
type KeptWrap struct {
	Shred  ID
	Digest Digest // of the wrap, D("wrap", DET1)
	Outer  []byte // DEW1, the wrap inside the shred key
}

// An IndexEntry says under which token a record is found.
type IndexEntry struct {
	Token Token
	Role  uint8
}

// Keep makes the record that the draft becomes an archived one: f is called once, before the transaction of the intake, and what it
// returns is in its commit. An error of f is the intake's. ErrChanged from the intake: a shred key was destroyed meanwhile; the
// caller says that the mail shall come again.
func (d *Draft) Keep(f func(KeepRequest) (*Keeping, error)) { d.keep = f }

// putKept writes the archive's part of an intake.
func (tx *Tx) putKept(record ID, k *Keeping) error {
	if err := tx.exec(`INSERT INTO archive (record, expires, content) VALUES (?, ?, ?)`, record[:], millis(k.Expires), k.Content[:]); err != nil {
		return err
	}
	for n, w := range k.Wraps {
		if err := tx.holdsShred(w.Shred); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO archive_wraps (record, n, shred, digest, outer) VALUES (?, ?, ?, ?, ?)`, record[:], n, w.Shred[:], w.Digest[:], w.Outer); err != nil {
			return err
		}
	}
	for _, e := range k.Index {
		if err := tx.exec(`INSERT INTO archive_index (token, record, role) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, e.Token[:], record[:], e.Role); err != nil {
			return err
		}
	}
	return nil
}

// millis is a time as the tables have it: timeOf's inverse.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// holdsShred refuses a shred key that was destroyed since it was asked for.
func (tx *Tx) holdsShred(id ID) error {
	var n int
	if err := tx.queryRow(`SELECT COUNT(*) FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{id[:], WrapHost}, &n); err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("shred key %v: %w", id, ErrChanged)
	}
	return nil
}

// holdsCustodian refuses one who was erased since he was asked for.
func (tx *Tx) holdsCustodian(id CustodianID) error {
	var n int
	if err := tx.queryRow(`SELECT COUNT(*) FROM custodians WHERE id = ?`, []any{id[:]}, &n); err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("custodian: %w", ErrChanged)
	}
	return nil
}

// keptWraps counts the ways that are left to a record's key, the queue's apart.
func (tx *Tx) keptWraps(record ID) (n int, err error) {
	err = tx.queryRow(`SELECT COUNT(*) FROM archive_wraps WHERE record = ? AND outer IS NOT NULL`, []any{record[:]}, &n)
	return n, err
}

// dropKept removes what the archive has of a record that ends.
func (tx *Tx) dropKept(record ID) error {
	for _, table := range []string{"archive", "archive_wraps", "archive_index", "rewraps", "rewrapped"} {
		if err := tx.exec(`DELETE FROM `+table+` WHERE record = ?`, record[:]); err != nil {
			return err
		}
	}
	return nil
}

// archiveKey is the named key that seals what the archive knows of custodians.
const archiveKey = "archive"

// A Custodian is whose copy of a message the archive keeps: an address of ours, with the salt that its id is made from. One whose
// address changes is another custodian from then on.
type Custodian struct {
	ID      CustodianID
	Salt    [32]byte
	Former  CustodianID // the same person under the address before; zero for none
	Address string
}

// Custodian returns the custodian of an address, which is in lower case, or ErrNotFound. Token is the address's.
func (v *Vault) Custodian(ctx context.Context, token Token, address string) (Custodian, error) {
	var id, sealed []byte
	if err := v.queryRow(ctx, `SELECT id, sealed FROM custodians WHERE token = ?`, []any{token[:]}, &id, &sealed); err != nil {
		return Custodian{}, err
	}
	c, err := v.openCustodian(ctx, id, sealed)
	if err == nil && c.Address != address {
		err = fmt.Errorf("%w: custodian of another address", ErrCorrupt)
	}
	return c, err
}

// CustodianByID returns the one of an id, or ErrNotFound.
func (v *Vault) CustodianByID(ctx context.Context, id CustodianID) (Custodian, error) {
	var sealed []byte
	if err := v.queryRow(ctx, `SELECT sealed FROM custodians WHERE id = ?`, []any{id[:]}, &sealed); err != nil {
		return Custodian{}, err
	}
	return v.openCustodian(ctx, id[:], sealed)
}

// Custodians lists all.
func (v *Vault) Custodians(ctx context.Context) ([]Custodian, error) {
	var list []Custodian
	err := v.queryRows(ctx, `SELECT id, sealed FROM custodians ORDER BY made, id`, nil, func(s scanner) error {
		var id, sealed []byte
		if err := s.Scan(&id, &sealed); err != nil {
			return err
		}
		c, err := v.openCustodian(ctx, id, sealed)
		list = append(list, c)
		return err
	})
	return list, err
}

func (v *Vault) openCustodian(ctx context.Context, id, sealed []byte) (Custodian, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Custodian{}, err
	}
	defer k.Destroy()
	b, err := OpenOctets(k, PartArchive, Label("custodian", string(id)), sealed)
	if err == nil && (len(b) < custodianHead || len(id) != len(CustodianID{})) {
		err = ErrCorrupt
	}
	if err != nil {
		return Custodian{}, fmt.Errorf("vault: custodian: %w", err)
	}
	return Custodian{CustodianID(id), [32]byte(b), CustodianID(b[32:]), string(b[custodianHead:])}, nil
}

// custodianHead is what stands before the address in a custodian's row.
const custodianHead = 32 + len(CustodianID{})

func (c Custodian) seal(k Secret) []byte {
	return SealOctets(k, PartArchive, Label("custodian", string(c.ID[:])), slices.Concat(c.Salt[:], c.Former[:], []byte(c.Address)))
}

// AddCustodian keeps a new custodian. Where another caller was first, his is kept, and returned.
func (v *Vault) AddCustodian(ctx context.Context, token Token, c Custodian, now time.Time) (Custodian, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Custodian{}, err
	}
	defer k.Destroy()
	sealed := c.seal(k)
	err = v.update(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO custodians (id, token, sealed, made) VALUES (?, ?, ?, ?) ON CONFLICT (token) DO NOTHING`, c.ID[:], token[:], sealed, now.UnixMilli())
	})
	if err != nil {
		return Custodian{}, err
	}
	return v.Custodian(ctx, token, c.Address)
}

// RenameCustodian keeps the custodian of an address as the successor of Former, with a leaf that commits to payload. One that the address
// has keeps id and salt; ErrExists when it is another's successor. What was so before is no change.
func (v *Vault) RenameCustodian(ctx context.Context, token Token, c Custodian, payload []byte, now time.Time) error {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer k.Destroy()
	old, err := v.Custodian(ctx, token, c.Address)
	write := `UPDATE custodians SET sealed = ? WHERE id = ? AND token = ?`
	switch {
	case errors.Is(err, ErrNotFound):
		write = `INSERT INTO custodians (sealed, id, token, made) VALUES (?, ?, ?, ?)`
	case err != nil:
		return err
	case old.Former == c.Former:
		return nil
	case old.Former != (CustodianID{}):
		return ErrExists
	default:
		c.ID, c.Salt = old.ID, old.Salt
	}
	args := []any{c.seal(k), c.ID[:], token[:], now.UnixMilli()}
	return v.update(ctx, func(tx *Tx) error {
		if err := tx.changeOne(write, args[:strings.Count(write, "?")]...); err != nil {
			return err
		}
		_, err := v.attestSealed(tx, k, ID(c.ID), CaseLeaf{Type: LeafRenamed, Payload: payload}, now)
		return err
	})
}

// A Shred says what a shred key is for: destroying it erases a custodian's copies of a class and month.
type Shred struct {
	ID        ID
	Custodian CustodianID
	Class     uint16
	Month     uint16 // as in labels: (year − 1970)·12 + month − 1
	Made      time.Time
}

func (s Shred) octets() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append([]byte(nil), s.Custodian[:]...), s.Class), s.Month)
}

// ShredKey opens the shred key of a custodian, class and month, and makes it where there is none: once, whoever else asks. Token is
// that of the three. The caller destroys the key.
func (v *Vault) ShredKey(ctx context.Context, token Token, s Shred) (ID, Secret, error) {
	id, key, err := v.findShred(ctx, token, s)
	if !errors.Is(err, ErrNotFound) {
		return id, key, err
	}
	if v.host == nil {
		return ID{}, Secret{}, ErrSealed
	}
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return ID{}, Secret{}, err
	}
	defer k.Destroy()
	fresh := NewSecret()
	defer fresh.Destroy()
	s.ID = RandomID()
	wrap, err := v.host.Wrap(fresh, keyLabel(s.ID))
	if err != nil {
		return ID{}, Secret{}, err
	}
	err = v.updateKey(ctx, func(tx *Tx) error {
		if err := tx.holdsCustodian(s.Custodian); err != nil {
			return err
		}
		// One that was erased and came back with a backup makes room; the sweep ends it.
		if err := tx.exec(`UPDATE shred_keys SET token = randomblob(16) WHERE token = ? AND id NOT IN (SELECT owner FROM wraps WHERE purpose = ? AND used = 1)`, token[:], WrapHost); err != nil {
			return err
		}
		n, err := tx.change(`INSERT INTO shred_keys (id, token, custodian, month, sealed, made) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token) DO NOTHING`,
			s.ID[:], token[:], s.Custodian[:], s.Month, SealOctets(k, PartArchive, Label("shred key", string(s.ID[:])), s.octets()), s.Made.UnixMilli())
		if err != nil || n == 0 { // another caller was first
			return err
		}
		if err := tx.putWrap(s.ID, WrapHost, wrap); err != nil {
			return err
		}
		_, err = v.attestSealed(tx, k, s.ID, CaseLeaf{Type: LeafKeyMade, Payload: shredPayload(s)}, s.Made)
		return err
	})
	if err != nil {
		return ID{}, Secret{}, fmt.Errorf("vault: shred key: %w", err)
	}
	return v.findShred(ctx, token, s)
}

// shredPayload is what the leaves of a shred key's life commit to.
func shredPayload(s Shred) []byte { return Label("shred", string(s.octets())) }

func (v *Vault) findShred(ctx context.Context, token Token, want Shred) (ID, Secret, error) {
	var id, sealed, wrap []byte
	err := v.queryRow(ctx, `SELECT s.id, s.sealed, w.wrap FROM shred_keys s JOIN wraps w ON w.owner = s.id AND w.purpose = ? AND w.used = 1
		WHERE s.token = ?`, []any{WrapHost, token[:]}, &id, &sealed, &wrap)
	if err != nil {
		return ID{}, Secret{}, err
	}
	got, err := v.openShred(ctx, id, sealed)
	if err != nil {
		return ID{}, Secret{}, err
	}
	if want.ID, want.Made = got.ID, got.Made; got != want {
		return ID{}, Secret{}, fmt.Errorf("%w: shred key %v is for another custodian, class or month", ErrCorrupt, got.ID)
	}
	key, err := v.unwrapShred(got.ID, wrap)
	return got.ID, key, err
}

func (v *Vault) unwrapShred(id ID, wrap []byte) (Secret, error) {
	if v.host == nil {
		return Secret{}, ErrSealed
	}
	key, err := v.host.Unwrap(wrap, keyLabel(id))
	if err != nil {
		return Secret{}, fmt.Errorf("shred key %v: %w", id, err)
	}
	return key, nil
}

func (v *Vault) openShred(ctx context.Context, id, sealed []byte) (Shred, error) {
	k, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return Shred{}, err
	}
	defer k.Destroy()
	b, err := OpenOctets(k, PartArchive, Label("shred key", string(id)), sealed)
	if err == nil && (len(b) != 20 || len(id) != len(ID{})) {
		err = ErrCorrupt
	}
	if err != nil {
		return Shred{}, fmt.Errorf("vault: shred key: %w", err)
	}
	return Shred{ID: ID(id), Custodian: CustodianID(b), Class: binary.BigEndian.Uint16(b[16:]), Month: binary.BigEndian.Uint16(b[18:])}, nil
}

// OpenShredKey opens a shred key by its id; ErrNotFound when it was destroyed. The caller destroys it.
func (v *Vault) OpenShredKey(ctx context.Context, id ID) (Secret, error) {
	var wrap []byte
	err := v.queryRow(ctx, `SELECT wrap FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{id[:], WrapHost}, &wrap)
	if err != nil {
		return Secret{}, fmt.Errorf("shred key %v: %w", id, err)
	}
	return v.unwrapShred(id, wrap)
}

// Shreds lists the shred keys that live, of some custodians or of all, of the months from first to last, by month.
func (v *Vault) Shreds(ctx context.Context, custodians []CustodianID, first, last uint16) ([]Shred, error) {
	query, args := `SELECT id, sealed, made FROM shred_keys WHERE month BETWEEN ? AND ?`, []any{first, last}
	if len(custodians) > 0 {
		query += ` AND custodian IN (` + placeholders(len(custodians)) + `)`
		for _, c := range custodians {
			args = append(args, c[:])
		}
	}
	var list []Shred
	err := v.queryRows(ctx, query+` ORDER BY month, id`, args, func(sc scanner) error {
		var id, sealed []byte
		var made int64
		if err := sc.Scan(&id, &sealed, &made); err != nil {
			return err
		}
		s, err := v.openShred(ctx, id, sealed)
		s.Made = timeOf(made)
		list = append(list, s)
		return err
	})
	return list, err
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// An ArchiveQuery asks for records of some shred keys, or with some tokens, or both; at most MaxQueryList of each.
type ArchiveQuery struct {
	Shreds    []ID
	Tokens    []Token // any of them
	First     ID      // records from this id on: ids sort by time
	Last      ID      // and to this one
	From, To  time.Time
	MinOctets int64
	MaxOctets int64 // 0: any
	Direction Kind  // 0: both
}

// MaxQueryList bounds the lists of a query.
const MaxQueryList = 10_000

// An ArchivedWrap is one wrap of a record that a query found.
type ArchivedWrap struct {
	Record    ID
	Direction Kind
	Made      time.Time
	Octets    int64
	Class     uint16
	Expires   time.Time
	Content   Token
	Leaf      int64 // that attests its wraps as they are
	N         int
	Shred     ID
	Digest    Digest
	Gone      bool // it was shredded
}

// FindArchived visits the wraps that a query finds, those of one record together, ascending by record. Without shred keys it visits
// all wraps of a record that has one of the tokens.
func (v *Vault) FindArchived(ctx context.Context, q ArchiveQuery, visit func(ArchivedWrap) error) error {
	if len(q.Shreds) == 0 && len(q.Tokens) == 0 {
		return errors.New("vault: a query without custodian or address")
	}
	if len(q.Shreds) > MaxQueryList || len(q.Tokens) > MaxQueryList {
		return fmt.Errorf("vault: a query over more than %d custodians, classes or addresses in a month", MaxQueryList)
	}
	query, args := q.statement()
	return v.queryRows(ctx, query, args, func(s scanner) error {
		var w ArchivedWrap
		var record, shred, digest, content []byte
		var made, expires int64
		if err := s.Scan(&record, &w.Direction, &made, &w.Octets, &w.Class, &w.Leaf, &expires, &content, &w.N, &shred, &digest, &w.Gone); err != nil {
			return err
		}
		if len(content) != len(Token{}) || len(digest) != len(Digest{}) {
			return fmt.Errorf("%w: archived record %v", ErrCorrupt, toID(record))
		}
		w.Record, w.Shred, w.Digest, w.Content = toID(record), toID(shred), Digest(digest), Token(content)
		w.Made, w.Expires = timeOf(made), timeOf(expires)
		return visit(w)
	})
}

// statement drives the search by tokens where there are any, which are rarer than a custodian's whole mail. CROSS JOIN holds SQLite
// to that order.
func (q ArchiveQuery) statement() (string, []any) {
	var b strings.Builder
	var args []any
	b.WriteString(`SELECT r.id, r.kind, r.made, r.octets, r.class, ` + currentLeaf + `, a.expires, a.content, w.n, w.shred, w.digest, w.outer IS NULL FROM `)
	if len(q.Tokens) > 0 {
		b.WriteString(`(SELECT DISTINCT record FROM archive_index WHERE token IN (` + placeholders(len(q.Tokens)) + `) AND record BETWEEN ? AND ? ORDER BY record) i
			CROSS JOIN archive_wraps w ON w.record = i.record`)
		for _, t := range q.Tokens {
			args = append(args, t[:])
		}
		args = append(args, q.First[:], q.Last[:])
	} else {
		b.WriteString(`archive_wraps w`)
	}
	b.WriteString(` CROSS JOIN records r ON r.id = w.record CROSS JOIN archive a ON a.record = w.record WHERE r.made >= ? AND r.made < ? AND r.octets >= ?`)
	args = append(args, q.From.UnixMilli(), q.To.UnixMilli(), q.MinOctets)
	if q.MaxOctets > 0 {
		b.WriteString(` AND r.octets <= ?`)
		args = append(args, q.MaxOctets)
	}
	if q.Direction != 0 {
		b.WriteString(` AND r.kind = ?`)
		args = append(args, q.Direction)
	}
	if len(q.Shreds) > 0 {
		b.WriteString(` AND w.shred IN (` + placeholders(len(q.Shreds)) + `)`)
		for _, s := range q.Shreds {
			args = append(args, s[:])
		}
		if len(q.Tokens) == 0 {
			b.WriteString(` AND w.record BETWEEN ? AND ?`)
			args = append(args, q.First[:], q.Last[:])
		}
	}
	b.WriteString(` ORDER BY w.record, w.n`)
	return b.String(), args
}

// ArchivedWraps returns a record's digests of wraps, ascending, and the outer wrap of one of them. ErrNotFound: there is no such wrap,
// with the digests of those that there are; ErrDestroyed: it was shredded.
func (v *Vault) ArchivedWraps(ctx context.Context, record ID, of Digest) (all []Digest, outer []byte, err error) {
	found := false
	err = v.queryRows(ctx, `SELECT digest, outer FROM archive_wraps WHERE record = ?`, []any{record[:]}, func(s scanner) error {
		var digest, b []byte
		if err := s.Scan(&digest, &b); err != nil {
			return err
		}
		if len(digest) != len(Digest{}) {
			return fmt.Errorf("%w: digest of a wrap", ErrCorrupt)
		}
		d := Digest(digest)
		all = append(all, d)
		if d == of {
			found, outer = true, b
		}
		return nil
	})
	switch {
	case err == nil && !found:
		err = ErrNotFound
	case err == nil && outer == nil:
		err = ErrDestroyed
	}
	slices.SortFunc(all, func(a, b Digest) int { return strings.Compare(string(a[:]), string(b[:])) })
	if err != nil {
		return all, nil, fmt.Errorf("record %v: wrap: %w", record, err)
	}
	return all, outer, nil
}

// SealedEnvelope is a record's envelope as it rests; no key is needed.
func (v *Vault) SealedEnvelope(ctx context.Context, id ID) ([]byte, error) {
	var b []byte
	if err := v.queryRow(ctx, `SELECT envelope FROM records WHERE id = ?`, []any{id[:]}, &b); err != nil {
		return nil, fmt.Errorf("record %v: %w", id, err)
	}
	return b, nil
}

// An EscrowKey is one that the archive seals to, with what is known of it: octets of the escrow package's. The last epoch is the
// current one.
type EscrowKey struct {
	ID      Digest
	Purpose uint8
	Record  []byte // DEK1
	Epochs  []EscrowEpoch
	Made    time.Time
}

// An EscrowEpoch is an epoch with the statements of all of its officers, DEE1 and DEG1 one after the other.
type EscrowEpoch struct {
	Number     int
	Octets     []byte
	Statements []byte
	Leaf       int64 // that says it is in force
}

// EscrowVersion changes whenever a key or an epoch comes into force: it is the last one's leaf, -1 before the first.
func (v *Vault) EscrowVersion(ctx context.Context) (leaf int64, err error) {
	err = v.queryRow(ctx, `SELECT COALESCE(MAX(leaf), -1) FROM escrow_epochs`, nil, &leaf)
	return leaf, err
}

// EscrowKeys lists all escrow keys, the oldest first, with their epochs from the first on. ErrCorrupt for what InstallEscrow did not
// write.
func (v *Vault) EscrowKeys(ctx context.Context) ([]EscrowKey, error) {
	if last, err := v.EscrowVersion(ctx); err != nil || last < 0 { // none: nor is a key made to check them with
		return nil, err
	}
	own, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return nil, err
	}
	defer own.Destroy()
	var list []EscrowKey
	err = v.queryRows(ctx, `SELECT k.id, k.purpose, k.record, k.made, e.number, e.epoch, e.statements, e.leaf, e.mac FROM escrow_keys k
		JOIN escrow_epochs e ON e.key = k.id ORDER BY k.made, k.id, e.number`, nil, func(s scanner) error {
		var k EscrowKey
		var e EscrowEpoch
		var id, mac []byte
		var made int64
		if err := s.Scan(&id, &k.Purpose, &k.Record, &made, &e.Number, &e.Octets, &e.Statements, &e.Leaf, &mac); err != nil {
			return err
		}
		if k.Made = timeOf(made); !hmac.Equal(mac, k.mac(own, e)) {
			return fmt.Errorf("%w: an escrow key, or an epoch of it, is not one that was installed here", ErrCorrupt)
		}
		if len(id) != len(Digest{}) {
			return fmt.Errorf("%w: id of an escrow key", ErrCorrupt)
		}
		k.ID = Digest(id)
		if n := len(list); n == 0 || list[n-1].ID != k.ID {
			list = append(list, k)
		}
		last := &list[len(list)-1]
		last.Epochs = append(last.Epochs, e)
		return nil
	})
	return list, err
}

// mac is what an epoch's row is known by: of the key's record and time, and all of the epoch.
func (k EscrowKey) mac(own Secret, e EscrowEpoch) []byte {
	m := hmac.New(sha256.New, own.raw())
	m.Write(Label("escrow epoch", strconv.FormatInt(k.Made.UnixMilli(), 10), strconv.Itoa(e.Number), strconv.FormatInt(e.Leaf, 10)))
	for _, part := range [][]byte{k.Record, e.Octets, e.Statements} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write(part)
	}
	return m.Sum(nil)
}

// InstallEscrow brings the last of a key's epochs into force, and the key with its first, with leaf 8: public is the epoch's digest,
// payload that of the statements. ErrExists when that epoch, or a later one, is in force already.
func (v *Vault) InstallEscrow(ctx context.Context, k EscrowKey, public Digest, payload []byte, now time.Time) error {
	own, err := v.NamedKey(ctx, archiveKey)
	if err != nil {
		return err
	}
	defer own.Destroy()
	e := k.Epochs[len(k.Epochs)-1]
	k.Made = timeOf(now.UnixMilli())
	return v.updateKey(ctx, func(tx *Tx) error {
		var last int
		if err := tx.queryRow(`SELECT COALESCE(MAX(number), 0) FROM escrow_epochs WHERE key = ?`, []any{k.ID[:]}, &last); err != nil {
			return err
		}
		switch {
		case last >= e.Number:
			return fmt.Errorf("epoch %d: %w", e.Number, ErrExists)
		case last > 0:
			var made int64
			if err := tx.queryRow(`SELECT made FROM escrow_keys WHERE id = ?`, []any{k.ID[:]}, &made); err != nil {
				return err
			}
			k.Made = timeOf(made)
		default:
			if err := tx.exec(`INSERT INTO escrow_keys (id, purpose, record, made) VALUES (?, ?, ?, ?)`, k.ID[:], k.Purpose, k.Record, now.UnixMilli()); err != nil {
				return err
			}
		}
		o := newOpening(payload)
		leaf, err := tx.appendLeaf(Leaf{Type: LeafEpoch, Time: now, Archive: v.archive, Subject: ID(k.ID[:16]), Public: public, Commitment: o.Commit(LeafEpoch)})
		if err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO openings (idx, owner, opening) VALUES (?, ?, ?)`, leaf, k.ID[:16], o.octets()); err != nil {
			return err
		}
		for _, e := range k.Epochs { // a key that was reshared before it came here brings its whole chain
			if e.Number <= last {
				continue
			}
			e.Leaf = leaf
			if err := tx.exec(`INSERT INTO escrow_epochs (key, number, epoch, statements, leaf, mac) VALUES (?, ?, ?, ?, ?, ?)`,
				k.ID[:], e.Number, e.Octets, e.Statements, leaf, k.mac(own, e)); err != nil {
				return err
			}
		}
		return nil
	})
}

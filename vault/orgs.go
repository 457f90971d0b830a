package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dimegate/dmtp/key"
)

// An OrgKeyKind tells an organisation's keys apart.
type OrgKeyKind uint8

const (
	PrimaryKey    OrgKeyKind = 1 // POK, under the signing seal
	SecondaryKey  OrgKeyKind = 2 // SOK, under the signing seal
	EncryptionKey OrgKeyKind = 3 // under the host seal
)

func (k OrgKeyKind) String() string {
	switch k {
	case PrimaryKey:
		return "primary"
	case SecondaryKey:
		return "secondary"
	case EncryptionKey:
		return "encryption"
	}
	return "unknown"
}

// purpose tells by which root key a key of this kind opens.
func (k OrgKeyKind) purpose() Purpose {
	if k == EncryptionKey {
		return WrapHost
	}
	return WrapSigning
}

// OrgKeys are the keys of one organisation, any of which may be zero.
type OrgKeys struct {
	Primary    key.Signing
	Secondary  key.Signing
	Encryption key.Encryption
}

// An OrgKey is what the vault tells of a key without opening it.
type OrgKey struct {
	ID        ID
	Domain    string
	Kind      OrgKeyKind
	Public    []byte
	Made      time.Time
	Retired   time.Time // when another took its place; zero while it is the current one
	Destroyed time.Time
}

// CreateOrg keeps a new organisation's keys (the secondary may be zero) and its signet, in one commit. ErrExists when
// the domain has keys. The domain is in lower case.
func (v *Vault) CreateOrg(ctx context.Context, domain string, k OrgKeys, signet []byte, now time.Time) error {
	if k.Primary.IsZero() || k.Encryption.IsZero() || len(signet) == 0 {
		return fmt.Errorf("vault: an organisation needs a primary key, an encryption key and a signet")
	}
	return v.updateKey(ctx, func(tx *Tx) error {
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM org_keys WHERE domain = ?`, []any{domain}, &n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%w: keys of %s", ErrExists, domain)
		}
		if err := v.putOrgKeys(tx, domain, k, now); err != nil {
			return err
		}
		return putOrgSignet(tx, domain, 1, signet, now)
	})
}

// An OrgChange is a step in the life of an organisation's keys. What it names must be so in the vault, else nothing changes.
type OrgChange struct {
	Add     OrgKeys // new keys, where they are not zero, beside those of their kind: OrgSigning says which one signs
	Retire  []ID    // keys whose work is over; one of each kind at least stays
	Destroy []ID    // retired keys, whose private halves are destroyed
	Signet  []byte  // to be published; nil: none
	Number  int     // of Signet: one more than the domain has
}

// ChangeOrg takes the step in one commit, with a leaf for each key that it touches. ErrChanged: someone else was first.
func (v *Vault) ChangeOrg(ctx context.Context, domain string, c OrgChange, now time.Time) error {
	err := v.updateKey(ctx, func(tx *Tx) error {
		for _, id := range c.Retire {
			if err := v.endOrgKey(tx, domain, id, LeafKeyRetired, now); err != nil {
				return err
			}
		}
		for _, id := range c.Destroy {
			if err := v.endOrgKey(tx, domain, id, LeafKeyDestroyed, now); err != nil {
				return err
			}
		}
		if err := v.putOrgKeys(tx, domain, c.Add, now); err != nil {
			return err
		}
		if c.Signet == nil {
			return nil
		}
		return putOrgSignet(tx, domain, c.Number, c.Signet, now)
	})
	if err != nil || len(c.Destroy) == 0 {
		return err
	}
	return v.Scrub(ctx)
}

// endOrgKey retires a current key, or destroys a retired one.
func (v *Vault) endOrgKey(tx *Tx, domain string, id ID, leaf LeafType, now time.Time) error {
	set, state := `retired = ?`, `retired = 0`
	if leaf == LeafKeyDestroyed {
		set, state = `destroyed = ?`, `retired > 0 AND destroyed = 0`
	}
	var kind OrgKeyKind
	var public []byte
	err := tx.queryRow(`SELECT kind, public FROM org_keys WHERE id = ? AND domain = ? AND `+state, []any{id[:], domain}, &kind, &public)
	if errors.Is(err, ErrNotFound) {
		return ErrChanged
	} else if err != nil {
		return err
	}
	if leaf == LeafKeyDestroyed {
		if err := tx.dropWrap(id, kind.purpose()); err != nil {
			return err
		}
	}
	if err := tx.exec(`UPDATE org_keys SET `+set+` WHERE id = ?`, now.UnixMilli(), id[:]); err != nil {
		return err
	}
	return v.attestKey(tx, leaf, id, orgPayload(domain, kind, public), now)
}

func (v *Vault) putOrgKeys(tx *Tx, domain string, k OrgKeys, now time.Time) error {
	for _, s := range []struct {
		kind OrgKeyKind
		key  key.Signing
	}{{PrimaryKey, k.Primary}, {SecondaryKey, k.Secondary}} {
		if s.key.IsZero() {
			continue
		}
		p := s.key.Public()
		if err := v.putOrgKey(tx, domain, s.kind, p[:], v.signing, s.key.Seed(), now); err != nil {
			return err
		}
	}
	if k.Encryption.IsZero() {
		return nil
	}
	p := k.Encryption.Public().Bytes()
	return v.putOrgKey(tx, domain, EncryptionKey, p[:], v.host, k.Encryption.Scalar(), now)
}

func putOrgSignet(tx *Tx, domain string, number int, signet []byte, now time.Time) error {
	var last int
	if err := tx.queryRow(`SELECT COALESCE(MAX(number), 0) FROM org_signets WHERE domain = ?`, []any{domain}, &last); err != nil {
		return err
	}
	if number != last+1 {
		return ErrChanged
	}
	return tx.exec(`INSERT INTO org_signets (domain, number, signet, published) VALUES (?, ?, ?, ?)`, domain, number, signet, now.UnixMilli())
}

// putOrgKey adds a key. At most two of a kind are not retired: the one in use, and the one to come. It clears private.
func (v *Vault) putOrgKey(tx *Tx, domain string, kind OrgKeyKind, public []byte, root *Root, private []byte, now time.Time) error {
	s, err := SecretOf(private)
	clear(private)
	if err != nil {
		return err
	}
	defer s.Destroy()
	var living int
	if err := tx.queryRow(`SELECT COUNT(*) FROM org_keys WHERE domain = ? AND kind = ? AND retired = 0`, []any{domain, kind}, &living); err != nil {
		return err
	}
	if living > 1 {
		return ErrChanged
	}
	id := NewID(now)
	wrap, err := root.Wrap(s, orgLabel(domain, kind, id))
	if err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO org_keys (id, domain, kind, public, made) VALUES (?, ?, ?, ?, ?)`,
		id[:], domain, kind, public, now.UnixMilli()); err != nil {
		return err
	}
	if err := tx.putWrap(id, kind.purpose(), wrap); err != nil {
		return err
	}
	return v.attestKey(tx, LeafKeyMade, id, orgPayload(domain, kind, public), now)
}

func orgLabel(domain string, kind OrgKeyKind, id ID) []byte {
	return Label("org key", domain, kind.String(), string(id[:]))
}

func orgPayload(domain string, kind OrgKeyKind, public []byte) []byte {
	return Label("org", domain, kind.String(), string(public))
}

// OrgKeys lists the keys of a domain, oldest first; those of every domain when it is empty.
func (v *Vault) OrgKeys(ctx context.Context, domain string) ([]OrgKey, error) {
	var keys []OrgKey
	err := v.queryRows(ctx, `SELECT id, domain, kind, public, made, retired, destroyed FROM org_keys
		WHERE domain = ? OR ? = '' ORDER BY domain, made, kind`, []any{domain, domain}, func(s scanner) error {
		var k OrgKey
		var id []byte
		var made, retired, destroyed int64
		if err := s.Scan(&id, &k.Domain, &k.Kind, &k.Public, &made, &retired, &destroyed); err != nil {
			return err
		}
		if len(id) != len(ID{}) {
			return fmt.Errorf("%w: id of a key of %s", ErrCorrupt, k.Domain)
		}
		k.ID, k.Made, k.Retired, k.Destroyed = ID(id), timeOf(made), timeOf(retired), timeOf(destroyed)
		keys = append(keys, k)
		return nil
	})
	return keys, err
}

// orgWrap joins a key's wrap of a purpose.
const orgWrap = `LEFT JOIN wraps ON owner = id AND purpose = ? AND used = 1`

// OrgSigning opens the primary or secondary key that signs for a domain: of those that are not retired the oldest, since a newer
// one is yet to be known to others. The caller destroys it.
func (v *Vault) OrgSigning(ctx context.Context, domain string, kind OrgKeyKind) (key.Signing, error) {
	return v.orgSigning(ctx, domain, kind, `made, id`)
}

// OrgSuccessor opens the primary or secondary key that will sign next for a domain: the newest that is not retired, which is the one that
// signs now where there is no other. The caller destroys it.
func (v *Vault) OrgSuccessor(ctx context.Context, domain string, kind OrgKeyKind) (key.Signing, error) {
	return v.orgSigning(ctx, domain, kind, `made DESC, id DESC`)
}

func (v *Vault) orgSigning(ctx context.Context, domain string, kind OrgKeyKind, order string) (key.Signing, error) {
	if kind != PrimaryKey && kind != SecondaryKey {
		return key.Signing{}, fmt.Errorf("vault: %v is not a signing key", kind)
	}
	var id, public, wrap []byte
	err := v.queryRow(ctx, `SELECT id, public, wrap FROM org_keys `+orgWrap+` WHERE domain = ? AND kind = ? AND retired = 0 ORDER BY `+order+` LIMIT 1`,
		[]any{WrapSigning, domain, kind}, &id, &public, &wrap)
	if err != nil {
		return key.Signing{}, fmt.Errorf("%v key of %s: %w", kind, domain, err)
	}
	k, err := openSigning(v.signing, wrap, orgLabel(domain, kind, toID(id)))
	if err != nil {
		return key.Signing{}, fmt.Errorf("%v key of %s: %w", kind, domain, err)
	}
	if p := k.Public(); string(p[:]) != string(public) {
		k.Destroy()
		return key.Signing{}, fmt.Errorf("%v key of %s: %w: public key differs", kind, domain, ErrCorrupt)
	}
	return k, nil
}

// OrgEncryption opens every encryption key of a domain that is not destroyed, the current one first. The caller destroys
// them.
func (v *Vault) OrgEncryption(ctx context.Context, domain string) ([]key.Encryption, error) {
	var keys []key.Encryption
	err := v.queryRows(ctx, `SELECT id, public, wrap FROM org_keys `+orgWrap+` WHERE domain = ? AND kind = ? AND destroyed = 0
		ORDER BY made DESC, id DESC`, []any{WrapHost, domain, EncryptionKey}, func(s scanner) error {
		var id, public, wrap []byte
		if err := s.Scan(&id, &public, &wrap); err != nil {
			return err
		}
		k, err := openEncryption(v.host, wrap, orgLabel(domain, EncryptionKey, toID(id)))
		if err != nil {
			return err
		}
		keys = append(keys, k)
		if p := k.Public().Bytes(); string(p[:]) != string(public) {
			return fmt.Errorf("%w: public key differs", ErrCorrupt)
		}
		return nil
	})
	if err == nil && len(keys) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		for _, k := range keys {
			k.Destroy()
		}
		return nil, fmt.Errorf("encryption key of %s: %w", domain, err)
	}
	return keys, nil
}

// OrgSignets returns the signets that a domain published, the newest last.
func (v *Vault) OrgSignets(ctx context.Context, domain string) ([][]byte, error) {
	var list [][]byte
	err := v.queryRows(ctx, `SELECT signet FROM org_signets WHERE domain = ? ORDER BY number`, []any{domain}, func(s scanner) error {
		var b []byte
		err := s.Scan(&b)
		list = append(list, b)
		return err
	})
	return list, err
}

// openSigning unwraps an Ed25519 seed.
func openSigning(root *Root, wrap, label []byte) (key.Signing, error) {
	s, err := root.Unwrap(wrap, label)
	if err != nil {
		return key.Signing{}, err
	}
	defer s.Destroy()
	return key.NewSigning(s.raw())
}

// openEncryption unwraps a secp256k1 scalar.
func openEncryption(root *Root, wrap, label []byte) (key.Encryption, error) {
	s, err := root.Unwrap(wrap, label)
	if err != nil {
		return key.Encryption{}, err
	}
	defer s.Destroy()
	return encryptionOf(s.raw())
}

func encryptionOf(scalar []byte) (key.Encryption, error) {
	k, err := key.NewEncryption(scalar)
	if err != nil {
		return key.Encryption{}, fmt.Errorf("%w: not a key", ErrCorrupt)
	}
	return k, nil
}

// toID is the id in a column; zero, which names nothing, when the column is damaged.
func toID(b []byte) ID {
	if len(b) != len(ID{}) {
		return ID{}
	}
	return ID(b)
}

// timeOf reads a time column: Unix milliseconds, 0 for none.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

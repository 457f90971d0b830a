package vault

import (
	"context"
	"errors"
	"fmt"
)

// What follows looks at keys one by one, for those who look for damage.

// Addresses returns at most n addresses that have or had keys, after the one given, in order.
func (v *Vault) Addresses(ctx context.Context, after string, n int) ([]string, error) {
	var list []string
	err := v.queryRows(ctx, `SELECT DISTINCT address FROM user_keys WHERE address > ? ORDER BY address LIMIT ?`, []any{after, n}, func(s scanner) error {
		var a string
		err := s.Scan(&a)
		list = append(list, a)
		return err
	})
	return list, err
}

// HasWrap tells whether a key has a wrap of a purpose.
func (v *Vault) HasWrap(ctx context.Context, owner ID, p Purpose) (bool, error) {
	var n int
	err := v.queryRow(ctx, `SELECT COUNT(*) FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{owner[:], p}, &n)
	return n > 0, err
}

// OrgKeyOpens opens a domain's key, and tells why it does not: ErrNotFound without a wrap, ErrSealed, ErrWrongKey, ErrCorrupt.
func (v *Vault) OrgKeyOpens(ctx context.Context, k OrgKey) error {
	var wrap []byte
	err := v.queryRow(ctx, `SELECT wrap FROM wraps WHERE owner = ? AND purpose = ? AND used = 1`, []any{k.ID[:], k.Kind.purpose()}, &wrap)
	if err != nil {
		return err
	}
	label, public := orgLabel(k.Domain, k.Kind, k.ID), ""
	if k.Kind == EncryptionKey {
		s, err := openEncryption(v.host, wrap, label)
		if err != nil {
			return err
		}
		p := s.Public().Bytes()
		public = string(p[:])
		s.Destroy()
	} else {
		s, err := openSigning(v.signing, wrap, label)
		if err != nil {
			return err
		}
		p := s.Public()
		public = string(p[:])
		s.Destroy()
	}
	if public != string(k.Public) {
		return fmt.Errorf("%w: public key differs", ErrCorrupt)
	}
	return nil
}

// NamedKeysOpen opens every key of the vault's own, and tells which does not.
func (v *Vault) NamedKeysOpen(ctx context.Context) error {
	var errs []error
	err := v.queryRows(ctx, `SELECT name, wrap FROM named_keys ORDER BY name`, nil, func(s scanner) error {
		var name string
		var wrap []byte
		if err := s.Scan(&name, &wrap); err != nil {
			return err
		}
		k, err := v.host.Unwrap(wrap, v.namedLabel(name))
		if err != nil {
			errs = append(errs, fmt.Errorf("key %q: %w", name, err))
		}
		k.Destroy()
		return nil
	})
	return errors.Join(append(errs, err)...)
}

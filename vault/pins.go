package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

func (v *Vault) namedLabel(name string) []byte {
	return Label("named key", name, string(v.archive[:]))
}

// NamedKey returns the vault's own key of a name, made at first use and kept under the host seal. The caller destroys it.
// It stays in memory as the host's root key does, so that it is unwrapped once.
func (v *Vault) NamedKey(ctx context.Context, name string) (Secret, error) {
	v.namedMu.Lock()
	defer v.namedMu.Unlock()
	k, ok := v.named[name]
	if !ok {
		var err error
		if k, err = v.openNamedKey(ctx, name); err != nil {
			return Secret{}, fmt.Errorf("vault: key %q: %w", name, err)
		}
		if v.named == nil {
			v.named = map[string]Secret{}
		}
		v.named[name] = k
	}
	return SecretOf(k.raw())
}

func (v *Vault) openNamedKey(ctx context.Context, name string) (Secret, error) {
	label := v.namedLabel(name)
	var wrap []byte
	err := v.queryRow(ctx, `SELECT wrap FROM named_keys WHERE name = ?`, []any{name}, &wrap)
	if errors.Is(err, ErrNotFound) {
		err = v.update(ctx, func(tx *Tx) error {
			err := tx.queryRow(`SELECT wrap FROM named_keys WHERE name = ?`, []any{name}, &wrap)
			if !errors.Is(err, ErrNotFound) {
				return err
			}
			k := NewSecret()
			defer k.Destroy()
			if wrap, err = v.host.Wrap(k, label); err != nil {
				return err
			}
			return tx.exec(`INSERT INTO named_keys (name, wrap) VALUES (?, ?)`, name, wrap)
		})
	}
	if err != nil {
		return Secret{}, err
	}
	return v.host.Unwrap(wrap, label)
}

// A Pin is an entry about someone else's address: octets of its user's, and a time that may change.
type Pin struct {
	Octets  []byte
	Checked time.Time
}

// A Doubt is an entry that stands beside the pins of an address.
type Doubt struct {
	Subject []byte
	Since   time.Time
}

// pinToken is what stands for an address: whoever lacks the host seal cannot test a guess. The key comes with it.
func (v *Vault) pinToken(ctx context.Context, address string) ([]byte, Secret, error) {
	k, err := v.NamedKey(ctx, "pins")
	if err != nil {
		return nil, Secret{}, err
	}
	m := hmac.New(sha256.New, k.raw())
	m.Write([]byte("pin token\x00" + address))
	return m.Sum(nil)[:16], k, nil
}

// Pins returns what is pinned of an address, oldest first, and the doubt, if any.
func (v *Vault) Pins(ctx context.Context, address string) ([]Pin, *Doubt, error) {
	token, k, err := v.pinToken(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	defer k.Destroy()
	var pins []Pin
	err = v.queryRows(ctx, `SELECT number, pin, checked FROM pins WHERE token = ? ORDER BY number`, []any{token}, func(s scanner) error {
		var sealed []byte
		var number, checked int64
		if err := s.Scan(&number, &sealed, &checked); err != nil {
			return err
		}
		if number != int64(len(pins)) {
			return fmt.Errorf("%w: pin %d is missing", ErrCorrupt, len(pins))
		}
		octets, err := OpenOctets(k, PartPin, pinContext(token, len(pins)), sealed)
		if err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		pins = append(pins, Pin{octets, timeOf(checked)})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	var sealed []byte
	var since int64
	err = v.queryRow(ctx, `SELECT subject, since FROM doubts WHERE token = ?`, []any{token}, &sealed, &since)
	if errors.Is(err, ErrNotFound) {
		return pins, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	subject, err := OpenOctets(k, PartPin, doubtContext(token, since), sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("doubt: %w", err)
	}
	return pins, &Doubt{Subject: subject, Since: timeOf(since)}, nil
}

// doubtContext binds a doubt to its address and to the time since when it stands: with another time it would end too early.
func doubtContext(token []byte, since int64) []byte {
	return Label(string(token), "doubt", fmt.Sprint(since))
}

func pinContext(token []byte, number int) []byte { return Label(string(token), fmt.Sprint(number)) }

// AddPins appends pins and ends the doubt, if the address has exactly known pins now; else ErrChanged.
func (v *Vault) AddPins(ctx context.Context, address string, known int, pins []Pin) error {
	token, k, err := v.pinToken(ctx, address)
	if err != nil {
		return err
	}
	defer k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM pins WHERE token = ?`, []any{token}, &n); err != nil {
			return err
		}
		if n != known {
			return ErrChanged
		}
		for i, p := range pins {
			sealed := SealOctets(k, PartPin, pinContext(token, n+i), p.Octets)
			if err := tx.exec(`INSERT INTO pins (token, number, pin, checked) VALUES (?, ?, ?, ?)`, token, n+i, sealed, p.Checked.UnixMilli()); err != nil {
				return err
			}
		}
		return tx.exec(`DELETE FROM doubts WHERE token = ?`, token)
	})
}

// SetPinChecked changes the time of an address's last pin.
func (v *Vault) SetPinChecked(ctx context.Context, address string, at time.Time) error {
	token, k, err := v.pinToken(ctx, address)
	if err != nil {
		return err
	}
	k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		return tx.exec(`UPDATE pins SET checked = ? WHERE token = ? AND number = (SELECT MAX(number) FROM pins WHERE token = ?)`,
			at.UnixMilli(), token, token)
	})
}

// SetDoubt replaces the doubt about an address and returns the one that stands: the older one, when it is about the same.
func (v *Vault) SetDoubt(ctx context.Context, address string, d Doubt) (Doubt, error) {
	token, k, err := v.pinToken(ctx, address)
	if err != nil {
		return Doubt{}, err
	}
	defer k.Destroy()
	stands := d
	err = v.update(ctx, func(tx *Tx) error {
		stands = d
		var sealed []byte
		var since int64
		err := tx.queryRow(`SELECT subject, since FROM doubts WHERE token = ?`, []any{token}, &sealed, &since)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil {
			subject, err := OpenOctets(k, PartPin, doubtContext(token, since), sealed)
			if err != nil {
				return fmt.Errorf("doubt: %w", err)
			}
			if string(subject) == string(d.Subject) {
				stands.Since = timeOf(since)
				return nil
			}
		}
		sealed = SealOctets(k, PartPin, doubtContext(token, d.Since.UnixMilli()), d.Subject)
		return tx.exec(`INSERT INTO doubts (token, subject, since) VALUES (?, ?, ?)
			ON CONFLICT (token) DO UPDATE SET subject = excluded.subject, since = excluded.since`, token, sealed, d.Since.UnixMilli())
	})
	return stands, err
}

// ForgetPins removes all pins of an address, and the doubt, by an administrator's decision: its payload goes into the log in
// the same commit. What is damaged is forgotten, too. ErrNotFound when there is nothing to forget.
func (v *Vault) ForgetPins(ctx context.Context, address string, payload []byte, now time.Time) error {
	token, k, err := v.pinToken(ctx, address)
	if err != nil {
		return err
	}
	k.Destroy()
	return v.update(ctx, func(tx *Tx) error {
		pins, err := tx.change(`DELETE FROM pins WHERE token = ?`, token)
		if err != nil {
			return err
		}
		doubts, err := tx.change(`DELETE FROM doubts WHERE token = ?`, token)
		if err != nil {
			return err
		}
		if pins+doubts == 0 {
			return ErrNotFound
		}
		return v.attestKey(tx, LeafTrust, ID(token), payload, now)
	})
}

// Package keystore joins trustful to the vault: the keys of our users.
package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/trustful"
	"dimegate/vault"
)

// Keys is a trustful.Store on a vault. Now is the clock for what is destroyed; nil is time.Now. Escrow escrows encryption keys as they are
// made; nil: they are not.
type Keys struct {
	Vault  *vault.Vault
	Now    func() time.Time
	Escrow vault.KeyEscrowFunc
}

var _ trustful.Store = Keys{}

// Generations returns every generation of an address, oldest first; trustful.ErrDisabled.
func (k Keys) Generations(ctx context.Context, address string) ([]trustful.Generation, error) {
	if since, err := k.Vault.Disabled(ctx, address); err != nil {
		return nil, err
	} else if !since.IsZero() {
		return nil, fmt.Errorf("%w since %s", trustful.ErrDisabled, since.Format(time.DateOnly))
	}
	list, err := k.Vault.UserKeys(ctx, address)
	if err != nil {
		return nil, err
	}
	var g []trustful.Generation
	for _, u := range list {
		g = append(g, trustful.Generation{Number: u.Number, Signet: u.Signet, Made: u.Made, Retired: u.Retired, Destroyed: u.Destroyed, Held: u.Held})
	}
	return g, nil
}

// Append adds a generation; see trustful.Store.
func (k Keys) Append(ctx context.Context, address string, g trustful.Generation, keys trustful.Keys) error {
	if g.Held {
		return named(k.Vault.AdmitUserKey(ctx, vault.UserKey{Address: address, Number: g.Number, Signet: g.Signet, Made: g.Made}))
	}
	layer, err := encodeLayers(keys.Layers)
	if err != nil {
		return err
	}
	defer clear(layer)
	err = k.Vault.AppendUserKey(ctx, vault.UserKey{Address: address, Number: g.Number, Signet: g.Signet, Made: g.Made}, vault.UserSecrets{Pair: keys.Pair, Layer: layer, Escrow: k.Escrow})
	return named(err)
}

// Vouched notes what a current signing key signs; see trustful.Store.
func (k Keys) Vouched(ctx context.Context, address string, number int, request []byte, at time.Time) error {
	return named(k.Vault.VouchUserKey(ctx, address, number, request, at))
}

// Signing opens the current signing key.
func (k Keys) Signing(ctx context.Context, address string, number int) (key.Signing, error) {
	s, err := k.Vault.UserSigning(ctx, address, number)
	return s, named(err)
}

// Encryption opens the encryption key of a generation.
func (k Keys) Encryption(ctx context.Context, address string, number int) (key.Encryption, error) {
	e, err := k.Vault.UserEncryption(ctx, address, number)
	return e, named(err)
}

// Layers opens the alternate layer's keys of a generation.
func (k Keys) Layers(ctx context.Context, address string, number int) ([]message.LayerKey, error) {
	octets, err := k.Vault.UserLayer(ctx, address, number)
	if err != nil {
		return nil, named(err)
	}
	defer clear(octets)
	return decodeLayers(octets)
}

// Aged lists whose keys are due; see trustful.Store.
func (k Keys) Aged(ctx context.Context, madeBefore, bareBefore time.Time, after string, n int) ([]string, error) {
	return k.Vault.AgedUsers(ctx, madeBefore, bareBefore, after, n)
}

// DestroyEncryption destroys the encryption keys of what was retired before a moment.
func (k Keys) DestroyEncryption(ctx context.Context, retiredBefore time.Time) (int, error) {
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	return k.Vault.DestroyUserKeys(ctx, retiredBefore, now())
}

// named gives the vault's errors trustful's names, and keeps them beside.
func named(err error) error {
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDestroyed):
		return errors.Join(trustful.ErrNoKeys, err)
	case errors.Is(err, vault.ErrChanged):
		return errors.Join(trustful.ErrConflict, err)
	}
	return err
}

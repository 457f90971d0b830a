package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"dimegate/dmtp/resolver"
	"dimegate/vault"
)

// DomainPins is a resolver.Store on a vault: what is known of other organisations.
type DomainPins struct{ Vault *vault.Vault }

const domainPin = "domain pin"

// Pin returns what is known of a domain; nil when nothing is.
func (p DomainPins) Pin(ctx context.Context, domain string) (*resolver.Pin, error) {
	b, err := p.Vault.Note(ctx, domainPin, domain)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pin := new(resolver.Pin)
	if err := json.Unmarshal(b, pin); err != nil {
		return nil, fmt.Errorf("pin of %s: %w", domain, err)
	}
	return pin, nil
}

// SetPin keeps a pin.
func (p DomainPins) SetPin(ctx context.Context, pin *resolver.Pin) error {
	b, err := json.Marshal(pin)
	if err != nil {
		return err
	}
	return p.Vault.SetNote(ctx, domainPin, pin.Domain, b)
}

// Pins lists every domain that is known.
func (p DomainPins) Pins(ctx context.Context) ([]*resolver.Pin, error) {
	names, err := p.Vault.NoteNames(ctx, domainPin)
	if err != nil {
		return nil, err
	}
	var list []*resolver.Pin
	for _, n := range names {
		pin, err := p.Pin(ctx, n)
		if err != nil {
			return nil, err
		}
		list = append(list, pin)
	}
	return list, nil
}

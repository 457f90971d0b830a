package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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
	return readPin(domain, b)
}

func readPin(domain string, b []byte) (*resolver.Pin, error) {
	pin := new(resolver.Pin)
	err := json.Unmarshal(b, pin)
	if err == nil {
		err = pin.Check()
	}
	if err == nil && pin.Domain != domain {
		err = errors.New("is another domain's")
	}
	if err != nil {
		return nil, fmt.Errorf("pin of %s: %w", domain, err)
	}
	return pin, nil
}

// SetPin keeps a pin unless another was written since this one was read.
func (p DomainPins) SetPin(ctx context.Context, pin *resolver.Pin) error {
	if err := pin.Check(); err != nil {
		return err
	}
	next := *pin
	next.Version++
	err := p.Vault.UpdateNote(ctx, domainPin, pin.Domain, func(b []byte) ([]byte, error) {
		stands := &resolver.Pin{}
		if b != nil {
			var err error
			if stands, err = readPin(pin.Domain, b); err != nil {
				return nil, err
			}
		}
		if stands.Version != pin.Version {
			return nil, resolver.ErrConflict
		}
		return json.Marshal(&next)
	})
	if err == nil {
		pin.Version = next.Version
	}
	return err
}

// A Decision is what an administrator decided about a domain, as the log keeps it.
type Decision struct {
	Domain string    `json:"domain"`
	What   string    `json:"what"`
	Until  time.Time `json:"until,omitzero"`
	By     string    `json:"by"`
	Why    string    `json:"why"`
}

// Decide changes the pin of a domain, an empty one when there is none, and logs the decision in the same commit. When
// change returns false the pin is dropped.
func (p DomainPins) Decide(ctx context.Context, d Decision, now time.Time, change func(*resolver.Pin) (keep bool, err error)) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return p.Vault.DecideNote(ctx, domainPin, d.Domain, payload, now, func(b []byte) ([]byte, error) {
		pin := &resolver.Pin{Domain: d.Domain}
		if b != nil {
			read, err := readPin(d.Domain, b)
			if err != nil && d.What != Forget {
				return nil, err
			} else if err == nil {
				pin = read
			} else {
				pin.Version = 1 // there is something to forget
			}
		}
		if keep, err := change(pin); err != nil || !keep {
			return nil, err
		}
		pin.Version++
		if err := pin.Check(); err != nil {
			return nil, err
		}
		return json.Marshal(pin)
	})
}

// Forget is the Decision that drops a pin, also one that cannot be read.
const Forget = "forget"

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

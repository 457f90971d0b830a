package keystore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// Pins is a trustful.PinStore on a vault.
type Pins struct {
	Vault *vault.Vault
}

var _ trustful.PinStore = Pins{}

// Pins returns what was accepted for an address, oldest first, and the doubt, if any.
func (p Pins) Pins(ctx context.Context, address string) ([]trustful.Pin, *trustful.Doubt, error) {
	list, doubt, err := p.Vault.Pins(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	var pins []trustful.Pin
	for _, v := range list {
		pin, err := decodePin(v)
		if err != nil {
			return nil, nil, err
		}
		pins = append(pins, pin)
	}
	if doubt == nil {
		return pins, nil, nil
	}
	d, err := decodeDoubt(*doubt)
	return pins, &d, err
}

// AddPins appends pins and ends the doubt; see trustful.PinStore.
func (p Pins) AddPins(ctx context.Context, address string, known int, pins []trustful.Pin) error {
	var list []vault.Pin
	for _, pin := range pins {
		list = append(list, vault.Pin{Octets: encodePin(pin), Checked: pin.Checked})
	}
	return named(p.Vault.AddPins(ctx, address, known, list))
}

// Checked notes that the last pin was seen to be current.
func (p Pins) Checked(ctx context.Context, address string, at time.Time) error {
	return p.Vault.SetPinChecked(ctx, address, at)
}

// SetDoubt replaces the doubt about an address and returns the one that stands.
func (p Pins) SetDoubt(ctx context.Context, address string, d trustful.Doubt) (trustful.Doubt, error) {
	stands, err := p.Vault.SetDoubt(ctx, address, vault.Doubt{Subject: d.Crypto[:], Since: d.Since})
	if err != nil {
		return trustful.Doubt{}, err
	}
	return decodeDoubt(stands)
}

// Forget removes all that is known of an address, and logs the decision in the same commit. The log names the domain alone.
func (p Pins) Forget(ctx context.Context, address string, d Decision, now time.Time) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return p.Vault.ForgetPins(ctx, address, payload, now)
}

// A pin's octets: version 1 ‖ how u8 ‖ accepted u64 in Unix milliseconds ‖ three fingerprints 64 each ‖ signet.
const (
	pinVersion = 1
	pinHeader  = 1 + 1 + 8 + 3*len(signet.Fingerprint{})
)

func encodePin(p trustful.Pin) []byte {
	b := []byte{pinVersion, byte(p.How)}
	b = binary.BigEndian.AppendUint64(b, uint64(p.Accepted.UnixMilli()))
	b = append(b, p.Crypto[:]...)
	b = append(b, p.Full[:]...)
	b = append(b, p.ID[:]...)
	return append(b, p.Signet...)
}

func decodePin(v vault.Pin) (trustful.Pin, error) {
	b := v.Octets
	if len(b) <= pinHeader || b[0] != pinVersion {
		return trustful.Pin{}, fmt.Errorf("keystore: pin: %w", vault.ErrCorrupt)
	}
	const n = len(signet.Fingerprint{})
	return trustful.Pin{
		How:      trustful.How(b[1]),
		Accepted: time.UnixMilli(int64(binary.BigEndian.Uint64(b[2:]))).UTC(),
		Crypto:   signet.Fingerprint(b[10:]),
		Full:     signet.Fingerprint(b[10+n:]),
		ID:       signet.Fingerprint(b[10+2*n:]),
		Signet:   b[pinHeader:],
		Checked:  v.Checked,
	}, nil
}

func decodeDoubt(d vault.Doubt) (trustful.Doubt, error) {
	if len(d.Subject) != len(signet.Fingerprint{}) {
		return trustful.Doubt{}, fmt.Errorf("keystore: doubt: %w", vault.ErrCorrupt)
	}
	return trustful.Doubt{Crypto: signet.Fingerprint(d.Subject), Since: d.Since}, nil
}

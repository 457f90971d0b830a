package appliance

import (
	"context"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// EncryptionKey opens the current encryption key of one of our addresses, or of the domain when the address is empty: for
// who shows what a message looks like to its readers. The caller destroys it, if it is an address's.
func (a *Appliance) EncryptionKey(ctx context.Context, domain, address string) (key.Encryption, error) {
	t, err := a.tenants.named(domain)
	if err != nil {
		return key.Encryption{}, err
	}
	if address == "" {
		o, err := t.orgs.get(domain)
		if err != nil {
			return key.Encryption{}, err
		}
		return o.encryption[0], nil
	}
	all, err := t.vault.UserKeys(ctx, address)
	if err != nil {
		return key.Encryption{}, err
	}
	return t.vault.UserEncryption(ctx, address, len(all))
}

// LayerKeys opens the current keys of the alternate layer of one of our addresses, for the same; none for a domain, whose address
// is empty.
func (a *Appliance) LayerKeys(ctx context.Context, address string) ([]message.LayerKey, error) {
	if address == "" {
		return nil, nil
	}
	t, err := a.tenants.named(address)
	if err != nil {
		return nil, err
	}
	all, err := t.vault.UserKeys(ctx, address)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return keystore.Keys{Vault: t.vault.Vault}.Layers(ctx, address, len(all))
}

// Signet is the current signet of a domain or address of ours.
func (a *Appliance) Signet(ctx context.Context, name string) (*signet.Signet, error) {
	return a.tenants.Current(ctx, name)
}

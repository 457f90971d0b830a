package appliance

import (
	"context"
	"errors"

	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// directory shows our signets to whoever asks: dmtpserver's view of the keeper.
type directory struct{ keeper *trustful.Keeper }

func (d directory) Current(ctx context.Context, name string) (*signet.Signet, error) {
	s, err := d.keeper.Current(ctx, name)
	return s, notFound(err)
}

func (d directory) Chain(ctx context.Context, name string) ([]*signet.Signet, error) {
	list, err := d.keeper.Chain(ctx, name)
	return list, notFound(err)
}

func notFound(err error) error {
	if errors.Is(err, trustful.ErrNoUser) || errors.Is(err, trustful.ErrNotOurs) {
		return errors.Join(dmtpserver.ErrNotFound, err)
	}
	return err
}

// Organization is dmtpserver's view of a domain of ours: every encryption key with the signet that shows it.
func (all organizations) Organization(_ context.Context, domain string) (*dmtpserver.Organization, error) {
	o, err := all.get(domain)
	if err != nil {
		return nil, dmtpserver.ErrNotFound
	}
	shown := &dmtpserver.Organization{}
	for _, k := range o.encryption {
		for i := len(o.signets) - 1; i >= 0; i-- { // the newest that shows the key
			if o.signets[i].EncryptionKey() == k.Public() {
				shown.Keys = append(shown.Keys, dmtpserver.OrganizationKey{Signet: o.signets[i], Key: k})
				break
			}
		}
	}
	return shown, nil
}
